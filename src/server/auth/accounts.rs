//! Accounts: what the server knows of each user whether or not it is active.
//!
//! Owns credentials in force, the runs of a user's clients, and the user's last mutations. Must not know about sockets,
//! sessions' keys or what is published.

use std::collections::HashMap;

use crate::common::opaque::PasswordRecord;
use crate::common::types::{InstanceId, RequestId, SessionId, UserName};
use crate::server::auth::keys::CredentialVersion;
use crate::server::index::OwnerId;
use crate::server::journal::LastMutation;

/// Runs whose last mutation is remembered; only the latest is stored.
const RUNS_REMEMBERED: usize = 4;

/// One user.
pub struct Account {
    /// The same in the index.
    pub owner: OwnerId,
    /// Of the credential in force; `None` while the user is not in the credentials file.
    pub version: Option<CredentialVersion>,
    /// From the file, or made of a plaintext line; `None` until it is made.
    pub record: Option<PasswordRecord>,
    /// The latest run that began here.
    pub newest_run: InstanceId,
    /// The run that left on purpose: its tickets are void.
    pub left: Option<InstanceId>,
    /// A run and the generation of it that its client has shown to know: tickets of earlier ones are used up.
    pub confirmed: Option<(InstanceId, u32)>,
    /// The mutation on its way to the disk.
    pub pending: Option<Pending>,
    recent: Vec<LastMutation>,
}

/// A mutation on its way to the disk.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// In which run.
    pub run: InstanceId,
    /// Which request.
    pub request: RequestId,
    /// Whom to tell.
    pub session: SessionId,
}

impl Account {
    fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            version: None,
            record: None,
            newest_run: InstanceId(0),
            left: None,
            confirmed: None,
            pending: None,
            recent: Vec::new(),
        }
    }

    /// The last mutation of a run, if it is remembered.
    pub fn last_of(&self, run: InstanceId) -> Option<&LastMutation> {
        self.recent.iter().find(|last| last.run == run)
    }

    /// The run whose mutation was the user's last; 0 for none.
    pub fn last_writer(&self) -> InstanceId {
        self.recent.last().map_or(InstanceId(0), |last| last.run)
    }

    /// Remembers a mutation that is durable.
    pub fn remember(&mut self, last: LastMutation) {
        self.recent.retain(|earlier| earlier.run != last.run);
        if self.recent.len() == RUNS_REMEMBERED {
            self.recent.remove(0);
        }
        self.newest_run = self.newest_run.max(last.run);
        self.recent.push(last);
    }

    /// The number of a run that begins at `wall_us`, microseconds since 1970: later than any before.
    pub fn begin_run(&mut self, wall_us: u64) -> InstanceId {
        self.newest_run = InstanceId(wall_us.max(self.newest_run.0 + 1));
        self.newest_run
    }

    /// Whether a ticket of this run and generation can still be meant seriously.
    pub fn may_resume(&self, run: InstanceId, generation: u32) -> bool {
        let used_up = self.confirmed.is_some_and(|(known, latest)| known == run && generation < latest);
        !used_up && self.left.is_none_or(|left| left < run)
    }
}

/// All of them, by name.
#[derive(Default)]
pub struct Accounts {
    by_name: HashMap<UserName, Account>,
}

impl Accounts {
    /// The user's account; made if there is none, without a credential.
    pub fn entry(&mut self, user: &UserName, owner: impl FnOnce() -> OwnerId) -> &mut Account {
        self.by_name.entry(user.clone()).or_insert_with(|| Account::new(owner()))
    }

    /// The user's account.
    pub fn find(&self, user: &UserName) -> Option<&Account> {
        self.by_name.get(user)
    }

    /// The user's account.
    pub fn find_mut(&mut self, user: &UserName) -> Option<&mut Account> {
        self.by_name.get_mut(user)
    }

    /// Everyone.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&UserName, &mut Account)> {
        self.by_name.iter_mut()
    }
}
