//! Edge cases of users, passwords and credentials.

use std::process::Command;

use crate::test_support::{COMMANDS, CREDENTIALS, Running, TestEnv, auth, password, set_mode};

const REFUSED: &str = "Authentication failed. Please try again.";

#[test]
fn without_the_password_all_login_failures_look_the_same() {
    let env = TestEnv::new();
    let _active = env.client("yoda").user().stay(&["lap"], &["No active peers"]);
    let attempt = |line: &str| {
        let done = env.client("guest").args(["-q"]).run(&[line]);
        (done.code, done.stdout.clone(), done.stderr.replace("yoda", "USER").replace("vader", "USER"))
    };
    let wrong = attempt("auth vader wrong");
    assert_eq!((wrong.0, wrong.1.as_str()), (4, "Authentication failed. Please try again.\n"));
    assert_eq!(wrong, attempt("auth yoda wrong"), "an active user looks the same");
    let unknown = attempt("auth nobody wrong");
    assert_eq!(wrong, (unknown.0, unknown.1, unknown.2.replace("nobody", "USER")), "an unknown user looks the same");
}

#[test]
fn an_active_user_is_reported_only_after_the_password_is_proven() {
    let env = TestEnv::new();
    let mut first = env.client("hans").spawn();
    first.log_in("hans");
    let mut second = env.client("second").spawn();
    second.run_command(&auth("hans"), &[REFUSED]);
    second.wait_err("already active");
    first.run_command("lap", &["No active peers"]);
    first.run_command("xit", &["Goodbye!"]);
    second.log_in("hans");
}

#[test]
fn auth_while_logged_in_fails_and_keeps_the_session() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").spawn();
    hans.log_in("hans");
    hans.send(&auth("vader"));
    hans.send("xit");
    let done = hans.wait();
    done.expect_code(4);
    assert!(done.stdout.ends_with("Goodbye!\n") && !done.stdout.contains("vader"), "{done:?}");
    env.wait_log("Sent OK to hans");
    assert!(!env.log().contains("from vader"), "{}", env.log());
}

#[test]
fn the_password_is_the_rest_of_the_line() {
    let env = TestEnv::with("odd two  \"words\" # \\n\nlast  lead\n", &[]);
    let mut odd = env.client("odd").spawn();
    odd.run_command(r#"auth odd two  "words" # \n"#, &["Welcome, odd!", COMMANDS]);
    let mut last = env.client("last").spawn();
    last.run_command("auth last lead", &[REFUSED]);
    last.run_command("auth last  lead", &["Welcome, last!", COMMANDS]);
}

#[test]
fn the_first_line_of_the_password_file_is_the_password() {
    let env = TestEnv::with("hans with space \n", &[]);
    for (content, code) in [("with space \nmore\n", 0), ("with space ", 0), ("with space \r\n", 0), ("with space\n", 4)]
    {
        let client = env.client("hans").file("pw", content).args(["-u", "hans", "--password-file", "pw"]);
        client.run(&["lap"]).expect_code(code);
    }
    env.client("hans").args(["-u", "hans", "--password-file", "missing"]).run(&["lap"]).expect_code(8);
}

#[test]
fn auth_without_a_password_takes_the_file_then_the_environment_and_never_the_next_line() {
    let env = TestEnv::new();
    let by_file = env.client("hans").file("pw", "falcon*solo\n").args(["-q", "--password-file", "pw"]);
    by_file.env("FILESHARE_PASSWORD", "wrong").run(&["auth hans", "lap"]).expect(0, &["No active peers"]);
    let by_env = env.client("hans").args(["-q"]).env("FILESHARE_PASSWORD", "falcon*solo");
    by_env.run(&["auth hans", "lap"]).expect(0, &["No active peers"]);
    let by_line = env.client("hans").args(["-q"]).pipe(&["auth hans", "falcon*solo"]);
    by_line.expect_code(4);
    assert!(by_line.stdout.starts_with(REFUSED), "{by_line:?}");
}

#[test]
fn a_password_is_never_an_argument() {
    let env = TestEnv::new();
    for args in [&["--password", "falcon*solo"][..], &["-p", "falcon*solo"]] {
        env.client("hans").args(["-u", "hans"]).args(args).run(&["lap"]).expect_code(2);
    }
}

#[test]
fn a_crashed_client_can_be_restarted_by_a_script_at_once() {
    let env = TestEnv::new();
    env.client("hans").user().stay(&["lap"], &["No active peers"]).kill();
    env.client("hans").user().run(&["lap"]).expect_code(0);
}

#[test]
fn a_typed_auth_for_a_crashed_user_fails_at_once() {
    let env = TestEnv::with("hans falcon*solo\n", &["--liveness", "60"]);
    env.client("hans").user().stay(&["lap"], &["No active peers"]).kill();
    env.client("hans").run(&[&auth("hans")]).expect_code(4);
}

#[test]
fn credentials_take_comments_blank_lines_crlf_and_no_final_newline() {
    let env = TestEnv::with("# who may join\n\nhans one\r\n   \n#vader no\nyoda last", &[]);
    env.client("hans").user_as("hans", "one").run(&["lap"]).expect_code(0);
    env.client("yoda").user_as("yoda", "last").run(&["lap"]).expect_code(0);
    env.client("vader").user_as("vader", "no").run(&["lap"]).expect_code(4);
}

#[test]
fn world_readable_credentials_cause_a_warning() {
    let mut env = TestEnv::stopped("hans falcon*solo\n");
    set_mode(&env.credentials(), 0o644);
    env.start();
    env.wait_log("credentials.txt");
    let log = env.log().to_lowercase();
    assert!(log.contains("read") && log.lines().count() == 1, "{log}");
}

#[test]
fn the_longest_names_and_passwords_work() {
    let (user, password) = ("u".repeat(64), "p".repeat(256));
    let env = TestEnv::with(&format!("{user} {password}\n"), &[]);
    env.client("long").user_as(&user, &password).run(&["lap"]).expect_code(0);
    env.client("long").user_as(&user, &password[1..]).run(&["lap"]).expect_code(4);
}

#[test]
fn record_lines_let_users_in_without_a_password_in_the_file() {
    let mut env = TestEnv::stopped("");
    let mut lines = String::new();
    for user in ["hans", "vader"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.current_dir(env.path()).args(["--enrol", user]);
        let mut enrolling = Running::start("server --enrol", command);
        enrolling.send(password(user));
        let done = enrolling.finish();
        assert_eq!((done.code, done.stdout.lines().count(), done.stderr.as_str()), (0, 1, ""), "{done:?}");
        lines.push_str(&done.stdout);
    }
    assert!(lines.starts_with("hans $fileshare$") && lines.contains("\nvader $fileshare$"), "{lines}");
    assert!(!lines.contains(password("hans")) && !lines.contains(password("vader")));
    env.write_credentials(&format!("{lines}yoda wise@!man\n"));
    env.start();
    let _hans = env.client("hans").user().file("a", "a").stay(&["pub a"], &["File published successfully"]);
    env.client("vader").user().args(["-q"]).run(&["get a"]).expect(0, &["a downloaded successfully"]);
    env.client("yoda").user().args(["-q"]).run(&["lap"]).expect(0, &["1 active peer:", "hans"]);
    env.client("vader").user_as("vader", "wrong").run(&["lap"]).expect_code(4);
    // The record line itself is not accepted as a password.
    let record = lines.lines().next().and_then(|line| line.split_once(' ')).expect("a record line").1;
    env.client("guest").user_as("hans", record).run(&["lap"]).expect_code(4);
}

#[test]
fn sample_passwords_on_a_public_address_cause_a_warning() {
    let open = TestEnv::with(CREDENTIALS, &["--bind", "0.0.0.0"]);
    open.wait_log("sample passwords");
    let own = TestEnv::with("hans a passphrase of our own\n", &["--bind", "0.0.0.0"]);
    own.client("hans").user_as("hans", "a passphrase of our own").run(&["lap"]).expect_code(0);
    assert!(!own.log().contains("sample"), "{}", own.log());
    let closed = TestEnv::new();
    closed.client("hans").user().run(&["lap"]).expect_code(0);
    assert!(!closed.log().contains("sample"), "{}", closed.log());
}

#[test]
fn a_loopback_client_is_warned_that_other_hosts_cannot_reach_it() {
    let open = TestEnv::with(CREDENTIALS, &["--bind", "0.0.0.0"]);
    let done = open.client("hans").user().run(&["lap"]);
    done.expect(0, &["Welcome, hans!", COMMANDS, "No active peers", "Goodbye!"]);
    assert!(done.one_line_of_stderr().contains("loopback"), "{}", done.stderr);
    let _hans = open.client("hans").user().file("a", "a").stay(&["pub a"], &["File published successfully"]);
    open.client("vader").user().args(["-q"]).run(&["get a"]).expect(0, &["a downloaded successfully"]);
    let closed = TestEnv::new();
    let done = closed.client("hans").user().run(&["lap"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "no other host can join");
}
