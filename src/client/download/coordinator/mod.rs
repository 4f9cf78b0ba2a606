//! Decides what happens in one batch of downloads. Events in, effects out: no clocks, sockets, files or threads.
//!
//! It owns all state of the batch: the schedule, the sources, the files. One part is shared: the set of verified groups of an
//! incomplete file, atomics in memory, which is updated here and read by uploads. `events` lists what the coordinator
//! exchanges with the threads, `sources` finds, dials and drops sources; this file assigns work to them and follows the
//! files.

mod events;
mod peer_history;
mod sources;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

pub(super) use events::{
    DownloadEvent, Effect, FileEvent, GroupRequest, OpenedFile, REPORT_INTERVAL, SourceCommand, SourceEnd, SourceEvent,
    SourcesFound, StoreResult,
};
pub(super) use peer_history::PeerHistory;
use sources::{PendingDial, QueryTimer};

use super::discovery::{PeerAddress, SourceOffer};
use super::file_job::{FileJob, FileState};
use super::same_partial_file_predecessors;
use super::scheduler::{Assignment, FileId, NextRequest, Scheduler, SourceId, Verified};
use super::{DownloadError, DownloadOutcome, DownloadReport, WaitReason};
use crate::common::chunk_tree::{GroupHashes, group_count};
use crate::common::peer_message::RefusalReason;
use crate::common::types::UserName;

/// How often a source is asked which groups it has of a file that it is still downloading.
const AVAILABILITY_INTERVAL: Duration = Duration::from_millis(100);
/// How often a source may report groups and then not have them: requests and reports may cross.
const BROKEN_PROMISES_MAX: u32 = 8;

/// A source that is being dialled or is connected.
struct ActiveSource {
    peer: PeerAddress,
    is_connected: bool,
    /// Tickets to present once it is connected.
    queued_grants: Vec<SourceOffer>,
    /// Tickets presented and not answered.
    pending_grants: usize,
    /// A cancel is sent and not confirmed.
    is_cancelling: bool,
    is_stopping: bool,
    /// Something that it sent was verified.
    has_delivered: bool,
    /// The first file of which it sent other content than published.
    corrupt_file: Option<FileId>,
    /// Files that it is still downloading, and when to ask for its groups next.
    availability_due: HashMap<FileId, Instant>,
    /// Files of which it has reported its groups.
    promises: HashMap<FileId, GroupPromises>,
}

/// Whether a source sends the groups that it reports.
#[derive(Default)]
struct GroupPromises {
    /// It has reported its groups since it last said that it does not have one.
    has_reported: bool,
    /// How often it did not have what it had reported, since it last delivered something.
    broken: u32,
}

/// The downloads of one batch.
pub(super) struct Coordinator<'a> {
    jobs: &'a [FileJob],
    retry_for: Duration,
    history: &'a mut PeerHistory,
    scheduler: Scheduler,
    files: Vec<FileState>,
    unfinished: usize,
    sources: BTreeMap<SourceId, ActiveSource>,
    pending_dials: VecDeque<PendingDial>,
    queries: QueryTimer,
    /// Files that no source is likely to deliver, as of the last change.
    without_source: BTreeSet<FileId>,
    is_supply_changed: bool,
    /// Verified bytes that were found in partial files.
    found_bytes: u64,
    effects: Vec<Effect>,
}

impl<'a> Coordinator<'a> {
    /// Begins a batch. `query` identifies a query for its sources that is already in flight.
    pub fn new(
        now: Instant,
        jobs: &'a [FileJob],
        retry_for: Duration,
        history: &'a mut PeerHistory,
        query: Option<Instant>,
    ) -> Self {
        let mut scheduler = Scheduler::default();
        for (job, before) in jobs.iter().zip(same_partial_file_predecessors(jobs)) {
            // A small file uses its partial file only while it is written.
            let size = job.item.content.size;
            scheduler.add_file(size, before.filter(|_| group_count(size) > 1));
        }
        Self {
            jobs,
            retry_for,
            history,
            scheduler,
            files: jobs.iter().map(|_| FileState::new(now)).collect(),
            unfinished: jobs.len(),
            sources: BTreeMap::new(),
            pending_dials: VecDeque::new(),
            queries: QueryTimer::new(now, query),
            without_source: BTreeSet::new(),
            is_supply_changed: true,
            found_bytes: 0,
            effects: Vec::new(),
        }
    }

    /// Takes an event in. [`advance`](Self::advance) must follow, after one or several events.
    pub fn on_event(&mut self, now: Instant, event: DownloadEvent) {
        match event {
            DownloadEvent::SourcesFound(found) => self.on_sources_found(now, found),
            DownloadEvent::Source(id, event) if self.sources.contains_key(&id) => self.on_source_event(now, id, event),
            DownloadEvent::Source(..) => {}
            DownloadEvent::File(file, event) => self.on_file_event(file, event),
            DownloadEvent::Interrupted => self.fail_files(|_, _| Some(DownloadError::Interrupted)),
        }
    }

    /// Does what is due and returns what is to be done. Must be called again at [`poll_timeout`](Self::poll_timeout).
    pub fn advance(&mut self, now: Instant) -> Vec<Effect> {
        // Each pass may abandon files, which may release others: repeated until a pass abandons none.
        let mut is_settled = self.is_finished();
        while !is_settled {
            let unfinished = self.unfinished;
            self.dial_pending(now);
            self.assign_work(now);
            self.query_if_needed(now);
            is_settled = self.unfinished == unfinished;
        }
        if !self.is_finished() {
            self.send_cancels();
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`advance`](Self::advance) has something to do without an event.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let availability = self.usable_sources().flat_map(|(_, source)| source.availability_due.values().copied());
        let timers = [self.scheduler.poll_timeout(now), self.next_dial_at(), self.next_query_at(), availability.min()];
        timers.into_iter().flatten().min()
    }

    /// Whether the outcome of every file was reported.
    pub fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    pub fn log_totals(&self) {
        let (received, found) = (self.scheduler.received_bytes, self.found_bytes);
        log::debug!("received {received} bytes, found {found} bytes verified in unfinished parts");
    }

    fn on_source_event(&mut self, now: Instant, id: SourceId, event: SourceEvent) {
        self.is_supply_changed |= !matches!(event, SourceEvent::Received { .. } | SourceEvent::Stored(_));
        match event {
            SourceEvent::Connected(files) => self.on_connected(id, &files),
            SourceEvent::Granted(files) => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.pending_grants -= 1;
                }
                files.into_iter().for_each(|file| self.scheduler.confirm_source(id, file));
            }
            SourceEvent::GrantRefused(files) => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.pending_grants -= 1;
                }
                files.into_iter().for_each(|file| self.scheduler.remove_source_for(id, file));
            }
            SourceEvent::Received { bytes, completed } => {
                self.scheduler.on_bytes(now, id, bytes);
                completed.into_iter().for_each(|assignment| self.scheduler.on_group_received(id, assignment));
            }
            SourceEvent::Outline(file, outline) => self.on_outline(file, outline),
            SourceEvent::Refused(file, reason) => {
                let is_changed = reason == RefusalReason::Changed;
                if self.pass_over(id, file, reason.to_string(), is_changed) {
                    self.files[file].changed_users += usize::from(is_changed);
                }
            }
            SourceEvent::Availability(file, groups) => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.promises.entry(file).or_default().has_reported = true;
                    if groups.is_none() {
                        source.availability_due.remove(&file);
                    }
                }
                if self.scheduler.serves(id, file) {
                    self.scheduler.set_available(id, file, groups);
                }
            }
            SourceEvent::NotAvailable(file, assignments) => {
                assignments.into_iter().for_each(|assignment| self.scheduler.on_not_available(id, assignment));
                self.scheduler.set_availability_unknown(id, file);
                let Some(source) = self.sources.get_mut(&id) else { return };
                source.availability_due.entry(file).or_insert(now);
                let promises = source.promises.entry(file).or_default();
                promises.broken += u32::from(std::mem::take(&mut promises.has_reported));
                if promises.broken > BROKEN_PROMISES_MAX {
                    let reason = "it does not send what it says that it has".to_owned();
                    self.pass_over(id, file, reason, true);
                }
            }
            SourceEvent::Hashing => {
                let user = self.sources.get(&id).map(|source| source.peer.user.clone());
                user.into_iter().for_each(|user| self.report_waiting(user, WaitReason::Hashing));
            }
            SourceEvent::Cancelled => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.is_cancelling = false;
                }
                self.scheduler.on_cancelled(id);
            }
            SourceEvent::Stored(results) => results.into_iter().for_each(|result| self.on_stored(now, id, result)),
            SourceEvent::Ended(end) => self.on_source_ended(now, id, end),
        }
    }

    fn on_stored(&mut self, now: Instant, id: SourceId, result: StoreResult) {
        self.is_supply_changed |= !matches!(result, StoreResult::SmallFile(..));
        match result {
            StoreResult::Verified(assignment) => self.on_verified(now, id, assignment),
            StoreResult::Discarded(assignment) => self.scheduler.on_verify_failed(assignment),
            StoreResult::Corrupt(assignment) => {
                self.scheduler.on_verify_failed(assignment);
                if let Some(source) = self.sources.get_mut(&id) {
                    source.corrupt_file.get_or_insert(assignment.file);
                }
                self.stop(id);
            }
            StoreResult::SmallFile(file, outcome) => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.has_delivered = true;
                    let user = source.peer.user.clone();
                    self.on_delivered(file, user);
                }
                if matches!(outcome, DownloadOutcome::Saved { .. }) && !self.files[file].is_finished {
                    self.report_received(file, self.jobs[file].item.content.size);
                }
                self.finish(file, outcome);
            }
            StoreResult::WriteFailed(file, error) => self.finish(file, DownloadOutcome::Failed(error)),
        }
    }

    fn on_verified(&mut self, now: Instant, id: SourceId, assignment: Assignment) {
        let Assignment { file, group, .. } = assignment;
        let verified = self.scheduler.on_verified(assignment);
        let Some(incomplete) = self.files[file].incomplete.clone() else { return };
        if verified == Verified::Stale {
            return;
        }
        self.files[file].give_up.record_progress(now);
        if let Some(source) = self.sources.get_mut(&id) {
            source.has_delivered = true;
            source.promises.remove(&file);
            let user = source.peer.user.clone();
            incomplete.set_verified(group, Some(&user));
            self.on_delivered(file, user);
        }
        self.report_received(file, self.scheduler.verified_bytes(file));
        if verified == Verified::Complete {
            self.effects.push(Effect::Finalize(file, incomplete));
        }
    }

    /// The user has delivered something of the file that was verified.
    fn on_delivered(&mut self, file: FileId, user: UserName) {
        if self.files[file].owners.insert(user.clone()) {
            self.report(DownloadReport::Delivered(self.jobs[file].index, user));
        }
    }

    fn on_outline(&mut self, file: FileId, outline: GroupHashes) {
        if self.scheduler.needs_outline(file) {
            self.scheduler.on_outline(file);
            self.effects.push(Effect::Open(file, outline));
        }
    }

    /// The source cannot serve the file. `is_reported`: the user is told. Returns whether it was not known before.
    fn pass_over(&mut self, id: SourceId, file: FileId, reason: String, is_reported: bool) -> bool {
        self.scheduler.remove_source_for(id, file);
        let Some(source) = self.sources.get_mut(&id) else { return false };
        source.availability_due.remove(&file);
        let (user, state) = (source.peer.user.clone(), &mut self.files[file]);
        if !source.has_delivered {
            self.history.record_no_help(&user, false);
        }
        state.last_failure = Some(format!("{user}: {reason}"));
        (state.other_failure, state.has_no_resources) = (true, false);
        let is_new = state.excluded_users.insert(user.clone());
        if is_new && is_reported {
            self.report(DownloadReport::SourceDropped { index: self.jobs[file].index, user, reason });
        }
        is_new
    }

    fn on_file_event(&mut self, file: FileId, event: FileEvent) {
        self.is_supply_changed = true;
        match event {
            FileEvent::Finished(outcome) => self.finish(file, outcome),
            FileEvent::Opened(opened) => self.on_opened(file, opened),
            FileEvent::GroupMissing(group) => self.scheduler.mark_missing(file, group),
            FileEvent::GroupPresent(group) => {
                let Some(incomplete) = self.files[file].incomplete.clone() else { return };
                incomplete.set_verified(group, None);
                let before = self.scheduler.verified_bytes(file);
                let verified = self.scheduler.mark_present(file, group);
                let verified_bytes = self.scheduler.verified_bytes(file);
                self.found_bytes += verified_bytes - before;
                self.files[file].resumed_bytes += verified_bytes - before;
                let (index, bytes) = (self.jobs[file].index, self.files[file].resumed_bytes);
                self.report(DownloadReport::Resumed { index, bytes });
                self.report_received(file, verified_bytes);
                if verified == Verified::Complete {
                    self.effects.push(Effect::Finalize(file, incomplete));
                }
            }
        }
    }

    fn on_opened(&mut self, file: FileId, opened: OpenedFile) {
        let OpenedFile { incomplete, candidates, start_group } = opened;
        if self.files[file].is_finished {
            return self.effects.push(Effect::Close(incomplete));
        }
        let mut candidates = candidates.into_iter().peekable();
        for group in 0..incomplete.outline().groups().len() as u32 {
            if candidates.next_if_eq(&group).is_none() {
                self.scheduler.mark_missing(file, group);
            }
        }
        self.scheduler.on_opened(file, start_group);
        self.files[file].incomplete = Some(incomplete.clone());
        self.report(DownloadReport::Started(self.jobs[file].index, incomplete));
    }

    /// Reports the outcome of a file. Only the first one counts.
    fn finish(&mut self, file: FileId, outcome: DownloadOutcome) {
        let state = &mut self.files[file];
        if state.is_finished {
            return;
        }
        if let Some(incomplete) = state.incomplete.take()
            && !matches!(outcome, DownloadOutcome::Saved { .. })
        {
            self.effects.push(Effect::Close(incomplete));
        }
        state.is_finished = true;
        self.unfinished -= 1;
        self.scheduler.finish_file(file);
        self.without_source.remove(&file);
        self.report(DownloadReport::Finished(self.jobs[file].index, outcome));
    }

    /// Fails the unfinished files for which `reason` returns an error.
    fn fail_files(&mut self, reason: impl Fn(&Self, FileId) -> Option<DownloadError>) {
        for file in 0..self.jobs.len() {
            if !self.files[file].is_finished
                && let Some(error) = reason(self, file)
            {
                self.finish(file, DownloadOutcome::Failed(error));
            }
        }
    }

    /// The sources that requests can be sent to.
    fn usable_sources(&self) -> impl Iterator<Item = (&SourceId, &ActiveSource)> {
        self.sources.iter().filter(|(_, source)| source.is_connected && !source.is_stopping)
    }

    /// Requests from every source what the scheduler has for it.
    fn assign_work(&mut self, now: Instant) {
        let ids: Vec<SourceId> = self.usable_sources().map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.request_from(now, id));
    }

    /// Cancels what the sources owe and is not wanted of them any more.
    fn send_cancels(&mut self) {
        for (&id, source) in &mut self.sources {
            if self.scheduler.must_cancel(id) && !source.is_stopping && !source.is_cancelling {
                source.is_cancelling = true;
                self.effects.push(Effect::Send(id, SourceCommand::Cancel));
            }
        }
    }

    fn request_from(&mut self, now: Instant, id: SourceId) {
        loop {
            match self.scheduler.next_request(now, id) {
                NextRequest::Groups(assignments) => {
                    let request = |assignment: Assignment| GroupRequest {
                        assignment,
                        incomplete: self.files[assignment.file].incomplete.clone(),
                    };
                    let requests = assignments.into_iter().map(request).collect();
                    self.send(id, SourceCommand::RequestGroups(requests));
                }
                NextRequest::Outline(file) => self.send(id, SourceCommand::RequestOutline(file)),
                NextRequest::Nothing if self.sources[&id].pending_grants == 0 => return self.stop(id),
                NextRequest::Nothing | NextRequest::Wait => break,
            }
        }
        let source = self.sources.get_mut(&id).expect("it is connected");
        source.availability_due.retain(|&file, _| !self.files[file].is_finished);
        for (&file, due) in &mut source.availability_due {
            if *due <= now {
                *due = now + AVAILABILITY_INTERVAL;
                self.effects.push(Effect::Send(id, SourceCommand::QueryAvailability(file)));
            }
        }
    }

    fn stop(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id)
            && !std::mem::replace(&mut source.is_stopping, true)
        {
            self.send(id, SourceCommand::Stop);
        }
    }

    fn send(&mut self, id: SourceId, command: SourceCommand) {
        self.effects.push(Effect::Send(id, command));
    }

    fn report_received(&mut self, file: FileId, done: u64) {
        let FileJob { index, item } = &self.jobs[file];
        self.report(DownloadReport::Received { index: *index, done, total: item.content.size });
    }

    fn report(&mut self, report: DownloadReport) {
        self.effects.push(Effect::Report(report));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time begins at any instant")]
mod tests;
