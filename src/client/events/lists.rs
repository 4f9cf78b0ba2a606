//! Keeps what is known of lists up to date, each once for all its readers: asks the server again whenever the session
//! reports a change.
//!
//! One thread asks. Of each list it is at most a quarter of the time busy with it, so that long lists that change all the
//! time load neither server nor client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::known::{ListEntries, ListEntry, merge};
use crate::client::control::{ListSignal, RequestError, ServerApi, SessionControl, WaitId, WatchedList};
use crate::client::files::is_excluded;
use crate::common::glob::Pattern;
use crate::common::message::{AvailableContent, NameQuery, ResolvePurpose};
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::{FileName, UsersDigest};

/// A list that could not be had is asked for again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause after a list.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause after a list, in times of what the list took.
const PAUSE_FACTOR: u32 = 3;

/// See the [module](self).
pub struct ListWatcher {
    session: Arc<dyn SessionControl>,
    server: ServerApi,
    lists: Mutex<SharedLists>,
    signals: ListSignals,
    woken: Receiver<()>,
}

#[derive(Default)]
struct SharedLists {
    by_key: BTreeMap<u64, SharedList>,
    /// Those who read all followed lists, woken after a change of one; by key.
    followers: BTreeMap<u64, Sender<()>>,
    last_key: u64,
    has_thread: bool,
}

struct SharedList {
    list: WatchedList,
    watch: WaitId,
    snapshot: Arc<ListSnapshot>,
    /// Woken after a change; by the key of the reader.
    readers: BTreeMap<u64, Sender<()>>,
    /// Readers that follow it.
    followed_by: BTreeSet<u64>,
}

/// What is known of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListSnapshot {
    /// Counts the logins: of another user, or of this one after a logout, nothing is known.
    pub login: u64,
    /// The number of sessions that had begun, if what the list lacks has gone.
    pub complete_in: Option<u64>,
    pub entries: ListEntries,
}

/// The lists to ask for, by key.
type PendingLists = Mutex<BTreeMap<u64, ListSignal>>;

/// How the control thread tells the thread of the lists what to ask for. That thread ends when nobody can tell it more.
#[derive(Clone)]
struct ListSignals {
    pending: Arc<PendingLists>,
    wake: Sender<()>,
}

/// One reader of a list.
pub struct ListReader {
    watcher: Arc<ListWatcher>,
    list: u64,
    reader: u64,
}

/// A reader of all lists that are followed.
pub struct FollowedLists {
    watcher: Arc<ListWatcher>,
    key: u64,
}

impl ListWatcher {
    pub fn new(session: Arc<dyn SessionControl>, server: ServerApi) -> Arc<Self> {
        let (wake, woken) = bounded(1);
        let signals = ListSignals { pending: Arc::default(), wake };
        Arc::new(Self { session, server, lists: Mutex::default(), signals, woken })
    }

    /// Adds a reader of a list, which is woken by `wake` whenever [`ListReader::snapshot`] may have changed.
    pub fn reader(self: &Arc<Self>, list: &WatchedList, wake: Sender<()>) -> Result<ListReader, RequestError> {
        let mut lists = lock(&self.lists);
        if !lists.has_thread {
            let (watcher, pending, woken) =
                (Arc::downgrade(self), Arc::clone(&self.signals.pending), self.woken.clone());
            let spawned = threads::spawn("lists", move || run(&watcher, &pending, &woken));
            spawned.map_err(|error| {
                log::error!("cannot watch lists: {error}");
                RequestError::Unreachable
            })?;
            lists.has_thread = true;
        }
        lists.last_key += 1;
        let reader = lists.last_key;
        if let Some((&key, shared)) = lists.by_key.iter_mut().find(|(_, shared)| shared.list == *list) {
            let _ = wake.try_send(());
            shared.readers.insert(reader, wake);
            return Ok(ListReader { watcher: Arc::clone(self), list: key, reader });
        }
        let signals = self.signals.clone();
        let on_change = move |signal| signals.add(reader, signal);
        let watch = self.session.watch(list.clone(), Box::new(on_change))?;
        let readers = BTreeMap::from([(reader, wake)]);
        let (list, snapshot, followed_by) = (list.clone(), Arc::default(), BTreeSet::new());
        lists.by_key.insert(reader, SharedList { list, watch, snapshot, readers, followed_by });
        Ok(ListReader { watcher: Arc::clone(self), list: reader, reader })
    }

    /// A reader of all lists that are followed, which is woken by `wake` after a change of one, or of what is followed.
    pub fn followed(self: &Arc<Self>, wake: Sender<()>) -> FollowedLists {
        let mut lists = lock(&self.lists);
        lists.last_key += 1;
        let key = lists.last_key;
        lists.followers.insert(key, wake);
        FollowedLists { watcher: Arc::clone(self), key }
    }

    /// Asks for a list. Returns whether that must be repeated.
    fn refresh(&self, key: u64, signal: ListSignal) -> bool {
        let Some(list) = lock(&self.lists).by_key.get(&key).map(|shared| shared.list.clone()) else { return false };
        let entries = match self.fetch(&list) {
            Ok(entries) => entries,
            // The next session reports a change again.
            Err(RequestError::NotAuthenticated) => return false,
            Err(error) => {
                log::debug!("cannot get the list: {error}");
                return true;
            }
        };
        // The list may be from a session that has begun meanwhile, with a server that does not know of all users yet.
        let is_complete = signal.is_complete && self.session.sessions() == signal.session;
        let mut lists = lock(&self.lists);
        let Some(shared) = lists.by_key.get_mut(&key) else { return false };
        let nothing = ListEntries::new();
        let known = if shared.snapshot.login == signal.login { &shared.snapshot.entries } else { &nothing };
        let complete_in = is_complete.then_some(signal.session);
        let snapshot = ListSnapshot { login: signal.login, complete_in, entries: merge(known, entries, is_complete) };
        if *shared.snapshot != snapshot {
            shared.snapshot = Arc::new(snapshot);
        }
        // Another user may publish what was published before.
        shared.readers.values().for_each(|wake| _ = wake.try_send(()));
        if !shared.followed_by.is_empty() {
            lists.wake_followers();
        }
        false
    }

    fn fetch(&self, list: &WatchedList) -> Result<ListEntries, RequestError> {
        let pattern = match list {
            WatchedList::Peers => {
                let peers = self.server.peers()?.into_iter();
                return Ok(peers.map(|peer| (ListEntry::Peer(peer.user), UsersDigest::default())).collect());
            }
            WatchedList::Files(pattern) => pattern,
        };
        let found = self.server.resolve(NameQuery::for_pattern(pattern), ResolvePurpose::Download)?;
        let is_private = |name: &FileName| name.components().last().is_some_and(|leaf| is_excluded(leaf.as_bytes()));
        let is_named = !pattern.has_glob() && !pattern.is_folder();
        let matching = found.into_iter().filter(|entry| pattern.matches(&entry.name));
        let shown = matching.filter(|entry| is_named || !is_private(&entry.name));
        let entry = |AvailableContent { name, content, users, .. }| {
            (ListEntry::File { name, hash: content.hash, size: content.size }, users)
        };
        Ok(shown.map(entry).collect())
    }
}

impl SharedLists {
    fn wake_followers(&self) {
        self.followers.values().for_each(|wake| _ = wake.try_send(()));
    }
}

impl ListReader {
    /// Readers of events are told of the list until this one is dropped.
    pub fn follow(&self) {
        let mut lists = lock(&self.watcher.lists);
        if let Some(shared) = lists.by_key.get_mut(&self.list) {
            shared.followed_by.insert(self.reader);
            lists.wake_followers();
        }
    }

    pub fn snapshot(&self) -> Arc<ListSnapshot> {
        let lists = lock(&self.watcher.lists);
        lists.by_key.get(&self.list).map(|shared| Arc::clone(&shared.snapshot)).unwrap_or_default()
    }
}

impl Drop for ListReader {
    fn drop(&mut self) {
        let mut lists = lock(&self.watcher.lists);
        let Some(shared) = lists.by_key.get_mut(&self.list) else { return };
        shared.readers.remove(&self.reader);
        let was_followed = shared.followed_by.remove(&self.reader);
        if shared.readers.is_empty() {
            self.watcher.session.unwatch(shared.watch);
            lists.by_key.remove(&self.list);
        }
        if was_followed {
            lists.wake_followers();
        }
    }
}

impl FollowedLists {
    /// The patterns that are followed, each with what is known of its list.
    pub fn snapshots(&self) -> Vec<(Pattern, Arc<ListSnapshot>)> {
        let lists = lock(&self.watcher.lists);
        let followed = lists.by_key.values().filter(|shared| !shared.followed_by.is_empty());
        let snapshot = |shared: &SharedList| match &shared.list {
            WatchedList::Files(pattern) => Some((pattern.clone(), Arc::clone(&shared.snapshot))),
            WatchedList::Peers => None,
        };
        followed.filter_map(snapshot).collect()
    }
}

impl Drop for FollowedLists {
    fn drop(&mut self) {
        lock(&self.watcher.lists).followers.remove(&self.key);
    }
}

impl ListSignals {
    fn add(&self, key: u64, signal: ListSignal) {
        lock(&self.pending).insert(key, signal);
        let _ = self.wake.try_send(());
    }
}

/// Asks for lists until there is nothing left that could change.
#[expect(clippy::disallowed_methods, reason = "a driver: it measures how long lists take, and pauses after them")]
fn run(watcher: &Weak<ListWatcher>, pending: &PendingLists, woken: &Receiver<()>) {
    // When a list may be asked for again; the others may be at any time.
    let mut pauses: BTreeMap<u64, Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        pauses.retain(|_, until| *until > now);
        // Statements of their own, which end the lock: the control thread takes it, and so does a failure below.
        let paused_until = lock(pending).keys().filter_map(|key| pauses.get(key)).min().copied();
        let ready = lock(pending).extract_if(.., |key, _| !pauses.contains_key(key)).next();
        let Some((key, signal)) = ready else {
            let is_woken = match paused_until {
                None => woken.recv().is_ok(),
                Some(until) => woken.recv_deadline(until) != Err(RecvTimeoutError::Disconnected),
            };
            if is_woken {
                continue;
            }
            return;
        };
        let Some(watcher) = watcher.upgrade() else { return };
        let began = Instant::now();
        let has_failed = watcher.refresh(key, signal);
        drop(watcher);
        if has_failed {
            lock(pending).entry(key).or_insert(signal);
        }
        let pause = if has_failed { RETRY } else { (began.elapsed() * PAUSE_FACTOR).min(PAUSE_MAX) };
        pauses.insert(key, Instant::now() + pause);
    }
}
