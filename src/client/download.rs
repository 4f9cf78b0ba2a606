//! Skeleton of the downloads.

use std::path::Path;
use std::time::Duration;

use crate::client::directory::Directory;
use crate::common::types::{Content, FileName, UserName};

/// What to do when the target is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnExists {
    /// Refuse.
    #[default]
    Error,
    /// Replace it, atomically.
    Overwrite,
    /// Save as `name (1).ext`.
    Rename,
    /// Leave it and succeed.
    Skip,
}

/// How downloads behave.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// What to do when the target is there already.
    pub on_exists: OnExists,
    /// How long to wait for a source to return when all are gone.
    pub retry_for: Duration,
}

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its published name; saved under the same name in the shared folder.
    pub name: FileName,
    /// Which content.
    pub content: Content,
}

/// How one download came out.
#[derive(Debug)]
pub enum Fetched {
    /// It is there: saved under `name` (differs from the wanted one with `rename`), or had been there already.
    Done {
        /// The name in the shared folder.
        name: FileName,
    },
    /// It exists and the policy is `skip`.
    Skipped,
    /// It failed.
    Failed(DownloadError),
}

/// Why a download failed; the text goes to stderr.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Exit 5: no active peer serves it (any more).
    #[error("no active peer serves it")]
    NotFound,
    /// Exit 6: sources were known but none could deliver. The verified part is kept.
    #[error("{0}")]
    Transfer(String),
    /// Exit 7: every source served something else.
    #[error("what the sources sent does not match the published hash")]
    HashMismatch,
    /// Exit 8: the target exists with other content.
    #[error("the file exists; see --on-exists")]
    Exists,
    /// Exit 8: another process downloads the same file into the same folder.
    #[error("another download of this file is under way")]
    Locked,
    /// Exit 8: any other local trouble.
    #[error("{0}")]
    Local(std::io::Error),
    /// Exit 9. The verified part is kept.
    #[error("the disk is full")]
    DiskFull,
    /// Exit 130. The verified part is kept.
    #[error("interrupted")]
    Interrupted,
    /// Exit 3 or 4.
    #[error("{0}")]
    Ask(#[from] crate::client::control::AskError),
}

/// Told how downloads come along; called from worker threads.
pub trait DownloadProgress: Sync {
    /// `done` of `total` bytes of the wanted file `index` are verified and written.
    fn received(&self, index: usize, done: u64, total: u64);
    /// A source misbehaved and was dropped: one line for stderr.
    fn source_dropped(&self, user: &UserName, name: &FileName, why: &str);
    /// Wanted file `index` is finished. Called once for each, in any order.
    fn finished(&self, index: usize, outcome: &Fetched);
    /// Whether the user has asked to stop.
    fn interrupted(&self) -> bool;
}

/// Fetches files into the shared folder.
pub struct Downloader {}

impl Downloader {
    /// Saves beneath `dir`, by capability.
    pub fn open(_dir: &Path, _directory: Directory) -> std::io::Result<Self> {
        unimplemented!()
    }

    /// Fetches all; one outcome for each wanted file, in order.
    pub fn fetch(
        &self,
        _wanted: &[Wanted],
        _options: &DownloadOptions,
        _progress: &dyn DownloadProgress,
    ) -> Vec<Fetched> {
        unimplemented!()
    }
}
