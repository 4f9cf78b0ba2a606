//! Requests from being asked to being answered: numbers, window, repetition, patience.
//!
//! Owns that a reply answers just the request of its id, that one mutation is under way at a time, and that every
//! request ends. Must not know how a request is sealed or what an answer means. A number is given when a request is
//! first sent, so numbers rise in the order in which the server sees them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::RequestHandle;
use crate::common::limits::{COMMAND_TIMEOUT, QUERY_WINDOW, REQUEST_RETRY_FIRST, REQUEST_RETRY_MAX};
use crate::common::message::{ClientMessage, Request, Response};
use crate::common::types::RequestId;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Whoever asked; loses patience.
    Caller(RequestHandle),
    /// The session itself, repairing a loss; never gives up, goes before all others.
    Repair,
}

/// A request that has come to its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub owner: Owner,
    pub request: Request,
    /// `None`: patience was lost, or it was cancelled.
    pub response: Option<Response>,
    /// Whether the server may have seen it.
    pub was_sent: bool,
}

struct Queued {
    owner: Owner,
    request: Request,
    asked_at: Instant,
}

struct Flight {
    owner: Owner,
    request: Request,
    give_up_at: Instant,
    wait: Duration,
    retry_at: Instant,
}

/// All requests of a session that have not ended.
#[derive(Default)]
pub(super) struct Requests {
    next_handle: u64,
    last_id: u64,
    /// The session's own; at most one.
    own: Option<Queued>,
    queries: VecDeque<Queued>,
    mutations: VecDeque<Queued>,
    /// A loss is being repaired: what callers do to or ask about their own publications waits.
    pub is_repairing: bool,
    flights: BTreeMap<RequestId, Flight>,
    mutation: Option<RequestId>,
    last_answer_at: Option<Instant>,
}

impl Requests {
    /// Queues a caller's request.
    pub fn ask(&mut self, now: Instant, request: Request) -> RequestHandle {
        let handle = self.new_handle();
        let queued = Queued { owner: Owner::Caller(handle), request, asked_at: now };
        match queued.request.is_mutation() {
            true => self.mutations.push_back(queued),
            false => self.queries.push_back(queued),
        }
        handle
    }

    /// A handle for a request that fails before it is queued.
    pub fn new_handle(&mut self) -> RequestHandle {
        self.next_handle += 1;
        RequestHandle(self.next_handle)
    }

    /// Queues the session's own request, in front of all others.
    pub fn ask_own(&mut self, now: Instant, request: Request) {
        debug_assert!(self.own.is_none(), "the repair asks one thing at a time");
        self.own = Some(Queued { owner: Owner::Repair, request, asked_at: now });
    }

    /// Forgets the session's own queries, whose cursors are void; an own mutation under way runs to its end.
    pub fn drop_own_queries(&mut self) {
        self.own = None;
        self.flights.retain(|_, flight| flight.owner != Owner::Repair || flight.request.is_mutation());
    }

    /// Forgets everything of the session's own.
    pub fn drop_own(&mut self) {
        self.drop_own_queries();
        if let Some(id) = self.own_flight() {
            self.land(id, None);
        }
    }

    /// Whether the session's own request has not been answered.
    pub fn own_is_under_way(&self) -> bool {
        self.own.is_some() || self.own_flight().is_some()
    }

    /// Whether a mutation was sent and has not been answered.
    pub fn mutation_is_unresolved(&self) -> bool {
        self.mutation.is_some()
    }

    /// Ends a caller's request without an answer; `None` if it has ended already.
    pub fn cancel(&mut self, handle: RequestHandle) -> Option<Ended> {
        let owner = Owner::Caller(handle);
        for queue in [&mut self.queries, &mut self.mutations] {
            if let Some(at) = queue.iter().position(|queued| queued.owner == owner) {
                return queue.remove(at).map(Queued::end);
            }
        }
        let id = *self.flights.iter().find(|(_, flight)| flight.owner == owner)?.0;
        self.land(id, None)
    }

    /// Takes the answer to a request under way. `None`: nobody waits for it, or the server is busy and it is asked
    /// again.
    pub fn answer(&mut self, now: Instant, id: RequestId, response: Response) -> Option<Ended> {
        let flight = self.flights.get_mut(&id)?;
        self.last_answer_at = Some(now);
        if let Response::Busy { retry_ms } = response {
            flight.retry_at = now + Duration::from_millis(retry_ms.into());
            flight.wait = REQUEST_RETRY_FIRST;
            return None;
        }
        self.land(id, Some(response))
    }

    /// Starts what the window has room for; it is sent by the next [`send_due`](Self::send_due). Returns a mutation
    /// that has just started.
    pub fn start(&mut self, now: Instant) -> Option<&Request> {
        let mut started = None;
        if let Some(own) = self.own.take_if(|own| self.mutation.is_none() || !own.request.is_mutation()) {
            started = self.launch(now, own);
        }
        while self.flights.len() < QUERY_WINDOW
            && let Some(query) = self.queries.pop_front()
        {
            self.launch(now, query);
        }
        if self.mutation.is_none()
            && !self.is_repairing
            && let Some(mutation) = self.mutations.pop_front()
        {
            started = self.launch(now, mutation);
        }
        started.map(|id| &self.flights[&id].request)
    }

    /// Hands everything that is due to `send`, and plans its repeat.
    pub fn send_due(&mut self, now: Instant, mut send: impl FnMut(&ClientMessage)) {
        let (floor, is_repairing) = (self.floor(), self.is_repairing);
        for (&id, flight) in &mut self.flights {
            if flight.retry_at <= now && !(is_repairing && flight.is_about_own()) {
                send(&ClientMessage::Request { id, lowest_pending: floor, request: flight.request.clone() });
                flight.retry_at = now + flight.wait;
                flight.wait = (flight.wait * 2).min(REQUEST_RETRY_MAX);
            }
        }
    }

    /// A new session stands: whatever is under way is sent again at once, under the same ids.
    pub fn resend_all(&mut self, now: Instant) {
        for flight in self.flights.values_mut() {
            flight.retry_at = now;
            flight.wait = REQUEST_RETRY_FIRST;
        }
    }

    /// When something is to be sent (with a session standing) or given up.
    pub fn timeout(&self, standing: bool) -> Option<Instant> {
        let sends = |flight: &Flight| standing && !(self.is_repairing && flight.is_about_own());
        let flights = self.flights.values().map(|flight| match (sends(flight), flight.owner) {
            (true, Owner::Repair) => Some(flight.retry_at),
            (true, Owner::Caller(_)) => Some(flight.retry_at.min(flight.give_up_at)),
            (false, Owner::Repair) => None,
            (false, Owner::Caller(_)) => Some(flight.give_up_at),
        });
        let fronts = [self.queries.front(), self.mutations.front()];
        let queued = fronts.into_iter().flatten().map(|queued| Some(self.patience_ends(queued)));
        flights.chain(queued).flatten().min()
    }

    /// One request whose caller's patience has ended; call again until there is none.
    pub fn take_expired(&mut self, now: Instant) -> Option<Ended> {
        let expired = |flight: &Flight| flight.give_up_at <= now && flight.owner != Owner::Repair;
        if let Some(id) = self.flights.iter().find(|(_, flight)| expired(flight)).map(|(&id, _)| id) {
            return self.land(id, None);
        }
        let overdue = |queue: &VecDeque<Queued>| queue.front().is_some_and(|queued| self.patience_ends(queued) <= now);
        if overdue(&self.queries) {
            return self.queries.pop_front().map(Queued::end);
        }
        if overdue(&self.mutations) {
            return self.mutations.pop_front().map(Queued::end);
        }
        None
    }

    /// Ends everything; the callers still to be told.
    pub fn take_all(&mut self) -> Vec<RequestHandle> {
        self.mutation = None;
        self.is_repairing = false;
        let flights = std::mem::take(&mut self.flights).into_values().map(|flight| flight.owner);
        let queued = self.own.take().into_iter().chain(self.queries.drain(..)).chain(self.mutations.drain(..));
        let owners = flights.chain(queued.map(|queued| queued.owner));
        owners.filter_map(|owner| if let Owner::Caller(handle) = owner { Some(handle) } else { None }).collect()
    }

    /// What waits in a queue waits for others to be answered; only silence makes it give up.
    fn patience_ends(&self, queued: &Queued) -> Instant {
        self.last_answer_at.map_or(queued.asked_at, |answer| answer.max(queued.asked_at)) + COMMAND_TIMEOUT
    }

    /// Every id below has ended.
    fn floor(&self) -> RequestId {
        self.flights.keys().next().copied().unwrap_or(RequestId(self.last_id + 1))
    }

    fn own_flight(&self) -> Option<RequestId> {
        self.flights.iter().find(|(_, flight)| flight.owner == Owner::Repair).map(|(&id, _)| id)
    }

    fn launch(&mut self, now: Instant, queued: Queued) -> Option<RequestId> {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let is_mutation = queued.request.is_mutation();
        let Queued { owner, request, .. } = queued;
        let give_up_at = now + COMMAND_TIMEOUT;
        self.flights.insert(id, Flight { owner, request, give_up_at, wait: REQUEST_RETRY_FIRST, retry_at: now });
        if is_mutation {
            self.mutation = Some(id);
        }
        is_mutation.then_some(id)
    }

    fn land(&mut self, id: RequestId, response: Option<Response>) -> Option<Ended> {
        let Flight { owner, request, .. } = self.flights.remove(&id)?;
        self.mutation.take_if(|mutation| *mutation == id);
        Some(Ended { owner, request, response, was_sent: true })
    }
}

impl Flight {
    /// Whether a caller asks what would be wrong before a repair is finished.
    fn is_about_own(&self) -> bool {
        self.owner != Owner::Repair
            && matches!(self.request, Request::OwnPublications { .. } | Request::AudienceOf { .. })
    }
}

impl Queued {
    fn end(self) -> Ended {
        Ended { owner: self.owner, request: self.request, response: None, was_sent: false }
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
