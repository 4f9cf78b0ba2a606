//! Exit statuses (docs/CLI.md), and which of several failures decides.
//!
//! 6, 7 and the 9 of a full disk are tested with the downloads (`transfers`, `transfer_failures`).

use rustix::process::Signal;

use crate::test_support::fake::FakeServer;
use crate::test_support::{CREDENTIALS, Client, TestEnv};

#[test]
fn success_is_exit_0_and_usage_is_exit_2() {
    let env = TestEnv::new();
    env.client("hans").user().run(&["lpf", "lap", "sch a", "help"]).expect_code(0);
    for command in ["frobnicate", "pub", "unp", "get", "sch", "auth", "sch -z a", "lap more", "help a b"] {
        let done = env.client("hans").user().run(&[command]);
        done.expect_code(2);
        done.one_line_of_stderr();
    }
    for args in [&["--frobnicate"][..], &["--on-exists", "maybe"], &["more"]] {
        env.client("hans").args(args).spawn().finish().expect_code(2);
    }
}

#[test]
fn an_unreachable_server_is_exit_3() {
    let env = TestEnv::stopped("hans falcon*solo\n");
    let silent = FakeServer::start(|_| None);
    let done = Client::new(env.path(), "hans", "127.0.0.1", silent.port()).user().run(&["lap"]);
    done.expect_code(3);
    done.one_line_of_stderr();
    let done = Client::new(env.path(), "hans", "no-such-host.invalid", 1).user().run(&["lap"]);
    done.expect_code(3);
    done.one_line_of_stderr();
}

#[test]
fn not_logged_in_is_exit_4() {
    let env = TestEnv::new();
    for command in ["lap", "lpf", "sch a", "get a", "pub a", "unp a"] {
        let done = env.client("hans").file("a", "a").run(&[command]);
        done.expect_code(4);
        assert!(done.stdout.contains("Please authenticate first"), "{command}: {done:?}");
    }
    let done = env.client("hans").run(&["auth hans wrong"]);
    done.expect_code(4);
    assert!(done.stdout.starts_with("Authentication failed. Please try again.\n"), "{done:?}");
    env.client("hans").user_as("hans", "wrong").run(&["lap"]).expect_code(4);
}

#[test]
fn not_found_is_exit_5_and_a_local_file_problem_is_exit_8() {
    let env = TestEnv::new();
    env.client("hans").user().run(&["get nope"]).expect_code(5);
    env.client("hans").user().run(&["unp nope"]).expect_code(5);
    env.client("hans").user().run(&["get nope/"]).expect_code(5);
    env.client("hans").user().run(&["get *.nope"]).expect_code(5);
    env.client("hans").user().run(&["pub nope"]).expect_code(8);
}

#[test]
fn a_signal_exits_with_128_plus_its_number() {
    let env = TestEnv::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
        hans.signal(signal);
        hans.wait().expect_code(code);
    }
}

#[test]
fn piped_input_goes_on_after_a_failure_and_ends_with_the_first() {
    let env = TestEnv::new();
    let done = env.client("hans").user().args(["-q"]).pipe(&["unp nope", "pub nope", "frobnicate", "lpf"]);
    done.expect(5, &["File unpublication failed", "File publication failed", "No files published"]);
    assert_eq!(done.stderr.lines().count(), 3, "a reason for each failure:\n{}", done.stderr);
}

#[test]
fn commands_and_batches_stop_at_the_first_failure() {
    let env = TestEnv::new();
    let done = env.client("hans").user().args(["-q"]).run(&["pub nope", "unp nope", "lpf"]);
    done.expect(8, &["File publication failed"]);
    let batch = "lap\nunp nope\npub nope\nlpf\n";
    let done = env.client("hans").user().file("batch", batch).args(["-q", "-b", "batch"]).spawn().finish();
    done.expect(5, &["No active peers", "File unpublication failed"]);
}

#[test]
fn a_leading_minus_ignores_a_failure() {
    let env = TestEnv::new();
    let expected = ["File unpublication failed", "No files published"];
    env.client("hans").user().args(["-q"]).run(&["-unp nope", "lpf"]).expect(0, &expected);
    let batch = "-unp nope\nlpf\n";
    env.client("hans").user().file("batch", batch).args(["-q", "-b", "batch"]).spawn().finish().expect(0, &expected);
}

#[test]
fn a_failed_command_ends_a_client_with_stay() {
    let env = TestEnv::new();
    let hans = env.client("hans").user().args(["--stay"]).commands(&["pub nope"]).spawn();
    hans.wait().expect_code(8);
    env.wait_log("Received XIT from hans");
}

#[test]
fn a_quota_at_the_server_is_exit_9() {
    let env = TestEnv::with(CREDENTIALS, &["--max-files", "2", "--max-name-bytes", "10", "--max-audience", "1"]);
    let cases = [
        ("pub a b c", "over the quota at the server: at most 2 publications a user"),
        ("pub a-long-name", "over the quota at the server: at most 10 bytes of published names a user"),
        ("pub --to vader --to yoda a", "over the quota at the server: at most 1 members of audiences a user"),
    ];
    for (command, reason) in cases {
        let hans = env.client("hans").user().file("a", "a").file("b", "b").file("c", "c").file("a-long-name", "d");
        let done = hans.args(["-q"]).run(&[command, "lpf"]);
        done.expect_code(9);
        assert_eq!(done.stdout, "File publication failed\n", "{done:?}");
        assert!(done.one_line_of_stderr().contains(reason), "{done:?}");
    }
    let done = env.client("hans").user().file("a", "a").file("b", "b").run(&["pub a b", "pub --to vader a", "lpf"]);
    done.expect_code(0);
}
