//! A terminal that the client shares with a shell, its jobs and a pager: only the foreground process group changes its
//! settings, and the client restores only what it has changed.

use std::process::Command;

use rustix::process::Signal;

use crate::test_support::pty::Terminal;
use crate::test_support::{CREDENTIALS, Client, TestEnv, seeded_bytes};

/// The client's command line for a shell, with `before` in front; its environment is set in the shell's.
fn in_shell(shell: &[&str], client: Client, script: impl FnOnce(&str) -> String) -> Command {
    let client = client.into_command();
    let words = std::iter::once(client.get_program()).chain(client.get_args());
    let quoted: Vec<String> = words.map(|word| format!("'{}'", word.to_str().expect("plain text"))).collect();
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script(&quoted.join(" ")));
    command.current_dir(client.get_current_dir().expect("the client has a folder"));
    for (variable, value) in client.get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    command
}

/// An interactive shell with job control; `$client` is the client's command line.
fn interactive_shell(env: &TestEnv, client: Client) -> Terminal {
    let run = |client: &str| {
        std::fs::write(env.path().join("bashrc"), format!("client() {{ {client} \"$@\"; }}; PS1='BASH> '"))
            .expect("a file");
        "-i".to_owned()
    };
    let bashrc = env.path().join("bashrc");
    let shell = ["bash", "--noprofile", "--rcfile", bashrc.to_str().expect("plain text")];
    let mut shell = Terminal::start(in_shell(&shell, client, run));
    shell.expect_on_screen("BASH> ");
    shell
}

#[test]
fn the_settings_of_a_pager_outlast_the_client() {
    let env = TestEnv::new();
    let pid = env.path().join("pid");
    // The pager changes the settings after the client has started, and then ends the client.
    let script = |client: &str| {
        format!(
            "sh -c 'echo $$ > {pid}; exec \"$@\"' sh {client} | {{ read line; stty -icanon -echo < /dev/tty
            kill -TERM $(cat {pid}); cat > /dev/null; stty -a < /dev/tty; }}",
            pid = pid.display()
        )
    };
    let client = env.client("hans").user().args(["--stay"]).commands(&["lap"]);
    let (_, screen) = Terminal::start(in_shell(&["sh", "-c"], client, script)).finish();
    assert!(screen.contains("-icanon") && screen.contains("-echo "), "{screen}");
}

#[test]
fn a_signal_at_a_prompt_leaves_the_terminal_as_it_was() {
    let env = TestEnv::new();
    let pid = env.path().join("pid");
    for args in [&["-u", "hans"][..], &[]] {
        let script = |client: &str| {
            format!("sh -c 'echo $$ > {}; exec \"$@\"' sh {client}; echo \"end $?\"; stty -a", pid.display())
        };
        let mut person = Terminal::start(in_shell(&["sh", "-c"], env.client("hans").args(args), script));
        person.expect_on_screen(if args.is_empty() { "> " } else { "assword" });
        person.wait_echo_off();
        let id = std::fs::read_to_string(&pid).expect("the client's id").trim().parse().expect("a number");
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).expect("an id"), Signal::TERM)
            .expect("it runs");
        person.expect_on_screen("end 143");
        let (_, screen) = person.finish();
        let settings = &screen[screen.find("end 143").expect("just seen")..];
        assert!(settings.contains(" icanon") && settings.contains(" echo "), "{args:?}: {screen}");
    }
}

#[test]
fn a_background_job_ends_when_it_is_done() {
    let env = TestEnv::new();
    let mut shell = interactive_shell(&env, env.client("hans").user().commands(&["lap"]));
    shell.type_line("client &");
    shell.expect_on_screen("No active peers");
    shell.type_line("wait %1; echo \"end $?\"");
    shell.expect_on_screen("end 0");
    shell.type_line("exit");
    shell.finish();
}

#[test]
fn ctrl_z_and_fg_at_the_prompt() {
    let env = TestEnv::new();
    let mut shell = interactive_shell(&env, env.client("hans").user());
    shell.type_line("client");
    shell.expect_on_screen("Welcome, hans!");
    shell.expect_on_screen("> ");
    for _ in 0..3 {
        shell.wait_echo_off();
        shell.press(0x1a);
        shell.expect_on_screen("Stopped");
        shell.expect_on_screen("BASH> ");
        shell.type_line("stty -a | grep -o ' echo '; echo \"settings $?\"");
        shell.expect_on_screen("settings 0");
        shell.type_line("fg");
        shell.expect_on_screen("> ");
        shell.type_line("lap");
        shell.expect_on_screen("No active peers");
        shell.expect_on_screen("> ");
    }
    shell.type_line("xit");
    shell.expect_on_screen("Goodbye!");
    shell.expect_on_screen("BASH> ");
    shell.type_line("exit");
    shell.finish();
}

#[test]
fn a_job_stopped_at_the_prompt_can_be_ended() {
    let env = TestEnv::with(CREDENTIALS, &["--liveness", "3600"]);
    let mut shell = interactive_shell(&env, env.client("hans").user());
    shell.type_line("client");
    shell.expect_on_screen("Welcome, hans!");
    shell.expect_on_screen("> ");
    shell.wait_echo_off();
    shell.press(0x1a);
    shell.expect_on_screen("Stopped");
    // A job that stopped again, to read or write, would be a change of its state as well: the status is 128 and the signal's
    // number. 148: bash has not noticed yet that the job goes on.
    shell.type_line("kill %1; code=148; while [ $code = 148 ]; do wait %1; code=$?; done; echo \"end $code.\"");
    shell.expect_on_screen("end 1");
    shell.expect_on_screen("BASH> ");
    assert!(shell.screen.text().contains("end 143."), "{}", shell.screen.text());
    env.wait_log("Received XIT from hans");
    shell.type_line("exit");
    shell.finish();
}

#[test]
fn a_suspension_leaves_the_terminal_as_it_was_whatever_the_shell() {
    let env = TestEnv::new();
    // Unlike an interactive bash, such a shell restores nothing itself.
    let script = |client: &str| format!("set -m; {client}; echo \"stopped $?\"; stty -a; fg; stty -a");
    let mut person = Terminal::start(in_shell(&["sh", "-c"], env.client("hans").user(), script));
    person.expect_on_screen("Welcome, hans!");
    person.expect_on_screen("> ");
    person.wait_echo_off();
    person.press(0x1a);
    person.expect_on_screen("stopped");
    person.expect_on_screen(" icanon");
    person.expect_on_screen(" echo ");
    person.wait_echo_off();
    person.type_line("lap");
    person.expect_on_screen("No active peers");
    person.expect_on_screen("> ");
    person.type_line("xit");
    person.expect_on_screen("Goodbye!");
    person.expect_on_screen(" icanon");
    person.expect_on_screen(" echo ");
    person.finish();
}

#[test]
fn a_background_job_draws_no_progress_bar() {
    let env = TestEnv::new();
    // Slow enough for a bar: it appears after a second.
    let source = env.client("hans").user().file("large", seeded_bytes(1, 768 << 10)).args(["--limit-rate", "256K"]);
    let _hans = source.stay(&["pub large"], &["File published successfully"]);
    let mut shell = interactive_shell(&env, env.client("vader").user().commands(&["get large"]));
    shell.type_line("client &");
    shell.expect_on_screen("large downloaded successfully");
    // Once the shell has ended, its terminal has no foreground job, and the client may write there.
    shell.type_line("wait; exit");
    let (_, screen) = shell.finish();
    assert!(!screen.contains("KiB"), "{screen}");
}

#[test]
fn ctrl_c_at_the_prompt_of_the_server_leaves_the_terminal_as_it_was() {
    let env = TestEnv::stopped(CREDENTIALS);
    let script = "\"$1\" --enrol hans; echo \"end $?\"; stty -a";
    for (keys, end) in [(&b"half\x03"[..], "interrupted"), (b"secr\xe9t\r\r", "not typed as UTF-8")] {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_server")]).current_dir(env.path());
        let mut person = Terminal::start(command);
        person.expect_on_screen("assword");
        person.wait_echo_off();
        keys.iter().for_each(|&key| person.press(key));
        person.expect_on_screen(end);
        person.expect_on_screen("end 1");
        let (_, screen) = person.finish();
        let settings = &screen[screen.find("end 1").expect("just seen")..];
        assert!(settings.contains(" icanon") && settings.contains(" echo "), "{screen}");
    }
}
