//! Downloads: from many sources at once, every byte verified, resumed after any interruption.
//!
//! * `request` checks the targets and cuts a request into batches. `batch` starts the threads of one and carries events
//!   and commands between them.
//! * `coordinator` decides everything in a batch, on the calling thread; pure. `scheduler` decides which source is asked
//!   for which chunk group, `give_up` when a file is abandoned; pure too.
//! * `source` is the thread of one connection: requests and receives. `writer` is its second thread: hashes and writes,
//!   so that receiving and writing overlap.
//! * `file_job` is one file: opened, saved, finalized. `small_files` saves those of one group, `copy_record` is what is
//!   recorded of a file while it gets its name. `partial_file` is the file while it is incomplete, `incomplete_file`
//!   which groups of a large one are verified, `target` its place in the shared folder, `replaced_file` what it keeps of the
//!   file that was there.
//! * `content_stream` reads what an unnamed file has received in order, for `cat`. `store` saves what is not downloaded,
//!   for `pub --stdin`.
//! * `stale_parts` removes partial files that nobody has touched for a long time.
//! * `discovery` asks the server for sources.
//!
//! Defended: a source can only waste time. What it sends is written to a partial file, never under a real name, and
//! counts only once its group matches the outline, which matches the published hash; any frame that was not requested
//! ends the connection. No name and no link planted in the folder leads outside it (see `target`).

#[expect(clippy::disallowed_methods, reason = "a driver: the coordinator gets its time as an argument")]
mod batch;
mod content_stream;
mod coordinator;
mod copy_record;
mod discovery;
mod file_job;
mod give_up;
mod group_set;
mod incomplete_file;
mod partial_file;
mod replaced_file;
mod request;
mod scheduler;
mod small_files;
#[expect(clippy::disallowed_methods, reason = "a driver: it gives up on a silent peer")]
mod source;
mod stale_parts;
mod store;
mod target;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some test peers are slow")]
mod tests;
#[expect(clippy::disallowed_methods, reason = "a driver: it reports at intervals")]
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

pub use content_stream::ContentStream;
pub use discovery::{SourceDiscovery, SourceOffer};
use file_job::FileJob;
pub use incomplete_file::IncompleteFile;
use request::DownloadRequest;
use target::TargetDir;

use crate::client::cancel::{Cancelled, is_cancelled};
use crate::client::control::RequestError;
use crate::client::control::ServerApi;
use crate::client::exit_code::ExitCode;
use crate::client::files::{FetchedFiles, RecordFile};
use crate::common::types::{FileName, NamedContent, UserName};

/// What to do when the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// Under which name a download is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SaveAs {
    #[default]
    OwnName,
    /// Another name; the request is for one file.
    Name(FileName),
    /// Its own name, which belongs to this user. A file that is there is replaced only while it is what was fetched from
    /// that user before.
    Followed(UserName),
    /// None: the content goes to a file without a name in the shared folder, which disappears with its last handle.
    Unnamed,
}

/// How downloads behave.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    pub on_exists: OnExists,
    /// How long to wait for a source when none is left.
    pub retry_for: Duration,
    pub save_as: SaveAs,
}

impl DownloadOptions {
    /// The name under which this file is saved.
    fn target<'a>(&'a self, item: &'a NamedContent) -> &'a FileName {
        match &self.save_as {
            SaveAs::Name(name) => name,
            SaveAs::OwnName | SaveAs::Followed(_) | SaveAs::Unnamed => &item.name,
        }
    }
}

/// How one download came out.
#[derive(Debug)]
pub enum DownloadOutcome {
    /// The file is in the shared folder: downloaded, or already present with the same content.
    Saved {
        /// Its name there; differs from the requested one with [`OnExists::Rename`].
        name: FileName,
    },
    /// With [`SaveAs::Unnamed`]: the file has the content.
    Unnamed(Arc<File>),
    /// The target exists and the policy is [`OnExists::Skip`].
    Skipped,
    Failed(DownloadError),
}

impl DownloadOutcome {
    /// The name of the file in the folder, if it is complete there.
    pub fn saved_as(&self) -> Option<&FileName> {
        match self {
            Self::Saved { name } => Some(name),
            Self::Unnamed(_) | Self::Skipped | Self::Failed(_) => None,
        }
    }

    pub fn code(&self) -> ExitCode {
        match self {
            Self::Saved { .. } | Self::Unnamed(_) | Self::Skipped => ExitCode::Success,
            Self::Failed(error) => error.into(),
        }
    }

    /// Whether the file is complete and has this name in the folder.
    pub fn is_saved_as(&self, requested: &FileName) -> bool {
        self.saved_as() == Some(requested)
    }
}

/// Why a download failed; the text goes to stderr.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("no active peer serves it")]
    NotFound,
    /// There were sources, but none could deliver. Verified groups are kept.
    #[error("{0}")]
    Transfer(String),
    /// Every source has changed its file since it was published.
    #[error("{0}")]
    Changed(String),
    #[error("what the sources sent does not match the published hash")]
    HashMismatch,
    #[error("the file exists; see --on-exists")]
    Exists,
    #[error("another download of this file is under way")]
    Locked,
    #[error("{0}")]
    Local(io::Error),
    /// No thread or descriptor. Verified groups are kept.
    #[error("{0}")]
    NoResources(String),
    /// Verified groups are kept.
    #[error("the disk is full")]
    DiskFull,
    /// Verified groups are kept.
    #[error("the file would be larger than the file system or `ulimit -f` permits")]
    FileTooLarge,
    /// Verified groups are kept.
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    Request(#[from] RequestError),
}

impl From<&DownloadError> for ExitCode {
    fn from(error: &DownloadError) -> Self {
        match error {
            DownloadError::NotFound => Self::NotFound,
            DownloadError::Transfer(_) | DownloadError::Changed(_) => Self::TransferFailed,
            DownloadError::HashMismatch => Self::HashMismatch,
            DownloadError::Exists | DownloadError::Locked | DownloadError::Local(_) => Self::LocalFile,
            DownloadError::DiskFull | DownloadError::FileTooLarge => Self::DiskFull,
            DownloadError::NoResources(_) => Self::Internal,
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
            io::ErrorKind::FileTooLarge => Self::FileTooLarge,
            _ if full.contains(&error.raw_os_error()) => Self::DiskFull,
            _ => Self::Local(error),
        }
    }
}

/// Why a download waits for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// All its upload slots are taken.
    Busy,
    /// It is reading its file to check that it is what was published.
    Hashing,
}

/// What a download reports, on the thread that calls [`Download::fetch`]. A file is named by its index in the request.
pub enum DownloadReport {
    /// `done` of `total` bytes of the file are verified and written.
    Received { index: usize, done: u64, total: u64 },
    /// So many bytes of the file were left verified by an earlier download. Reported again as more of them are verified.
    Resumed { index: usize, bytes: u64 },
    /// The download of a large file has started: its verified groups can be served already.
    Started(usize, Arc<IncompleteFile>),
    /// The user has delivered something of the file that was verified. Reported once for each file and user, before
    /// [`Finished`](Self::Finished).
    Delivered(usize, UserName),
    /// The file has succeeded or failed. Reported once for each, in any order.
    Finished(usize, DownloadOutcome),
    /// The download waits for this user. Reported once for each user and reason.
    Waiting(UserName, WaitReason),
    /// One line for stderr.
    Note(String),
    /// A source was dropped, since it misbehaved or has changed its file: one line for stderr.
    SourceDropped { index: usize, user: UserName, reason: String },
}

impl DownloadReport {
    /// The same of another request, in which file *i* of this one has the index `indices[i]`.
    pub fn renumbered(self, indices: &[usize]) -> Self {
        match self {
            Self::Received { index, done, total } => Self::Received { index: indices[index], done, total },
            Self::Resumed { index, bytes } => Self::Resumed { index: indices[index], bytes },
            Self::Started(index, incomplete) => Self::Started(indices[index], incomplete),
            Self::Delivered(index, user) => Self::Delivered(indices[index], user),
            Self::Finished(index, outcome) => Self::Finished(indices[index], outcome),
            Self::SourceDropped { index, user, reason } => Self::SourceDropped { index: indices[index], user, reason },
            Self::Waiting(..) | Self::Note(_) => self,
        }
    }
}

/// Downloads files. Tests replace it.
pub trait Download: Send + Sync {
    /// Downloads all, and reports the outcome of each. Ends early when `cancelled` disconnects.
    fn fetch(
        &self,
        items: &[NamedContent],
        options: &DownloadOptions,
        cancelled: &Cancelled,
        report: &dyn Fn(DownloadReport),
    );

    /// What [`fetch`](Self::fetch) would do with each: an outcome if it needs no transfer, else `None`. Changes nothing.
    fn check_targets(
        &self,
        items: &[NamedContent],
        options: &DownloadOptions,
        cancelled: &Cancelled,
    ) -> Vec<Option<DownloadOutcome>>;

    /// Removes the file of this name if it is what was fetched under it from `owner`, and forgets that. Returns whether it
    /// was.
    fn remove_copy(&self, name: &FileName, owner: &UserName, cancelled: &Cancelled) -> io::Result<bool>;

    /// Saves what `input` yields under `name`, all or nothing. `None` if the file exists and the policy is
    /// [`OnExists::Skip`]; then, and if the policy refuses, nothing is read. Fails with [`DownloadError::Interrupted`] when
    /// `cancelled` disconnects between two reads.
    fn store(
        &self,
        name: &FileName,
        on_exists: OnExists,
        input: &mut dyn Read,
        cancelled: &Cancelled,
    ) -> Result<Option<FileName>, DownloadError>;
}

/// Downloads files into the shared folder.
pub struct Downloader {
    target_dir: TargetDir,
    discovery: Arc<dyn SourceDiscovery>,
    fetched: Arc<FetchedFiles>,
    uses_direct_path: bool,
}

impl Downloader {
    /// Saves beneath `dir`, and records it.
    pub fn open(dir: &Path, server: ServerApi, fetched: Arc<FetchedFiles>) -> io::Result<Self> {
        Ok(Self { target_dir: TargetDir::open(dir)?, discovery: Arc::new(server), fetched, uses_direct_path: false })
    }

    /// Like [`open`](Self::open), with another way to find sources. The record ends with it.
    pub fn with_discovery(dir: &Path, discovery: Arc<dyn SourceDiscovery>) -> io::Result<Self> {
        let fetched = Arc::new(FetchedFiles::open(RecordFile::default()));
        Ok(Self { target_dir: TargetDir::open(dir)?, discovery, fetched, uses_direct_path: false })
    }

    /// Whether to ask sources on this host for open files. Not at first.
    pub fn with_direct_path(self, uses_direct_path: bool) -> Self {
        Self { uses_direct_path, ..self }
    }

    /// A request that resolves the paths of folders anew.
    fn request<'a>(
        &'a self,
        items: &'a [NamedContent],
        options: &'a DownloadOptions,
        cancelled: &'a Cancelled,
    ) -> DownloadRequest<'a> {
        self.target_dir.clear_cache();
        let Self { target_dir, discovery, fetched, uses_direct_path } = self;
        let uses_direct_path = *uses_direct_path;
        DownloadRequest { target_dir, discovery, fetched, uses_direct_path, items, options, cancelled }
    }
}

impl Download for Downloader {
    fn fetch(
        &self,
        items: &[NamedContent],
        options: &DownloadOptions,
        cancelled: &Cancelled,
        report: &dyn Fn(DownloadReport),
    ) {
        self.request(items, options, cancelled).run(report);
    }

    fn check_targets(
        &self,
        items: &[NamedContent],
        options: &DownloadOptions,
        cancelled: &Cancelled,
    ) -> Vec<Option<DownloadOutcome>> {
        let request = self.request(items, options, cancelled);
        items.iter().map(|item| request.check_target(item)).collect()
    }

    fn remove_copy(&self, name: &FileName, owner: &UserName, cancelled: &Cancelled) -> io::Result<bool> {
        self.target_dir.clear_cache();
        let (folder, leaf) = (self.target_dir.open_parent(name)?, target::split_parent(name).1);
        let is_copy = file_job::is_copy_of(&self.fetched, &folder, name, owner, &|| is_cancelled(cancelled))?;
        if is_copy {
            rustix::fs::unlinkat(&folder, leaf, rustix::fs::AtFlags::empty())?;
            self.fetched.forget(name);
        }
        Ok(is_copy)
    }

    fn store(
        &self,
        name: &FileName,
        on_exists: OnExists,
        input: &mut dyn Read,
        cancelled: &Cancelled,
    ) -> Result<Option<FileName>, DownloadError> {
        self.target_dir.clear_cache();
        store::store(&self.target_dir, name, on_exists, input, cancelled)
    }
}

/// For each file the one before it that uses the same partial file, if any: those are downloaded one after the other.
fn same_partial_file_predecessors(jobs: &[FileJob]) -> Vec<Option<usize>> {
    let mut last = HashMap::new();
    let predecessor = |(at, FileJob { item, .. }): (usize, &FileJob)| {
        last.insert((target::split_parent(&item.name).0.to_owned(), item.content.hash), at)
    };
    jobs.iter().enumerate().map(predecessor).collect()
}
