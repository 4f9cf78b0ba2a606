//! Publishing and unpublishing: validated and queued at once; visible and acknowledged when the journal has stored it.
//!
//! Owns exactly-once execution. A user has at most one mutation in progress. Within a client instance, request ids rise,
//! and the last mutation is remembered with its result (the journal stores it together with the change, so that a restart
//! makes no difference). So a repeated request is one of three: in progress; the last one, whose reply is repeated; or
//! older, so that the client no longer waits for a reply.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use super::Server;
use super::query_budget::NAME_BYTE_STEPS;
use super::request_log::log_sent;
use super::sessions::{Session, SessionKey};
use super::stats::{ReplyStatus, RequestKind};
use crate::common::limits::AUDIENCE_MAX_USERS;
use crate::common::message::{AudienceRef, Request, Response};
use crate::common::types::{Audience, FileName, NamedContent, RequestId, UserName};
use crate::server::auth::accounts::PendingMutation;
use crate::server::core::Effects;
use crate::server::index::{Index, OwnerId};
use crate::server::journal::{Change, JournalSeq, LastMutation, Mutation};

/// Mutations that may be in progress; beyond that, clients get BUSY.
const QUEUE_MAX: usize = 8_192;
/// Mutations are put into the index until their cost is this: 0.1 to 0.3 ms, so that a large commit does not delay others.
const APPLY_STEPS_PER_ITERATION: usize = 512;
/// The cost of one file, besides the bytes of its name, each of which is a trigram to be found.
const APPLY_FILE_STEPS: usize = 16;
/// The cost of finding the audience that a file inherits, besides the users in it.
const INHERIT_STEPS: usize = 64;
/// Users that may be examined for the files of one request, so that it does not delay heartbeats.
const INHERIT_BATCH_STEPS_MAX: usize = AUDIENCE_MAX_USERS;
/// Delay before a client repeats a request that got BUSY because the queue is full, in milliseconds.
const RETRY_FULL_MS: u16 = 200;
/// The same delay if the user has another mutation in progress or the budget of this iteration is exhausted.
const RETRY_OTHER_MS: u16 = 50;

/// The mutations that the journal has not stored or the index has not taken yet.
#[derive(Default)]
pub(super) struct Mutations {
    /// The journal has stored everything up to here.
    pub(super) durable: JournalSeq,
    /// In order; the last one has the number `last`.
    queue: VecDeque<Mutation>,
    last: JournalSeq,
}

impl Mutations {
    /// Whether the first mutation of the queue is durable and can be applied.
    pub(super) fn has_durable(&self) -> bool {
        !self.queue.is_empty() && self.last.0 - (self.queue.len() as u64) < self.durable.0
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn push(&mut self, mutation: Mutation) {
        self.queue.push_back(mutation);
        self.last.0 += 1;
    }

    fn pop_durable(&mut self) -> Option<Mutation> {
        if self.has_durable() { self.queue.pop_front() } else { None }
    }
}

impl Server {
    /// Queues a PUBLISH or UNPUBLISH for the journal, or answers it at once if there is nothing to store.
    /// `None`: the reply follows when the journal has stored it.
    pub(super) fn on_mutation(
        &mut self,
        now: Instant,
        key: SessionKey,
        id: RequestId,
        request: Request,
        out: &mut Effects,
    ) -> Option<Response> {
        let session = self.sessions.get(key);
        let (owner, instance, session_id) = (session.owner, session.instance, session.cipher.id());
        let account = self.accounts.get_mut(&session.user)?;
        if let Some(last) = account.last_mutation_of(instance).filter(|last| last.request >= id) {
            let (is_repeated, found) = (last.request == id, last.found);
            return if is_repeated { self.reply_for(owner, found) } else { Response::Rejected }.into();
        }
        if let Some(pending) = &mut account.pending {
            if pending.instance == instance && pending.request == id {
                pending.session = session_id;
                return None;
            }
            return Response::Busy { retry_ms: RETRY_OTHER_MS }.into();
        }
        if let Some((refused, response)) =
            self.sessions.get(key).refused.as_deref().filter(|(refused, _)| *refused >= id)
        {
            return if *refused == id { response.clone() } else { Response::Rejected }.into();
        }
        if self.charge_session(now, key, 0) > Duration::ZERO {
            return Response::Busy { retry_ms: RETRY_OTHER_MS }.into();
        }
        if self.mutations.queue.len() >= QUEUE_MAX {
            return Response::Busy { retry_ms: RETRY_FULL_MS }.into();
        }
        let change = match request {
            Request::Publish { files, audience } => self.publish_change(now, key, files, audience),
            Request::Unpublish { names } => self.unpublish_change(now, key, names),
            _ => Err(Response::Rejected),
        };
        match change {
            Ok(change) => {
                self.queue_mutation(key, id, change, out);
                None
            }
            Err(response) => {
                if !matches!(response, Response::Busy { .. }) {
                    self.sessions.get_mut(key).refused = Some(Box::new((id, response.clone())));
                }
                response.into()
            }
        }
    }

    /// What a PUBLISH has to store. The user has no other mutation in progress, so the index shows all that it has
    /// published. The error is the reply if there is nothing to store.
    fn publish_change(
        &mut self,
        now: Instant,
        key: SessionKey,
        files: Vec<NamedContent>,
        audience: AudienceRef,
    ) -> Result<Change, Response> {
        let audience = self.audience_for(now, key, audience, &files)?;
        let session = self.sessions.get(key);
        let usage = self.index.usage_change(session.owner, &files, &audience);
        let name_bytes = files.iter().map(|file| file.name.as_str().len()).sum();
        self.charge(now, key, files.len() as u64 + usage.new_members, name_bytes)?;
        match self.config.quotas.refusal(&usage) {
            Some(refusal) => Err(refusal),
            None => Ok(Change::Publish { files, audience, published_s: self.wall_ms(now) / 1_000 }),
        }
    }

    /// The same of an UNPUBLISH.
    fn unpublish_change(&mut self, now: Instant, key: SessionKey, names: Vec<FileName>) -> Result<Change, Response> {
        let owner = self.sessions.get(key).owner;
        match self.published_mask(owner, &names) {
            0 => Err(self.reply_for(owner, Some(0))),
            found => {
                let name_bytes = names.iter().map(|name| name.as_str().len()).sum();
                self.charge(now, key, names.len() as u64, name_bytes)?;
                Ok(Change::Unpublish { names, found })
            }
        }
    }

    /// Charges the user's rate and the session's share for a mutation. The error delays it.
    fn charge(&mut self, now: Instant, key: SessionKey, files: u64, name_bytes: usize) -> Result<(), Response> {
        self.charge_session(now, key, NAME_BYTE_STEPS * name_bytes as u64);
        let account = self.accounts.get_mut(&self.sessions.get(key).user).ok_or(Response::Rejected)?;
        self.config.quotas.take(&mut account.mutation_bucket, now, files)
    }

    fn queue_mutation(&mut self, key: SessionKey, id: RequestId, change: Change, out: &mut Effects) {
        let session = self.sessions.get(key);
        let mutation = Mutation { user: session.user.clone(), instance: session.instance, request: id, change };
        out.mutations.push_back(mutation.clone());
        self.mutations.push(mutation);
        if let Some(account) = self.accounts.get_mut(&session.user) {
            let (instance, session) = (session.instance, session.cipher.id());
            account.pending = Some(PendingMutation { instance, request: id, session });
        }
    }

    /// Applies and acknowledges a bounded number of durable mutations.
    pub(super) fn apply_durable(&mut self, out: &mut Effects) {
        let mut steps = 0;
        while steps < APPLY_STEPS_PER_ITERATION
            && self.subscriptions.has_capacity()
            && let Some(mutation) = self.mutations.pop_durable()
        {
            steps += match &mutation.change {
                Change::Publish { files, .. } => apply_steps(files.iter().map(|file| &file.name)),
                Change::Unpublish { names, .. } => apply_steps(names),
            };
            self.apply(mutation, out);
        }
    }

    fn apply(&mut self, mutation: Mutation, out: &mut Effects) {
        let Some(owner) = self.accounts.get(&mutation.user).map(|account| account.owner) else { return };
        let found = match &mutation.change {
            Change::Publish { files, audience, published_s } => {
                for file in files {
                    self.change_file(owner, &file.name, |index| index.publish(owner, file, audience, *published_s));
                }
                None
            }
            Change::Unpublish { names, found } => {
                for name in names {
                    self.change_file(owner, name, |index| _ = index.unpublish(owner, name));
                }
                Some(*found)
            }
        };
        let Some(account) = self.accounts.get_mut(&mutation.user) else { return };
        account.record_mutation(LastMutation { instance: mutation.instance, request: mutation.request, found });
        let Some(pending) = account.pending.take() else { return };
        let response = self.reply_for(owner, found);
        if let Some(key) = self.sessions.find(&pending.session) {
            let kind = if found.is_some() { RequestKind::Unpublish } else { RequestKind::Publish };
            log_sent(&mut self.counters, Level::Info, self.sessions.get(key), kind, ReplyStatus::Ok);
            self.send_reply(key, pending.request, 0, response, out);
        }
    }

    /// Changes what the owner publishes under a name, for all to see who may.
    fn change_file(&mut self, owner: OwnerId, name: &FileName, change: impl FnOnce(&mut Index)) {
        let has_lists = self.subscriptions.has_lists() && self.index.is_active(owner);
        let version = |index: &Index| if has_lists { index.version(owner, name) } else { None };
        let before = version(&self.index);
        change(&mut self.index);
        self.subscriptions.on_file(owner, name);
        if has_lists {
            self.subscriptions.on_list(owner, name, before, version(&self.index));
        }
    }

    /// The reply to a mutation that is done. `found` is the mask of an UNPUBLISH.
    fn reply_for(&self, owner: OwnerId, found: Option<u64>) -> Response {
        let digest = self.index.digest(owner);
        match found {
            Some(found) => Response::Unpublished { published_mask: found, digest },
            None => Response::Published { digest },
        }
    }

    /// Bit *i*: name *i* is published and does not occur earlier in the same request.
    fn published_mask(&self, owner: OwnerId, names: &[FileName]) -> u64 {
        let published = |&(at, name): &(usize, &FileName)| {
            !names[..at].contains(name) && self.index.publication(owner, name).is_some()
        };
        names.iter().enumerate().filter(published).map(|(at, _)| 1 << at).sum()
    }

    /// The audience of a PUBLISH. The error is the reply that rejects the request.
    fn audience_for(
        &mut self,
        now: Instant,
        key: SessionKey,
        audience: AudienceRef,
        files: &[NamedContent],
    ) -> Result<Arc<Audience>, Response> {
        let session = self.sessions.get_mut(key);
        match audience {
            AudienceRef::Everyone => Ok(Arc::new(Audience::Everyone)),
            AudienceRef::Staged(staging_key) => staged_audience(session, staging_key).ok_or(Response::UnknownAudience),
            AudienceRef::Inherited { owners } => {
                let requester = session.owner;
                let mut steps = 0;
                let audience = self.inherited_audience(requester, &owners, files, &mut steps);
                self.charge_session(now, key, steps as u64);
                audience.map(Arc::new)
            }
        }
    }

    /// The one audience that all of the files inherit. Audiences are long, and a client whose request is rejected may
    /// repeat it at once: so the steps are charged to a budget, as those of queries are.
    fn inherited_audience(
        &mut self,
        requester: OwnerId,
        owners: &[UserName],
        files: &[NamedContent],
        steps: &mut usize,
    ) -> Result<Audience, Response> {
        if !self.query_budget.may_inherit() {
            return Err(Response::Busy { retry_ms: RETRY_OTHER_MS });
        }
        let mut common = None;
        for file in files {
            let steps_before = *steps;
            let audience = self.index.inherited_audience(requester, owners, file, steps);
            self.query_budget.charge_inherit(INHERIT_STEPS + *steps - steps_before);
            let audience = audience.ok_or(Response::NotPublished)?;
            // The client splits a batch that is rejected into single files.
            let is_too_long = files.len() > 1 && *steps > INHERIT_BATCH_STEPS_MAX;
            if is_too_long || *common.get_or_insert_with(|| audience.clone()) != audience {
                return Err(Response::Rejected);
            }
        }
        common.ok_or(Response::Rejected)
    }
}

fn apply_steps<'a>(names: impl IntoIterator<Item = &'a FileName>) -> usize {
    names.into_iter().map(|name| APPLY_FILE_STEPS + name.as_str().len()).sum()
}

fn staged_audience(session: &mut Session, staging_key: u32) -> Option<Arc<Audience>> {
    let staged = session.staged.as_mut().filter(|staged| staged.key == staging_key)?;
    let users = &staged.users;
    let audience = staged.audience.get_or_insert_with(|| Arc::new(Audience::only(users.clone())));
    Some(Arc::clone(audience))
}
