//! `pub --to`: for all other users the file does not exist.

use std::fs;

use crate::test_support::{Finished, TestEnv, seeded_bytes};

fn outcome(done: &Finished) -> (i32, &str, &str) {
    (done.code, &done.stdout, &done.stderr)
}

#[test]
fn a_restricted_file_is_visible_only_to_its_audience() {
    let env = TestEnv::with("hans falcon*solo\nyoda wise@!man\nvader sithlord**\n", &[]);
    let client = env.client("hans").user().file("plan", "secret plan");
    let _hans = client.stay(&["pub --to vader plan"], &["File published successfully"]);
    let named = env.client("vader").user().args(["-q"]).run(&["sch plan", "get plan"]);
    named.expect(0, &["1 file found:", "plan", "plan downloaded successfully"]);
    for command in ["sch plan", "sch -l plan", "sch -i PLAN", "get plan", "get pl*", "get plan#0000"] {
        let hidden = env.client("yoda").user().args(["-q"]).run(&[command]);
        let absent = env.client("yoda").user().args(["-q"]).run(&[&command.replace("pl", "xy").replace("PL", "XY")]);
        let absent = (absent.code, absent.stdout.replace("xy", "pl"), absent.stderr.replace("xy", "pl"));
        assert_eq!(outcome(&hidden), (absent.0, &*absent.1, &*absent.2), "{command}");
    }
}

#[test]
fn publishing_again_without_to_opens_the_file_to_all_with_a_note() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().file("plan", "plan").spawn();
    hans.skip_greeting();
    hans.run_command("pub --to vader --to nobody plan", &["File published successfully"]);
    let mut yoda = env.client("yoda").user().spawn();
    yoda.skip_greeting();
    yoda.run_command("sch plan", &["No files found"]);
    let before = hans.err.text().lines().count();
    hans.run_command("pub plan", &["File published successfully"]);
    hans.run_command("lpf", &["1 file published:", "plan"]);
    hans.err.wait("one note on stderr", |text| (text.lines().count() == before + 1).then_some(()));
    yoda.run_command("sch plan", &["1 file found:", "plan"]);
    yoda.run_command("get plan", &["plan downloaded successfully"]);
}

#[test]
fn an_audience_can_be_narrowed_and_survives_a_restart() {
    let mut env = TestEnv::new();
    let mut hans = env.client("hans").user().file("plan", "plan").spawn();
    hans.skip_greeting();
    hans.run_command("pub plan", &["File published successfully"]);
    hans.run_command("pub --to yoda plan", &["File published successfully"]);
    env.kill_server();
    env.start();
    hans.run_command("lpf", &["1 file published:", "plan"]);
    env.client("vader").user().args(["-q"]).run(&["sch plan"]).expect(0, &["No files found"]);
    env.client("yoda").user().args(["-q"]).run(&["get plan"]).expect(0, &["plan downloaded successfully"]);
}

#[test]
fn a_large_audience_is_transmitted_completely() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().file("plan", "plan").spawn();
    hans.skip_greeting();
    let mut command = String::from("pub");
    for index in 0..200 {
        command.push_str(&format!(" --to somebody-with-a-rather-long-name-{index:03}"));
    }
    hans.run_command(&format!("{command} --to vader plan"), &["File published successfully"]);
    env.client("vader").user().args(["-q"]).run(&["get plan"]).expect(0, &["plan downloaded successfully"]);
    env.client("yoda").user().args(["-q"]).run(&["get plan"]).expect(5, &["File not found"]);
}

#[test]
fn publications_remain_when_only_a_partial_file_is_left() {
    let env = TestEnv::new();
    let content = seeded_bytes(7, (1 << 20) + 1);
    let hans = || env.client("hans").user().args(["-q"]);
    hans()
        .file("big", &content)
        .file("old", "old")
        .run(&["pub big old"])
        .expect(0, &["2 files published successfully"]);
    let part = format!(".{}.part", &blake3::hash(&content).to_hex()[..32]);
    fs::rename(hans().dir().join("big"), hans().dir().join(part)).expect("as an interrupted get leaves it");
    // `pub` waits until the list of own publications is loaded after the login.
    let expected = ["File published successfully", "2 files published:", "big", "old"];
    hans().run(&["pub old", "lpf"]).expect(0, &expected);
}
