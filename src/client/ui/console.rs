//! The client's two streams: results on stdout, everything else on stderr, one line each, never two mixed up.
//!
//! Any thread may write. A reader that has gone away is remembered rather than complained about.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::ui::report::Report;
use crate::common::escape::escape_controls;

/// What takes this long gets a progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// A narrower terminal has no room for a bar beside the numbers.
const BAR_COLUMNS: u16 = 78;

/// How the client speaks.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputOptions {
    /// JSON on stdout.
    pub json: bool,
    /// No greetings, no notes.
    pub quiet: bool,
    /// Progress bars may be drawn: stderr is a terminal and nobody reads a script's output there.
    pub bars: bool,
}

/// Prints a line above a prompt that someone is typing at.
pub type PromptPrinter = Box<dyn FnMut(String) + Send>;

/// See the module.
pub struct Console {
    manner: OutputOptions,
    streams: Mutex<Streams>,
    /// Drawn at the moment, to be put aside while a line is printed.
    bar: Mutex<Option<ProgressBar>>,
    closed: AtomicBool,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    prompt: Option<PromptPrinter>,
}

impl Console {
    /// On stdout and stderr.
    pub fn stdio(manner: OutputOptions) -> Self {
        Self::with_writers(manner, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// On any two streams.
    pub fn with_writers(manner: OutputOptions, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let streams = Mutex::new(Streams { out, err, prompt: None });
        Self { manner, streams, bar: Mutex::new(None), closed: AtomicBool::new(false) }
    }

    /// Notes from other threads go through `printer` from now on: someone types at a prompt on this terminal.
    pub fn set_prompt_printer(&self, printer: Option<PromptPrinter>) {
        lock(&self.streams).prompt = printer;
    }

    /// A result, to stdout.
    pub fn report(&self, report: &Report<'_>) {
        if self.manner.quiet && report.is_greeting() {
            return;
        }
        let text = if self.manner.json { report.to_json() } else { report.to_text() };
        if text.is_empty() || self.is_closed() {
            return;
        }
        let written = self.with_bar_suspended(|streams| {
            streams.out.write_all(text.as_bytes())?;
            streams.out.flush()
        });
        if written.is_err() {
            self.closed.store(true, SeqCst);
        }
    }

    /// Why something failed, to stderr, on one line.
    pub fn error(&self, text: impl Display) {
        let line = format!("client: {}\n", escape_controls(&text.to_string()));
        // There is nowhere left to tell that stderr is gone.
        let _ = self.with_bar_suspended(|streams| streams.err.write_all(line.as_bytes()));
    }

    /// Something worth knowing, to stderr, on one line; nothing when quiet.
    pub fn info(&self, text: impl Display) {
        if !self.manner.quiet {
            self.error(text);
        }
    }

    /// A note that comes by itself, while perhaps someone types at a prompt.
    pub fn info_async(&self, text: impl Display) {
        if self.manner.quiet {
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

    /// Whether stdout can no longer be written: its reader has gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// A progress bar that shows itself once a second has passed, and goes away when dropped.
    pub fn progress(&self) -> ProgressMeter<'_> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let is_narrow = rustix::termios::tcgetwinsize(io::stderr()).is_ok_and(|size| size.ws_col < BAR_COLUMNS);
        let template = if is_narrow {
            "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{msg:30!} {wide_bar} {bytes:>10}/{total_bytes} {bytes_per_sec:>12} {eta:>4}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed"));
        ProgressMeter { console: self, bar, shown: AtomicBool::new(false) }
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
    shown: AtomicBool,
}

impl ProgressMeter<'_> {
    /// How far `what` has come, bytes.
    pub fn update(&self, what: &str, done: u64, total: u64) {
        if !self.console.manner.bars || self.bar.elapsed() < BAR_AFTER {
            return;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(escape_controls(what).to_string());
        if !self.shown.swap(true, SeqCst) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            *lock(&self.console.bar) = Some(self.bar.clone());
        }
    }
}

impl Drop for ProgressMeter<'_> {
    fn drop(&mut self) {
        if self.shown.load(SeqCst) {
            *lock(&self.console.bar) = None;
        }
        self.bar.finish_and_clear();
    }
}

/// A thread that panicked while it printed leaves nothing half that the next line would trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    struct Gone;

    impl Write for Gone {
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
    fn a_reader_that_has_gone_is_remembered() {
        let console = Console::with_writers(OutputOptions::default(), Box::new(Gone), Box::new(Gone));
        assert!(!console.is_closed());
        console.error("nobody hears this");
        assert!(!console.is_closed());
        console.report(&Report::Peers(&[]));
        assert!(console.is_closed());
    }

    #[test]
    fn quiet_leaves_out_greetings_and_notes_but_no_reason() {
        let (out, err) = (Sink::default(), Sink::default());
        let manner = OutputOptions { quiet: true, ..OutputOptions::default() };
        let console = Console::with_writers(manner, Box::new(out.clone()), Box::new(err.clone()));
        console.report(&Report::Goodbye);
        console.report(&Report::Peers(&[]));
        console.info("a note");
        console.info_async("a notice");
        console.error("two\nlines\x1b");
        assert_eq!(text(&out), "No active peers\n");
        assert_eq!(text(&err), "client: two\\u{a}lines\\u{1b}\n");
    }

    #[test]
    fn notices_go_around_the_prompt() {
        let (err, prompt) = (Sink::default(), Sink::default());
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        console.info_async("first");
        let mut printer = prompt.clone();
        console.set_prompt_printer(Some(Box::new(move |line| printer.write_all(line.as_bytes()).unwrap())));
        console.info_async("second");
        assert_eq!((text(&err).as_str(), text(&prompt).as_str()), ("client: first\n", "client: second\n"));
    }

    #[test]
    fn no_bar_is_drawn_where_none_is_wanted() {
        let err = Sink::default();
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        let meter = console.progress();
        meter.update("x", 1, 2);
        assert!(!meter.shown.load(SeqCst));
        drop(meter);
        assert_eq!(text(&err), "");
    }
}
