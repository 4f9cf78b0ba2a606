//! What is published, to which audience: the facts that uploads are authorized by.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, RwLock};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::common::sync::{lock, read, write};
use crate::common::types::{Audience, Content, ContentRef, FileName, UserName};

/// One published name. Publishing the name again makes a new value, so that a holder of this one notices.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) content: Content,
    audience: Audience,
}

/// All published names.
#[derive(Default)]
pub(super) struct Registry {
    names: RwLock<HashMap<FileName, Arc<Publication>>>,
}

impl Registry {
    pub(super) fn publish(&self, name: &FileName, content: Content, audience: Audience) {
        write(&self.names).insert(name.clone(), Arc::new(Publication { content, audience }));
    }

    pub(super) fn withdraw(&self, name: &FileName) {
        write(&self.names).remove(name);
    }

    pub(super) fn clear(&self) {
        write(&self.names).clear();
    }

    pub(super) fn lookup(&self, name: &FileName) -> Option<Arc<Publication>> {
        read(&self.names).get(name).cloned()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> std::collections::BTreeMap<FileName, (Content, Audience)> {
        let entry = |(name, of): (&FileName, &Arc<Publication>)| (name.clone(), (of.content, of.audience.clone()));
        read(&self.names).iter().map(entry).collect()
    }

    /// The publication that `grant` refers to, if it is still published to `downloader`.
    pub(super) fn lookup_granted(&self, grant: &ContentRef, downloader: &UserName) -> Option<Arc<Publication>> {
        let names = read(&self.names);
        let publication = names.get(&grant.name)?;
        let is_same = publication.content.hash == grant.hash && publication.content.size == grant.size;
        (is_same && publication.audience.includes(downloader)).then(|| publication.clone())
    }
}

/// Whether the registry is being filled: meanwhile the server may name this client as a source of a publication that the
/// registry does not hold yet.
#[derive(Default)]
pub(super) struct LoadGate {
    state: Mutex<LoadState>,
}

#[derive(Default)]
struct LoadState {
    loads: usize,
    /// Disconnects the receivers when the last load ends.
    ended: Option<(Sender<Infallible>, Receiver<Infallible>)>,
}

impl LoadGate {
    pub(super) fn begin(&self) {
        let mut state = lock(&self.state);
        state.loads += 1;
        state.ended.get_or_insert_with(|| bounded(0));
    }

    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.loads -= 1;
        if state.loads == 0 {
            state.ended = None;
        }
    }

    /// A channel that disconnects when the registry is complete; `None` if it is.
    pub(super) fn ended(&self) -> Option<Receiver<Infallible>> {
        lock(&self.state).ended.as_ref().map(|(_, receiver)| receiver.clone())
    }
}
