//! What the commands need from the rest of the client, as small seams: each is a thin face of one room, and a fake in
//! the tests of the commands.

use std::sync::Arc;

use crate::client::control::{ControlHandle, LoginError, Password, RequestError};
use crate::client::control::{PublishAudience, ServerApi};
use crate::client::download::{
    DownloadItem, DownloadOptions, DownloadOutcome, DownloadProgress, Downloader, IncompleteFile,
};
use crate::client::{
    files::{ExpandedPaths, HashProgress, PathArg, ShareError},
    upload::UploadService,
};
use crate::common::message::{AvailableContent, NameQuery, OwnPublication, ResolvePurpose};
use crate::common::types::{Audience, Content, FileName, NamedContent, UserName};

/// What a login tells the user beyond success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Peers on other hosts cannot fetch from this client.
    pub local_only: bool,
}

/// The session with the server.
pub trait Account: Send + Sync {
    /// See [`ControlHandle::login`].
    fn login(&self, user: UserName, password: Password) -> Result<Arrival, LoginError>;
    /// See [`ControlHandle::user`].
    fn user(&self) -> Option<UserName>;
    /// See [`ControlHandle::logout`].
    fn leave(&self);
}

impl Account for ControlHandle {
    fn login(&self, user: UserName, password: Password) -> Result<Arrival, LoginError> {
        ControlHandle::login(self, user, password).map(|welcome| Arrival { local_only: welcome.local_only })
    }

    fn user(&self) -> Option<UserName> {
        ControlHandle::user(self)
    }

    fn leave(&self) {
        ControlHandle::logout(self);
    }
}

/// What the server knows. Each method is that of [`ServerApi`].
pub trait Catalogue: Send + Sync {
    /// See [`ServerApi::publish`].
    fn publish(&self, files: &[NamedContent], to: &PublishAudience) -> Result<(), RequestError>;
    /// See [`ServerApi::unpublish`].
    fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, RequestError>;
    /// See [`ServerApi::published`].
    fn published(&self) -> Result<Vec<OwnPublication>, RequestError>;
    /// See [`ServerApi::books`].
    fn own_publications_quiet(&self) -> Result<Vec<OwnPublication>, RequestError>;
    /// See [`ServerApi::audiences_of`].
    fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, RequestError>;
    /// See [`ServerApi::peers`].
    fn peers(&self) -> Result<Vec<UserName>, RequestError>;
    /// See [`ServerApi::search`].
    fn search(&self, query: NameQuery) -> Result<Vec<FileName>, RequestError>;
    /// See [`ServerApi::resolve`].
    fn resolve(&self, query: NameQuery, purpose: ResolvePurpose) -> Result<Vec<AvailableContent>, RequestError>;
    /// See [`ServerApi::resolve_many`].
    fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<AvailableContent>>, RequestError>;
}

impl Catalogue for ServerApi {
    fn publish(&self, files: &[NamedContent], to: &PublishAudience) -> Result<(), RequestError> {
        ServerApi::publish(self, files, to)
    }

    fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, RequestError> {
        ServerApi::unpublish(self, names)
    }

    fn published(&self) -> Result<Vec<OwnPublication>, RequestError> {
        ServerApi::published(self)
    }

    fn own_publications_quiet(&self) -> Result<Vec<OwnPublication>, RequestError> {
        ServerApi::own_publications_quiet(self)
    }

    fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, RequestError> {
        ServerApi::audiences_of(self, names)
    }

    fn peers(&self) -> Result<Vec<UserName>, RequestError> {
        ServerApi::peers(self)
    }

    fn search(&self, query: NameQuery) -> Result<Vec<FileName>, RequestError> {
        ServerApi::search(self, query)
    }

    fn resolve(&self, query: NameQuery, purpose: ResolvePurpose) -> Result<Vec<AvailableContent>, RequestError> {
        ServerApi::resolve(self, query, purpose)
    }

    fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<AvailableContent>>, RequestError> {
        ServerApi::resolve_many(self, names)
    }
}

/// The shared folder. Each method is that of [`Share`].
pub trait Folder: Send + Sync {
    /// See [`UploadService::expand`].
    fn expand(&self, argument: &PathArg) -> ExpandedPaths;
    /// See [`UploadService::exists`].
    fn exists(&self, name: &FileName) -> bool;
    /// See [`UploadService::size`].
    fn size(&self, name: &FileName) -> u64;
    /// See [`UploadService::hash_file`].
    fn hash_file(&self, name: &FileName, progress: &dyn HashProgress) -> Result<NamedContent, ShareError>;
    /// See [`UploadService::published`].
    fn published(&self, name: &FileName, content: Content, audience: Audience);
    /// See [`UploadService::withdrawn`].
    fn withdrawn(&self, name: &FileName);
    /// See [`UploadService::begin_loading`].
    fn begin_loading(&self);
    /// See [`UploadService::end_loading`].
    fn end_loading(&self);
    /// See [`UploadService::clear`].
    fn clear(&self);
    /// See [`UploadService::serve_incomplete`].
    fn serve_incomplete(&self, name: &FileName, arriving: &Arc<IncompleteFile>);
    /// See [`UploadService::register_downloaded`].
    fn register_downloaded(&self, name: &FileName, arrived: &IncompleteFile);
    /// See [`UploadService::drop_incomplete`].
    fn drop_incomplete(&self, name: &FileName);
}

impl Folder for UploadService {
    fn expand(&self, argument: &PathArg) -> ExpandedPaths {
        UploadService::expand(self, argument)
    }

    fn exists(&self, name: &FileName) -> bool {
        UploadService::exists(self, name)
    }

    fn size(&self, name: &FileName) -> u64 {
        UploadService::size(self, name)
    }

    fn hash_file(&self, name: &FileName, progress: &dyn HashProgress) -> Result<NamedContent, ShareError> {
        UploadService::hash_file(self, name, progress)
    }

    fn published(&self, name: &FileName, content: Content, audience: Audience) {
        UploadService::published(self, name, content, audience);
    }

    fn withdrawn(&self, name: &FileName) {
        UploadService::withdrawn(self, name);
    }

    fn begin_loading(&self) {
        UploadService::begin_loading(self);
    }

    fn end_loading(&self) {
        UploadService::end_loading(self);
    }

    fn clear(&self) {
        UploadService::clear(self);
    }

    fn serve_incomplete(&self, name: &FileName, arriving: &Arc<IncompleteFile>) {
        let has = Arc::clone(arriving);
        let verified = Arc::new(move |group| has.has(group));
        UploadService::serve_incomplete(self, name, arriving.outline().clone(), arriving.file().clone(), verified);
    }

    fn register_downloaded(&self, name: &FileName, arrived: &IncompleteFile) {
        UploadService::register_downloaded(self, name, arrived.outline(), arrived.file());
    }

    fn drop_incomplete(&self, name: &FileName) {
        UploadService::drop_incomplete(self, name);
    }
}

/// The downloads.
pub trait Fetcher: Send + Sync {
    /// See [`Downloader::fetch`].
    fn fetch(
        &self,
        wanted: &[DownloadItem],
        options: &DownloadOptions,
        progress: &dyn DownloadProgress,
    ) -> Vec<DownloadOutcome>;
}

impl Fetcher for Downloader {
    fn fetch(
        &self,
        wanted: &[DownloadItem],
        options: &DownloadOptions,
        progress: &dyn DownloadProgress,
    ) -> Vec<DownloadOutcome> {
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
