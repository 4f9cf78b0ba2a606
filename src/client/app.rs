//! The client as a whole: constructs and connects its components, runs the commands on one thread, and waits on another
//! for their end or a signal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Cursor, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

use log::LevelFilter;
use rustix::fs::FileType;

use crate::client::attach::{AttachedSide, ControlSocket, SideOptions, SocketIdentity};
use crate::client::cli::Options;
use crate::client::commands::{CommandContext, CommandState, ContentInput, ContentPipes, LocalControl, events, jobs};
use crate::client::control::resolve;
use crate::client::download::{DownloadOptions, SaveAs};
use crate::client::ending::{AppEvent, ClientExit, ThisClient, print_goodbye, wait_for_exit};
use crate::client::engine::{ClientEngine, EngineConfig, StartupError};
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::holds_password;
use crate::client::shell::input::Input;
use crate::client::shell::interrupt::{InterruptState, allow_suspension, block_suspension, watch_signals};
use crate::client::shell::{
    Completion, EngineCompleter, Script, Shell, ShellExit, log_in_at_startup, run_interactive, run_script,
};
use crate::client::ui::console::{Console, OutputOptions};
use crate::client::ui::look::Look;
use crate::client::ui::observer::SessionObserver;
use crate::client::ui::output::{MessageSink, Output};
use crate::client::ui::password::DefaultPasswordSource;
use crate::client::ui::standard_stream::StandardStream;
use crate::client::ui::terminal::PromptTerminal;
use crate::common::log_queue;
use crate::common::opaque::KeyStretching;
use crate::common::signals::report_file_size_limit_as_error;
use crate::common::threads;

const PASSWORD_ARGUMENT_WARNING: &str = "other users of this machine can read the password in -c; safer are \
    -u with --password-file, the variable FILESHARE_PASSWORD, or the prompt";

/// What runs the commands.
enum Runner {
    /// This process.
    Local(CommandContext, Arc<ControlSocket>),
    /// The client that it is attached to.
    Attached(AttachedSide),
}

/// Runs the client to its end.
pub fn run(options: Options) -> Result<ExitCode, StartupError> {
    let mode = InputMode::of(&options);
    let bars = !options.quiet && mode != InputMode::Pipe && io::stderr().is_terminal() && !is_pipe(io::stdout());
    let (json, quiet) = (options.json, options.quiet);
    let (out, err) = (Look::of(&io::stdout(), options.color), Look::of(&io::stderr(), options.color));
    let console = Arc::new(Console::stdio(OutputOptions { json, quiet, bars, out, err }));
    let output = Output::new(Arc::clone(&console) as Arc<dyn MessageSink>);
    match run_with(options, mode, &console, output.clone()) {
        Err(error) if json => {
            output.error(&error);
            Ok((&error).into())
        }
        result => result,
    }
}

fn run_with(
    options: Options,
    mode: InputMode,
    console: &Arc<Console>,
    output: Output,
) -> Result<ExitCode, StartupError> {
    report_file_size_limit_as_error().map_err(StartupError::System)?;
    let (sender, app_events) = channel();
    block_suspension();
    log_to_stderr(options.verbose).map_err(StartupError::System)?;
    let forward = sender.clone();
    let on_signal = move |signal| drop(forward.send(AppEvent::Signal(signal)));
    watch_signals(on_signal).map_err(StartupError::System)?;
    let script = mode.script(options.stay)?;
    let terminal = Arc::<PromptTerminal>::default();
    let has_password = |command: &OsString| {
        Input::parse(command.as_bytes(), options.json).is_ok_and(|input| holds_password(&input.line))
    };
    if let InputMode::Commands(commands) = &mode
        && commands.iter().any(has_password)
    {
        output.info(PASSWORD_ARGUMENT_WARNING);
    }
    let state = Arc::<CommandState>::default();
    let runner = if options.attach {
        Runner::Attached(attach(&options, &mode, &output, &state)?)
    } else {
        create_context(&options, &mode, &terminal, &output, &state, &sender)?
    };
    let client = match &runner {
        Runner::Local(context, control) => {
            Some(ThisClient { engine: Arc::clone(&context.engine), control: Arc::clone(control) })
        }
        Runner::Attached(_) => None,
    };

    let reporter = match &runner {
        Runner::Local(context, _) if options.events => Some(events::start(context).map_err(StartupError::System)?),
        _ => None,
    };
    let interrupts = Arc::new(InterruptState::new(state));
    let (shell_console, shell_interrupts, shell_terminal) =
        (Arc::clone(console), Arc::clone(&interrupts), Arc::clone(&terminal));
    let commands = move || {
        allow_suspension();
        if let Runner::Local(context, _) = &runner
            && mode.reads_stdin()
        {
            context.passwords.read_before_commands(&context.output);
        }
        let run = || run_commands(&runner, &shell_console, &shell_interrupts, &shell_terminal, script, &options);
        let run = AssertUnwindSafe(run);
        let exit = catch_unwind(run).unwrap_or(ShellExit::Leave(ExitCode::Internal));
        // Fails if the client has ended meanwhile.
        let _ = sender.send(AppEvent::ShellExit(exit));
    };
    threads::spawn("commands", commands).map_err(StartupError::System)?;
    let ClientExit { code, goodbye } = wait_for_exit(&app_events, &interrupts, client.as_ref(), &output);
    if let Some(client) = client {
        client.end();
    }
    drop(reporter);
    if let Some(xit) = goodbye {
        print_goodbye(&output, xit);
    }
    terminal.close();
    Ok(code.first_failure(console.output_status()))
}

/// Where commands come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum InputMode {
    Terminal,
    Pipe,
    Commands(Vec<OsString>),
    /// `None`: standard input.
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

    /// Whether standard input holds a script.
    fn reads_stdin(&self) -> bool {
        matches!(self, Self::Pipe | Self::Batch(None))
    }

    /// The script to run; `None` at a terminal.
    fn script(&self, stay: bool) -> Result<Option<Script>, StartupError> {
        let script = |lines, stop_at_failure| Some(Script { lines, stop_at_failure, stay });
        Ok(match self {
            Self::Terminal => None,
            Self::Pipe => script(Box::new(BufReader::new(io::stdin())), false),
            Self::Commands(commands) => {
                // No command contains a line break.
                let lines = commands.iter().flat_map(|command| [command.as_bytes(), b"\n"]).flatten().copied();
                let lines: Vec<u8> = lines.collect();
                script(Box::new(Cursor::new(lines)), true)
            }
            Self::Batch(None) => script(Box::new(BufReader::new(io::stdin())), true),
            Self::Batch(Some(path)) => {
                let unreadable = |error| StartupError::Path { option: "--batch", path: path.clone(), error };
                let file = File::open(path).map_err(unreadable)?;
                script(Box::new(BufReader::new(file)), true)
            }
        })
    }
}

/// Attaches to the client that the options name.
fn attach(
    options: &Options,
    mode: &InputMode,
    output: &Output,
    state: &Arc<CommandState>,
) -> Result<AttachedSide, StartupError> {
    let servers = options.server.as_deref().zip(options.port).map(|(server, port)| {
        resolve(server, port).map_err(|error| StartupError::Server { server: server.into(), error })
    });
    let servers = servers.transpose()?;
    let user = options.user.as_deref().filter(|user| !user.is_empty());
    let side = SideOptions {
        on_exists: options.on_exists,
        retry_for_ms: options.retry_for.as_millis().try_into().unwrap_or(u64::MAX),
        wants_progress: output.wants_progress(),
        json: options.json,
        events: options.events,
    };
    let side = AttachedSide::attach(
        user,
        servers.as_deref(),
        &side,
        output.clone(),
        Arc::clone(state),
        content_pipes(options, mode),
    );
    side.map_err(|error| StartupError::Attach { code: (&error).into(), why: error.to_string() })
}

/// Constructs the client's components and connects them. Nothing is sent to the server yet.
fn create_context(
    options: &Options,
    mode: &InputMode,
    terminal: &Arc<PromptTerminal>,
    output: &Output,
    state: &Arc<CommandState>,
    events: &Sender<AppEvent>,
) -> Result<Runner, StartupError> {
    let (server, port) = options.server.as_deref().zip(options.port).expect("clap requires both");
    let forward = events.clone();
    let logged_out = move || drop(forward.send(AppEvent::LoggedOut));
    let observer = SessionObserver::start(output.clone(), logged_out).map_err(StartupError::System)?;
    let config = EngineConfig {
        server,
        port,
        dir: &options.dir,
        state_dir: None,
        listen: options.listen,
        limit_rate: options.limit_rate,
        upload_slots: options.upload_slots,
        direct_path: !options.tcp_only && !options.no_control,
        stretching: KeyStretching::Argon2id,
    };
    let engine = Arc::new(ClientEngine::start(&config, move |event| observer.on_event(event))?);
    // It lives as long as the process: the end of the client does not wait for uploads.
    std::mem::forget(Arc::clone(&engine));
    let identity = SocketIdentity {
        server: server.into(),
        port,
        addresses: engine.servers.clone(),
        dir: std::path::absolute(&options.dir).unwrap_or_else(|_| options.dir.clone()),
    };
    let forward = events.clone();
    let on_stop = move || drop(forward.send(AppEvent::Stop));
    let control = ControlSocket::new(Arc::clone(&engine), identity, output.clone(), !options.no_control, on_stop);
    let context = CommandContext {
        engine,
        local: Arc::clone(&control) as Arc<dyn LocalControl>,
        state: Arc::clone(state),
        passwords: Arc::new(DefaultPasswordSource {
            file: options.password_file.clone(),
            prompt: io::stdin().is_terminal() && *mode != InputMode::Batch(None),
            terminal: Arc::clone(terminal),
            stdin_line: OnceLock::new(),
        }),
        output: output.clone(),
        client_output: None,
        pipes: content_pipes(options, mode),
        download_options: DownloadOptions {
            on_exists: options.on_exists,
            retry_for: options.retry_for,
            save_as: SaveAs::OwnName,
        },
        login_sleep: Arc::new(CommandState::sleep_unless_cancelled),
    };
    Ok(Runner::Local(context, control))
}

/// Standard input and output, where they are free for the content of files.
fn content_pipes(options: &Options, mode: &InputMode) -> ContentPipes {
    let is_input_free = matches!(mode, InputMode::Commands(_) | InputMode::Batch(Some(_)));
    ContentPipes {
        input: is_input_free.then(|| ContentInput::standard(io::stdin())),
        output: (!options.json).then(|| Arc::new(Mutex::new(StandardStream::stdout())) as _),
    }
}

/// At the other end of a pipe may be a pager, and then the terminal is the pager's.
fn is_pipe(stream: impl AsFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Logs in if `-u` asks for it, then runs all commands.
fn run_commands(
    runner: &Runner,
    console: &Console,
    interrupts: &InterruptState,
    terminal: &PromptTerminal,
    script: Option<Script>,
    options: &Options,
) -> ShellExit {
    let (shell, completion) = match runner {
        Runner::Local(context, _) => {
            if let Some(user) = options.user.as_deref().filter(|user| !user.is_empty()) {
                let code = log_in_at_startup(context, user);
                if !code.is_success() {
                    return ShellExit::Refused(code);
                }
            }
            (Shell::over(context, options.json), Completion::new(EngineCompleter::new(Arc::clone(&context.engine))))
        }
        Runner::Attached(side) => (side.shell(options.json), Completion::new(side)),
    };
    let is_script = script.is_some();
    let exit = match script {
        Some(script) => run_script(&shell, script),
        None => run_interactive(&shell, completion, console, interrupts, terminal, options.stay),
    };
    match (exit, runner) {
        (exit, Runner::Attached(side)) => {
            side.detach();
            exit
        }
        (ShellExit::Leave(code), Runner::Local(context, _)) => {
            let of_jobs = jobs::wait_at_end(context, is_script);
            ShellExit::Leave(if is_script { code.first_failure(of_jobs) } else { code })
        }
        (exit, Runner::Local(..)) => exit,
    }
}

fn log_to_stderr(verbosity: u8) -> io::Result<()> {
    let level = match verbosity {
        0 => LevelFilter::Error,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let config = simplelog::ConfigBuilder::new().add_filter_allow_str("fileshare").build();
    log_queue::init(level, StandardStream::stderr(), |lines| simplelog::WriteLogger::new(level, config, lines))
}
