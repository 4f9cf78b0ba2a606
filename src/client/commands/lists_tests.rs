use crate::client::commands::test_support::{TestClient, content, file, user};
use crate::client::control::RequestError;
use crate::client::exit_code::ExitCode;
use crate::common::types::Audience;

fn ok(text: &str) -> (ExitCode, String, String) {
    (ExitCode::Success, text.into(), String::new())
}

#[test]
fn commands_before_a_login_are_refused() {
    let client = TestClient::new();
    for line in ["lap", "lpf", "sch x", "get x", "pub x", "unp x"] {
        let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
        assert_eq!(client.run(line), expected, "{line}");
    }
    assert_eq!(client.run("help").0, ExitCode::Success);
    assert!(client.calls().is_empty());
}

#[test]
fn empty_lists_are_successes() {
    let client = TestClient::logged_in();
    assert_eq!(client.run("lap"), ok("No active peers\n"));
    assert_eq!(client.run("lpf"), ok("No files published\n"));
    assert_eq!(client.run("sch x"), ok("No files found\n"));
    assert_eq!(client.run("sch -l x"), ok("No files found\n"));
    assert_eq!(client.run(&format!("sch {}", "x".repeat(600))), ok("No files found\n"));
}

#[test]
fn lists_show_what_the_server_knows() {
    let client = TestClient::logged_in();
    client.script().peers = vec![user("vader"), user("yoda")];
    client.script().own.insert(file("mine"), (content(1), Audience::Everyone));
    client.found("a.PDF", 3, 1);
    client.found("b.pdf", 4, 2);
    assert_eq!(client.run("lap"), ok("2 active peers:\nvader\nyoda\n"));
    assert_eq!(client.run("lpf"), ok("1 file published:\nmine\n"));
    assert_eq!(client.run("sch pdf"), ok("1 file found:\nb.pdf\n"));
    assert_eq!(client.run("sch -i pdf"), ok("2 files found:\na.PDF\nb.pdf\n"));
    assert_eq!(client.run("sch -l pdf"), ok("1 file found:\nb.pdf\t4\t2\t60\n"));
    assert_eq!(client.run("sch ''"), ok("2 files found:\na.PDF\nb.pdf\n"));
}

#[test]
fn an_unreachable_server_is_reported() {
    let client = TestClient::logged_in();
    client.script().down = Some(RequestError::Unreachable);
    let expected = (ExitCode::Unreachable, String::new(), "client: the server does not answer\n".to_string());
    assert_eq!(client.run("lap"), expected);
    assert_eq!(client.run("sch x"), expected);
    client.script().down = Some(RequestError::NotAuthenticated);
    let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
    assert_eq!(client.run("lpf"), expected);
}

#[test]
fn an_ending_client_does_not_report_its_own_logout() {
    let client = TestClient::logged_in();
    client.context.state.close();
    client.script().down = Some(RequestError::NotAuthenticated);
    assert_eq!(client.run("lap"), (ExitCode::NotAuthenticated, String::new(), String::new()));
}
