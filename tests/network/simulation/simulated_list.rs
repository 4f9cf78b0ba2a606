//! A list that a client watches: it asks when the session says so, and keeps what it learns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fileshare::internals::client::events::{ListDifference, ListEntry, difference, merge};
use fileshare::internals::client::session::{ChangedList, RequestHandle, Session, WaitId, WatchedList};
use fileshare::internals::common::message::{AvailableContent, Cursor, NameQuery, Request, ResolvePurpose, Response};
use fileshare::internals::common::types::UsersDigest;

pub struct SimulatedList {
    pub id: WaitId,
    pub list: WatchedList,
    pub known: BTreeMap<ListEntry, UsersDigest>,
    /// All entries that were ever new, and all that were ever gone.
    pub learned: Vec<ListEntry>,
    pub gone: Vec<ListEntry>,
    listing: Option<Listing>,
    /// It has changed during the listing.
    again: Option<bool>,
}

struct Listing {
    handle: RequestHandle,
    is_complete: bool,
    /// The number of sessions begun before it.
    sessions: usize,
    entries: BTreeMap<ListEntry, UsersDigest>,
}

impl SimulatedList {
    pub fn entries(&self) -> BTreeSet<ListEntry> {
        self.known.keys().cloned().collect()
    }

    pub fn new(id: WaitId, list: WatchedList) -> Self {
        let (known, learned, gone) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { id, list, known, learned, gone, listing: None, again: None }
    }

    pub fn on_changed(&mut self, now: Instant, change: ChangedList, session: &mut Session, sessions: usize) {
        if self.listing.is_some() {
            self.again = Some(change.is_complete);
        } else {
            self.start(now, change.is_complete, session, sessions);
        }
    }

    /// The user has logged out: what is there is new again at the next login.
    pub fn forget(&mut self) {
        (self.known, self.listing, self.again) = (BTreeMap::new(), None, None);
    }

    pub fn is_listing(&self, handle: RequestHandle) -> bool {
        self.listing.as_ref().is_some_and(|listing| listing.handle == handle)
    }

    /// The response to a request of the listing.
    pub fn on_response(&mut self, now: Instant, response: Response, session: &mut Session, sessions: usize) {
        let Some(mut listing) = self.listing.take() else { return };
        let next = match response {
            Response::Peers { peers, next } => {
                listing
                    .entries
                    .extend(peers.into_iter().map(|peer| (ListEntry::Peer(peer.user), UsersDigest::default())));
                next
            }
            Response::Contents { entries, next } => {
                let matching = entries.into_iter().filter(|entry| match &self.list {
                    WatchedList::Peers => false,
                    WatchedList::Files(pattern) => pattern.matches(&entry.name),
                });
                let entries = matching.map(|AvailableContent { name, content, users, .. }| {
                    (ListEntry::File { name, hash: content.hash, size: content.size }, users)
                });
                listing.entries.extend(entries);
                next
            }
            Response::StaleCursor => {
                return self.start(now, listing.is_complete, session, listing.sessions);
            }
            other => panic!("{other:?}"),
        };
        if next.is_some() {
            listing.handle = session.request(now, self.request(next));
            self.listing = Some(listing);
            return;
        }
        let is_complete = listing.is_complete && listing.sessions == sessions;
        let now_known = merge(&self.known, listing.entries, is_complete);
        let ListDifference { new, gone } = difference(&self.known, &now_known);
        self.learned.extend(new.into_iter().cloned());
        self.gone.extend(gone.into_iter().cloned());
        self.known = now_known;
        if let Some(is_complete) = self.again.take() {
            self.start(now, is_complete, session, sessions);
        }
    }

    fn start(&mut self, now: Instant, is_complete: bool, session: &mut Session, sessions: usize) {
        let handle = session.request(now, self.request(None));
        self.listing = Some(Listing { handle, is_complete, sessions, entries: BTreeMap::new() });
    }

    fn request(&self, cursor: Option<Cursor>) -> Request {
        match &self.list {
            WatchedList::Peers => Request::Peers { cursor },
            WatchedList::Files(pattern) => {
                let query = NameQuery::for_pattern(pattern);
                Request::Resolve { query, purpose: ResolvePurpose::Download, cursor }
            }
        }
    }
}
