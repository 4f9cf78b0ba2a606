//! Publications survive logout, a crash of the client, and a crash or stop of the server.

use std::fs;

use rustix::process::Signal;

use crate::test_support::{COMMANDS, TestEnv};

#[test]
fn publications_survive_logout_and_crashes() {
    let mut env = TestEnv::new();
    let hans = || env.client("hans").user().args(["-q"]);
    hans().file("a", "a").run(&["pub a"]).expect_code(0);
    hans().run(&["lpf"]).expect(0, &["1 file published:", "a"]);
    env.client("hans").user().file("b", "b").stay(&["pub b"], &["File published successfully"]).kill();
    hans().run(&["lpf"]).expect(0, &["2 files published:", "a", "b"]);
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        env.stop_server(signal);
        env.start();
        let lines = ["2 files published:", "a", "b"];
        env.client("hans").user().args(["-q"]).run(&["lpf"]).expect(0, &lines);
    }
    env.client("hans").user().args(["-q"]).run(&["unp a"]).expect_code(0);
    env.kill_server();
    env.start();
    env.client("hans").user().args(["-q"]).run(&["lpf"]).expect(0, &["1 file published:", "b"]);
}

#[test]
fn an_acknowledged_publication_survives_an_immediate_server_kill() {
    let mut env = TestEnv::new();
    for round in 1..=4 {
        let names: Vec<String> = (0..5).map(|at| format!("f{round}{at}")).collect();
        let client = names.iter().fold(env.client("hans").user(), |client, name| client.file(name, name));
        let mut hans = client.spawn();
        hans.skip_greeting();
        for name in &names {
            hans.run_command(&format!("pub {name}"), &["File published successfully"]);
        }
        env.kill_server();
        // A client that keeps running would republish what the server has lost.
        hans.kill();
        env.start();
        let done = env.client("hans").user().args(["-q"]).run(&["lpf"]);
        let all: Vec<String> = (1..=round).flat_map(|round| (0..5).map(move |at| format!("f{round}{at}"))).collect();
        let mut lines = vec![format!("{} files published:", all.len())];
        lines.extend(all);
        done.expect(0, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn a_client_does_not_republish_after_a_server_kill() {
    let mut env = TestEnv::new();
    let mut hans = env.client("hans").user().file("a", "a").args(["-v"]).spawn();
    hans.skip_greeting();
    for _ in 0..3 {
        hans.run_command("pub a", &["File published successfully"]);
        env.kill_server();
        env.start();
        hans.run_command("lpf", &["1 file published:", "a"]);
    }
    hans.send("xit");
    let done = hans.finish();
    done.expect_code(0);
    assert!(!done.stderr.contains("published again"), "{}", done.stderr);
}

#[test]
fn a_peer_keeps_serving_over_a_server_restart() {
    let mut env = TestEnv::new();
    let hans = env.client("hans").user().file("a", "a").stay(&["pub a"], &["File published successfully"]);
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    env.kill_server();
    env.start();
    vader.wait_for_peer("hans");
    vader.run_command("get a", &["a downloaded successfully"]);
    drop(hans);
}

#[test]
fn an_ephemeral_server_keeps_nothing_and_writes_nothing() {
    let mut env = TestEnv::with(crate::test_support::CREDENTIALS, &["--ephemeral"]);
    env.client("hans").user().file("a", "a").run(&["pub a"]).expect_code(0);
    assert!(!fs::exists(env.data()).expect("a readable folder"));
    env.stop_server(Signal::TERM);
    env.start();
    env.client("hans").user().run(&["lpf"]).expect(0, &["Welcome, hans!", COMMANDS, "No files published", "Goodbye!"]);
    let left = fs::read_dir(env.path()).expect("a readable folder").filter_map(Result::ok);
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("fileshare.db")));
}
