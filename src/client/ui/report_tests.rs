use super::*;
use crate::common::types::{Content, ContentHash};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn file(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

fn failure(name: &str, code: ExitCode) -> ItemFailure {
    ItemFailure { name: name.into(), why: "for a reason".into(), code }
}

fn found(name: &str) -> AvailableContent {
    let content = Content { hash: ContentHash([0xab; 32]), size: 1_234, mtime_ms: 0 };
    AvailableContent { name: file(name), content, sources: 3, age_s: 60 }
}

fn json(report: &Report) -> Value {
    let line = report.to_json();
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
    serde_json::from_str(&line).unwrap()
}

#[test]
fn texts_never_change() {
    let welcome = "Welcome, hans!\nAvailable commands are: get, lap, lpf, pub, sch, unp, xit\n";
    assert_eq!(Report::Welcome(&user("hans")).to_text(), welcome);
    let refused = failure("hans", ExitCode::NotAuthenticated);
    assert_eq!(Report::AuthFailed(&refused).to_text(), "Authentication failed. Please try again.\n");
    assert_eq!(Report::NotAuthenticated("lap").to_text(), "Please authenticate first\n");
    assert_eq!(Report::Goodbye.to_text(), "Goodbye!\n");
}

#[test]
fn counts_are_singular_and_plural() {
    let [a, b, c] = ["a", "b", "c"].map(file);
    let failed = [failure("x", ExitCode::LocalFile), failure("y", ExitCode::LocalFile)];
    assert_eq!(
        Report::Published { files: std::slice::from_ref(&a), failures: &[] }.to_text(),
        "File published successfully\n"
    );
    assert_eq!(
        Report::Published { files: &[a.clone(), b, c], failures: &[] }.to_text(),
        "3 files published successfully\n"
    );
    assert_eq!(Report::Published { files: &[], failures: &failed }.to_text(), "File publication failed\n");
    let both = "File unpublished successfully\nFile unpublication failed\n";
    assert_eq!(Report::Unpublished { files: std::slice::from_ref(&a), failures: &failed }.to_text(), both);
}

#[test]
fn lists_start_with_their_length() {
    assert_eq!(Report::Peers(&[]).to_text(), "No active peers\n");
    assert_eq!(Report::Peers(&[user("hans")]).to_text(), "1 active peer:\nhans\n");
    assert_eq!(Report::Peers(&[user("hans"), user("yoda")]).to_text(), "2 active peers:\nhans\nyoda\n");
    assert_eq!(Report::PublishedFiles(&[]).to_text(), "No files published\n");
    assert_eq!(Report::SearchResults(&[]).to_text(), "No files found\n");
    assert_eq!(Report::SearchResults(&[file("a b")]).to_text(), "1 file found:\na b\n");
    assert_eq!(Report::SearchDetails(&[found("a b")]).to_text(), "1 file found:\na b\t1234\t3\t60\n");
    let own = OwnPublication { name: file("a"), content: found("a").content, restricted: true };
    assert_eq!(Report::PublishedFiles(std::slice::from_ref(&own)).to_text(), "1 file published:\na\n");
    assert_eq!(Report::PublishedFiles(&[own.clone(), own]).to_text(), "2 files published:\na\na\n");
}

#[test]
fn each_download_outcome_has_its_line() {
    let (requested, saved) = (file("report.pdf"), file("report (1).pdf"));
    assert_eq!(
        Report::Downloaded { requested: &requested, saved: &requested }.to_text(),
        "report.pdf downloaded successfully\n"
    );
    assert_eq!(
        Report::Downloaded { requested: &requested, saved: &saved }.to_text(),
        "report (1).pdf downloaded successfully\n"
    );
    assert_eq!(Report::Skipped(&requested).to_text(), "");
    assert_eq!(Report::DownloadFailed(&failure("x", ExitCode::NotFound)).to_text(), "File not found\n");
    assert_eq!(Report::DownloadFailed(&failure("x", ExitCode::TransferFailed)).to_text(), "x download failed\n");
    assert_eq!(
        Report::DownloadFailed(&failure("\x1b[2J\n", ExitCode::DiskFull)).to_text(),
        "\\u{1b}[2J\\u{a} download failed\n"
    );
}

#[test]
fn json_contains_the_same_results() {
    let lap = json(&Report::Peers(&[user("hans")]));
    assert_eq!(lap, json!({"command": "lap", "ok": true, "peers": ["hans"]}));
    let get = json(&Report::DownloadFailed(&failure("x", ExitCode::TransferFailed)));
    assert_eq!(get, json!({"command": "get", "ok": false, "name": "x", "error": "for a reason", "code": 6}));
    let published = json(&Report::Published { files: &[file("a")], failures: &[failure("x", ExitCode::LocalFile)] });
    assert_eq!(published["published"], json!(["a"]));
    assert_eq!(published["failed"], json!([{"name": "x", "error": "for a reason", "code": 8}]));
    assert_eq!((&published["ok"], &published["code"]), (&json!(false), &json!(8)));
    assert_eq!(json(&Report::SearchDetails(&[found("a")]))["files"][0]["hash"], json!("ab".repeat(32)));
    assert_eq!(json(&Report::NotAuthenticated("sch"))["code"], json!(4));
}

#[test]
fn json_has_no_control_characters() {
    let line = Report::DownloadFailed(&failure("\x1b]0;\u{9b}\u{202e}\u{2028}\x7f", ExitCode::NotFound)).to_json();
    assert!(!line.trim_end().chars().any(is_control), "{line:?}");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["name"], json!("\x1b]0;\u{9b}\u{202e}\u{2028}\x7f"));
}
