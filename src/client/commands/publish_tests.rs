use std::sync::Barrier;

use super::*;
use crate::client::commands::test_support::{TestClient, content, file, local_content, user};

#[test]
fn a_file_is_published_and_served() {
    let client = TestClient::logged_in();
    client.local("a b", 1);
    let (code, out, err) = client.run("pub './a b'");
    assert_eq!((code, out.as_str(), err.as_str()), (ExitCode::Success, "File published successfully\n", ""));
    assert_eq!(client.script().own[&file("a b")], (local_content(1), Audience::Everyone));
    assert_eq!(client.served()[&file("a b")], (local_content(1), Audience::Everyone));
    assert_eq!(client.run("pub 'a b'").1, "File published successfully\n");
}

#[test]
fn every_name_is_tried_and_each_counts_once() {
    let client = TestClient::logged_in();
    for name in ["a.pdf", "b.pdf", "c"] {
        client.local(name, 1);
    }
    std::os::unix::fs::symlink("c", client.dir.path().join("locked")).unwrap();
    let (code, out, err) = client.run("pub missing *.pdf a.pdf locked c");
    assert_eq!(
        (code, out.as_str()),
        (ExitCode::LocalFile, "3 files published successfully\nFile publication failed\n")
    );
    let reasons: Vec<&str> = err.lines().collect();
    assert_eq!(reasons.len(), 2, "{err}");
    assert!(reasons[0].starts_with("client: missing: no such file") && reasons[1].starts_with("client: locked: "));
    assert_eq!(client.calls().iter().filter(|call| call.starts_with("publish")).count(), 3);
}

/// Runs `pub`, and calls `happens` while a file is hashed.
fn publish_while(client: &TestClient, names: &[&str], happens: impl Fn(&FileName) + Sync) -> ExitCode {
    let files: Vec<PathArg> = names.iter().map(|&name| PathArg { text: name.into(), pattern: None }).collect();
    publish_hashed(&client.context, Vec::new(), &files, &|name, progress| {
        if progress(0).is_break() {
            return Err(ShareError::Interrupted);
        }
        happens(name);
        client.context.files.hash(name, progress)
    })
}

#[test]
fn nothing_is_published_after_an_interrupt() {
    for interrupting in ["a", "b", "c"] {
        let client = TestClient::logged_in();
        for name in ["a", "b", "c"] {
            client.local(name, 1);
        }
        let _running = client.context.state.begin_command();
        let cancel = |hashed: &FileName| {
            if *hashed == file(interrupting) {
                client.context.state.cancel();
            }
        };
        assert_eq!(publish_while(&client, &["a", "b", "c"], cancel), ExitCode::Interrupted);
        assert_eq!(client.printed(), ("File publication failed\n".into(), "client: interrupted\n".into()));
        assert!(client.script().own.is_empty() && client.served().is_empty());
    }
}

#[test]
fn small_files_are_hashed_side_by_side() {
    let client = TestClient::logged_in();
    for name in ["a", "b"] {
        client.local(name, 1);
    }
    let both = Barrier::new(2);
    let wait = |_: &FileName| {
        both.wait();
    };
    assert_eq!(publish_while(&client, &["a", "b"], wait), ExitCode::Success);
    assert_eq!(client.printed().0, "2 files published successfully\n");
}

#[test]
fn progress_is_that_of_all_files_together() {
    let client = TestClient::logged_in();
    let (state, meter) = (&*client.context.state, client.context.output.progress());
    let total = TotalProgress { state, meter, done: AtomicU64::new(0), total: 30 };
    let (a, b) = (file("a"), file("b"));
    let (mut first, mut second) = (total.of_file(&a, 10), total.of_file(&b, 20));
    assert!(first(4).is_continue() && second(6).is_continue());
    assert_eq!(total.done.load(Relaxed), 10);
    assert!(first(9).is_continue());
    assert_eq!(total.done.load(Relaxed), 15);
    // Found in the cache, or hashed by threads that do not report progress.
    assert!(first(10).is_continue() && second(20).is_continue());
    assert_eq!(total.done.load(Relaxed), 30);
}

#[test]
fn nothing_to_publish_is_a_failure() {
    let client = TestClient::logged_in();
    for line in ["pub nothing", "pub *.nothing"] {
        let (code, out, err) = client.run(line);
        assert_eq!((code, out.as_str(), err.lines().count()), (ExitCode::LocalFile, "File publication failed\n", 1));
    }
    assert!(client.calls().is_empty());
}

#[test]
fn publishing_to_all_again_lifts_an_audience_with_a_note() {
    let client = TestClient::logged_in();
    client.local("a", 1);
    assert_eq!(client.run("pub --to vader --to yoda a").2, "");
    let some = Audience::only(vec![user("vader"), user("yoda")]);
    assert_eq!(client.served()[&file("a")].1, some);
    assert_eq!(client.script().own[&file("a")].1, some);
    assert_eq!(client.run("pub --to yoda a").2, "");
    let (code, _, err) = client.run("pub a");
    assert_eq!(
        (code, err.as_str()),
        (ExitCode::Success, "client: a: was published to some users, now all users can see it\n")
    );
    assert_eq!(client.run("pub a").2, "");
    assert_eq!(client.served()[&file("a")].1, Audience::Everyone);
}

#[test]
fn an_unreachable_server_fails_all_names() {
    let client = TestClient::logged_in();
    client.local("a", 1);
    client.script().down = Some(RequestError::Unreachable);
    let reason = "client: the server does not answer\n";
    assert_eq!(client.run("pub a"), (ExitCode::Unreachable, "File publication failed\n".into(), reason.into()));
    assert_eq!(client.run("unp a"), (ExitCode::Unreachable, "File unpublication failed\n".into(), reason.into()));
}

/// As many files as need two requests, and the end of the session or of the server between the two.
#[test]
fn what_was_done_before_a_batch_failed_is_told() {
    for (error, code) in [
        (RequestError::Unreachable, ExitCode::Unreachable),
        (RequestError::NotAuthenticated, ExitCode::NotAuthenticated),
    ] {
        let client = TestClient::logged_in();
        for number in 0..100 {
            client.local(&format!("d/{number:03}"), 1);
        }
        (client.script().down, client.script().down_after) = (Some(error), 1);
        let (status, out, err) = client.run("pub d missing");
        let stored = client.script().own.len();
        assert!((1..100).contains(&stored), "{stored}");
        let success = format!("{stored} files published successfully\n");
        assert_eq!((status, out), (ExitCode::LocalFile, success + "File publication failed\n"));
        assert_eq!(err, format!("client: missing: no such file in the shared folder\nclient: {error}\n"));

        client.script().down = None;
        client.run("pub d");
        (client.script().down, client.script().down_after) = (Some(error), 1);
        let names: Vec<String> = (0..100).map(|number| format!("d/{number:03}")).collect();
        let (status, out, err) = client.run(&format!("unp {}", names.join(" ")));
        let withdrawn = 100 - client.script().own.len();
        let success = format!("{withdrawn} files unpublished successfully\n");
        assert_eq!((status, out), (code, success + "File unpublication failed\n"));
        assert_eq!(err, format!("client: {error}\n"));
        let served = client.served().len();
        assert_eq!(served, 100 - withdrawn, "what is still published is still served");
    }
}

#[test]
fn unpublished_files_are_not_served() {
    let client = TestClient::logged_in();
    client.local("a", 1);
    client.run("pub a");
    assert_eq!(client.run("unp a"), (ExitCode::Success, "File unpublished successfully\n".into(), String::new()));
    assert!(client.served().is_empty());
    let failed = (ExitCode::NotFound, "File unpublication failed\n".into(), "client: a: is not published\n".into());
    assert_eq!(client.run("unp a"), failed);
}

/// The server executes a request, the reply is lost, and the request is sent again under a new login.
#[test]
fn a_repeated_withdrawal_is_no_failure() {
    let client = TestClient::logged_in();
    client.local("a", 1);
    client.run("pub a");
    client.script().own.clear();
    let unpublished = (ExitCode::Success, "File unpublished successfully\n".into(), String::new());
    assert_eq!(client.run("unp a"), unpublished);
    assert_eq!(client.run("unp a").0, ExitCode::NotFound);
}

#[test]
fn unp_patterns_and_folders_match_published_names() {
    let client = TestClient::logged_in();
    for name in ["a.pdf", "b.pdf", ".c.pdf", "x/d.pdf", "x/y/e", "r[1].txt"] {
        client.script().own.insert(file(name), (content(1), Audience::Everyone));
    }
    assert_eq!(client.run("unp *.pdf a.pdf").1, "2 files unpublished successfully\n");
    assert_eq!(client.run("unp *.pdf").0, ExitCode::NotFound);
    assert_eq!(client.run("unp x/").1, "2 files unpublished successfully\n");
    assert_eq!(client.run("unp r[1].txt").1, "File unpublished successfully\n");
    let left: Vec<String> = client.script().own.keys().map(ToString::to_string).collect();
    assert_eq!(left, [".c.pdf"]);
    let (code, out, err) = client.run("unp nope .c.pdf *.x");
    let both = "File unpublished successfully\nFile unpublication failed\n";
    assert_eq!((code, out.as_str()), (ExitCode::NotFound, both));
    assert_eq!(err, "client: nope: is not published\nclient: *.x: is not published\n");
}

#[test]
fn unp_takes_names_of_another_unicode_form_unless_the_name_is_published() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let client = TestClient::logged_in();
    client.local(composed, 1);
    client.local(decomposed, 2);
    client.run(&format!("pub {composed} {decomposed}"));
    assert_eq!(client.run(&format!("unp {composed}")).0, ExitCode::Success);
    assert_eq!(client.served().keys().map(|name| name.as_str()).collect::<Vec<_>>(), [decomposed]);
    assert_eq!(client.run(&format!("unp {composed}")).1, "File unpublished successfully\n");
    assert!(client.served().is_empty());
    assert_eq!(client.run(&format!("unp {composed}")).0, ExitCode::NotFound);
}
