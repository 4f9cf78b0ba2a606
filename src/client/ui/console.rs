//! The client's two output streams. As text: results on stdout, notes on stderr. As JSON: every message on stdout. Each write
//! is a whole line.
//!
//! Any thread may write. A reader that has closed stdout is remembered, not reported; every other error of stdout is a
//! failure of the client.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::exit_code::ExitCode;
use crate::client::ui::message::{CommandId, FileProgress, Message, MessageBody, Note, NoteLevel};
use crate::client::ui::output::MessageSink;
use crate::client::ui::prompt_queue::{PromptPrinter, PromptQueue};
use crate::client::ui::standard_stream::StandardStream;
use crate::client::ui::terminal::is_foreground;
use crate::common::escape::escape_controls;
use crate::common::sync::lock;

/// How long a command runs before it gets a progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Fewest terminal columns for a bar beside the numbers.
const BAR_COLUMNS_MIN: u16 = 78;

/// What is written, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputOptions {
    /// JSON on stdout, and nothing on stderr, instead of text.
    pub json: bool,
    /// Leave out greetings, notes and progress.
    pub quiet: bool,
    /// Draw progress bars on stderr.
    pub bars: bool,
}

/// Shared by all threads of the client.
pub struct Console {
    options: OutputOptions,
    streams: Mutex<Streams>,
    /// While the user types at a prompt.
    prompt: Mutex<Option<PromptQueue>>,
    /// Of the command that runs.
    bar: Mutex<Option<CommandBar>>,
    /// Set by the first error of stdout: success if its reader has closed it.
    output_end: OnceLock<ExitCode>,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

impl Streams {
    /// Writes a line to stdout.
    fn print(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }

    /// Writes a line to stderr. A failure cannot be reported anywhere.
    fn print_error(&mut self, line: &str) -> io::Result<()> {
        let _ = self.err.write_all(line.as_bytes());
        Ok(())
    }
}

impl Console {
    pub fn stdio(options: OutputOptions) -> Self {
        Self::with_writers(options, Box::new(StandardStream::stdout()), Box::new(StandardStream::stderr()))
    }

    pub fn with_writers(options: OutputOptions, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let streams = Mutex::new(Streams { out, err });
        Self { options, streams, prompt: Mutex::default(), bar: Mutex::new(None), output_end: OnceLock::new() }
    }

    /// While the user types at a prompt, what belongs to no command or to a job is printed by `printer`.
    pub fn set_prompt_printer(&self, printer: Option<PromptPrinter>) {
        let prompt = printer.and_then(PromptQueue::start);
        // Not while it is locked: the lines of the last one are printed first.
        drop(std::mem::replace(&mut *lock(&self.prompt), prompt));
    }

    /// Prints above the prompt; without one, as `write` does.
    fn print_in_background(&self, line: String, write: impl FnOnce(String)) {
        let prompt = lock(&self.prompt).as_ref().and_then(PromptQueue::lines);
        match prompt {
            // The thread that takes them ends with their last sender.
            Some(lines) => drop(lines.send(line)),
            None => write(line),
        }
    }

    /// A failure if a result could not be written, unless the reader of stdout has closed it.
    pub fn output_status(&self) -> ExitCode {
        self.output_end.get().copied().unwrap_or(ExitCode::Success)
    }

    fn is_left_out(&self, body: &MessageBody) -> bool {
        self.options.quiet
            && match body {
                MessageBody::Result(result) => result.is_greeting(),
                MessageBody::Note(note) => note.level == NoteLevel::Info,
                MessageBody::Progress(_) => true,
                MessageBody::End(_) | MessageBody::Event(_) => false,
            }
    }

    fn receive_as_text(&self, message: Message) {
        let is_background = is_background(&message);
        let Message { id, job, body } = message;
        let text = match body {
            MessageBody::Result(result) => result.to_text(),
            MessageBody::Event(event) => event.to_text(),
            MessageBody::Note(note) => return self.print_note(&note, is_background),
            // A job's is shown by `jobs`.
            MessageBody::Progress(_) if job.is_some() => return,
            MessageBody::Progress(progress) => return self.draw_progress(id, &progress),
            MessageBody::End(_) => return self.clear_bar(id.as_ref()),
        };
        let write = |text: String| self.write(|streams| streams.print(&text));
        match is_background {
            _ if text.is_empty() => {}
            true => self.print_in_background(text, write),
            false => write(text),
        }
    }

    fn print_note(&self, note: &Note, is_background: bool) {
        // Also if stdout has ended.
        let write = |line: String| drop(self.with_bar_suspended(|streams| streams.print_error(&line)));
        let line = format!("client: {}\n", escape_controls(&note.text));
        match is_background {
            true => self.print_in_background(line, write),
            false => write(line),
        }
    }

    fn receive_as_json(&self, message: &Message) {
        let line = message.to_json() + "\n";
        let write = |line: String| self.write(|streams| streams.print(&line));
        match is_background(message) {
            true => self.print_in_background(line, write),
            false => write(line),
        }
    }

    /// Writes to stdout, unless it has ended.
    fn write(&self, write: impl FnOnce(&mut Streams) -> io::Result<()>) {
        if self.has_ended() {
            return;
        }
        if let Err(error) = self.with_bar_suspended(write) {
            self.end_output(&error);
        }
    }

    fn end_output(&self, error: &io::Error) {
        let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
        let status = if is_closed { ExitCode::Success } else { error.into() };
        if self.output_end.set(status).is_ok() && !is_closed {
            let line = format!("client: cannot write to standard output: {error}\n");
            let _ = self.with_bar_suspended(|streams| streams.print_error(&line));
        }
    }

    fn draw_progress(&self, command: Option<CommandId>, progress: &FileProgress) {
        if !self.options.bars {
            return;
        }
        let mut bar = lock(&self.bar);
        let bar = bar.get_or_insert_with(|| CommandBar::new(command.clone()));
        if bar.command == command {
            bar.draw(progress);
        }
    }

    fn clear_bar(&self, command: Option<&CommandId>) {
        lock(&self.bar).take_if(|bar| bar.command.as_ref() == command);
    }

    fn with_bar_suspended(&self, write: impl FnOnce(&mut Streams) -> io::Result<()>) -> io::Result<()> {
        let bar = lock(&self.bar).as_ref().filter(|bar| bar.is_shown).map(|bar| bar.bar.clone());
        let write = || write(&mut lock(&self.streams));
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// Whether it comes at any time, not while its command runs and the user waits.
fn is_background(message: &Message) -> bool {
    message.id.is_none() || message.job.is_some()
}

impl MessageSink for Console {
    fn receive(&self, message: Message) {
        if self.is_left_out(&message.body) {
            return;
        }
        match self.options.json {
            true => self.receive_as_json(&message),
            false => self.receive_as_text(message),
        }
    }

    fn end(&self, error: &io::Error) {
        let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
        let _ = self.output_end.set(if is_closed { ExitCode::Success } else { error.into() });
    }

    fn has_ended(&self) -> bool {
        self.output_end.get().is_some()
    }

    fn wants_progress(&self) -> bool {
        self.options.bars || (self.options.json && !self.options.quiet)
    }
}

/// A progress bar that appears after [`BAR_AFTER`] and disappears when it is dropped.
struct CommandBar {
    command: Option<CommandId>,
    bar: ProgressBar,
    is_shown: bool,
}

impl CommandBar {
    fn new(command: Option<CommandId>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let is_narrow = rustix::termios::tcgetwinsize(io::stderr()).is_ok_and(|size| size.ws_col < BAR_COLUMNS_MIN);
        let template = if is_narrow {
            "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{msg:30!} {wide_bar} {bytes:>10}/{total_bytes} {bytes_per_sec:>12} {eta:>4}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed"));
        Self { command, bar, is_shown: false }
    }

    fn draw(&mut self, progress: &FileProgress) {
        if self.bar.elapsed() < BAR_AFTER {
            return;
        }
        if !is_foreground(io::stderr()) {
            return self.hide();
        }
        self.bar.set_length(progress.command_total);
        self.bar.set_position(progress.command_done);
        self.bar.set_message(escape_controls(&progress.name).to_string());
        if !self.is_shown {
            self.is_shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// In the background nothing is drawn: the terminal shows what the foreground job has written.
    fn hide(&mut self) {
        if self.is_shown {
            self.is_shown = false;
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

impl Drop for CommandBar {
    fn drop(&mut self) {
        if !is_foreground(io::stderr()) {
            self.hide();
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
    use std::sync::Arc;

    use rustix::io::Errno;

    use super::test_support::Sink;
    use super::*;
    use crate::client::ui::message::{CommandResult, PeerList, True};
    use crate::client::ui::output::Output;

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

    /// What was written to stdout and stderr.
    struct Written {
        out: Sink,
        err: Sink,
    }

    impl Written {
        fn take(&self) -> (String, String) {
            (self.out.take(), self.err.take())
        }
    }

    fn console(options: OutputOptions) -> (Arc<Console>, Output, Written) {
        let written = Written { out: Sink::default(), err: Sink::default() };
        let (out, err) = (Box::new(written.out.clone()), Box::new(written.err.clone()));
        let console = Arc::new(Console::with_writers(options, out, err));
        (Arc::clone(&console), Output::new(console), written)
    }

    fn no_peers() -> CommandResult {
        CommandResult::Lap(PeerList { ok: True, peers: Vec::new(), details: None })
    }

    #[test]
    fn only_a_closed_pipe_ends_quietly() {
        let end = |errno, json| {
            let err = Sink::default();
            let options = OutputOptions { json, ..OutputOptions::default() };
            let console = Console::with_writers(options, Box::new(FailingStream(errno)), Box::new(err.clone()));
            let console = Arc::new(console);
            let output = Output::new(Arc::clone(&console) as Arc<dyn MessageSink>);
            assert!(!output.has_ended() && console.output_status().is_success());
            output.result(no_peers());
            output.result(CommandResult::goodbye());
            assert!(output.has_ended());
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
        let output = Output::new(Arc::new(console));
        output.error("lost");
        assert!(!output.has_ended());
    }

    #[test]
    fn quiet_leaves_out_greetings_and_notes_but_no_errors() {
        let (_, output, written) = console(OutputOptions { quiet: true, ..OutputOptions::default() });
        output.result(CommandResult::goodbye());
        output.result(no_peers());
        output.info("a note");
        output.error("two\nlines\x1b");
        assert_eq!(written.take(), ("No active peers\n".into(), "client: two\\u{a}lines\\u{1b}\n".into()));
    }

    #[test]
    fn json_is_all_on_stdout() {
        for quiet in [false, true] {
            let (_, output, written) = console(OutputOptions { json: true, quiet, ..OutputOptions::default() });
            let run = output.begin(None);
            output.of(&run).info("a note");
            output.of(&run).error("a reason");
            output.of(&run).result(CommandResult::goodbye());
            output.end(run, "xit", ExitCode::Success);
            let (out, err) = written.take();
            let types = out.lines().map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                value["type"].as_str().unwrap().to_owned()
            });
            let types: Vec<String> = types.collect();
            let expected = if quiet { vec!["note", "end"] } else { vec!["note", "note", "result", "end"] };
            assert_eq!((types, err.as_str()), (expected.into_iter().map(String::from).collect(), ""));
        }
    }

    #[test]
    fn notes_of_no_command_are_printed_above_the_prompt() {
        let prompt = Sink::default();
        let (console, output, written) = console(OutputOptions::default());
        output.info("first");
        let mut printer = prompt.clone();
        console.set_prompt_printer(Some(Box::new(move |line| printer.write_all(line.as_bytes()).unwrap())));
        output.info("second");
        output.of(&output.begin(None)).info("third");
        console.set_prompt_printer(None);
        assert_eq!(written.take().1, "client: first\nclient: third\n");
        assert_eq!(prompt.take(), "client: second\n");
    }

    #[test]
    fn no_bar_is_drawn_without_the_option() {
        let progress = FileProgress { name: "x".into(), done: 1, total: 2, rate: 1, command_done: 1, command_total: 2 };
        let (text, output, written) = console(OutputOptions::default());
        assert!(!text.wants_progress());
        output.send(MessageBody::Progress(progress));
        assert!(lock(&text.bar).is_none());
        assert_eq!(written.take(), (String::new(), String::new()));
    }
}
