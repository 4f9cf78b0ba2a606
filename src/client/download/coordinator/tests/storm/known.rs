//! What the oracle knows of files, connections and addresses: what was reported to the coordinator, and nothing derived.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::*;

/// Connections without a verified group after which a source does not keep a file waiting.
const EMPTY_CONNECTIONS_MAX: u32 = 3;
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct KnownFile {
    pub groups: u32,
    pub is_ended: bool,
    pub is_saved: bool,
    pub was_offered: bool,
    pub opened: Option<Arc<IncompleteFile>>,
    pub is_open_asked: bool,
    pub is_finalizing: bool,
    /// Groups that the partial file may hold and that are not examined.
    pub unchecked: BTreeSet<u32>,
    /// Groups that are here and right.
    pub here: BTreeSet<u32>,
    /// The last assignment of each group.
    pub assigned: BTreeMap<u32, u32>,
    /// Assignments that have arrived and are being stored.
    pub checking: BTreeSet<u32>,
    /// Bytes reported as received.
    pub done: u64,
    /// Users that have said that they do not have it, or that broke their promises.
    pub excluded: BTreeSet<UserName>,
    /// Users whose groups are here.
    pub owners: BTreeSet<UserName>,
    /// The last time at which a usable source was known. May be in the future.
    pub usable_until: Option<Instant>,
    /// Connections of each peer, since the last verified group: not established, and without a verified group.
    pub unreached: HashMap<PeerAddress, u32>,
    pub empty: HashMap<PeerAddress, u32>,
    /// Outcomes that the local disk has reported.
    pub outcomes: Vec<String>,
}

pub(super) struct KnownConnection {
    pub peer: PeerAddress,
    pub is_connected: bool,
    pub is_stopped: bool,
    pub is_cancelling: bool,
    /// Files for which tickets are presented.
    pub announced: BTreeSet<FileId>,
    /// Files whose ticket it has accepted.
    pub granted: BTreeSet<FileId>,
    pub pending_tickets: usize,
    /// Groups of files that it does not have whole.
    pub partial: BTreeMap<FileId, BTreeSet<u32>>,
    pub owed: Vec<Assignment>,
    pub has_delivered: bool,
    pub sent_wrong_bytes: bool,
    pub broken_promises: u32,
}

/// An address, and the connections that have failed there since one has helped.
pub(super) struct KnownAddress {
    /// A dial before this time is too early: each failure of one user doubles the wait.
    pub earliest: Instant,
    /// A dial after this time is too late.
    pub latest: Instant,
    failures: HashMap<UserName, u32>,
}

impl KnownFile {
    pub fn is_large(&self) -> bool {
        self.groups > 1
    }

    /// Whether groups of it can be requested.
    pub fn is_open(&self) -> bool {
        !self.is_ended && (!self.is_large() || self.opened.is_some())
    }

    pub fn is_viable(&self, peer: &PeerAddress, is_connected: bool) -> bool {
        let count = |map: &HashMap<PeerAddress, u32>| map.get(peer).copied().unwrap_or(0);
        count(&self.empty) < EMPTY_CONNECTIONS_MAX && (is_connected || count(&self.unreached) == 0)
    }

    pub fn extend(&mut self, until: Instant) {
        self.usable_until = self.usable_until.max(Some(until));
    }
}

impl KnownConnection {
    pub fn new(peer: PeerAddress) -> Self {
        Self {
            peer,
            is_connected: false,
            is_stopped: false,
            is_cancelling: false,
            announced: BTreeSet::new(),
            granted: BTreeSet::new(),
            pending_tickets: 0,
            partial: BTreeMap::new(),
            owed: Vec::new(),
            has_delivered: false,
            sent_wrong_bytes: false,
            broken_promises: 0,
        }
    }

    pub fn is_usable(&self) -> bool {
        self.is_connected && !self.is_stopped
    }

    /// Whether it can be asked for the group.
    pub fn has(&self, file: FileId, group: u32) -> bool {
        self.granted.contains(&file) && self.partial.get(&file).is_none_or(|groups| groups.contains(&group))
    }

    /// It does not serve the file any more.
    pub fn lose(&mut self, file: FileId) {
        self.announced.remove(&file);
        self.granted.remove(&file);
        self.partial.remove(&file);
        self.owed.retain(|assignment| assignment.file != file);
    }
}

impl KnownAddress {
    pub fn new(now: Instant) -> Self {
        Self { earliest: now, latest: now, failures: HashMap::new() }
    }

    pub fn record_busy(&mut self, retry_at: Instant) {
        (self.earliest, self.latest) = (self.earliest.max(retry_at), self.latest.max(retry_at));
    }

    pub fn record_success(&mut self) {
        self.failures.clear();
    }

    /// A connection was lost. `is_failure`: it had delivered nothing.
    pub fn record_loss(&mut self, now: Instant, user: &UserName, is_failure: bool) {
        let wait = |doublings: u32| (REDIAL_MIN * 2_u32.pow(doublings.min(10))).min(REDIAL_MAX);
        if !is_failure {
            self.failures.clear();
        } else {
            *self.failures.entry(user.clone()).or_default() += 1;
        }
        let own = self.failures.get(user).copied().unwrap_or(0);
        self.earliest = self.earliest.max(now + wait(own.saturating_sub(1)));
        self.latest = self.latest.max(now + wait(self.failures.values().sum()));
    }
}
