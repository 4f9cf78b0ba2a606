//! What is remembered of peers over all batches of a download: when each address may be dialled, and who did not help.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::backoff::Backoff;
use crate::client::download::WaitReason;
use crate::client::download::discovery::{PeerAddress, SOURCES_PER_FILE};
use crate::common::limits::{AVOIDED_MAX_BYTES, AVOIDED_MAX_USERS};
use crate::common::message::encoded_len;
use crate::common::types::UserName;

/// Wait before a lost address is dialled again; see [`DialBackoff`].
const REDIAL_WAIT_MIN: Duration = Duration::from_millis(100);
const REDIAL_WAIT_MAX: Duration = Duration::from_secs(5);

/// In how many queries a user whose upload slots are all taken is named as one that brought nothing.
const QUERIES_WITHOUT_BUSY: u32 = 3;

/// See the module.
#[derive(Default)]
pub(in crate::client::download) struct PeerHistory {
    addresses: HashMap<SocketAddr, DialBackoff>,
    /// Users that are not dialled again.
    pub(super) misbehaved: HashSet<UserName>,
    /// Users for whom a download has waited, as reported.
    pub(super) reported_waiting: HashSet<(UserName, WaitReason)>,
    /// Users whose sources brought nothing, the last one last, and in how many queries they are still named.
    unhelpful: Vec<(UserName, u32)>,
}

/// How often one address is dialled, for all users that are said to listen there together.
pub(super) struct DialBackoff {
    pub(super) not_before: Instant,
    /// Doubles with every connection that delivers nothing, except for the first one of each of a few users: one of them
    /// may be who listens here, and the others must not delay its turn.
    pub(super) backoff: Backoff,
    /// A few users whose tickets led to nothing here, the latest one last.
    failed: Vec<UserName>,
}

impl PeerHistory {
    /// The users to name in the next query as those that brought nothing.
    pub(in crate::client::download) fn avoided(&mut self) -> Vec<UserName> {
        let mut users: Vec<UserName> = self.unhelpful.iter().rev().map(|(user, _)| user.clone()).collect();
        while encoded_len(&users) > AVOIDED_MAX_BYTES {
            users.pop();
        }
        self.unhelpful.iter_mut().for_each(|(_, queries)| *queries -= 1);
        self.unhelpful.retain(|(_, queries)| *queries > 0);
        users
    }

    /// Whether the next query names a user whose upload slots were all taken.
    pub(super) fn avoids_busy(&self) -> bool {
        self.unhelpful.iter().any(|(_, queries)| *queries <= QUERIES_WITHOUT_BUSY)
    }

    /// A source of the user has delivered something.
    pub(super) fn record_help(&mut self, user: &UserName) {
        self.unhelpful.retain(|(known, _)| known != user);
    }

    /// A source of the user has ended without having delivered anything, or cannot serve a file. One that is busy may soon
    /// have a free slot.
    pub(super) fn record_no_help(&mut self, user: &UserName, is_busy: bool) {
        self.record_help(user);
        self.unhelpful.push((user.clone(), if is_busy { QUERIES_WITHOUT_BUSY } else { u32::MAX }));
        let excess = self.unhelpful.len().saturating_sub(AVOIDED_MAX_USERS);
        self.unhelpful.drain(..excess);
    }

    /// When the address may be dialled, if that is limited.
    pub(super) fn not_before(&self, address: &SocketAddr) -> Option<Instant> {
        self.addresses.get(address).map(|dial| dial.not_before)
    }

    /// Orders the users who are said to listen at one address: those whose tickets have led to nothing come last, the latest of
    /// them at the end.
    pub(super) fn turn(&self, peer: &PeerAddress) -> usize {
        let failed = self.addresses.get(&peer.address).map_or(&[][..], |dial| &dial.failed);
        failed.iter().position(|user| *user == peer.user).map_or(0, |at| at + 1)
    }

    pub(super) fn address(&mut self, now: Instant, address: SocketAddr) -> &mut DialBackoff {
        self.addresses.entry(address).or_insert_with(|| DialBackoff {
            not_before: now,
            backoff: Backoff::new(REDIAL_WAIT_MIN, REDIAL_WAIT_MAX),
            failed: Vec::new(),
        })
    }
}

impl DialBackoff {
    /// Another user at the address may have to wait for longer already.
    pub(super) fn wait_until(&mut self, at: Instant) {
        self.not_before = self.not_before.max(at);
    }

    /// A connection of the user has delivered something.
    pub(super) fn record_success(&mut self, user: &UserName) {
        self.backoff.reset();
        self.failed.retain(|failed| failed != user);
    }

    /// A connection of the user has delivered nothing.
    pub(super) fn record_failure(&mut self, user: &UserName) {
        let known = self.failed.iter().position(|failed| failed == user);
        let is_full = self.failed.len() == SOURCES_PER_FILE;
        if let Some(at) = known.or(is_full.then_some(0)) {
            self.failed.remove(at);
        }
        self.failed.push(user.clone());
        let is_first = known.is_none() && !is_full;
        if !is_first || self.failed.len() == 1 {
            self.backoff.next_wait();
        }
    }
}
