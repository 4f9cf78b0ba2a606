//! Who subscribes to what: the subscribers by topic, and which changes of the lists concern which of them.
//!
//! Must not know the states of subscriptions, nor when they are reported.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::sessions::{Session, SessionKey};
use crate::common::message::Topic;
use crate::common::normal_form::normal_form;
use crate::common::types::{Audience, Content, FileName, UserName};
use crate::server::index::OwnerId;

/// A subscription: its session and its number there.
pub(super) type Subscriber = (SessionKey, u8);

pub(super) const FIRST: Subscriber = (SessionKey::FIRST, 0);

/// The subscribers of every topic.
#[derive(Default)]
pub(super) struct Topics {
    to_peers: HashMap<UserName, BTreeSet<Subscriber>>,
    /// By the normal form of the name.
    to_files: HashMap<String, BTreeSet<Subscriber>>,
    /// [`Topic::Peers`] and [`Topic::Files`]: those who have not been told of a change since they subscribed.
    to_lists: BTreeMap<Topic, BTreeSet<Subscriber>>,
}

/// A change of what the lists of peers and files show to some users.
pub(super) struct ListChange {
    /// The owner who has caused it. It does not concern its own session.
    pub(super) owner: OwnerId,
    pub(super) kind: ListChangeKind,
}

pub(super) enum ListChangeKind {
    /// A session of the owner has begun or ended, and with it everything that the owner publishes.
    Activity,
    /// The owner has published or unpublished a name.
    File { name: FileName, before: Option<FileVersion>, after: Option<FileVersion> },
}

/// What an owner publishes under a name.
pub(super) type FileVersion = (Content, Arc<Audience>);

impl Topics {
    pub(super) fn is_empty(&self) -> bool {
        self.to_peers.is_empty() && self.to_files.is_empty() && self.to_lists.is_empty()
    }

    pub(super) fn has_peer(&self, user: &UserName) -> bool {
        self.to_peers.contains_key(user)
    }

    pub(super) fn has_file(&self, name: &FileName) -> bool {
        !self.to_files.is_empty() && self.to_files.contains_key(&*normal_form(name.as_str()))
    }

    pub(super) fn has_files(&self) -> bool {
        !self.to_files.is_empty()
    }

    pub(super) fn has_lists(&self) -> bool {
        !self.to_lists.is_empty()
    }

    pub(super) fn add(&mut self, topic: &Topic, subscriber: Subscriber) {
        match topic {
            Topic::Peer(user) => self.to_peers.entry(user.clone()).or_default().insert(subscriber),
            Topic::File(name) => self.to_files.entry(normal_form(name.as_str()).into()).or_default().insert(subscriber),
            Topic::Peers | Topic::Files(_) => self.to_lists.entry(topic.clone()).or_default().insert(subscriber),
        };
    }

    pub(super) fn remove(&mut self, topic: &Topic, subscriber: Subscriber) {
        let subscribers = self.of_mut(topic);
        let is_last = subscribers.is_some_and(|subscribers| subscribers.remove(&subscriber) && subscribers.is_empty());
        match topic {
            Topic::Peer(user) if is_last => _ = self.to_peers.remove(user),
            Topic::File(name) if is_last => _ = self.to_files.remove(&*normal_form(name.as_str())),
            Topic::Peers | Topic::Files(_) if is_last => _ = self.to_lists.remove(topic),
            _ => {}
        }
    }

    fn of_mut(&mut self, topic: &Topic) -> Option<&mut BTreeSet<Subscriber>> {
        match topic {
            Topic::Peer(user) => self.to_peers.get_mut(user),
            Topic::File(name) => self.to_files.get_mut(&*normal_form(name.as_str())),
            Topic::Peers | Topic::Files(_) => self.to_lists.get_mut(topic),
        }
    }

    /// The first subscriber to a topic from `from` on.
    pub(super) fn next(&mut self, topic: &Topic, from: Subscriber) -> Option<Subscriber> {
        self.of_mut(topic)?.range(from..).next().copied()
    }

    /// The topic of lists that follows this one.
    pub(super) fn next_list(&self, after: Option<&Topic>) -> Option<Topic> {
        let after = after.map_or(Unbounded, Excluded);
        self.to_lists.range((after, Unbounded)).next().map(|(topic, _)| topic.clone())
    }
}

impl ListChange {
    /// Whether the change concerns a topic, and the steps it took to find out.
    pub(super) fn concerns(&self, topic: &Topic) -> (bool, usize) {
        match (&self.kind, topic) {
            (ListChangeKind::Activity, _) => (true, 1),
            (ListChangeKind::File { name, .. }, Topic::Files(pattern)) => pattern.matches_in_steps(name),
            (ListChangeKind::File { .. }, _) => (false, 1),
        }
    }

    /// Whether lists show something else to this session than before.
    pub(super) fn is_visible_to(&self, session: &Session) -> bool {
        if session.owner == self.owner {
            return false;
        }
        let ListChangeKind::File { before, after, .. } = &self.kind else { return true };
        let shown = |version: &Option<FileVersion>| {
            let (content, audience) = version.as_ref()?;
            audience.includes(&session.user).then_some((content.hash, content.size))
        };
        shown(before) != shown(after)
    }
}
