use std::io::Cursor;

use super::*;
use crate::client::commands::test_support::TestClient;
use crate::client::jobs::JobWait;
use crate::client::ui::message::{Message, MessageBody};
use crate::client::ui::output::test_support::Messages;

fn script(lines: &str, batch: bool, stay: bool) -> Script {
    Script { lines: Box::new(Cursor::new(lines.to_string())), stop_at_failure: batch, stay }
}

fn run(client: &TestClient, lines: &str, batch: bool, stay: bool) -> (ShellExit, String) {
    let ended = run_script(&Shell::over(&client.context, false), script(lines, batch, stay));
    (ended, client.printed().0)
}

const NO_PEERS: &str = "No active peers\n";
const NOT_FOUND: &str = "File not found\n";

#[test]
fn a_pipe_goes_on_after_a_failure_and_keeps_the_first_status() {
    let client = TestClient::logged_in();
    let (ended, out) = run(&client, "get x\n# a comment\n\nput x\r\nlap", false, false);
    assert_eq!((ended, out), (ShellExit::Leave(ExitCode::NotFound), format!("{NOT_FOUND}{NO_PEERS}")));
    let (ended, out) = run(&client, "put x\nget x\n", false, false);
    assert_eq!((ended, out.as_str()), (ShellExit::Leave(ExitCode::Usage), NOT_FOUND));
}

#[test]
fn a_batch_stops_at_the_first_failure_that_counts() {
    let client = TestClient::logged_in();
    let (ended, out) = run(&client, "-get x\n - put\nlap\nget x\nlap\n", true, false);
    let expected = format!("{NOT_FOUND}{NO_PEERS}{NOT_FOUND}");
    assert_eq!((ended, out), (ShellExit::Leave(ExitCode::NotFound), expected));
    let (ended, _) = run(&client, "-get x\n", true, false);
    assert_eq!(ended, ShellExit::Leave(ExitCode::Success));
}

#[test]
fn a_leading_dash_is_part_of_the_command_elsewhere() {
    let client = TestClient::logged_in();
    assert_eq!(run(&client, "-lap\n", false, false).0, ShellExit::Leave(ExitCode::Usage));
}

#[test]
fn xit_ends_the_script() {
    let client = TestClient::logged_in();
    for (lines, batch) in [("xit\nlap\n", false), ("-xit\nlap\n", true)] {
        let (ended, out) = run(&client, lines, batch, true);
        assert!(matches!(ended, ShellExit::Xit(ExitCode::Success, _)) && out.is_empty(), "{ended:?}: {out}");
    }
}

#[test]
fn stay_outlives_the_end_of_input_but_no_failure() {
    let client = TestClient::logged_in();
    assert_eq!(run(&client, "lap\n", false, true).0, ShellExit::Stay);
    assert_eq!(run(&client, "lap\n-get x\n", true, true).0, ShellExit::Stay);
    let ended = ShellExit::Leave(ExitCode::NotFound);
    assert_eq!(run(&client, "get x\nlap\n", true, true), (ended.clone(), NOT_FOUND.into()));
    assert_eq!(run(&client, "get x\nlap\n", false, true), (ended, format!("{NOT_FOUND}{NO_PEERS}")));
}

#[test]
fn no_command_starts_once_the_client_is_ending() {
    let client = TestClient::logged_in();
    client.context.state.close();
    assert_eq!(run(&client, "lap\n", false, false), (ShellExit::Leave(ExitCode::Success), String::new()));
}

#[test]
fn passwords_are_taken_from_their_own_line_only() {
    let client = TestClient::new();
    let (ended, out) = run(&client, "auth hans\nfalcon*solo\n", false, false);
    assert_eq!(ended, ShellExit::Leave(ExitCode::NotAuthenticated));
    assert_eq!(out, "Authentication failed. Please try again.\n");
    assert!(client.calls().is_empty());
}

#[test]
fn usage_errors_are_one_line_on_stderr() {
    let client = TestClient::logged_in();
    for line in ["put x", "get", "sch a b", "get 'open", "pub ../x", "lap now", "get \u{1b}[2J/.."] {
        run_script(&Shell::over(&client.context, false), script(line, false, false));
        let (out, err) = client.printed();
        assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{line}");
        assert!(err.starts_with("client: ") && !err.contains('\x1b'), "{err:?}");
    }
}

#[test]
fn overlong_lines_are_skipped() {
    let client = TestClient::logged_in();
    let lines = format!("get {}\nlap\n", "x".repeat(3 << 20));
    assert_eq!(run(&client, &lines, false, false), (ShellExit::Leave(ExitCode::Usage), NO_PEERS.into()));
}

#[test]
fn a_byte_order_mark_before_the_first_command_is_skipped() {
    let client = TestClient::logged_in();
    assert_eq!(run(&client, "\u{feff}lap\r\n", false, false), (ShellExit::Leave(ExitCode::Success), NO_PEERS.into()));
    assert_eq!(run(&client, "\u{feff}-get x\n", true, false), (ShellExit::Leave(ExitCode::Success), NOT_FOUND.into()));
    let later = run(&client, "lap\n\u{feff}lap\n", false, false);
    assert_eq!(later, (ShellExit::Leave(ExitCode::Usage), NO_PEERS.into()), "only there");
}

#[test]
fn a_line_that_is_not_utf_8_fails_alone() {
    let client = TestClient::logged_in();
    let lines = b"sch caf\xe9\nlap\n";
    let script = Script { lines: Box::new(Cursor::new(lines)), stop_at_failure: false, stay: false };
    assert_eq!(run_script(&Shell::over(&client.context, false), script), ShellExit::Leave(ExitCode::Usage));
    assert_eq!(client.printed(), (NO_PEERS.into(), "client: the line is not valid UTF-8\n".into()));
}

fn words_of(messages: Vec<Message>) -> Vec<String> {
    let words = |Message { id, body, .. }| {
        let id = serde_json::to_string(&id).unwrap();
        match body {
            MessageBody::Result(result) => format!("{id} result {}", result.to_text().trim_end()),
            MessageBody::End(end) => format!("{id} end {:?} {}", end.command, end.code as u8),
            MessageBody::Note(note) => format!("{id} {:?} {}", note.level, note.text),
            MessageBody::Progress(_) | MessageBody::Event(_) => panic!("{body:?}"),
        }
    };
    messages.into_iter().map(words).collect()
}

/// What came of these input lines with `--json`: the exit, and each message as id, type and what matters of it.
fn run_json(client: &mut TestClient, lines: &[u8], batch: bool) -> (ShellExit, Vec<String>) {
    let messages = Messages::default();
    client.context.output = messages.output();
    let script = Script { lines: Box::new(Cursor::new(lines.to_vec())), stop_at_failure: batch, stay: false };
    let exit = run_script(&Shell::over(&client.context, true), script);
    (exit, words_of(messages.take()))
}

#[test]
fn another_name_of_a_command_is_told_as_the_command() {
    let mut client = TestClient::logged_in();
    let lines = b"?\n? x\nexit now\nquit now\nstop now\nnonsense now\n";
    let (_, mut words) = run_json(&mut client, lines, false);
    words.retain(|words| words[2..].starts_with("end "));
    let expected = [
        "1 end \"help\" 0",
        "2 end \"help\" 2",
        "3 end \"xit\" 2",
        "4 end \"xit\" 2",
        "5 end \"stop\" 2",
        "6 end \"nonsense\" 2",
    ];
    assert_eq!(words, expected);
    for line in [&b"? x"[..], b"exit now"] {
        let messages = Messages::default();
        client.context.output = messages.output();
        execute(&Shell::over(&client.context, false), line, false);
        let results = messages.take().into_iter().filter_map(|message| match message.body {
            MessageBody::Result(CommandResult::Failed(failure)) => Some(failure.command),
            _ => None,
        });
        assert!(results.eq([if line[0] == b'?' { "help" } else { "xit" }]));
    }
}

#[test]
fn every_command_has_an_id_and_an_end() {
    let mut client = TestClient::logged_in();
    let lines = b"lap\n\n# a comment\n {\"id\": \"a1\", \"command\": \"get x\"}\r\n{\"id\":2.5,\"command\":\"# no command\"}\nput x\n{\"command\": \"xit\"}\nlap\n";
    let (exit, words) = run_json(&mut client, lines, false);
    let expected = [
        "1 result No active peers",
        "1 end \"lap\" 0",
        "\"a1\" Error x: no active peer has published it",
        "\"a1\" result File not found",
        "\"a1\" end \"get\" 5",
        "2.5 end \"\" 0",
        "4 Error unknown command 'put'; 'help' lists the commands",
        "4 result ",
        "4 end \"put\" 2",
    ];
    assert_eq!(words, expected);
    let ShellExit::Xit(ExitCode::NotFound, run) = exit else { panic!("{exit:?}") };
    client.context.output.end(run, "xit", ExitCode::Success);
}

#[test]
fn an_input_line_that_is_no_object_fails_alone() {
    const REASON: &str = "expected {\"id\": ..., \"command\": \"...\"} and no other fields";
    for (line, id, reason) in [
        (&b"{"[..], "1", "not a JSON object: column 1"),
        (b"{\"id\": 7, \"command\": \"lap\"} more", "1", "not a JSON object: column 29"),
        (b"{\"id\": 7, \"command\": \"lap\", \"more\": 1}", "7", REASON),
        (b"{\"id\": \"a\"}", "\"a\"", REASON),
        (b"{\"id\": \"a\", \"command\": [\"auth hans secret\"]}", "\"a\"", REASON),
        (b"{\"id\": {}, \"command\": \"auth hans secret\"}", "1", REASON),
        (b"{\"command\": \"auth hans secret\", \"command\": \"auth hans secret\"}", "1", REASON),
        (b"{\xff\xfe\x00", "1", "not a JSON object: column 2"),
    ] {
        let mut client = TestClient::logged_in();
        let (exit, words) = run_json(&mut client, &[line, b"\nlap\n"].concat(), false);
        assert_eq!(exit, ShellExit::Leave(ExitCode::Usage));
        let skipped = [format!("{id} Error {reason}"), format!("{id} end \"\" 2")];
        assert_eq!(words, [&skipped[..], &["2 result No active peers".into(), "2 end \"lap\" 0".into()]].concat());
    }
}

#[test]
fn a_failure_ends_a_batch_of_objects_unless_it_is_ignored() {
    let mut client = TestClient::logged_in();
    let lines = b"{\"command\": \"-get x\"}\n-get x\n{\"command\": \"get\"}\nlap\n";
    let (exit, words) = run_json(&mut client, lines, true);
    assert_eq!(exit, ShellExit::Leave(ExitCode::Usage));
    let ends: Vec<&String> = words.iter().filter(|words| words.contains(" end ")).collect();
    assert_eq!(ends, ["1 end \"get\" 5", "2 end \"get\" 5", "3 end \"get\" 2"]);
}

#[test]
fn objects_are_commands_with_json_alone() {
    let client = TestClient::logged_in();
    run_script(&Shell::over(&client.context, false), script("{\"command\": \"lap\"}\n", false, false));
    assert_eq!(client.printed().1, "client: unknown command '{command:'; 'help' lists the commands\n");
}

#[test]
fn a_line_above_64_kib_is_skipped_with_json() {
    let mut client = TestClient::logged_in();
    let of_length = |length: usize| {
        let around = "{\"id\": \"long\", \"command\": \"sch \"}".len();
        format!("{{\"id\": \"long\", \"command\": \"sch {}\"}}\n", "x".repeat(length - around))
    };
    let lines = [of_length(64 << 10), of_length((64 << 10) + 1), of_length(10 << 20), "lap".into()].concat();
    let (exit, words) = run_json(&mut client, lines.as_bytes(), false);
    assert_eq!(exit, ShellExit::Leave(ExitCode::Usage));
    let expected = [
        "\"long\" result No files found",
        "\"long\" end \"sch\" 0",
        "2 Error the line is too long",
        "2 end \"\" 2",
        "3 Error the line is too long",
        "3 end \"\" 2",
        "4 result No active peers",
        "4 end \"lap\" 0",
    ];
    assert_eq!(words, expected);
}

#[test]
fn a_job_ends_as_its_command_and_holds_its_id_until_then() {
    let mut client = TestClient::logged_in();
    client.local("a", 1);
    client.script().away = true;
    let lines = b"{\"id\": \"x\", \"command\": \"pub a &\"}\n{\"id\": \"x\", \"command\": \"lap\"}\nlap\n";
    let messages = Messages::default();
    client.context.output = messages.output();
    let script = |lines: &'static [u8]| Script { lines: Box::new(lines), stop_at_failure: false, stay: false };
    let shell = Shell::over(&client.context, true);
    assert_eq!(run_script(&shell, script(lines)), ShellExit::Leave(ExitCode::Usage));
    let before = words_of(messages.take());
    let expected = [
        "\"x\" result [1] pub a",
        "2 Error the id x is in use by a command that has not ended",
        "2 end \"\" 2",
        "3 result No active peers",
        "3 end \"lap\" 0",
    ];
    assert_eq!(before, expected);
    let job = client.context.jobs.find(1).unwrap();
    client.script().away = false;
    assert_eq!(job.wait(None, &crossbeam_channel::never()), JobWait::Ended(ExitCode::Success));
    let after = messages.take();
    assert!(after.iter().all(|message| message.job == Some(1)), "{after:?}");
    let after =
        words_of(after.into_iter().filter(|message| !matches!(message.body, MessageBody::Progress(_))).collect());
    assert_eq!(after, ["\"x\" result File published successfully", "\"x\" end \"pub\" 0"]);
    let again = b"{\"id\": \"x\", \"command\": \"lap\"}\n";
    assert_eq!(run_script(&shell, script(again)), ShellExit::Leave(ExitCode::Success), "the id is free again");
}
