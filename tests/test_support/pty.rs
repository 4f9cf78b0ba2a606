//! The client at a pseudo-terminal.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::TIMEOUT;
use super::process::Capture;

/// A program whose three streams and controlling terminal are one pseudo-terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The output to the screen, with escape codes.
    pub screen: Capture,
    seen: usize,
}

impl Terminal {
    /// Starts the command at an 80 by 24 terminal. `setsid --ctty` (util-linux) makes it the controlling terminal,
    /// which a hidden password prompt needs, without unsafe code here.
    pub fn start(command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("our own pseudo-terminal");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("any size will do");
        let name = ptsname(&master, Vec::new()).expect("our own pseudo-terminal has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(&name, flags, Mode::empty()).expect("the other end opens"));
        let mut wrapped = Command::new("setsid");
        wrapped.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args()).env("TERM", "xterm");
        // What the command sets takes precedence.
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(variable, value),
                None => wrapped.env_remove(variable),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        let end = || Stdio::from(slave.try_clone().expect("a descriptor to spare"));
        let child = wrapped.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid is part of util-linux");
        drop(slave);
        let keyboard = File::from(master);
        let screen = Capture::follow(keyboard.try_clone().expect("a descriptor to spare"));
        Self { child, keyboard, screen, seen: 0 }
    }

    /// Makes the terminal this wide.
    pub fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("any size will do");
    }

    /// Types a line and presses Enter.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard
            .write_all(line.as_bytes())
            .and_then(|()| self.keyboard.write_all(b"\r"))
            .expect("a live terminal");
    }

    /// Types a line once a prompt is there.
    pub fn enter(&mut self, line: &str) {
        self.expect_on_screen("> ");
        self.type_line(line);
    }

    /// Logs a sample user in at the prompt.
    pub fn log_in(&mut self, user: &str) {
        self.enter(&super::auth(user));
        self.expect_on_screen(&format!("Welcome, {user}!"));
    }

    /// Leaves the shell; returns the whole screen.
    #[track_caller]
    pub fn leave(mut self) -> String {
        self.type_line("xit");
        self.expect_on_screen("Goodbye!");
        let (code, screen) = self.finish();
        assert_eq!(code, 0, "{screen}");
        screen
    }

    /// Waits until the terminal stops echoing: the prompt may appear a moment before.
    pub fn wait_echo_off(&self) {
        let end = Instant::now() + TIMEOUT;
        while tcgetattr(&self.keyboard).expect("a live terminal").local_modes.contains(LocalModes::ECHO) {
            assert!(Instant::now() < end, "the echo stays on:\n{}", self.screen.text());
            std::thread::yield_now();
        }
    }

    /// Presses a key such as Ctrl-D (0x04).
    pub fn press(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).expect("a live terminal");
    }

    /// Waits until this text appears on the screen, after the text of the previous call.
    pub fn expect_on_screen(&mut self, needle: &str) {
        let seen = self.seen;
        let at = self.screen.wait(&format!("{needle:?} on the screen"), |text| {
            text.get(seen..).and_then(|rest| rest.find(needle)).map(|at| seen + at)
        });
        self.seen = at + needle.len();
    }

    /// Waits for the exit; returns the exit status and the whole screen.
    pub fn finish(mut self) -> (i32, String) {
        self.screen.wait_closed();
        let status = self.child.wait().expect("our own child can be waited for");
        (status.code().or(status.signal().map(|signal| 128 + signal)).expect("an end"), self.screen.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail harmlessly if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
