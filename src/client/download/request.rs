//! A request of many files: cut into batches, which are downloaded one after the other. While one batch is downloaded, the
//! targets of the next are checked and its sources queried.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::RecvTimeoutError;

use super::batch::{SourceQuery, download_batch};
use super::coordinator::PeerHistory;
use super::discovery::SourceDiscovery;
use super::file_job::{FileJob, FileOperations};
use super::partial_file::is_in_use;
use super::stale_parts::remove_stale_parts;
use super::target::{TargetDir, TargetState, split_parent};
use super::{
    Cancelled, DownloadError, DownloadOptions, DownloadOutcome, DownloadReport, OnExists, SaveAs, is_cancelled,
};
use crate::client::files::{FetchedFiles, is_partial_file};
use crate::common::threads;
use crate::common::types::{Content, FileName, NamedContent, UserName};

/// Files of a batch: half of the contents that an uploader grants to one connection (`GRANTS_MAX`).
pub(super) const FILES_PER_BATCH: usize = 2_048;

/// How often a download that waits for another of the same content looks whether that has ended: the lock of a process that
/// may die can be tried, but not waited for together with a cancellation.
const IN_USE_WAIT: Duration = Duration::from_millis(100);

/// All files of one command.
pub(super) struct DownloadRequest<'a> {
    pub target_dir: &'a TargetDir,
    pub discovery: &'a Arc<dyn SourceDiscovery>,
    /// Where it is recorded what was fetched.
    pub fetched: &'a FetchedFiles,
    /// Whether sources on this host are asked for open files.
    pub uses_direct_path: bool,
    pub items: &'a [NamedContent],
    pub options: &'a DownloadOptions,
    pub cancelled: &'a Cancelled,
}

/// A batch whose targets have been checked.
struct PreparedBatch {
    /// The files to download.
    jobs: Vec<FileJob>,
    sources: SourceQuery,
    /// The other files, by their index in the request, with their outcome.
    finished: Vec<(usize, DownloadOutcome)>,
}

impl DownloadRequest<'_> {
    /// Downloads all, and reports the outcome of each.
    pub fn run(&self, report: &dyn Fn(DownloadReport)) {
        self.remove_stale_parts(report);
        let mut history = PeerHistory::default();
        let starts = (0..self.items.len()).step_by(FILES_PER_BATCH);
        let mut batches = starts.map(|start| start..self.items.len().min(start + FILES_PER_BATCH));
        thread::scope(|scope| {
            let mut prepare_next = |history: &mut PeerHistory| {
                let avoid = history.avoided();
                let batch = batches.next()?;
                let prepare = {
                    let batch = batch.clone();
                    move || self.prepare(batch, &avoid)
                };
                Some((threads::spawn_scoped(scope, "prepare", prepare), batch))
            };
            let mut next = prepare_next(&mut history);
            while let Some((prepared, batch)) = next {
                let batch = match prepared {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    Err(_) => self.prepare(batch, &history.avoided()),
                };
                next = prepare_next(&mut history);
                self.download(batch, &mut history, report);
            }
        });
    }

    fn prepare(&self, batch: Range<usize>, avoid: &[UserName]) -> PreparedBatch {
        let (mut jobs, mut finished) = (Vec::new(), Vec::new());
        for index in batch {
            let item = self.items[index].clone();
            match self.check_target(&item) {
                Some(outcome) => finished.push((index, outcome)),
                None => jobs.push(FileJob { index, item }),
            }
        }
        let sources = SourceQuery::start(self.discovery, &jobs, avoid);
        PreparedBatch { jobs, sources, finished }
    }

    /// An outcome if nothing needs to be downloaded.
    pub fn check_target(&self, item: &NamedContent) -> Option<DownloadOutcome> {
        if is_cancelled(self.cancelled) {
            return Some(DownloadOutcome::Failed(DownloadError::Interrupted));
        }
        if self.options.save_as == SaveAs::Unnamed {
            return None;
        }
        check_target(self.target_dir, self.options.target(item), &item.content, self.options.on_exists, self.cancelled)
    }

    fn download(&self, batch: PreparedBatch, history: &mut PeerHistory, report: &dyn Fn(DownloadReport)) {
        let PreparedBatch { jobs, sources, finished } = batch;
        finished.into_iter().for_each(|(index, outcome)| report(DownloadReport::Finished(index, outcome)));
        let mut files = FileOperations::new(self.target_dir, self.fetched, self.options, self.cancelled, &jobs);
        files.uses_direct_path = self.uses_direct_path;
        let in_use = RefCell::new(Vec::new());
        let report_others = |reported| match reported {
            DownloadReport::Finished(index, DownloadOutcome::Failed(DownloadError::Locked)) => {
                in_use.borrow_mut().push(index);
            }
            other => report(other),
        };
        download_batch(&files, self.discovery, sources, self.options.retry_for, history, &report_others);
        for index in in_use.into_inner() {
            self.download_after_another(index, history, report);
        }
    }

    /// Another command or process downloads the same content into the same folder: waits until it has ended, and then looks
    /// what is left to do.
    fn download_after_another(&self, index: usize, history: &mut PeerHistory, report: &dyn Fn(DownloadReport)) {
        let item = &self.items[index];
        report(DownloadReport::Note(format!("{}: waiting for another download of this content", item.name)));
        let is_in_use = || {
            let folder = self.target_dir.open_parent(self.options.target(item));
            folder.is_ok_and(|folder| is_in_use(&folder, &item.content.hash))
        };
        while self.cancelled.recv_timeout(IN_USE_WAIT) == Err(RecvTimeoutError::Timeout) && is_in_use() {}
        let batch = self.prepare(index..index + 1, &history.avoided());
        self.download(batch, history, report);
    }

    #[expect(clippy::disallowed_methods, reason = "the age of files is that of the wall clock")]
    fn remove_stale_parts(&self, report: &dyn Fn(DownloadReport)) {
        if self.options.save_as != SaveAs::Unnamed {
            let targets = self.items.iter().map(|item| (self.options.target(item), &item.content.hash));
            let notes = remove_stale_parts(self.target_dir, targets, SystemTime::now());
            notes.into_iter().for_each(|note| report(DownloadReport::Note(note)));
        }
    }
}

/// What is done about the target of a download of this content: an outcome if nothing needs to be downloaded.
pub(super) fn check_target(
    target_dir: &TargetDir,
    target: &FileName,
    content: &Content,
    on_exists: OnExists,
    cancelled: &Cancelled,
) -> Option<DownloadOutcome> {
    let state = target_dir.target_state(target, content, &|| is_cancelled(cancelled));
    match (state, on_exists) {
        (Err(error), _) => Some(DownloadOutcome::Failed(error.into())),
        (Ok(TargetState::Identical), _) => Some(DownloadOutcome::Saved { name: target.clone() }),
        (Ok(TargetState::Different | TargetState::Directory), OnExists::Error) => {
            Some(DownloadOutcome::Failed(DownloadError::Exists))
        }
        (Ok(TargetState::Different | TargetState::Directory), OnExists::Skip) => Some(DownloadOutcome::Skipped),
        (Ok(TargetState::Directory), OnExists::Overwrite) => {
            let reason = "a folder has this name, and folders are not replaced";
            let error = io::Error::new(io::ErrorKind::IsADirectory, reason);
            Some(DownloadOutcome::Failed(DownloadError::Local(error)))
        }
        (Ok(_), _) if is_partial_file(split_parent(target).1.as_bytes()) => {
            let reason = "this is the name of a file that is being downloaded";
            let error = io::Error::new(io::ErrorKind::InvalidFilename, reason);
            Some(DownloadOutcome::Failed(DownloadError::Local(error)))
        }
        (Ok(_), _) => None,
    }
}
