use super::*;
use crate::client::commands::test_support::{TestClient, content, file, user};
use crate::client::exit_code::ExitCode;
use crate::client::follow::Followed;
use crate::client::jobs::{JobKind, RunningJob};
use crate::client::shell::command::{self, Command};
use crate::common::types::Audience;

fn candidates(client: &TestClient, line: &str) -> (usize, Vec<String>) {
    EngineCompleter::new(client.context.engine.clone()).candidates(line)
}

#[test]
fn commands_come_first() {
    let client = TestClient::new();
    assert_eq!(candidates(&client, "l"), (0, vec!["lap ".into(), "lpf ".into(), "ls ".into()]));
    assert_eq!(candidates(&client, "  x"), (2, vec!["xit ".into()]));
    assert_eq!(candidates(&client, "").1.len(), Verb::ALL.len());
    assert_eq!(candidates(&client, "lap "), (4, vec![]));
}

#[test]
fn pub_completes_entries_of_the_shared_folder() {
    let client = TestClient::new();
    for name in ["a b", "ab", ".hidden", "folder/x"] {
        client.local(name, 1);
    }
    let complete = |line: &str| candidates(&client, line);
    assert_eq!(complete("pub a"), (4, vec![r"a\ b".into(), "ab".into()]));
    assert_eq!(complete("pub ./a"), (4, vec![r"./a\ b".into(), "./ab".into()]));
    assert_eq!(complete("pub x 'a "), (6, vec![r"a\ b".into()]));
    assert_eq!(complete(r"pub a\ "), (4, vec![r"a\ b".into()]));
    assert_eq!(complete("pub f"), (4, vec!["folder/".into()]));
    assert_eq!(complete("pub folder/"), (4, vec!["folder/x".into()]));
    assert_eq!(complete("pub ."), (4, vec![".hidden".into()]));
    assert_eq!(complete("pub ../"), (4, vec![]));
    assert_eq!(complete("pub /"), (4, vec![]));
    assert_eq!(complete("pub --to a"), (9, vec![]), "a user");
    assert_eq!(complete("pub --to yoda a").1.len(), 2);
}

#[test]
fn nothing_is_offered_that_pub_refuses_or_a_terminal_obeys() {
    use std::os::unix::ffi::OsStrExt;
    let client = TestClient::logged_in();
    for name in ["report\nxit", "r\x1b[2J", "r\u{202e}", "r\\x", "-r", "#r", "r*", "r", "sub/\nr", "sub/r"] {
        client.local(name, 1);
    }
    for excluded in ["credentials.txt~", "fileshare.db"] {
        client.local(excluded, 1);
    }
    let dir = client.dir.path();
    std::fs::write(dir.join(std::ffi::OsStr::from_bytes(b"r\xff")), "x").unwrap();
    std::os::unix::fs::symlink(dir.join("r"), dir.join("r-link")).unwrap();
    std::os::unix::fs::symlink(dir.join("sub"), dir.join("linked")).unwrap();
    let complete = |line: &str| candidates(&client, line).1;
    assert_eq!(complete("pub r"), ["r", r"r\*"]);
    assert_eq!(complete("pub "), [r"\#r", "./-r", "r", r"r\*", "sub/"]);
    assert_eq!(complete("pub -"), ["./-r"]);
    assert_eq!(complete("pub sub/"), ["sub/r"]);
    assert_eq!(complete("pub linked/"), [""; 0], "pub follows no links");
    // The folder contains a name that cannot be published.
    for name in complete("pub ").iter().filter(|name| !name.ends_with('/')) {
        let line = format!("pub {name}");
        assert!(matches!(command::parse(line.as_bytes()), Ok(Some(Command::Pub { .. }))), "{line}");
        assert!(client.run(&line).0.is_success(), "{line}");
    }
}

#[test]
fn unp_and_get_complete_published_names() {
    let client = TestClient::new();
    client.script().own.insert(file("mine"), (content(1), Audience::Everyone));
    client.run("auth hans pw");
    drop(client.context.publications.restricted_among(std::iter::empty()));
    client.found("it's", 1, 1);
    client.found("other", 1, 1);
    client.found("-x", 1, 1);
    assert_eq!(candidates(&client, "unp m"), (4, vec!["mine".into()]));
    assert_eq!(candidates(&client, "get i"), (4, vec![r"it\'s".into()]));
    assert_eq!(candidates(&client, "get -"), (4, vec!["./-x".into()]));
    assert_eq!(candidates(&client, "get other ").1.len(), 3);
    client.script().peers = vec![user("vader"), user("yoda")];
    assert_eq!(candidates(&client, "ls v"), (3, vec!["vader".into()]));
    assert_eq!(candidates(&client, "pub --to ").1, ["vader", "yoda"]);
}

#[test]
fn what_goes_on_in_the_background_is_completed() {
    let client = TestClient::logged_in();
    let context = &client.context;
    let begin = |kind: JobKind| -> RunningJob {
        context.jobs.begin(kind, "get a".into(), context.state.job_owner(), true).unwrap()
    };
    let (first, second) = (begin(JobKind::Job), begin(JobKind::Job));
    let (watch, follow) = (begin(JobKind::Watch), begin(JobKind::Follow));
    first.end(ExitCode::Success);
    for folder in ["", "a b"] {
        context.watches.replace(|_| false, folder.to_owned(), watch.job());
    }
    for pattern in ["*.pdf", "[z-a]*", "-x", "a b", "photos/"] {
        let followed = Followed { pattern: pattern.into(), mirror: false, from: None };
        context.follows.replace(|_| false, followed, follow.job());
    }
    assert_eq!(candidates(&client, "cancel "), (7, vec!["2".into(), "3".into(), "4".into()]));
    assert_eq!(candidates(&client, "cancel 3").1, ["3"]);
    assert_eq!(candidates(&client, "cancel 3 ").1, [""; 0]);
    assert_eq!(
        candidates(&client, "wait ").1,
        ["1", "2", "all", "file", "gone", "peer"],
        "the end of 1 is not told yet"
    );
    assert_eq!(candidates(&client, "wait a").1, ["all"]);
    assert_eq!(candidates(&client, "unp --watch ").1, [".", r"a\ b"]);
    let followed = candidates(&client, "unfollow ").1;
    assert_eq!(followed, ["*.pdf", "./-x", r"\[z-a]\*", r"a\ b", "photos/"]);
    assert_eq!(candidates(&client, "unfollow *").1, ["*.pdf"]);
    for argument in followed {
        assert_eq!(client.run(&format!("unfollow {argument}")).0, ExitCode::Success, "{argument}");
    }
    drop(second);
}

#[test]
fn users_follow_from_peer_and_gone() {
    let client = TestClient::logged_in();
    client.script().peers = vec![user("vader"), user("yoda")];
    client.found("report", 1, 1);
    for line in ["follow --from ", "wait peer ", "wait gone ", "ls -l "] {
        assert_eq!(candidates(&client, line).1, ["vader", "yoda"], "{line}");
    }
    assert_eq!(candidates(&client, "follow --from vader r").1, ["report"]);
    assert_eq!(candidates(&client, "wait file r").1, ["report"]);
    assert_eq!(candidates(&client, "help un").1, ["unfollow", "unp"]);
}
