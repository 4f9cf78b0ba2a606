//! What is published stays published: over logging out, a crash of the client, a crash of the server, a stop.

use std::fs;

use rustix::process::Signal;

use crate::testenv::{COMMANDS, TestEnv};

#[test]
fn publications_survive_logging_out_and_crashes() {
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
fn an_acknowledged_publication_outlives_a_server_killed_at_once() {
    let mut env = TestEnv::new();
    let mut client = env.client("hans").user();
    for index in 0..20 {
        client = client.file(&format!("f{index:02}"), index.to_string());
    }
    let mut hans = client.spawn();
    hans.skip_greeting();
    for index in 0..20 {
        hans.ask(&format!("pub f{index:02}"), &["File published successfully"]);
        if index % 5 == 4 {
            env.kill_server();
            env.start();
        }
    }
    hans.ask("lpf", &["20 files published:"]);
    for index in 0..20 {
        hans.says(&[&format!("f{index:02}")]);
    }
    hans.send("xit");
    hans.finish().expect_code(0);
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
    vader.ask("get a", &["a downloaded successfully"]);
    drop(hans);
}

#[test]
fn an_ephemeral_server_keeps_nothing_and_writes_nothing() {
    let mut env = TestEnv::with(crate::testenv::CREDENTIALS, &["--ephemeral"]);
    env.client("hans").user().file("a", "a").run(&["pub a"]).expect_code(0);
    assert!(!fs::exists(env.data()).expect("a readable folder"));
    env.stop_server(Signal::TERM);
    env.start();
    env.client("hans").user().run(&["lpf"]).expect(0, &["Welcome, hans!", COMMANDS, "No files published", "Goodbye!"]);
    let left = fs::read_dir(env.path()).expect("a readable folder").filter_map(Result::ok);
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("fileshare.db")));
}
