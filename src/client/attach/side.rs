//! The end of a process that was started with `--attach`: finds the running client, has it run commands, and passes their
//! messages on to its own output, by which they look as if they were typed there.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use serde::Deserialize;

use super::protocol::{
    CancelLine, CommandLine, CompletedWords, CompletionRequest, Greeting, SideOptions, read_line, read_value, to_line,
    write_with_descriptor,
};
use crate::client::commands::{CommandState, ContentPipes};
use crate::client::control_folder::{ANSWER_TIMEOUT, ControlFolder, all_places};
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::Command;
use crate::client::shell::{CommandRunner, LineCompleter, Shell};
use crate::client::ui::message::{CommandId, CommandResult, Message, MessageBody};
use crate::client::ui::output::{CommandRun, Output};
use crate::common::escape::{display_path, escape_controls};
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::UserName;

/// Outcomes of commands that are read before they are waited for.
const OUTCOMES_QUEUED_MAX: usize = 16;
/// How long the running client may take for its next message, or to say that all is sent, and a reader to take it.
const DETACH_TIMEOUT: Duration = Duration::from_secs(1);

/// Why no running client was attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("no client runs here for --attach; start one with -u, and with --stay if it has commands of its own")]
    None,
    #[error("no client that runs here can be attached to: {}", .0.join("; "))]
    Unreachable(
        /// What was in the way; not empty.
        Vec<String>,
    ),
    #[error("several clients run here; name one by -u NAME or by SERVER PORT{}", details(.0))]
    Several(
        /// Each with user, server and folder, or with its socket and why it did not answer.
        Vec<String>,
    ),
    #[error("the client that runs here does not take commands: {0}")]
    Refused(io::Error),
}

fn details(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

impl From<&AttachError> for ExitCode {
    fn from(error: &AttachError) -> Self {
        match error {
            AttachError::Several(_) => Self::Usage,
            AttachError::None | AttachError::Unreachable(_) | AttachError::Refused(_) => Self::Unreachable,
        }
    }
}

/// The first line of a running client.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Greeting(Greeting),
    /// A note with the reason.
    Refusal(Message),
}

/// A client that has answered.
struct Found {
    socket: SocketAddress,
    greeting: Greeting,
    reader: BufReader<UnixStream>,
}

/// Where a client listens.
struct SocketAddress {
    folder: Arc<ControlFolder>,
    name: String,
}

/// The clients of this user of the host.
#[derive(Default)]
struct FoundClients {
    /// Those of the user of the share and the server that were asked for.
    found: Vec<Found>,
    /// Sockets of clients that did not say whose they are, each with the reason.
    silent: Vec<String>,
    /// What was wrong with folders.
    troubles: Vec<String>,
}

/// Asks all clients of this user of the host.
fn find(user: Option<&str>, servers: Option<&[SocketAddr]>) -> FoundClients {
    let FoundClients { mut found, mut silent, mut troubles } = FoundClients::default();
    for path in all_places() {
        let folder = match ControlFolder::open(&path) {
            Ok(folder) => Arc::new(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                troubles.push(format!("{}: {error}", display_path(&path)));
                continue;
            }
        };
        for name in folder.sockets().unwrap_or_default() {
            let socket = SocketAddress { folder: Arc::clone(&folder), name };
            match socket.connect() {
                Ok(Some((greeting, reader))) => {
                    let is_server =
                        servers.is_none_or(|servers| servers.iter().any(|server| greeting.addresses.contains(server)));
                    if is_server && user.is_none_or(|user| user == greeting.user) {
                        found.push(Found { socket, greeting, reader });
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let why = match error.kind() {
                        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "the client does not answer".to_owned(),
                        _ => error.to_string(),
                    };
                    silent.push(format!("{}: {why}", folder.display(&socket.name)));
                }
            }
        }
    }
    FoundClients { found, silent, troubles }
}

impl SocketAddress {
    /// `None`: nobody listens there any more. Reading times out.
    fn connect(&self) -> io::Result<Option<(Greeting, BufReader<UnixStream>)>> {
        let Some(stream) = self.folder.connect(&self.name)? else { return Ok(None) };
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut reader = BufReader::new(stream);
        match read_value(&mut reader)? {
            Answer::Greeting(greeting) => Ok(Some((greeting, reader))),
            Answer::Refusal(Message { body: MessageBody::Note(note), .. }) => Err(io::Error::other(note.text)),
            Answer::Refusal(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Asks for the completion of a line, over a connection of its own.
    fn complete(&self, line: &str) -> io::Result<CompletedWords> {
        let (_, mut reader) = self.connect()?.ok_or(io::ErrorKind::ConnectionRefused)?;
        let request = CompletionRequest { complete: line.into() };
        reader.get_mut().write_all(to_line(&request).as_bytes())?;
        read_value(&mut reader)
    }
}

/// Whether a client of this user of this server runs here.
pub fn runs_here(user: &UserName, servers: &[SocketAddr]) -> bool {
    !find(Some(user.as_str()), Some(servers)).found.is_empty()
}

/// How a command came out for the shell.
enum RemoteOutcome {
    Ended(ExitCode),
    /// It goes on as a job.
    InBackground,
}

/// A connection to a running client that takes commands.
pub struct AttachedSide {
    socket: SocketAddress,
    user: Option<UserName>,
    stream: Mutex<UnixStream>,
    outcomes: Receiver<(CommandId, RemoteOutcome)>,
    /// Receives when messages are shown, and disconnects after the last.
    shown: Receiver<()>,
    output: Output,
    state: Arc<CommandState>,
    /// Which of this process's streams are free for the content of files.
    pipes: ContentPipes,
}

impl AttachedSide {
    /// Attaches to the only client that runs here, or to the only one of this user and this server.
    pub fn attach(
        user: Option<&str>,
        servers: Option<&[SocketAddr]>,
        options: &SideOptions,
        output: Output,
        state: Arc<CommandState>,
        pipes: ContentPipes,
    ) -> Result<Self, AttachError> {
        let FoundClients { mut found, silent, mut troubles } = find(user, servers);
        // Without a user name, one that is silent may be meant as well as one that has answered.
        let is_unclear = user.is_none() && !silent.is_empty();
        if found.len() > 1 || (found.len() == 1 && is_unclear) {
            let greetings = found.iter().map(|client| client.greeting.to_string());
            return Err(AttachError::Several(greetings.chain(silent).collect()));
        }
        troubles.extend(silent);
        let Some(Found { socket, greeting, mut reader }) = found.pop() else {
            return Err(if troubles.is_empty() { AttachError::None } else { AttachError::Unreachable(troubles) });
        };
        let connect = || {
            reader.get_ref().set_read_timeout(None)?;
            reader.get_mut().write_all(to_line(options).as_bytes())?;
            let stream = reader.get_ref().try_clone()?;
            let (sender, outcomes) = bounded(OUTCOMES_QUEUED_MAX);
            let (showing, shown) = bounded(1);
            let shower = output.clone();
            threads::spawn("attached", move || show_messages(&mut reader, &shower, &sender, &showing))?;
            let user = UserName::parse(&greeting.user).ok();
            Ok(Self { socket, user, stream: Mutex::new(stream), outcomes, shown, output, state, pipes })
        };
        connect().map_err(AttachError::Refused)
    }

    /// A shell whose commands run there.
    pub fn shell(&self, reads_json: bool) -> Shell<'_> {
        Shell { output: self.output.clone(), state: Arc::clone(&self.state), reads_json, runner: self }
    }

    /// Leaves. The messages that are on their way are shown before, of events or of what this side has begun, while one is
    /// shown in [`DETACH_TIMEOUT`] at least; the running client shows those that come later.
    pub fn detach(&self) {
        if lock(&self.stream).shutdown(Shutdown::Write).is_ok() {
            // The running client answers by the end of the stream.
            while self.shown.recv_timeout(DETACH_TIMEOUT).is_ok() {}
        }
    }

    fn send(&self, line: &str) -> bool {
        lock(&self.stream).write_all(line.as_bytes()).is_ok()
    }

    /// Sends a command, with standard input or output if it needs one that is free.
    fn send_command(&self, command: &Command, line: &str) -> io::Result<()> {
        let mut stream = lock(&self.stream);
        match command.without_job() {
            Command::Cat { .. } if self.pipes.output.is_some() => {
                write_with_descriptor(&stream, line, rustix::stdio::stdout())
            }
            Command::Pub { stdin: true, .. } if self.pipes.input.is_some() => {
                if io::stdin().is_terminal() {
                    // A terminal stops a process that reads from it in the background, as the running client may be.
                    let (reader, mut writer) = io::pipe()?;
                    threads::spawn("input", move || io::copy(&mut io::stdin(), &mut writer))?;
                    return write_with_descriptor(&stream, line, reader.as_fd());
                }
                write_with_descriptor(&stream, line, rustix::stdio::stdin())
            }
            _ => stream.write_all(line.as_bytes()),
        }
    }

    /// Waits until a command has ended or goes on as a job. `None`: the client has ended before it, or nobody takes the
    /// messages.
    fn outcome_of(&self, run: &CommandRun) -> Option<RemoteOutcome> {
        let mut cancelled = self.state.cancelled();
        loop {
            select! {
                recv(self.outcomes) -> outcome => match outcome.ok()? {
                    (id, outcome) if id == *run.id() => return Some(outcome),
                    _ => {}
                },
                recv(cancelled) -> _ => {
                    self.send(&to_line(&CancelLine { cancel: run.id().clone() }));
                    cancelled = crossbeam_channel::never();
                }
            }
        }
    }
}

/// Shows the messages of the client as they come, until it ends or nobody takes them, and tells how commands came out. The
/// shell shows their ends, but not those of jobs.
fn show_messages(
    reader: &mut impl BufRead,
    output: &Output,
    outcomes: &Sender<(CommandId, RemoteOutcome)>,
    showing: &Sender<()>,
) {
    while let Ok(Some(line)) = read_line(reader) {
        let Ok(message) = serde_json::from_slice::<Message>(&line) else { return };
        let outcome = match (message.job, &message.body) {
            (None, MessageBody::End(end)) => Some(RemoteOutcome::Ended(end.code)),
            (None, MessageBody::Result(CommandResult::Job(_))) => Some(RemoteOutcome::InBackground),
            _ => None,
        };
        let outcome = message.id.clone().zip(outcome);
        if !matches!(outcome, Some((_, RemoteOutcome::Ended(_)))) {
            output.pass_on(message);
            let _ = showing.try_send(());
        }
        if outcome.is_some_and(|outcome| outcomes.send(outcome).is_err()) {
            return;
        }
        if output.has_ended() {
            return;
        }
    }
}

impl CommandRunner for AttachedSide {
    fn run(&self, run: &CommandRun, typed: Command, line: &[u8]) -> Option<ExitCode> {
        // The running client would take the end of this process for the end of the input, and publish the beginning.
        let reads_input = matches!(typed.without_job(), Command::Pub { stdin: true, .. }) && self.pipes.input.is_some();
        if reads_input && matches!(typed, Command::Job { .. }) && io::stdin().is_terminal() {
            let why = "with --attach a job cannot read from a terminal; leave out the &, or use a pipe or a file";
            let output = self.output.of(run);
            output.error(why);
            output.result(CommandResult::failed(typed.verb().name(), why.to_owned(), ExitCode::Usage));
            return Some(ExitCode::Usage);
        }
        // Only a password may be something else; the running client is logged in, and takes none.
        let command = String::from_utf8_lossy(line);
        let sent = self.send_command(&typed, &to_line(&CommandLine { id: run.id(), command: &command }));
        match sent.is_ok().then(|| self.outcome_of(run)).flatten() {
            Some(RemoteOutcome::Ended(code)) => return Some(code),
            Some(RemoteOutcome::InBackground) => return None,
            None if self.output.has_ended() => return Some(ExitCode::Success),
            None => {}
        }
        self.state.close();
        self.output.of(run).error("the client that ran the commands has ended");
        Some(ExitCode::Unreachable)
    }

    fn user(&self) -> Option<UserName> {
        self.user.clone()
    }

    /// Returns when the client has ended.
    fn stop(&self, run: &CommandRun) {
        if self.send(&to_line(&CommandLine { id: run.id(), command: "stop" })) {
            self.outcome_of(run);
        }
    }
}

/// As the running client completes what is typed there. Nothing if it does not answer.
impl LineCompleter for &AttachedSide {
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        match self.socket.complete(line) {
            Ok(CompletedWords { start, words }) if line.is_char_boundary(start) => (start, words),
            _ => (line.len(), Vec::new()),
        }
    }
}

impl std::fmt::Display for Greeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, server, port, dir, .. } = self;
        write!(f, "{} at {} {port}, folder {}", escape_controls(user), escape_controls(server), escape_controls(dir))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::client::ui::message::{Note, NoteLevel};
    use crate::client::ui::output::MessageSink;

    #[derive(Default)]
    struct Received(Mutex<Vec<Message>>);

    impl MessageSink for Received {
        fn receive(&self, message: Message) {
            lock(&self.0).push(message);
        }
    }

    #[test]
    fn what_the_client_sends_before_it_hears_of_the_end_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(ControlFolder::create(&dir.path().join("fileshare")).unwrap());
        let (stream, mut client) = UnixStream::pair().unwrap();
        let received = Arc::<Received>::default();
        let output = Output::new(Arc::clone(&received) as Arc<dyn MessageSink>);
        let (sender, outcomes) = bounded(OUTCOMES_QUEUED_MAX);
        let (showing, shown) = bounded(1);
        let (mut reader, shower) = (BufReader::new(stream.try_clone().unwrap()), output.clone());
        threads::spawn("attached", move || show_messages(&mut reader, &shower, &sender, &showing)).unwrap();
        let side = AttachedSide {
            socket: SocketAddress { folder, name: "hans".into() },
            user: None,
            stream: Mutex::new(stream),
            outcomes,
            shown,
            output,
            state: Arc::default(),
            pipes: ContentPipes::default(),
        };
        let note = MessageBody::Note(Note { text: "of a follow".into(), level: NoteLevel::Error });
        let last = Message::new(None, note).to_json();
        let sent = last.clone() + "\n";
        let client = threads::spawn("client", move || {
            client.read_to_end(&mut Vec::new()).unwrap();
            client.write_all(sent.as_bytes()).unwrap();
        });
        side.detach();
        client.unwrap().join().unwrap();
        let received: Vec<String> = lock(&received.0).iter().map(Message::to_json).collect();
        assert_eq!(received, [last]);
    }
}
