//! Cuts a request of many files into batches, and drives one batch: starts its threads, feeds their events to the
//! coordinator and does what it wants done. While one batch is downloaded, the targets of the next are checked and its
//! sources queried.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};
use std::time::Instant;

use crossbeam_channel::{bounded, select};

use super::coordinator::{
    Coordinator, DownloadEvent, Effect, FileEvent, OpenedFile, PeerHistory, ProgressReport, SourceCommand, SourceEnd,
    SourceEvent, SourcesFound,
};
use super::discovery::{SOURCES_PER_FILE, SourceDiscovery, SourceOffer};
use super::file_job::{FileJob, FileOperations, SmallFile};
use super::partial_file::IncompleteFile;
use super::scheduler::{FileId, SourceId};
use super::source::{self, SourceHandle};
use super::target::{TargetDir, TargetState};
use super::{Cancelled, DownloadError, DownloadOptions, DownloadOutcome, DownloadProgress, OnExists, is_cancelled};
use crate::common::chunk_tree::GroupHashes;
use crate::common::types::{ContentRef, NamedContent};

/// Files of a batch: fewer than the tickets that an uploader keeps for one connection grant.
pub(super) const FILES_PER_BATCH: usize = 2_048;

/// All files of one command.
pub(super) struct DownloadRequest<'a> {
    pub target_dir: &'a TargetDir,
    pub discovery: &'a Arc<dyn SourceDiscovery>,
    pub items: &'a [NamedContent],
    pub options: &'a DownloadOptions,
    pub cancelled: &'a Cancelled,
}

/// A batch whose targets have been checked.
struct PreparedBatch {
    /// The files to download.
    jobs: Vec<FileJob>,
    events: (Sender<DownloadEvent>, Receiver<DownloadEvent>),
    /// When its sources were queried.
    queried_at: Option<Instant>,
    /// The other files, by their index in the request, with their outcome.
    finished: Vec<(usize, DownloadOutcome)>,
}

impl DownloadRequest<'_> {
    /// Downloads all; one outcome for each file, in order.
    pub fn run(&self, progress: &dyn DownloadProgress) -> Vec<DownloadOutcome> {
        let mut outcomes: Vec<Option<DownloadOutcome>> = self.items.iter().map(|_| None).collect();
        let mut history = PeerHistory::default();
        let starts = (0..self.items.len()).step_by(FILES_PER_BATCH);
        let mut batches = starts.map(|start| start..self.items.len().min(start + FILES_PER_BATCH));
        thread::scope(|scope| {
            let mut prepare_next = || batches.next().map(|batch| scope.spawn(|| self.prepare(batch)));
            let mut next = prepare_next();
            while let Some(prepared) = next {
                let mut batch = prepared.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                next = prepare_next();
                let finished = std::mem::take(&mut batch.finished);
                finished.iter().for_each(|(index, outcome)| progress.finished(*index, outcome));
                let downloaded = self.download(batch, &mut history, progress);
                finished.into_iter().chain(downloaded).for_each(|(index, outcome)| outcomes[index] = Some(outcome));
            }
        });
        outcomes.into_iter().map(|outcome| outcome.expect("every file has an outcome")).collect()
    }

    fn prepare(&self, batch: Range<usize>) -> PreparedBatch {
        let (mut jobs, mut finished) = (Vec::new(), Vec::new());
        for index in batch {
            let item = self.items[index].clone();
            match self.check_target(&item) {
                Some(outcome) => finished.push((index, outcome)),
                None => jobs.push(FileJob { index, item }),
            }
        }
        let events = channel();
        // An empty content is created, not downloaded.
        let files: Vec<FileId> = (0..jobs.len()).filter(|&file| jobs[file].item.content.size > 0).collect();
        let queried_at = (!files.is_empty()).then(|| {
            let now = Instant::now();
            find_sources(self.discovery, &jobs, now, files, &events.0);
            now
        });
        PreparedBatch { jobs, events, queried_at, finished }
    }

    /// An outcome if nothing needs to be downloaded.
    fn check_target(&self, item: &NamedContent) -> Option<DownloadOutcome> {
        if is_cancelled(self.cancelled) {
            return Some(DownloadOutcome::Failed(DownloadError::Interrupted));
        }
        let state = self.target_dir.target_state(&item.name, &item.content, &|| is_cancelled(self.cancelled));
        match (state, self.options.on_exists) {
            (Err(error), _) => Some(DownloadOutcome::Failed(error.into())),
            (Ok(TargetState::Identical), _) => Some(DownloadOutcome::Saved { name: item.name.clone() }),
            (Ok(TargetState::Different | TargetState::Directory), OnExists::Error) => {
                Some(DownloadOutcome::Failed(DownloadError::Exists))
            }
            (Ok(TargetState::Different | TargetState::Directory), OnExists::Skip) => Some(DownloadOutcome::Skipped),
            (Ok(TargetState::Directory), OnExists::Overwrite) => {
                let reason = "a folder has this name, and folders are not replaced";
                let error = io::Error::new(io::ErrorKind::IsADirectory, reason);
                Some(DownloadOutcome::Failed(DownloadError::Local(error)))
            }
            (Ok(_), _) => None,
        }
    }

    /// Downloads one batch; the outcomes by the files' indices in the request.
    fn download(
        &self,
        batch: PreparedBatch,
        history: &mut PeerHistory,
        progress: &dyn DownloadProgress,
    ) -> Vec<(usize, DownloadOutcome)> {
        let PreparedBatch { jobs, events: (sender, receiver), queried_at, .. } = batch;
        let files = FileOperations::new(self.target_dir, self.options.on_exists, self.cancelled, &jobs);
        let coordinator = Coordinator::new(Instant::now(), &jobs, self.options.retry_for, history, queried_at);
        let outcomes = thread::scope(|scope| {
            let (sources, discovery) = (HashMap::new(), self.discovery);
            let driver = Driver { scope, files: &files, progress, discovery, coordinator, sender, receiver, sources };
            driver.run().into_outcomes().collect::<Vec<_>>()
        });
        jobs.iter().map(|job| job.index).zip(outcomes).collect()
    }
}

/// Queries sources on a separate thread, which is abandoned at the end: an unreachable server must not keep the user from
/// stopping.
fn find_sources(
    discovery: &Arc<dyn SourceDiscovery>,
    jobs: &[FileJob],
    requested_at: Instant,
    files: Vec<FileId>,
    events: &Sender<DownloadEvent>,
) {
    let query: Vec<ContentRef> = files.iter().map(|&file| ContentRef::from(&jobs[file].item)).collect();
    let (discovery, events) = (discovery.clone(), events.clone());
    thread::spawn(move || {
        let offers = discovery.find_sources(&query, SOURCES_PER_FILE);
        let received_at = Instant::now();
        let _ = events.send(DownloadEvent::SourcesFound(SourcesFound { requested_at, received_at, files, offers }));
    });
}

/// Connects the coordinator of a batch with its threads.
struct Driver<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    files: &'env FileOperations<'env>,
    progress: &'env dyn DownloadProgress,
    discovery: &'env Arc<dyn SourceDiscovery>,
    coordinator: Coordinator<'env>,
    sender: Sender<DownloadEvent>,
    receiver: Receiver<DownloadEvent>,
    sources: HashMap<SourceId, SourceHandle>,
}

impl<'env> Driver<'_, 'env> {
    fn run(mut self) -> Coordinator<'env> {
        let _watch = self.watch_cancellation();
        self.create_empty_files();
        loop {
            let now = Instant::now();
            for effect in self.coordinator.advance(now) {
                self.apply(effect);
            }
            if self.coordinator.is_finished() {
                break;
            }
            let first = match self.coordinator.poll_timeout(now) {
                Some(timer) => self.receiver.recv_timeout(timer.saturating_duration_since(now)).ok(),
                None => self.receiver.recv().ok(),
            };
            let now = Instant::now();
            for event in first.into_iter().chain(self.receiver.try_iter()) {
                self.coordinator.on_event(now, event);
            }
        }
        self.sources.values().for_each(SourceHandle::shut_down);
        self.coordinator
    }

    /// Turns the cancellation into an event. The result ends the watch when it is dropped.
    fn watch_cancellation(&self) -> impl Sized + use<> {
        let (watch, end) = bounded::<Infallible>(0);
        let (cancelled, events) = (self.files.cancelled.clone(), self.sender.clone());
        self.scope.spawn(move || {
            select! {
                recv(cancelled) -> _ => drop(events.send(DownloadEvent::Interrupted)),
                recv(end) -> _ => {}
            }
        });
        watch
    }

    fn create_empty_files(&mut self) {
        for (file, job) in self.files.jobs.iter().enumerate() {
            if job.item.content.size == 0 {
                let outcome = match self.files.save_small(file, &[]) {
                    SmallFile::Finished(outcome) => outcome,
                    SmallFile::Corrupt | SmallFile::Duplicate => DownloadOutcome::Failed(DownloadError::HashMismatch),
                };
                self.coordinator.on_event(Instant::now(), DownloadEvent::File(file, FileEvent::Finished(outcome)));
            }
        }
    }

    fn apply(&mut self, effect: Effect) {
        let (files, events) = (self.files, self.sender.clone());
        match effect {
            Effect::FindSources { requested_at, files: queried } => {
                find_sources(self.discovery, files.jobs, requested_at, queried, &events);
            }
            Effect::Dial(source, offer) => self.dial(source, offer),
            Effect::Send(source, command) => self.send(source, command),
            Effect::Open(file, outline) => drop(self.scope.spawn(move || open_large(files, file, outline, &events))),
            Effect::Finalize(file, incomplete) => drop(self.scope.spawn(move || {
                let outcome = files.finalize_large(file, &incomplete);
                let _ = events.send(DownloadEvent::File(file, FileEvent::Finished(outcome)));
            })),
            Effect::Report(report) => self.report(report),
        }
    }

    fn dial(&mut self, id: SourceId, offer: SourceOffer) {
        let (files, events) = (self.files, self.sender.clone());
        match source::command_channel() {
            Ok((handle, commands)) => {
                self.sources.insert(id, handle);
                self.scope.spawn(move || source::run_source(files, id, offer, commands, &events));
            }
            Err(error) => {
                let _ = events.send(DownloadEvent::Source(id, SourceEvent::Ended(SourceEnd::Lost(error.to_string()))));
            }
        }
    }

    fn send(&self, id: SourceId, command: SourceCommand) {
        if let Some(source) = self.sources.get(&id) {
            source.send(command);
        }
    }

    fn report(&self, report: ProgressReport) {
        let (progress, jobs) = (self.progress, self.files.jobs);
        match report {
            ProgressReport::Received(file, bytes) => {
                progress.received(jobs[file].index, bytes, jobs[file].item.content.size)
            }
            ProgressReport::Opened(file, incomplete) => progress.started(jobs[file].index, &incomplete),
            ProgressReport::Finished(file) => {
                let outcome = self.coordinator.outcome(file).expect("it is finished");
                progress.finished(jobs[file].index, outcome);
            }
            ProgressReport::Waiting(user) => progress.waiting(&user),
            ProgressReport::SourceDropped { user, file, reason } => {
                progress.source_dropped(&user, &jobs[file].item.name, &reason);
            }
        }
    }
}

/// Opens the partial file of a large file and verifies what it holds; meanwhile the rest is downloaded.
fn open_large(files: &FileOperations<'_>, file: FileId, outline: GroupHashes, events: &Sender<DownloadEvent>) {
    let report = |event| drop(events.send(DownloadEvent::File(file, event)));
    match files.open_large(file, outline) {
        Ok((incomplete, candidates)) => {
            // Downloads of one file that serve each other should not all begin with the same group.
            let start_group = rand::random::<u32>() % incomplete.outline().groups().len() as u32;
            let opened = OpenedFile { incomplete: incomplete.clone(), candidates: candidates.clone(), start_group };
            report(FileEvent::Opened(opened));
            if let Err(error) = scan(&incomplete, &candidates, report) {
                report(FileEvent::Finished(DownloadOutcome::Failed(error.into())));
            }
        }
        Err(error) => report(FileEvent::Finished(DownloadOutcome::Failed(error))),
    }
}

fn scan(incomplete: &IncompleteFile, candidates: &[u32], report: impl Fn(FileEvent)) -> io::Result<()> {
    let mut buffer = Vec::new();
    for &group in candidates {
        if incomplete.is_closed() {
            return Ok(());
        }
        match incomplete.partial().verify_group(incomplete.outline(), group, &mut buffer)? {
            true => report(FileEvent::GroupPresent(group)),
            false => report(FileEvent::GroupMissing(group)),
        }
    }
    Ok(())
}
