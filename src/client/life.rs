//! What the shell is doing, for whoever must decide what a signal means: cancel what runs, or end the client.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A signal that ends a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGINT.
    Interrupt,
    /// SIGTERM, or the terminal is gone.
    Terminate,
}

/// What a signal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The running command is told to stop; the shell lives on.
    Cancel,
    /// Nothing is running that could be stopped.
    Ignore,
    /// The client ends. `busy`: a command is running and was told to stop.
    End {
        /// Whether it is worth a moment's waiting.
        busy: bool,
    },
}

/// Shared by the thread that runs commands and the one that waits for signals.
#[derive(Debug, Default)]
pub struct Life {
    interactive: AtomicBool,
    busy: AtomicBool,
    cancelled: AtomicBool,
    ending: AtomicBool,
    /// For [`Life::pause`]: a signal wakes it.
    asleep: Mutex<()>,
    woken: Condvar,
}

impl Life {
    /// From now on someone is typing at a prompt: SIGINT cancels what runs and no more.
    pub fn at_a_prompt(&self) {
        self.interactive.store(true, SeqCst);
    }

    /// A command starts; it ends when the guard is dropped.
    pub fn command(&self) -> Busy<'_> {
        self.cancelled.store(false, SeqCst);
        self.busy.store(true, SeqCst);
        Busy { life: self, after: false }
    }

    /// The running command waits for someone to type; until the guard is dropped there is nothing to wait for.
    pub fn waiting_for_input(&self) -> Busy<'_> {
        Busy { life: self, after: self.busy.swap(false, SeqCst) }
    }

    /// Whether the running command should stop.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(SeqCst) || self.ending()
    }

    /// Waits this long, or until the running command should stop.
    pub fn pause(&self, patience: Duration) {
        let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        // How it ended makes no difference: the caller asks whether to stop.
        let _ = self.woken.wait_timeout_while(asleep, patience, |()| !self.cancelled());
    }

    /// Whether the client ends: no further command is to be started.
    pub fn ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    /// A signal has come.
    pub fn signal(&self, signal: Ending) -> Verdict {
        let verdict = self.judge(signal);
        // Whoever is about to fall asleep holds the lock and has not looked yet, or sleeps and can be woken.
        drop(self.asleep.lock());
        self.woken.notify_all();
        verdict
    }

    fn judge(&self, signal: Ending) -> Verdict {
        let busy = self.busy.load(SeqCst);
        if signal == Ending::Interrupt && self.interactive.load(SeqCst) {
            if !busy {
                return Verdict::Ignore;
            }
            // A second one while the first has not been heeded: whoever types it wants out.
            if !self.cancelled.swap(true, SeqCst) {
                return Verdict::Cancel;
            }
        }
        self.ending.store(true, SeqCst);
        Verdict::End { busy }
    }
}

/// See [`Life::command`].
#[must_use]
pub struct Busy<'a> {
    life: &'a Life,
    after: bool,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.life.busy.store(self.after, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_ends_at_the_first_signal() {
        let life = Life::default();
        {
            let _busy = life.command();
            assert!(!life.cancelled());
            assert_eq!(life.signal(Ending::Interrupt), Verdict::End { busy: true });
            assert!(life.cancelled() && life.ending());
        }
        assert_eq!(life.signal(Ending::Terminate), Verdict::End { busy: false });
    }

    #[test]
    fn at_a_prompt_an_interrupt_cancels_what_runs() {
        let life = Life::default();
        life.at_a_prompt();
        assert_eq!(life.signal(Ending::Interrupt), Verdict::Ignore);
        let busy = life.command();
        assert_eq!(life.signal(Ending::Interrupt), Verdict::Cancel);
        assert!(life.cancelled() && !life.ending());
        drop(busy);
        let busy = life.command();
        assert!(!life.cancelled());
        assert_eq!(life.signal(Ending::Interrupt), Verdict::Cancel);
        assert_eq!(life.signal(Ending::Interrupt), Verdict::End { busy: true });
        drop(busy);
        assert_eq!(life.signal(Ending::Terminate), Verdict::End { busy: false });
    }

    #[test]
    fn a_signal_ends_a_pause() {
        let life = Life::default();
        let _busy = life.command();
        std::thread::scope(|scope| {
            scope.spawn(|| life.pause(Duration::from_secs(3_600)));
            life.signal(Ending::Terminate);
        });
        life.pause(Duration::from_secs(3_600));
    }

    #[test]
    fn a_command_that_waits_for_input_is_not_waited_for() {
        let life = Life::default();
        let _busy = life.command();
        {
            let _waiting = life.waiting_for_input();
            assert_eq!(life.signal(Ending::Terminate), Verdict::End { busy: false });
        }
        assert_eq!(life.signal(Ending::Terminate), Verdict::End { busy: true });
    }
}
