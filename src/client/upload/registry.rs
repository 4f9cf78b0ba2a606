//! What is published from the folder, and to whom: looked up for everything that is served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use crate::client::files::FileIdentity;
use crate::common::sync::{lock, read, write};
use crate::common::types::{Audience, Content, ContentHash, ContentRef, FileName, UserName};

/// Files hashed and not yet published that are remembered; one beyond is only hashed again when it is first asked for.
const PREPARED_MAX: usize = 1 << 20;

/// What a file held when it had this stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HashedState {
    pub(super) stamp: FileIdentity,
    pub(super) hash: ContentHash,
    /// No later change can have kept the stamp.
    pub(super) settled: bool,
}

/// One published name. A new publication of it is a new value, so that whoever holds this one can tell.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) content: Content,
    audience: Audience,
    known: Mutex<Option<HashedState>>,
}

impl Publication {
    /// What was found in the file when it was last hashed.
    pub(super) fn known(&self) -> Option<HashedState> {
        *lock(&self.known)
    }

    /// The file was hashed (again).
    pub(super) fn set_hashed(&self, known: HashedState) {
        *lock(&self.known) = Some(known);
    }
}

/// All published names.
#[derive(Default)]
pub(super) struct Registry {
    names: RwLock<HashMap<FileName, Arc<Publication>>>,
    prepared: Mutex<HashMap<FileName, HashedState>>,
}

impl Registry {
    /// A file was hashed and may be published next.
    pub(super) fn prepare(&self, name: &FileName, known: HashedState) {
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

    pub(super) fn clear(&self) {
        write(&self.names).clear();
        lock(&self.prepared).clear();
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> std::collections::BTreeMap<FileName, (Content, Audience)> {
        let entry = |(name, of): (&FileName, &Arc<Publication>)| (name.clone(), (of.content, of.audience.clone()));
        read(&self.names).iter().map(entry).collect()
    }

    pub(super) fn of(&self, name: &FileName) -> Option<Arc<Publication>> {
        read(&self.names).get(name).cloned()
    }

    /// The publication that `grant` means, if it is still shared with `downloader`.
    pub(super) fn lookup_granted(&self, grant: &ContentRef, downloader: &UserName) -> Option<Arc<Publication>> {
        let names = read(&self.names);
        let publication = names.get(&grant.name)?;
        let same = publication.content.hash == grant.hash && publication.content.size == grant.size;
        (same && publication.audience.includes(downloader)).then(|| publication.clone())
    }
}
