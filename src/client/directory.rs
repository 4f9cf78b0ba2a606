//! What the client asks the server, as plain calls: pages, parts and batches are put together here.
//!
//! Owns the splitting into datagrams and the walking of cursors. Must not know about sockets, files or the screen.

use crate::client::control::{AskError, Control};
use crate::common::message::{FoundEntry, NameQuery, OwnEntry, PublishedFile, SourceGrant, WantedFile};
use crate::common::types::{Audience, FileName, UserName};

/// Who may see what is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishTo {
    /// These.
    Audience(Audience),
    /// Whoever may see the publication it was fetched from (`get --share`).
    Inherited,
}

/// The server's lists, whole; cheap to clone.
#[derive(Clone)]
pub struct Directory {}

impl Directory {
    /// Asks through `control`.
    pub fn new(_control: Control) -> Self {
        unimplemented!()
    }

    /// Publishes all files; when it returns they are durable and visible.
    pub fn publish(&self, _files: &[PublishedFile], _to: &PublishTo) -> Result<(), AskError> {
        unimplemented!()
    }

    /// Withdraws names; for each, whether it was published.
    pub fn unpublish(&self, _names: &[FileName]) -> Result<Vec<bool>, AskError> {
        unimplemented!()
    }

    /// The user's own publications, sorted by name.
    pub fn published(&self) -> Result<Vec<OwnEntry>, AskError> {
        unimplemented!()
    }

    /// Who may see one of the user's own restricted publications; `None` if it is not published.
    pub fn audience_of(&self, _name: &FileName) -> Result<Option<Vec<UserName>>, AskError> {
        unimplemented!()
    }

    /// The other active users, sorted.
    pub fn peers(&self) -> Result<Vec<UserName>, AskError> {
        unimplemented!()
    }

    /// Visible names of active peers, sorted, each once.
    pub fn search(&self, _query: NameQuery) -> Result<Vec<FileName>, AskError> {
        unimplemented!()
    }

    /// Visible contents of active peers, sorted by name, then most sources first.
    pub fn resolve(&self, _query: NameQuery, _fetch: bool) -> Result<Vec<FoundEntry>, AskError> {
        unimplemented!()
    }

    /// Like [`resolve`](Self::resolve) for many exact names at once (pipelined); one list for each name.
    pub fn resolve_many(&self, _names: &[FileName]) -> Result<Vec<Vec<FoundEntry>>, AskError> {
        unimplemented!()
    }

    /// Who serves these contents, best first, at most `most` sources. `covers` counts bits within one batch: the caller
    /// passes files that [`source_batches`] put together.
    pub fn sources(&self, _batch: &[WantedFile], _most: usize) -> Result<Vec<SourceGrant>, AskError> {
        unimplemented!()
    }

    /// Like [`sources`](Self::sources) for many batches at once (pipelined).
    pub fn sources_many(&self, _batches: &[&[WantedFile]], _most: usize) -> Result<Vec<Vec<SourceGrant>>, AskError> {
        unimplemented!()
    }
}

/// Splits wanted files into runs that fit one SOURCES request each.
pub fn source_batches(_files: &[WantedFile]) -> Vec<&[WantedFile]> {
    unimplemented!()
}
