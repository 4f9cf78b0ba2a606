//! Commands on their way to the control thread, which sleeps until a datagram, a deadline or a wake-up.

use crate::common::sync::atomic::{AtomicBool, Ordering};
use crate::common::sync::mpsc::{Receiver, Sender, channel};

/// The callers' end.
pub(super) struct CommandQueue<C> {
    commands: Sender<C>,
    /// Whether the thread has been woken and has not read its commands yet.
    is_woken: AtomicBool,
}

impl<C> CommandQueue<C> {
    /// The receiver is for the control thread.
    pub(super) fn new() -> (Self, Receiver<C>) {
        let (commands, receiver) = channel();
        (Self { commands, is_woken: AtomicBool::new(false) }, receiver)
    }

    /// Queues a command, and calls `wake` unless the thread will look for commands anyway.
    pub(super) fn send(&self, command: C, wake: impl FnOnce()) {
        // A thread that has ended drops the command, and with it the channel on which the caller waits.
        let _ = self.commands.send(command);
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            wake();
        }
    }

    /// The thread has been woken. To be called before it reads its commands: a command that it does not find then wakes it
    /// again. A swap rather than a store, because it has to see the commands of those who found the flag set.
    pub(super) fn set_awake(&self) {
        self.is_woken.swap(false, Ordering::AcqRel);
    }
}
