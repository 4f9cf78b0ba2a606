//! What the shell is doing, for whoever must decide what a signal means: cancel what runs, or end the client.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A signal that ends a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM, or the terminal is gone.
    Terminate,
}

/// What a signal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// The running command is told to stop; the shell lives on.
    CancelCommand,
    /// Nothing is running that could be stopped.
    Ignore,
    /// The client ends. `busy`: a command is running and was told to stop.
    Exit {
        /// Whether it is worth a moment's waiting.
        busy: bool,
    },
}

/// Shared by the thread that runs commands and the one that waits for signals.
#[derive(Debug, Default)]
pub struct InterruptState {
    interactive: AtomicBool,
    busy: AtomicBool,
    cancelled: AtomicBool,
    ending: AtomicBool,
    /// For [`InterruptState::pause`]: a signal wakes it.
    asleep: Mutex<()>,
    woken: Condvar,
}

impl InterruptState {
    /// From now on someone is typing at a prompt: SIGINT cancels what runs and no more.
    pub fn set_interactive(&self) {
        self.interactive.store(true, SeqCst);
    }

    /// A command starts; it ends when the guard is dropped.
    pub fn begin_command(&self) -> CommandGuard<'_> {
        self.cancelled.store(false, SeqCst);
        self.busy.store(true, SeqCst);
        CommandGuard { life: self, after: false }
    }

    /// The running command waits for someone to type; until the guard is dropped there is nothing to wait for.
    pub fn begin_input(&self) -> CommandGuard<'_> {
        CommandGuard { life: self, after: self.busy.swap(false, SeqCst) }
    }

    /// Whether the running command should stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst) || self.is_shutting_down()
    }

    /// Waits this long, or until the running command should stop.
    pub fn sleep_unless_cancelled(&self, patience: Duration) {
        let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        // How it ended makes no difference: the caller asks whether to stop.
        let _ = self.woken.wait_timeout_while(asleep, patience, |()| !self.is_cancelled());
    }

    /// Whether the client ends: no further command is to be started.
    pub fn is_shutting_down(&self) -> bool {
        self.ending.load(SeqCst)
    }

    /// A signal has come.
    pub fn on_signal(&self, signal: ShutdownSignal) -> SignalAction {
        let verdict = self.action_for(signal);
        // Whoever is about to fall asleep holds the lock and has not looked yet, or sleeps and can be woken.
        drop(self.asleep.lock());
        self.woken.notify_all();
        verdict
    }

    fn action_for(&self, signal: ShutdownSignal) -> SignalAction {
        let busy = self.busy.load(SeqCst);
        if signal == ShutdownSignal::Interrupt && self.interactive.load(SeqCst) {
            if !busy {
                return SignalAction::Ignore;
            }
            // A second one while the first has not been heeded: whoever types it wants out.
            if !self.cancelled.swap(true, SeqCst) {
                return SignalAction::CancelCommand;
            }
        }
        self.ending.store(true, SeqCst);
        SignalAction::Exit { busy }
    }
}

/// See [`InterruptState::command`].
#[must_use]
pub struct CommandGuard<'a> {
    life: &'a InterruptState,
    after: bool,
}

impl Drop for CommandGuard<'_> {
    fn drop(&mut self) {
        self.life.busy.store(self.after, SeqCst);
    }
}

/// From now on tells `on_signal` of each signal, on a thread of its own. `hangup`: the terminal going away is one, too.
pub fn watch_signals(hangup: bool, on_signal: impl Fn(ShutdownSignal) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if hangup {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            on_signal(if signal == SIGINT { ShutdownSignal::Interrupt } else { ShutdownSignal::Terminate });
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_ends_at_the_first_signal() {
        let life = InterruptState::default();
        {
            let _busy = life.begin_command();
            assert!(!life.is_cancelled());
            assert_eq!(life.on_signal(ShutdownSignal::Interrupt), SignalAction::Exit { busy: true });
            assert!(life.is_cancelled() && life.is_shutting_down());
        }
        assert_eq!(life.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { busy: false });
    }

    #[test]
    fn at_a_prompt_an_interrupt_cancels_what_runs() {
        let life = InterruptState::default();
        life.set_interactive();
        assert_eq!(life.on_signal(ShutdownSignal::Interrupt), SignalAction::Ignore);
        let busy = life.begin_command();
        assert_eq!(life.on_signal(ShutdownSignal::Interrupt), SignalAction::CancelCommand);
        assert!(life.is_cancelled() && !life.is_shutting_down());
        drop(busy);
        let busy = life.begin_command();
        assert!(!life.is_cancelled());
        assert_eq!(life.on_signal(ShutdownSignal::Interrupt), SignalAction::CancelCommand);
        assert_eq!(life.on_signal(ShutdownSignal::Interrupt), SignalAction::Exit { busy: true });
        drop(busy);
        assert_eq!(life.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { busy: false });
    }

    #[test]
    fn a_signal_ends_a_pause() {
        let life = InterruptState::default();
        let _busy = life.begin_command();
        std::thread::scope(|scope| {
            scope.spawn(|| life.sleep_unless_cancelled(Duration::from_secs(3_600)));
            life.on_signal(ShutdownSignal::Terminate);
        });
        life.sleep_unless_cancelled(Duration::from_secs(3_600));
    }

    #[test]
    fn a_command_that_waits_for_input_is_not_waited_for() {
        let life = InterruptState::default();
        let _busy = life.begin_command();
        {
            let _waiting = life.begin_input();
            assert_eq!(life.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { busy: false });
        }
        assert_eq!(life.on_signal(ShutdownSignal::Terminate), SignalAction::Exit { busy: true });
    }
}
