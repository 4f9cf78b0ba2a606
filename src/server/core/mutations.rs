//! Publishing and withdrawing: validated and queued at once, visible and acknowledged when the journal has it durable.
//!
//! Owns the rule that nothing acts twice. A user has at most one mutation on its way; within a run ids rise; the last
//! mutation of a run is remembered with its result (and stored with the change, so a restart changes nothing). So a
//! repeat is one of three: still on its way, the last one, or older than that and nobody waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::Server;
use super::dispatch::log_sent;
use crate::common::message::{AudienceRef, Request, Response};
use crate::common::types::{Audience, FileName, NamedContent, RequestId};
use crate::server::auth::accounts::PendingMutation;
use crate::server::core::Effects;
use crate::server::core::sessions::{Session, Slot};
use crate::server::index::OwnerId;
use crate::server::journal::{Change, JournalSeq, LastMutation, Mutation};

/// Mutations on their way to the disk; beyond that clients are told BUSY.
const QUEUE_MAX: usize = 8_192;
/// Files put into the index in one go, so that a large commit does not hold up heartbeats.
const FILES_PER_TURN: usize = 128;
/// What it costs to find out what a file inherits, beside the users of the audience.
const INHERIT_STEPS: usize = 64;
/// When a client told BUSY asks again, milliseconds: the queue is full; the user's earlier run has one on its way, or
/// this turn's steps are spent.
const RETRY_FULL_MS: u16 = 200;
const RETRY_OTHER_MS: u16 = 50;

/// What is on its way to the disk.
#[derive(Default)]
pub(super) struct Mutations {
    /// Everything up to here is on the disk.
    pub(super) durable: JournalSeq,
    /// In order; the last is number `last`.
    queue: VecDeque<Mutation>,
    last: JournalSeq,
}

impl Mutations {
    /// Whether the first in the queue is durable and waits to be made visible.
    pub(super) fn is_ready(&self) -> bool {
        !self.queue.is_empty() && self.last.0 - (self.queue.len() as u64) < self.durable.0
    }

    fn push(&mut self, mutation: Mutation) {
        self.queue.push_back(mutation);
        self.last.0 += 1;
    }

    fn pop_ready(&mut self) -> Option<Mutation> {
        if self.is_ready() { self.queue.pop_front() } else { None }
    }
}

impl Server {
    /// `None`: it is on its way to the disk, and the reply comes when it is there.
    pub(super) fn mutate(
        &mut self,
        now: Instant,
        slot: Slot,
        id: RequestId,
        request: Request,
        out: &mut Effects,
    ) -> Option<Response> {
        let session = self.sessions.at(slot);
        let (owner, run, session_id) = (session.owner, session.run, session.channel.id());
        let account = self.accounts.find_mut(&session.user)?;
        if let Some(last) = account.last_mutation_of(run).filter(|last| last.request >= id) {
            let (repeated, found) = (last.request == id, last.found);
            return Some(if repeated { self.result(owner, found) } else { Response::Rejected });
        }
        if let Some(pending) = &mut account.pending {
            if pending.instance == run && pending.request == id {
                pending.session = session_id;
                return None;
            }
            return Some(Response::Busy { retry_ms: RETRY_OTHER_MS });
        }
        if self.mutations.queue.len() >= QUEUE_MAX {
            return Some(Response::Busy { retry_ms: RETRY_FULL_MS });
        }
        let change = match request {
            Request::Publish { files, audience } => match self.audience(slot, audience, &files) {
                Ok(audience) => Change::Publish { files, audience, published_s: self.wall_ms(now) / 1_000 },
                Err(refusal) => return Some(refusal),
            },
            Request::Unpublish { names } => match self.found(owner, &names) {
                0 => return Some(self.result(owner, Some(0))),
                found => Change::Unpublish { names, found },
            },
            _ => return Some(Response::Rejected),
        };
        self.queue_mutation(slot, id, change, out);
        None
    }

    fn queue_mutation(&mut self, slot: Slot, id: RequestId, change: Change, out: &mut Effects) {
        let session = self.sessions.at(slot);
        let mutation = Mutation { user: session.user.clone(), run: session.run, request: id, change };
        out.mutations.push_back(mutation.clone());
        self.mutations.push(mutation);
        if let Some(account) = self.accounts.find_mut(&session.user) {
            account.pending =
                Some(PendingMutation { instance: session.run, request: id, session: session.channel.id() });
        }
    }

    /// Makes visible and acknowledges what is durable, a bounded part of it.
    pub(super) fn apply_durable(&mut self, out: &mut Effects) {
        let mut files = 0;
        while files < FILES_PER_TURN
            && let Some(mutation) = self.mutations.pop_ready()
        {
            files += match &mutation.change {
                Change::Publish { files, .. } => files.len(),
                Change::Unpublish { names, .. } => names.len(),
            };
            self.apply(mutation, out);
        }
    }

    fn apply(&mut self, mutation: Mutation, out: &mut Effects) {
        let Some(account) = self.accounts.find_mut(&mutation.user) else { return };
        let owner = account.owner;
        let found = match &mutation.change {
            Change::Publish { files, audience, published_s } => {
                files.iter().for_each(|file| self.index.publish(owner, file, audience, *published_s));
                None
            }
            Change::Unpublish { names, found } => {
                names.iter().for_each(|name| _ = self.index.unpublish(owner, name));
                Some(*found)
            }
        };
        account.record_mutation(LastMutation { run: mutation.run, request: mutation.request, found });
        let Some(pending) = account.pending.take() else { return };
        let response = self.result(owner, found);
        if let Some(slot) = self.sessions.find(&pending.session) {
            log_sent(Level::Info, self.sessions.at(slot), true);
            self.reply(slot, pending.request, response, out);
        }
    }

    /// The reply to a mutation that is done.
    fn result(&self, owner: OwnerId, found: Option<u64>) -> Response {
        let digest = self.index.digest(owner);
        match found {
            Some(found) => Response::Unpublished { published_mask: found, digest },
            None => Response::Published { digest },
        }
    }

    /// Bit *i*: name *i* is published now and was not named before in the same request.
    fn found(&self, owner: OwnerId, names: &[FileName]) -> u64 {
        let published = |&(at, name): &(usize, &FileName)| {
            !names[..at].contains(name) && self.index.publication(owner, name).is_some()
        };
        names.iter().enumerate().filter(published).fold(0, |bits, (at, _)| bits | 1 << at)
    }

    /// Whom a PUBLISH is for.
    fn audience(
        &mut self,
        slot: Slot,
        audience: AudienceRef,
        files: &[NamedContent],
    ) -> Result<Arc<Audience>, Response> {
        let session = self.sessions.at_mut(slot);
        match audience {
            AudienceRef::Everyone => Ok(Arc::new(Audience::Everyone)),
            AudienceRef::Staged(key) => staged(session, key).ok_or(Response::UnknownAudience),
            AudienceRef::Inherited => {
                let owner = session.owner;
                self.inherited(owner, files).map(Arc::new)
            }
        }
    }

    /// What all of the files inherit. Audiences are long, and whoever is refused may ask again at once: it is charged
    /// for, as queries are.
    fn inherited(&mut self, owner: OwnerId, files: &[NamedContent]) -> Result<Audience, Response> {
        if !self.waiting.may_inherit() {
            return Err(Response::Busy { retry_ms: RETRY_OTHER_MS });
        }
        let mut common = None;
        for file in files {
            let audience = self.index.inherited_audience(owner, &file.name, file.content.hash);
            let audience = audience.ok_or(Response::NotPublished)?;
            let users = if let Audience::Only(users) = &audience { users.len() } else { 0 };
            self.waiting.inherit(INHERIT_STEPS + users);
            if *common.get_or_insert_with(|| audience.clone()) != audience {
                return Err(Response::Rejected);
            }
        }
        common.ok_or(Response::Rejected)
    }
}

fn staged(session: &mut Session, key: u32) -> Option<Arc<Audience>> {
    let staged = session.staged.as_mut().filter(|staged| staged.key == key)?;
    let users = &staged.users;
    let audience = staged.audience.get_or_insert_with(|| Arc::new(Audience::only(users.clone())));
    Some(Arc::clone(audience))
}
