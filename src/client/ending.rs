//! How the client ends: by the end of its commands, a signal, a logout or `stop`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crossbeam_channel::never;

use crate::client::attach::ControlSocket;
use crate::client::commands::Verb;
use crate::client::engine::ClientEngine;
use crate::client::exit_code::ExitCode;
use crate::client::shell::ShellExit;
use crate::client::shell::interrupt::{InterruptState, ShutdownSignal, SignalAction};
use crate::client::ui::message::CommandResult;
use crate::client::ui::output::{CommandRun, Output};
use crate::common::threads;

/// How long a cancelled command may take to end before the client exits without it.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the client waits for a reader to accept `Goodbye!`.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// What ends the client or may end it.
pub enum AppEvent {
    Signal(ShutdownSignal),
    /// All commands have run.
    ShellExit(ShellExit),
    LoggedOut,
    /// `stop` in an attached side.
    Stop,
}

/// What ends with this process, unless it is attached to another.
pub struct ThisClient {
    pub engine: Arc<ClientEngine>,
    pub control: Arc<ControlSocket>,
}

impl ThisClient {
    /// Ends the jobs, which may tell how they came out, then the session.
    #[expect(clippy::disallowed_methods, reason = "the client does not wait for ever")]
    pub fn end(&self) {
        self.control.end();
        self.engine.jobs.close();
        let deadline = Instant::now() + STOP_TIMEOUT;
        for job in self.engine.jobs.waitable() {
            job.wait(Some(deadline.saturating_duration_since(Instant::now())), &never());
        }
        self.engine.session.logout();
    }
}

/// How the client ends.
pub struct ClientExit {
    pub code: ExitCode,
    /// Say goodbye, as the result of this `xit`.
    pub goodbye: Option<CommandRun>,
}

impl ClientExit {
    /// Leaves without a typed `xit`, as if there were one.
    fn with_goodbye(code: ExitCode, output: &Output) -> Self {
        Self { code, goodbye: Some(output.begin(None)) }
    }
}

/// Waits until the shell has ended or a signal ends the client; with `--stay`, until a signal or a logout.
pub fn wait_for_exit(
    events: &Receiver<AppEvent>,
    interrupts: &InterruptState,
    client: Option<&ThisClient>,
    output: &Output,
) -> ClientExit {
    loop {
        // The commands' thread holds a sender until it has sent its last event.
        match events.recv().unwrap_or(AppEvent::ShellExit(ShellExit::Leave(ExitCode::Internal))) {
            AppEvent::ShellExit(ShellExit::Refused(code)) => return ClientExit { code, goodbye: None },
            AppEvent::ShellExit(ShellExit::Leave(code)) => return ClientExit::with_goodbye(code, output),
            AppEvent::ShellExit(ShellExit::Xit(code, run)) => return ClientExit { code, goodbye: Some(run) },
            AppEvent::ShellExit(ShellExit::Stay) => return stay_online(events, interrupts, client, output),
            AppEvent::LoggedOut => close_socket(client),
            AppEvent::Stop => {
                let is_running = interrupts.stop();
                cancel_jobs(client);
                if is_running {
                    let _ = events.recv_timeout(STOP_TIMEOUT);
                }
                return ClientExit::with_goodbye(ExitCode::Success, output);
            }
            AppEvent::Signal(signal) => match interrupts.on_signal(signal) {
                SignalAction::CancelCommand | SignalAction::Ignore => {}
                SignalAction::Exit { is_running } => {
                    cancel_jobs(client);
                    if is_running {
                        // The command ends, or a second signal comes: either ends the client.
                        let _ = events.recv_timeout(STOP_TIMEOUT);
                    }
                    return ClientExit::with_goodbye(exit_code_for(signal), output);
                }
            },
        }
    }
}

/// Keeps the client online after its last command. Every signal ends it, and so does the end of the session.
fn stay_online(
    events: &Receiver<AppEvent>,
    interrupts: &InterruptState,
    client: Option<&ThisClient>,
    output: &Output,
) -> ClientExit {
    while client.is_some_and(|client| client.engine.session.user().is_some()) {
        match events.recv() {
            Ok(AppEvent::Signal(signal)) => {
                interrupts.on_signal(signal);
                return ClientExit::with_goodbye(exit_code_for(signal), output);
            }
            Ok(AppEvent::LoggedOut) => close_socket(client),
            Ok(AppEvent::Stop) => return ClientExit::with_goodbye(ExitCode::Success, output),
            Ok(AppEvent::ShellExit(_)) | Err(_) => return ClientExit::with_goodbye(ExitCode::Internal, output),
        }
    }
    output.error("not logged in: there is nothing to stay online for");
    ClientExit::with_goodbye(ExitCode::NotAuthenticated, output)
}

fn close_socket(client: Option<&ThisClient>) {
    if let Some(client) = client {
        client.control.close();
    }
}

fn cancel_jobs(client: Option<&ThisClient>) {
    if let Some(client) = client {
        client.engine.jobs.close();
    }
}

fn exit_code_for(signal: ShutdownSignal) -> ExitCode {
    match signal {
        ShutdownSignal::Interrupt => ExitCode::Interrupted,
        ShutdownSignal::Terminate => ExitCode::Terminated,
        ShutdownSignal::Hangup => ExitCode::HungUp,
    }
}

/// Prints on a thread of its own: a reader that does not read must not keep the client from ending.
pub fn print_goodbye(output: &Output, xit: CommandRun) {
    let output = output.clone();
    let (done, printed) = channel();
    threads::spawn_or_run("goodbye", move || {
        output.of(&xit).result(CommandResult::goodbye());
        output.end(xit, Verb::Xit.name(), ExitCode::Success);
        let _ = done.send(());
    });
    let _ = printed.recv_timeout(GOODBYE_TIMEOUT);
}
