//! Accounts: what the server knows of each user, logged in or not.
//!
//! Owns the credentials in force, the client instances of each user, and the user's last mutations. Must not know about
//! sockets, session keys or what is published.

use std::collections::HashMap;

use super::keys::CredentialVersion;
use crate::common::opaque::PasswordRecord;
use crate::common::rate::TokenBucket;
use crate::common::types::{InstanceId, RequestId, SessionId, UserName};
use crate::server::index::OwnerId;
use crate::server::journal::LastMutation;

/// Instances whose last mutation is remembered; the journal stores the latest only.
const INSTANCES_REMEMBERED: usize = 4;

pub type Accounts = HashMap<UserName, Account>;

pub struct Account {
    /// The user's number in the index.
    pub owner: OwnerId,
    /// Of the credential in force; `None` while the user is not in the credentials file.
    pub version: Option<CredentialVersion>,
    /// From the file, or made from a plaintext line; `None` until it is made.
    pub record: Option<PasswordRecord>,
    /// The latest instance that has logged in.
    pub newest_instance: InstanceId,
    /// The latest instance that has logged out: its tickets, and those of earlier ones, are void.
    pub logged_out_instance: Option<InstanceId>,
    /// The latest generation that a client has confirmed: tickets of earlier generations of this instance are used up.
    pub confirmed: Option<ConfirmedGeneration>,
    /// The mutation that is being stored.
    pub pending: Option<PendingMutation>,
    /// Bounds the rate of the user's mutations, over all instances.
    pub mutation_bucket: TokenBucket,
    recent: Vec<LastMutation>,
}

/// A generation of an instance whose client has shown that it knows the session.
#[derive(Debug, Clone, Copy)]
pub struct ConfirmedGeneration {
    pub instance: InstanceId,
    pub generation: u32,
}

/// A mutation that is being stored.
#[derive(Debug, Clone, Copy)]
pub struct PendingMutation {
    pub instance: InstanceId,
    pub request: RequestId,
    /// The session that gets the reply.
    pub session: SessionId,
}

impl Account {
    /// An account without a credential.
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            version: None,
            record: None,
            newest_instance: InstanceId(0),
            logged_out_instance: None,
            confirmed: None,
            pending: None,
            mutation_bucket: TokenBucket::full(),
            recent: Vec::new(),
        }
    }

    pub fn last_mutation_of(&self, instance: InstanceId) -> Option<&LastMutation> {
        self.recent.iter().find(|last| last.instance == instance)
    }

    /// The instance whose mutation was the user's last; 0 for none.
    pub fn last_writer(&self) -> InstanceId {
        self.recent.last().map_or(InstanceId(0), |last| last.instance)
    }

    /// Remembers a mutation that is durable.
    pub fn record_mutation(&mut self, last: LastMutation) {
        self.recent.retain(|earlier| earlier.instance != last.instance);
        if self.recent.len() == INSTANCES_REMEMBERED {
            self.recent.remove(0);
        }
        self.newest_instance = self.newest_instance.max(last.instance);
        self.recent.push(last);
    }

    /// Numbers an instance that logs in at `wall_us`, microseconds since 1970: higher than any before.
    pub fn begin_instance(&mut self, wall_us: u64) -> InstanceId {
        self.newest_instance = InstanceId(wall_us.max(self.newest_instance.0 + 1));
        self.newest_instance
    }

    /// Whether a ticket of this instance and generation is neither void nor used up.
    pub fn may_resume(&self, instance: InstanceId, generation: u32) -> bool {
        self.may_continue(instance) && generation >= self.confirmed_generation(instance)
    }

    /// The instance and the generation of a session after a login at `wall_us`, microseconds since 1970. A client whose
    /// ticket was refused continues its instance, so that a mutation that it repeats is not executed again; 0 is a new one.
    pub fn log_in(&mut self, continued: InstanceId, wall_us: u64) -> (InstanceId, u32) {
        if continued != InstanceId(0) && continued == self.newest_instance && self.may_continue(continued) {
            return (continued, self.confirmed_generation(continued).saturating_add(1));
        }
        (self.begin_instance(wall_us), 0)
    }

    /// The latest generation of the instance that a client has confirmed; 0 if none is known.
    fn confirmed_generation(&self, instance: InstanceId) -> u32 {
        self.confirmed.filter(|latest| latest.instance == instance).map_or(0, |latest| latest.generation)
    }

    /// Whether the instance has not logged out, and no other has logged in since.
    fn may_continue(&self, instance: InstanceId) -> bool {
        instance >= self.newest_instance && self.logged_out_instance.is_none_or(|left| left < instance)
    }
}
