//! All that a user sees of a server restart is a note on stderr.

use std::time::Duration;

use crate::test_support::{TestEnv, seeded_bytes};

#[test]
fn a_command_entered_while_the_server_is_down_waits_and_succeeds() {
    let mut env = TestEnv::with(crate::test_support::CREDENTIALS, &["--heartbeat", "0.5", "--liveness", "3"]);
    let mut hans = env.client("hans").user().args(["-v"]).file("a", "a").spawn();
    hans.skip_greeting();
    env.kill_server();
    hans.send("pub a");
    hans.send("lpf");
    hans.wait_err("reconnecting");
    env.start();
    hans.expect_lines(&["File published successfully", "1 file published:", "a"]);
    hans.send("xit");
    let ended = hans.finish();
    ended.expect_code(0);
    assert_eq!(ended.stderr.matches("client: reconnected").count(), 1, "{}", ended.stderr);
}

#[test]
fn a_download_continues_during_a_server_restart() {
    let mut env = TestEnv::new();
    let content = seeded_bytes(5, 3 << 20);
    let hans = env.client("hans").user().file("film", &content).args(["--limit-rate", "1M"]);
    let hans = hans.stay(&["pub film"], &["File published successfully"]);
    let vader = env.client("vader");
    let target = vader.dir().join("film");
    let mut vader = vader.user().spawn();
    vader.skip_greeting();
    vader.send("get film");
    // The transfer is running once its partial file exists.
    let folder = target.parent().unwrap().to_owned();
    while !std::fs::read_dir(&folder).unwrap().any(|entry| entry.unwrap().path().extension().is_some()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..2 {
        env.kill_server();
        env.start();
    }
    vader.expect_lines(&["film downloaded successfully"]);
    assert_eq!(std::fs::read(target).unwrap(), content);
    vader.run_command("lap", &["1 active peer:", "hans"]);
    let stderr = hans.kill().stderr;
    assert!(!stderr.contains("failed"), "{stderr}");
}
