use super::*;
use crate::common::types::{Content, ContentHash};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn file(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

fn failure(name: &str, code: ExitCode) -> Failure {
    Failure { name: name.into(), why: "for a reason".into(), code }
}

fn found(name: &str) -> FoundEntry {
    let content = Content { hash: ContentHash([0xab; 32]), size: 1_234, mtime_ms: 0 };
    FoundEntry { name: file(name), content, sources: 3, age_s: 60 }
}

fn json(report: &Report) -> Value {
    let line = report.json();
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
    serde_json::from_str(&line).unwrap()
}

#[test]
fn the_texts_are_those_of_the_contract() {
    let welcome = "Welcome, hans!\nAvailable commands are: get, lap, lpf, pub, sch, unp, xit\n";
    assert_eq!(Report::Welcome(&user("hans")).plain(), welcome);
    let refused = failure("hans", ExitCode::NotAuthenticated);
    assert_eq!(Report::Refused(&refused).plain(), "Authentication failed. Please try again.\n");
    assert_eq!(Report::AuthenticateFirst(Verb::Lap).plain(), "Please authenticate first\n");
    assert_eq!(Report::Goodbye.plain(), "Goodbye!\n");
}

#[test]
fn counts_are_singular_and_plural() {
    let [a, b, c] = ["a", "b", "c"].map(file);
    let failed = [failure("x", ExitCode::LocalFile), failure("y", ExitCode::LocalFile)];
    assert_eq!(Report::Published(std::slice::from_ref(&a), &[]).plain(), "File published successfully\n");
    assert_eq!(Report::Published(&[a.clone(), b, c], &[]).plain(), "3 files published successfully\n");
    assert_eq!(Report::Published(&[], &failed).plain(), "File publication failed\n");
    let both = "File unpublished successfully\nFile unpublication failed\n";
    assert_eq!(Report::Unpublished(std::slice::from_ref(&a), &failed).plain(), both);
}

#[test]
fn lists_are_headed_by_their_length() {
    assert_eq!(Report::Peers(&[]).plain(), "No active peers\n");
    assert_eq!(Report::Peers(&[user("hans")]).plain(), "1 active peer:\nhans\n");
    assert_eq!(Report::Peers(&[user("hans"), user("yoda")]).plain(), "2 active peers:\nhans\nyoda\n");
    assert_eq!(Report::OwnFiles(&[]).plain(), "No files published\n");
    assert_eq!(Report::Names(&[]).plain(), "No files found\n");
    assert_eq!(Report::Names(&[file("a b")]).plain(), "1 file found:\na b\n");
    assert_eq!(Report::Found(&[found("a b")]).plain(), "1 file found:\na b\t1234\t3\t60\n");
    let own = OwnEntry { name: file("a"), content: found("a").content, restricted: true };
    assert_eq!(Report::OwnFiles(std::slice::from_ref(&own)).plain(), "1 file published:\na\n");
    assert_eq!(Report::OwnFiles(&[own.clone(), own]).plain(), "2 files published:\na\na\n");
}

#[test]
fn downloads_say_what_became_of_each() {
    let (asked, saved) = (file("report.pdf"), file("report (1).pdf"));
    assert_eq!(Report::Fetched(&asked, &asked).plain(), "report.pdf downloaded successfully\n");
    assert_eq!(Report::Fetched(&asked, &saved).plain(), "report (1).pdf downloaded successfully\n");
    assert_eq!(Report::Skipped(&asked).plain(), "");
    assert_eq!(Report::NotFetched(&failure("x", ExitCode::NotFound)).plain(), "File not found\n");
    assert_eq!(Report::NotFetched(&failure("x", ExitCode::TransferFailed)).plain(), "x download failed\n");
    assert_eq!(
        Report::NotFetched(&failure("\x1b[2J\n", ExitCode::DiskFull)).plain(),
        "\\u{1b}[2J\\u{a} download failed\n"
    );
}

#[test]
fn json_carries_the_same() {
    let lap = json(&Report::Peers(&[user("hans")]));
    assert_eq!(lap, json!({"command": "lap", "ok": true, "peers": ["hans"]}));
    let get = json(&Report::NotFetched(&failure("x", ExitCode::TransferFailed)));
    assert_eq!(get, json!({"command": "get", "ok": false, "name": "x", "error": "for a reason", "code": 6}));
    let published = json(&Report::Published(&[file("a")], &[failure("x", ExitCode::LocalFile)]));
    assert_eq!(published["published"], json!(["a"]));
    assert_eq!(published["failed"], json!([{"name": "x", "error": "for a reason", "code": 8}]));
    assert_eq!((&published["ok"], &published["code"]), (&json!(false), &json!(8)));
    assert_eq!(json(&Report::Found(&[found("a")]))["files"][0]["hash"], json!("ab".repeat(32)));
    assert_eq!(json(&Report::AuthenticateFirst(Verb::Sch))["code"], json!(4));
}

#[test]
fn nothing_in_json_acts_on_a_terminal() {
    let line = Report::NotFetched(&failure("\x1b]0;\u{9b}\u{202e}\u{2028}\x7f", ExitCode::NotFound)).json();
    assert!(!line.trim_end().chars().any(is_control), "{line:?}");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["name"], json!("\x1b]0;\u{9b}\u{202e}\u{2028}\x7f"));
}
