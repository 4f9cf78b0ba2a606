//! Logins under way: a bounded table, forgotten in time, served fairly by address prefix.
//!
//! Defended: a flood of logins from one network neither fills the table for others nor makes them wait: each prefix
//! (/32, /64) has a share of the table and one turn a round at the expensive step. Retransmitted steps find their answer
//! here and cost nothing again. Must not know what a step means.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use super::keys::CredentialVersion;
use super::throttle::{Charge, Prefix, prefix};
use crate::common::limits::{HANDSHAKE_LIFETIME, HANDSHAKES_MAX, HANDSHAKES_PER_PREFIX_MAX};
use crate::common::login::ServerLogin;
use crate::common::packet::{KE1_BYTES, Nonce};
use crate::common::types::UserName;

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
}

/// The table is full for this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// All of them.
#[derive(Default)]
pub struct Handshakes {
    table: HashMap<Key, Handshake>,
    per_prefix: HashMap<Prefix, usize>,
    expiry: VecDeque<(Instant, Key)>,
    /// Prefixes with a login that can go on, in the order of their turns.
    turns: VecDeque<Prefix>,
    ready: HashMap<Prefix, VecDeque<Key>>,
    /// Logins that wait for their user's record.
    parked: BTreeMap<UserName, Vec<Key>>,
}

impl Handshakes {
    /// Whether one more login of this address fits.
    pub fn check_room(&self, from: SocketAddr) -> Result<(), Full> {
        let used = self.per_prefix.get(&prefix(from.ip())).copied().unwrap_or(0);
        let fits = used < HANDSHAKES_PER_PREFIX_MAX && self.table.len() < HANDSHAKES_MAX;
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Takes a login in; it waits until it is [`made ready`](Self::make_ready) or parked.
    pub fn insert(&mut self, now: Instant, key: Key, user: UserName, charge: Charge, ke1: [u8; KE1_BYTES]) {
        let expires = now + HANDSHAKE_LIFETIME;
        let handshake = Handshake { user, charge: Some(charge), stage: Stage::Waiting { ke1 }, expires };
        let replaced = self.table.insert(key, handshake);
        assert!(replaced.is_none(), "a login begins once");
        *self.per_prefix.entry(prefix(key.0.ip())).or_default() += 1;
        self.expiry.push_back((expires, key));
    }

    /// The login of this address and nonce.
    pub fn find_mut(&mut self, key: &Key) -> Option<&mut Handshake> {
        self.table.get_mut(key)
    }

    /// Forgets a login.
    pub fn remove(&mut self, key: &Key) -> Option<Handshake> {
        let handshake = self.table.remove(key)?;
        let prefix = prefix(key.0.ip());
        if let Some(used) = self.per_prefix.get_mut(&prefix) {
            *used -= 1;
            if *used == 0 {
                self.per_prefix.remove(&prefix);
            }
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
    pub fn parked(&self) -> impl Iterator<Item = (Prefix, UserName)> {
        let parked = self.parked.iter().flat_map(|(user, keys)| keys.iter().map(move |key| (key, user)));
        parked.map(|(key, user)| (prefix(key.0.ip()), user.clone()))
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
        let prefix = prefix(key.0.ip());
        let line = self.ready.entry(prefix).or_default();
        line.push_back(key);
        if line.len() == 1 {
            self.turns.push_back(prefix);
        }
    }

    /// Whose turn it is, prefix by prefix; `None` when nobody is ready.
    pub fn next_ready(&mut self) -> Option<Key> {
        loop {
            let prefix = self.turns.pop_front()?;
            let line = self.ready.get_mut(&prefix)?;
            let key = line.pop_front();
            if line.is_empty() {
                self.ready.remove(&prefix);
            } else {
                self.turns.push_back(prefix);
            }
            if let Some(key) = key
                && let Some(Handshake { stage: Stage::Waiting { .. }, .. }) = self.table.get(&key)
            {
                return Some(key);
            }
        }
    }

    /// Whether somebody is ready.
    pub fn is_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// When the next login is forgotten.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiry.front().map(|&(at, _)| at)
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.expiry.front()
            && at <= now
        {
            self.expiry.pop_front();
            if self.table.get(&key).is_some_and(|handshake| handshake.expires <= now) {
                self.remove(&key);
            }
        }
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
