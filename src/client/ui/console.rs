//! The client's two output streams. As text: results on stdout, notes on stderr. As JSON: every message on stdout. Each write
//! is a whole line.
//!
//! Any thread may write. A reader that has closed stdout is remembered, not reported; every other error of stdout is a
//! failure of the client.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::exit_code::ExitCode;
use crate::client::ui::look::{Emphasis, Look};
use crate::client::ui::message::{CommandId, CommandResult, FileProgress, Message, MessageBody, Note, NoteLevel};
use crate::client::ui::output::MessageSink;
use crate::client::ui::prompt_queue::{Prompt, PromptPrinter};
use crate::client::ui::standard_stream::StandardStream;
use crate::client::ui::summary::GetSummary;
use crate::client::ui::terminal::is_foreground;
use crate::common::escape::escape_controls;
use crate::common::sync::lock;

/// How long a command runs before it gets a progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Fewest terminal columns for a bar beside the numbers.
const BAR_COLUMNS_MIN: u16 = 78;

/// Columns of a terminal that does not know its size.
const COLUMNS_UNKNOWN: usize = 80;

/// What is written, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputOptions {
    /// JSON on stdout, and nothing on stderr, instead of text.
    pub json: bool,
    /// Leave out greetings, notes and progress.
    pub quiet: bool,
    /// Draw progress bars on stderr.
    pub bars: bool,
    /// How stdout looks.
    pub out: Look,
    /// How stderr looks.
    pub err: Look,
}

/// What messages belong to: the id of a command, and the number of a job, whose command may have none.
type RunKey = (Option<CommandId>, Option<u64>);

/// Shared by all threads of the client.
pub struct Console {
    options: OutputOptions,
    streams: Mutex<Streams>,
    prompt: Prompt,
    /// Of the command that runs.
    bar: Mutex<Option<CommandBar>>,
    /// Of the commands and jobs that run and have results of a `get`.
    summaries: Mutex<HashMap<RunKey, GetSummary>>,
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
        Self {
            options,
            streams,
            prompt: Prompt::default(),
            bar: Mutex::default(),
            summaries: Mutex::default(),
            output_end: OnceLock::new(),
        }
    }

    /// While the user types at a prompt, what belongs to no command or to a job is printed by `printer`.
    pub fn set_prompt_printer(&self, printer: Option<PromptPrinter>) {
        self.prompt.set_printer(printer);
    }

    /// A failure if a result could not be written, unless the reader of stdout has closed it.
    pub fn output_status(&self) -> ExitCode {
        self.output_end.get().copied().unwrap_or(ExitCode::Success)
    }

    /// How stdout looks.
    pub fn look(&self) -> Look {
        self.options.out
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
            MessageBody::Result(result) => {
                self.add_to_summary((id, job), &result);
                result.to_text_with(self.options.out)
            }
            MessageBody::Event(event) => event.to_text(),
            MessageBody::Note(note) => return self.print_note(&note, is_background),
            // A job's is shown by `jobs`.
            MessageBody::Progress(_) if job.is_some() => return,
            MessageBody::Progress(progress) => return self.draw_progress(id, &progress),
            MessageBody::End(_) => {
                self.clear_bar(id.as_ref());
                return self.print_summary(&(id, job), is_background);
            }
        };
        let write = |text: String| self.write(|streams| streams.print(&text));
        match is_background {
            _ if text.is_empty() => {}
            true => self.prompt.print(text, write),
            false => write(text),
        }
    }

    fn print_note(&self, note: &Note, is_background: bool) {
        let emphasis = if note.level == NoteLevel::Error { Emphasis::Failure } else { Emphasis::Aside };
        let prefix = self.options.err.emphasize(emphasis, "client:");
        self.print_error_line(format!("{prefix} {}\n", escape_controls(&note.text)), is_background);
    }

    /// Writes to stderr, also if stdout has ended.
    fn print_error_line(&self, line: String, is_background: bool) {
        let write = |line: String| drop(self.with_bar_suspended(|streams| streams.print_error(&line)));
        match is_background {
            true => self.prompt.print(line, write),
            false => write(line),
        }
    }

    fn add_to_summary(&self, run: RunKey, result: &CommandResult) {
        if let CommandResult::Get(result) = result
            && self.options.err.is_terminal
            && !self.options.quiet
        {
            lock(&self.summaries).entry(run).or_default().add(result);
        }
    }

    /// Not while this process is in the background of its terminal.
    fn print_summary(&self, run: &RunKey, is_background: bool) {
        let Some(summary) = lock(&self.summaries).remove(run) else { return };
        if is_foreground(io::stderr()) {
            let lines = summary.to_text();
            let lines = lines.lines().map(|line| self.options.err.emphasize(Emphasis::Aside, line) + "\n");
            lines.for_each(|line| self.print_error_line(line, is_background));
        }
    }

    fn receive_as_json(&self, message: &Message) {
        let line = message.to_json() + "\n";
        let write = |line: String| self.write(|streams| streams.print(&line));
        match is_background(message) {
            true => self.prompt.print(line, write),
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

    fn columns(&self) -> Option<usize> {
        let is_read_by_a_person = self.options.out.is_terminal && self.options.err.is_terminal && !self.options.json;
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| is_read_by_a_person)?;
        Some(if size.ws_col == 0 { COLUMNS_UNKNOWN } else { size.ws_col.into() })
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
    /// Whether the window was narrow when it was drawn last.
    is_narrow: Option<bool>,
}

impl CommandBar {
    fn new(command: Option<CommandId>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { command, bar, is_shown: false, is_narrow: None }
    }

    /// Leaves out the bar itself while the window is narrow.
    fn fit_window(&mut self) {
        let is_narrow = rustix::termios::tcgetwinsize(io::stderr()).is_ok_and(|size| size.ws_col < BAR_COLUMNS_MIN);
        if self.is_narrow.replace(is_narrow) == Some(is_narrow) {
            return;
        }
        let template = if is_narrow {
            "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{msg:30!} {wide_bar} {bytes:>10}/{total_bytes} {bytes_per_sec:>12} {eta:>4}"
        };
        self.bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed"));
    }

    fn draw(&mut self, progress: &FileProgress) {
        if self.bar.elapsed() < BAR_AFTER {
            return;
        }
        if !is_foreground(io::stderr()) {
            return self.hide();
        }
        self.fit_window();
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
#[path = "console_tests.rs"]
mod tests;
