//! The sessions that stand: by id, by owner, by the moment they end.
//!
//! Owns liveness. A session ends when its deadline passes, found by a heap of deadlines, never by a scan: a heartbeat
//! only moves the session's own deadline, and the heap's entry follows when it comes up. Must not know what a session
//! says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::common::crypto::Secret;
use crate::common::packet::Nonce;
use crate::common::session_cipher::SessionCipher;
use crate::common::types::{Audience, InstanceId, RequestId, SessionId, UserName};
use crate::server::index::OwnerId;

/// One client that is logged in.
pub struct Session {
    /// Its keys and replay window.
    pub channel: SessionCipher,
    /// Who.
    pub user: UserName,
    /// The same in the index.
    pub owner: OwnerId,
    /// The only address it is heard from.
    pub address: SocketAddr,
    /// Which run of the client.
    pub run: InstanceId,
    /// Which session of that run.
    pub generation: u32,
    /// Where its listener serves peers.
    pub tcp_port: u16,
    /// Uploads it could start at once, from its last heartbeat.
    pub free_slots: u8,
    /// Requests below are finished.
    pub floor: RequestId,
    /// The highest request that has been logged, so that a repeat is not logged again.
    pub logged: RequestId,
    /// What transfer tickets for this client as uploader are sealed with; expanded when needed.
    pub ticket_secret: Secret,
    /// When it ends unless it is heard of.
    pub deadline: Instant,
    /// How it began; dropped when the client has shown that it knows.
    pub beginning: Option<Box<Beginning>>,
    /// An audience under construction.
    pub staged: Option<Box<Staged>>,
}

const _: () = assert!(std::mem::size_of::<Session>() <= 1_536, "with its entries in the tables, under 2 KiB");

/// The step that a session began with, in case the client asks again because the answer was lost.
pub struct Beginning {
    /// Of the login or resumption.
    pub nonce: Nonce,
    /// RESUMED as it was sent; empty for a login, whose answer the login table keeps.
    pub resumed: Vec<u8>,
}

/// An audience that arrives in parts.
pub struct Staged {
    /// Chosen by the client.
    pub key: u32,
    /// Parts taken.
    pub parts: u16,
    /// The users so far.
    pub users: Vec<UserName>,
    /// Built at its first use.
    pub audience: Option<Arc<Audience>>,
}

/// Where a session is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u32);

struct Held {
    session: Box<Session>,
    serial: u64,
}

/// All of them.
#[derive(Default)]
pub struct Sessions {
    slots: Vec<Option<Held>>,
    free: Vec<Slot>,
    by_id: HashMap<SessionId, Slot>,
    by_owner: BTreeMap<OwnerId, Slot>,
    deadlines: BinaryHeap<Reverse<(Instant, Slot, u64)>>,
    serials: u64,
    forgiven_until: Option<Instant>,
}

impl Sessions {
    /// Takes a session in. The owner must not have one.
    pub fn insert(&mut self, session: Session) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(u32::try_from(self.slots.len() - 1).expect("fewer sessions than addresses"))
        });
        self.serials += 1;
        let replaced = self.by_owner.insert(session.owner, slot);
        assert!(replaced.is_none(), "a user has one session");
        self.by_id.insert(session.channel.id(), slot);
        self.deadlines.push(Reverse((session.deadline, slot, self.serials)));
        self.slots[slot.0 as usize] = Some(Held { session: Box::new(session), serial: self.serials });
        slot
    }

    /// Forgets a session.
    pub fn remove(&mut self, slot: Slot) -> Box<Session> {
        let held = self.slots[slot.0 as usize].take().expect("slots in use are known by their tables");
        self.by_id.remove(&held.session.channel.id());
        self.by_owner.remove(&held.session.owner);
        self.free.push(slot);
        held.session
    }

    /// Where the session of this id is.
    pub fn find(&self, id: &SessionId) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    /// Where the owner's session is.
    pub fn of_owner(&self, owner: OwnerId) -> Option<Slot> {
        self.by_owner.get(&owner).copied()
    }

    /// The session in a slot.
    pub fn at(&self, slot: Slot) -> &Session {
        &self.slots[slot.0 as usize].as_ref().expect("slots in use are known by their tables").session
    }

    /// The session in a slot.
    pub fn at_mut(&mut self, slot: Slot) -> &mut Session {
        &mut self.slots[slot.0 as usize].as_mut().expect("slots in use are known by their tables").session
    }

    /// The owner's session if it is alive at `now`.
    pub fn live(&self, owner: OwnerId, now: Instant) -> Option<&Session> {
        self.of_owner(owner).map(|slot| self.at(slot)).filter(|session| self.end_of(session) > now)
    }

    /// The sessions of owners from `first` on that are alive at `now`, in the order of owners.
    pub fn live_from(&self, first: OwnerId, now: Instant) -> impl Iterator<Item = &Session> {
        let sessions = self.by_owner.range(first..).map(|(_, &slot)| self.at(slot));
        sessions.filter(move |session| self.end_of(session) > now)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The server itself has slept: nobody is declared dead before `until`.
    pub fn forgive(&mut self, until: Instant) {
        self.forgiven_until = self.forgiven_until.max(Some(until));
    }

    /// When [`pop_expired`](Self::pop_expired) must be asked again; never later than the first end of a session.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|&Reverse((at, ..))| self.forgiven_until.map_or(at, |until| at.max(until)))
    }

    /// A session that has ended by `now`. It is still to be removed.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Slot> {
        while let Some(&Reverse((at, slot, serial))) = self.deadlines.peek()
            && self.forgiven_until.is_none_or(|until| until <= now)
            && at <= now
        {
            self.deadlines.pop();
            match &self.slots[slot.0 as usize] {
                Some(held) if held.serial == serial && held.session.deadline <= now => return Some(slot),
                Some(held) if held.serial == serial => {
                    self.deadlines.push(Reverse((held.session.deadline, slot, serial)));
                }
                _ => {}
            }
        }
        None
    }

    fn end_of(&self, session: &Session) -> Instant {
        self.forgiven_until.map_or(session.deadline, |until| session.deadline.max(until))
    }
}
