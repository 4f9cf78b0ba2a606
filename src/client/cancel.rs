//! Cancellation of the running command, as the threads that work for it see it.

use std::convert::Infallible;

use crate::common::sync::channel::{Receiver, TryRecvError};

/// Nothing is ever sent: the channel disconnects when the running command is cancelled. So a thread can wait for it and
/// for a result at the same time.
pub type Cancelled = Receiver<Infallible>;

/// Whether the command has been cancelled.
pub fn is_cancelled(cancelled: &Cancelled) -> bool {
    cancelled.try_recv() == Err(TryRecvError::Disconnected)
}
