//! A person at a terminal.

use crate::testenv::pty::Terminal;
use crate::testenv::{TestEnv, all_bytes, auth, entries, holds, noise};

#[test]
fn a_terminal_has_a_prompt_and_always_ends_with_0() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.sees("> ");
    person.types("lap");
    person.sees("Please authenticate first");
    person.sees("> ");
    person.types(&auth("hans"));
    person.sees("Welcome, hans!");
    person.sees("> ");
    person.types("pub nope");
    person.sees("File publication failed");
    person.sees("> ");
    person.types("frobnicate");
    person.sees("> ");
    person.types("lap");
    person.sees("No active peers");
    person.sees("> ");
    person.types("xit");
    person.sees("Goodbye!");
    let (code, screen) = person.finish();
    assert_eq!(code, 0, "{screen}");
}

#[test]
fn end_of_input_at_a_terminal_means_leaving() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.sees("> ");
    person.types(&auth("hans"));
    person.sees("Welcome, hans!");
    person.sees("> ");
    person.press(0x04);
    person.sees("Goodbye!");
    assert_eq!(person.finish().0, 0);
    env.wait_log("Received XIT from hans");
}

/// Answers the question for hans's password; gives the exit status and all that was on the screen.
fn logs_in_unseen_and_leaves(mut person: Terminal) -> (i32, String) {
    person.sees("assword");
    person.waits_hidden();
    person.types("falcon*solo");
    person.sees("Welcome, hans!");
    person.sees("> ");
    person.types("xit");
    person.sees("Goodbye!");
    person.finish()
}

#[test]
fn a_password_is_asked_for_without_an_echo() {
    let env = TestEnv::new();
    let person = Terminal::start(env.client("hans").args(["-u", "hans"]).into_command());
    let (code, screen) = logs_in_unseen_and_leaves(person);
    assert!(code == 0 && !screen.contains("falcon*solo"), "{screen}");
}

#[test]
fn auth_without_a_password_asks_for_it_without_an_echo() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.sees("> ");
    person.types("auth hans");
    person.sees("assword");
    person.waits_hidden();
    person.types("a wrong one");
    person.sees("Authentication failed. Please try again.");
    person.sees("> ");
    person.types("auth hans");
    let (code, screen) = logs_in_unseen_and_leaves(person);
    assert!(code == 0 && !screen.contains("falcon*solo") && !screen.contains("a wrong one"), "{screen}");
}

#[test]
fn ctrl_c_cancels_the_download_and_keeps_the_shell() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("large", noise(1, 8 << 20)).args(["--limit-rate", "256K"]);
    let _hans = client.stay(&["pub large"], &["File published successfully"]);
    let mut person = Terminal::start(env.client("vader").user().into_command());
    person.sees("> ");
    person.types("get large");
    // The progress bar: the transfer is under way.
    person.sees("MiB");
    person.press(0x03);
    person.sees("large download failed");
    person.sees("> ");
    person.types("lap");
    person.sees("1 active peer:");
    person.sees("> ");
    person.types("xit");
    person.sees("Goodbye!");
    assert_eq!(person.finish().0, 0);
    let left = entries(env.client("vader").dir());
    assert!(left.iter().all(|name| name.ends_with(".part")), "nothing half under its name: {left:?}");
}

#[test]
fn auth_lines_never_enter_the_history() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.sees("> ");
    person.types(&auth("hans"));
    person.sees("Welcome, hans!");
    person.sees("> ");
    person.types("sch remembered");
    person.sees("No files found");
    person.sees("> ");
    person.types(&format!("  {}", auth("hans")));
    person.sees("> ");
    person.types("xit");
    person.sees("Goodbye!");
    person.finish();
    let kept = all_bytes(&env.path().join("homes"));
    assert!(holds(&kept, b"sch remembered"), "the history is kept in the state folder");
    assert!(!holds(&kept, b"falcon"), "and holds no password");
}

#[test]
fn with_commands_a_terminal_is_not_read_and_the_status_counts() {
    let env = TestEnv::new();
    let client = env.client("hans").user().commands(&["lap", "pub nope"]);
    let (code, screen) = Terminal::start(client.into_command()).finish();
    assert!(code == 8 && !screen.contains("> "), "{code}: {screen}");
}
