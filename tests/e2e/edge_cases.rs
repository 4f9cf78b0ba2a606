//! Edge cases of output: empty results, several names, greetings, timeouts, versions, hosts.

use std::process::{Command, Stdio};

use crate::test_support::fake::FakeServer;
use crate::test_support::{COMMANDS, Client, TestEnv};
use fileshare::internals::common::packet::Packet;

#[test]
fn empty_is_not_failure() {
    let env = TestEnv::new();
    let expected = ["No active peers", "No files published", "No files found"];
    env.client("hans").user().args(["-q"]).run(&["lap", "lpf", "sch a"]).expect(0, &expected);
}

#[test]
fn several_names_are_all_tried() {
    let env = TestEnv::new();
    let peer = env.client("hans").user().file("a", "a").file("b", "b").file("c", "c");
    let mut hans = peer.args(["--stay"]).spawn();
    hans.skip_greeting();
    hans.run_command("pub a nope b", &["2 files published successfully", "File publication failed"]);
    hans.run_command("pub nope neither", &["File publication failed"]);
    let done = env.client("vader").user().args(["-q"]).run(&["get b nope a"]);
    done.expect(5, &["b downloaded successfully", "File not found", "a downloaded successfully"]);
    let published = env.client("yoda").user().file("x", "x").args(["-q"]).run(&["pub x nope"]);
    published.expect(8, &["File published successfully", "File publication failed"]);
    let withdrawn = env.client("yoda").user().args(["-q"]).run(&["unp x nope"]);
    withdrawn.expect(5, &["File unpublished successfully", "File unpublication failed"]);
}

#[test]
fn greetings_are_printed_in_every_input_mode_unless_quiet() {
    let env = TestEnv::new();
    let greeted = ["Welcome, hans!", COMMANDS, "No active peers", "Goodbye!"];
    env.client("hans").user().run(&["lap"]).expect(0, &greeted);
    env.client("hans").user().pipe(&["lap"]).expect(0, &greeted);
    env.client("hans").user().pipe(&["lap", "xit"]).expect(0, &greeted);
    env.client("hans").user().args(["-b", "-"]).pipe(&["lap"]).expect(0, &greeted);
    env.client("hans").user().file("batch", "lap\n").args(["-b", "batch"]).spawn().finish().expect(0, &greeted);
    env.client("hans").user().args(["-q"]).pipe(&["lap", "xit"]).expect(0, &["No active peers"]);
}

#[test]
fn with_commands_stdin_is_not_read() {
    let env = TestEnv::new();
    env.client("hans").user().args(["-q", "-c", "lap"]).pipe(&["lpf"]).expect(0, &["No active peers"]);
    let batch = env.client("hans").user().file("batch", "lap\n").args(["-q", "-b", "batch"]);
    batch.pipe(&["lpf"]).expect(0, &["No active peers"]);
}

#[test]
fn commands_together_with_a_batch_are_a_usage_error() {
    let env = TestEnv::new();
    let done = env.client("hans").user().file("batch", "lap\n").args(["-c", "lap", "-b", "batch"]).spawn().finish();
    done.expect(2, &[]);
    assert!(!done.stderr.is_empty());
}

#[test]
fn without_arguments_a_short_introduction_is_printed() {
    let env = TestEnv::stopped("");
    let done = Command::new(env!("CARGO_BIN_EXE_client")).current_dir(env.path()).output().expect("the program starts");
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    let page = String::from_utf8(done.stderr).expect("text");
    assert!((3..=40).contains(&page.lines().count()) && page.contains("client") && page.contains("help"), "{page}");
}

#[test]
fn xit_with_a_dead_server_succeeds() {
    let mut env = TestEnv::new();
    let mut hans = env.client("hans").spawn();
    hans.log_in("hans");
    env.kill_server();
    hans.run_command("xit", &["Goodbye!"]);
    hans.finish().expect_code(0);
}

#[test]
fn a_command_entered_during_a_server_restart_waits_and_succeeds() {
    let mut env = TestEnv::new();
    let mut hans = env.client("hans").file("a", "a").spawn();
    hans.log_in("hans");
    hans.run_command("pub a", &["File published successfully"]);
    env.kill_server();
    hans.send("lpf");
    env.start();
    hans.expect_lines(&["1 file published:", "a"]);
    hans.wait_err("reconnected");
    assert_eq!(hans.err.text().matches("reconnected").count(), 1);
    hans.run_command("unp a", &["File unpublished successfully"]);
}

#[test]
fn a_version_mismatch_is_reported_in_one_line() {
    let env = TestEnv::stopped("");
    let newer = FakeServer::start(|datagram| match Packet::parse(datagram) {
        Some(Packet::Hello { nonce, .. }) => Some(Packet::Version { version: 999, nonce }.to_bytes()),
        _ => None,
    });
    let done = Client::new(env.path(), "hans", "127.0.0.1", newer.port()).user().run(&["lap"]);
    done.expect_code(3);
    assert!(done.one_line_of_stderr().contains("999"), "{}", done.stderr);
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let env = TestEnv::new();
    let mut command = env.client("hans").user().commands(&["help", "lap", "lpf"]).into_command();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let done = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    env.wait_log("Received XIT from hans");
}

#[test]
fn all_addresses_of_a_host_name_are_tried() {
    let env = TestEnv::new();
    Client::new(env.path(), "hans", "localhost", env.port()).user().run(&["lap"]).expect_code(0);
}

#[test]
fn the_server_listens_on_ipv6_too() {
    let env = TestEnv::with("hans falcon*solo\nvader sithlord**\n", &["--bind", "::1"]);
    let client = |name: &str| Client::new(env.path(), name, "::1", env.port()).user();
    let _hans = client("hans").file("a", "a").stay(&["pub a"], &["File published successfully"]);
    client("vader").args(["-q"]).run(&["get a"]).expect(0, &["a downloaded successfully"]);
    Client::new(env.path(), "vader", "localhost", env.port()).user().run(&["lap"]).expect_code(0);
}

#[test]
fn the_user_can_come_from_the_environment() {
    let env = TestEnv::new();
    let client = env.client("hans").env("FILESHARE_USER", "hans").env("FILESHARE_PASSWORD", "falcon*solo");
    client.run(&["lap"]).expect(0, &["Welcome, hans!", COMMANDS, "No active peers", "Goodbye!"]);
}
