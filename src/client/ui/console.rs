//! The client's two output streams: results on stdout, everything else on stderr, each write a whole line.
//!
//! Any thread may write. A reader that has closed stdout is remembered, not reported; every other error of stdout is a
//! failure of the client.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::exit_code::ExitCode;
use crate::client::ui::report::Report;
use crate::client::ui::standard_stream::StandardStream;
use crate::client::ui::terminal::is_foreground;
use crate::common::escape::escape_controls;
use crate::common::sync::lock;

/// How long an operation runs before it gets a progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Fewest terminal columns for a bar beside the numbers.
const BAR_COLUMNS_MIN: u16 = 78;

/// What is written, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputOptions {
    /// JSON on stdout instead of text.
    pub json: bool,
    /// Leave out greetings and notes.
    pub quiet: bool,
    /// Draw progress bars on stderr.
    pub bars: bool,
}

/// Prints a line above the prompt at which the user types.
pub type PromptPrinter = Box<dyn FnMut(String) + Send>;

/// Shared by all threads of the client.
pub struct Console {
    options: OutputOptions,
    streams: Mutex<Streams>,
    /// The visible progress bar, which is suspended while a line is printed.
    bar: Mutex<Option<ProgressBar>>,
    /// Set by the first error of stdout: success if its reader has closed it.
    output_end: OnceLock<ExitCode>,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    prompt: Option<PromptPrinter>,
}

impl Console {
    pub fn stdio(options: OutputOptions) -> Self {
        Self::with_writers(options, Box::new(StandardStream::stdout()), Box::new(StandardStream::stderr()))
    }

    pub fn with_writers(options: OutputOptions, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let streams = Mutex::new(Streams { out, err, prompt: None });
        Self { options, streams, bar: Mutex::new(None), output_end: OnceLock::new() }
    }

    /// While the user types at a prompt, asynchronous notes are printed by `printer`.
    pub fn set_prompt_printer(&self, printer: Option<PromptPrinter>) {
        lock(&self.streams).prompt = printer;
    }

    /// Writes a result to stdout.
    pub fn report(&self, report: &Report<'_>) {
        if self.options.quiet && report.is_greeting() {
            return;
        }
        let text = if self.options.json { report.to_json() } else { report.to_text() };
        if text.is_empty() || self.has_ended() {
            return;
        }
        let written = self.with_bar_suspended(|streams| {
            streams.out.write_all(text.as_bytes())?;
            streams.out.flush()
        });
        if let Err(error) = written {
            self.end_output(&error);
        }
    }

    fn end_output(&self, error: &io::Error) {
        let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
        let status = if is_closed { ExitCode::Success } else { error.into() };
        if self.output_end.set(status).is_ok() && !is_closed {
            self.error(format_args!("cannot write to standard output: {error}"));
        }
    }

    /// Writes the reason of a failure to stderr, as one line.
    pub fn error(&self, text: impl Display) {
        let line = format!("client: {}\n", escape_controls(&text.to_string()));
        // A failure cannot be reported anywhere.
        let _ = self.with_bar_suspended(|streams| streams.err.write_all(line.as_bytes()));
    }

    /// Writes a note to stderr, as one line; nothing with [`OutputOptions::quiet`].
    pub fn info(&self, text: impl Display) {
        if !self.options.quiet {
            self.error(text);
        }
    }

    /// Writes a note of a background thread: above the prompt, if the user is typing at one.
    pub fn info_async(&self, text: impl Display) {
        if self.options.quiet {
            return;
        }
        let mut streams = lock(&self.streams);
        match &mut streams.prompt {
            Some(print) => print(format!("client: {}\n", escape_controls(&text.to_string()))),
            None => {
                drop(streams);
                self.error(text);
            }
        }
    }

    /// Whether stdout takes no further results: its reader has closed it, or it has failed.
    pub fn has_ended(&self) -> bool {
        self.output_end.get().is_some()
    }

    /// A failure if a result could not be written, unless the reader of stdout has closed it.
    pub fn output_status(&self) -> ExitCode {
        self.output_end.get().copied().unwrap_or(ExitCode::Success)
    }

    /// A progress bar that appears after [`BAR_AFTER`] and disappears when it is dropped.
    pub fn progress(&self) -> ProgressMeter<'_> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let is_narrow = rustix::termios::tcgetwinsize(io::stderr()).is_ok_and(|size| size.ws_col < BAR_COLUMNS_MIN);
        let template = if is_narrow {
            "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{msg:30!} {wide_bar} {bytes:>10}/{total_bytes} {bytes_per_sec:>12} {eta:>4}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed"));
        ProgressMeter { console: self, bar, is_shown: AtomicBool::new(false) }
    }

    fn with_bar_suspended(&self, write: impl FnOnce(&mut Streams) -> io::Result<()>) -> io::Result<()> {
        let bar = lock(&self.bar).clone();
        let write = || write(&mut lock(&self.streams));
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// See [`Console::progress`].
pub struct ProgressMeter<'a> {
    console: &'a Console,
    bar: ProgressBar,
    is_shown: AtomicBool,
}

impl ProgressMeter<'_> {
    /// `done` of `total` bytes are processed; `what` names the current file.
    pub fn update(&self, what: &str, done: u64, total: u64) {
        if !self.console.options.bars || self.bar.elapsed() < BAR_AFTER {
            return;
        }
        if !is_foreground(io::stderr()) {
            return self.hide();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(escape_controls(what).to_string());
        if !self.is_shown.swap(true, SeqCst) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            *lock(&self.console.bar) = Some(self.bar.clone());
        }
    }

    /// In the background nothing is drawn: the terminal shows what the foreground job has written.
    fn hide(&self) {
        if self.is_shown.swap(false, SeqCst) {
            *lock(&self.console.bar) = None;
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

impl Drop for ProgressMeter<'_> {
    fn drop(&mut self) {
        if !is_foreground(io::stderr()) {
            self.hide();
        }
        if self.is_shown.load(SeqCst) {
            *lock(&self.console.bar) = None;
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
pub(crate) mod test_support {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        /// What was written since the last time.
        pub(crate) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::test_support::Sink;
    use super::*;

    /// Every write fails with this error.
    struct FailingStream(Errno);

    impl Write for FailingStream {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_ends_quietly() {
        let end = |errno, json| {
            let err = Sink::default();
            let options = OutputOptions { json, ..OutputOptions::default() };
            let console = Console::with_writers(options, Box::new(FailingStream(errno)), Box::new(err.clone()));
            assert!(!console.has_ended() && console.output_status().is_success());
            console.report(&Report::Peers(&[]));
            console.report(&Report::Goodbye);
            assert!(console.has_ended());
            (console.output_status(), err.take())
        };
        for json in [false, true] {
            assert_eq!(end(Errno::PIPE, json), (ExitCode::Success, String::new()));
            for (errno, status) in [
                (Errno::NOSPC, ExitCode::DiskFull),
                (Errno::DQUOT, ExitCode::DiskFull),
                (Errno::FBIG, ExitCode::DiskFull),
                (Errno::IO, ExitCode::LocalFile),
            ] {
                let reason = format!("client: cannot write to standard output: {}\n", io::Error::from(errno));
                assert_eq!(end(errno, json), (status, reason), "once, and a failure");
            }
        }
    }

    #[test]
    fn a_closed_stderr_is_no_failure() {
        let err = Box::new(FailingStream(Errno::PIPE));
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), err);
        console.error("lost");
        assert!(!console.has_ended());
    }

    #[test]
    fn quiet_leaves_out_greetings_and_notes_but_no_errors() {
        let (out, err) = (Sink::default(), Sink::default());
        let options = OutputOptions { quiet: true, ..OutputOptions::default() };
        let console = Console::with_writers(options, Box::new(out.clone()), Box::new(err.clone()));
        console.report(&Report::Goodbye);
        console.report(&Report::Peers(&[]));
        console.info("a note");
        console.info_async("a notice");
        console.error("two\nlines\x1b");
        assert_eq!(out.take(), "No active peers\n");
        assert_eq!(err.take(), "client: two\\u{a}lines\\u{1b}\n");
    }

    #[test]
    fn asynchronous_notes_are_printed_above_the_prompt() {
        let (err, prompt) = (Sink::default(), Sink::default());
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        console.info_async("first");
        let mut printer = prompt.clone();
        console.set_prompt_printer(Some(Box::new(move |line| printer.write_all(line.as_bytes()).unwrap())));
        console.info_async("second");
        assert_eq!((err.take().as_str(), prompt.take().as_str()), ("client: first\n", "client: second\n"));
    }

    #[test]
    fn no_bar_is_drawn_without_the_option() {
        let err = Sink::default();
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        let meter = console.progress();
        meter.update("x", 1, 2);
        assert!(!meter.is_shown.load(SeqCst));
        drop(meter);
        assert_eq!(err.take(), "");
    }
}
