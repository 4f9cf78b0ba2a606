//! What a storm does to a client: its commands fail, it dies, and the server loses what it was told.

use std::time::{Duration, Instant};

use fileshare::internals::common::types::FileName;

use super::files::names_of;
use super::{SESSION_END_MAX, SimulatedClient};

/// After what failed in a storm, the user waits for so long.
const RETRY_IN_STORM: Duration = Duration::from_millis(700);

impl SimulatedClient {
    /// A storm begins: from now on the client also keeps what it serves.
    pub fn enter_storm(&mut self, now: Instant) {
        self.is_in_storm = true;
        self.own_publications.load(now, &mut self.session);
    }

    /// The client dies. Its user, with what is published, is that of the next client.
    pub fn die(&mut self, now: Instant) {
        self.give_up_pending();
        self.history.leaving(now, now + SESSION_END_MAX);
        self.is_online = false;
    }

    /// The user is that of a client that has died.
    pub fn inherit(&mut self, dead: Self) {
        self.history = dead.history;
        (self.files, self.uncertain, self.is_in_storm) = (dead.files, dead.uncertain, dead.is_in_storm);
        (self.names, self.tolerates_differences) = (dead.names, dead.tolerates_differences);
        self.disturbances = dead.disturbances;
        (self.comes_and_goes, self.think_time_max) = (dead.comes_and_goes, dead.think_time_max);
    }

    /// The pending command may have acted, or not.
    pub(super) fn give_up_pending(&mut self) {
        self.to_publish = None;
        if let Some((_, request)) = self.pending.take() {
            let names = names_of(&request);
            self.own_publications.doubt(names.clone());
            self.uncertain.extend(names);
        }
    }

    /// The server has lost data: it may lack, or have again, what the session does not resynchronise.
    pub fn lose_track(&mut self) {
        let names = (0..self.names).map(|at| self.name(at)).filter(|name| !self.resynchronised.contains(name));
        let names: Vec<FileName> = names.collect();
        self.own_publications.doubt(names.clone());
        self.uncertain.extend(names);
    }

    /// The server has died: a change without a response may be undone, also if the server has listed it.
    pub fn server_died(&mut self) {
        self.own_publications.doubt(self.uncertain.iter().cloned());
    }

    /// A command of a storm has failed, or the user was logged out.
    pub(super) fn try_again(&mut self, now: Instant) {
        self.trace(|| "tries again: the login or the request has failed".into());
        self.give_up_pending();
        self.next_command_at = Some(now + RETRY_IN_STORM);
    }
}
