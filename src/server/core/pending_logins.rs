//! Logins under way: a bounded table, forgotten in time, served fairly by address prefix.
//!
//! Defended: a flood of logins neither fills the table for others nor makes them wait. Places where somebody has logged
//! in before have a part of the table, and every other turn at the expensive step, for themselves; each prefix (/32, /64)
//! has one turn a round. Nobody is refused for want of room: the network (/32, /48) that holds most loses its oldest
//! login. Retransmitted steps find their answer here and cost nothing again. Must not know what a step means.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use crate::common::limits::{
    PENDING_LOGIN_LIFETIME, PENDING_LOGINS_KNOWN_MAX, PENDING_LOGINS_MAX, PENDING_LOGINS_PER_NETWORK_MAX,
};
use crate::common::net::AddressPrefix;
use crate::common::opaque::ServerLogin;
use crate::common::packet::{KE1_BYTES, Nonce};
use crate::common::types::UserName;
use crate::server::auth::fair_queue::{FairQueue, QueuePosition};
use crate::server::auth::keys::CredentialVersion;
use crate::server::auth::throttle::Charge;

/// Names one login: steps from another address are not its steps.
pub type Key = (SocketAddr, Nonce);

/// One login under way.
pub struct Handshake {
    /// Who it is said to be.
    pub user: UserName,
    /// What the guess cost, given back when it was none.
    pub charge: Option<Charge>,
    /// How far it is.
    pub stage: Stage,
    expires: Instant,
    is_known: bool,
    age: Age,
    ready: Option<QueuePosition>,
}

/// How far a login is.
pub enum Stage {
    /// LOGIN1 has come; LOGIN2 is to be made.
    Waiting {
        /// The client's first message.
        ke1: [u8; KE1_BYTES],
    },
    /// LOGIN2 has been sent.
    Offered {
        /// What LOGIN3 is checked with.
        login: Box<ServerLogin>,
        /// Of the credential that LOGIN2 was made from.
        version: Option<CredentialVersion>,
        /// LOGIN2 as sent.
        login2: Vec<u8>,
    },
    /// ANSWER has been sent.
    Decided {
        /// ANSWER as sent.
        answer: Vec<u8>,
    },
    /// The client has shown that it has ANSWER. What is left keeps the login from beginning again while its cookie lasts.
    Finished,
}

/// Smaller is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age(u64);

/// All of them.
#[derive(Default)]
pub struct Handshakes {
    table: HashMap<Key, Handshake>,
    by_age: BTreeMap<Age, Key>,
    ages: u64,
    strangers: Part,
    /// From where somebody has logged in before.
    known: Part,
    known_had_its_turn: bool,
    /// Logins that wait for their user's record.
    parked: BTreeMap<UserName, Vec<Key>>,
}

/// A part of the table with room and turns of its own.
#[derive(Default)]
struct Part {
    shares: HashMap<AddressPrefix, BTreeMap<Age, Key>>,
    /// How many logins a network has, and its oldest: the last loses it next.
    by_size: BTreeSet<(usize, Reverse<Age>, AddressPrefix)>,
    len: usize,
    ready: FairQueue<AddressPrefix, Key>,
}

impl Handshakes {
    /// Takes a login in; it waits until it is [`made ready`](Self::make_ready) or parked. `is_known`: somebody has logged
    /// in from there before.
    pub fn insert(
        &mut self,
        now: Instant,
        key: Key,
        is_known: bool,
        user: UserName,
        charge: Charge,
        ke1: [u8; KE1_BYTES],
    ) {
        let network = AddressPrefix::of(key.0.ip()).network();
        let max = if is_known { PENDING_LOGINS_KNOWN_MAX } else { PENDING_LOGINS_MAX - PENDING_LOGINS_KNOWN_MAX };
        if let Some(crowded_out) = self.part(is_known).crowded_out(network, max) {
            self.remove(&crowded_out);
        }
        self.ages += 1;
        let age = Age(self.ages);
        let (stage, expires) = (Stage::Waiting { ke1 }, now + PENDING_LOGIN_LIFETIME);
        let handshake = Handshake { user, charge: Some(charge), stage, expires, is_known, age, ready: None };
        let replaced = self.table.insert(key, handshake);
        assert!(replaced.is_none(), "a login begins once");
        self.by_age.insert(age, key);
        self.part(is_known).change(network, |share| share.insert(age, key));
    }

    /// The login of this address and nonce.
    pub fn find_mut(&mut self, key: &Key) -> Option<&mut Handshake> {
        self.table.get_mut(key)
    }

    /// A login whose answer has arrived.
    pub fn finish(&mut self, key: &Key) {
        if let Some(handshake) = self.table.get_mut(key) {
            handshake.stage = Stage::Finished;
        }
    }

    /// Forgets a login.
    fn remove(&mut self, key: &Key) -> Option<Handshake> {
        let handshake = self.table.remove(key)?;
        self.by_age.remove(&handshake.age);
        let prefix = AddressPrefix::of(key.0.ip());
        let part = self.part(handshake.is_known);
        part.change(prefix.network(), |share| share.remove(&handshake.age));
        if let Some(place) = handshake.ready {
            part.ready.remove(prefix, place);
        }
        if let Stage::Waiting { .. } = handshake.stage
            && let Some(keys) = self.parked.get_mut(&handshake.user)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.parked.remove(&handshake.user);
            }
        }
        Some(handshake)
    }

    /// Lets a login wait for its user's record.
    pub fn park(&mut self, key: Key, user: &UserName) {
        self.parked.entry(user.clone()).or_default().push(key);
    }

    /// The users somebody waits for, and from where.
    pub fn parked(&self) -> impl Iterator<Item = (AddressPrefix, UserName)> {
        let parked = self.parked.iter().flat_map(|(user, keys)| keys.iter().map(move |key| (key, user)));
        parked.map(|(key, user)| (AddressPrefix::of(key.0.ip()), user.clone()))
    }

    /// Makes ready whoever waits for this user's record.
    pub fn release(&mut self, user: &UserName) {
        for key in self.parked.remove(user).unwrap_or_default() {
            self.make_ready(key);
        }
    }

    /// Makes ready whoever waits for any record.
    pub fn release_all(&mut self) {
        for key in std::mem::take(&mut self.parked).into_values().flatten() {
            self.make_ready(key);
        }
    }

    /// Lines a login up for the expensive step.
    pub fn make_ready(&mut self, key: Key) {
        let Some(handshake) = self.table.get_mut(&key) else { return };
        let part = if handshake.is_known { &mut self.known } else { &mut self.strangers };
        handshake.ready = Some(part.ready.push(AddressPrefix::of(key.0.ip()), key));
    }

    /// Whose turn it is, prefix by prefix; `None` when nobody is ready.
    pub fn next_ready(&mut self) -> Option<Key> {
        self.known_had_its_turn = !self.known_had_its_turn && !self.known.ready.is_empty();
        let first = self.known_had_its_turn;
        let (_, key) = self.part(first).ready.pop().or_else(|| self.part(!first).ready.pop())?;
        if let Some(handshake) = self.table.get_mut(&key) {
            handshake.ready = None;
        }
        Some(key)
    }

    /// Whether somebody is ready.
    pub fn is_ready(&self) -> bool {
        !self.known.ready.is_empty() || !self.strangers.ready.is_empty()
    }

    /// When the next login is forgotten.
    pub fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.by_age.values().next()?;
        self.table.get(oldest).map(|handshake| handshake.expires)
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|at| at <= now)
            && let Some((_, key)) = self.by_age.pop_first()
        {
            self.remove(&key);
        }
    }

    fn part(&mut self, is_known: bool) -> &mut Part {
        if is_known { &mut self.known } else { &mut self.strangers }
    }
}

impl Part {
    /// Who has to go before one more login of this network comes in.
    fn crowded_out(&self, network: AddressPrefix, max: usize) -> Option<Key> {
        let own = self.shares.get(&network).filter(|share| share.len() >= PENDING_LOGINS_PER_NETWORK_MAX);
        let largest = || self.by_size.last().and_then(|(_, _, largest)| self.shares.get(largest));
        let share = own.or_else(|| (self.len >= max).then(largest).flatten())?;
        share.values().next().copied()
    }

    fn change(&mut self, network: AddressPrefix, change: impl FnOnce(&mut BTreeMap<Age, Key>) -> Option<Key>) {
        let share = self.shares.entry(network).or_default();
        let size = |share: &BTreeMap<Age, Key>| {
            let oldest = share.keys().next()?;
            Some((share.len(), Reverse(*oldest), network))
        };
        self.len -= share.len();
        size(share).map(|size| self.by_size.remove(&size));
        change(share);
        self.len += share.len();
        match size(share) {
            Some(size) => drop(self.by_size.insert(size)),
            None => drop(self.shares.remove(&network)),
        }
    }
}

#[cfg(test)]
#[path = "pending_logins_tests.rs"]
mod tests;
