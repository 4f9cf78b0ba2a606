//! Lists: the way to all of them, and those that are answered at once; the others are in `walks`.
//!
//! A page is bounded in bytes (one datagram) and in work, so a list of any length is many short requests and no
//! heartbeat waits for one. How many are answered in one turn of the loop, and whose, is `waiting`'s.

use std::time::Instant;

use serde::Serialize;

use super::walks::{Asked, Listing, Task};
use super::{Server, sources};
use crate::common::limits::PAGE_MAX_BYTES;
use crate::common::message::{Cursor, Request, Response, encoded_len};
use crate::common::types::{Audience, FileName, UserName};
use crate::server::auth::keys::StaleCursor;
use crate::server::core::sessions::Slot;
use crate::server::index::{OwnerId, Position};

/// What every query costs beside the names it looks at: its cursor, and the reply's encoding and sealing.
const QUERY_STEPS: usize = 128;
/// When a client that is told BUSY asks again, milliseconds.
const RETRY_MS: u16 = 200;

/// Who asks.
pub(super) struct Asker {
    pub(super) user: UserName,
    pub(super) owner: OwnerId,
    pub(super) is_local: bool,
}

impl Server {
    /// Answers a query; repeated ones are simply answered again. `None`: it waits for its turn, or takes more than one,
    /// and is answered later.
    pub(super) fn list(&mut self, now: Instant, slot: Slot, asked: Asked, request: Request) -> Option<Response> {
        let session = self.sessions.at(slot).channel.id();
        if self.waiting.holds(&session, asked.id) {
            return None;
        }
        if !self.waiting.has_room(&session) {
            return Some(Response::Busy { retry_ms: RETRY_MS });
        }
        if self.waiting.is_due(&session) {
            self.waiting.push(session, asked, Task::Begin(request));
            return None;
        }
        self.begin_list(now, slot, asked, request)
    }

    /// The query has its turn.
    pub(super) fn begin_list(&mut self, now: Instant, slot: Slot, asked: Asked, request: Request) -> Option<Response> {
        self.waiting.spend(QUERY_STEPS);
        let session = self.sessions.at(slot);
        let is_local = session.address.ip().is_loopback();
        let asker = Asker { user: session.user.clone(), owner: session.owner, is_local };
        let page = match request {
            Request::AudienceOf { name, cursor } => self.audience_of(&asker, &name, cursor),
            Request::Peers { cursor } => self.peers(now, &asker, cursor),
            Request::Sources { files, cursor } => {
                self.waiting.spend(sources::LOOKED_AT);
                self.sources(now, &asker, &files, cursor)
            }
            Request::OwnPublications { cursor, .. } => return self.walk(now, slot, asked, Listing::own(), cursor),
            Request::Search { query, cursor } => return self.walk(now, slot, asked, Listing::names(query), cursor),
            Request::Resolve { query, purpose, cursor } => {
                return self.walk(now, slot, asked, Listing::contents(query, purpose), cursor);
            }
            Request::Publish { .. } | Request::Unpublish { .. } | Request::StageAudience { .. } => {
                Ok(Response::Rejected)
            }
        };
        Some(page.unwrap_or(Response::StaleCursor))
    }

    /// Positions are owners, which never change while the server runs: whoever stays is listed once.
    fn peers(&mut self, now: Instant, asker: &Asker, cursor: Option<Cursor>) -> Result<Response, StaleCursor> {
        let query = "peers";
        let from = self.cursors.open(&asker.user, &query, cursor.as_ref())?;
        let first = OwnerId(u32::try_from(from).map_err(|_| StaleCursor)?);
        let (mut users, mut bytes, mut next) = (Vec::new(), 0, None);
        for session in self.sessions.live_from(first, now).filter(|session| session.owner != asker.owner) {
            bytes += encoded_len(&session.user);
            if bytes > PAGE_MAX_BYTES {
                next = Some(Position(session.owner.0.into()));
                break;
            }
            users.push(session.user.clone());
        }
        Ok(Response::Users { users, next: self.cursor(&asker.user, &query, next) })
    }

    fn audience_of(&mut self, asker: &Asker, name: &FileName, cursor: Option<Cursor>) -> Result<Response, StaleCursor> {
        let query = ("audience", name);
        let from = self.cursors.open(&asker.user, &query, cursor.as_ref())?;
        let from = usize::try_from(from).map_err(|_| StaleCursor)?;
        let all = match self.index.publication(asker.owner, name) {
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
        Ok(Response::Users { users, next: self.cursor(&asker.user, &query, next) })
    }

    pub(super) fn cursor(
        &mut self,
        asker: &UserName,
        query: &impl Serialize,
        next: Option<Position>,
    ) -> Option<Cursor> {
        next.map(|Position(position)| self.cursors.seal(&mut self.rng, asker, query, position))
    }
}
