//! The client as a whole: puts its rooms together, runs the commands on one thread, and waits on another for their end
//! or a signal.

use std::fs::File;
use std::io::{self, BufReader, Cursor, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use clap::Parser;
use log::LevelFilter;

use crate::client::cli::{GETTING_STARTED, Options};
use crate::client::commands::CommandContext;
use crate::client::control::ServerApi;
use crate::client::control::{ControlHandle, ControlOptions};
use crate::client::control::{local_ips_for, resolve};
use crate::client::download::{DownloadOptions, Downloader};
use crate::client::exit_code::ExitCode;
use crate::client::notices::Notices;
use crate::client::services::{Account, Services};
use crate::client::shell::interrupt::{InterruptState, ShutdownSignal, SignalAction, watch_signals};
use crate::client::shell::{Script, ShellExit, run_interactive, run_script};
use crate::client::ui::console::{Console, OutputOptions};
use crate::client::ui::password::DefaultPasswordSource;
use crate::client::ui::report::Report;
use crate::client::upload::{Listener, UploadService};
use crate::common::opaque::KeyStretching;

/// A command that was told to stop gets this long to do so in good order.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// The last line waits this long for whoever reads it.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two tries of `-u` while the user is active.
const LOGIN_RETRY: Duration = Duration::from_millis(500);
/// How often a free port is looked for that is free on every address that faces the server.
const PORT_TRIES: usize = 16;

/// The program.
pub fn main() -> std::process::ExitCode {
    if std::env::args_os().len() <= 1 {
        let _ = io::stderr().write_all(GETTING_STARTED.as_bytes());
        return ExitCode::Usage.into();
    }
    match Options::try_parse() {
        Ok(options) => run(options).into(),
        Err(error) => {
            // Help and version go to stdout and are no error; a reader that has gone is none either.
            let _ = error.print();
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
            code.into()
        }
    }
}

/// What the waiting thread hears of.
enum AppEvent {
    Signal(ShutdownSignal),
    ShellExit(ShellExit),
    LoggedOut,
}

fn run(options: Options) -> ExitCode {
    log_to_stderr(options.verbose);
    let mode = InputMode::of(&options);
    let bars = !options.quiet && io::stderr().is_terminal() && mode != InputMode::Pipe;
    let console = Arc::new(Console::stdio(OutputOptions { json: options.json, quiet: options.quiet, bars }));
    let (events, event_receiver) = channel();
    let life = Arc::new(InterruptState::default());
    let started = start(&options, &mode, &console, &life, &events);
    let (context, lines) = match started {
        Ok(started) => started,
        Err((code, why)) => {
            console.error(why);
            return code;
        }
    };
    let terminal = rustix::termios::tcgetattr(io::stdin()).ok();
    let account = Arc::clone(&context.services.account);
    let (dir, stay) = (options.dir.clone(), options.stay);
    let user = options.user.filter(|user| !user.is_empty());
    std::thread::spawn(move || {
        let work = std::panic::AssertUnwindSafe(|| run_commands(&context, user, lines, &dir, stay));
        let ended = std::panic::catch_unwind(work).unwrap_or(ShellExit::Leave(ExitCode::Internal));
        // The client may have ended meanwhile, and with it the other end.
        let _ = events.send(AppEvent::ShellExit(ended));
    });
    let (code, goodbye) = wait_for_exit(&event_receiver, &life, &*account, &console);
    account.leave();
    if goodbye {
        print_goodbye(&console);
    }
    if let Some(terminal) = terminal {
        // A prompt that a signal has cut short leaves the terminal without echo.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &terminal);
    }
    code
}

/// Which of the four it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum InputMode {
    Terminal,
    Pipe,
    Commands(Vec<String>),
    /// `None` is stdin.
    Batch(Option<PathBuf>),
}

impl InputMode {
    fn of(options: &Options) -> Self {
        match &options.batch {
            _ if !options.commands.is_empty() => Self::Commands(options.commands.clone()),
            Some(path) if path.as_os_str() == "-" => Self::Batch(None),
            Some(path) => Self::Batch(Some(path.clone())),
            None if io::stdin().is_terminal() && io::stdout().is_terminal() => Self::Terminal,
            None => Self::Pipe,
        }
    }

    /// The script, `None` at a terminal.
    fn script(&self, stay: bool) -> io::Result<Option<Script>> {
        Ok(match self {
            Self::Terminal => None,
            Self::Pipe => Some(Script { lines: Box::new(BufReader::new(io::stdin())), batch: false, stay }),
            Self::Commands(commands) => {
                let lines = commands.iter().flat_map(|command| [command.as_str(), "\n"]).collect::<String>();
                Some(Script { lines: Box::new(Cursor::new(lines)), batch: true, stay })
            }
            Self::Batch(None) => Some(Script { lines: Box::new(BufReader::new(io::stdin())), batch: true, stay }),
            Self::Batch(Some(path)) => {
                Some(Script { lines: Box::new(BufReader::new(File::open(path)?)), batch: true, stay })
            }
        })
    }
}

type StartupError = (ExitCode, String);

/// Puts the rooms together. Nothing is sent yet.
fn start(
    options: &Options,
    mode: &InputMode,
    console: &Arc<Console>,
    life: &Arc<InterruptState>,
    events: &Sender<AppEvent>,
) -> Result<(CommandContext, Option<Script>), StartupError> {
    let local = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| (ExitCode::LocalFile, format!("{what}: {error}"))
    };
    let internal = |error: io::Error| (ExitCode::Internal, error.to_string());
    let event_receiver = events.clone();
    let forward = move |signal| drop(event_receiver.send(AppEvent::Signal(signal)));
    watch_signals(*mode == InputMode::Terminal, forward).map_err(internal)?;

    let batch = options.batch.clone().unwrap_or_default();
    let script = mode.script(options.stay).map_err(local(&batch))?;
    let unknown = |error| (ExitCode::Unreachable, format!("{}: {error}", options.server));
    let servers = resolve(&options.server, options.port).map_err(unknown)?;
    let share = UploadService::open(&options.dir, options.upload_slots).map_err(local(&options.dir))?;
    let tcp_port = listen(options, &servers, &share)?;
    let event_receiver = events.clone();
    let logged_out = move || drop(event_receiver.send(AppEvent::LoggedOut));
    let observer = Notices::start(Arc::clone(&share), Arc::clone(console), logged_out).map_err(internal)?;
    let control_options = ControlOptions { servers, tcp_port, stretching: KeyStretching::Argon2id };
    let control = ControlHandle::start(control_options, Arc::new(observer)).map_err(internal)?;
    let directory = ServerApi::new(control.clone());
    let downloader = Downloader::open(&options.dir, directory.clone()).map_err(local(&options.dir))?;
    let context = CommandContext {
        services: Services {
            account: Arc::new(control),
            catalogue: Arc::new(directory),
            folder: share,
            fetcher: Arc::new(downloader),
        },
        own: Arc::default(),
        console: Arc::clone(console),
        life: Arc::clone(life),
        passwords: Box::new(DefaultPasswordSource {
            file: options.password_file.clone(),
            prompt: io::stdin().is_terminal() && *mode != InputMode::Batch(None),
        }),
        downloads: DownloadOptions { on_exists: options.on_exists, retry_for: options.retry_for },
        login_retry: LOGIN_RETRY,
    };
    Ok((context, script))
}

/// Starts to listen for peers: where `--listen` says, or on every address that faces the server, all on one port, since
/// only the login finds out at which of its addresses the server is. The port.
fn listen(options: &Options, servers: &[SocketAddr], share: &Arc<UploadService>) -> Result<u16, StartupError> {
    let start = |address| Listener::start(Arc::clone(share), address, options.limit_rate);
    let addresses = match options.listen {
        Some(address) => vec![address],
        None => {
            let ips = local_ips_for(servers);
            let ips = ips.map_err(|error| (ExitCode::Unreachable, format!("{}: {error}", options.server)))?;
            ips.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect()
        }
    };
    let mut last_error = None;
    for _ in 0..PORT_TRIES {
        match listen_on_all(&addresses, start) {
            Ok(listeners) => {
                let port = listeners[0].port();
                // They live as long as the process: leaving does not wait for uploads.
                std::mem::forget(listeners);
                return Ok(port);
            }
            Err(error) if addresses.len() == 1 => {
                last_error = Some(error);
                break;
            }
            Err(error) => last_error = Some(error),
        }
    }
    let code = if options.listen.is_some() { ExitCode::Usage } else { ExitCode::Internal };
    let why = last_error.map_or_else(String::new, |error| error.to_string());
    Err((code, format!("cannot listen for peers on {}: {why}", addresses[0])))
}

fn listen_on_all<L>(addresses: &[SocketAddr], start: L) -> io::Result<Vec<Listener>>
where
    L: Fn(SocketAddr) -> io::Result<Listener>,
{
    let mut listeners: Vec<Listener> = Vec::new();
    for &address in addresses {
        let port = listeners.first().map_or(address.port(), Listener::port);
        listeners.push(start(SocketAddr::new(address.ip(), port))?);
    }
    Ok(listeners)
}

/// What the thread of the commands does.
fn run_commands(
    context: &CommandContext,
    user: Option<String>,
    script: Option<Script>,
    dir: &Path,
    stay: bool,
) -> ShellExit {
    if let Some(user) = user {
        let _busy = context.life.begin_command();
        let code = context.login_at_startup(&user);
        if !code.is_success() {
            return ShellExit::Refused(code);
        }
    }
    match script {
        Some(script) => run_script(context, script),
        None => run_interactive(context, dir, stay),
    }
}

/// Waits for the end: the status, and whether to say goodbye.
fn wait_for_exit(
    event_receiver: &Receiver<AppEvent>,
    life: &InterruptState,
    account: &dyn Account,
    console: &Console,
) -> (ExitCode, bool) {
    let mut staying = false;
    loop {
        // The commands' thread holds a sender until it has sent its last event.
        match event_receiver.recv().unwrap_or(AppEvent::ShellExit(ShellExit::Leave(ExitCode::Internal))) {
            AppEvent::ShellExit(ShellExit::Refused(code)) => return (code, false),
            AppEvent::ShellExit(ShellExit::Leave(code)) => return (code, true),
            AppEvent::ShellExit(ShellExit::Stay) => staying = true,
            AppEvent::LoggedOut => (),
            AppEvent::Signal(signal) => match life.on_signal(signal) {
                SignalAction::CancelCommand | SignalAction::Ignore if !staying => (),
                SignalAction::Exit { busy: true } if !staying => {
                    // The end of the command, a second signal: whatever comes, the client ends now.
                    let _ = event_receiver.recv_timeout(STOP_TIMEOUT);
                    return (exit_code_for(signal), true);
                }
                _ => return (exit_code_for(signal), true),
            },
        }
        if staying && account.user().is_none() {
            console.error("not logged in: there is nothing to stay online for");
            return (ExitCode::NotAuthenticated, true);
        }
    }
}

fn exit_code_for(signal: ShutdownSignal) -> ExitCode {
    match signal {
        ShutdownSignal::Interrupt => ExitCode::Interrupted,
        ShutdownSignal::Terminate => ExitCode::Terminated,
    }
}

/// On a thread of its own: a reader that does not read must not keep the client from ending.
fn print_goodbye(console: &Arc<Console>) {
    let console = Arc::clone(console);
    let (said, done) = channel();
    std::thread::spawn(move || {
        console.report(&Report::Goodbye);
        let _ = said.send(());
    });
    let _ = done.recv_timeout(GOODBYE_TIMEOUT);
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Error,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let config = simplelog::ConfigBuilder::new().add_filter_allow_str("fileshare").build();
    simplelog::WriteLogger::init(level, config, io::stderr()).expect("nobody has set a logger before");
}
