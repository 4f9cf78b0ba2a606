//! The client's two output streams: results on stdout, everything else on stderr, each write a whole line.
//!
//! Any thread may write. A closed stdout is remembered, not reported.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::ui::report::Report;
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
    is_closed: AtomicBool,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    prompt: Option<PromptPrinter>,
}

impl Console {
    pub fn stdio(options: OutputOptions) -> Self {
        Self::with_writers(options, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    pub fn with_writers(options: OutputOptions, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let streams = Mutex::new(Streams { out, err, prompt: None });
        Self { options, streams, bar: Mutex::new(None), is_closed: AtomicBool::new(false) }
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
        if text.is_empty() || self.is_closed() {
            return;
        }
        let written = self.with_bar_suspended(|streams| {
            streams.out.write_all(text.as_bytes())?;
            streams.out.flush()
        });
        if written.is_err() {
            self.is_closed.store(true, SeqCst);
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

    /// Whether the reader of stdout has closed it.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
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
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(escape_controls(what).to_string());
        if !self.is_shown.swap(true, SeqCst) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            *lock(&self.console.bar) = Some(self.bar.clone());
        }
    }
}

impl Drop for ProgressMeter<'_> {
    fn drop(&mut self) {
        if self.is_shown.load(SeqCst) {
            *lock(&self.console.bar) = None;
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct ClosedStream;

    impl Write for ClosedStream {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(sink: &Sink) -> String {
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_closed_stdout_is_remembered() {
        let console = Console::with_writers(OutputOptions::default(), Box::new(ClosedStream), Box::new(ClosedStream));
        assert!(!console.is_closed());
        console.error("lost");
        assert!(!console.is_closed());
        console.report(&Report::Peers(&[]));
        assert!(console.is_closed());
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
        assert_eq!(text(&out), "No active peers\n");
        assert_eq!(text(&err), "client: two\\u{a}lines\\u{1b}\n");
    }

    #[test]
    fn asynchronous_notes_are_printed_above_the_prompt() {
        let (err, prompt) = (Sink::default(), Sink::default());
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        console.info_async("first");
        let mut printer = prompt.clone();
        console.set_prompt_printer(Some(Box::new(move |line| printer.write_all(line.as_bytes()).unwrap())));
        console.info_async("second");
        assert_eq!((text(&err).as_str(), text(&prompt).as_str()), ("client: first\n", "client: second\n"));
    }

    #[test]
    fn no_bar_is_drawn_without_the_option() {
        let err = Sink::default();
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        let meter = console.progress();
        meter.update("x", 1, 2);
        assert!(!meter.is_shown.load(SeqCst));
        drop(meter);
        assert_eq!(text(&err), "");
    }
}
