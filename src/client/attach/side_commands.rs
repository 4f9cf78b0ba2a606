//! Which command of an attached side a cancellation is for. One thread reads cancellations, another runs the commands.

use crate::client::cancel::Cancelled;
use crate::client::commands::CommandState;
use crate::client::ui::message::CommandId;
use crate::common::sync::{Mutex, lock};

/// Commands of an attached side.
#[derive(Default)]
pub(super) struct SideCommands(Mutex<SideIds>);

#[derive(Default)]
struct SideIds {
    /// The last one that has begun, and what its cancellation disconnects: it may have ended, and the next one be about to
    /// begin, which is not to be cancelled in its place.
    running: Option<(CommandId, Cancelled)>,
    /// The one to cancel that has not begun yet.
    cancelled: Option<CommandId>,
}

impl SideCommands {
    /// The command that `state` runs now has this id.
    pub(super) fn begin(&self, id: &CommandId, state: &CommandState) {
        let mut ids = lock(&self.0);
        ids.running = Some((id.clone(), state.cancelled()));
        // A side has one command at a time: another id is that of a command that had ended.
        if ids.cancelled.take().as_ref() == Some(id) {
            state.cancel();
        }
    }

    /// Cancels the command with this id, also if it begins later.
    pub(super) fn cancel(&self, id: CommandId, state: &CommandState) {
        let mut ids = lock(&self.0);
        match &ids.running {
            Some((running, command)) if *running == id => state.cancel_command(command),
            _ => ids.cancelled = Some(id),
        }
    }
}
