//! Lists: own publications, peers, names, contents, audiences; a page a request.
//!
//! Owns the pages and their cursors. A page is bounded in bytes (one datagram) and in work (under a millisecond), so a
//! list of any length is many short requests and no heartbeat waits for one.

use std::time::Instant;

use serde::Serialize;

use super::Server;
use crate::common::limits::PAGE_MAX_BYTES;
use crate::common::message::{Cursor, NameQuery, Request, Response, encoded_len};
use crate::common::types::{Audience, FileName, UserName};
use crate::server::cursor::Stale;
use crate::server::index::{Budget, OwnerId, Position};
use crate::server::sessions::Slot;

/// Of one page.
const BUDGET: Budget = Budget { bytes: PAGE_MAX_BYTES, steps: 2_000 };

/// Who asks.
pub(super) struct Asker {
    pub(super) user: UserName,
    pub(super) owner: OwnerId,
    pub(super) is_local: bool,
}

impl Server {
    /// Answers a query; repeated ones are simply answered again.
    pub(super) fn list(&mut self, now: Instant, slot: Slot, request: Request) -> Response {
        let session = self.sessions.at(slot);
        let is_local = session.address.ip().is_loopback();
        let asker = Asker { user: session.user.clone(), owner: session.owner, is_local };
        let page = match request {
            Request::Published { cursor } => self.published(&asker, cursor),
            Request::AudienceOf { name, cursor } => self.audience_of(&asker, &name, cursor),
            Request::Peers { cursor } => self.peers(now, &asker, cursor),
            Request::Search { query, cursor } => self.search(&asker, &query, cursor),
            Request::Resolve { query, cursor, .. } => self.resolve(now, &asker, &query, cursor),
            Request::Sources { files, cursor } => self.sources(now, &asker, &files, cursor),
            Request::Publish { .. } | Request::Unpublish { .. } | Request::StageAudience { .. } => {
                Ok(Response::Refused)
            }
        };
        page.unwrap_or_else(|Stale| Response::StaleCursor)
    }

    fn published(&mut self, asker: &Asker, cursor: Option<Cursor>) -> Result<Response, Stale> {
        let query = "published";
        let from = self.cursors.open(&asker.user, &query, cursor.as_ref())?;
        let page = self.index.published(asker.owner, Position(from), BUDGET);
        Ok(Response::Published { entries: page.entries, next: self.cursor(asker, &query, page.next) })
    }

    fn search(&mut self, asker: &Asker, query: &NameQuery, cursor: Option<Cursor>) -> Result<Response, Stale> {
        let bound = ("search", query);
        let from = self.cursors.open(&asker.user, &bound, cursor.as_ref())?;
        let page = self.index.search(asker.owner, query, Position(from), BUDGET);
        Ok(Response::Names { names: page.entries, next: self.cursor(asker, &bound, page.next) })
    }

    fn resolve(
        &mut self,
        now: Instant,
        asker: &Asker,
        query: &NameQuery,
        cursor: Option<Cursor>,
    ) -> Result<Response, Stale> {
        let bound = ("resolve", query);
        let from = self.cursors.open(&asker.user, &bound, cursor.as_ref())?;
        let page = self.index.resolve(asker.owner, query, Position(from), BUDGET, self.wall_ms(now) / 1_000);
        Ok(Response::Found { entries: page.entries, next: self.cursor(asker, &bound, page.next) })
    }

    /// Positions are owners, which never change while the server runs: whoever stays is listed once.
    fn peers(&mut self, now: Instant, asker: &Asker, cursor: Option<Cursor>) -> Result<Response, Stale> {
        let query = "peers";
        let from = self.cursors.open(&asker.user, &query, cursor.as_ref())?;
        let first = OwnerId(u32::try_from(from).map_err(|_| Stale)?);
        let (mut users, mut bytes, mut next) = (Vec::new(), 0, None);
        for session in self.sessions.live_from(first, now).filter(|session| session.owner != asker.owner) {
            bytes += encoded_len(&session.user);
            if bytes > PAGE_MAX_BYTES {
                next = Some(Position(session.owner.0.into()));
                break;
            }
            users.push(session.user.clone());
        }
        Ok(Response::Users { users, next: self.cursor(asker, &query, next) })
    }

    fn audience_of(&mut self, asker: &Asker, name: &FileName, cursor: Option<Cursor>) -> Result<Response, Stale> {
        let query = ("audience", name);
        let from = self.cursors.open(&asker.user, &query, cursor.as_ref())?;
        let from = usize::try_from(from).map_err(|_| Stale)?;
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
        Ok(Response::Users { users, next: self.cursor(asker, &query, next) })
    }

    fn cursor(&mut self, asker: &Asker, query: &impl Serialize, next: Option<Position>) -> Option<Cursor> {
        next.map(|Position(position)| self.cursors.seal(&mut self.rng, &asker.user, query, position))
    }
}
