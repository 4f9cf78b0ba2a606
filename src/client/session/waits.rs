//! Waits: for a peer to come or go, or for a file to become available, without asking again and again.
//!
//! Each wait has a subscription at the server, which reports changes of its state. A wait ends when its condition is met
//! or at its deadline; it outlives reconnects, after which it subscribes again. Must not know how requests travel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::RequestError;
use crate::common::limits::SUBSCRIPTIONS_MAX;
use crate::common::message::{Request, SubscriptionState, Topic};
use crate::common::types::{FileName, UserName};

/// What a wait waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitCondition {
    /// This user, other than the waiting one, is active.
    PeerActive(UserName),
    PeerGone(UserName),
    /// An active peer publishes a file of this name that the waiting user may see.
    FileAvailable(FileName),
}

/// Identifies a wait; chosen by the caller, not used before in the same session.
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
    condition: WaitCondition,
    deadline: Instant,
    /// The number of its subscription.
    number: u8,
    stage: WaitStage,
}

#[derive(PartialEq, Eq)]
enum WaitStage {
    /// SUBSCRIBE is to be sent.
    Unsubscribed,
    /// The reply to SUBSCRIBE is awaited.
    Subscribing,
    /// The state of its subscription is known.
    Subscribed,
}

/// The waits of a session.
#[derive(Default)]
pub(super) struct Waits {
    waits: BTreeMap<WaitId, Wait>,
    /// Numbers of subscriptions that no wait needs any more, as bits.
    to_unsubscribe: u32,
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
        let used: BTreeSet<u8> = self.waits.values().map(|wait| wait.number).collect();
        let free = (0..SUBSCRIPTIONS_MAX as u8).find(|number| !used.contains(number));
        let number = free.ok_or(RequestError::TooManyWaits)?;
        self.to_unsubscribe &= !(1 << number);
        let deadline = now + timeout;
        self.waits.insert(wait, Wait { condition, deadline, number, stage: WaitStage::Unsubscribed });
        Ok(())
    }

    /// Removes a wait. Returns whether it was there.
    pub fn remove(&mut self, wait: WaitId) -> bool {
        let Some(Wait { number, stage, .. }) = self.waits.remove(&wait) else { return false };
        if stage != WaitStage::Unsubscribed {
            self.to_unsubscribe |= 1 << number;
        }
        true
    }

    /// A session is established: all subscribe again.
    pub fn on_established(&mut self) {
        self.waits.values_mut().for_each(|wait| wait.stage = WaitStage::Unsubscribed);
        (self.to_unsubscribe, self.latest) = (0, None);
    }

    /// The next request to be sent in the established session.
    pub fn next_request(&mut self) -> Option<SubscriptionRequest> {
        if let Some((&id, wait)) = self.waits.iter_mut().find(|(_, wait)| wait.stage == WaitStage::Unsubscribed) {
            wait.stage = WaitStage::Subscribing;
            let topic = match &wait.condition {
                WaitCondition::PeerActive(user) | WaitCondition::PeerGone(user) => Topic::Peer(user.clone()),
                WaitCondition::FileAvailable(name) => Topic::File(name.clone()),
            };
            return Some(SubscriptionRequest::Subscribe(id, Request::Subscribe { number: wait.number, topic }));
        }
        let numbers = std::mem::take(&mut self.to_unsubscribe);
        (numbers != 0).then_some(SubscriptionRequest::Unsubscribe(Request::Unsubscribe { numbers }))
    }

    /// The reply to SUBSCRIBE.
    pub fn on_subscribed(&mut self, wait: WaitId, state: SubscriptionState) {
        if let Some(wait) = self.waits.get_mut(&wait) {
            wait.stage = WaitStage::Subscribed;
        }
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

    fn result(&self, now: Instant, is_established: bool, wait: &Wait) -> Option<Result<WaitOutcome, RequestError>> {
        if is_established && self.is_met(wait) {
            return Some(Ok(WaitOutcome::Met));
        }
        match wait.stage {
            _ if now < wait.deadline => None,
            _ if !is_established => Some(Err(RequestError::Unreachable)),
            WaitStage::Subscribed => Some(Ok(WaitOutcome::TimedOut)),
            // Even the shortest wait asks once. It ends with the reply, or when the connection is lost.
            WaitStage::Unsubscribed | WaitStage::Subscribing => None,
        }
    }

    fn is_met(&self, wait: &Wait) -> bool {
        let Some(latest) = self.latest.filter(|_| wait.stage == WaitStage::Subscribed) else { return false };
        match wait.condition {
            WaitCondition::PeerActive(_) | WaitCondition::FileAvailable(_) => latest.present & 1 << wait.number != 0,
            WaitCondition::PeerGone(_) => latest.absent & 1 << wait.number != 0,
        }
    }

    /// When a wait may end without a message from the server.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        // A wait whose deadline is over ends with the reply that it awaits.
        self.waits.values().map(|wait| wait.deadline).filter(|deadline| *deadline > now).min()
    }

    /// Ends all waits.
    pub fn take_all(&mut self) -> impl Iterator<Item = WaitId> + use<> {
        std::mem::take(self).waits.into_keys()
    }
}

#[cfg(test)]
#[path = "waits_tests.rs"]
mod tests;
