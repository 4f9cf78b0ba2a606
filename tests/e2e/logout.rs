//! Logging out and exiting: peers see a logout at once and a crash after the liveness time; `--stay` lasts until a signal.

use std::net::Ipv4Addr;

use rustix::process::Signal;

use crate::test_support::relay::UdpRelay;
use crate::test_support::{Client, TestEnv};

#[test]
fn every_kind_of_exit_is_visible_to_peers_at_once() {
    // The liveness time exceeds the test's timeout, so that no session can time out here.
    let env = TestEnv::with(crate::test_support::CREDENTIALS, &["--liveness", "3600"]);
    let mut watcher = env.client("yoda").user().spawn();
    watcher.skip_greeting();
    let mut hans = env.client("hans").user().spawn();
    hans.skip_greeting();
    watcher.run_command("lap", &["1 active peer:", "hans"]);
    hans.run_command("xit", &["Goodbye!"]);
    watcher.run_command("lap", &["No active peers"]);
    for leave in [None, Some(Signal::INT), Some(Signal::TERM)] {
        let mut hans = env.client("hans").user().spawn();
        hans.skip_greeting();
        watcher.run_command("lap", &["1 active peer:", "hans"]);
        match leave {
            Some(signal) => hans.signal(signal),
            None => hans.close_stdin(),
        }
        hans.wait();
        watcher.run_command("lap", &["No active peers"]);
    }
    env.wait_log_times("Received XIT from hans", 4);
    assert!(!env.log().contains("timed out"));
}

#[test]
fn a_crashed_client_disappears_after_the_liveness_time() {
    let env = TestEnv::with(crate::test_support::CREDENTIALS, &["--heartbeat", "0.5", "--liveness", "3"]);
    let hans = env.client("hans").user().file("a", "a").stay(&["pub a"], &["File published successfully"]);
    let mut watcher = env.client("yoda").user().spawn();
    watcher.skip_greeting();
    watcher.run_command("lap", &["1 active peer:", "hans"]);
    hans.kill();
    env.wait_log("hans timed out");
    watcher.run_command("lap", &["No active peers"]);
    watcher.run_command("sch a", &["No files found"]);
    watcher.run_command("get a", &["File not found"]);
    assert!(!env.log().contains("yoda timed out"), "who sends heartbeats lives");
}

#[test]
fn stay_continues_after_the_end_of_input() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().file("a", "a").args(["--stay"]).spawn();
    hans.skip_greeting();
    hans.run_command("pub a", &["File published successfully"]);
    hans.close_stdin();
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    vader.run_command("get a", &["a downloaded successfully"]);
    vader.run_command("lap", &["1 active peer:", "hans"]);
    hans.signal(Signal::TERM);
    hans.wait().expect_code(143);
    vader.run_command("lap", &["No active peers"]);
}

#[test]
fn a_name_is_free_again_once_its_user_has_left() {
    let env = TestEnv::new();
    for _ in 0..3 {
        env.client("hans").user().run(&["lap"]).expect_code(0);
    }
    env.wait_log_times("Received XIT from hans", 3);
    assert_eq!(env.log().matches("Received AUTH from hans").count(), 3, "no attempt had to be repeated");
}

#[test]
fn clients_recover_from_an_outage_longer_than_the_liveness_time() {
    let env = TestEnv::with(crate::test_support::CREDENTIALS, &["--heartbeat", "0.5", "--liveness", "1.5"]);
    let relay = UdpRelay::start(env.address(), Ipv4Addr::LOCALHOST);
    let client = Client::new(env.path(), "hans", "127.0.0.1", relay.port()).file("a", "a");
    let mut hans = client.spawn();
    hans.log_in("hans");
    hans.run_command("pub a", &["File published successfully"]);
    relay.set_silent(true);
    env.wait_log("hans timed out");
    hans.send("lpf");
    relay.set_silent(false);
    hans.expect_lines(&["1 file published:", "a"]);
    hans.wait_err("reconnected");
    let mut vader = env.client("vader").spawn();
    vader.log_in("vader");
    vader.run_command("get a", &["a downloaded successfully"]);
}
