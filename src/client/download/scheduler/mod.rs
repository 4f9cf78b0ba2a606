//! Decides which source is asked for which chunk group. Pure: time is an argument; no clocks, sockets or files.
//!
//! Every group of every file has a [`GroupState`]. A group is assigned to at most one source at a time, under an
//! assignment id that is never reused, so that late data of an earlier assignment is recognised. A source has as much in
//! flight as it delivers in about 150 ms. When no group is left to assign, an idle source steals what a slow or stalled
//! source would deliver later (BitTorrent calls this the endgame).

mod piece_picker;
mod source_state;
mod state;

use std::time::{Duration, Instant};

use source_state::{Coverage, PIPELINE_MIN_GROUPS, SourceState};
use state::{FileSchedule, FileStage, GroupState};

use crate::client::download::group_set::GroupSet;

/// Index of a file among the jobs of its batch, from 0. Not its index in the request, which is `FileJob::index`.
pub(super) type FileId = usize;
/// Identifies a source; the id of a removed source is reused.
pub(super) type SourceId = usize;

/// A source that owes groups and has sent nothing for this long, or for twice its last reply time, loses them to idle
/// sources.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_millis(300);
/// The same for a source whose replies are slow.
pub(super) const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// An outline that has not arrived after this time is requested from another source too.
const OUTLINE_TIMEOUT: Duration = Duration::from_secs(1);
/// Files of more than one group that are in progress at once.
const OPEN_LARGE_FILES_MAX: usize = 16;

/// One group, to be requested from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment {
    pub file: FileId,
    pub group: u32,
    /// Never reused. A later assignment has a greater id.
    pub id: u32,
}

/// What to request from a source next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NextRequest {
    Groups(Vec<Assignment>),
    /// The outline of this file.
    Outline(FileId),
    /// Nothing for now.
    Wait,
    /// Nothing more: all files that the source serves are finished.
    Nothing,
}

/// What a verified group means for its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verified {
    /// The assignment is no longer valid: the group does not count.
    Stale,
    /// The group counts; others are missing.
    Partial,
    /// It was the last one.
    Complete,
}

/// The groups of some files, and the sources that come and go while they are downloaded.
#[derive(Default)]
pub(super) struct Scheduler {
    files: Vec<FileSchedule>,
    sources: Vec<SourceState>,
    last_assignment: u32,
    /// Large files that are in progress.
    open_large_files: usize,
    /// All bytes that the sources have sent, requested in vain or not.
    pub received_bytes: u64,
}

impl Scheduler {
    /// Adds a file of `size` bytes, which begins once the large file `after` is finished.
    pub fn add_file(&mut self, size: u64, after: Option<FileId>) -> FileId {
        debug_assert!(after.is_none_or(|after| self.files[after].is_large()), "small files release nobody");
        self.files.push(FileSchedule::new(size, after));
        self.files.len() - 1
    }

    /// Adds a source that serves nothing yet. It may get the id of a removed one.
    pub fn add_source(&mut self, now: Instant) -> SourceId {
        let source = SourceState::new(now, self.files.len());
        match self.sources.iter().position(|source| source.is_removed) {
            Some(id) => {
                self.sources[id] = source;
                id
            }
            None => {
                self.sources.push(source);
                self.sources.len() - 1
            }
        }
    }

    /// The source will serve this file once it has accepted the ticket: nothing can be requested yet.
    pub fn announce_source(&mut self, source: SourceId, file: FileId) {
        let source = &mut self.sources[source];
        if source.coverage[file] == Coverage::None {
            source.coverage[file] = Coverage::Announced;
            source.next_file = source.next_file.min(file);
        }
    }

    /// The source has accepted a ticket for this file. A known availability of its groups stays.
    pub fn confirm_source(&mut self, source: SourceId, file: FileId) {
        if self.sources[source].coverage[file] == Coverage::Announced {
            self.set_available(source, file, None);
        }
    }

    /// The source serves these groups of the file; `None`: all of them.
    pub fn set_available(&mut self, source: SourceId, file: FileId, groups: Option<GroupSet>) {
        let source = &mut self.sources[source];
        source.coverage[file] = Coverage::Serves;
        source.next_file = source.next_file.min(file);
        match groups {
            Some(groups) => drop(source.partial.insert(file, groups)),
            None => drop(source.partial.remove(&file)),
        }
    }

    /// The source is still downloading the file itself; which groups it has is not known.
    pub fn set_availability_unknown(&mut self, source: SourceId, file: FileId) {
        if self.serves(source, file) {
            self.sources[source].partial.entry(file).or_default();
        }
    }

    /// The source does not have a group that was requested.
    pub fn on_not_available(&mut self, source: SourceId, assignment: Assignment) {
        self.release_assignments(source, |queued| queued.id == assignment.id);
        if let Some(groups) = self.sources[source].partial.get_mut(&assignment.file) {
            groups.remove(assignment.group);
        }
    }

    /// The source does not serve this file (any more). Its assignments of the file are free again.
    pub fn remove_source_for(&mut self, source: SourceId, file: FileId) {
        self.sources[source].coverage[file] = Coverage::None;
        self.sources[source].partial.remove(&file);
        self.release_assignments(source, |assignment| assignment.file == file);
        self.on_outline_failed(source, file);
    }

    /// Removes the source. Its assignments are free again.
    pub fn remove_source(&mut self, source: SourceId) {
        self.sources[source].is_removed = true;
        self.sources[source].partial.clear();
        self.release_assignments(source, |_| true);
        for file in 0..self.files.len() {
            self.on_outline_failed(source, file);
        }
    }

    /// Whether the source serves the file, or will.
    pub fn serves(&self, source: SourceId, file: FileId) -> bool {
        self.sources[source].serves(file)
    }

    /// Whether any source serves the file, or will.
    pub fn has_source(&self, file: FileId) -> bool {
        self.sources.iter().any(|source| source.serves(file))
    }

    /// Whether groups are missing that no source has, and no group of the file is in flight.
    pub fn is_stuck(&self, file: FileId) -> bool {
        let state = &self.files[file];
        let has_all = |source: &SourceState| source.serves(file) && !source.partial.contains_key(&file);
        let is_in_flight =
            |state: &GroupState| matches!(state, GroupState::Assigned { .. } | GroupState::Checking { .. });
        state.stage == FileStage::Open
            && state.missing > 0
            && !self.sources.iter().any(has_all)
            && !state.groups.iter().any(is_in_flight)
    }

    /// What to request from the source next. The result is not repeated: what it names counts as requested.
    pub fn next_request(&mut self, now: Instant, source: SourceId) -> NextRequest {
        let state = &mut self.sources[source];
        if state.is_removed || state.must_cancel || !state.is_due() {
            return NextRequest::Wait;
        }
        let is_needless =
            |file: FileId| state.coverage[file] == Coverage::None || self.files[file].stage == FileStage::Done;
        let first = (state.next_file..self.files.len()).find(|&file| !is_needless(file)).unwrap_or(self.files.len());
        state.next_file = first;
        let mut assigned = Vec::new();
        for file in first..self.files.len() {
            if self.sources[source].coverage[file] != Coverage::Serves {
                continue;
            }
            if self.is_outline_due(now, source, file) {
                return match assigned.is_empty() {
                    true => self.request_outline(now, source, file),
                    false => NextRequest::Groups(assigned),
                };
            }
            if self.assign_groups(now, source, file, &mut assigned).is_break() {
                break;
            }
        }
        while assigned.is_empty() || self.sources[source].queue.len() < PIPELINE_MIN_GROUPS {
            match self.steal_group(now, source) {
                Some(assignment) => assigned.push(assignment),
                None => break,
            }
        }
        match assigned.is_empty() {
            false => NextRequest::Groups(assigned),
            true if first == self.files.len() => NextRequest::Nothing,
            true => NextRequest::Wait,
        }
    }

    /// When [`next_request`](Self::next_request) may give an idle source something that it did not give before, without
    /// any call in between: when another source stalls or an outline is overdue.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.sources.iter().filter(|source| !source.is_removed).count() < 2 {
            return None;
        }
        let stalls = self.sources.iter().filter(|source| !source.queue.is_empty());
        let stalls = stalls.map(|source| source.last_received + source.stall_timeout());
        let files = if self.open_large_files > 0 { &self.files[..] } else { &[] };
        let outlines = files.iter().filter_map(|file| match file.stage {
            FileStage::NeedsOutline { requested: Some((_, since)) } => Some(since + OUTLINE_TIMEOUT),
            _ => None,
        });
        // Both are overdue only after that time.
        stalls.chain(outlines).map(|at| at + Duration::from_nanos(1)).filter(|&at| at > now).min()
    }

    fn is_outline_due(&self, now: Instant, source: SourceId, file: FileId) -> bool {
        match self.files[file].stage {
            FileStage::NeedsOutline { requested: None } => self.open_large_files < OPEN_LARGE_FILES_MAX,
            FileStage::NeedsOutline { requested: Some((from, since)) } => {
                from != source && now.saturating_duration_since(since) > OUTLINE_TIMEOUT
            }
            _ => false,
        }
    }

    fn request_outline(&mut self, now: Instant, source: SourceId, file: FileId) -> NextRequest {
        if self.files[file].stage == (FileStage::NeedsOutline { requested: None }) {
            self.open_large_files += 1;
        }
        self.files[file].stage = FileStage::NeedsOutline { requested: Some((source, now)) };
        NextRequest::Outline(file)
    }

    /// Whether the file's outline is still awaited.
    pub fn needs_outline(&self, file: FileId) -> bool {
        matches!(self.files[file].stage, FileStage::NeedsOutline { .. })
    }

    /// A verified outline has arrived: the partial file is being opened.
    pub fn on_outline(&mut self, file: FileId) {
        debug_assert!(self.needs_outline(file));
        // It may be late: the source that was asked after this one has gone, and nobody is asked now.
        let was_waiting = self.files[file].stage == FileStage::NeedsOutline { requested: None };
        self.open_large_files += usize::from(was_waiting);
        self.files[file].stage = FileStage::Opening;
        self.files[file].set_unchecked();
    }

    /// The source did not deliver the outline that was requested from it.
    fn on_outline_failed(&mut self, source: SourceId, file: FileId) {
        if let FileStage::NeedsOutline { requested: Some((from, _)) } = self.files[file].stage
            && from == source
        {
            self.files[file].stage = FileStage::NeedsOutline { requested: None };
            self.open_large_files -= 1;
        }
    }

    /// The partial file is open; `start` is the group to begin with.
    pub fn on_opened(&mut self, file: FileId, start: u32) {
        if self.files[file].stage == FileStage::Opening {
            self.files[file].stage = FileStage::Open;
            self.files[file].cursor = start;
            self.files[file].seed = start;
        }
    }

    /// The partial file does not hold this group.
    pub fn mark_missing(&mut self, file: FileId, group: u32) {
        if self.files[file].is_unchecked(group) {
            self.files[file].unchecked -= 1;
            self.files[file].set_missing(group);
        }
    }

    /// The partial file holds this group.
    pub fn mark_present(&mut self, file: FileId, group: u32) -> Verified {
        if !self.files[file].is_unchecked(group) {
            return Verified::Stale;
        }
        self.files[file].unchecked -= 1;
        self.files[file].set_verified(group)
    }

    /// Whether all groups are verified.
    #[cfg(test)]
    pub fn is_complete(&self, file: FileId) -> bool {
        self.files[file].is_complete()
    }

    /// Bytes verified so far.
    pub fn verified_bytes(&self, file: FileId) -> u64 {
        self.files[file].verified_bytes
    }

    /// The source has sent this many bytes.
    pub fn on_bytes(&mut self, now: Instant, source: SourceId, bytes: u64) {
        self.received_bytes += bytes;
        self.sources[source].on_bytes(now, bytes);
    }

    /// The last byte of a group has arrived. It is ignored unless the group is still assigned to the source; then
    /// [`on_verified`](Self::on_verified) or [`on_verify_failed`](Self::on_verify_failed) follows.
    pub fn on_group_received(&mut self, source: SourceId, assignment: Assignment) {
        let Assignment { file, group, id } = assignment;
        let bytes = self.files[file].group_bytes(group);
        if self.sources[source].dequeue(id, bytes).is_some() {
            self.files[file].groups[group as usize] = GroupState::Checking { id };
        }
    }

    /// The group matches its hash and is stored.
    pub fn on_verified(&mut self, assignment: Assignment) -> Verified {
        let Assignment { file, group, id } = assignment;
        match self.files[file].group(group) == Some(GroupState::Checking { id }) {
            true => self.files[file].set_verified(group),
            false => Verified::Stale,
        }
    }

    /// The group does not match its hash or was not stored: it is missing again.
    pub fn on_verify_failed(&mut self, assignment: Assignment) {
        let Assignment { file, group, id } = assignment;
        if self.files[file].group(group) == Some(GroupState::Checking { id }) {
            self.files[file].set_missing(group);
        }
    }

    /// The source has confirmed a cancel: it will send none of what it owed.
    pub fn on_cancelled(&mut self, source: SourceId) {
        self.sources[source].must_cancel = false;
        self.release_assignments(source, |_| true);
    }

    /// Whether the source must be sent a cancel, since it owes groups that are not wanted of it any more.
    pub fn must_cancel(&self, source: SourceId) -> bool {
        self.sources[source].must_cancel
    }

    /// The file has succeeded or failed: nothing of it is requested any more.
    pub fn finish_file(&mut self, file: FileId) {
        let stage = self.files[file].stage;
        let was_open = match stage {
            FileStage::Done => return,
            FileStage::NeedsOutline { requested } => requested.is_some(),
            FileStage::Blocked { .. } => false,
            FileStage::Opening | FileStage::Open => self.files[file].is_large(),
        };
        self.open_large_files -= usize::from(was_open);
        self.files[file].stage = FileStage::Done;
        if self.files[file].groups.iter().any(|group| matches!(group, GroupState::Assigned { .. })) {
            for source in 0..self.sources.len() {
                let before = self.sources[source].queue.len();
                self.release_assignments(source, |assignment| assignment.file == file);
                self.sources[source].must_cancel |= self.sources[source].queue.len() < before;
            }
        }
        if self.files[file].is_large() {
            self.release_dependents(file, stage);
        }
        self.files[file].groups = Vec::new();
        self.files[file].missing = 0;
    }

    /// Files that waited for this one begin, or wait for what it has waited for until its end.
    fn release_dependents(&mut self, file: FileId, last_stage: FileStage) {
        for other in self.files.iter_mut().filter(|other| other.stage == FileStage::Blocked { after: file }) {
            other.stage = match last_stage {
                FileStage::Blocked { .. } => last_stage,
                _ => FileStage::first(other.group_count),
            };
        }
    }

    fn release_assignments(&mut self, source: SourceId, which: impl Fn(&Assignment) -> bool) {
        let queue = std::mem::take(&mut self.sources[source].queue);
        for assignment in queue {
            if !which(&assignment) {
                self.sources[source].queue.push_back(assignment);
                continue;
            }
            let file = &mut self.files[assignment.file];
            self.sources[source].queued_bytes -= file.group_bytes(assignment.group);
            self.sources[source].front_bytes = 0;
            if file.stage != FileStage::Done {
                file.set_missing(assignment.group);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time begins at any instant")]
mod tests;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time begins at any instant")]
mod model_tests;
