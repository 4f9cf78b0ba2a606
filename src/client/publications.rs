//! The user's own publications as this client knows them: loaded after the login so that what was published before is
//! served again, then kept up by `pub` and `unp`.
//!
//! The server's list is the truth; this one decides only what the shared folder serves and what completion offers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::client::control::RequestError;
use crate::client::control::ServerApi;
use crate::client::upload::UploadService;
use crate::common::limits::COMMAND_TIMEOUT;
use crate::common::message::OwnPublication;
use crate::common::types::{Audience, Content, FileName};

/// A login waits this long for the list to be there, so that nearly every user serves everything from the first moment;
/// longer lists go on loading in the background.
const LOGIN_WAITS: Duration = Duration::from_millis(250);

/// While it lives, the server may name this client as a source of what the folder has not been told of: whoever asks for
/// that waits. To be begun before the server learns what it is about.
#[must_use]
pub struct LoadingGuard(Arc<UploadService>);

impl LoadingGuard {
    /// The folder's list is not whole from now on.
    pub fn begin(folder: &Arc<UploadService>) -> Self {
        folder.begin_loading();
        Self(Arc::clone(folder))
    }
}

impl Drop for LoadingGuard {
    fn drop(&mut self) {
        self.0.end_loading();
    }
}

/// See the module.
#[derive(Default)]
pub struct OwnPublications {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Rises with every login: what an earlier login is still loading is dropped.
    login: u64,
    loading: bool,
    /// All of it was loaded: what is not in `names` is not published.
    complete: bool,
    /// Name, and whether only some may see it.
    names: BTreeMap<FileName, bool>,
    /// Published or withdrawn since the login: newer than what is being loaded.
    touched: BTreeSet<FileName>,
}

impl OwnPublications {
    /// Starts over for whoever has just logged in, and waits a moment for the list, which ends `loading`. `failed` is told
    /// if it cannot be loaded.
    pub fn load(
        self: &Arc<Self>,
        server: &ServerApi,
        uploads: &Arc<UploadService>,
        loading: LoadingGuard,
        failed: impl FnOnce(RequestError) + Send + 'static,
    ) {
        let login = {
            let mut state = self.lock();
            uploads.clear();
            *state = State { login: state.login + 1, loading: true, ..State::default() };
            state.login
        };
        let (own, server, uploads) = (Arc::clone(self), server.clone(), Arc::clone(uploads));
        std::thread::spawn(move || {
            let loaded = own.load_all(login, &server, &uploads);
            drop(loading);
            own.end_loading(login, loaded.is_ok());
            if let Err(error) = loaded {
                failed(error);
            }
        });
        drop(self.wait_loaded(LOGIN_WAITS));
    }

    /// This is served from now on, to its audience.
    pub fn publish(&self, folder: &UploadService, name: &FileName, content: Content, audience: Audience) {
        let mut state = self.lock();
        state.touched.insert(name.clone());
        state.names.insert(name.clone(), audience != Audience::Everyone);
        folder.published(name, content, audience);
    }

    /// This is not served from now on.
    pub fn withdraw(&self, folder: &UploadService, name: &FileName) {
        let mut state = self.lock();
        state.touched.insert(name.clone());
        state.names.remove(name);
        folder.withdrawn(name);
    }

    /// Of `names`, those published with an audience.
    pub fn restricted_among<'a>(&self, names: impl Iterator<Item = &'a FileName>) -> Vec<FileName> {
        let state = self.wait_loaded(COMMAND_TIMEOUT);
        names.filter(|name| state.names.get(*name) == Some(&true)).cloned().collect()
    }

    /// Whether this is surely not published; a list that could not be loaded says nothing.
    pub fn is_known_absent(&self, name: &FileName) -> bool {
        let state = self.wait_loaded(COMMAND_TIMEOUT);
        state.complete && !state.names.contains_key(name)
    }

    /// Names that start with `prefix`, at most `most`, as far as they are loaded.
    pub fn names_with_prefix(&self, prefix: &str, most: usize) -> Vec<FileName> {
        let state = self.lock();
        let from = state.names.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let starting = from.map(|(name, _)| name).take_while(|name| name.as_str().starts_with(prefix));
        starting.take(most).cloned().collect()
    }

    fn load_all(&self, login: u64, catalogue: &ServerApi, folder: &UploadService) -> Result<(), RequestError> {
        let (some, all): (Vec<_>, Vec<_>) =
            catalogue.own_publications_quiet()?.into_iter().partition(|entry| entry.restricted);
        for entry in all {
            self.loaded(login, folder, entry, Audience::Everyone);
        }
        let names: Vec<FileName> = some.iter().map(|entry| entry.name.clone()).collect();
        for (entry, users) in some.into_iter().zip(catalogue.audiences_of(&names)?) {
            if let Some(users) = users {
                self.loaded(login, folder, entry, Audience::only(users));
            }
        }
        Ok(())
    }

    fn loaded(&self, login: u64, folder: &UploadService, entry: OwnPublication, audience: Audience) {
        let mut state = self.lock();
        if state.login == login && !state.touched.contains(&entry.name) {
            state.names.insert(entry.name.clone(), entry.restricted);
            folder.published(&entry.name, entry.content, audience);
        }
    }

    fn end_loading(&self, login: u64, complete: bool) {
        let mut state = self.lock();
        if state.login == login {
            (state.loading, state.complete) = (false, complete);
            self.changed.notify_all();
        }
    }

    fn wait_loaded(&self, patience: Duration) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |state| state.loading);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
