//! Skeleton of the shared folder: what is published from it, and the listener that serves it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::common::message::PublishedFile;
use crate::common::seal::Secret;
use crate::common::types::{Audience, Content, FileName};

/// Why a local file cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// No such file in the shared folder.
    #[error("{0}: no such file in the shared folder")]
    Missing(String),
    /// A symbolic link, a FIFO, a device, a socket.
    #[error("{0}: not a regular file or folder")]
    Special(String),
    /// It cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    /// Its name breaks the rules of published names.
    #[error("{0}: {1}")]
    Name(String, crate::common::types::FileNameError),
    /// It changed while it was read.
    #[error("{0}: changed while it was read; publish it again")]
    Changed(String),
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
}

/// One argument of `pub`, `unp` or `get` as the shell split it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArgument {
    /// The text with quotes removed.
    pub text: String,
    /// Whether unquoted `*`, `?` or `[` make it a pattern. Within `pattern` quoted specials are escaped for globset.
    pub pattern: Option<String>,
}

/// Told how far hashing has come.
pub trait HashProgress: Sync {
    /// `done` of `total` bytes of `name` are hashed.
    fn hashed(&self, name: &FileName, done: u64, total: u64);
    /// Whether the user has asked to stop.
    fn interrupted(&self) -> bool;
}

/// The shared folder and what is published from it. One for the whole client, shared by the shell, the listener and the
/// downloads.
pub struct Share {}

impl Share {
    /// Opens the folder by capability. `upload_slots` bounds the uploads that run at once.
    pub fn open(_dir: &Path, _upload_slots: u8) -> std::io::Result<Arc<Self>> {
        unimplemented!()
    }

    /// The files that an argument of `pub` means, sorted: itself, what the pattern matches, or everything in the folder.
    /// Hidden entries, unfinished parts, `credentials.txt` and `fileshare.db*` are left out of patterns and folders.
    pub fn expand(&self, _argument: &PathArgument) -> Result<Vec<FileName>, ShareError> {
        unimplemented!()
    }

    /// Hashes a file (or finds its hash in the cache), ready to be published.
    pub fn prepare(&self, _name: &FileName, _progress: &dyn HashProgress) -> Result<PublishedFile, ShareError> {
        unimplemented!()
    }

    /// From now on this is served, to its audience.
    pub fn published(&self, _name: &FileName, _content: Content, _audience: Audience) {
        unimplemented!()
    }

    /// From now on this is not served.
    pub fn withdrawn(&self, _name: &FileName) {
        unimplemented!()
    }

    /// Forgets all publications (another user logs in).
    pub fn clear(&self) {
        unimplemented!()
    }

    /// A new session: tickets are sealed under this key from now on; earlier keys stay valid for `TICKET_KEY_GRACE`.
    pub fn ticket_key(&self, _key: &Secret, _server_now_ms: u64) {
        unimplemented!()
    }

    /// Uploads that could start now.
    pub fn free_slots(&self) -> u8 {
        unimplemented!()
    }
}

/// The TCP listener thread and its upload workers; ends when dropped.
pub struct Listener {}

impl Listener {
    /// Binds and starts the thread. `limit_rate`: bytes a second over all uploads.
    pub fn start(_share: Arc<Share>, _listen: SocketAddr, _limit_rate: Option<u64>) -> std::io::Result<Self> {
        unimplemented!()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        unimplemented!()
    }
}
