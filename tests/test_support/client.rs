//! Builder of client processes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Finished, Running, isolate, password};

/// A client that is not started yet: its folder, files, arguments and environment.
pub struct Client {
    name: String,
    dir: PathBuf,
    command: Command,
}

impl Client {
    /// Shares from and downloads to the folder `name` beneath `home`.
    pub fn new(home: &Path, name: &str, server: &str, port: u16) -> Self {
        let dir = home.join("folders").join(name);
        fs::create_dir_all(&dir).expect("a folder for the client");
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        isolate(&mut command, &home.join("homes").join(name));
        command.current_dir(&dir).arg(server).arg(port.to_string());
        Self { name: name.into(), dir, command }
    }

    /// The shared folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates a file in the shared folder, and its parent folders.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().expect("a path beneath the folder")).expect("folders can be made");
        fs::write(path, content).expect("files can be written");
        self
    }

    /// Logs in at start as the sample user that the client is named after.
    pub fn user(self) -> Self {
        let name = self.name.clone();
        self.user_as(&name, password(&name))
    }

    /// Logs in at start as this user.
    pub fn user_as(mut self, user: &str, password: &str) -> Self {
        self.command.arg("-u").arg(user).env("FILESHARE_PASSWORD", password);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, variable: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Adds one `-c` for each command.
    pub fn commands(self, commands: &[&str]) -> Self {
        commands.iter().fold(self, |client, command| client.args(["-c", command]))
    }

    /// Runs these commands by `-c`, with empty stdin, and waits for the exit.
    pub fn run(self, commands: &[&str]) -> Finished {
        self.commands(commands).spawn().finish()
    }

    /// Runs these lines on piped stdin and waits for the exit.
    pub fn pipe(self, lines: &[&str]) -> Finished {
        let mut running = self.spawn();
        lines.iter().for_each(|line| running.send(line));
        running.finish()
    }

    /// Starts the client with piped streams.
    pub fn spawn(self) -> Running {
        Running::start(&self.name, self.command)
    }

    /// Starts the client with `--stay` and these commands, and asserts the lines they print after the greeting.
    #[track_caller]
    pub fn stay(self, commands: &[&str], lines: &[&str]) -> Running {
        let mut running = self.args(["--stay"]).commands(commands).spawn();
        running.skip_greeting();
        running.expect_lines(lines);
        running
    }

    /// The command itself, for options without a method.
    pub fn into_command(self) -> Command {
        self.command
    }
}

impl Running {
    /// Reads the two lines that a login prints.
    #[track_caller]
    pub fn skip_greeting(&mut self) {
        let line = self.next_line();
        assert!(line.starts_with("Welcome, ") && line.ends_with('!'), "not a greeting: {line:?}");
        self.expect_lines(&[super::COMMANDS]);
    }

    /// Waits until this client sees `user` active.
    #[track_caller]
    pub fn wait_for_peer(&mut self, user: &str) {
        self.run_command(&format!("wait peer {user}"), &[&format!("{user} is active")]);
    }

    /// Enters `auth` and reads the greeting.
    #[track_caller]
    pub fn log_in(&mut self, user: &str) {
        self.run_command(&super::auth(user), &[&format!("Welcome, {user}!"), super::COMMANDS]);
    }
}
