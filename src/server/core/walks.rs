//! Lists that walk the index: own publications, names, contents.
//!
//! A page is answered only when it is full or the list has ended. If a slice of work ends before that, the walk goes on
//! in later turns: were the page answered as it is, its shortness would tell how much the asker may not see.

use std::collections::VecDeque;
use std::time::Instant;

use log::Level;
use serde::Serialize;

use super::Server;
use super::requests::{is_success, log_sent};
use crate::common::limits::{PAGE_MAX_BYTES, QUERY_WINDOW};
use crate::common::message::{Cursor, FoundEntry, NameQuery, OwnEntry, Response, encoded_len};
use crate::common::types::{FileName, RequestId, SessionId};
use crate::server::cursor::Stale;
use crate::server::index::{Budget, OwnerId, Page, Position, Purpose};
use crate::server::outbox::Outbox;
use crate::server::sessions::Slot;

/// Walks of all sessions that go on at once.
const WALKS_MAX: usize = 4_096;
/// When a client that is told BUSY asks again, milliseconds.
const RETRY_MS: u16 = 200;

/// Which request is answered, and how loud the log is about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) level: Level,
}

/// What is listed, with the entries so far.
pub(super) enum Listing {
    Own { entries: Vec<OwnEntry> },
    Names { query: NameQuery, names: Vec<FileName> },
    Contents { query: NameQuery, purpose: Purpose, entries: Vec<FoundEntry> },
}

impl Listing {
    pub(super) fn own() -> Self {
        Self::Own { entries: Vec::new() }
    }

    pub(super) fn names(query: NameQuery) -> Self {
        Self::Names { query, names: Vec::new() }
    }

    pub(super) fn contents(query: NameQuery, fetch: bool) -> Self {
        let purpose = if fetch { Purpose::Fetch } else { Purpose::List };
        Self::Contents { query, purpose, entries: Vec::new() }
    }

    /// What its cursors are bound to.
    fn binding(&self) -> (&'static str, Option<NameQuery>) {
        match self {
            Self::Own { .. } => ("own", None),
            Self::Names { query, .. } => ("names", Some(query.clone())),
            Self::Contents { query, purpose: Purpose::List, .. } => ("contents", Some(query.clone())),
            Self::Contents { query, purpose: Purpose::Fetch, .. } => ("fetch", Some(query.clone())),
        }
    }

    fn is_fetch(&self) -> bool {
        matches!(self, Self::Contents { purpose: Purpose::Fetch, .. })
    }
}

/// One page under construction.
struct Walk {
    session: SessionId,
    asked: Asked,
    asker: OwnerId,
    listing: Listing,
    at: Position,
    bytes_left: usize,
}

/// Pages under construction, in the order of their turns.
#[derive(Default)]
pub(super) struct Walks {
    queue: VecDeque<Walk>,
}

impl Walks {
    pub(super) fn is_ready(&self) -> bool {
        !self.queue.is_empty()
    }

    fn has_room(&self, session: SessionId) -> bool {
        self.queue.len() < WALKS_MAX && self.queue.iter().filter(|walk| walk.session == session).count() < QUERY_WINDOW
    }

    fn holds(&self, session: SessionId, id: RequestId) -> bool {
        self.queue.iter().any(|walk| walk.session == session && walk.asked.id == id)
    }
}

impl Server {
    /// Answers a page, at once if one slice of work is enough.
    pub(super) fn walk(
        &mut self,
        now: Instant,
        slot: Slot,
        asked: Asked,
        listing: Listing,
        cursor: Option<Cursor>,
    ) -> Option<Response> {
        let session = self.sessions.at(slot);
        let (id, asker) = (session.channel.id(), session.owner);
        let from = match self.cursors.open(&session.user, &listing.binding(), cursor.as_ref()) {
            Ok(from) => Position(from),
            Err(Stale) => return Some(Response::StaleCursor),
        };
        if self.walks.is_ready() && self.walks.holds(id, asked.id) {
            return None;
        }
        let mut walk = Walk { session: id, asked, asker, listing, at: from, bytes_left: PAGE_MAX_BYTES };
        if let Some(next) = self.slice(now, &mut walk) {
            return Some(self.page(slot, walk, next));
        }
        if !self.walks.has_room(id) {
            return Some(Response::Busy { retry_ms: RETRY_MS });
        }
        self.walks.queue.push_back(walk);
        None
    }

    /// Goes on with the walk whose turn it is.
    pub(super) fn walk_on(&mut self, now: Instant, out: &mut Outbox) {
        let Some(mut walk) = self.walks.queue.pop_front() else { return };
        let Some(slot) = self.sessions.find(&walk.session) else { return };
        let Some(next) = self.slice(now, &mut walk) else { return self.walks.queue.push_back(walk) };
        let (asked, is_fetch) = (walk.asked, walk.listing.is_fetch());
        let response = self.page(slot, walk, next);
        log_sent(asked.level, self.sessions.at(slot), is_success(&response, is_fetch));
        self.reply(slot, asked.id, response, out);
    }

    /// One slice of work. When the page is done: where the next begins, if there is one.
    fn slice(&self, now: Instant, walk: &mut Walk) -> Option<Option<Position>> {
        let budget = Budget { bytes: walk.bytes_left, steps: Budget::PAGE.steps };
        let (asker, from) = (walk.asker, walk.at);
        let (at, left) = (&mut walk.at, &mut walk.bytes_left);
        match &mut walk.listing {
            Listing::Own { entries } => absorb(self.index.published(asker, from, budget), entries, at, left),
            Listing::Names { query, names } => absorb(self.index.search(asker, query, from, budget), names, at, left),
            Listing::Contents { query, purpose, entries } => {
                let page = self.index.resolve(asker, query, from, budget, self.wall_ms(now) / 1_000, *purpose);
                absorb(page, entries, at, left)
            }
        }
    }

    fn page(&mut self, slot: Slot, walk: Walk, next: Option<Position>) -> Response {
        let user = self.sessions.at(slot).user.clone();
        let next = self.cursor(&user, &walk.listing.binding(), next);
        match walk.listing {
            Listing::Own { entries } => Response::Published { entries, next },
            Listing::Names { names, .. } => Response::Names { names, next },
            Listing::Contents { entries, .. } => Response::Found { entries, next },
        }
    }
}

fn absorb<T: Serialize>(
    page: Page<T>,
    entries: &mut Vec<T>,
    at: &mut Position,
    bytes_left: &mut usize,
) -> Option<Option<Position>> {
    let taken: usize = page.entries.iter().map(encoded_len).sum();
    *bytes_left = bytes_left.saturating_sub(taken);
    entries.extend(page.entries);
    match page.next {
        Some(next) if !page.full => {
            *at = next;
            None
        }
        next => Some(next),
    }
}
