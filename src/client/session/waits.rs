//! Waits: for a peer to come or go, or for a file to become available, without asking again and again; and watched lists.
//!
//! Each has a subscription at the server, which reports changes of its state. A wait ends when its condition is met or at
//! its deadline, when it asks once more, since a report may have been lost; it outlives reconnects, after which it
//! subscribes again. A watched list has no end. It subscribes, tells the caller to ask for the list, and begins anew when
//! the list has changed. It outlives logins too. Waits for the same topic share a subscription, however many there are.
//! Must not know how requests travel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::RequestError;
use crate::common::glob::Pattern;
use crate::common::limits::SUBSCRIPTIONS_MAX;
use crate::common::message::{Request, SubscriptionState, Topic};
use crate::common::types::{FileName, UserName};

/// Shortest time between two subscriptions of a watched list: how often the caller is told at most.
const LIST_INTERVAL: Duration = Duration::from_millis(250);

/// What a wait waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitCondition {
    /// This user, other than the waiting one, is active.
    PeerActive(UserName),
    PeerGone(UserName),
    /// An active peer publishes a file of this name that the waiting user may see.
    FileAvailable(FileName),
}

/// Identifies a wait or a watched list; chosen by the caller, not used before in the same session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(pub u64);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// The condition is met.
    Met,
    /// It was not met until the deadline.
    TimedOut,
    /// The caller has cancelled it.
    Cancelled,
}

/// A list that a session watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchedList {
    /// The other active users.
    Peers,
    /// What they share with the user under names that match.
    Files(Pattern),
}

/// A watched list may have changed since it was last asked for: it is to be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedList {
    pub list: WaitId,
    /// What the list lacks has gone. Not so for a while after a start of the server, when users who were active before may
    /// come back; nor if another session begins before the list has arrived.
    pub is_complete: bool,
}

/// A wait that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct FinishedWait {
    pub wait: WaitId,
    /// [`RequestError::Unreachable`]: at the deadline there was no connection to the server.
    pub result: Result<WaitOutcome, RequestError>,
}

/// A request that the waits need.
pub(super) enum SubscriptionRequest {
    Subscribe(WaitId, Request),
    Unsubscribe(Request),
}

struct Wait {
    goal: WaitGoal,
    topic: Topic,
    /// The number of its subscription, which all waits for this topic share. A list has its own.
    number: u8,
    /// The latest state of this session counts: the server has answered a SUBSCRIBE of this wait.
    is_subscribed: bool,
    question: Question,
}

enum WaitGoal {
    Condition {
        condition: WaitCondition,
        deadline: Instant,
        /// Its SUBSCRIBE was sent at the deadline or later.
        has_asked_last: bool,
    },
    List {
        /// Not before this time it subscribes again.
        subscribe_at: Option<Instant>,
        /// Whether the list was complete as of the last report since it subscribed.
        reported: Option<bool>,
    },
}

/// The SUBSCRIBE of a wait, by which it asks for the state.
#[derive(PartialEq, Eq)]
enum Question {
    Due,
    /// Its reply, or that to the SUBSCRIBE of this wait for the same topic, is awaited.
    Sent(WaitId),
    Answered,
}

/// The waits of a session.
#[derive(Default)]
pub(super) struct Waits {
    waits: BTreeMap<WaitId, Wait>,
    /// Numbers of the subscriptions that this session may have, as bits.
    subscribed: u32,
    /// The latest state in this session.
    latest: Option<SubscriptionState>,
}

impl Waits {
    /// Starts a wait. The error: there are too many.
    pub fn start(
        &mut self,
        now: Instant,
        wait: WaitId,
        condition: WaitCondition,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        let topic = match &condition {
            WaitCondition::PeerActive(user) | WaitCondition::PeerGone(user) => Topic::Peer(user.clone()),
            WaitCondition::FileAvailable(name) => Topic::File(name.clone()),
        };
        let goal = WaitGoal::Condition { condition, deadline: now + timeout, has_asked_last: false };
        self.add(wait, topic, goal)
    }

    /// Starts to watch a list. The error: there are too many.
    pub fn watch(&mut self, id: WaitId, list: WatchedList) -> Result<(), RequestError> {
        let topic = match list {
            WatchedList::Peers => Topic::Peers,
            WatchedList::Files(pattern) => Topic::Files(pattern),
        };
        self.add(id, topic, WaitGoal::List { subscribe_at: None, reported: None })
    }

    fn add(&mut self, wait: WaitId, topic: Topic, goal: WaitGoal) -> Result<(), RequestError> {
        let is_shared = |other: &&Wait| !other.is_list() && other.topic == topic;
        let shared = self.waits.values().find(is_shared).map(|other| other.number);
        let used = self.used_numbers();
        let free = || (0..SUBSCRIPTIONS_MAX as u8).find(|number| used & 1 << number == 0);
        let number = shared.or_else(free).ok_or(RequestError::TooManyWaits)?;
        self.waits.insert(wait, Wait { goal, topic, number, is_subscribed: false, question: Question::Due });
        Ok(())
    }

    fn used_numbers(&self) -> u32 {
        self.waits.values().fold(0, |used, wait| used | 1 << wait.number)
    }

    /// Removes a wait or a watched list. Returns whether it was there.
    pub fn remove(&mut self, wait: WaitId) -> bool {
        self.waits.remove(&wait).is_some()
    }

    /// A session is established: all subscribe again.
    pub fn on_established(&mut self) {
        self.waits.values_mut().for_each(|wait| (wait.is_subscribed, wait.question) = (false, Question::Due));
        (self.subscribed, self.latest) = (0, None);
    }

    /// The next request to be sent in the established session.
    pub fn next_request(&mut self, now: Instant) -> Option<SubscriptionRequest> {
        self.waits.values_mut().for_each(|wait| wait.ask_at_deadline(now));
        if let Some((&id, wait)) = self.waits.iter_mut().find(|(_, wait)| wait.subscribes(now)) {
            if let WaitGoal::List { subscribe_at, reported } = &mut wait.goal {
                (*subscribe_at, *reported) = (Some(now + LIST_INTERVAL), None);
            }
            let (number, topic) = (wait.number, wait.topic.clone());
            // A wait that begins later asks again: the latest state may be older than it.
            let sharing = self.waits.values_mut().filter(|wait| wait.number == number);
            sharing.filter(|wait| wait.question == Question::Due).for_each(|wait| wait.ask(now, id));
            self.subscribed |= 1 << number;
            return Some(SubscriptionRequest::Subscribe(id, Request::Subscribe { number, topic }));
        }
        let numbers = self.subscribed & !self.used_numbers();
        self.subscribed &= !numbers;
        (numbers != 0).then_some(SubscriptionRequest::Unsubscribe(Request::Unsubscribe { numbers }))
    }

    /// The reply to the SUBSCRIBE of a wait, which may have ended meanwhile.
    pub fn on_subscribed(&mut self, wait: WaitId, state: SubscriptionState) {
        let asking = self.waits.values_mut().filter(|other| other.question == Question::Sent(wait));
        asking.for_each(|wait| (wait.is_subscribed, wait.question) = (true, Question::Answered));
        self.on_state(state);
    }

    /// The state of the subscriptions, from any message. A message that is older than another changes nothing.
    pub fn on_state(&mut self, state: SubscriptionState) {
        if self.latest.is_none_or(|latest| latest.changes <= state.changes) {
            self.latest = Some(state);
        }
    }

    /// A wait that has ended; to be called until there is none.
    pub fn pop_finished(&mut self, now: Instant, is_established: bool) -> Option<FinishedWait> {
        let (wait, result) =
            self.waits.iter().find_map(|(&id, wait)| Some((id, self.result(now, is_established, wait)?)))?;
        self.remove(wait);
        Some(FinishedWait { wait, result })
    }

    /// A watched list to ask for in the established session; to be called until there is none.
    pub fn pop_list_change(&mut self) -> Option<ChangedList> {
        let latest = self.latest?;
        self.waits.iter_mut().find_map(|(&list, wait)| {
            let WaitGoal::List { reported, .. } = &mut wait.goal else { return None };
            if wait.question != Question::Answered {
                return None;
            }
            if latest.present & 1 << wait.number != 0 {
                // It has changed since: it is asked for once more, after the next subscription.
                wait.question = Question::Due;
            }
            let is_complete = latest.absent & 1 << wait.number != 0;
            let is_reported = *reported == Some(true) || *reported == Some(is_complete);
            *reported = Some(is_complete);
            (!is_reported).then_some(ChangedList { list, is_complete })
        })
    }

    fn result(&self, now: Instant, is_established: bool, wait: &Wait) -> Option<Result<WaitOutcome, RequestError>> {
        let WaitGoal::Condition { condition, deadline, has_asked_last } = &wait.goal else { return None };
        if is_established && self.is_met(wait, condition) {
            return Some(Ok(WaitOutcome::Met));
        }
        match wait.question {
            _ if now < *deadline => None,
            _ if !is_established => Some(Err(RequestError::Unreachable)),
            Question::Answered if *has_asked_last => Some(Ok(WaitOutcome::TimedOut)),
            // It ends with the reply, or when the connection is lost.
            _ => None,
        }
    }

    fn is_met(&self, wait: &Wait, condition: &WaitCondition) -> bool {
        let Some(latest) = self.latest.filter(|_| wait.is_subscribed) else { return false };
        match condition {
            WaitCondition::PeerActive(_) | WaitCondition::FileAvailable(_) => latest.present & 1 << wait.number != 0,
            WaitCondition::PeerGone(_) => latest.absent & 1 << wait.number != 0,
        }
    }

    /// When a wait may end, or a list subscribe, without a message from the server.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let at = |wait: &Wait| match wait.goal {
            WaitGoal::Condition { deadline, .. } => Some(deadline),
            WaitGoal::List { subscribe_at, .. } => subscribe_at.filter(|_| wait.question == Question::Due),
        };
        // A wait whose deadline is over ends with the reply that it awaits.
        self.waits.values().filter_map(at).filter(|at| *at > now).min()
    }

    /// Ends all waits. The lists stay watched, for the next login.
    pub fn take_all(&mut self) -> impl Iterator<Item = WaitId> + use<> {
        self.waits.extract_if(.., |_, wait| !wait.is_list()).map(|(id, _)| id).collect::<Vec<_>>().into_iter()
    }
}

impl Wait {
    fn is_list(&self) -> bool {
        matches!(self.goal, WaitGoal::List { .. })
    }

    /// A wait whose deadline is over asks once more, unless it is asking.
    fn ask_at_deadline(&mut self, now: Instant) {
        if let WaitGoal::Condition { deadline, has_asked_last: false, .. } = self.goal
            && deadline <= now
            && self.question == Question::Answered
        {
            self.question = Question::Due;
        }
    }

    /// Its question is sent with the SUBSCRIBE of `wait`.
    fn ask(&mut self, now: Instant, wait: WaitId) {
        self.question = Question::Sent(wait);
        if let WaitGoal::Condition { deadline, has_asked_last, .. } = &mut self.goal {
            *has_asked_last = *deadline <= now;
        }
    }

    fn subscribes(&self, now: Instant) -> bool {
        let is_due = match self.goal {
            WaitGoal::Condition { .. } => true,
            WaitGoal::List { subscribe_at, .. } => subscribe_at.is_none_or(|at| at <= now),
        };
        is_due && self.question == Question::Due
    }
}

#[cfg(test)]
#[path = "waits_tests.rs"]
mod tests;
