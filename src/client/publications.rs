//! The user's own publications: what this client serves, and to whom.
//!
//! After a login they are loaded from the server, so that earlier publications are served again; then `pub`, `unp` and
//! `get --share` keep them up to date. The server's list is authoritative; this one decides what uploads serve and what
//! completion offers. If the server loses publications, the [session](crate::client::session) restores them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::client::control::{RequestError, ServerApi};
use crate::common::limits::COMMAND_TIMEOUT;
use crate::common::message::OwnPublication;
use crate::common::sync::{lock, unpoison};
use crate::common::threads;
use crate::common::types::{Audience, Content, ContentRef, FileName, NamedContent, UserName};

/// A login waits this long for the list, so that nearly every user serves everything at once; a longer list is loaded in
/// the background.
const LOGIN_WAIT_MAX: Duration = Duration::from_millis(250);

/// Audiences requested at once.
const AUDIENCES_AT_ONCE: usize = 256;
/// Most members over all distinct audiences that a server may list: many times what it allows a user by default.
const AUDIENCES_MAX_MEMBERS: usize = 4_000_000;

/// A published name. Publishing the name again makes a new value, so that an upload notices.
#[derive(Debug)]
pub struct Publication {
    pub content: Content,
    audience: Arc<Audience>,
    /// The user was told that the file is not what was published any more.
    pub is_reported_changed: AtomicBool,
    /// The server has confirmed it.
    pub is_accepted: AtomicBool,
    /// The server had confirmed the name before, with another content or audience.
    was_accepted: bool,
}

impl Publication {
    /// Whether it counts among the user's publications at the server already.
    pub fn has_place(&self) -> bool {
        self.was_accepted || self.is_accepted.load(Relaxed)
    }
}

/// All publications of the user. See the module.
#[derive(Default)]
pub struct OwnPublications {
    table: Mutex<PublicationTable>,
    order: Mutex<()>,
    changed: Condvar,
}

#[derive(Default)]
struct PublicationTable {
    /// Counts logins: the list that an earlier login is still loading is dropped.
    login: u64,
    is_loading: bool,
    /// Whether the list has been loaded: a name that is not in `published` is not published.
    is_complete: bool,
    /// The number of [`LoadingGuard`]s.
    guards: usize,
    /// Set while there is a guard. Dropping it disconnects the receivers.
    incomplete: Option<(Sender<Infallible>, Receiver<Infallible>)>,
    published: BTreeMap<FileName, Arc<Publication>>,
    /// Of all publications since the login: each is kept once.
    audiences: BTreeSet<Arc<Audience>>,
    /// Names published or unpublished since the login, which are newer than the list being loaded.
    changed_since_login: BTreeSet<FileName>,
}

/// While this guard exists, the publications are incomplete: uploads of unknown files wait instead of being refused. Must
/// be created before the server learns of a publication.
#[must_use]
pub struct LoadingGuard(Arc<OwnPublications>);

impl LoadingGuard {
    /// Makes the publications incomplete.
    pub fn begin(publications: &Arc<OwnPublications>) -> Self {
        let mut table = lock(&publications.table);
        table.guards += 1;
        table.incomplete.get_or_insert_with(|| bounded(0));
        drop(table);
        Self(Arc::clone(publications))
    }
}

impl Drop for LoadingGuard {
    fn drop(&mut self) {
        let mut table = lock(&self.0.table);
        table.guards -= 1;
        if table.guards == 0 {
            table.incomplete = None;
        }
    }
}

impl OwnPublications {
    /// Starts again for the user who has just logged in: loads the list in the background, and waits for it for a moment.
    /// `loading` ends with the list; `on_error` is called if it cannot be loaded.
    pub fn load(
        self: &Arc<Self>,
        server: &ServerApi,
        loading: LoadingGuard,
        on_error: impl FnOnce(RequestError) + Send + 'static,
    ) {
        let login = self.begin_login();
        let (publications, server) = (Arc::clone(self), server.clone());
        threads::spawn_or_run("publications", move || {
            let result = publications.load_all(login, &server);
            drop(loading);
            publications.end_loading(login, result.is_ok());
            result.unwrap_or_else(on_error);
        });
        drop(self.wait_loaded(LOGIN_WAIT_MAX));
    }

    /// Held from looking up the audience of names to publish them for it, until the server has replied; and while names are
    /// given an audience here. So the audience that was given last counts.
    pub fn order(&self) -> MutexGuard<'_, ()> {
        lock(&self.order)
    }

    /// From now on this is served, to its audience. The server has accepted it.
    pub fn publish(&self, name: &FileName, content: Content, audience: Audience) {
        let mut table = lock(&self.table);
        table.changed_since_login.insert(name.clone());
        table.publish(name, content, audience, true);
    }

    /// The same before the server has [accepted](Self::accept) it.
    pub fn announce(&self, name: &FileName, content: Content, audience: Audience) {
        let mut table = lock(&self.table);
        table.changed_since_login.insert(name.clone());
        table.publish(name, content, audience, false);
    }

    /// The server has accepted these, unless they were published anew meanwhile.
    pub fn accept<'a>(&self, files: impl Iterator<Item = &'a NamedContent>) {
        let table = lock(&self.table);
        for NamedContent { name, content } in files {
            let publication = table.published.get(name).filter(|publication| publication.content == *content);
            publication.into_iter().for_each(|publication| publication.is_accepted.store(true, Relaxed));
        }
    }

    /// From now on this is not served. Returns whether it was.
    pub fn unpublish(&self, name: &FileName) -> bool {
        let mut table = lock(&self.table);
        table.changed_since_login.insert(name.clone());
        table.published.remove(name).is_some()
    }

    /// Those of `names` that are published with an audience.
    pub fn restricted_among<'a>(&self, names: impl Iterator<Item = &'a FileName>) -> Vec<FileName> {
        let table = self.wait_loaded(COMMAND_TIMEOUT);
        let is_restricted = |name: &&FileName| {
            table.published.get(*name).is_some_and(|publication| *publication.audience != Audience::Everyone)
        };
        names.filter(is_restricted).cloned().collect()
    }

    /// Whether this is certainly not published; nothing is certain if the list could not be loaded.
    pub fn is_known_absent(&self, name: &FileName) -> bool {
        let table = self.wait_loaded(COMMAND_TIMEOUT);
        table.is_complete && !table.published.contains_key(name)
    }

    /// Whether the list has been loaded; waits for it.
    pub fn is_complete(&self) -> bool {
        self.wait_loaded(COMMAND_TIMEOUT).is_complete
    }

    /// The audience of a name, if it is published.
    pub fn audience_of(&self, name: &FileName) -> Option<Audience> {
        self.get(name).map(|publication| Audience::clone(&publication.audience))
    }

    /// The name itself and names in the folder of that name; all for the empty path.
    pub fn names_beneath(&self, path: &str) -> Vec<FileName> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut names = self.names_with_prefix(&prefix, usize::MAX);
        names.extend(FileName::parse(path).ok().filter(|name| self.get(name).is_some()));
        names
    }

    /// Names that start with `prefix`, at most `limit`, as far as they are loaded.
    pub fn names_with_prefix(&self, prefix: &str, limit: usize) -> Vec<FileName> {
        let table = lock(&self.table);
        let names = table.published.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let names = names.map(|(name, _)| name).take_while(|name| name.as_str().starts_with(prefix));
        names.take(limit).cloned().collect()
    }

    pub(crate) fn get(&self, name: &FileName) -> Option<Arc<Publication>> {
        lock(&self.table).published.get(name).cloned()
    }

    /// The publication with this name and content, if `downloader` may download it.
    pub fn lookup_granted(&self, granted: &ContentRef, downloader: &UserName) -> Option<Arc<Publication>> {
        let publication = self.get(&granted.name)?;
        let content = &publication.content;
        let is_same = content.hash == granted.hash && content.size == granted.size;
        (is_same && publication.audience.includes(downloader)).then_some(publication)
    }

    /// A channel that disconnects when the publications are complete; `None` if they are.
    pub(crate) fn loading(&self) -> Option<Receiver<Infallible>> {
        lock(&self.table).incomplete.as_ref().map(|(_, completion)| completion.clone())
    }

    /// Forgets all publications. Returns the number of the login.
    pub fn begin_login(&self) -> u64 {
        let mut table = lock(&self.table);
        table.login += 1;
        (table.is_loading, table.is_complete) = (true, false);
        table.published.clear();
        table.audiences.clear();
        table.changed_since_login.clear();
        table.login
    }

    fn load_all(&self, login: u64, server: &ServerApi) -> Result<(), RequestError> {
        let (restricted, public): (Vec<_>, Vec<_>) =
            server.own_publications_quiet()?.into_iter().partition(|entry| entry.restricted);
        for entry in public {
            self.on_loaded(login, &entry, Audience::Everyone);
        }
        for entries in restricted.chunks(AUDIENCES_AT_ONCE) {
            let names: Vec<FileName> = entries.iter().map(|entry| entry.name.clone()).collect();
            for (entry, users) in entries.iter().zip(server.audiences_of(&names)?) {
                if let Some(users) = users {
                    self.on_loaded(login, entry, Audience::only(users));
                }
            }
            if lock(&self.table).members() > AUDIENCES_MAX_MEMBERS {
                return Err(RequestError::EndlessList);
            }
        }
        Ok(())
    }

    /// An entry of the list that this login loads, with its audience.
    pub fn on_loaded(&self, login: u64, entry: &OwnPublication, audience: Audience) {
        let mut table = lock(&self.table);
        if table.login == login && !table.changed_since_login.contains(&entry.name) {
            table.publish(&entry.name, entry.content, audience, true);
        }
    }

    /// The list of this login is here, or could not be loaded.
    pub fn end_loading(&self, login: u64, is_complete: bool) {
        let mut table = lock(&self.table);
        if table.login == login {
            (table.is_loading, table.is_complete) = (false, is_complete);
            self.changed.notify_all();
        }
    }

    fn wait_loaded(&self, timeout: Duration) -> MutexGuard<'_, PublicationTable> {
        unpoison(self.changed.wait_timeout_while(lock(&self.table), timeout, |table| table.is_loading)).0
    }
}

impl PublicationTable {
    fn publish(&mut self, name: &FileName, content: Content, audience: Audience, is_accepted: bool) {
        let audience = Arc::new(audience);
        let audience = match self.audiences.get(&audience) {
            Some(known) => Arc::clone(known),
            None => {
                self.audiences.insert(Arc::clone(&audience));
                audience
            }
        };
        let (is_reported_changed, is_accepted) = (AtomicBool::new(false), AtomicBool::new(is_accepted));
        let was_accepted = self.published.get(name).is_some_and(|before| before.has_place());
        let publication = Publication { content, audience, is_reported_changed, is_accepted, was_accepted };
        self.published.insert(name.clone(), Arc::new(publication));
    }

    /// Over all distinct audiences.
    fn members(&self) -> usize {
        let members = |audience: &Arc<Audience>| match &**audience {
            Audience::Everyone => 0,
            Audience::Only(users) => users.len(),
        };
        self.audiences.iter().map(members).sum()
    }
}

#[cfg(test)]
impl OwnPublications {
    /// Everything that is served, with its audience.
    pub fn all(&self) -> BTreeMap<FileName, (Content, Audience)> {
        let table = lock(&self.table);
        let entry = |(name, publication): (&FileName, &Arc<Publication>)| {
            (name.clone(), (publication.content, Audience::clone(&publication.audience)))
        };
        table.published.iter().map(entry).collect()
    }

    /// Whether uploads of unknown files wait.
    pub fn is_loading(&self) -> bool {
        self.loading().is_some()
    }
}

#[cfg(test)]
#[path = "publications_tests.rs"]
mod tests;
