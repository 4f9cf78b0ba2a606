//! The server program: its options, ready line, log, signals and startup errors.

use std::fs;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::test_support::{COMMANDS, CREDENTIALS, TestEnv, auth};

#[test]
fn the_ready_line_is_the_only_stdout_and_sigterm_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut env = TestEnv::new();
        env.client("hans").user().run(&["lap"]).expect_code(0);
        let port = env.port();
        let done = env.stop_server(signal);
        done.expect(0, &[&format!("listening on 127.0.0.1:{port}")]);
    }
}

/// Removes the time from a line such as `09:11:48.886: 127.0.0.1:57820: Received PUB from hans`; checks and replaces the port.
fn without_time_and_port(line: &str) -> String {
    let (time, rest) = line.split_at_checked("00:00:00.000: ".len()).unwrap_or_else(|| panic!("no time in {line:?}"));
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00:00:00.000: ", "{line:?}");
    let Some(rest) = rest.strip_prefix("127.0.0.1:") else { return rest.to_owned() };
    let (port, rest) = rest.split_once(": ").unwrap_or_else(|| panic!("no address in {line:?}"));
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{line:?}");
    rest.to_owned()
}

#[test]
fn the_log_has_a_received_and_a_sent_line_for_every_command() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").file("a", "a").spawn();
    hans.send("auth hans wrong");
    hans.next_line();
    hans.log_in("hans");
    let commands = [
        ("pub a", "PUB", "OK"),
        ("lpf", "LPF", "OK"),
        ("lap", "LAP", "OK"),
        ("sch zzz", "SCH", "OK"),
        ("unp a", "UNP", "OK"),
        ("unp a", "UNP", "ERR"),
        ("get zzz", "GET", "ERR"),
    ];
    for (command, _, _) in commands {
        hans.run_command(command, &[""; 0]);
        hans.send("lap");
        while hans.next_line() != "No active peers" {}
    }
    hans.send("xit");
    hans.finish();
    env.wait_log("Received XIT from hans");
    env.wait_log_times("Received AUTH from hans", 2);
    let log: Vec<String> = env.log().lines().map(without_time_and_port).collect();
    let pair = |verb: &str, result: &str| {
        let received = format!("Received {verb} from hans");
        let sent = format!("Sent {result} to hans");
        log.windows(2).any(|pair| pair[0] == received && pair[1] == sent)
    };
    for (command, verb, result) in commands {
        assert!(pair(verb, result), "{command} in:\n{}", log.join("\n"));
    }
    assert!(pair("AUTH", "ERR") && pair("AUTH", "OK"), "{}", log.join("\n"));
    assert!(!env.log().contains("HBT"), "heartbeats are for debug");
}

#[test]
fn heartbeats_are_logged_at_debug_and_passwords_never() {
    let env = TestEnv::with(CREDENTIALS, &["--log-level", "trace", "--heartbeat", "0.2"]);
    let mut hans = env.client("hans").args(["-v"]).spawn();
    hans.send("auth hans hunter2-wrong");
    hans.next_line();
    hans.log_in("hans");
    env.wait_log("Received HBT from hans");
    hans.send("xit");
    let done = hans.finish();
    for text in [&env.log(), &done.stderr, &done.stdout] {
        assert!(!text.contains("falcon*solo") && !text.contains("hunter2-wrong"), "{text}");
    }
}

#[test]
fn a_lower_log_level_is_quiet() {
    let mut env = TestEnv::with(CREDENTIALS, &["--log-level", "error"]);
    env.client("hans").user().run(&["lap", "-get nope"]).expect_code(0);
    assert_eq!(env.stop_server(Signal::TERM).stderr, "");
}

#[test]
fn sighup_reloads_the_credentials() {
    let env = TestEnv::new();
    let hans = env.client("hans").user().file("a", "a").stay(&["pub a"], &["File published successfully"]);
    let mut vader = env.client("vader").spawn();
    vader.log_in("vader");
    vader.run_command("sch a", &["1 file found:", "a"]);

    // hans is gone, yoda has another password, vader keeps the session.
    env.write_credentials("yoda changed\nvader sithlord**\nleia new\n");
    env.signal_server(Signal::HUP);
    // Removed users are notified once the new credentials are in force.
    hans.wait_err("log");
    let mut leia = env.client("leia").user_as("leia", "new").spawn();
    leia.skip_greeting();
    leia.run_command("lap", &["1 active peer:", "vader"]);
    vader.run_command("lap", &["1 active peer:", "leia"]);
    vader.run_command("sch a", &["No files found"]);
    env.client("hans").run(&[&auth("hans")]).expect_code(4);
    env.client("yoda").run(&[&auth("yoda")]).expect_code(4);

    // The publications are hidden, not deleted.
    drop(hans);
    env.write_credentials(CREDENTIALS);
    env.signal_server(Signal::HUP);
    env.wait_log_times("the credentials were read again: 3 users", 2);
    env.client("hans").user().run(&["lpf"]).expect_code(0);
}

#[test]
fn the_publications_of_a_user_removed_before_the_start_come_back_with_the_user() {
    let mut env = TestEnv::new();
    env.client("hans").user().file("a", "a").file("b", "b").run(&["pub --to vader a", "pub b"]).expect_code(0);
    env.write_credentials("yoda wise@!man\nvader sithlord**\n");
    env.stop_server(Signal::TERM);
    env.start();
    let mut vader = env.client("vader").spawn();
    vader.log_in("vader");
    env.write_credentials(CREDENTIALS);
    env.signal_server(Signal::HUP);
    env.wait_log("the credentials were read again: 3 users");
    let mut hans = env.client("hans").spawn();
    hans.log_in("hans");
    hans.run_command("lpf", &["2 files published:", "a", "b"]);
    vader.run_command("sch a", &["1 file found:", "a"]);
    let yoda = env.client("yoda").user().run(&["sch a"]);
    assert!(yoda.stdout.contains("No files found"), "{yoda:?}");
    hans.run_command("unp a", &["File unpublished successfully"]);
    vader.run_command("sch a", &["No files found"]);
}

#[test]
fn sighup_with_credentials_without_users_keeps_the_old_ones() {
    assert_reload_is_refused("# nobody yet\n", "has no users; the credentials in force stay as they are");
}

#[test]
fn sighup_with_invalid_credentials_keeps_the_old_ones() {
    assert_reload_is_refused("hans falcon*solo\nbroken\n", "line 2");
}

/// SIGHUP with these credentials is refused with one log line that says why.
fn assert_reload_is_refused(credentials: &str, reason: &str) {
    let env = TestEnv::new();
    let mut hans = env.client("hans").spawn();
    hans.log_in("hans");
    let before = env.log_after_login("hans").lines().count();
    env.write_credentials(credentials);
    env.signal_server(Signal::HUP);
    env.wait_log(reason);
    assert_eq!(env.log().lines().count(), before + 1, "one line:\n{}", env.log());
    hans.run_command("lap", &["No active peers"]);
    env.client("yoda").user().run(&["lap"]).expect_code(0);
}

fn refusal(mut command: Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.output().expect("the server starts");
    let stderr = String::from_utf8(stderr).expect("text");
    assert!(stdout.is_empty(), "nothing is ready:\n{}", String::from_utf8_lossy(&stdout));
    let code = status.code().expect("an exit");
    assert!(code != 0 && !stderr.contains("panicked"), "{code}: {stderr}");
    (code, stderr)
}

/// Runs a server that must not start; returns its one line on stderr.
fn one_line_refusal(env: &TestEnv, args: &[&str]) -> String {
    let mut command = env.server_command();
    command.args(args);
    let (_, stderr) = refusal(command);
    assert_eq!(stderr.lines().count(), 1, "one clear line:\n{stderr}");
    stderr
}

#[test]
fn missing_credentials_are_named() {
    let env = TestEnv::stopped("");
    fs::remove_file(env.credentials()).expect("the file was there");
    assert!(one_line_refusal(&env, &["0"]).contains("credentials.txt"));
}

#[test]
fn malformed_credentials_name_the_line() {
    let long = "u".repeat(65);
    let cases = [
        ("hans falcon\nbroken\n", "line 2"),
        ("\n# comment\n lead space\n", "line 3"),
        ("hans \n", "line 1"),
        ("h\u{e4}ns x\n", "line 1"),
        ("hans $fileshare$nonsense\n", "line 1"),
        (&format!("ok x\n{long} x\n"), "line 2"),
        (&format!("ok x\nhans {}\n", "p".repeat(257)), "line 2"),
    ];
    for (text, line) in cases {
        let env = TestEnv::stopped(text);
        let why = one_line_refusal(&env, &["0"]);
        assert!(why.contains(line) && why.contains("credentials.txt"), "{text:?}: {why}");
    }
}

#[test]
fn a_duplicate_user_names_both_lines() {
    let env = TestEnv::stopped("hans one\nyoda two\nhans three\n");
    let why = one_line_refusal(&env, &["0"]);
    assert!(why.contains("hans") && why.contains('1') && why.contains('3'), "{why}");
}

#[test]
fn a_port_in_use_is_reported() {
    let env = TestEnv::new();
    let port = env.port().to_string();
    let mut command = env.server_command();
    command.args([&port, "--data", "other.db"]);
    // `server_command` already has the option; a fresh command has it once.
    let mut fresh = Command::new(command.get_program());
    fresh.current_dir(env.path()).arg("--credentials").arg(env.credentials()).args(["--data", "other.db", &port]);
    let (_, stderr) = refusal(fresh);
    assert!(stderr.lines().count() == 1 && stderr.contains(&port), "{stderr}");
    env.client("hans").user().run(&["lap"]).expect_code(0);
}

#[test]
fn a_data_file_in_use_is_refused_and_the_first_server_continues() {
    let env = TestEnv::new();
    let why = one_line_refusal(&env, &["0"]);
    assert!(why.contains("fileshare.db") && why.contains("use"), "{why}");
    env.client("hans").user().file("a", "a").run(&["pub a"]).expect_code(0);
}

#[test]
fn a_damaged_data_file_is_refused_and_not_modified() {
    let env = TestEnv::stopped(CREDENTIALS);
    fs::write(env.data(), "this is not a database but a letter\n".repeat(300)).expect("a file");
    let before = fs::read(env.data()).expect("a file");
    assert!(one_line_refusal(&env, &["0"]).contains("fileshare.db"));
    assert!(fs::read(env.data()).expect("a file") == before, "the file was changed");
}

#[test]
fn intervals_may_be_decimal_and_must_be_consistent() {
    let env = TestEnv::with(CREDENTIALS, &["--heartbeat", "0.25", "--liveness", "1.75"]);
    env.client("hans").user().run(&["lap"]).expect_code(0);
    let stopped = TestEnv::stopped(CREDENTIALS);
    for args in [
        &["0", "--heartbeat", "3", "--liveness", "3"][..],
        &["0", "--heartbeat", "4"],
        &["0", "--heartbeat", "0"],
        &["0", "--heartbeat", "-1"],
        &["0", "--liveness", "soon"],
        &["0", "--ephemeral"],
        &["0", "--log-level", "loud"],
        &["0", "--bind", "nowhere"],
        &["70000"],
        &[],
    ] {
        // `server_command` has --data, which conflicts with --ephemeral.
        let mut command = stopped.server_command();
        command.args(args);
        assert_eq!(refusal(command).0, 2, "{args:?}");
    }
}

#[test]
fn a_restarted_server_reuses_the_port_and_the_data() {
    let mut env = TestEnv::new();
    let port = env.port();
    env.kill_server();
    env.start();
    assert_eq!(env.port(), port);
    let expected = ["Welcome, hans!", COMMANDS, "No files published", "Goodbye!"];
    env.client("hans").user().run(&["lpf"]).expect(0, &expected);
}
