//! `wait` and `get --wait` between real programs.

use std::fs;

use rustix::process::Signal;

use crate::test_support::{TestEnv, password};

#[test]
fn a_wait_ends_when_the_peer_or_the_file_appears() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("wait peer vader 0", &["Timed out"]);
    hans.run_command("wait file movie.mp4 0.1", &["Timed out"]);
    hans.send("wait peer vader");
    hans.send("wait file movie.mp4");
    hans.send("get --wait 30 late.txt");
    hans.send("wait gone vader");
    let mut vader = env.client("vader").file("movie.mp4", "m").file("late.txt", "late").user().args(["-q"]).spawn();
    hans.expect_lines(&["vader is active"]);
    vader.run_command("pub movie.mp4", &["File published successfully"]);
    hans.expect_lines(&["movie.mp4 is available"]);
    vader.run_command("pub late.txt", &["File published successfully"]);
    hans.expect_lines(&["late.txt downloaded successfully"]);
    vader.signal(Signal::KILL);
    hans.expect_lines(&["vader is gone"]);
    hans.send("xit");
    hans.finish().expect_code(124);
}

#[test]
fn the_status_of_a_wait_is_that_of_the_client() {
    let env = TestEnv::new();
    let _vader = env.client("vader").user().stay(&["lap"], &["No active peers"]);
    env.client("hans").user().args(["-q"]).run(&["wait peer vader"]).expect(0, &["vader is active"]);
    env.client("hans").user().args(["-q"]).run(&["wait gone vader 0.05", "lap"]).expect(124, &["Timed out"]);
    env.client("hans").user().args(["-q"]).run(&["get --wait 0.05 nothing"]).expect(5, &["File not found"]);
    for command in ["wait peer hans", "wait", "wait peer vader x", "wait file *.pdf", "get --wait a"] {
        let done = env.client("hans").user().args(["-q"]).run(&[command]);
        done.expect_code(2);
        done.one_line_of_stderr();
    }
    let done = env.client("hans").args(["-q"]).run(&["wait peer vader"]);
    done.expect(4, &["Please authenticate first"]);
    let json = env.client("hans").user().args(["-q", "--json"]).run(&["wait file nothing 0"]);
    json.expect_code(124);
    assert!(json.stdout.contains(r#""code":124"#) && json.stdout.contains(r#""name":"nothing""#), "{json:?}");
}

#[test]
fn a_wait_outlives_a_restart_of_the_server() {
    let mut env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("lap", &["No active peers"]);
    hans.send("wait file a.txt 60");
    env.kill_server();
    let port = env.port();
    env.use_port(port);
    env.start();
    let vader = env.client("vader").file("a.txt", "a").user().stay(&["pub a.txt"], &["File published successfully"]);
    hans.expect_lines(&["a.txt is available"]);
    drop(vader);
}

#[test]
fn a_signal_or_the_end_of_the_session_ends_a_wait() {
    let env = TestEnv::new();
    let hans = env.client("hans").user().args(["-q"]).commands(&["wait peer yoda 600"]).spawn();
    env.wait_log("Received AUTH from hans");
    hans.signal(Signal::INT);
    hans.wait().expect_code(130);
    let vader = env.client("vader").user().args(["-q"]).commands(&["lap", "wait peer yoda 600"]).spawn();
    env.wait_log("Sent OK to vader");
    env.write_credentials(&format!("hans {}\n", password("hans")));
    env.signal_server(Signal::HUP);
    vader.wait().expect_code(4);
}

#[test]
fn fifty_sides_wait_for_the_same_and_the_33rd_different_wait_is_refused() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    for other in 1..32 {
        hans.run_command(&format!("wait peer other{other} 600 &"), &[&format!("[{other}] wait peer other{other} 600")]);
    }
    let attach = |command: &str| env.client("hans").args(["--attach", "-q", "-c", command]);
    let sides: Vec<_> = (0..50).map(|_| attach("wait file late.txt 60").spawn()).collect();
    // Once another is refused, one of the sides has the last subscription.
    let refused = loop {
        let done = attach("wait peer another 0").run(&[]);
        if done.code != 124 {
            break done;
        }
    };
    refused.expect(2, &[]);
    assert_eq!(refused.one_line_of_stderr(), "client: too many different waits and lists at once; at most 32");
    attach("wait peer other7 0").run(&[]).expect(124, &["Timed out"]);
    attach("wait gone other7").run(&[]).expect(0, &["other7 is gone"]);
    let _vader =
        env.client("vader").file("late.txt", "l").user().stay(&["pub late.txt"], &["File published successfully"]);
    for side in sides {
        side.wait().expect(0, &["late.txt is available"]);
    }
    hans.run_command("cancel 1", &["[1] cancelled"]);
    attach("wait peer vader 0").run(&[]).expect(0, &["vader is active"]);
}

#[test]
fn a_get_that_waits_ends_with_the_server_and_with_the_session() {
    let mut env = TestEnv::new();
    let get = |env: &TestEnv, name: &str, seconds: &str| {
        env.client(name).user().args(["-q"]).commands(&["lap", &format!("get --wait {seconds} late.txt")]).spawn()
    };
    let mut restarted = get(&env, "hans", "60");
    restarted.expect_lines(&["No active peers"]);
    let mut logged_out = get(&env, "yoda", "600");
    logged_out.expect_lines(&["1 active peer:", "hans"]);
    env.write_credentials(&format!("hans {0}\nvader {1}\n", password("hans"), password("vader")));
    env.signal_server(Signal::HUP);
    let logged_out = logged_out.wait();
    logged_out.expect_code(4);
    assert_eq!(logged_out.stdout.lines().last(), Some("Please authenticate first"));
    env.kill_server();
    let port = env.port();
    env.use_port(port);
    env.start();
    let vader = env.client("vader").file("late.txt", "l").user();
    let vader = vader.stay(&["pub late.txt"], &["File published successfully"]);
    restarted.wait().expect(0, &["No active peers", "late.txt downloaded successfully"]);
    drop(vader);
    env.client("hans").user().args(["-q"]).run(&["wait gone vader"]).expect(0, &["vader is gone"]);
    let mut alone = get(&env, "hans", "4");
    alone.next_line();
    fs::remove_file(env.path().join("folders/hans/late.txt")).unwrap();
    env.kill_server();
    let alone = alone.wait();
    alone.expect_code(3);
    assert!(alone.one_line_of_stderr().contains("server"), "{alone:?}");
}
