use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::client::commands::test_support::{TestClient, content, file, local_content, user};
use crate::client::control::RequestError;
use crate::client::download::{DownloadError, DownloadOutcome, OnExists};
use crate::client::exit_code::ExitCode;
use crate::common::message::AvailableContent;
use crate::common::types::{Audience, Content, FileName, UsersDigest};

#[test]
fn results_come_in_the_order_of_the_request() {
    let client = TestClient::logged_in();
    client.found("a", 1, 1);
    client.found("b", 2, 1);
    client.script().outcomes.insert(file("b"), || DownloadOutcome::Failed(DownloadError::Transfer("all gone".into())));
    let (code, out, err) = client.run("get a missing b a");
    let lines = "a downloaded successfully\nFile not found\nb download failed\na downloaded successfully\n";
    assert_eq!((code, out.as_str()), (ExitCode::NotFound, lines));
    assert_eq!(err, "client: missing: no active peer has published it\nclient: b: all gone\n");
    let fetched = client.calls().into_iter().filter(|call| call.starts_with("fetch")).count();
    assert_eq!(fetched, 2, "each is fetched once");
}

#[test]
fn every_outcome_has_its_line_and_status() {
    type Case = (fn() -> DownloadOutcome, &'static str, ExitCode);
    let cases: [Case; 9] = [
        (|| DownloadOutcome::Saved { name: file("a (1)") }, "a (1) downloaded successfully\n", ExitCode::Success),
        (|| DownloadOutcome::Skipped, "", ExitCode::Success),
        (|| DownloadOutcome::Failed(DownloadError::NotFound), "File not found\n", ExitCode::NotFound),
        (|| DownloadOutcome::Failed(DownloadError::HashMismatch), "a download failed\n", ExitCode::HashMismatch),
        (|| DownloadOutcome::Failed(DownloadError::Exists), "a download failed\n", ExitCode::LocalFile),
        (|| DownloadOutcome::Failed(DownloadError::Locked), "a download failed\n", ExitCode::LocalFile),
        (|| DownloadOutcome::Failed(DownloadError::DiskFull), "a download failed\n", ExitCode::DiskFull),
        (|| DownloadOutcome::Failed(DownloadError::Interrupted), "a download failed\n", ExitCode::Interrupted),
        (|| DownloadOutcome::Failed(RequestError::Unreachable.into()), "a download failed\n", ExitCode::Unreachable),
    ];
    for (outcome, line, status) in cases {
        let client = TestClient::logged_in();
        client.found("a", 1, 1);
        client.script().outcomes.insert(file("a"), outcome);
        let (code, out, err) = client.run("get a");
        assert_eq!((code, out.as_str()), (status, line));
        assert_eq!(err.lines().count(), usize::from(!status.is_success()), "{err}");
    }
}

#[test]
fn names_are_case_sensitive_and_invalid_names_are_not_found() {
    let client = TestClient::logged_in();
    client.found("Assignment.pdf", 1, 1);
    assert_eq!(client.run("get assignment.pdf").1, "File not found\n");
    assert_eq!(client.run(&format!("get {}", "x".repeat(300))).1, "File not found\n");
    assert_eq!(client.run("get 'a\x1bb'").2, "client: a\\u{1b}b: no active peer has published it\n");
}

#[test]
fn of_several_contents_the_one_with_most_sources_is_taken() {
    let client = TestClient::logged_in();
    client.found("a", 0x11, 1);
    client.found("a", 0x22, 3);
    client.found("a", 0x33, 3);
    let (code, out, err) = client.run("get a");
    assert_eq!((code, out.as_str()), (ExitCode::Success, "a downloaded successfully\n"));
    assert!(client.calls().contains(&format!("fetch a {}", 0x22)));
    assert_eq!(err.lines().count(), 2);
    assert!(err.contains("taking #22222222; there is also a#11111111 (17 bytes, sources: 1)"), "{err}");
    assert_eq!(client.run("get a#3333").2, "");
    assert!(client.calls().contains(&format!("fetch a {}", 0x33)));
    assert_eq!(client.run("get a#4444").0, ExitCode::NotFound);
    assert_eq!(client.run("get a#333").0, ExitCode::NotFound);
}

#[test]
fn a_hash_published_with_another_size_does_not_displace_the_oldest() {
    let client = TestClient::logged_in();
    for (size, sources, age_s) in [(9, 1, 50), (10, 1, 60), (11, 1, 50)] {
        let content = Content { size, ..content(0x11) };
        let (name, users) = (file("a"), UsersDigest::default());
        client.script().found.push(AvailableContent { name, content, sources, age_s, users });
    }
    let (code, _, err) = client.run("get a");
    assert_eq!(code, ExitCode::Success);
    assert!(client.calls().contains(&"fetch a 10".into()), "the oldest of equals");
    assert_eq!(err.lines().count(), 2);
    let note = "a: taking #11111111 with 10 bytes; also published with 11 bytes (sources: 1)";
    assert!(err.contains(note), "{err}");
    client.script().found[2].sources = 2;
    client.run("get a#1111");
    assert!(client.calls().contains(&"fetch a 11".into()), "the one with the most sources");
}

#[test]
fn a_file_of_exactly_that_name_wins_over_a_hash() {
    let client = TestClient::logged_in();
    client.found("a", 0x11, 1);
    client.found("a#1111", 0x22, 1);
    assert_eq!(client.run("get a#1111").1, "a#1111 downloaded successfully\n");
}

#[test]
fn patterns_and_folders_leave_out_hidden_and_private_files() {
    let client = TestClient::logged_in();
    for name in [".h.pdf", "a.pdf", "b.pdf", "credentials.txt", "r[1].txt", "x/.git/k", "x/a", "x/y/b"] {
        client.found(name, 1, 1);
    }
    assert_eq!(client.run("get *.pdf").1, "a.pdf downloaded successfully\nb.pdf downloaded successfully\n");
    assert_eq!(client.run("get x/").1, "x/a downloaded successfully\nx/y/b downloaded successfully\n");
    assert_eq!(client.run("get cred*").1, "File not found\n");
    assert_eq!(client.run("get '*.pdf'").1, "File not found\n");
    assert_eq!(client.run("get r[1].txt").1, "r[1].txt downloaded successfully\n");
    assert_eq!(client.run("get .h.pdf").1, ".h.pdf downloaded successfully\n");
    assert_eq!(client.run("get *.nothing").0, ExitCode::NotFound);
}

#[test]
fn an_unreachable_server_fails_every_name() {
    let client = TestClient::logged_in();
    client.script().down = Some(RequestError::Unreachable);
    let lines = "a download failed\nb download failed\n";
    let expected = (ExitCode::Unreachable, lines.into(), "client: the server does not answer\n".into());
    assert_eq!(client.run("get a b"), expected);
    client.script().down = Some(RequestError::NotAuthenticated);
    assert_eq!(client.run("get a b").1, "Please authenticate first\n");
}

#[test]
fn share_publishes_files_saved_under_their_own_names() {
    let client = TestClient::logged_in();
    for name in ["a", "b", "c"] {
        client.found(name, 1, 1);
    }
    client.script().outcomes.insert(file("b"), || DownloadOutcome::Saved { name: file("b (1)") });
    client.script().outcomes.insert(file("c"), || DownloadOutcome::Failed(DownloadError::HashMismatch));
    let (code, _, _) = client.run("get --share a b c");
    assert_eq!(code, ExitCode::HashMismatch);
    let published: Vec<String> = client.calls().into_iter().filter(|call| call.starts_with("publish")).collect();
    assert_eq!(published, ["publish a Inherited { owners: [\"yoda\"] }"]);
    let audience = Audience::only(vec![user("yoda")]);
    assert_eq!(client.served()[&file("a")], (content(1), audience));
}

/// Runs `get --share` of one large file with this outcome. Returns the requests to publish, and what is published in the
/// end.
fn share_large(client: &TestClient, outcome: fn() -> DownloadOutcome) -> (Vec<String>, Vec<FileName>) {
    client.found("movie", 1, 1);
    client.script().arriving.insert(file("movie"));
    client.script().outcomes.insert(file("movie"), outcome);
    client.calls();
    client.run("get --share movie");
    let calls = client.calls().into_iter();
    let published = calls.filter(|call| call.starts_with("publish")).collect();
    let state = client.script();
    assert!(client.served().keys().eq(state.own.keys()), "what is published is served");
    (published, state.own.keys().cloned().collect())
}

fn gone() -> DownloadOutcome {
    DownloadOutcome::Failed(DownloadError::Transfer("all gone".into()))
}

#[test]
fn an_incomplete_file_is_published_and_withdrawn_if_its_download_fails() {
    let early = ["publish movie Inherited { owners: [\"yoda\"] }".to_string()];
    let whole = share_large(&TestClient::logged_in(), || DownloadOutcome::Saved { name: file("movie") });
    assert_eq!(whole, (early.to_vec(), vec![file("movie")]));
    assert_eq!(share_large(&TestClient::logged_in(), gone), (early.to_vec(), Vec::new()));
}

#[test]
fn a_file_of_several_owners_is_published_for_those_who_may_see_it_at_all_of_them() {
    let client = TestClient::logged_in();
    client.script().owners.insert(file("movie"), ["hans", "yoda"].map(user).to_vec());
    let (published, _) = share_large(&client, || DownloadOutcome::Saved { name: file("movie") });
    let last = published.last().map(String::as_str);
    assert_eq!(last, Some("publish movie Inherited { owners: [\"hans\", \"yoda\"] }"), "{published:?}");
    client.found("small", 1, 1);
    client.script().owners.insert(file("small"), vec![user("hans")]);
    client.calls();
    client.run("get --share small");
    assert!(client.calls().contains(&"publish small Inherited { owners: [\"hans\"] }".to_owned()));
}

#[test]
fn a_file_that_nobody_has_delivered_is_not_shared() {
    let client = TestClient::logged_in();
    client.script().owners.extend([(file("movie"), vec![]), (file("a"), vec![])]);
    let (published, own) = share_large(&client, || DownloadOutcome::Saved { name: file("movie") });
    assert!(published.is_empty() && own.is_empty(), "{published:?}");
    client.found("a", 1, 1);
    let (code, _, err) = client.run("get --share a");
    assert_eq!(code, ExitCode::Success);
    assert!(err.contains("a: not shared: "), "{err}");
    assert!(client.served().is_empty());
}

#[test]
fn only_incomplete_files_are_held_open() {
    let client = TestClient::logged_in();
    let gone = file("gone");
    for name in ["a", "b", "gone"] {
        client.found(name, 1, 1);
        client.script().arriving.insert(file(name));
    }
    client.script().outcomes.insert(gone, self::gone);
    client.run("get --share a b gone");
    assert_eq!(client.script().held_after, 0);
}

#[test]
fn a_cancellation_ends_the_wait_for_an_unreachable_server() {
    let client = TestClient::logged_in();
    client.found("movie", 1, 1);
    client.script().arriving.insert(file("movie"));
    client.script().away = true;
    let _busy = client.context.state.begin_command();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while client.script().batches.is_empty() {
                std::thread::yield_now();
            }
            client.context.state.cancel();
        });
        assert_eq!(client.run("get --share movie").0, ExitCode::Interrupted);
    });
    client.script().away = false;
}

#[test]
fn an_unreachable_server_gets_one_early_and_one_final_request() {
    let client = TestClient::logged_in();
    let names = ["a", "b", "c", "d"];
    for name in names {
        client.found(name, 1, 1);
        client.script().arriving.insert(file(name));
    }
    client.script().down_to_publish = true;
    let (code, _, err) = client.run("get --share a b c d");
    assert_eq!((code, err.lines().count()), (ExitCode::Unreachable, 1), "{err}");
    let batches = std::mem::take(&mut client.script().batches);
    assert_eq!((batches.len(), batches[1]), (2, 4), "{batches:?}");
}

#[test]
fn sharing_one_file_requests_no_other_publication() {
    let client = TestClient::logged_in();
    for at in 0..100 {
        client.local(&format!("own-{at}"), 9);
    }
    client.run("pub *");
    let (published, _) = share_large(&client, || DownloadOutcome::Saved { name: file("movie") });
    assert_eq!(published.len(), 1);
    assert_eq!(client.script().audiences, 1);
    assert_eq!(client.script().lists, 1, "that of the login");
}

#[test]
fn share_never_replaces_or_withdraws_the_users_own_publication() {
    let own = |client: &TestClient| {
        client.local("movie", 9);
        client.run("pub movie");
    };
    let kept = (Vec::new(), vec![file("movie")]);
    // The file exists.
    let mut client = TestClient::logged_in();
    client.context.download_options.on_exists = OnExists::Overwrite;
    own(&client);
    assert_eq!(share_large(&client, gone), kept);
    // It does not, but it is published.
    let client = TestClient::logged_in();
    own(&client);
    std::fs::remove_file(client.dir.path().join("movie")).unwrap();
    assert_eq!(share_large(&client, gone), kept);
    // The download is saved under another name.
    let mut client = TestClient::logged_in();
    client.context.download_options.on_exists = OnExists::Rename;
    own(&client);
    assert_eq!(share_large(&client, || DownloadOutcome::Saved { name: file("movie (1)") }), kept);
    assert_eq!(client.script().own[&file("movie")].0, local_content(9));
}

#[test]
fn without_share_nothing_is_published() {
    let client = TestClient::logged_in();
    client.found("a", 1, 1);
    client.run("get a");
    assert!(client.script().own.is_empty() && client.served().is_empty());
}

#[test]
fn a_signal_stops_the_download() {
    let client = TestClient::logged_in();
    client.found("a", 1, 1);
    client.context.state.close();
    assert_eq!(client.run("get a").0, ExitCode::Interrupted);
}

#[test]
fn a_name_of_another_unicode_form_is_found_and_saved_as_published() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let client = TestClient::logged_in();
    client.found(decomposed, 0x11, 1);
    assert_eq!(client.run(&format!("get {composed}")).1, format!("{decomposed} downloaded successfully\n"));
    assert_eq!(client.run(&format!("get {composed}#1111")).1, format!("{decomposed} downloaded successfully\n"));
    assert_eq!(client.run(&format!("get {composed}#2222")).0, ExitCode::NotFound);
    assert_eq!(client.run("get caf?").1, format!("{decomposed} downloaded successfully\n"));
    assert_eq!(client.run("get cafe").0, ExitCode::NotFound);
    client.found(composed, 0x22, 1);
    assert_eq!(client.run(&format!("get {composed}")).1, format!("{composed} downloaded successfully\n"));
    assert_eq!(client.run(&format!("get {decomposed}")).1, format!("{decomposed} downloaded successfully\n"));
}

#[test]
fn a_name_of_another_form_is_not_saved_beside_the_file_asked_for() {
    let client = TestClient::logged_in();
    client.found("cafe\u{301}", 0x11, 1);
    client.local("caf\u{e9}", 9);
    let (code, out, err) = client.run("get caf\u{e9}");
    assert_eq!((code, out.as_str()), (ExitCode::LocalFile, "caf\u{e9} download failed\n"));
    assert!(err.contains("differs from it only in the Unicode form"), "{err}");
    assert!(!client.calls().iter().any(|call| call.starts_with("fetch")));
}

fn changed() -> DownloadOutcome {
    DownloadOutcome::Failed(DownloadError::Changed("hans: the file was changed after it was published".into()))
}

#[test]
fn when_all_sources_have_changed_the_file_the_next_content_is_taken() {
    static IS_FIRST: AtomicBool = AtomicBool::new(true);
    let client = TestClient::logged_in();
    for (byte, sources) in [(0x11, 1), (0x22, 3), (0x33, 2)] {
        client.found("a", byte, sources);
    }
    client.found("b", 0x44, 1);
    client.script().outcomes.insert(file("a"), || match IS_FIRST.swap(false, Relaxed) {
        true => changed(),
        false => DownloadOutcome::Saved { name: file("a") },
    });
    let (code, out, err) = client.run("get a b");
    assert_eq!((code, out.as_str()), (ExitCode::Success, "a downloaded successfully\nb downloaded successfully\n"));
    assert!(err.ends_with("client: a: its sources have changed the file; taking a#33333333\n"), "{err}");
    let fetched = |client: &TestClient| -> Vec<String> {
        client.calls().into_iter().filter_map(|call| Some(call.strip_prefix("fetch ")?.to_owned())).collect()
    };
    assert_eq!(fetched(&client), [format!("b {}", 0x44), format!("a {}", 0x22), format!("a {}", 0x33)]);

    client.script().outcomes.insert(file("a"), changed);
    let (code, out, _) = client.run("get a");
    assert_eq!((code, out.as_str()), (ExitCode::TransferFailed, "a download failed\n"));
    assert_eq!(fetched(&client), [0x22, 0x33, 0x11].map(|byte| format!("a {byte}")), "every content once");
    client.run("get a#2222");
    assert_eq!(fetched(&client), [format!("a {}", 0x22)], "a content that was chosen has no alternative");
}
