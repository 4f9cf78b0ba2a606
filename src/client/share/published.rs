//! What is published from the folder, and to whom: looked up for everything that is served.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Duration;

use super::folder::Stamp;
use super::serving::Patience;
use super::{lock, read, write};
use crate::common::ticket::Grant;
use crate::common::types::{Audience, Content, ContentHash, FileName, UserName};

/// Files hashed and not yet published that are remembered; one beyond is only hashed again when it is first asked for.
const PREPARED_MAX: usize = 1 << 20;
/// Whoever waits for a publication looks this often whether the one who asked is still there.
const LOOK: Duration = Duration::from_millis(100);

/// What a file held when it had this stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) stamp: Stamp,
    pub(super) hash: ContentHash,
    /// No later change can have kept the stamp.
    pub(super) settled: bool,
}

/// One published name. A new publication of it is a new value, so that whoever holds this one can tell.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) content: Content,
    audience: Audience,
    known: Mutex<Option<Known>>,
}

impl Publication {
    /// What was found in the file when it was last hashed.
    pub(super) fn known(&self) -> Option<Known> {
        *lock(&self.known)
    }

    /// The file was hashed (again).
    pub(super) fn learn(&self, known: Known) {
        *lock(&self.known) = Some(known);
    }
}

/// All published names.
#[derive(Default)]
pub(super) struct Registry {
    names: RwLock<HashMap<FileName, Arc<Publication>>>,
    prepared: Mutex<HashMap<FileName, Known>>,
    /// Whether all is here that was published before the login.
    is_complete: Mutex<bool>,
    completed: Condvar,
}

impl Registry {
    /// A file was hashed and may be published next.
    pub(super) fn prepare(&self, name: &FileName, known: Known) {
        let mut prepared = lock(&self.prepared);
        if prepared.len() < PREPARED_MAX || prepared.contains_key(name) {
            prepared.insert(name.clone(), known);
        }
    }

    /// From now on `name` is served. What is known of the file is kept if it is about the same content.
    pub(super) fn publish(&self, name: &FileName, content: Content, audience: Audience) {
        let prepared = lock(&self.prepared).remove(name);
        let mut names = write(&self.names);
        let before = names.get(name).and_then(|publication| publication.known());
        let known = prepared.or(before).filter(|known| known.hash == content.hash);
        names.insert(name.clone(), Arc::new(Publication { content, audience, known: Mutex::new(known) }));
    }

    pub(super) fn withdraw(&self, name: &FileName) {
        write(&self.names).remove(name);
    }

    pub(super) fn complete(&self) {
        *lock(&self.is_complete) = true;
        self.completed.notify_all();
    }

    pub(super) fn clear(&self) {
        *lock(&self.is_complete) = false;
        write(&self.names).clear();
        lock(&self.prepared).clear();
    }

    pub(super) fn of(&self, name: &FileName) -> Option<Arc<Publication>> {
        read(&self.names).get(name).cloned()
    }

    /// The publication that `grant` means, if it is still shared with `downloader`. The server sends downloaders from the
    /// moment of the login on: what is not known here before the list is complete may be on it, and is waited for.
    pub(super) fn granted(
        &self,
        grant: &Grant,
        downloader: &UserName,
        patience: Patience<'_>,
    ) -> Option<Arc<Publication>> {
        loop {
            let was_complete = *lock(&self.is_complete);
            let found = self.find(grant, downloader);
            if found.is_some() || was_complete || !patience() {
                return found;
            }
            drop(self.completed.wait_timeout_while(lock(&self.is_complete), LOOK, |is_complete| !*is_complete));
        }
    }

    fn find(&self, grant: &Grant, downloader: &UserName) -> Option<Arc<Publication>> {
        let names = read(&self.names);
        let publication = names.get(&grant.name)?;
        let same = publication.content.hash == grant.hash && publication.content.size == grant.size;
        (same && publication.audience.includes(downloader)).then(|| publication.clone())
    }
}
