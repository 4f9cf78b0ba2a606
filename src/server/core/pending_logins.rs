//! Logins in progress: a bounded table with expiry, fair to address prefixes.
//!
//! Defended: a flood of logins neither displaces nor delays the logins of others. Prefixes with an earlier successful
//! login have a partition of the table, and every second slot of the expensive step, for themselves; within a partition,
//! prefixes (/32, /64) are served round robin. A new login is never refused: when a partition is full, the network
//! (/32, /48) with the most pending logins loses its oldest. Retransmitted steps are answered from the table at no cost.
//! Must not know what a step means.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::common::limits::{
    PENDING_LOGIN_LIFETIME, PENDING_LOGINS_KNOWN_MAX, PENDING_LOGINS_MAX, PENDING_LOGINS_PER_NETWORK_MAX,
};
use crate::common::net::AddressPrefix;
use crate::common::opaque::ServerLogin;
use crate::common::packet::{KE1_BYTES, Nonce};
use crate::common::types::UserName;
use crate::server::auth::expiring_map::ExpiringMap;
use crate::server::auth::keys::CredentialVersion;
use crate::server::auth::throttle::Charge;
use crate::server::fair_queue::{FairQueue, QueuePosition};

/// Identifies a handshake. The address is part of it, so that another address cannot continue the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginId {
    pub address: SocketAddr,
    pub nonce: Nonce,
}

impl LoginId {
    pub fn prefix(&self) -> AddressPrefix {
        AddressPrefix::of(self.address.ip())
    }
}

pub struct PendingLogin {
    /// As claimed in LOGIN1.
    pub user: UserName,
    /// What the guess took from the throttle; refunded if the password is right.
    pub charge: Option<Charge>,
    pub stage: LoginStage,
    is_known: bool,
    /// In its partition's list of logins.
    position: QueuePosition,
    /// In its partition's queue for the expensive step.
    queued: Option<QueuePosition>,
}

/// The last step of a login that was taken.
pub enum LoginStage {
    /// LOGIN1 was received; LOGIN2 is to be computed.
    AwaitingLogin2 { ke1: [u8; KE1_BYTES] },
    /// LOGIN2 was sent. `version` is that of the credential from which it was computed.
    Login2Sent { login: Box<ServerLogin>, version: Option<CredentialVersion>, login2: Vec<u8> },
    /// LOGIN4 was sent.
    Answered { login4: Vec<u8> },
    /// The client has shown that it received LOGIN4. The entry remains so that a replayed LOGIN1 cannot start the login
    /// again while its cookie is valid.
    Confirmed,
}

/// A login that has left the table.
#[derive(Debug)]
pub struct EndedLogin {
    pub id: LoginId,
    pub user: UserName,
    /// Without a LOGIN3.
    pub is_unfinished: bool,
}

#[derive(Default)]
pub struct PendingLogins {
    table: ExpiringMap<LoginId, PendingLogin>,
    unknown_prefixes: Partition,
    known_prefixes: Partition,
    known_served_last: bool,
    /// Logins that wait for their user's record.
    awaiting_record: BTreeMap<UserName, Vec<LoginId>>,
}

/// A part of the table with its own capacity and its own queue for the expensive step.
#[derive(Default)]
struct Partition {
    /// All logins by network, in the order in which they began.
    logins: FairQueue<AddressPrefix, LoginId>,
    /// The number of logins of each network, and its oldest: the last one loses its oldest first.
    by_size: BTreeSet<(usize, Reverse<QueuePosition>, AddressPrefix)>,
    ready: FairQueue<AddressPrefix, LoginId>,
}

impl PendingLogins {
    /// Adds a login after LOGIN1. [`make_ready`](Self::make_ready) or [`wait_for_record`](Self::wait_for_record) comes
    /// next. `is_known`: a user has logged in from this prefix before. Returns what gave way, if the table was full.
    pub fn insert(
        &mut self,
        now: Instant,
        id: LoginId,
        is_known: bool,
        user: UserName,
        charge: Charge,
        ke1: [u8; KE1_BYTES],
    ) -> Option<EndedLogin> {
        let network = id.prefix().network();
        let max = if is_known { PENDING_LOGINS_KNOWN_MAX } else { PENDING_LOGINS_MAX - PENDING_LOGINS_KNOWN_MAX };
        let evicted = self.partition(is_known).eviction_candidate(network, max);
        let evicted = evicted.and_then(|id| self.table.remove(&id).map(|login| self.forget(id, login)));
        let position = self.partition(is_known).change(network, |logins| logins.push(network, id));
        let (stage, charge) = (LoginStage::AwaitingLogin2 { ke1 }, Some(charge));
        let login = PendingLogin { user, charge, stage, is_known, position, queued: None };
        let replaced = self.table.insert(id, now + PENDING_LOGIN_LIFETIME, login);
        assert!(replaced.is_none(), "a login begins once");
        evicted
    }

    pub fn find_mut(&mut self, id: &LoginId) -> Option<&mut PendingLogin> {
        self.table.get_mut(id)
    }

    /// The client has shown that it received LOGIN4.
    pub fn confirm(&mut self, id: &LoginId) {
        if let Some(login) = self.table.get_mut(id) {
            login.stage = LoginStage::Confirmed;
        }
    }

    /// Makes a login wait for its user's record.
    pub fn wait_for_record(&mut self, id: LoginId) {
        if let Some(login) = self.table.get_mut(&id) {
            self.awaiting_record.entry(login.user.clone()).or_default().push(id);
        }
    }

    /// The records that logins wait for: each with the prefix of the login and its user.
    pub fn awaited_records(&self) -> impl Iterator<Item = (AddressPrefix, UserName)> {
        let awaited = self.awaiting_record.iter().flat_map(|(user, ids)| ids.iter().map(move |id| (id, user)));
        awaited.map(|(id, user)| (id.prefix(), user.clone()))
    }

    /// Makes ready the logins that wait for this user's record.
    pub fn release(&mut self, user: &UserName) {
        for id in self.awaiting_record.remove(user).unwrap_or_default() {
            self.make_ready(id);
        }
    }

    /// Makes ready all logins that wait for a record.
    pub fn release_all(&mut self) {
        for id in std::mem::take(&mut self.awaiting_record).into_values().flatten() {
            self.make_ready(id);
        }
    }

    /// Queues a login for the expensive step.
    pub fn make_ready(&mut self, id: LoginId) {
        let Some(login) = self.table.get_mut(&id) else { return };
        let partition = if login.is_known { &mut self.known_prefixes } else { &mut self.unknown_prefixes };
        login.queued = Some(partition.ready.push(id.prefix(), id));
    }

    /// Dequeues a login for the expensive step: the partitions take turns, as do the prefixes within each.
    pub fn next_ready(&mut self) -> Option<LoginId> {
        self.known_served_last = !self.known_served_last && !self.known_prefixes.ready.is_empty();
        let first = self.known_served_last;
        let (_, id) = self.partition(first).ready.pop().or_else(|| self.partition(!first).ready.pop())?;
        if let Some(login) = self.table.get_mut(&id) {
            login.queued = None;
        }
        Some(id)
    }

    /// Whether a login is queued for the expensive step.
    pub fn has_ready(&self) -> bool {
        !self.known_prefixes.ready.is_empty() || !self.unknown_prefixes.ready.is_empty()
    }

    pub fn next_expiry(&self) -> Option<Instant> {
        self.table.next_expiry()
    }

    /// Removes a login that has expired.
    pub fn pop_expired(&mut self, now: Instant) -> Option<EndedLogin> {
        let (id, login) = self.table.pop_expired(now)?;
        Some(self.forget(id, login))
    }

    /// Removes what refers to a login that is no longer in the table.
    fn forget(&mut self, id: LoginId, login: PendingLogin) -> EndedLogin {
        let partition = self.partition(login.is_known);
        let network = id.prefix().network();
        partition.change(network, |logins| logins.remove(network, login.position));
        if let Some(position) = login.queued {
            partition.ready.remove(id.prefix(), position);
        }
        if let LoginStage::AwaitingLogin2 { .. } = login.stage
            && let Some(ids) = self.awaiting_record.get_mut(&login.user)
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.awaiting_record.remove(&login.user);
            }
        }
        let is_unfinished = matches!(login.stage, LoginStage::AwaitingLogin2 { .. } | LoginStage::Login2Sent { .. });
        EndedLogin { id, user: login.user, is_unfinished }
    }

    fn partition(&mut self, is_known: bool) -> &mut Partition {
        if is_known { &mut self.known_prefixes } else { &mut self.unknown_prefixes }
    }
}

impl Partition {
    /// The login to remove before one more of this network is added, if there is no space for it.
    fn eviction_candidate(&self, network: AddressPrefix, max: usize) -> Option<LoginId> {
        let is_over_share = self.logins.len_of(network) >= PENDING_LOGINS_PER_NETWORK_MAX;
        let largest = || self.by_size.last().map(|(_, _, largest)| *largest);
        let loser = if is_over_share { network } else { (self.logins.len() >= max).then(largest).flatten()? };
        self.logins.first(loser).map(|(_, id)| *id)
    }

    /// Changes the logins of one network.
    fn change<T>(
        &mut self,
        network: AddressPrefix,
        change: impl FnOnce(&mut FairQueue<AddressPrefix, LoginId>) -> T,
    ) -> T {
        let size = |logins: &FairQueue<AddressPrefix, LoginId>| {
            logins.first(network).map(|(oldest, _)| (logins.len_of(network), Reverse(oldest), network))
        };
        size(&self.logins).map(|size| self.by_size.remove(&size));
        let changed = change(&mut self.logins);
        self.by_size.extend(size(&self.logins));
        changed
    }
}

#[cfg(test)]
#[path = "pending_logins_tests.rs"]
mod tests;
