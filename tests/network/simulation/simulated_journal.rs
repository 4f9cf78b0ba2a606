//! A journal in virtual time: one transaction at a time, which holds everything queued when it began. A crash loses what
//! is not durable, except that a transaction in progress may just have completed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fileshare::internals::common::types::{Audience, Content, FileName, InstanceId, NamedContent, RequestId, UserName};
use fileshare::internals::server::core::LoadedState;
use fileshare::internals::server::journal::{Change, JournalSeq, LastMutation, LoadSink, Mutation, StoredPublication};
use rand::Rng;

use crate::simulation::choices::Choices;

type Publications = BTreeMap<(UserName, FileName), (Content, Arc<Audience>, u64)>;

/// The durable state.
#[derive(Clone, Default)]
pub struct Disk {
    publications: Publications,
    last: BTreeMap<UserName, LastMutation>,
}

/// The disk, and the mutations that are not durable yet.
#[derive(Default)]
pub struct SimulatedJournal {
    pub disk: Disk,
    /// All mutations that have become durable: none may do so twice.
    applied: BTreeSet<(UserName, InstanceId, RequestId)>,
    queued: VecDeque<Mutation>,
    committing: Vec<Mutation>,
    durable: JournalSeq,
}

impl SimulatedJournal {
    /// Queues a mutation. Returns whether a transaction must be begun.
    pub fn push(&mut self, mutation: Mutation) -> bool {
        self.queued.push_back(mutation);
        self.committing.is_empty()
    }

    /// Begins a transaction.
    pub fn begin(&mut self) {
        assert!(self.committing.is_empty(), "one transaction at a time");
        self.committing.extend(self.queued.drain(..));
    }

    /// Ends the transaction. Returns the last durable mutation, and whether another transaction must be begun.
    pub fn commit(&mut self) -> (JournalSeq, bool) {
        self.durable.0 += self.committing.len() as u64;
        for mutation in std::mem::take(&mut self.committing) {
            self.apply(mutation);
        }
        (self.durable, !self.queued.is_empty())
    }

    /// The server has died: the transaction in progress is complete or lost.
    pub fn crash(&mut self, rng: &mut Choices) {
        if rng.gen_bool(0.5) {
            self.commit();
        }
        self.committing.clear();
        self.queued.clear();
        self.durable = JournalSeq(0);
    }

    /// The durable state, as a starting server reads it.
    pub fn load(&self) -> LoadedState {
        let mut stored = LoadedState::new();
        for ((user, name), (content, audience, published_s)) in &self.disk.publications {
            stored.publication(StoredPublication {
                user: user.clone(),
                file: NamedContent { name: name.clone(), content: *content },
                audience: Arc::clone(audience),
                published_s: *published_s,
            });
        }
        self.disk.last.iter().for_each(|(user, last)| stored.last_mutation(user.clone(), last.clone()));
        stored
    }

    /// Replaces the disk by a backup: mutations since then may be made again.
    pub fn restore(&mut self, disk: Disk) {
        self.disk = disk;
        self.applied.clear();
    }

    /// The user's publications on the disk.
    pub fn files_of(&self, user: &UserName) -> BTreeMap<FileName, Content> {
        self.publications_of(user).into_iter().map(|(name, (content, _))| (name, content)).collect()
    }

    /// The user's publications on the disk, with their audiences.
    pub fn publications_of(&self, user: &UserName) -> BTreeMap<FileName, (Content, Arc<Audience>)> {
        let own = self.disk.publications.iter().filter(|((owner, _), _)| owner == user);
        own.map(|((_, name), (content, audience, _))| (name.clone(), (*content, Arc::clone(audience)))).collect()
    }

    /// The names that other users publish for everyone or for this one.
    pub fn visible_to(&self, user: &UserName) -> BTreeSet<FileName> {
        let is_visible = |audience: &Audience| match audience {
            Audience::Everyone => true,
            Audience::Only(users) => users.contains(user),
        };
        let others = self.disk.publications.iter().filter(|((owner, _), _)| owner != user);
        others.filter(|(_, (_, audience, _))| is_visible(audience)).map(|((_, name), _)| name.clone()).collect()
    }

    fn apply(&mut self, mutation: Mutation) {
        let Mutation { user, instance, request, change } = mutation;
        assert!(self.applied.insert((user.clone(), instance, request)), "{request:?} of {user} is applied twice");
        let found = match change {
            Change::Publish { files, audience, published_s } => {
                for NamedContent { name, content } in files {
                    let key = (user.clone(), name);
                    let before = self.disk.publications.get(&key);
                    let same = before.filter(|(of, ..)| (of.hash, of.size) == (content.hash, content.size));
                    let published_s = same.map_or(published_s, |&(_, _, before_s)| before_s);
                    self.disk.publications.insert(key, (content, Arc::clone(&audience), published_s));
                }
                None
            }
            Change::Unpublish { names, found } => {
                for name in names {
                    self.disk.publications.remove(&(user.clone(), name));
                }
                Some(found)
            }
        };
        self.disk.last.insert(user, LastMutation { instance, request, found });
    }
}
