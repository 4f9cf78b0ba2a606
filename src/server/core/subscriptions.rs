//! Subscriptions: a session learns when a peer or a file appears or disappears, without asking.
//!
//! A subscription has a state (present, absent, or unknown for a while after a start) as its subscriber may see it.
//! When something happens that may change a state, the topic is queued; later, within a budget for each iteration, the
//! state is found anew for every subscriber and compared with the last one. So what comes and goes in between is not
//! reported, and what the subscriber may not see never is: it changes no state. The queue is served round robin by the
//! owner who caused the change, so that hidden changes of one user delay those of another by at most one slice.
//!
//! A list (of peers, or of the files that match a pattern) has no state that could be found anew. Its subscription becomes
//! present with the first change that its subscriber may see, and leaves the table until the client subscribes again,
//! before it asks for the list: so no change is missed, and a change costs one report however many follow it. Changes of
//! files are queued with what was published before and after, since only these say who may see them.
//!
//! CHANGED is sent at once, and then at most ten times a second to a session until its client subscribes again. It may
//! be lost: acknowledgements of heartbeats carry the same state.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::Server;
use super::sessions::{Session, SessionKey};
use super::topics::{FIRST, FileVersion, ListChange, ListChangeKind, Subscriber, Topics};
use crate::common::limits::{RESET_DELAY_MAX, SUBSCRIPTIONS_MAX};
use crate::common::message::{Response, ServerMessage, SubscriptionState, Topic};
use crate::common::types::{FileName, RequestId, UserName};
use crate::server::core::Effects;
use crate::server::fair_queue::FairQueue;
use crate::server::index::OwnerId;

/// Subscribers and publications examined in one iteration: well below a millisecond.
const STEPS_PER_ITERATION: usize = 256;
/// The same in one slice.
const SLICE_STEPS: usize = 64;
/// Changes that may be queued before durable mutations wait.
const QUEUE_MAX: usize = 1_024;
/// CHANGED messages sent in one iteration.
const SENDS_PER_ITERATION: usize = 16;
/// Shortest time between two CHANGED to a session.
const SEND_INTERVAL: Duration = Duration::from_millis(100);

/// All subscriptions by topic, and what is to be done for them.
#[derive(Default)]
pub(super) struct Subscriptions {
    topics: Topics,
    /// What may have changed, by the owner who caused it; `None`: the passing of time.
    queue: FairQueue<Option<OwnerId>, Recheck>,
    /// Absence is reliable: all clients that were active before the start had time to resume.
    is_settled: bool,
    /// The owners whose clients have used a session since the start: their absence is reliable before.
    seen: HashSet<OwnerId>,
    /// The sessions that are sent CHANGED, and when.
    due: BTreeSet<(Instant, SessionKey)>,
}

enum Recheck {
    /// The states of the subscribers to this topic, from this one on.
    Topic { topic: Topic, from: Subscriber },
    /// Files that the owner publishes, from this name id on.
    FilesOfOwner { owner: OwnerId, from: u32 },
    /// The subscribers to lists, from this one of this topic on; `None`: all.
    Lists { change: ListChange, from: Option<(Topic, Subscriber)> },
    /// The subscriptions of all sessions, from this one on.
    Sessions { from: SessionKey },
}

impl Subscriptions {
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether another mutation may be applied.
    pub(super) fn has_capacity(&self) -> bool {
        self.queue.len() < QUEUE_MAX
    }

    /// When CHANGED is due next.
    pub(super) fn next_send(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether changes of lists have subscribers, who must be told by [`on_list`](Self::on_list) what was there before.
    pub(super) fn has_lists(&self) -> bool {
        self.topics.has_lists()
    }

    /// The owner has published or unpublished this name.
    pub(super) fn on_file(&mut self, owner: OwnerId, name: &FileName) {
        if self.topics.has_file(name) {
            self.queue.push(Some(owner), Recheck::Topic { topic: Topic::File(name.clone()), from: FIRST });
        }
    }

    /// The same, of an active owner, for the subscribers to lists.
    pub(super) fn on_list(
        &mut self,
        owner: OwnerId,
        name: &FileName,
        before: Option<FileVersion>,
        after: Option<FileVersion>,
    ) {
        let kind = ListChangeKind::File { name: name.clone(), before, after };
        self.queue.push(Some(owner), Recheck::Lists { change: ListChange { owner, kind }, from: None });
    }

    /// The owner has become active or inactive.
    pub(super) fn on_activity(&mut self, owner: OwnerId, user: &UserName) {
        if self.topics.has_peer(user) {
            self.queue.push(Some(owner), Recheck::Topic { topic: Topic::Peer(user.clone()), from: FIRST });
        }
        if self.topics.has_files() {
            self.queue.push(Some(owner), Recheck::FilesOfOwner { owner, from: 0 });
        }
        if self.topics.has_lists() {
            let change = ListChange { owner, kind: ListChangeKind::Activity };
            self.queue.push(Some(owner), Recheck::Lists { change, from: None });
        }
    }

    /// The client of a session of the owner has shown that it knows the session.
    pub(super) fn on_confirmed(&mut self, owner: OwnerId) {
        if !self.is_settled {
            self.seen.insert(owner);
        }
    }

    /// Removes all subscriptions of a session that has ended.
    pub(super) fn remove_session(&mut self, key: SessionKey, session: &Session) {
        let Some(subscriptions) = &session.subscriptions else { return };
        for (number, topic) in (0..).zip(&subscriptions.topics) {
            topic.iter().for_each(|topic| self.topics.remove(topic, (key, number)));
        }
        subscriptions.due_at.iter().for_each(|at| _ = self.due.remove(&(*at, key)));
    }
}

impl Server {
    /// SUBSCRIBE: sets one subscription. The reply has its state as of now.
    pub(super) fn on_subscribe(&mut self, key: SessionKey, id: RequestId, number: u8, topic: Topic) -> Response {
        let subscriptions = self.sessions.get_mut(key).subscriptions.get_or_insert_default();
        // The reply has the latest state: the interval limits only what is sent without being asked for.
        subscriptions.last_sent = None;
        if subscriptions.try_set(number, id) {
            subscriptions.state.set(number, Presence::Unknown);
            if let Some(replaced) = subscriptions.topics[usize::from(number)].replace(topic.clone()) {
                self.subscriptions.topics.remove(&replaced, (key, number));
            }
            self.subscriptions.topics.add(&topic, (key, number));
            let updated = self.update_state((key, number), &topic);
            self.query_budget.charge(updated.steps);
        }
        Response::Subscribed(self.subscription_state(key))
    }

    /// UNSUBSCRIBE.
    pub(super) fn on_unsubscribe(&mut self, key: SessionKey, id: RequestId, numbers: u32) -> Response {
        // Also for a session that has none yet: the request may have overtaken the one that sets it.
        let subscriptions = self.sessions.get_mut(key).subscriptions.get_or_insert_default();
        for number in (0..SUBSCRIPTIONS_MAX as u8).filter(|number| numbers & 1 << number != 0) {
            if subscriptions.try_set(number, id) {
                subscriptions.state.set(number, Presence::Unknown);
                let topic = subscriptions.topics[usize::from(number)].take();
                topic.iter().for_each(|topic| self.subscriptions.topics.remove(topic, (key, number)));
            }
        }
        Response::Subscribed(self.subscription_state(key))
    }

    /// The state of a session's subscriptions.
    pub(super) fn subscription_state(&self, key: SessionKey) -> SubscriptionState {
        self.sessions.get(key).subscriptions.as_ref().map(|subscriptions| subscriptions.state).unwrap_or_default()
    }

    /// When absence becomes reliable, if a session waits for it.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        let at = self.started + self.config.liveness + RESET_DELAY_MAX;
        (!self.subscriptions.topics.is_empty() && !self.subscriptions.is_settled).then_some(at)
    }

    /// Finds changed states and sends CHANGED, a bounded part in each iteration.
    pub(super) fn run_subscriptions(&mut self, now: Instant, out: &mut Effects) {
        if self.settles_at().is_some_and(|at| at <= now) {
            (self.subscriptions.is_settled, self.subscriptions.seen) = (true, HashSet::new());
            self.subscriptions.queue.push(None, Recheck::Sessions { from: SessionKey::FIRST });
        }
        let mut steps = 0;
        while steps < STEPS_PER_ITERATION
            && let Some((cause, recheck)) = self.subscriptions.queue.pop()
        {
            steps += match recheck {
                Recheck::Topic { topic, from } => self.update_subscribers(now, cause, topic, from),
                Recheck::FilesOfOwner { owner, from } => self.queue_files(owner, from),
                Recheck::Lists { change, from } => self.report_list_change(now, change, from),
                Recheck::Sessions { from } => self.update_sessions(now, from),
            };
        }
        for _ in 0..SENDS_PER_ITERATION {
            let Some((_, key)) = self.subscriptions.due.first().copied().filter(|(at, _)| *at <= now) else { break };
            self.subscriptions.due.pop_first();
            let state = self.subscription_state(key);
            let session = self.sessions.get_mut(key);
            if let Some(subscriptions) = &mut session.subscriptions {
                (subscriptions.last_sent, subscriptions.due_at) = (Some(now), None);
            }
            out.send_sealed(session.address, &mut session.cipher, &ServerMessage::Changed(state));
        }
    }

    /// Updates the states of the subscribers to a topic, from one on, within a slice. Returns the steps taken.
    fn update_subscribers(
        &mut self,
        now: Instant,
        cause: Option<OwnerId>,
        topic: Topic,
        mut from: Subscriber,
    ) -> usize {
        let mut steps = 1;
        while let Some(subscriber) = self.subscriptions.topics.next(&topic, from) {
            if steps >= SLICE_STEPS {
                self.subscriptions.queue.push(cause, Recheck::Topic { topic, from: subscriber });
                break;
            }
            // Its own topic may be a name of another Unicode form.
            let own = self.sessions.get(subscriber.0).subscriptions.as_ref();
            let own = own.and_then(|own| own.topics[usize::from(subscriber.1)].clone());
            steps += own.map_or(1, |own| self.update_and_schedule(now, subscriber, &own));
            from = (subscriber.0, subscriber.1 + 1);
        }
        steps
    }

    /// Queues the topics of the owner's files that have subscribers, within a slice. Returns the steps taken.
    fn queue_files(&mut self, owner: OwnerId, from: u32) -> usize {
        let (mut steps, mut next) = (1, None);
        for (id, name) in self.index.names_of(owner, from) {
            if steps >= SLICE_STEPS {
                next = Some(id);
                break;
            }
            self.subscriptions.on_file(owner, name);
            steps += 1;
        }
        next.iter()
            .for_each(|&from| _ = self.subscriptions.queue.push(Some(owner), Recheck::FilesOfOwner { owner, from }));
        steps
    }

    /// Marks the subscribers to lists that the change concerns, within a slice. Returns the steps taken.
    fn report_list_change(&mut self, now: Instant, change: ListChange, from: Option<(Topic, Subscriber)>) -> usize {
        let mut steps = 1;
        let first = |topic: Option<Topic>| topic.map(|topic| (topic, FIRST));
        let mut next = from.or_else(|| first(self.subscriptions.topics.next_list(None)));
        while let Some((topic, mut from)) = next {
            let (is_concerned, cost) = change.concerns(&topic);
            steps += cost;
            while let Some(subscriber) = self.subscriptions.topics.next(&topic, from).filter(|_| is_concerned) {
                if steps >= SLICE_STEPS {
                    let from = Some((topic, subscriber));
                    self.subscriptions.queue.push(Some(change.owner), Recheck::Lists { change, from });
                    return steps;
                }
                if change.is_visible_to(self.sessions.get(subscriber.0)) {
                    self.subscriptions.topics.remove(&topic, subscriber);
                    self.set_state(subscriber, Presence::Present);
                    self.schedule_changed(now, subscriber.0);
                }
                steps += 1;
                from = (subscriber.0, subscriber.1 + 1);
            }
            next = first(self.subscriptions.topics.next_list(Some(&topic)));
            if steps >= SLICE_STEPS && next.is_some() {
                let from = next;
                self.subscriptions.queue.push(Some(change.owner), Recheck::Lists { change, from });
                return steps;
            }
        }
        steps
    }

    /// Updates all subscriptions of the sessions from one on, within a slice. Returns the steps taken.
    fn update_sessions(&mut self, now: Instant, mut from: SessionKey) -> usize {
        let mut steps = 1;
        while let Some(key) = self.sessions.next_key(from) {
            if steps >= SLICE_STEPS {
                self.subscriptions.queue.push(None, Recheck::Sessions { from: key });
                break;
            }
            let topics = self.sessions.get(key).subscriptions.as_ref().map(|own| own.topics.clone());
            for (number, topic) in (0..).zip(topics.into_iter().flatten()) {
                steps += topic.map_or(0, |topic| self.update_and_schedule(now, (key, number), &topic));
            }
            steps += 1;
            from = key.next();
        }
        steps
    }

    fn update_and_schedule(&mut self, now: Instant, subscriber: Subscriber, topic: &Topic) -> usize {
        let updated = self.update_state(subscriber, topic);
        if updated.has_changed {
            self.schedule_changed(now, subscriber.0);
        }
        updated.steps
    }

    /// Finds the state of one subscription.
    fn update_state(&mut self, (key, number): Subscriber, topic: &Topic) -> Updated {
        let session = self.sessions.get(key);
        let Subscriptions { is_settled, seen, .. } = &self.subscriptions;
        let (is_present, is_known, steps) = match topic {
            Topic::Peer(user) => {
                let peer = self.index.find_owner(user);
                let is_present = peer.is_some_and(|peer| peer != session.owner && self.index.is_active(peer));
                (is_present, *is_settled || peer.is_some_and(|peer| seen.contains(&peer)), 1)
            }
            Topic::File(name) => {
                let (is_present, steps) = self.index.is_available(session.owner, name);
                (is_present, *is_settled, steps)
            }
            Topic::Peers | Topic::Files(_) => {
                let state = session.subscriptions.as_ref().map(|own| own.state).unwrap_or_default();
                (state.present & 1 << number != 0, *is_settled, 1)
            }
        };
        let presence = match (is_present, is_known) {
            (true, _) => Presence::Present,
            (false, true) => Presence::Absent,
            (false, false) => Presence::Unknown,
        };
        Updated { has_changed: self.set_state((key, number), presence), steps }
    }

    /// Returns whether the state has changed.
    fn set_state(&mut self, (key, number): Subscriber, presence: Presence) -> bool {
        self.sessions.get_mut(key).subscriptions.as_mut().is_some_and(|own| own.state.set(number, presence))
    }

    /// CHANGED is to be sent to this session, as soon as the interval allows.
    fn schedule_changed(&mut self, now: Instant, key: SessionKey) {
        if let Some(subscriptions) = &mut self.sessions.get_mut(key).subscriptions {
            let earliest = subscriptions.last_sent.map_or(now, |last| now.max(last + SEND_INTERVAL));
            let due = *subscriptions.due_at.get_or_insert(earliest);
            self.subscriptions.due.insert((due, key));
        }
    }
}

#[cfg(test)]
impl Server {
    pub(super) fn has_no_subscriptions(&self) -> bool {
        let Subscriptions { topics, queue, due, .. } = &self.subscriptions;
        topics.is_empty() && queue.is_empty() && due.is_empty()
    }

    /// Changes whose subscribers have not been looked for, or not all.
    pub(super) fn changes_to_report(&self) -> usize {
        self.subscriptions.queue.len()
    }
}

/// The state of one subscription.
#[derive(Clone, Copy)]
enum Presence {
    Present,
    Absent,
    Unknown,
}

impl SubscriptionState {
    /// Sets the state of one subscription, and counts a change. Returns whether it has changed.
    fn set(&mut self, number: u8, presence: Presence) -> bool {
        let (before, bit) = (*self, 1 << number);
        (self.present, self.absent) = (self.present & !bit, self.absent & !bit);
        match presence {
            Presence::Present => self.present |= bit,
            Presence::Absent => self.absent |= bit,
            Presence::Unknown => {}
        }
        let has_changed = *self != before;
        self.changes += u64::from(has_changed);
        has_changed
    }
}

/// The result of finding the state of a subscription.
struct Updated {
    has_changed: bool,
    steps: usize,
}
