//! Interactive use at a terminal.

use crate::test_support::pty::Terminal;
use crate::test_support::{TestEnv, all_bytes, auth, contains_bytes, entries, seeded_bytes};

#[test]
fn a_terminal_has_a_prompt_and_always_exits_with_0() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.enter("lap");
    person.expect_on_screen("Please authenticate first");
    person.log_in("hans");
    person.enter("pub nope");
    person.expect_on_screen("File publication failed");
    person.enter("frobnicate");
    person.enter("lap");
    person.expect_on_screen("No active peers");
    person.expect_on_screen("> ");
    person.leave();
}

#[test]
fn end_of_input_at_a_terminal_exits() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.log_in("hans");
    person.expect_on_screen("> ");
    person.press(0x04);
    person.expect_on_screen("Goodbye!");
    assert_eq!(person.finish().0, 0);
    env.wait_log("Received XIT from hans");
}

/// Enters hans's password at the prompt; returns the exit status and the whole screen.
fn log_in_with_hidden_password_and_exit(mut person: Terminal) -> (i32, String) {
    person.expect_on_screen("assword");
    person.wait_echo_off();
    person.type_line("falcon*solo");
    person.expect_on_screen("Welcome, hans!");
    person.enter("xit");
    person.expect_on_screen("Goodbye!");
    person.finish()
}

#[test]
fn the_password_prompt_does_not_echo() {
    let env = TestEnv::new();
    let person = Terminal::start(env.client("hans").args(["-u", "hans"]).into_command());
    let (code, screen) = log_in_with_hidden_password_and_exit(person);
    assert!(code == 0 && !screen.contains("falcon*solo"), "{screen}");
}

#[test]
fn auth_without_a_password_prompts_without_echo() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.enter("auth hans");
    person.expect_on_screen("assword");
    person.wait_echo_off();
    person.type_line("a wrong one");
    person.expect_on_screen("Authentication failed. Please try again.");
    person.enter("auth hans");
    let (code, screen) = log_in_with_hidden_password_and_exit(person);
    assert!(code == 0 && !screen.contains("falcon*solo") && !screen.contains("a wrong one"), "{screen}");
}

#[test]
fn ctrl_c_cancels_the_download_and_keeps_the_shell() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("large", seeded_bytes(1, 8 << 20)).args(["--limit-rate", "256K"]);
    let _hans = client.stay(&["pub large"], &["File published successfully"]);
    let mut person = Terminal::start(env.client("vader").user().into_command());
    person.enter("get large");
    // The progress bar appears once the transfer is running.
    person.expect_on_screen("MiB");
    person.press(0x03);
    person.expect_on_screen("large download failed");
    person.enter("lap");
    person.expect_on_screen("1 active peer:");
    person.expect_on_screen("> ");
    person.leave();
    let left = entries(env.client("vader").dir());
    assert!(left.iter().all(|name| name.ends_with(".part")), "nothing half under its name: {left:?}");
}

#[test]
fn auth_lines_never_enter_the_history() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.log_in("hans");
    person.enter("sch remembered");
    person.expect_on_screen("No files found");
    person.enter(&format!("  {}", auth("hans")));
    person.expect_on_screen("> ");
    person.leave();
    let kept = all_bytes(&env.path().join("homes"));
    assert!(contains_bytes(&kept, b"sch remembered"), "the history is kept in the state folder");
    assert!(!contains_bytes(&kept, b"falcon"), "and holds no password");
}

#[test]
fn a_typed_byte_that_is_not_utf_8_fails_its_line_alone() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").user().into_command());
    person.expect_on_screen("> ");
    // In Latin-1. The decoder takes the first Enter for the rest of the character.
    b"sch caf\xe9\r".iter().for_each(|&byte| person.press(byte));
    person.expect_on_screen("> sch caf\u{fffd}");
    person.type_line("");
    person.expect_on_screen("the line is not valid UTF-8");
    person.expect_on_screen("> ");
    // Nothing of the line runs as a command, and a password does not get into the history.
    b"auth hans secr\xe9t".iter().for_each(|&byte| person.press(byte));
    person.expect_on_screen("secr\u{fffd}");
    person.type_line("");
    person.expect_on_screen("the line is not valid UTF-8");
    person.expect_on_screen("> ");
    // A line whose damage was deleted runs.
    b"lap\xe9 ".iter().for_each(|&byte| person.press(byte));
    person.expect_on_screen("> lap\u{fffd}");
    person.press(0x7f);
    person.type_line("");
    person.expect_on_screen("No active peers");
    person.expect_on_screen("> ");
    person.leave();
    let kept = all_bytes(&env.path().join("homes"));
    assert!(contains_bytes(&kept, b"lap") && !contains_bytes(&kept, b"secr"));
}

#[test]
fn a_terminal_without_line_editing_survives_bytes_that_are_not_utf_8() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").user().env("TERM", "dumb").into_command());
    person.expect_on_screen("> ");
    b"sch caf\xe9\r".iter().for_each(|&byte| person.press(byte));
    person.expect_on_screen("the line is not valid UTF-8");
    person.type_line("lap");
    person.expect_on_screen("No active peers");
    person.leave();
}

#[test]
fn a_password_typed_in_another_encoding_is_not_taken_for_another_one() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").args(["-u", "hans"]).into_command());
    person.expect_on_screen("assword");
    person.wait_echo_off();
    b"secr\xe9t\r\r".iter().for_each(|&byte| person.press(byte));
    person.expect_on_screen("as typed is not valid UTF-8");
    assert_eq!(person.finish().0, 4);
}

#[test]
fn with_commands_a_terminal_is_not_read_and_the_exit_status_counts() {
    let env = TestEnv::new();
    let client = env.client("hans").user().commands(&["lap", "pub nope"]);
    let (code, screen) = Terminal::start(client.into_command()).finish();
    assert!(code == 8 && !screen.contains("> "), "{code}: {screen}");
}
