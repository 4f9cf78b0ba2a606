//! What someone sees who has read nothing: how to begin, and after each error what to do next.

use std::process::Command;

use crate::test_support::fake::FakeServer;
use crate::test_support::process::Running;
use crate::test_support::pty::Terminal;
use crate::test_support::{CREDENTIALS, Client, Finished, TestEnv, isolate, set_mode};

fn run(mut command: Command, env: &TestEnv, args: &[&str]) -> Finished {
    isolate(&mut command, env.path());
    command.current_dir(env.path()).args(args);
    Running::start("program", command).finish()
}

fn server(env: &TestEnv, args: &[&str]) -> Finished {
    run(Command::new(env!("CARGO_BIN_EXE_server")), env, args)
}

#[test]
fn programs_without_arguments_say_how_to_begin() {
    let env = TestEnv::stopped(CREDENTIALS);
    let pages = [
        (server(&env, &[]), &["credentials.txt", "server 12000", "client 127.0.0.1 12000 -u hans", "--help"][..]),
        (
            run(Command::new(env!("CARGO_BIN_EXE_client")), &env, &[]),
            &["client 127.0.0.1 12000 -u hans", "'help'", "'server' without arguments", "--help"],
        ),
    ];
    for (page, needles) in pages {
        page.expect(2, &[]);
        for needle in needles {
            assert!(page.stderr.contains(needle), "{needle}: {}", page.stderr);
        }
        assert!(
            page.stderr.lines().count() <= 15 && page.stderr.lines().all(|line| line.len() < 80),
            "{}",
            page.stderr
        );
    }
    let help = run(Command::new(env!("CARGO_BIN_EXE_client")), &env, &["--help"]);
    help.expect_code(0);
    // It is wrapped.
    let words: Vec<&str> = help.stdout.split_whitespace().collect();
    assert!(words.join(" ").contains("Commands: auth, cancel, cat, "), "{}", help.stdout);
}

#[test]
fn a_server_that_does_not_start_says_what_to_do() {
    let running = TestEnv::new();
    let port = running.port().to_string();
    let env = TestEnv::stopped(CREDENTIALS);
    for (args, needles) in [
        (&["0", "--credentials", "none"][..], ["in none: No such file", "'USERNAME PASSWORD'", "--credentials"]),
        (&[&port, "--ephemeral"], ["cannot listen on 127.0.0.1", "another port", "0 for a free one"]),
        (&["0", "--ephemeral", "--bind", "192.0.2.1"], ["192.0.2.1", "an address of this machine", "needed"]),
    ] {
        let done = server(&env, args);
        done.expect(1, &[]);
        let line = done.one_line_of_stderr();
        assert!(needles.iter().all(|needle| line.contains(needle)), "{line}");
    }
    env.write_credentials("# nobody yet\n");
    let checked = server(&env, &["--check"]);
    assert!(
        checked.stderr.contains("credentials.txt has no users: write a line 'USERNAME PASSWORD' for each"),
        "{checked:?}"
    );
    env.write_credentials(CREDENTIALS);
    set_mode(&env.credentials(), 0o644);
    let checked = server(&env, &["--check"]);
    assert!(checked.stderr.contains("chmod 600 credentials.txt"), "{checked:?}");
}

#[test]
fn a_client_that_cannot_begin_says_what_to_do() {
    let env = TestEnv::stopped(CREDENTIALS);
    let silent = FakeServer::start(|_| None);
    let hans = || Client::new(env.path(), "hans", "127.0.0.1", silent.port());
    let address = format!("127.0.0.1:{}: does it run there", silent.port());
    let nowhere = env.path().join("nowhere");
    let nowhere = nowhere.to_str().expect("plain text");
    for (client, code, needle) in [
        (hans().user(), 3, &*address),
        (hans().args(["-d", nowhere]), 8, "--dir "),
        (hans().args(["-b", nowhere]), 8, "--batch "),
        (hans().args(["-u", "hans", "--password-file", nowhere]), 8, "--password-file "),
        (hans().args(["-a", "-u", "hans"]), 3, "start one with -u"),
        (hans().args(["-u", "hans"]), 4, "give --password-file"),
    ] {
        let done = client.spawn().finish();
        done.expect_code(code);
        assert!(done.one_line_of_stderr().contains(needle), "{needle}: {done:?}");
    }
}

#[test]
fn a_terminal_says_how_to_log_in() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").env("NO_COLOR", "1").into_command());
    person.expect_on_screen("client: 'auth USERNAME' logs in; 'help' explains the commands");
    person.enter("lap");
    person.expect_on_screen("Please authenticate first");
    person.log_in("hans");
    person.expect_on_screen("hans> ");
    let screen = person.leave();
    assert_eq!(screen.matches("logs in").count(), 1, "{screen}");
    // Who is logged in is told nothing, nor is a pipe.
    let known = Terminal::start(env.client("hans").user().into_command());
    assert!(!known.leave().contains("logs in"));
    let piped = env.client("hans").pipe(&["lap"]);
    assert_eq!((&*piped.stdout, &*piped.stderr), ("Please authenticate first\nGoodbye!\n", ""));
}
