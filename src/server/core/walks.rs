//! Lists that walk the index: own publications, names, contents.
//!
//! A page is answered only when it is full or the list has ended. If a slice of work ends before that, the walk goes on
//! in later turns: were the page answered as it is, its shortness would tell how much the asker may not see. And it is
//! sorted: the order of the index tells when a name was first published, be it to others.

use std::time::Instant;

use log::Level;
use serde::Serialize;

use super::Server;
use super::dispatch::{is_success, log_sent};
use crate::common::limits::PAGE_MAX_BYTES;
use crate::common::message::{
    AvailableContent, Cursor, NameQuery, OwnPublication, Request, ResolvePurpose, Response, encoded_len,
};
use crate::common::types::{FileName, RequestId};
use crate::server::auth::keys::StaleCursor;
use crate::server::core::Effects;
use crate::server::core::sessions::Slot;
use crate::server::index::{Budget, OwnerId, Page, Position};

/// Which request is answered, and how loud the log is about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) level: Level,
}

/// What is listed, with the entries so far.
pub(super) enum Listing {
    Own { entries: Vec<OwnPublication> },
    Names { query: NameQuery, names: Vec<FileName> },
    Contents { query: NameQuery, purpose: ResolvePurpose, entries: Vec<AvailableContent> },
}

impl Listing {
    pub(super) fn own() -> Self {
        Self::Own { entries: Vec::new() }
    }

    pub(super) fn names(query: NameQuery) -> Self {
        Self::Names { query, names: Vec::new() }
    }

    pub(super) fn contents(query: NameQuery, purpose: ResolvePurpose) -> Self {
        Self::Contents { query, purpose, entries: Vec::new() }
    }

    /// What its cursors are bound to.
    fn binding(&self) -> (&'static str, Option<NameQuery>) {
        match self {
            Self::Own { .. } => ("own", None),
            Self::Names { query, .. } => ("names", Some(query.clone())),
            Self::Contents { query, purpose: ResolvePurpose::List, .. } => ("contents", Some(query.clone())),
            Self::Contents { query, purpose: ResolvePurpose::Download, .. } => ("fetch", Some(query.clone())),
        }
    }

    /// Steps that every slice of it takes before the first name: the trigrams of what is looked for.
    fn preparation(&self) -> usize {
        match self {
            Self::Own { .. } => 0,
            Self::Names { query, .. } | Self::Contents { query, .. } => match query {
                NameQuery::Exact(_) => 1,
                NameQuery::Prefix(text) | NameQuery::Substring(text) | NameQuery::SubstringIgnoreCase(text) => {
                    text.len()
                }
            },
        }
    }
}

/// One page under construction.
pub(super) struct Walk {
    asker: OwnerId,
    listing: Listing,
    at: Position,
    bytes_left: usize,
}

/// What waits for its turn.
pub(super) enum Task {
    /// A query that nothing has been done for.
    Begin(Request),
    /// A page that took more than one slice of work.
    GoOn(Walk),
}

impl Task {
    fn is_fetch(&self) -> bool {
        match self {
            Self::Begin(request) => matches!(request, Request::Resolve { purpose: ResolvePurpose::Download, .. }),
            Self::GoOn(walk) => matches!(walk.listing, Listing::Contents { purpose: ResolvePurpose::Download, .. }),
        }
    }
}

impl Server {
    /// Begins a page, and answers it if one slice of work is enough.
    pub(super) fn walk(
        &mut self,
        now: Instant,
        slot: Slot,
        asked: Asked,
        listing: Listing,
        cursor: Option<Cursor>,
    ) -> Option<Response> {
        let session = self.sessions.at(slot);
        let asker = session.owner;
        let from = match self.cursors.open(&session.user, &listing.binding(), cursor.as_ref()) {
            Ok(from) => Position(from),
            Err(StaleCursor) => return Some(Response::StaleCursor),
        };
        self.go_on(now, slot, asked, Walk { asker, listing, at: from, bytes_left: PAGE_MAX_BYTES })
    }

    /// Answers those whose turn it is, as long as the steps of this turn last.
    pub(super) fn answer_waiting(&mut self, now: Instant, out: &mut Effects) {
        self.waiting.renew();
        while let Some((session, asked, task)) = self.waiting.pop() {
            let Some(slot) = self.sessions.find(&session) else { continue };
            let is_fetch = task.is_fetch();
            let response = match task {
                Task::Begin(request) => self.begin_list(now, slot, asked, request),
                Task::GoOn(walk) => self.go_on(now, slot, asked, walk),
            };
            if let Some(response) = response {
                log_sent(asked.level, self.sessions.at(slot), is_success(&response, is_fetch));
                self.reply(slot, asked.id, response, out);
            }
        }
    }

    /// One slice of work; what is not done by then waits for its next turn.
    fn go_on(&mut self, now: Instant, slot: Slot, asked: Asked, mut walk: Walk) -> Option<Response> {
        let (steps, end) = self.slice(now, &mut walk);
        self.waiting.spend(steps);
        if let Some(next) = end {
            return Some(self.page(slot, walk, next));
        }
        let session = self.sessions.at(slot).channel.id();
        self.waiting.push(session, asked, Task::GoOn(walk));
        None
    }

    /// The steps it took; and when the page is done, where the next begins, if there is one.
    fn slice(&self, now: Instant, walk: &mut Walk) -> (usize, Option<Option<Position>>) {
        let budget = Budget { bytes: walk.bytes_left, steps: self.waiting.slice() };
        let (asker, from) = (walk.asker, walk.at);
        let (at, left) = (&mut walk.at, &mut walk.bytes_left);
        let (steps, end) = match &mut walk.listing {
            Listing::Own { entries } => absorb(self.index.published(asker, from, budget), entries, at, left),
            Listing::Names { query, names } => absorb(self.index.search(asker, query, from, budget), names, at, left),
            Listing::Contents { query, purpose, entries } => {
                let page = self.index.resolve(asker, query, from, budget, self.wall_ms(now) / 1_000, *purpose);
                absorb(page, entries, at, left)
            }
        };
        (steps + walk.listing.preparation(), end)
    }

    fn page(&mut self, slot: Slot, walk: Walk, next: Option<Position>) -> Response {
        let user = self.sessions.at(slot).user.clone();
        let next = self.cursor(&user, &walk.listing.binding(), next);
        match walk.listing {
            Listing::Own { mut entries } => {
                entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                Response::OwnPublications { entries, next }
            }
            Listing::Names { mut names, .. } => {
                names.sort_unstable();
                Response::SearchResults { names, next }
            }
            Listing::Contents { mut entries, .. } => {
                let key = |entry: &AvailableContent| (entry.name.clone(), entry.content.hash, entry.content.size);
                entries.sort_by_cached_key(key);
                Response::Contents { entries, next }
            }
        }
    }
}

fn absorb<T: Serialize>(
    page: Page<T>,
    entries: &mut Vec<T>,
    at: &mut Position,
    bytes_left: &mut usize,
) -> (usize, Option<Option<Position>>) {
    let taken: usize = page.entries.iter().map(encoded_len).sum();
    *bytes_left = bytes_left.saturating_sub(taken);
    entries.extend(page.entries);
    let end = match page.next {
        Some(next) if !page.full => {
            *at = next;
            None
        }
        next => Some(next),
    };
    (page.steps, end)
}
