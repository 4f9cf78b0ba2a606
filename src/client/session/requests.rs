//! Requests from their start to their reply: ids, window, retransmission, deadlines.
//!
//! Owns that a reply completes only the request of its id, that one mutation is pending at a time, and that every
//! request ends. Must not know how a request is sealed or what a response means. A request gets its id when it is first
//! sent, so ids rise in the order in which the server receives them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::RequestHandle;
use super::reply_pages::{PageResult, ReplyPages};
use super::timers::{Timer, TimerTable};
use super::waits::{SubscriptionRequest, WaitId};
use crate::client::backoff::Backoff;
use crate::common::limits::{COMMAND_TIMEOUT, QUERY_WINDOW, REQUEST_RETRY_FIRST, REQUEST_RETRY_MAX};
use crate::common::message::{ClientMessage, Request, Response};
use crate::common::types::RequestId;

/// Shortest wait after BUSY, whatever it says: a server must not make the client spin.
const BUSY_RETRY_MIN: Duration = Duration::from_millis(10);

/// Who started a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    /// A caller of the session. Has a deadline.
    Caller(RequestHandle),
    /// The session itself, to resynchronise. Has no deadline and is sent before the callers' requests.
    Resync,
    /// The session itself, for a wait. Has no deadline.
    Subscribe(WaitId),
    /// The session itself, for waits that have ended. Has no deadline.
    Unsubscribe,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Completed {
    pub origin: RequestOrigin,
    pub request: Request,
    pub response: Response,
}

/// A caller's request that has ended at its deadline.
#[derive(Debug)]
pub(super) struct Expired {
    pub handle: RequestHandle,
    /// The request, if the server may have received it.
    pub sent: Option<Request>,
    /// The server's last reply to it was BUSY.
    pub is_busy: bool,
}

struct Queued {
    handle: RequestHandle,
    request: Request,
    queued_at: Instant,
}

struct InFlight {
    origin: RequestOrigin,
    request: Request,
    pages: ReplyPages,
    deadline: Instant,
    backoff: Backoff,
    retry_at: Instant,
    /// It was not sent again since a BUSY.
    is_busy: bool,
}

/// All requests of a session that have not ended.
#[derive(Default)]
pub(super) struct Requests {
    next_handle: u64,
    last_id: u64,
    resync: Option<Request>,
    queries: VecDeque<Queued>,
    mutations: VecDeque<Queued>,
    in_flight: BTreeMap<RequestId, InFlight>,
    mutation: Option<RequestId>,
    /// A resync is active: the callers' mutations and their queries about their own publications wait.
    pub is_resyncing: bool,
    last_reply_at: Option<Instant>,
}

impl Requests {
    /// Queues a caller's request.
    pub fn enqueue(&mut self, now: Instant, request: Request) -> RequestHandle {
        let handle = self.new_handle();
        let queue = if request.is_mutation() { &mut self.mutations } else { &mut self.queries };
        queue.push_back(Queued { handle, request, queued_at: now });
        handle
    }

    /// A handle for a request that fails before it is queued.
    pub fn new_handle(&mut self) -> RequestHandle {
        self.next_handle += 1;
        RequestHandle(self.next_handle)
    }

    /// Queues a request of the resync, before all others.
    pub fn enqueue_resync(&mut self, request: Request) {
        debug_assert!(self.resync.is_none(), "a resync has one request at a time");
        self.resync = Some(request);
    }

    /// Starts a request about subscriptions at once: there are few.
    pub fn start_subscription_request(&mut self, now: Instant, request: SubscriptionRequest) {
        match request {
            SubscriptionRequest::Subscribe(wait, request) => {
                self.start_request(now, RequestOrigin::Subscribe(wait), request);
            }
            SubscriptionRequest::Unsubscribe(request) => {
                self.start_request(now, RequestOrigin::Unsubscribe, request);
            }
        }
    }

    /// Drops all requests about subscriptions, which end with the session.
    pub fn drop_subscription_requests(&mut self) {
        self.in_flight
            .retain(|_, flight| !matches!(flight.origin, RequestOrigin::Subscribe(_) | RequestOrigin::Unsubscribe));
    }

    /// Drops the resync's queries, whose cursors are invalid. A pending mutation of the resync completes.
    pub fn drop_resync_queries(&mut self) {
        self.resync = None;
        self.in_flight.retain(|_, flight| flight.origin != RequestOrigin::Resync || flight.request.is_mutation());
    }

    /// Drops all requests of the resync.
    pub fn drop_resync(&mut self) {
        self.drop_resync_queries();
        if let Some(id) = self.resync_in_flight() {
            self.remove(id);
        }
    }

    /// Whether a request of the resync is queued or pending.
    pub fn has_resync_request(&self) -> bool {
        self.resync.is_some() || self.resync_in_flight().is_some()
    }

    /// Whether a mutation was sent and has no reply yet.
    pub fn has_pending_mutation(&self) -> bool {
        self.mutation.is_some()
    }

    /// Processes a page of a reply. `None`: no request of this id is pending, or more pages are to come, or the server is busy
    /// and the request is sent again.
    pub fn complete(&mut self, now: Instant, id: RequestId, page: u8, response: Response) -> Option<Completed> {
        let flight = self.in_flight.get_mut(&id)?;
        if let Response::Busy { retry_ms } = response {
            flight.retry_at = now + Duration::from_millis(retry_ms.into()).max(BUSY_RETRY_MIN);
            flight.backoff.reset();
            flight.is_busy = true;
            return None;
        }
        let result = flight.pages.insert(page, response);
        if result == PageResult::Unjoined {
            return None;
        }
        // A queued request waits for replies that complete something. BUSY and pages without end must not keep it waiting for
        // ever.
        self.last_reply_at = Some(now);
        if result == PageResult::Complete {
            return self.remove_completed(id);
        }
        // The time to wait for a page counts from the one before.
        flight.retry_at = now + REQUEST_RETRY_FIRST;
        None
    }

    /// Completes a request whose next page is due but has not come, with those before it; to be called until there is none.
    pub fn pop_incomplete(&mut self, now: Instant) -> Option<Completed> {
        let mut overdue = self.in_flight.iter().filter(|(_, flight)| flight.retry_at <= now && flight.pages.has_any());
        let (&id, _) = overdue.next()?;
        self.remove_completed(id)
    }

    fn remove_completed(&mut self, id: RequestId) -> Option<Completed> {
        let InFlight { origin, request, pages, .. } = self.remove(id)?;
        Some(Completed { origin, request, response: pages.take()? })
    }

    /// Starts the queued requests that the window admits; [`send_due`](Self::send_due) sends them. Returns the mutation
    /// that has started, if any.
    pub fn start_queued(&mut self, now: Instant) -> Option<&Request> {
        let mut started = None;
        if let Some(request) = self.resync.take_if(|request| self.mutation.is_none() || !request.is_mutation()) {
            started = self.start_request(now, RequestOrigin::Resync, request);
        }
        while self.in_flight.len() < QUERY_WINDOW
            && let Some(Queued { handle, request, .. }) = self.queries.pop_front()
        {
            self.start_request(now, RequestOrigin::Caller(handle), request);
        }
        if self.mutation.is_none()
            && !self.is_resyncing
            && let Some(Queued { handle, request, .. }) = self.mutations.pop_front()
        {
            started = self.start_request(now, RequestOrigin::Caller(handle), request);
        }
        started.map(|id| &self.in_flight[&id].request)
    }

    /// Passes everything that is due to `send`, and schedules its retransmission.
    pub fn send_due(&mut self, now: Instant, mut send: impl FnMut(&ClientMessage)) {
        let (floor, is_resyncing) = (self.lowest_pending(), self.is_resyncing);
        for (&id, flight) in &mut self.in_flight {
            if flight.retry_at <= now && !flight.is_held_back(is_resyncing) {
                let (pages, request) = (flight.pages.on_sent(), flight.request.clone());
                send(&ClientMessage::Request { id, lowest_pending: floor, pages, request });
                flight.retry_at = now + flight.backoff.next_wait();
                flight.is_busy = false;
            }
        }
    }

    /// A new session is established: all pending requests are sent again at once, under the same ids.
    pub fn resend_all(&mut self, now: Instant) {
        for flight in self.in_flight.values_mut() {
            flight.retry_at = now;
            flight.backoff.reset();
        }
    }

    /// Sets the timers of the requests. Without an established session nothing is retransmitted.
    pub fn update_timers(&self, is_established: bool, timers: &mut TimerTable) {
        let sendable =
            self.in_flight.values().filter(|flight| is_established && !flight.is_held_back(self.is_resyncing));
        timers.update(Timer::RequestRetry, sendable.map(|flight| flight.retry_at).min());
        let callers = self.in_flight.values().filter(|flight| matches!(flight.origin, RequestOrigin::Caller(_)));
        let queued = [self.queries.front(), self.mutations.front()].into_iter().flatten();
        let deadlines = callers.map(|flight| flight.deadline).chain(queued.map(|queued| self.deadline(queued)));
        timers.update(Timer::RequestDeadline, deadlines.min());
    }

    /// Removes one caller's request whose deadline has passed; to be called until there is none.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Expired> {
        let expired = self.in_flight.iter().find_map(|(&id, flight)| match flight.origin {
            RequestOrigin::Caller(handle) if flight.deadline <= now => Some((id, handle)),
            _ => None,
        });
        if let Some((id, handle)) = expired {
            return self.remove(id).map(|InFlight { request, is_busy, .. }| Expired {
                handle,
                sent: Some(request),
                is_busy,
            });
        }
        let is_expired = |queue: &VecDeque<Queued>| queue.front().is_some_and(|queued| self.deadline(queued) <= now);
        let queue = match (is_expired(&self.queries), is_expired(&self.mutations)) {
            (true, _) => &mut self.queries,
            (false, true) => &mut self.mutations,
            (false, false) => return None,
        };
        queue.pop_front().map(|Queued { handle, .. }| Expired { handle, sent: None, is_busy: false })
    }

    /// Removes all requests; the handles of the callers' ones.
    pub fn take_all(&mut self) -> Vec<RequestHandle> {
        (self.mutation, self.resync, self.is_resyncing) = (None, None, false);
        let in_flight = std::mem::take(&mut self.in_flight).into_values().filter_map(|flight| match flight.origin {
            RequestOrigin::Caller(handle) => Some(handle),
            RequestOrigin::Resync | RequestOrigin::Subscribe(_) | RequestOrigin::Unsubscribe => None,
        });
        let queued = self.queries.drain(..).chain(self.mutations.drain(..)).map(|queued| queued.handle);
        in_flight.chain(queued).collect()
    }

    /// The deadline of a queued request. It waits for the replies to others, so it counts from the last of them.
    fn deadline(&self, queued: &Queued) -> Instant {
        self.last_reply_at.map_or(queued.queued_at, |reply| reply.max(queued.queued_at)) + COMMAND_TIMEOUT
    }

    /// All requests with lower ids have ended.
    fn lowest_pending(&self) -> RequestId {
        self.in_flight.keys().next().copied().unwrap_or(RequestId(self.last_id + 1))
    }

    fn resync_in_flight(&self) -> Option<RequestId> {
        self.in_flight.iter().find(|(_, flight)| flight.origin == RequestOrigin::Resync).map(|(&id, _)| id)
    }

    /// Gives the request its id; the id is returned if the request is a mutation.
    fn start_request(&mut self, now: Instant, origin: RequestOrigin, mut request: Request) -> Option<RequestId> {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let mutation = request.is_mutation().then_some(id);
        self.mutation = mutation.or(self.mutation);
        let backoff = Backoff::new(REQUEST_RETRY_FIRST, REQUEST_RETRY_MAX);
        let deadline = now + COMMAND_TIMEOUT;
        let pages = ReplyPages::new(&mut request);
        self.in_flight
            .insert(id, InFlight { origin, request, pages, deadline, backoff, retry_at: now, is_busy: false });
        mutation
    }

    fn remove(&mut self, id: RequestId) -> Option<InFlight> {
        self.mutation.take_if(|mutation| *mutation == id);
        self.in_flight.remove(&id)
    }
}

impl InFlight {
    /// Whether this is a caller's query about its own publications while a resync restores them.
    fn is_held_back(&self, is_resyncing: bool) -> bool {
        let is_about_own = matches!(self.request, Request::OwnPublications { .. } | Request::AudienceOf { .. });
        is_resyncing && is_about_own && self.origin != RequestOrigin::Resync
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
