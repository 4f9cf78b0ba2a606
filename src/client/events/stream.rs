//! One reader of events: those of the client as they happen, and the differences of the lists that it has chosen.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, select};

use super::bus::{BusReader, EventBus, TimedEvent};
use super::kind::{EventContent, EventKind};
use super::known::{ListDifference, ListEntries, ListEntry, difference};
use super::lists::{FollowedLists, ListReader, ListSnapshot, ListWatcher};
use crate::client::control::{RequestError, WatchedList};
use crate::common::glob::Pattern;
use crate::common::types::{ContentHash, FileName};

/// See the [module](self). What the lists hold at its start comes first.
pub struct EventStream {
    bus: BusReader,
    patterns: Vec<Pattern>,
    lists: Vec<ListReader>,
    followed: FollowedLists,
    /// Receives after a change of a list.
    woken: Receiver<()>,
    /// What the reader was told of, of all its lists.
    seen: Arc<ListSnapshot>,
    ready: VecDeque<TimedEvent>,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Streamed {
    Event(TimedEvent),
    /// This many events were dropped before the next one, since the reader was too slow.
    Dropped(u64),
}

impl EventStream {
    /// Events of the client, of all peers, and of the files that match a pattern or are followed.
    pub fn new(bus: &Arc<EventBus>, lists: &Arc<ListWatcher>, patterns: Vec<Pattern>) -> Result<Self, RequestError> {
        let bus = bus.reader();
        let (wake, woken) = bounded(1);
        let watched = [WatchedList::Peers].into_iter().chain(patterns.iter().cloned().map(WatchedList::Files));
        let readers = watched.map(|list| lists.reader(&list, wake.clone())).collect::<Result<_, _>>()?;
        let followed = lists.followed(wake);
        Ok(Self { bus, patterns, lists: readers, followed, woken, seen: Arc::default(), ready: VecDeque::new() })
    }

    /// Blocks until something happens. `None`: `until` has received or disconnected, as a cancellation does.
    pub fn next<T>(&mut self, until: &Receiver<T>) -> Option<Streamed> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Streamed::Event(event));
            }
            match self.bus.take_dropped() {
                0 => {}
                dropped => return Some(Streamed::Dropped(dropped)),
            }
            select! {
                recv(self.bus.events) -> event => match event {
                    Ok(event) if !self.is_listed(&event.kind) => return Some(Streamed::Event(event)),
                    _ => {}
                },
                recv(self.woken) -> _ => self.compare_lists(),
                recv(until) -> _ => return None,
            }
        }
    }

    /// What has happened already, without blocking.
    pub fn take_rest(&mut self) -> Vec<Streamed> {
        let mut events = Vec::from(std::mem::take(&mut self.ready));
        events.extend(self.bus.events.try_iter().filter(|event| !self.is_listed(&event.kind)));
        let dropped = Some(self.bus.take_dropped()).filter(|&dropped| dropped > 0);
        events.into_iter().map(Streamed::Event).chain(dropped.map(Streamed::Dropped)).collect()
    }

    /// Whether the reader gets the event from its lists.
    fn is_listed(&self, event: &EventKind) -> bool {
        let EventKind::FileAvailable { name, .. } = event else { return false };
        FileName::parse(name).is_ok_and(|name| matches_any(&name, &self.patterns, &self.followed.snapshots()))
    }

    fn compare_lists(&mut self) {
        let followed = self.followed.snapshots();
        let now = self.combined(&followed);
        let nothing = ListEntries::new();
        let before = if self.seen.login == now.login { &self.seen.entries } else { &nothing };
        let ListDifference { new, gone } = difference(before, &now.entries);
        let gone = gone.into_iter().filter_map(|entry| match entry {
            ListEntry::Peer(user) => Some(EventKind::PeerLeft { user: user.to_string() }),
            // It may have been followed before, and not be any more.
            ListEntry::File { name, .. } if !matches_any(name, &self.patterns, &followed) => None,
            // Once for all contents of the name.
            ListEntry::File { name, hash, size } => {
                let first = before.range(first_of(name)..).next().map(|(entry, _)| entry);
                let is_first = first == Some(&ListEntry::File { name: name.clone(), hash: *hash, size: *size });
                (is_first && !has_name(&now.entries, name)).then(|| EventKind::FileGone { name: name.to_string() })
            }
        });
        let new = new.into_iter().map(|entry| match entry {
            ListEntry::Peer(user) => EventKind::PeerJoined { user: user.to_string() },
            ListEntry::File { name, hash, size } => EventKind::FileAvailable {
                name: name.to_string(),
                content: Some(EventContent { bytes: *size, hash: hash.to_hex() }),
            },
        });
        self.ready.extend(gone.chain(new).map(TimedEvent::now));
        self.seen = now;
    }

    /// All lists in one, of the latest login.
    fn combined(&self, followed: &[(Pattern, Arc<ListSnapshot>)]) -> Arc<ListSnapshot> {
        let own = self.lists.iter().map(ListReader::snapshot);
        let snapshots: Vec<_> = own.chain(followed.iter().map(|(_, snapshot)| Arc::clone(snapshot))).collect();
        let login = snapshots.iter().map(|snapshot| snapshot.login).max().unwrap_or_default();
        let latest = snapshots.iter().filter(|snapshot| snapshot.login == login);
        Arc::new(ListSnapshot {
            login,
            complete_in: None,
            entries: latest.flat_map(|snapshot| snapshot.entries.clone()).collect(),
        })
    }
}

fn matches_any(name: &FileName, patterns: &[Pattern], followed: &[(Pattern, Arc<ListSnapshot>)]) -> bool {
    let mut patterns = patterns.iter().chain(followed.iter().map(|(pattern, _)| pattern));
    patterns.any(|pattern| pattern.matches(name))
}

/// No entry of the name comes before it.
fn first_of(name: &FileName) -> ListEntry {
    ListEntry::File { name: name.clone(), hash: ContentHash([0; 32]), size: 0 }
}

fn has_name(entries: &ListEntries, name: &FileName) -> bool {
    let first = entries.range(first_of(name)..).next().map(|(entry, _)| entry);
    matches!(first, Some(ListEntry::File { name: found, .. }) if found == name)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
