//! Drives one batch: starts its threads, feeds their events to the coordinator and does what it wants done.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};

use super::coordinator::{
    Coordinator, DownloadEvent, Effect, FileEvent, OpenedFile, PeerHistory, SourceCommand, SourceEnd, SourceEvent,
    SourcesFound,
};
use super::discovery::{SOURCES_PER_FILE, SourceDiscovery, SourceOffer};
use super::file_job::{FileJob, FileOperations};
use super::incomplete_file::IncompleteFile;
use super::scheduler::{FileId, SourceId};
use super::small_files::SAVED_TOGETHER_MAX;
use super::source::{self, SourceHandle};
use super::{DownloadError, DownloadOutcome, DownloadReport, SaveAs};
use crate::common::chunk_tree::GroupHashes;
use crate::common::threads;
use crate::common::types::{ContentRef, UserName};

/// The first query for the sources of a batch, in flight, and the channel that gets its result and all later events.
pub(super) struct SourceQuery {
    /// `None`: no file of the batch needs a source.
    queried_at: Option<Instant>,
    sender: Sender<DownloadEvent>,
    receiver: Receiver<DownloadEvent>,
}

impl SourceQuery {
    pub fn start(discovery: &Arc<dyn SourceDiscovery>, jobs: &[FileJob], avoid: &[UserName]) -> Self {
        let (sender, receiver) = channel();
        // An empty content is created, not downloaded.
        let files: Vec<FileId> = (0..jobs.len()).filter(|&file| jobs[file].item.content.size > 0).collect();
        let queried_at = (!files.is_empty()).then(|| {
            let now = Instant::now();
            find_sources(discovery, jobs, now, files, avoid.to_vec(), &sender);
            now
        });
        Self { queried_at, sender, receiver }
    }
}

/// Downloads one batch.
pub(super) fn download_batch(
    files: &FileOperations<'_>,
    discovery: &Arc<dyn SourceDiscovery>,
    query: SourceQuery,
    retry_for: Duration,
    history: &mut PeerHistory,
    report: &dyn Fn(DownloadReport),
) {
    let SourceQuery { queried_at, sender, receiver } = query;
    let coordinator = Coordinator::new(Instant::now(), files.jobs, retry_for, history, queried_at);
    thread::scope(|scope| {
        let sources = HashMap::new();
        let driver = Driver { scope, files, report, discovery, coordinator, sender, receiver, sources };
        driver.run();
    });
}

/// Queries sources on a separate thread, which is abandoned at the end: an unreachable server must not keep the user from
/// stopping.
fn find_sources(
    discovery: &Arc<dyn SourceDiscovery>,
    jobs: &[FileJob],
    requested_at: Instant,
    files: Vec<FileId>,
    avoid: Vec<UserName>,
    events: &Sender<DownloadEvent>,
) {
    let query: Vec<ContentRef> = files.iter().map(|&file| ContentRef::from(&jobs[file].item)).collect();
    let (discovery, events) = (discovery.clone(), events.clone());
    let queried = files.clone();
    let sender = events.clone();
    let search = move || {
        let offers = discovery.find_sources(&query, &avoid, SOURCES_PER_FILE);
        let received_at = Instant::now();
        let _ = sender.send(DownloadEvent::SourcesFound(SourcesFound { requested_at, received_at, files, offers }));
    };
    if let Err(error) = threads::spawn("sources", search) {
        fail_files(queried, &error, &events);
    }
}

/// Without a thread nothing would ever be heard of these files.
fn fail_files(files: impl IntoIterator<Item = FileId>, error: &io::Error, events: &Sender<DownloadEvent>) {
    for file in files {
        let outcome = DownloadOutcome::Failed(DownloadError::NoResources(error.to_string()));
        let _ = events.send(DownloadEvent::File(file, FileEvent::Finished(outcome)));
    }
}

/// Connects the coordinator of a batch with its threads.
struct Driver<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    files: &'env FileOperations<'env>,
    report: &'env dyn Fn(DownloadReport),
    discovery: &'env Arc<dyn SourceDiscovery>,
    coordinator: Coordinator<'env>,
    sender: Sender<DownloadEvent>,
    receiver: Receiver<DownloadEvent>,
    sources: HashMap<SourceId, SourceHandle>,
}

impl<'scope, 'env> Driver<'scope, 'env> {
    fn run(mut self) {
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
        self.sources.clear();
        self.coordinator.log_totals();
    }

    /// Turns the cancellation into an event. The result ends the watch when it is dropped.
    fn watch_cancellation(&self) -> impl Sized + use<> {
        let (watch, end) = bounded::<Infallible>(0);
        let (cancelled, events) = (self.files.cancelled.clone(), self.sender.clone());
        let wait = move || {
            select! {
                recv(cancelled) -> _ => drop(events.send(DownloadEvent::Interrupted)),
                recv(end) -> _ => {}
            }
        };
        if let Err(error) = threads::spawn_scoped(self.scope, "cancellation", wait) {
            fail_files(0..self.files.jobs.len(), &error, &self.sender);
        }
        watch
    }

    fn create_empty_files(&mut self) {
        let jobs = self.files.jobs.iter().enumerate().filter(|(_, job)| job.item.content.size == 0);
        let (valid, invalid): (Vec<FileId>, Vec<FileId>) =
            jobs.map(|(file, _)| file).partition(|&file| self.files.is_content(file, &[]));
        for files in valid.chunks(SAVED_TOGETHER_MAX) {
            let saved = self.files.save_small(&files.iter().map(|&file| (file, &[][..])).collect::<Vec<_>>());
            saved
                .into_iter()
                .for_each(|(file, outcome)| outcome.into_iter().for_each(|outcome| self.finish(file, outcome)));
        }
        invalid.into_iter().for_each(|file| self.finish(file, DownloadOutcome::Failed(DownloadError::HashMismatch)));
    }

    fn finish(&mut self, file: FileId, outcome: DownloadOutcome) {
        self.coordinator.on_event(Instant::now(), DownloadEvent::File(file, FileEvent::Finished(outcome)));
    }

    fn apply(&mut self, effect: Effect) {
        let (files, events) = (self.files, self.sender.clone());
        match effect {
            Effect::FindSources { requested_at, files: queried, avoid } => {
                find_sources(self.discovery, files.jobs, requested_at, queried, avoid, &events);
            }
            Effect::Dial(source, offer) => self.dial(source, offer),
            Effect::Send(source, command) => self.send(source, command),
            Effect::Open(file, outline) => {
                self.spawn_for(file, "open", move || open_large(files, file, outline, &events));
            }
            Effect::Finalize(file, incomplete) => self.spawn_for(file, "finalize", move || {
                let outcome = files.finalize_large(file, &incomplete);
                let _ = events.send(DownloadEvent::File(file, FileEvent::Finished(outcome)));
            }),
            Effect::Close(incomplete) => incomplete.close(),
            Effect::Report(report) => (self.report)(report),
        }
    }

    fn spawn_for(&self, file: FileId, name: &str, work: impl FnOnce() + Send + 'scope) {
        if let Err(error) = threads::spawn_scoped(self.scope, name, work) {
            fail_files([file], &error, &self.sender);
        }
    }

    fn dial(&mut self, id: SourceId, offer: SourceOffer) {
        let (files, events) = (self.files, self.sender.clone());
        let started = source::command_channel().and_then(|(handle, commands)| {
            let run = move || source::run_source(files, id, offer, commands, &events);
            threads::spawn_scoped(self.scope, "source", run)?;
            self.sources.insert(id, handle);
            Ok(())
        });
        if let Err(error) = started {
            let end = SourceEnd::NoResources(error.to_string());
            let _ = self.sender.send(DownloadEvent::Source(id, SourceEvent::Ended(end)));
        }
    }

    fn send(&self, id: SourceId, command: SourceCommand) {
        if let Some(source) = self.sources.get(&id) {
            source.send(command);
        }
    }
}

/// Opens the partial file of a large file and verifies what it holds; meanwhile the rest is downloaded.
fn open_large(files: &FileOperations<'_>, file: FileId, outline: GroupHashes, events: &Sender<DownloadEvent>) {
    let report = |event| match events.send(DownloadEvent::File(file, event)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()), // the batch has ended
    };
    match files.open_large(file, outline) {
        Ok((incomplete, candidates)) => {
            // Downloads of one file that serve each other should not all begin with the same group.
            let start_group = match files.options.save_as {
                SaveAs::Unnamed => 0, // it is read in order meanwhile
                SaveAs::OwnName | SaveAs::Name(_) | SaveAs::Followed(_) => {
                    rand::random::<u32>() % incomplete.outline().groups().len() as u32
                }
            };
            let opened = OpenedFile { incomplete: incomplete.clone(), candidates: candidates.clone(), start_group };
            if report(FileEvent::Opened(opened)).is_continue()
                && let Err(error) = scan(&incomplete, &candidates, report)
            {
                let _ = report(FileEvent::Finished(DownloadOutcome::Failed(error.into())));
            }
        }
        Err(error) => {
            let _ = report(FileEvent::Finished(DownloadOutcome::Failed(error)));
        }
    }
}

/// Verifies the candidate groups, until the file is closed or `report` breaks.
fn scan(
    incomplete: &IncompleteFile,
    candidates: &[u32],
    report: impl Fn(FileEvent) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    for &group in candidates {
        if incomplete.is_closed() {
            return Ok(());
        }
        let event = match incomplete.partial().verify_group(incomplete.outline(), group, &mut buffer)? {
            true => {
                incomplete.set_holds_groups();
                FileEvent::GroupPresent(group)
            }
            false => FileEvent::GroupMissing(group),
        };
        if report(event).is_break() {
            return Ok(());
        }
    }
    incomplete.set_scanned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::chunk_tree::{GroupHash, group_count};

    #[test]
    fn a_scan_ends_when_its_reports_are_not_taken_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let size = 3 << 20;
        let hashes = (0..group_count(size)).map(|_| GroupHash::default()).collect();
        let outline = GroupHashes::from_groups(size, hashes).unwrap();
        let incomplete = IncompleteFile::with_verified(dir.path(), outline, &[]);
        incomplete.partial().set_size(size).unwrap();
        let reports = std::cell::Cell::new(0);
        scan(&incomplete, &[0, 1, 2], |_| {
            reports.set(reports.get() + 1);
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(reports.get(), 1);
    }
}
