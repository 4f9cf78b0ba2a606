//! A process under test: threads capture its output, waits have a timeout, and it is killed when dropped.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::TIMEOUT;

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    closed: bool,
}

/// The output of a pipe or a terminal so far.
#[derive(Clone, Default)]
pub struct Capture(Arc<(Mutex<Captured>, Condvar)>);

impl Capture {
    /// Starts a thread that reads until the end. An error counts as the end, because a terminal reports it that way.
    pub fn follow(mut from: impl Read + Send + 'static) -> Self {
        let capture = Self::default();
        let shared = capture.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let read = from.read(&mut chunk).unwrap_or(0);
                let mut captured = shared.0.0.lock().expect("no reader panics");
                captured.bytes.extend_from_slice(&chunk[..read]);
                captured.closed = read == 0;
                shared.0.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        capture
    }

    /// All output so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().expect("no reader panics").bytes).into_owned()
    }

    /// Waits until `found` returns a value for the text so far. Panics with the text at the end of the stream or the
    /// timeout.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, found: impl FnMut(&str) -> Option<T>) -> T {
        self.try_wait(found).unwrap_or_else(|why| panic!("waiting for {what}: {why} after:\n{}", self.text()))
    }

    /// Like [`wait`](Self::wait), but returns the reason of a failure.
    pub fn try_wait<T>(&self, mut found: impl FnMut(&str) -> Option<T>) -> Result<T, &'static str> {
        let end = Instant::now() + TIMEOUT;
        let (lock, changed) = &*self.0;
        let mut captured = lock.lock().expect("no reader panics");
        loop {
            if let Some(it) = found(&String::from_utf8_lossy(&captured.bytes)) {
                return Ok(it);
            }
            let left = end.saturating_duration_since(Instant::now());
            match (captured.closed, left.is_zero()) {
                (true, _) => return Err("the output ended"),
                (_, true) => return Err("nothing more came"),
                _ => captured = changed.wait_timeout(captured, left).expect("no reader panics").0,
            }
        }
    }

    /// Waits for the end of the stream.
    pub fn wait_closed(&self) {
        let (lock, changed) = &*self.0;
        let captured = lock.lock().expect("no reader panics");
        let (captured, timeout) =
            changed.wait_timeout_while(captured, TIMEOUT, |captured| !captured.closed).expect("no reader panics");
        assert!(!timeout.timed_out(), "no end after:\n{}", String::from_utf8_lossy(&captured.bytes));
    }
}

/// Exit status and output of a process.
#[derive(Debug)]
pub struct Finished {
    /// The exit status; 128 + the signal for one that was killed.
    pub code: i32,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

impl Finished {
    /// Asserts exit status and the whole of stdout, given as lines.
    #[track_caller]
    pub fn expect(&self, code: i32, stdout: &[&str]) -> &Self {
        let lines: Vec<&str> = self.stdout.lines().collect();
        assert_eq!((self.code, lines.as_slice()), (code, stdout), "stderr:\n{}", self.stderr);
        self
    }

    /// Asserts the exit status alone.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that stderr is a single line, and returns it.
    #[track_caller]
    pub fn one_line_of_stderr(&self) -> &str {
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "one line is expected on stderr:\n{}", self.stderr);
        assert!(!lines[0].is_empty() && !lines[0].contains("panicked"), "{}", lines[0]);
        lines[0]
    }
}

/// A running program.
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its stdout.
    pub out: Capture,
    /// Its stderr.
    pub err: Capture,
    seen: usize,
}

impl Running {
    /// Starts a command with all three streams piped.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{name} does not start: {why}"));
        let out = Capture::follow(child.stdout.take().expect("a piped stdout"));
        let err = Capture::follow(child.stderr.take().expect("a piped stderr"));
        Self { name: name.into(), stdin: child.stdin.take(), child, out, err, seen: 0 }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin.
    pub fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is still open");
        writeln!(stdin, "{line}").unwrap_or_else(|why| {
            panic!("{} accepts no input ({why}); stderr:\n{}", self.name, self.err.text());
        });
    }

    /// The same, unless it has ended meanwhile.
    pub fn send_if_running(&mut self, line: &str) {
        let _ = writeln!(self.stdin.as_mut().expect("stdin is still open"), "{line}");
    }

    /// Ends its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for the next line of stdout.
    #[track_caller]
    pub fn next_line(&mut self) -> String {
        let seen = self.seen;
        let line = self.out.try_wait(|text| text[seen..].split_once('\n').map(|(line, _)| line.to_owned()));
        let line = line.unwrap_or_else(|why| {
            panic!("no line from {}: {why} after:\n{}stderr:\n{}", self.name, self.out.text(), self.err.text())
        });
        self.seen += line.len() + 1;
        line
    }

    /// Asserts the next lines of stdout.
    #[track_caller]
    pub fn expect_lines(&mut self, lines: &[&str]) {
        for (at, expected) in lines.iter().enumerate() {
            let line = self.next_line();
            assert_eq!(&line, expected, "line {at} of {lines:?} from {}; stderr:\n{}", self.name, self.err.text());
        }
    }

    /// Writes a command line and asserts the next lines of stdout.
    #[track_caller]
    pub fn run_command(&mut self, command: &str, lines: &[&str]) {
        self.send(command);
        self.expect_lines(lines);
    }

    /// Waits until stderr contains this text.
    pub fn wait_err(&self, needle: &str) {
        self.err
            .wait(&format!("{needle:?} on the stderr of {}", self.name), |text| text.contains(needle).then_some(()));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child can be signalled");
    }

    /// Closes stdin, waits for the exit and returns the output.
    pub fn finish(mut self) -> Finished {
        self.close_stdin();
        self.wait()
    }

    /// Waits for the exit with stdin left open.
    pub fn wait(mut self) -> Finished {
        self.out.wait_closed();
        self.err.wait_closed();
        let status = self.child.wait().expect("our own child can be waited for");
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).expect("an exit or a signal");
        Finished { code, stdout: self.out.text(), stderr: self.err.text() }
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(self) -> Finished {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// One field of `/proc/<id>/status` in KiB, such as `VmHWM`.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running process");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the field exists");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail harmlessly if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
