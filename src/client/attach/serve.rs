//! The running client's end: accepts attached sides and runs their commands.
//!
//! Each has two threads: one reads its lines, so that a cancellation arrives while a command runs, and one runs its commands
//! and waits for its reader. Progress never waits: what does not fit is dropped and counted.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getuid;
use zeroize::Zeroizing;

use super::protocol::{
    CancelLine, CompletedWords, CompletionRequest, DescriptorReader, DirectLine, FirstLine, Greeting, read_line,
    read_value, to_line,
};
use super::replaceable::Replaceable;
use super::side_commands::SideCommands;
use super::sink::SocketSink;
use crate::client::commands::{CommandContext, CommandState, ContentInput, ContentPipes, LocalControl, events};
use crate::client::control_folder::{ControlFolder, LockedSocket, check_peer, own_place, socket_name};
use crate::client::direct::token_line;
use crate::client::download::{DownloadOptions, SaveAs};
use crate::client::engine::ClientEngine;
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::Command;
use crate::client::shell::{CommandRunner, EngineCompleter, LineCompleter, LineOutcome, Shell, execute, run_or_start};
use crate::client::transport::Waker;
use crate::client::ui::message::{Message, MessageBody, Note, NoteLevel};
use crate::client::ui::output::{CommandRun, Output};
use crate::client::ui::password::{PasswordError, PasswordSource};
use crate::client::ui::standard_stream::StandardStream;
use crate::client::upload::UploadService;
use crate::common::escape::display_path;
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::{Password, UserName};

/// Most attached sides at a time.
const SIDES_MAX: usize = 256;
/// How long an attached side may take to send its options.
const OPTIONS_TIMEOUT: Duration = Duration::from_secs(10);
/// Commands that a side may send before the first of them has ended.
const COMMANDS_QUEUED_MAX: usize = 4;
/// Pause of accepting when the system has no file descriptor.
const ACCEPT_BACKOFF: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a running client says of itself, but for its user.
#[derive(Debug, Clone)]
pub struct SocketIdentity {
    /// Host name or IP address of the server, as given.
    pub server: String,
    pub port: u16,
    /// The server's addresses; at least one.
    pub addresses: Vec<SocketAddr>,
    /// The shared folder.
    pub dir: PathBuf,
}

impl SocketIdentity {
    fn greeting(&self, user: &UserName) -> Greeting {
        Greeting {
            user: user.to_string(),
            server: self.server.clone(),
            port: self.port,
            addresses: self.addresses.clone(),
            dir: self.dir.to_string_lossy().into_owned(),
        }
    }
}

/// The control socket of this client, from a login to the logout.
pub struct ControlSocket {
    engine: Arc<ClientEngine>,
    identity: SocketIdentity,
    /// Of the client itself.
    output: Output,
    /// `stop` was typed in an attached side.
    on_stop: Box<dyn Fn() + Send + Sync>,
    /// `None` with `--no-control`.
    open: Option<Replaceable<OpenSocket>>,
    sides: AtomicUsize,
}

/// One of the attached sides, however its thread ends.
struct CountedSide<'a> {
    sides: &'a AtomicUsize,
    /// Fewer than [`SIDES_MAX`] were there before.
    is_free: bool,
}

impl<'a> CountedSide<'a> {
    fn new(sides: &'a AtomicUsize) -> Self {
        Self { sides, is_free: sides.fetch_add(1, SeqCst) < SIDES_MAX }
    }
}

impl Drop for CountedSide<'_> {
    fn drop(&mut self) {
        self.sides.fetch_sub(1, SeqCst);
    }
}

/// A socket that accepts attached sides until it is dropped.
struct OpenSocket {
    /// Names vanish with it.
    _socket: Arc<LockedSocket>,
    /// They offer it to downloaders of this user.
    uploads: Arc<UploadService>,
    waker: Arc<Waker>,
    is_closed: Arc<AtomicBool>,
    /// Accepts.
    thread: Option<JoinHandle<()>>,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.uploads.set_direct_socket(None);
        self.is_closed.store(true, SeqCst);
        self.waker.wake();
        // It shares the socket: the names have vanished before the client ends.
        self.thread.take().map(JoinHandle::join);
    }
}

impl ControlSocket {
    pub fn new(
        engine: Arc<ClientEngine>,
        identity: SocketIdentity,
        output: Output,
        is_enabled: bool,
        on_stop: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let open = is_enabled.then(Replaceable::default);
        Arc::new(Self { engine, identity, output, on_stop: Box::new(on_stop), open, sides: AtomicUsize::new(0) })
    }

    /// Accepts no further attached side. Those that are there stay.
    pub fn close(&self) {
        if let Some(open) = &self.open {
            open.clear();
        }
    }

    /// The same for good: a login that is under way opens no socket any more.
    pub fn end(&self) {
        if let Some(open) = &self.open {
            open.end();
        }
    }

    fn open(self: &Arc<Self>, user: &UserName) -> io::Result<OpenSocket> {
        let path = own_place();
        let folder = ControlFolder::create(&path)
            .map_err(|error| io::Error::other(format!("{}: {error}", display_path(&path))))?;
        let socket = Arc::new(folder.listen(&socket_name(self.identity.addresses[0], user))?);
        socket.listener.set_nonblocking(true)?;
        let greeting = self.identity.greeting(user);
        let (waker, is_closed) = (Arc::new(Waker::new()?), Arc::<AtomicBool>::default());
        let (control, listening) = (Arc::clone(self), Arc::clone(&socket));
        let (woken, closed) = (Arc::clone(&waker), Arc::clone(&is_closed));
        let thread = threads::spawn("control socket", move || {
            while !closed.load(SeqCst) {
                control.accept(&listening, &woken, &greeting);
            }
        })?;
        let uploads = Arc::clone(&self.engine.uploads);
        uploads.set_direct_socket(self.engine.direct_path.then(|| socket.place()));
        Ok(OpenSocket { _socket: socket, uploads, waker, is_closed, thread: Some(thread) })
    }

    /// Waits for connections and starts a thread for each.
    fn accept(self: &Arc<Self>, socket: &LockedSocket, waker: &Waker, greeting: &Greeting) {
        let mut fds = [PollFd::new(&socket.listener, PollFlags::IN), PollFd::new(waker, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        if !fds[1].revents().is_empty() {
            return;
        }
        let stream = match socket.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                log::debug!("control socket: {error}");
                let _ = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&ACCEPT_BACKOFF));
                return;
            }
        };
        if let Err(error) = check_peer(&stream, getuid().as_raw()) {
            log::info!("control socket: {error}");
            return;
        }
        let (control, greeting) = (Arc::clone(self), greeting.clone());
        let serve = move || {
            let counted = CountedSide::new(&control.sides);
            let served = if counted.is_free {
                control.serve(stream, &greeting)
            } else {
                write_error(&stream, format!("it has {SIDES_MAX} attached sides, the most that are served at once"))
            };
            if let Err(error) = served {
                log::debug!("an attached side: {error}");
            }
        };
        if let Err(error) = threads::spawn("attached", serve) {
            log::error!("control socket: {error}");
        }
    }

    /// Serves one attached side to its end.
    fn serve(self: &Arc<Self>, mut stream: UnixStream, greeting: &Greeting) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(OPTIONS_TIMEOUT))?;
        stream.set_read_timeout(Some(OPTIONS_TIMEOUT))?;
        stream.write_all(to_line(greeting).as_bytes())?;
        let descriptor = Arc::<Mutex<Option<OwnedFd>>>::default();
        let input = DescriptorReader { stream: stream.try_clone()?, descriptor: Arc::clone(&descriptor) };
        let mut reader = BufReader::new(input);
        let options = match read_value(&mut reader) {
            Ok(FirstLine::Options(options)) => options,
            Ok(FirstLine::Completion(CompletionRequest { complete })) => {
                let (start, words) = EngineCompleter::new(Arc::clone(&self.engine)).candidates(&complete);
                return stream.write_all(to_line(&CompletedWords { start, words }).as_bytes());
            }
            Ok(FirstLine::Direct(DirectLine { direct })) => return self.accept_direct(&stream, &direct),
            Err(error) => {
                return write_error(&stream, format!("expected the options: {error}"));
            }
        };
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let context = CommandContext {
            engine: Arc::clone(&self.engine),
            output: Output::new(Arc::new(SocketSink::new(stream.try_clone()?, &options))),
            client_output: Some(self.output.clone()),
            pipes: ContentPipes::default(),
            local: Arc::clone(self) as Arc<dyn LocalControl>,
            state: Arc::<CommandState>::default(),
            passwords: Arc::new(NoPassword),
            download_options: DownloadOptions {
                on_exists: options.on_exists,
                retry_for: Duration::from_millis(options.retry_for_ms),
                save_as: SaveAs::OwnName,
            },
            login_sleep: Arc::new(CommandState::sleep_unless_cancelled),
        };
        let reporter = options.events.then(|| events::start(&context));
        if let Some(Err(error)) = &reporter {
            context.output.error(format_args!("no events: {error}"));
        }
        let (state, running) = (Arc::clone(&context.state), Arc::<SideCommands>::default());
        let (sender, commands) = sync_channel(COMMANDS_QUEUED_MAX);
        let read_running = Arc::clone(&running);
        threads::spawn("attached input", move || {
            read_commands(&mut reader, &descriptor, &sender, &state, &read_running);
            state.close();
        })?;
        let side = ServedSide { context, control: Arc::clone(self), running, descriptor: Mutex::default() };
        match side.run(&commands) {
            // For the attached side the end of the connection is the end of this process.
            SideExit::Stop => std::mem::forget(stream),
            // The reading thread ends with the connection.
            SideExit::Detach => {
                // A reader that leaves ends the connection, and so the waiting for it.
                if let Some(Ok(reporter)) = reporter {
                    reporter.finish();
                }
                stream.shutdown(Shutdown::Both)?;
            }
        }
        Ok(())
    }
}

impl ControlSocket {
    /// The connection is for files that are passed to a downloader. Without a valid token it ends.
    fn accept_direct(&self, mut stream: &UnixStream, token: &str) -> io::Result<()> {
        let mut bytes = [0; 16];
        let is_token = hex::decode_to_slice(token, &mut bytes).is_ok();
        match is_token && self.engine.uploads.accept_direct(&bytes, stream.try_clone()?) {
            true => stream.write_all(token_line(&bytes).as_bytes()),
            false => Ok(()),
        }
    }
}

impl LocalControl for ControlSocket {
    fn logged_in(self: Arc<Self>, user: &UserName, output: &Output) {
        let Some(open) = &self.open else { return };
        // Before a socket is opened the last one, if there is one, releases its lock.
        if let Err(error) = open.replace(|| self.open(user)) {
            output.info(format_args!("no control socket, so --attach cannot reach this client: {error}"));
        }
    }

    fn runs_here(&self, user: &UserName) -> bool {
        super::side::runs_here(user, &self.identity.addresses)
    }
}

/// Says why the other end is not served.
fn write_error(mut stream: &UnixStream, text: String) -> io::Result<()> {
    let note = MessageBody::Note(Note { text, level: NoteLevel::Error });
    stream.write_all((Message::new(None, note).to_json() + "\n").as_bytes())
}

/// Reads lines until the end of the stream; passes on commands and cancels the one that is to be cancelled.
fn read_commands(
    reader: &mut BufReader<DescriptorReader>,
    descriptor: &Mutex<Option<OwnedFd>>,
    commands: &SyncSender<SideLine>,
    state: &CommandState,
    running: &SideCommands,
) {
    while let Ok(Some(line)) = read_line(reader) {
        match serde_json::from_slice::<CancelLine>(&line) {
            Ok(CancelLine { cancel }) => running.cancel(cancel, state),
            Err(_) => {
                let line = SideLine { line: Zeroizing::new(line), descriptor: lock(descriptor).take() };
                if commands.send(line).is_err() {
                    return;
                }
            }
        }
    }
}

/// How an attached side has ended.
enum SideExit {
    Detach,
    /// It has stopped this client.
    Stop,
}

/// A line of an attached side.
struct SideLine {
    /// May hold a password.
    line: Zeroizing<Vec<u8>>,
    /// For the content of a file.
    descriptor: Option<OwnedFd>,
}

struct ServedSide {
    context: CommandContext,
    control: Arc<ControlSocket>,
    running: Arc<SideCommands>,
    /// Of the command that runs.
    descriptor: Mutex<Option<OwnedFd>>,
}

impl ServedSide {
    fn run(&self, commands: &Receiver<SideLine>) -> SideExit {
        let shell = Shell {
            output: self.context.output.clone(),
            state: Arc::clone(&self.context.state),
            reads_json: true,
            runner: self,
        };
        for SideLine { line, descriptor } in commands {
            *lock(&self.descriptor) = descriptor;
            if shell.output.has_ended() {
                break;
            }
            // An attached side leaves by itself.
            if let LineOutcome::Exit(_) = execute(&shell, &line, false) {
                return SideExit::Stop;
            }
        }
        SideExit::Detach
    }
}

impl CommandRunner for ServedSide {
    fn run(&self, run: &CommandRun, command: Command, line: &[u8]) -> Option<ExitCode> {
        self.running.begin(run.id(), &self.context.state);
        let pipes = pipes_for(&command, lock(&self.descriptor).take());
        run_or_start(&CommandContext { pipes, ..self.context.clone() }, run, command, line)
    }

    fn stop(&self, _: &CommandRun) {
        (self.control.on_stop)();
    }
}

/// The standard input or output of the attached side, as the command needs it.
fn pipes_for(command: &Command, descriptor: Option<OwnedFd>) -> ContentPipes {
    let mut pipes = ContentPipes::default();
    match (command.without_job(), descriptor) {
        (Command::Pub { stdin: true, .. }, Some(descriptor)) => {
            pipes.input = Some(ContentInput::standard(File::from(descriptor)));
        }
        (Command::Cat { .. }, Some(descriptor)) => {
            pipes.output = Some(Arc::new(Mutex::new(StandardStream::passed(descriptor))));
        }
        _ => {}
    }
    pipes
}

/// An attached side has no password to give: its client is logged in.
struct NoPassword;

impl PasswordSource for NoPassword {
    fn for_startup(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError> {
        self.for_command(user, output)
    }

    fn for_command(&self, _: &UserName, _: &Output) -> Result<Password, PasswordError> {
        Err(PasswordError::NoSource)
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
