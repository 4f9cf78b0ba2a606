use crate::client::commands::test_support::TestClient;
use crate::client::control::{RequestError, WaitOutcome};
use crate::client::exit_code::ExitCode;

fn outcome(code: ExitCode, out: &str, err: &str) -> (ExitCode, String, String) {
    (code, out.into(), err.into())
}

#[test]
fn a_wait_prints_what_it_waited_for() {
    let client = TestClient::logged_in();
    assert_eq!(client.run("wait peer vader"), outcome(ExitCode::Success, "vader is active\n", ""));
    assert_eq!(client.run("wait gone vader 2.5"), outcome(ExitCode::Success, "vader is gone\n", ""));
    assert_eq!(client.run("wait file ./a/b 0"), outcome(ExitCode::Success, "a/b is available\n", ""));
    let calls = client.calls();
    let waited: Vec<&str> = calls.iter().filter_map(|call| call.rsplit_once(' ').map(|(_, timeout)| timeout)).collect();
    assert_eq!(waited[waited.len() - 3..], ["30s", "2.5s", "0ns"]);
}

#[test]
fn a_wait_that_ends_otherwise_says_why() {
    let client = TestClient::logged_in();
    client.script().wait = Some(Ok(WaitOutcome::TimedOut));
    assert_eq!(client.run("wait peer vader 1"), outcome(ExitCode::TimedOut, "Timed out\n", ""));
    client.script().wait = Some(Err(RequestError::Unreachable));
    let unreachable = outcome(ExitCode::Unreachable, "", "client: the server does not answer\n");
    assert_eq!(client.run("wait file a 1"), unreachable);
    client.script().wait = Some(Err(RequestError::NotAuthenticated));
    let logged_out = outcome(ExitCode::NotAuthenticated, "Please authenticate first\n", "");
    assert_eq!(client.run("wait file a 1"), logged_out);
    let own = outcome(ExitCode::Usage, "", "client: hans is your own user name\n");
    assert_eq!(client.run("wait gone hans"), own);
    assert_eq!(client.run("wait peer hans"), own);
}

#[test]
fn get_waits_for_names_and_then_looks_once() {
    let client = TestClient::logged_in();
    client.script().wait = Some(Ok(WaitOutcome::TimedOut));
    let not_found = client.run("get --wait 5 a b *.pdf");
    assert_eq!(
        (not_found.0, not_found.1.as_str()),
        (ExitCode::NotFound, "File not found\nFile not found\nFile not found\n")
    );
    let calls = client.calls();
    let waited: Vec<&String> = calls.iter().filter(|call| call.starts_with("wait")).collect();
    assert_eq!(waited.len(), 2, "no pattern is waited for: {waited:?}");
    client.script().wait = None;
    client.found("a", 3, 1);
    assert_eq!(client.run("get --wait 5 a").1, "a downloaded successfully\n");
}

#[test]
fn get_waits_for_the_content_that_is_named() {
    let client = TestClient::logged_in();
    client.found("a", 0x11, 1);
    assert_eq!(client.run("get --wait 0 a#2222").0, ExitCode::NotFound);
    client.found("a", 0x22, 1);
    assert_eq!(client.run("get --wait 600 a#2222").1, "a downloaded successfully\n");
    client.found("b#1111", 0x33, 1);
    assert_eq!(client.run("get --wait 600 b#1111").1, "b#1111 downloaded successfully\n");
}

#[test]
fn get_and_cat_do_not_begin_after_a_wait_that_failed() {
    let client = TestClient::logged_in();
    client.found("a", 3, 1);
    let ends = [
        (Ok(WaitOutcome::Cancelled), ExitCode::Interrupted),
        (Err(RequestError::Unreachable), ExitCode::Unreachable),
        (Err(RequestError::NotAuthenticated), ExitCode::NotAuthenticated),
    ];
    for (end, code) in ends {
        client.script().wait = Some(end);
        let plain = client.run("wait file a 5");
        assert_eq!(plain.0, code);
        client.calls();
        assert_eq!(client.run("get --wait 5 a b"), plain);
        let cat = client.run("cat --wait 5 a");
        assert_eq!((cat.0, cat.1.is_empty(), cat.2.is_empty()), (code, true, false), "{cat:?}");
        let calls = client.calls();
        assert!(calls.len() == 2 && calls.iter().all(|call| call.starts_with("wait")), "{calls:?}");
    }
}
