//! What the commands need from the rest of the client, as small seams: each is a thin face of one room, and a fake in
//! the tests of the commands.

use std::sync::Arc;

use crate::client::control::{AskError, Control, LoginError, Password};
use crate::client::directory::{Directory, PublishTo};
use crate::client::download::{Arriving, DownloadOptions, DownloadProgress, Downloader, Fetched, Wanted};
use crate::client::share::{Expanded, HashProgress, PathArgument, Share, ShareError};
use crate::common::message::{FoundEntry, NameQuery, OwnEntry, PublishedFile};
use crate::common::types::{Audience, Content, FileName, UserName};

/// What a login tells the user beyond success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Peers on other hosts cannot fetch from this client.
    pub local_only: bool,
}

/// The session with the server.
pub trait Account: Send + Sync {
    /// See [`Control::login`].
    fn login(&self, user: UserName, password: Password) -> Result<Arrival, LoginError>;
    /// See [`Control::user`].
    fn user(&self) -> Option<UserName>;
    /// See [`Control::leave`].
    fn leave(&self);
}

impl Account for Control {
    fn login(&self, user: UserName, password: Password) -> Result<Arrival, LoginError> {
        Control::login(self, user, password).map(|welcome| Arrival { local_only: welcome.local_only })
    }

    fn user(&self) -> Option<UserName> {
        Control::user(self)
    }

    fn leave(&self) {
        Control::leave(self);
    }
}

/// What the server knows. Each method is that of [`Directory`].
pub trait Catalogue: Send + Sync {
    /// See [`Directory::publish`].
    fn publish(&self, files: &[PublishedFile], to: &PublishTo) -> Result<(), AskError>;
    /// See [`Directory::unpublish`].
    fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, AskError>;
    /// See [`Directory::published`].
    fn published(&self) -> Result<Vec<OwnEntry>, AskError>;
    /// See [`Directory::books`].
    fn books(&self) -> Result<Vec<OwnEntry>, AskError>;
    /// See [`Directory::audiences_of`].
    fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, AskError>;
    /// See [`Directory::peers`].
    fn peers(&self) -> Result<Vec<UserName>, AskError>;
    /// See [`Directory::search`].
    fn search(&self, query: NameQuery) -> Result<Vec<FileName>, AskError>;
    /// See [`Directory::resolve`].
    fn resolve(&self, query: NameQuery, fetch: bool) -> Result<Vec<FoundEntry>, AskError>;
    /// See [`Directory::resolve_many`].
    fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<FoundEntry>>, AskError>;
}

impl Catalogue for Directory {
    fn publish(&self, files: &[PublishedFile], to: &PublishTo) -> Result<(), AskError> {
        Directory::publish(self, files, to)
    }

    fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, AskError> {
        Directory::unpublish(self, names)
    }

    fn published(&self) -> Result<Vec<OwnEntry>, AskError> {
        Directory::published(self)
    }

    fn books(&self) -> Result<Vec<OwnEntry>, AskError> {
        Directory::books(self)
    }

    fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, AskError> {
        Directory::audiences_of(self, names)
    }

    fn peers(&self) -> Result<Vec<UserName>, AskError> {
        Directory::peers(self)
    }

    fn search(&self, query: NameQuery) -> Result<Vec<FileName>, AskError> {
        Directory::search(self, query)
    }

    fn resolve(&self, query: NameQuery, fetch: bool) -> Result<Vec<FoundEntry>, AskError> {
        Directory::resolve(self, query, fetch)
    }

    fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<FoundEntry>>, AskError> {
        Directory::resolve_many(self, names)
    }
}

/// The shared folder. Each method is that of [`Share`].
pub trait Folder: Send + Sync {
    /// See [`Share::expand`].
    fn expand(&self, argument: &PathArgument) -> Expanded;
    /// See [`Share::is_taken`].
    fn is_taken(&self, name: &FileName) -> bool;
    /// See [`Share::size`].
    fn size(&self, name: &FileName) -> u64;
    /// See [`Share::prepare`].
    fn prepare(&self, name: &FileName, progress: &dyn HashProgress) -> Result<PublishedFile, ShareError>;
    /// See [`Share::published`].
    fn published(&self, name: &FileName, content: Content, audience: Audience);
    /// See [`Share::withdrawn`].
    fn withdrawn(&self, name: &FileName);
    /// See [`Share::list_begins`].
    fn list_begins(&self);
    /// See [`Share::list_ends`].
    fn list_ends(&self);
    /// See [`Share::clear`].
    fn clear(&self);
    /// See [`Share::arriving`].
    fn arriving(&self, name: &FileName, arriving: &Arc<Arriving>);
    /// See [`Share::downloaded`].
    fn downloaded(&self, name: &FileName, arrived: &Arriving);
    /// See [`Share::gave_up`].
    fn gave_up(&self, name: &FileName);
}

impl Folder for Share {
    fn expand(&self, argument: &PathArgument) -> Expanded {
        Share::expand(self, argument)
    }

    fn is_taken(&self, name: &FileName) -> bool {
        Share::is_taken(self, name)
    }

    fn size(&self, name: &FileName) -> u64 {
        Share::size(self, name)
    }

    fn prepare(&self, name: &FileName, progress: &dyn HashProgress) -> Result<PublishedFile, ShareError> {
        Share::prepare(self, name, progress)
    }

    fn published(&self, name: &FileName, content: Content, audience: Audience) {
        Share::published(self, name, content, audience);
    }

    fn withdrawn(&self, name: &FileName) {
        Share::withdrawn(self, name);
    }

    fn list_begins(&self) {
        Share::list_begins(self);
    }

    fn list_ends(&self) {
        Share::list_ends(self);
    }

    fn clear(&self) {
        Share::clear(self);
    }

    fn arriving(&self, name: &FileName, arriving: &Arc<Arriving>) {
        let has = Arc::clone(arriving);
        let verified = Arc::new(move |group| has.has(group));
        Share::arriving(self, name, arriving.outline().clone(), arriving.file().clone(), verified);
    }

    fn downloaded(&self, name: &FileName, arrived: &Arriving) {
        Share::downloaded(self, name, arrived.outline(), arrived.file());
    }

    fn gave_up(&self, name: &FileName) {
        Share::gave_up(self, name);
    }
}

/// The downloads.
pub trait Fetcher: Send + Sync {
    /// See [`Downloader::fetch`].
    fn fetch(&self, wanted: &[Wanted], options: &DownloadOptions, progress: &dyn DownloadProgress) -> Vec<Fetched>;
}

impl Fetcher for Downloader {
    fn fetch(&self, wanted: &[Wanted], options: &DownloadOptions, progress: &dyn DownloadProgress) -> Vec<Fetched> {
        Downloader::fetch(self, wanted, options, progress)
    }
}

/// All of them; cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The session with the server.
    pub account: Arc<dyn Account>,
    /// What the server knows.
    pub catalogue: Arc<dyn Catalogue>,
    /// The shared folder.
    pub folder: Arc<dyn Folder>,
    /// The downloads.
    pub fetcher: Arc<dyn Fetcher>,
}
