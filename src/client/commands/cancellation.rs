//! The state of one command context: whether a command runs, whether it is cancelled, whether further ones may start.
//!
//! Must not know about signals: the shell decides what a signal means.

use std::convert::Infallible;
use std::time::Duration;

use crate::client::cancel::{self, Cancelled};
use crate::client::jobs::JobOwner;
use crate::common::sync::channel::{Sender, bounded};
use crate::common::sync::{Mutex, lock};

/// Shared by the thread that runs commands and the one that cancels them.
#[derive(Debug)]
pub struct CommandState {
    status: Mutex<Status>,
    /// Of the jobs that this context begins.
    job_owner: JobOwner,
}

#[derive(Debug)]
struct Status {
    is_running: bool,
    is_closed: bool,
    /// Dropped by a cancellation.
    alive: Option<Sender<Infallible>>,
    cancelled: Cancelled,
}

impl Default for CommandState {
    fn default() -> Self {
        let (alive, cancelled) = bounded(0);
        Self::new(Status { is_running: false, is_closed: false, alive: Some(alive), cancelled })
    }
}

impl CommandState {
    fn new(status: Status) -> Self {
        Self { status: Mutex::new(status), job_owner: JobOwner::default() }
    }

    pub fn job_owner(&self) -> &JobOwner {
        &self.job_owner
    }

    /// Of one command, which runs in the background, and whose number cancels it.
    pub fn of_job(cancelled: Cancelled) -> Self {
        Self::new(Status { is_running: true, is_closed: false, alive: None, cancelled })
    }

    /// A command starts, not cancelled unless the context is closed. It ends when the guard is dropped.
    pub fn begin_command(&self) -> CommandGuard<'_> {
        let mut state = lock(&self.status);
        if !state.is_closed {
            let (alive, cancelled) = bounded(0);
            (state.alive, state.cancelled) = (Some(alive), cancelled);
        }
        state.is_running = true;
        CommandGuard { state: self, was_running: false }
    }

    /// The running command waits for the user to type. Until the guard is dropped it counts as not running: nothing is
    /// lost if it is cut off.
    pub fn begin_input(&self) -> CommandGuard<'_> {
        let was_running = std::mem::replace(&mut lock(&self.status).is_running, false);
        CommandGuard { state: self, was_running }
    }

    pub fn is_running(&self) -> bool {
        lock(&self.status).is_running
    }

    /// Whether the running command should stop.
    pub fn is_cancelled(&self) -> bool {
        cancel::is_cancelled(&self.cancelled())
    }

    /// Disconnects when the command that runs now is cancelled.
    pub fn cancelled(&self) -> Cancelled {
        lock(&self.status).cancelled.clone()
    }

    /// Waits this long, or until the running command is cancelled.
    pub fn sleep_unless_cancelled(&self, duration: Duration) {
        // A timeout and a disconnection are alike: the caller checks whether it is cancelled.
        let _ = self.cancelled().recv_timeout(duration);
    }

    /// Whether the context is closed: no further command may start.
    pub fn is_closed(&self) -> bool {
        lock(&self.status).is_closed
    }

    /// Cancels the running command.
    pub fn cancel(&self) {
        lock(&self.status).alive = None;
    }

    /// Cancels this command if it still runs; [`cancelled`](Self::cancelled) identifies it.
    pub fn cancel_command(&self, command: &Cancelled) {
        let mut state = lock(&self.status);
        if state.cancelled.same_channel(command) {
            state.alive = None;
        }
    }

    /// Cancels the running command, and every one that is started later.
    pub fn close(&self) {
        let mut state = lock(&self.status);
        state.is_closed = true;
        state.alive = None;
        self.job_owner.leave();
    }
}

/// See [`CommandState::begin_command`] and [`CommandState::begin_input`].
#[must_use]
pub struct CommandGuard<'a> {
    state: &'a CommandState,
    was_running: bool,
}

impl Drop for CommandGuard<'_> {
    fn drop(&mut self) {
        lock(&self.state.status).is_running = self.was_running;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_lasts_until_the_next_command() {
        let state = CommandState::default();
        let _command = state.begin_command();
        assert!(!state.is_cancelled());
        state.cancel();
        assert!(state.is_cancelled() && !state.is_closed());
        let _command = state.begin_command();
        assert!(!state.is_cancelled());
        state.close();
        let _command = state.begin_command();
        assert!(state.is_cancelled() && state.is_closed());
    }

    #[test]
    fn a_cancellation_ends_a_sleep() {
        let state = CommandState::default();
        let _command = state.begin_command();
        std::thread::scope(|scope| {
            scope.spawn(|| state.sleep_unless_cancelled(Duration::from_secs(3_600)));
            state.close();
        });
        state.sleep_unless_cancelled(Duration::from_secs(3_600));
    }
}
