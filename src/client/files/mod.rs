//! Local files beneath the shared folder: resolving paths, expanding arguments, hashing.
//!
//! * `shared_dir`: opens files and folders beneath the shared folder, never through a symbolic link.
//! * `glob`, `expand`: patterns, and the files that an argument of `pub` means.
//! * `hasher`, `outline_cache`: hashes of files and of their chunk groups, computed once.
//!
//! Must not know about the server, the network, or the screen.

mod expand;
mod glob;
mod hasher;
mod outline_cache;
mod shared_dir;

pub use self::expand::is_excluded;
pub use self::glob::{InvalidPattern, Pattern};
pub use self::hasher::{HashError, hash_file};
pub use self::outline_cache::{DiskCache, MemoryCache};
pub use self::shared_dir::{FileIdentity, Rename, SharedDir, rename_noreplace};
use crate::client::exit_code::ExitCode;
use crate::common::types::FileName;

/// Why a local file cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// No such file in the shared folder.
    #[error("{0}: no such file in the shared folder")]
    Missing(String),
    /// A pattern without a match.
    #[error("{0}: no file in the shared folder matches")]
    NoMatch(String),
    /// A folder without a file that could be published.
    #[error("{0}: there is nothing to publish in this folder")]
    Empty(String),
    /// A symbolic link, a FIFO, a device, a socket, or a link on the way to it.
    #[error("{0}: not a regular file or folder")]
    Special(String),
    /// It cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    /// Its name breaks the rules of published names.
    #[error("{0}: {1}")]
    Name(String, crate::common::types::FileNameError),
    /// Its name is not even text.
    #[error("{0}: a file name must be UTF-8")]
    NotUtf8(String),
    /// It changed while it was read.
    #[error("{0}: changed while it was read; publish it again")]
    Changed(String),
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
}

impl From<&ShareError> for ExitCode {
    fn from(error: &ShareError) -> Self {
        match error {
            ShareError::Interrupted => Self::Interrupted,
            ShareError::Missing(_)
            | ShareError::NoMatch(_)
            | ShareError::Empty(_)
            | ShareError::NotUtf8(_)
            | ShareError::Special(_)
            | ShareError::Unreadable(..)
            | ShareError::Name(..)
            | ShareError::Changed(_) => Self::LocalFile,
        }
    }
}

/// One argument of `pub`, `unp` or `get` as the shell split it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArg {
    /// The text with quotes removed.
    pub text: String,
    /// Whether unquoted `*`, `?` or `[` make it a pattern. Within `pattern` quoted specials are escaped for globset.
    pub pattern: Option<String>,
}

/// What an argument of `pub` means.
#[derive(Debug, Default)]
pub struct ExpandedPaths {
    /// The files, sorted, each once.
    pub files: Vec<FileName>,
    /// What stood in the way of others; never empty when there are no files.
    pub errors: Vec<ShareError>,
}

/// Told how far hashing has come.
pub trait HashProgress: Sync {
    /// `done` of `total` bytes of `name` are hashed.
    fn hashed(&self, name: &FileName, done: u64, total: u64);
    /// Whether the user has asked to stop.
    fn interrupted(&self) -> bool;
}
