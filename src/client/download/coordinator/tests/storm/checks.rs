//! What must hold between two steps.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::*;
use super::known::KnownConnection;
use super::oracle::{Checked, DownloadOracle};

/// Sources that are dialled or connected at once.
const CONNECTIONS_MAX: usize = 10;
/// Large files that are in progress at once.
const OPEN_FILES_MAX: usize = 16;
/// A file that has no source is queried at least this often.
const QUERY_WAIT_MAX: Duration = Duration::from_secs(2);

impl DownloadOracle<'_> {
    /// After the effects of a step. `timer`: when the coordinator wants to be called again.
    pub fn end_step(&mut self, timer: Option<Instant>, is_finished: bool) -> Checked {
        let all_ended = self.files.iter().all(|file| file.is_ended);
        prop_assert_eq!(is_finished, all_ended, "whether all has ended");
        self.check_files()?;
        if is_finished {
            return Ok(());
        }
        prop_assert!(self.connections.len() <= CONNECTIONS_MAX, "{} connections", self.connections.len());
        for (id, connection) in &self.connections {
            self.check_owed(connection)?;
            self.check_idle(*id, connection)?;
        }
        self.check_offers(timer)?;
        self.check_queries(timer)
    }

    fn check_files(&self) -> Checked {
        for (file, state) in self.files.iter().enumerate() {
            if let Some(incomplete) = &state.opened {
                let is_failed = state.is_ended && !state.is_saved;
                prop_assert_eq!(incomplete.is_closed(), is_failed, "whether file {} is closed", file);
            }
        }
        let open = self.files.iter().filter(|file| file.is_open_asked && !file.is_ended).count();
        prop_assert!(open <= OPEN_FILES_MAX, "{open} large files are open");
        Ok(())
    }

    /// Each group is wanted of one source: the others that owe it, and those that owe groups of a file that has ended, are
    /// told to cancel.
    fn check_owed(&self, connection: &KnownConnection) -> Checked {
        for assignment in &connection.owed {
            let state = &self.files[assignment.file];
            let is_wanted = !state.is_ended && state.assigned[&assignment.group] == assignment.id;
            let user = &connection.peer.user;
            prop_assert!(
                is_wanted || connection.is_cancelling || connection.is_stopped,
                "{user} goes on sending {assignment:?}"
            );
        }
        Ok(())
    }

    /// A source that owes nothing is asked for a group that is missing, and ended if it cannot help any more.
    fn check_idle(&self, id: SourceId, connection: &KnownConnection) -> Checked {
        if !connection.is_usable() || connection.is_cancelling || !connection.owed.is_empty() {
            return Ok(());
        }
        let user = &connection.peer.user;
        for (file, state) in self.files.iter().enumerate().filter(|(_, state)| state.is_open()) {
            let missing = (0..state.groups).find(|&group| self.is_missing(file, group) && connection.has(file, group));
            prop_assert!(missing.is_none(), "{user} is idle, and has group {missing:?} of file {file}");
        }
        let is_needed = connection.announced.iter().any(|&file| !self.files[file].is_ended);
        prop_assert!(is_needed || connection.pending_tickets > 0, "{user} ({id}) is kept for nothing");
        Ok(())
    }

    fn is_missing(&self, file: FileId, group: u32) -> bool {
        let state = &self.files[file];
        let assigned = state.assigned.get(&group);
        let is_owed = |number: &u32| {
            let owes = |connection: &KnownConnection| connection.owed.iter().any(|owed| owed.id == *number);
            state.checking.contains(number) || self.connections.values().any(owes)
        };
        !state.here.contains(&group) && !state.unchecked.contains(&group) && !assigned.is_some_and(is_owed)
    }

    /// An offer is used as soon as it may be.
    fn check_offers(&mut self, timer: Option<Instant>) -> Checked {
        let pending = std::mem::take(&mut self.pending);
        let (used, unused): (Vec<_>, _) = pending.into_iter().partition(|(offer, _)| self.is_connected(offer));
        self.pending = unused;
        used.iter().for_each(|(offer, _)| self.on_ticket_used(offer));
        self.drop_needless_offers();
        for (offer, _) in &self.pending {
            let is_dialling = |other: &KnownConnection| {
                !other.is_connected && other.peer.address == offer.address || other.peer == offer.peer()
            };
            if self.connections.len() == CONNECTIONS_MAX || self.connections.values().any(is_dialling) {
                continue;
            }
            let latest = self.addresses.get(&offer.address).map_or(self.now, |address| address.latest);
            prop_assert!(self.now < latest, "{} is not dialled", offer.user);
            prop_assert!(
                timer.is_some_and(|at| at <= latest),
                "nothing dials {} at {:?}",
                offer.user,
                latest - self.now
            );
        }
        Ok(())
    }

    /// The server is asked again and again for files that have no source.
    fn check_queries(&self, timer: Option<Instant>) -> Checked {
        let has_source = |file: FileId| {
            self.connections.values().any(|connection| connection.announced.contains(&file))
                || self.pending.iter().any(|(offer, _)| offer.files.contains(&file))
        };
        let without = (0..self.files.len()).find(|&file| !self.files[file].is_ended && !has_source(file));
        let is_due = timer.is_some_and(|at| at <= self.now + QUERY_WAIT_MAX);
        prop_assert!(without.is_none() || self.query.is_some() || is_due, "nothing finds a source of {without:?}");
        Ok(())
    }
}
