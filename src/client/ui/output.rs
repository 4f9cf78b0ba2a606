//! What commands write to: messages, each with the id of its command, to one receiver.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::client::exit_code::ExitCode;
use crate::client::jobs::{Job, JobProgress};
use crate::client::ui::message::{
    CommandEnd, CommandId, CommandResult, EventKind, EventMessage, FileProgress, Message, MessageBody, Note, NoteLevel,
};
use crate::common::sync::lock;

/// The least time between two messages about the progress of one file.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Receives the messages of commands. Any thread may call it; a call may block while its reader takes nothing.
pub trait MessageSink: Send + Sync {
    fn receive(&self, message: Message);

    /// Receives a message unless nobody takes it any more: then it comes back.
    fn offer(&self, message: Message) -> Option<Message> {
        self.receive(message);
        None
    }

    /// Whether nobody takes further messages: no further command should start.
    fn has_ended(&self) -> bool {
        false
    }

    /// What it prints to takes no more: a command that wrote there itself got this error.
    fn end(&self, _: &io::Error) {}

    /// Whether messages about progress are of use.
    fn wants_progress(&self) -> bool {
        true
    }

    /// The width of the terminal at which a person reads the text; `None` if a program may read it.
    fn columns(&self) -> Option<usize> {
        None
    }
}

/// The output of one command context, or of one command of it.
#[derive(Clone)]
pub struct Output {
    sink: Arc<dyn MessageSink>,
    /// The command that writes; `None`: none of them.
    command: Option<CommandId>,
    /// The job that writes.
    job: Option<u64>,
    /// How many events the context has reported. Locked while one is sent: they come in the order of their numbers.
    events: Arc<Mutex<u64>>,
    commands: Arc<Mutex<BegunCommands>>,
}

/// The commands of a context.
#[derive(Default)]
struct BegunCommands {
    count: u64,
    /// Those that have not ended.
    running: HashSet<CommandId>,
}

/// A command that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRun {
    id: CommandId,
    started: Instant,
}

impl CommandRun {
    pub fn id(&self) -> &CommandId {
        &self.id
    }
}

impl Output {
    pub fn new(sink: Arc<dyn MessageSink>) -> Self {
        Self { sink, command: None, job: None, events: Arc::default(), commands: Arc::default() }
    }

    /// A command begins. Without an id, or if a command has it that has not ended, it gets its number, counted from 1.
    pub fn begin(&self, id: Option<CommandId>) -> CommandRun {
        let mut commands = lock(&self.commands);
        commands.count += 1;
        let mut number = commands.count;
        let mut id = id.unwrap_or_else(|| number.into());
        while !commands.running.insert(id.clone()) {
            id = number.into();
            number += 1;
        }
        CommandRun { id, started: clock() }
    }

    /// Whether a command has this id that has not ended.
    pub fn is_running(&self, id: &CommandId) -> bool {
        lock(&self.commands).running.contains(id)
    }

    /// The output of this command.
    pub fn of(&self, run: &CommandRun) -> Self {
        Self { command: Some(run.id.clone()), ..self.clone() }
    }

    /// The output of this command as a job, which counts its progress. `client`: takes over if nobody takes the messages
    /// of this output any more.
    pub fn of_job(&self, job: &Arc<Job>, client: Option<&Self>) -> Self {
        let client = client.map(|client| Arc::clone(&client.sink));
        let sink = JobSink { job: Arc::clone(job), sink: Arc::clone(&self.sink), client };
        Self { sink: Arc::new(sink), job: Some(job.number), ..self.clone() }
    }

    /// The number of the job that writes.
    pub fn job(&self) -> Option<u64> {
        self.job
    }

    /// For what belongs to no command.
    pub fn of_none(&self) -> Self {
        Self { command: None, ..self.clone() }
    }

    /// The command has ended; nothing of it follows.
    pub fn end(&self, run: CommandRun, command: &str, code: ExitCode) {
        let elapsed_ms = clock().saturating_duration_since(run.started).as_millis() as u64;
        let end = CommandEnd { command: command.into(), ok: code.is_success(), code, elapsed_ms };
        self.of(&run).send(MessageBody::End(end));
    }

    pub fn result(&self, result: CommandResult) {
        self.send(MessageBody::Result(result));
    }

    /// Standard output failed with this error while the command wrote the content of a file there. A reader that has closed
    /// it is no failure.
    pub fn content_failed(&self, error: &io::Error) -> ExitCode {
        self.sink.end(error);
        if error.kind() == io::ErrorKind::BrokenPipe {
            return ExitCode::Success;
        }
        self.error(format_args!("cannot write to standard output: {error}"));
        error.into()
    }

    /// The reason of a failure, one line.
    pub fn error(&self, text: impl Display) {
        self.note(NoteLevel::Error, text);
    }

    /// A note, one line.
    pub fn info(&self, text: impl Display) {
        self.note(NoteLevel::Info, text);
    }

    pub fn event(&self, time: SystemTime, kind: EventKind) {
        let mut events = lock(&self.events);
        *events += 1;
        self.send(MessageBody::Event(EventMessage::new(*events, time, kind)));
    }

    /// Counts the bytes of files for the user.
    pub fn progress(&self) -> ProgressMeter<'_> {
        let intervals = Mutex::new(ProgressIntervals::starting(clock()));
        ProgressMeter { output: self, is_wanted: self.sink.wants_progress(), intervals }
    }

    /// Whether messages about progress are of use.
    pub fn wants_progress(&self) -> bool {
        self.sink.wants_progress()
    }

    /// The width of the terminal at which a person reads the text; `None` if a program may read it.
    pub fn columns(&self) -> Option<usize> {
        self.sink.columns()
    }

    /// Whether nobody takes further messages.
    pub fn has_ended(&self) -> bool {
        self.sink.has_ended()
    }

    pub fn send(&self, body: MessageBody) {
        self.pass_on(Message { id: self.command.clone(), job: self.job, body });
    }

    /// A message of the client that runs the commands of this context.
    pub fn pass_on(&self, message: Message) {
        if let (MessageBody::End(_), Some(id)) = (&message.body, &message.id) {
            lock(&self.commands).running.remove(id);
        }
        self.sink.receive(message);
    }

    fn note(&self, level: NoteLevel, text: impl Display) {
        self.send(MessageBody::Note(Note { text: text.to_string(), level }));
    }
}

/// What a job writes to: the output of those who began it while they are there, then that of the client.
struct JobSink {
    job: Arc<Job>,
    sink: Arc<dyn MessageSink>,
    /// The client's, if `sink` is an attached side's.
    client: Option<Arc<dyn MessageSink>>,
}

impl MessageSink for JobSink {
    fn receive(&self, message: Message) {
        if let MessageBody::Progress(progress) = &message.body {
            let (done, total) = (progress.command_done, progress.command_total);
            self.job.set_progress(JobProgress { done, total });
            if !self.sink.wants_progress() {
                return;
            }
        }
        if let (Some(message), Some(client)) = (self.sink.offer(message), &self.client) {
            // The id names a command of those who have gone.
            client.receive(Message { id: None, ..message });
        }
    }

    fn has_ended(&self) -> bool {
        self.sink.has_ended() && self.client.as_ref().is_none_or(|client| client.has_ended())
    }

    /// `jobs` shows it.
    fn wants_progress(&self) -> bool {
        true
    }
}

/// Bytes that are done, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCount {
    pub done: u64,
    pub total: u64,
}

/// See [`Output::progress`].
pub struct ProgressMeter<'a> {
    output: &'a Output,
    is_wanted: bool,
    intervals: Mutex<ProgressIntervals>,
}

impl ProgressMeter<'_> {
    /// `file`: bytes of this file; `all`: of all files of the command.
    pub fn update(&self, name: &str, file: ByteCount, all: ByteCount) {
        if !self.is_wanted {
            return;
        }
        let Some(rate) = lock(&self.intervals).next(clock(), name, file, all.done) else { return };
        let (ByteCount { done, total }, command_done, command_total) = (file, all.done, all.total);
        let progress = FileProgress { name: name.into(), done, total, rate, command_done, command_total };
        self.output.send(MessageBody::Progress(progress));
    }
}

/// When which progress was sent.
struct ProgressIntervals {
    /// Of the files that are not complete.
    files: HashMap<String, Interval>,
    command: Interval,
}

#[derive(Debug, Clone, Copy)]
struct Interval {
    since: Instant,
    done: u64,
}

impl Interval {
    fn rate(self, now: Instant, done: u64) -> u64 {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        (done.saturating_sub(self.done) as f64 / seconds) as u64
    }
}

impl ProgressIntervals {
    fn starting(now: Instant) -> Self {
        Self { files: HashMap::new(), command: Interval { since: now, done: 0 } }
    }

    /// The rate to send with a progress, in bytes a second; `None` if it is too early for one. The first of a file has the
    /// rate of the command, and follows the last progress of the command at the same interval: many small files are no
    /// flood.
    fn next(&mut self, now: Instant, name: &str, file: ByteCount, command_done: u64) -> Option<u64> {
        let of_file = self.files.get(name).copied();
        let (last, done) = of_file.map_or((self.command, command_done), |last| (last, file.done));
        if now.saturating_duration_since(last.since) < PROGRESS_INTERVAL {
            return None;
        }
        self.command = Interval { since: now, done: command_done };
        if file.done < file.total {
            self.files.insert(name.into(), Interval { since: now, done: file.done });
        } else {
            self.files.remove(name);
        }
        Some(last.rate(now, done))
    }
}

#[expect(clippy::disallowed_methods, reason = "elapsed times and rates are for the user alone")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
pub(crate) mod test_support {
    use std::sync::{Arc, Mutex};

    use super::{MessageSink, Output};
    use crate::client::ui::message::Message;

    /// Keeps the messages.
    #[derive(Clone, Default)]
    pub(crate) struct Messages(Arc<Mutex<Vec<Message>>>);

    impl Messages {
        pub(crate) fn output(&self) -> Output {
            Output::new(Arc::new(self.clone()))
        }

        /// Those since the last time.
        pub(crate) fn take(&self) -> Vec<Message> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl MessageSink for Messages {
        fn receive(&self, message: Message) {
            self.0.lock().unwrap().push(message);
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
