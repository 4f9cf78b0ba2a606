//! What a signal means: cancel the running command, or end the client.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGTTOU};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::client::commands::CommandState;
use crate::client::ui::terminal::is_background;
use crate::common::threads;

/// A signal that can end a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// The running command is cancelled; the shell goes on.
    CancelCommand,
    /// No command runs that could be cancelled.
    Ignore,
    Exit {
        /// A command is running and was cancelled: give it a moment to end in good order.
        is_running: bool,
    },
}

/// Decides for the commands that are typed into this process.
#[derive(Debug)]
pub struct InterruptState {
    /// A user types at a prompt: SIGINT cancels the running command and no more.
    is_interactive: AtomicBool,
    commands: Arc<CommandState>,
}

impl InterruptState {
    pub fn new(commands: Arc<CommandState>) -> Self {
        Self { is_interactive: AtomicBool::new(false), commands }
    }

    /// From now on a user types at a prompt.
    pub fn set_interactive(&self) {
        self.is_interactive.store(true, SeqCst);
    }

    /// The client ends: cancels all commands, and returns whether one is running.
    pub fn stop(&self) -> bool {
        let is_running = self.commands.is_running();
        self.commands.close();
        is_running
    }

    /// Cancels commands as the signal demands, and returns what is left to do.
    pub fn on_signal(&self, signal: ShutdownSignal) -> SignalAction {
        let action = self.action_for(signal);
        match action {
            SignalAction::CancelCommand => self.commands.cancel(),
            SignalAction::Ignore => {}
            SignalAction::Exit { .. } => self.commands.close(),
        }
        action
    }

    /// A second SIGINT before the command has ended means that the user wants to leave.
    fn action_for(&self, signal: ShutdownSignal) -> SignalAction {
        let is_running = self.commands.is_running();
        if signal != ShutdownSignal::Interrupt || !self.is_interactive.load(SeqCst) {
            SignalAction::Exit { is_running }
        } else if !is_running {
            SignalAction::Ignore
        } else if self.commands.is_cancelled() {
            SignalAction::Exit { is_running }
        } else {
            SignalAction::CancelCommand
        }
    }
}

/// Calls `on_signal` for each SIGINT, SIGTERM and SIGHUP, on a thread of its own. Signals that were ignored when the program
/// started stay ignored: `nohup` starts it so.
///
/// SIGTTIN and SIGTTOU stop the process, as without a handler, while it is in the background; but not once it is to end: a
/// job that is stopped at its prompt, ended and continued would stop again at the terminal before it has logged out.
pub fn watch_signals(on_signal: impl Fn(ShutdownSignal) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    for signal in [SIGHUP, SIGTTIN, SIGTTOU] {
        if !is_ignored(signal) {
            signals.add_signal(signal)?;
        }
    }
    let watch = move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            match signal {
                SIGTTIN | SIGTTOU if is_ending || !is_background() => {}
                SIGTTIN | SIGTTOU => drop(emulate_default_handler(signal)),
                SIGINT => on_signal(ShutdownSignal::Interrupt),
                _ => {
                    is_ending = true;
                    on_signal(if signal == SIGHUP { ShutdownSignal::Hangup } else { ShutdownSignal::Terminate });
                }
            }
        }
    };
    threads::spawn("signals", watch)?;
    Ok(())
}

/// Keeps SIGTSTP from this thread and those that it starts: only the thread that allows it again is stopped by it, and with
/// it the process.
///
/// For Ctrl-Z the line editor restores the terminal's settings, sends SIGTSTP and sets its own again. If another thread
/// took the signal, the process could stop after that, and leave the editor's settings to the shell.
pub fn block_suspension() {
    // Fails for an invalid signal only.
    let _ = SigSet::from(Signal::SIGTSTP).thread_block();
}

/// Allows this thread to take SIGTSTP. See [`block_suspension`].
pub fn allow_suspension() {
    let _ = SigSet::from(Signal::SIGTSTP).thread_unblock();
}

/// Whether this process ignores a signal. Read from `/proc`, since `sigaction` needs unsafe code; without `/proc` no signal
/// counts as ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupts() -> (InterruptState, Arc<CommandState>) {
        let commands = Arc::<CommandState>::default();
        (InterruptState::new(commands.clone()), commands)
    }

    #[test]
    fn a_script_ends_at_the_first_signal() {
        let (interrupts, commands) = interrupts();
        {
            let _command = commands.begin_command();
            assert!(!commands.is_cancelled());
            assert_eq!(interrupts.on_signal(ShutdownSignal::Interrupt), SignalAction::Exit { is_running: true });
            assert!(commands.is_cancelled() && commands.is_closed());
        }
        assert_eq!(interrupts.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { is_running: false });
        assert_eq!(interrupts.on_signal(ShutdownSignal::Hangup), SignalAction::Exit { is_running: false });
    }

    #[test]
    fn ignored_signals_are_recognised() {
        // The runtime of Rust programs ignores SIGPIPE.
        assert!(is_ignored(signal_hook::consts::SIGPIPE));
        assert!(!is_ignored(signal_hook::consts::SIGKILL));
    }

    #[test]
    fn at_a_prompt_an_interrupt_cancels_the_running_command() {
        let (interrupts, commands) = interrupts();
        interrupts.set_interactive();
        assert_eq!(interrupts.on_signal(ShutdownSignal::Interrupt), SignalAction::Ignore);
        let command = commands.begin_command();
        assert_eq!(interrupts.on_signal(ShutdownSignal::Interrupt), SignalAction::CancelCommand);
        assert!(commands.is_cancelled() && !commands.is_closed());
        drop(command);
        let command = commands.begin_command();
        assert!(!commands.is_cancelled());
        assert_eq!(interrupts.on_signal(ShutdownSignal::Interrupt), SignalAction::CancelCommand);
        assert_eq!(interrupts.on_signal(ShutdownSignal::Interrupt), SignalAction::Exit { is_running: true });
        drop(command);
        for signal in [ShutdownSignal::Terminate, ShutdownSignal::Hangup] {
            assert_eq!(interrupts.on_signal(signal), SignalAction::Exit { is_running: false });
        }
    }

    #[test]
    fn a_command_that_waits_for_input_counts_as_not_running() {
        let (interrupts, commands) = interrupts();
        let _command = commands.begin_command();
        {
            let _input = commands.begin_input();
            assert_eq!(interrupts.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { is_running: false });
        }
        assert_eq!(interrupts.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { is_running: true });
    }
}
