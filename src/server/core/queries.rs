//! Queries: lists that are answered page by page.
//!
//! A page is bounded in bytes (one datagram) and in work, so a list of any length is many short requests, and no
//! heartbeat waits for one. All queries of one iteration of the event loop share a budget of steps. When it is exhausted,
//! or when the session has a query waiting already, a query is queued; sessions are served round robin. A burst of long
//! searches delays only the session that sends it.
//!
//! Must not reveal hidden publications. A short page would reveal how many entries are hidden from the requester: so a
//! page is sent only when it is full or the list has ended, and is otherwise continued in later iterations. Entries are
//! sorted, because index order reveals publication order, including that of hidden publications.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Server;
use super::cursors::{CursorScope, StaleCursor};
use super::request_log::RequestInfo;
use super::sessions::SessionKey;
use crate::common::limits::{PAGE_MAX_BYTES, QUERY_WINDOW};
use crate::common::message::{
    ActivePeer, AvailableContent, Cursor, NameQuery, OwnPublication, Request, ResolvePurpose, Response, encoded_len,
};
use crate::common::types::{Audience, FileName, UserName};
use crate::server::core::Effects;
use crate::server::index::{Budget, OwnerId, Page, Position};

/// The cost of a query besides the names that it visits: its cursor, and the reply's encoding and sealing.
const QUERY_STEPS: usize = 128;
/// Publications visited for one SOURCES request, shared among its files.
pub(super) const SOURCES_SCAN_STEPS: usize = 512;
/// Queries of all sessions that may be queued at once; a session with none may always queue one.
const QUEUED_MAX: usize = 4_096;
/// Delay before a client repeats a request that got BUSY, in milliseconds.
const RETRY_MS: u16 = 200;

/// The client that sent a query.
pub(super) struct Requester {
    pub(super) user: UserName,
    pub(super) owner: OwnerId,
    pub(super) is_local: bool,
}

/// A query that waits for its next slice of work.
pub(super) struct QueuedQuery {
    info: RequestInfo,
    /// With the cursor of the page that is next.
    request: Request,
    /// The number of that page.
    page: u8,
    pages: u8,
    partial: Option<PartialPage>,
}

/// A page that is being filled from the index.
struct PartialPage {
    requester: OwnerId,
    query: IndexQuery,
    end: PageEnd,
}

/// A query that walks the index, with the entries found so far.
enum IndexQuery {
    OwnPublications { entries: Vec<OwnPublication> },
    Names { query: NameQuery, names: Vec<FileName> },
    Contents { query: NameQuery, purpose: ResolvePurpose, entries: Vec<AvailableContent> },
    Shared { user: UserName, owner: OwnerId, entries: Vec<AvailableContent> },
}

/// Where a page ends so far, and the space that is left in it.
struct PageEnd {
    /// Where the list continues; `None` at its end.
    next: Option<Position>,
    bytes_left: usize,
    /// The next entry does not fit.
    is_full: bool,
}

impl QueuedQuery {
    /// A query that is answered with at most `pages` pages.
    pub(super) fn new(info: RequestInfo, pages: u8, request: Request) -> Self {
        Self { info, request, page: 0, pages, partial: None }
    }

    /// Goes on to the page after the one that was sent, as if the client had asked for it. `false`: the client has not.
    fn advance(&mut self, sent: &Response) -> bool {
        self.page += 1;
        self.info = self.info.for_next_page();
        match (self.request.cursor_mut(), sent.next_cursor()) {
            (Some(cursor), Some(next)) if self.page < self.pages => {
                *cursor = Some(next.clone());
                true
            }
            _ => false,
        }
    }
}

impl IndexQuery {
    fn cursor_scope(&self) -> CursorScope<'_> {
        match self {
            Self::OwnPublications { .. } => CursorScope::OwnPublications,
            Self::Names { query, .. } => CursorScope::Names(query),
            Self::Contents { query, purpose, .. } => CursorScope::Contents(query, *purpose),
            Self::Shared { user, .. } => CursorScope::Shared(user),
        }
    }

    /// Steps that every slice takes before the first name: looking up the trigrams of the query.
    fn setup_steps(&self) -> usize {
        match self {
            Self::OwnPublications { .. } | Self::Shared { .. } => 0,
            Self::Names { query, .. } | Self::Contents { query, .. } => match query {
                NameQuery::Exact(_) | NameQuery::Equivalent(_) => 1,
                NameQuery::Prefix(text) | NameQuery::Substring(text) | NameQuery::SubstringIgnoreCase(text) => {
                    text.len()
                }
            },
        }
    }
}

impl Server {
    /// Answers a query, or queues it and returns `None`. A repeated query is answered again, from page 0: the client lacks it,
    /// and so has no use for the pages that remain of the answer before.
    pub(super) fn on_query(&mut self, now: Instant, key: SessionKey, query: QueuedQuery) -> Option<Response> {
        let session = self.sessions.get(key).cipher.id();
        if let Some(waiting) =
            self.queued_queries.iter_key_mut(session).find(|waiting| waiting.info.id == query.info.id)
        {
            if waiting.page > 0 {
                *waiting = query;
            }
            return None;
        }
        let queued = self.queued_queries.len_of(session);
        if queued > 0 && (queued >= QUERY_WINDOW || self.queued_queries.len() >= QUEUED_MAX) {
            return Some(Response::Busy { retry_ms: RETRY_MS });
        }
        if queued > 0 || self.query_budget.is_exhausted() || self.charge_session(now, key, 0) > Duration::ZERO {
            self.queued_queries.push(session, query);
            self.hold_queries_in_debt(now, key);
            return None;
        }
        self.run_query(now, key, query)
    }

    /// The queries of a session that has used up its share wait, in its own queue.
    fn hold_queries_in_debt(&mut self, now: Instant, key: SessionKey) {
        let (debt, session) = (self.charge_session(now, key, 0), self.sessions.get(key).cipher.id());
        if debt > Duration::ZERO && self.queued_queries.hold(session) {
            self.held_queries.insert((now + debt, session));
        }
    }

    fn release_queries(&mut self, now: Instant) {
        while let Some((_, session)) = self.held_queries.first().copied().filter(|(at, _)| *at <= now) {
            self.held_queries.pop_first();
            self.queued_queries.release(session);
            if let Some(key) = self.sessions.find(&session) {
                self.hold_queries_in_debt(now, key);
            }
        }
    }

    /// Does one slice of work of a query, on the account of its session. What is left is queued.
    fn run_query(&mut self, now: Instant, key: SessionKey, mut query: QueuedQuery) -> Option<Response> {
        let used = self.query_budget.used();
        let reply = match query.partial.take() {
            None => self.start_query(now, key, &mut query),
            Some(page) => self.continue_page(now, key, &mut query, page),
        };
        self.charge_session(now, key, (self.query_budget.used() - used) as u64);
        if reply.as_ref().is_none_or(|response| query.advance(response)) {
            self.queued_queries.push(self.sessions.get(key).cipher.id(), query);
        }
        self.hold_queries_in_debt(now, key);
        reply
    }

    /// Continues queued queries, as long as the budget of this iteration lasts.
    pub(super) fn run_queued_queries(&mut self, now: Instant, out: &mut Effects) {
        self.query_budget.reset();
        self.release_queries(now);
        while !self.query_budget.is_exhausted()
            && let Some((session, queued)) = self.queued_queries.pop()
        {
            let Some(key) = self.sessions.find(&session) else { continue };
            let (info, page) = (queued.info, queued.page);
            // The client waits for no more pages: it has what it needs, or asks again from where one was lost.
            if page > 0 && info.id < self.sessions.get(key).lowest_pending {
                continue;
            }
            if let Some(response) = self.run_query(now, key, queued) {
                info.log_sent(&mut self.counters, &response, self.sessions.get(key));
                self.send_reply(key, info.id, page, response, out);
            }
        }
        self.query_budget.reset();
    }

    fn start_query(&mut self, now: Instant, key: SessionKey, queued: &mut QueuedQuery) -> Option<Response> {
        self.query_budget.charge(QUERY_STEPS);
        let session = self.sessions.get(key);
        let is_local = session.address.ip().is_loopback();
        let requester = Requester { user: session.user.clone(), owner: session.owner, is_local };
        let (query, cursor) = match queued.request.clone() {
            Request::OwnPublications { cursor, .. } => (IndexQuery::OwnPublications { entries: Vec::new() }, cursor),
            Request::Search { query, cursor } => (IndexQuery::Names { query, names: Vec::new() }, cursor),
            Request::Resolve { query, purpose, cursor } => {
                (IndexQuery::Contents { query, purpose, entries: Vec::new() }, cursor)
            }
            Request::Shared { user, cursor } => {
                let owner = self.index.find_owner(&user).filter(|owner| *owner != requester.owner);
                let Some(owner) = owner.filter(|owner| self.index.is_active(*owner)) else {
                    return Response::NotActive.into();
                };
                (IndexQuery::Shared { user, owner, entries: Vec::new() }, cursor)
            }
            Request::AudienceOf { name, cursor } => {
                return self.audience_of(&requester, &name, cursor).unwrap_or(Response::StaleCursor).into();
            }
            Request::Peers { cursor } => {
                return self.peers(now, &requester, cursor).unwrap_or(Response::StaleCursor).into();
            }
            Request::Sources { files, avoid, cursor } => {
                self.query_budget.charge(SOURCES_SCAN_STEPS);
                return self.sources(now, &requester, &files, &avoid, cursor).unwrap_or(Response::StaleCursor).into();
            }
            Request::Subscribe { number, topic } => {
                return self.on_subscribe(key, queued.info.id, number, topic).into();
            }
            Request::Unsubscribe { numbers } => return self.on_unsubscribe(key, queued.info.id, numbers).into(),
            // Not queries: `on_request` handles them.
            Request::Publish { .. } | Request::Unpublish { .. } | Request::StageAudience { .. } => {
                return Response::Rejected.into();
            }
        };
        let Ok(from) = self.cursors.open(&requester.user, &query.cursor_scope(), cursor.as_ref()) else {
            return Response::StaleCursor.into();
        };
        let end = PageEnd { next: Some(Position(from)), bytes_left: PAGE_MAX_BYTES, is_full: false };
        self.continue_page(now, key, queued, PartialPage { requester: requester.owner, query, end })
    }

    /// Does one slice of work. A page that is not complete then stays in the query; the result is `None`.
    fn continue_page(
        &mut self,
        now: Instant,
        key: SessionKey,
        queued: &mut QueuedQuery,
        mut page: PartialPage,
    ) -> Option<Response> {
        if let Some(from) = page.end.next {
            let steps = self.run_slice(now, &mut page, from);
            self.query_budget.charge(steps);
        }
        if page.end.is_full || page.end.next.is_none() {
            return self.finish_page(key, page.query, page.end.next).into();
        }
        queued.partial = Some(page);
        None
    }

    /// Looks for entries from a position on. Returns the steps taken.
    fn run_slice(&self, now: Instant, page: &mut PartialPage, from: Position) -> usize {
        let PartialPage { requester, query, end } = page;
        let budget = Budget { bytes: end.bytes_left, steps: self.query_budget.slice() };
        let (setup_steps, now_s) = (query.setup_steps(), self.wall_ms(now) / 1_000);
        setup_steps
            + match query {
                IndexQuery::OwnPublications { entries } => {
                    end.append(self.index.published(*requester, from, budget, now_s), entries)
                }
                IndexQuery::Names { query, names } => {
                    end.append(self.index.search(*requester, query, from, budget), names)
                }
                IndexQuery::Shared { owner, entries, .. } => {
                    end.append(self.index.shared(*requester, *owner, from, budget, now_s), entries)
                }
                IndexQuery::Contents { query, purpose, entries } => {
                    end.append(self.index.resolve(*requester, query, from, budget, now_s, *purpose), entries)
                }
            }
    }

    fn finish_page(&mut self, key: SessionKey, query: IndexQuery, next: Option<Position>) -> Response {
        let user = self.sessions.get(key).user.clone();
        let next = self.seal_cursor(&user, &query.cursor_scope(), next);
        match query {
            IndexQuery::OwnPublications { mut entries } => {
                entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                Response::OwnPublications { entries, next }
            }
            IndexQuery::Names { mut names, .. } => {
                names.sort_unstable();
                Response::SearchResults { names, next }
            }
            IndexQuery::Contents { mut entries, .. } | IndexQuery::Shared { mut entries, .. } => {
                entries.sort_by_cached_key(|entry| (entry.name.clone(), entry.content.hash, entry.content.size));
                Response::Contents { entries, next }
            }
        }
    }

    /// Lists the online users. A position is an [`OwnerId`], which never changes while the server runs: a user who stays
    /// online is listed exactly once.
    fn peers(&mut self, now: Instant, requester: &Requester, cursor: Option<Cursor>) -> Result<Response, StaleCursor> {
        let scope = CursorScope::Peers;
        let from = self.cursors.open(&requester.user, &scope, cursor.as_ref())?;
        let first = OwnerId(u32::try_from(from).map_err(|_| StaleCursor)?);
        let (mut peers, mut bytes, mut next) = (Vec::new(), 0, None);
        for session in self.sessions.live_from(first, now).filter(|session| session.owner != requester.owner) {
            let active_s = now.saturating_duration_since(session.active_since).as_secs();
            let peer = ActivePeer { user: session.user.clone(), active_s };
            bytes += encoded_len(&peer);
            if bytes > PAGE_MAX_BYTES {
                next = Some(Position(session.owner.0.into()));
                break;
            }
            peers.push(peer);
        }
        Ok(Response::Peers { peers, next: self.seal_cursor(&requester.user, &scope, next) })
    }

    fn audience_of(
        &mut self,
        requester: &Requester,
        name: &FileName,
        cursor: Option<Cursor>,
    ) -> Result<Response, StaleCursor> {
        let scope = CursorScope::AudienceOf(name);
        let from = self.cursors.open(&requester.user, &scope, cursor.as_ref())?;
        let from = usize::try_from(from).map_err(|_| StaleCursor)?;
        let all = match self.index.publication(requester.owner, name) {
            Some((_, Audience::Only(users))) => users.get(from..).unwrap_or_default(),
            Some((_, Audience::Everyone)) => &[],
            None => return Ok(Response::NotPublished),
        };
        let mut bytes = 0;
        let fits = |user: &&UserName| {
            bytes += encoded_len(*user);
            bytes <= PAGE_MAX_BYTES
        };
        let users: Vec<UserName> = all.iter().take_while(fits).cloned().collect();
        let next = (users.len() < all.len()).then(|| Position((from + users.len()) as u64));
        Ok(Response::Users { users, next: self.seal_cursor(&requester.user, &scope, next) })
    }

    fn seal_cursor(&mut self, user: &UserName, scope: &CursorScope<'_>, next: Option<Position>) -> Option<Cursor> {
        next.map(|Position(position)| self.cursors.seal(&mut self.rng, user, scope, position))
    }
}

impl PageEnd {
    /// Appends what a slice has found. Returns the steps taken.
    fn append<T: Serialize>(&mut self, found: Page<T>, entries: &mut Vec<T>) -> usize {
        let found_bytes: usize = found.entries.iter().map(encoded_len).sum();
        self.bytes_left = self.bytes_left.saturating_sub(found_bytes);
        (self.next, self.is_full) = (found.next, found.full);
        entries.extend(found.entries);
        found.steps
    }
}
