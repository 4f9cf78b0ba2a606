//! The table of sessions: by id, by owner, by deadline.
//!
//! Owns liveness. A session expires when its deadline passes. A heap of deadlines finds it without a scan: a heartbeat
//! only moves the session's own deadline, and the heap's entry is corrected when it comes up. Must not know what is sent
//! in a session.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::common::crypto::Secret;
use crate::common::limits::SUBSCRIPTIONS_MAX;
use crate::common::message::{Response, SubscriptionState, Topic};
use crate::common::packet::Nonce;
use crate::common::rate::TokenBucket;
use crate::common::session_cipher::SessionCipher;
use crate::common::types::{Audience, InstanceId, RequestId, SessionId, UserName};
use crate::server::index::OwnerId;

/// One client that is logged in.
pub struct Session {
    /// Its keys and replay window.
    pub cipher: SessionCipher,
    pub user: UserName,
    /// The user's number in the index.
    pub owner: OwnerId,
    /// The client's address; datagrams from another address are ignored.
    pub address: SocketAddr,
    pub instance: InstanceId,
    /// Since when the instance has had a session without a gap.
    pub active_since: Instant,
    /// Counts the sessions of the instance.
    pub generation: u32,
    /// The port at which the client serves peers.
    pub tcp_port: u16,
    /// Uploads that the client could start now, from its last heartbeat.
    pub free_slots: u8,
    /// Requests with lower ids are finished.
    pub lowest_pending: RequestId,
    /// The last mutation that was refused, or had nothing to change, with the reply: a copy that comes late has no other
    /// outcome.
    pub refused: Option<Box<(RequestId, Response)>>,
    /// The highest request that was logged, so that a repeat is not logged again.
    pub highest_logged: RequestId,
    /// The secret of the key that seals transfer tickets for this client as uploader.
    pub ticket_secret: Secret,
    /// When the session expires unless a datagram arrives.
    pub deadline: Instant,
    /// The handshake that began the session; dropped when the client has shown that it knows the outcome.
    pub unconfirmed: Option<Box<HandshakeReply>>,
    pub staged: Option<Box<StagedAudience>>,
    /// What is left of the session's share of the server's time, in steps.
    pub share: TokenBucket,
    pub subscriptions: Option<Box<SessionSubscriptions>>,
}

const _: () = assert!(std::mem::size_of::<Session>() <= 1_536, "with its entries in the tables, under 2 KiB");

/// How a session began, to answer a client that lost the reply.
pub enum HandshakeReply {
    /// By a login; the table of pending logins keeps LOGIN4.
    Login { nonce: Nonce },
    /// By a resumption; `resumed` is RESUMED as sent.
    Resumption { nonce: Nonce, resumed: Vec<u8> },
}

/// An audience that arrives in parts.
pub struct StagedAudience {
    /// Chosen by the client.
    pub key: u32,
    pub last_request: RequestId,
    pub parts: u16,
    pub users: Vec<UserName>,
    /// Built at its first use.
    pub audience: Option<Arc<Audience>>,
}

/// The subscriptions of one session.
#[derive(Default)]
pub struct SessionSubscriptions {
    pub topics: [Option<Topic>; SUBSCRIPTIONS_MAX],
    /// The request that set each topic last: a late repeat of an earlier one does not set it again.
    set_by: [RequestId; SUBSCRIPTIONS_MAX],
    pub state: SubscriptionState,
    pub last_sent: Option<Instant>,
    /// When CHANGED is sent, if the state has changed since.
    pub due_at: Option<Instant>,
}

impl SessionSubscriptions {
    /// Records that a request sets a subscription. Returns whether it does: not if it, or a later one, has set it before.
    pub fn try_set(&mut self, number: u8, id: RequestId) -> bool {
        let set_by = &mut self.set_by[usize::from(number)];
        let is_later = *set_by < id;
        *set_by = id.max(*set_by);
        is_later
    }
}

/// The place of a session in the table. Valid until the session is removed, then reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey(usize);

impl SessionKey {
    /// The first in their order.
    pub const FIRST: Self = Self(0);

    /// The next in their order.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

struct SessionEntry {
    session: Box<Session>,
    /// Distinguishes the session from earlier ones with the same key.
    serial: u64,
}

#[derive(Default)]
pub struct Sessions {
    entries: Slab<SessionEntry>,
    by_id: HashMap<SessionId, SessionKey>,
    by_owner: BTreeMap<OwnerId, SessionKey>,
    /// One entry for each session, at or before its deadline; and entries of removed sessions.
    deadlines: BinaryHeap<Reverse<(Instant, SessionKey, u64)>>,
    last_serial: u64,
    no_expiry_before: Option<Instant>,
}

impl Sessions {
    /// Adds a session. The owner must not have one.
    pub fn insert(&mut self, session: Session) -> SessionKey {
        self.last_serial += 1;
        let (id, owner, deadline) = (session.cipher.id(), session.owner, session.deadline);
        let entry = SessionEntry { session: Box::new(session), serial: self.last_serial };
        let key = SessionKey(self.entries.insert(entry));
        let replaced = self.by_owner.insert(owner, key);
        assert!(replaced.is_none(), "a user has one session");
        self.by_id.insert(id, key);
        self.deadlines.push(Reverse((deadline, key, self.last_serial)));
        key
    }

    pub fn remove(&mut self, key: SessionKey) -> Box<Session> {
        let session = self.entries.remove(key.0).session;
        self.by_id.remove(&session.cipher.id());
        self.by_owner.remove(&session.owner);
        session
    }

    pub fn find(&self, id: &SessionId) -> Option<SessionKey> {
        self.by_id.get(id).copied()
    }

    pub fn of_owner(&self, owner: OwnerId) -> Option<SessionKey> {
        self.by_owner.get(&owner).copied()
    }

    /// The session with this key, which must be valid.
    pub fn get(&self, key: SessionKey) -> &Session {
        &self.entries[key.0].session
    }

    pub fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.entries[key.0].session
    }

    /// The first valid key from `from` on.
    pub fn next_key(&self, from: SessionKey) -> Option<SessionKey> {
        (from.0..self.entries.capacity()).find(|&key| self.entries.contains(key)).map(SessionKey)
    }

    /// The owner's session if it is alive at `now`.
    pub fn live(&self, owner: OwnerId, now: Instant) -> Option<&Session> {
        self.of_owner(owner).map(|key| self.get(key)).filter(|session| self.end_of(session) > now)
    }

    /// The sessions of owners from `first` on that are alive at `now`, in the order of owners.
    pub fn live_from(&self, first: OwnerId, now: Instant) -> impl Iterator<Item = &Session> {
        let sessions = self.by_owner.range(first..).map(|(_, &key)| self.get(key));
        sessions.filter(move |session| self.end_of(session) > now)
    }

    /// All sessions, in the order of owners.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_owner.values().map(|&key| self.get(key))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No session expires before `until`: for a server that was suspended itself.
    pub fn postpone_expiry(&mut self, until: Instant) {
        self.no_expiry_before = self.no_expiry_before.max(Some(until));
    }

    /// When to call [`pop_expired`](Self::pop_expired) next; never later than the first session expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|&Reverse((at, ..))| self.no_expiry_before.map_or(at, |until| at.max(until)))
    }

    /// A session that has expired by `now`. The caller removes it.
    pub fn pop_expired(&mut self, now: Instant) -> Option<SessionKey> {
        while let Some(&Reverse((at, key, serial))) = self.deadlines.peek()
            && self.no_expiry_before.is_none_or(|until| until <= now)
            && at <= now
        {
            self.deadlines.pop();
            match self.entries.get(key.0) {
                Some(entry) if entry.serial == serial && entry.session.deadline <= now => return Some(key),
                Some(entry) if entry.serial == serial => {
                    self.deadlines.push(Reverse((entry.session.deadline, key, serial)));
                }
                _ => {}
            }
        }
        None
    }

    fn end_of(&self, session: &Session) -> Instant {
        self.no_expiry_before.map_or(session.deadline, |until| session.deadline.max(until))
    }
}
