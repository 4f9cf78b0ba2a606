//! Downloads: from many sources at once, every byte verified, resumed after any interruption.
//!
//! * `plan` — which source is asked for which chunk groups; pure.
//! * `sets` — many files, cut into sets; looks one set ahead.
//! * `run` — one set of files under way: sources come and go, files begin and finish.
//! * `source` — one connection: asks, receives, opens; `store` — its other half: hashes and writes, on a thread of its
//!   own, so that receiving and writing overlap.
//! * `hope` — when a file is given up.
//! * `large` — one file of several chunk groups, from its outline to its name.
//! * `part`, `arriving` — the unfinished file; `place` — where it goes.
//! * `ask` — asking the server who has what.
//!
//! Defended: a source can only waste time. What it sends is written to a part file, never under a real name, and counts
//! only once its group fits the outline, which fits the published hash; anything that was not asked for ends the
//! connection. No name and no link planted in the folder leads outside it (see `place`).

mod desk;
mod discovery;
mod give_up;
mod incomplete_file;
mod large_file;
mod partial_file;
mod run;
mod scheduler;
mod sets;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

pub use discovery::{SourceDiscovery, SourceOffer};
pub use incomplete_file::IncompleteFile;
use run::Job;
use sets::Order;
use target::TargetDir;

use crate::client::control::RequestError;
use crate::client::control::ServerApi;
use crate::client::exit_code::ExitCode;
use crate::common::types::{Content, FileName, UserName};

/// What to do when the target is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
pub struct DownloadItem {
    /// Its published name; saved under the same name in the shared folder.
    pub name: FileName,
    /// Which content.
    pub content: Content,
}

/// How one download came out.
#[derive(Debug)]
pub enum DownloadOutcome {
    /// The file is in the shared folder: downloaded, or already present with the same content.
    Saved {
        /// Its name there; differs from the requested one with [`OnExists::Rename`].
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
    Local(io::Error),
    /// Exit 9. The verified part is kept.
    #[error("the disk is full")]
    DiskFull,
    /// Exit 130. The verified part is kept.
    #[error("interrupted")]
    Interrupted,
    /// Exit 3 or 4.
    #[error("{0}")]
    Request(#[from] RequestError),
}

impl From<&DownloadError> for ExitCode {
    fn from(error: &DownloadError) -> Self {
        match error {
            DownloadError::NotFound => Self::NotFound,
            DownloadError::Transfer(_) => Self::TransferFailed,
            DownloadError::HashMismatch => Self::HashMismatch,
            DownloadError::Exists | DownloadError::Locked | DownloadError::Local(_) => Self::LocalFile,
            DownloadError::DiskFull => Self::DiskFull,
            DownloadError::Interrupted => Self::Interrupted,
            DownloadError::Request(error) => error.into(),
        }
    }
}

impl From<io::Error> for DownloadError {
    fn from(error: io::Error) -> Self {
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ if full.contains(&error.raw_os_error()) => Self::DiskFull,
            _ => Self::Local(error),
        }
    }
}

/// Told how downloads come along; called from worker threads.
pub trait DownloadProgress: Sync {
    /// `done` of `total` bytes of the wanted file `index` are verified and written.
    fn received(&self, index: usize, done: u64, total: u64);
    /// All upload slots of a source are taken, and this download waits for one: told once for each source.
    fn waiting(&self, _user: &UserName) {}
    /// A source misbehaved, or its file is not what was published, and it was dropped: one line for stderr.
    fn source_dropped(&self, user: &UserName, name: &FileName, why: &str);
    /// DownloadItem file `index` is finished. Called once for each, in any order.
    fn finished(&self, index: usize, outcome: &DownloadOutcome);
    /// Whether the user has asked to stop.
    fn interrupted(&self) -> bool;
    /// DownloadItem file `index`, one of several chunk groups, has begun to arrive: what is verified can be served already.
    fn arriving(&self, _index: usize, _arriving: &Arc<IncompleteFile>) {}
}

/// Fetches files into the shared folder.
pub struct Downloader {
    target_dir: TargetDir,
    ask: Arc<dyn SourceDiscovery>,
}

impl Downloader {
    /// Saves beneath `dir`, by capability.
    pub fn open(dir: &Path, directory: ServerApi) -> io::Result<Self> {
        Self::with_discovery(dir, Arc::new(directory))
    }

    /// Like [`open`](Self::open), with someone else to ask for sources.
    pub fn with_discovery(dir: &Path, ask: Arc<dyn SourceDiscovery>) -> io::Result<Self> {
        Ok(Self { target_dir: TargetDir::open(dir)?, ask })
    }

    /// Fetches all; one outcome for each wanted file, in order.
    pub fn fetch(
        &self,
        wanted: &[DownloadItem],
        options: &DownloadOptions,
        progress: &dyn DownloadProgress,
    ) -> Vec<DownloadOutcome> {
        self.target_dir.clear_cache();
        Order { target_dir: &self.target_dir, ask: &self.ask, wanted, options, progress }.fulfil()
    }
}

/// For each job the job before it that writes the same part file, if any: those go one after the other.
fn predecessors(jobs: &[Job]) -> Vec<Option<usize>> {
    let mut last = HashMap::new();
    let of =
        |(at, job): (usize, &Job)| last.insert((target::split_parent(&job.name).0.to_owned(), job.content.hash), at);
    jobs.iter().enumerate().map(of).collect()
}
