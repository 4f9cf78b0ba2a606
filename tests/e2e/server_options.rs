//! `--port-file`, `--check` and `--log-format json`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::test_support::{CREDENTIALS, Finished, Running, TestEnv, all_bytes, entries, mode, set_mode};

#[test]
fn the_port_file_holds_the_port_while_the_server_runs() {
    let mut env = TestEnv::with(CREDENTIALS, &["--port-file", "port"]);
    let path = env.path().join("port");
    assert_eq!(fs::read_to_string(&path).expect("it is there when the server is ready"), format!("{}\n", env.port()));
    env.kill_server();
    assert!(path.exists(), "a killed server leaves it");
    env.start();
    assert_eq!(fs::read_to_string(&path).expect("the next server replaces it"), format!("{}\n", env.port()));
    for signal in [Signal::TERM, Signal::INT] {
        env.stop_server(signal).expect_code(0);
        assert!(!path.exists());
        env.start();
    }
    // Another server's, by now.
    fs::remove_file(&path).expect("it can be removed");
    fs::write(&path, "1\n").expect("it can be written");
    env.stop_server(Signal::TERM).expect_code(0);
    assert_eq!(fs::read_to_string(&path).expect("it stays"), "1\n");
    let names = entries(env.path()).into_iter().filter(|name| name.starts_with("port"));
    assert_eq!(names.collect::<Vec<_>>(), ["port"], "no temporary file is left");
}

#[test]
fn a_port_file_that_cannot_be_written_keeps_the_server_from_starting() {
    let env = TestEnv::stopped(CREDENTIALS);
    symlink(env.credentials(), env.path().join("link")).expect("a link");
    for name in ["credentials.txt", "link", "folders/none/port", "."] {
        let done = server(&env, &["0", "--port-file", name]);
        done.expect(1, &[]);
        assert!(done.one_line_of_stderr().starts_with("server: cannot write the port to "), "{done:?}");
        assert_eq!(fs::read_to_string(env.credentials()).expect("credentials"), CREDENTIALS);
    }
    assert!(!env.data().exists(), "nothing was changed before");
    server(&env, &["--forget", "leia", "--port-file", "port"]).expect_code(2);
}

fn server_with(mut command: Command, args: &[&str]) -> Finished {
    command.args(args);
    Running::start("server", command).finish()
}

/// Runs a server with the environment's files to its end.
fn server(env: &TestEnv, args: &[&str]) -> Finished {
    server_with(env.server_command(), args)
}

/// Everything in the folder: names, bytes and modes.
fn state(dir: &Path) -> (Vec<String>, Vec<u8>, Vec<u32>) {
    let modes = entries(dir).iter().map(|name| mode(&dir.join(name))).collect();
    (entries(dir), all_bytes(dir), modes)
}

#[test]
fn check_says_ok_before_the_first_start_beside_a_running_server_and_after_a_crash() {
    let mut env = TestEnv::stopped(CREDENTIALS);
    let checked = |env: &TestEnv| {
        let before = state(env.path());
        for args in [&["--check"][..], &["0", "--check", "--port-file", "port"]] {
            let done = server(env, args);
            assert_eq!(done.expect(0, &["ok"]).stderr, "");
        }
        assert!(state(env.path()) == before, "something was changed");
    };
    checked(&env);
    env.start();
    env.client("hans").user().file("a", "a").run(&["pub --to vader a"]).expect_code(0);
    let port = env.port().to_string();
    server(&env, &[&port, "--check"]).expect(0, &["ok"]);
    checked(&env);
    env.kill_server();
    assert!(env.path().join("fileshare.db-wal").exists(), "the log is left by the kill");
    checked(&env);
    fs::remove_file(env.path().join("fileshare.db-shm")).expect("the index of the log");
    checked(&env);
    env.start();
    env.client("hans").user().args(["-q"]).run(&["lpf"]).expect(0, &["1 file published:", "a"]);
    env.stop_server(Signal::TERM);
    checked(&env);
}

#[test]
fn check_says_everything_that_is_wrong() {
    let env = TestEnv::stopped("hans falcon*solo\nbroken\n");
    fs::write(env.data(), "this is not a database but a letter\n".repeat(300)).expect("a file");
    let before = state(env.path());
    let done = server(&env, &["--check", "--bind", "192.0.2.1", "--port-file", "nowhere/port"]);
    let lines: Vec<&str> = done.expect(1, &[]).stderr.lines().collect();
    let expected =
        ["credentials.txt, line 2: ", "cannot listen on 192.0.2.1:0: ", "fileshare.db is not a", "nowhere/port: "];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with("server: ") && line.contains(expected), "{line:?}");
    }
    assert!(state(env.path()) == before, "something was changed");
    server(&env, &["--check", "--heartbeat", "3", "--liveness", "3"]).expect_code(2);
    server(&env, &["--check", "--forget", "leia"]).expect_code(2);
}

#[test]
fn check_finds_a_damaged_data_file_also_in_its_log() {
    let mut env = TestEnv::new();
    env.client("hans").user().file("a", "a").run(&["pub a"]).expect_code(0);
    env.stop_server(Signal::TERM);
    let sound = fs::read(env.data()).expect("the data file");
    // The page of the publications: everything is checked, not the header alone.
    let mut damaged = sound.clone();
    let at = sound.windows(4).rposition(|bytes| bytes == b"hans").expect("the user's name");
    damaged[at..at + 4].copy_from_slice(b"ha s");
    fs::write(env.data(), &damaged).expect("the data file");
    let done = server(&env, &["--check"]);
    done.expect(1, &[]);
    assert!(done.one_line_of_stderr().contains("fileshare.db is damaged ("), "{done:?}");
    fs::write(env.data(), b"").expect("the data file");
    fs::write(env.path().join("fileshare.db-wal"), b"log").expect("a log");
    let done = server(&env, &["--check"]);
    assert!(done.expect(1, &[]).one_line_of_stderr().contains("empty or gone"), "{done:?}");
    let other = server_with(Command::new(env!("CARGO_BIN_EXE_server")), &["--check", "--data", "/nowhere/x.db"]);
    other.expect_code(1);
}

#[test]
fn check_warns_and_is_content() {
    let env = TestEnv::stopped("# nobody yet\n");
    set_mode(&env.credentials(), 0o644);
    let done = server(&env, &["--check"]);
    let lines: Vec<&str> = done.expect(0, &["ok"]).stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("server: warning: ") && line.contains("credentials.txt")));
    env.write_credentials(CREDENTIALS);
    let done = server(&env, &["--check", "--bind", "0.0.0.0"]);
    assert!(done.expect(0, &["ok"]).one_line_of_stderr().contains("sample passwords"), "{done:?}");
}

/// Every line of a log as an object. The fixed fields are checked.
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| -> Value {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why} in {line:?}"));
        for field in ["time", "level", "event", "message"] {
            assert!(object[field].is_string(), "{field} in {line}");
        }
        object
    };
    log.lines().map(object).collect()
}

#[test]
fn a_json_log_has_one_object_for_each_event() {
    let mut env = TestEnv::with(CREDENTIALS, &["--log-format", "json", "--bind", "127.0.0.1"]);
    env.client("hans").user().file("a", "a").run(&["pub a", "-get zzz", "unp a"]).expect_code(0);
    env.client("vader").user_as("vader", "wrong").run(&["lap"]).expect_code(4);
    env.write_credentials("yoda wise@!man\n");
    env.signal_server(Signal::HUP);
    env.wait_log("credentials_reloaded");
    env.write_credentials("yoda\n");
    env.signal_server(Signal::HUP);
    env.wait_log("reload_refused");
    let address = env.address().to_string();
    let log = objects(&env.stop_server(Signal::TERM).expect_code(0).stderr);
    let brief: Vec<String> = log
        .iter()
        .map(|object| {
            let field = |name: &str| object[name].as_str().unwrap_or("-").to_owned();
            assert_eq!(object["address"].is_string(), object["verb"].is_string() || object["event"] == "listening");
            ["event", "user", "verb", "result"].map(field).join(" ")
        })
        .collect();
    let expected = [
        "listening - - -",
        "received hans AUTH -",
        "sent hans AUTH OK",
        "received hans PUB -",
        "sent hans PUB OK",
        "received hans GET -",
        "sent hans GET ERR",
        "received hans UNP -",
        "sent hans UNP OK",
        "received hans XIT -",
        "sent hans XIT OK",
        "received vader AUTH -",
        "sent vader AUTH ERR",
        "credentials_reloaded - - -",
        "reload_refused - - -",
        "stopping - - -",
    ];
    assert_eq!(brief, expected);
    assert_eq!(log[0]["address"], *address);
    assert_eq!(log[13]["count"], 1);
}

#[test]
fn a_json_log_has_the_reason_for_an_end_too() {
    let env = TestEnv::stopped("hans falcon*solo\nbroken\n");
    let done = server(&env, &["0", "--log-format", "json"]);
    let log = objects(&done.expect(1, &[]).stderr);
    assert_eq!(log.len(), 1);
    assert!(log[0]["event"] == "failed" && log[0]["level"] == "error", "{log:?}");
    assert!(log[0]["message"].as_str().is_some_and(|text| text.contains("line 2")), "{log:?}");
    env.write_credentials(CREDENTIALS);
    set_mode(&env.credentials(), 0o644);
    let mut command = env.server_command();
    command.args(["0", "--log-format", "json"]);
    let mut server = Running::start("server", command);
    server.next_line();
    server.signal(Signal::TERM);
    let log = objects(&server.finish().expect_code(0).stderr);
    assert!(log.iter().any(|object| object["level"] == "warn" && object["event"] == "message"), "{log:?}");
}
