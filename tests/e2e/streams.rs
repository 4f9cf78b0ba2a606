//! The standard streams: only a reader that has gone ends a program quietly, and standard input may start with a password.

use std::fs::File;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::test_support::{Client, Running, TestEnv, auth, free_port};

/// Runs a command whose stdout is a full disk; returns its status and its stderr.
fn with_full_stdout(mut command: Command) -> (i32, String) {
    let full = File::options().write(true).open("/dev/full").expect("a Linux system");
    let done = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().expect("it starts");
    (done.status.code().expect("an exit"), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn a_full_disk_at_stdout_is_a_failure_of_the_client() {
    let env = TestEnv::new();
    let client = || env.client("hans").user();
    for client in [
        client().commands(&["lap"]),
        client().args(["-q"]).commands(&["lap", "lpf"]),
        client().args(["--json"]).commands(&["lap"]),
        client().args(["--stay"]).commands(&["lap"]),
        client().file("batch", "lap\n").args(["-q", "-b", "batch"]),
        client(),
        client().args(["--help"]),
        client().args(["--version"]),
    ] {
        let (code, stderr) = with_full_stdout(client.into_command());
        assert_eq!(code, 9, "{stderr}");
        assert!(
            stderr.starts_with("client: cannot write to standard output: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    let (code, stderr) = with_full_stdout(client().commands(&["-frobnicate", "pub nope"]).args(["-q"]).into_command());
    assert_eq!((code, stderr.lines().count()), (8, 3), "the first failure is the file's: {stderr}");
}

#[test]
fn a_full_disk_at_stdout_is_a_failure_of_the_server() {
    let env = TestEnv::stopped(crate::test_support::CREDENTIALS);
    let mut ready = env.server_command();
    ready.arg("0");
    let mut help = env.server_command();
    help.arg("--help");
    for command in [ready, help] {
        let (code, stderr) = with_full_stdout(command);
        let last = stderr.lines().last().expect("a reason");
        assert!(code == 1 && last.starts_with("server: cannot write to standard output: "), "{code}: {stderr}");
    }
    let mut enrol = Command::new("sh");
    enrol.args(["-c", "echo password | \"$1\" --enrol hans", "sh", env!("CARGO_BIN_EXE_server")]);
    let (code, stderr) = with_full_stdout(enrol);
    assert!(code == 1 && stderr.starts_with("server: cannot write to standard output: "), "{code}: {stderr}");
}

#[test]
fn a_server_without_a_reader_of_its_ready_line_serves() {
    let env = TestEnv::stopped(crate::test_support::CREDENTIALS);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let port = free_port();
    let mut command = env.server_command();
    let mut server = command.arg(port.to_string()).stdout(writer).stderr(Stdio::null()).spawn().expect("it starts");
    Client::new(env.path(), "hans", "127.0.0.1", port).user().run(&["lap"]).expect_code(0);
    server.kill().and_then(|()| server.wait()).expect("our own child");
}

#[test]
fn password_file_dash_is_the_first_line_of_stdin() {
    let env = TestEnv::new();
    let client = || env.client("hans").args(["-q", "--password-file", "-"]);
    let done = client().args(["-u", "hans"]).pipe(&["falcon*solo", "lap", "lpf"]);
    done.expect(0, &["No active peers", "No files published"]);
    let done = client().args(["-u", "hans", "-b", "-"]).pipe(&["falcon*solo\r", "lap"]);
    done.expect(0, &["No active peers"]);
    let done = client().pipe(&["falcon*solo", "auth hans", "lap"]);
    done.expect(0, &["No active peers"]);
    let done = client().args(["-u", "hans"]).commands(&["lap"]).pipe(&["falcon*solo", "frobnicate"]);
    done.expect(0, &["No active peers"]);
    let done = client().file("batch", "auth hans\nlap\n").args(["-b", "batch"]).pipe(&["falcon*solo"]);
    done.expect(0, &["No active peers"]);
    // Nothing of an overlong line runs as a command.
    let done = client().pipe(&[&format!("{}help", " ".repeat(259)), "auth hans"]);
    done.expect(4, &["Authentication failed. Please try again."]);
    client().args(["-u", "hans"]).pipe(&[]).expect_code(4);
    client().args(["-u", "hans"]).pipe(&["wrong", "lap"]).expect_code(4);
    // A password is any bytes, and what may be no part of it draws a warning.
    let marked = env.client("hans").args(["--password-file", "-", "-u", "hans"]).pipe(&["\u{feff}falcon*solo", "lap"]);
    marked.expect(4, &["Authentication failed. Please try again."]);
    assert!(marked.stderr.starts_with("client: standard input starts with a byte order mark"), "{}", marked.stderr);
    let env = TestEnv::with("hans \u{feff}pw\n", &[]);
    let marked = env.client("hans").args(["-q", "--password-file", "-", "-u", "hans"]).pipe(&["\u{feff}pw", "lap"]);
    marked.expect(0, &["No active peers"]);
}

#[test]
fn a_password_in_an_argument_works_and_draws_a_warning() {
    let env = TestEnv::new();
    let done = env.client("hans").run(&[&auth("hans"), "lap"]);
    done.expect_code(0);
    let warning = done.one_line_of_stderr();
    for way in ["--password-file", "FILESHARE_PASSWORD", "prompt"] {
        assert!(warning.contains(way) && !warning.contains("falcon"), "{warning}");
    }
    let done = env.client("hans").env("FILESHARE_PASSWORD", "falcon*solo").run(&["auth hans", "lap"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let done = env.client("hans").args(["-q"]).pipe(&[&auth("hans")]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "stdin is no argument");
}

#[test]
fn a_readable_password_file_draws_a_warning() {
    let env = TestEnv::new();
    let client = env.client("hans").file("pw", "falcon*solo\n").args(["-u", "hans", "--password-file", "pw"]);
    crate::test_support::set_mode(&client.dir().join("pw"), 0o644);
    let done = client.run(&["lap"]);
    assert!(done.code == 0 && done.one_line_of_stderr().contains("chmod 600 pw"), "{done:?}");
    let json = env.client("hans").args(["-u", "hans", "--password-file", "pw", "--json"]).run(&["lap"]);
    let note = json.stdout.lines().next().expect("a line");
    assert!(note.starts_with(r#"{"id":1,"type":"note","text":"other users"#) && json.stderr.is_empty(), "{json:?}");
}

#[test]
fn a_line_break_in_a_command_is_refused() {
    let env = TestEnv::new();
    for command in ["lap\nlpf", "auth hans falcon*solo\nxit", "lap\n"] {
        let done = env.client("hans").user().run(&["lap", command]);
        done.expect(2, &[]);
        assert!(done.stderr.contains("one line") && !done.stderr.contains("falcon"), "{}", done.stderr);
    }
}

#[test]
fn no_argument_at_all_prints_how_to_begin() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    let done = command.env("FILESHARE_USER", "hans").output().expect("it starts");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    assert!(stderr.contains("client 127.0.0.1 12000 -u hans") && stderr.lines().count() < 20, "{stderr}");
}

#[test]
fn a_hangup_is_told_to_the_server_unless_it_was_ignored_at_the_start() {
    let env = TestEnv::with(crate::test_support::CREDENTIALS, &["--liveness", "3600"]);
    let client = || env.client("hans").user().args(["--stay"]).commands(&["lap"]);
    let start = |wrapper: &str| {
        let client = client().into_command();
        let mut command = Command::new("sh");
        command.args(["-c", wrapper, "sh"]).arg(client.get_program()).args(client.get_args());
        command.current_dir(client.get_current_dir().expect("the client has a folder"));
        client.get_envs().for_each(|(name, value)| match value {
            Some(value) => drop(command.env(name, value)),
            None => drop(command.env_remove(name)),
        });
        let mut hans = Running::start("hans", command);
        hans.skip_greeting();
        hans.expect_lines(&["No active peers"]);
        hans
    };
    // The signal may be ignored where the tests run.
    let hans = start("exec env --default-signal=HUP \"$@\"");
    hans.signal(Signal::HUP);
    hans.wait().expect_code(129);
    env.wait_log_times("Received XIT from hans", 1);

    let hans = start("trap '' HUP; exec \"$@\"");
    hans.signal(Signal::HUP);
    hans.signal(Signal::TERM);
    hans.wait().expect_code(143);
    env.wait_log_times("Received XIT from hans", 2);
}
