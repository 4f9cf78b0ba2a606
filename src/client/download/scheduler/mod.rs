//! Which source is asked for which chunk groups: the scheduler of the downloads, without any input or output.
//!
//! Every group of every file has one *slot*. A slot is assigned to at most one source at a time, under a *turn* that is
//! never used twice, so that what arrives late from a relieved source can be told from what its successor sends. A source
//! has only as much in flight as it delivers in about 150 ms; when nothing is left to hand out, an idle source takes over
//! what a slow or silent one would deliver later than itself. Time comes in as an argument; there are no clocks, sockets
//! or files here.

mod piece_picker;
mod source_state;
mod state;

use std::time::{Duration, Instant};

pub(super) use source_state::Bits;
use source_state::{Cover, GROUPS_AHEAD_MIN, SourcePlan};
use state::{FilePlan, Slot, Stage};

use crate::common::chunk_tree::group_count;

/// Counts the files of one plan from 0.
pub(super) type FileId = usize;
/// Names a source of one plan; the number of a gone one is given again.
pub(super) type SourceId = usize;

/// A source that owes something and has sent nothing for this long is relieved by an idle one.
pub(super) const SILENCE: Duration = Duration::from_millis(300);
/// An outline not there after this long is asked for elsewhere too.
const OUTLINE_PATIENCE: Duration = Duration::from_secs(1);
/// Files of more than one group that are worked on at once.
const LARGE_AT_ONCE: usize = 16;

/// One group, to be asked of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Whose group.
    pub file: FileId,
    /// Which group.
    pub group: u32,
    /// Names this assignment; never used twice.
    pub turn: u32,
}

/// What a source shall do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for the assignments handed out.
    Ask,
    /// Ask for this file's outline.
    Outline(FileId),
    /// Nothing to ask for now; it may change.
    Wait,
    /// Nothing it has is needed any more.
    Nothing,
}

/// The plan for some files and all sources that come and go while they are fetched.
#[derive(Default)]
pub(super) struct Plan {
    files: Vec<FilePlan>,
    sources: Vec<SourcePlan>,
    last_turn: u32,
    large_open: usize,
    held: usize,
    /// All that the sources have sent, wanted or not.
    pub received_bytes: u64,
}

impl Plan {
    /// Adds a file of `size` bytes. `after`: it waits until that one is done.
    pub fn add_file(&mut self, size: u64, after: Option<FileId>) -> FileId {
        let count = group_count(size);
        let (slots, missing) = if count == 1 { (vec![Slot::Missing], 1) } else { (Vec::new(), 0) };
        let stage = match after {
            Some(after) => Stage::Held { after },
            None => Stage::first(count),
        };
        self.held += usize::from(after.is_some());
        let (unknown, verified, verified_bytes, cursor, seed) = (0, 0, 0, 0, 0);
        self.files.push(FilePlan {
            size,
            groups: count,
            stage,
            slots,
            unknown,
            missing,
            verified,
            verified_bytes,
            cursor,
            seed,
        });
        self.files.len() - 1
    }

    /// Adds a source that covers nothing yet. It may get the number of one that is gone.
    pub fn add_source(&mut self, now: Instant) -> SourceId {
        let source = SourcePlan::new(now, self.files.len());
        match self.sources.iter().position(|source| source.is_gone) {
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

    /// The source will serve this file: nobody else need be looked for, but it cannot be asked yet.
    pub fn promise(&mut self, source: SourceId, file: FileId) {
        let plan = &mut self.sources[source];
        if plan.covers[file] == Cover::No {
            plan.covers[file] = Cover::Promised;
            plan.next_file = plan.next_file.min(file);
        }
    }

    /// The source has accepted a ticket for this file. What is known of the groups it has stays true.
    pub fn keep_promise(&mut self, source: SourceId, file: FileId) {
        if self.sources[source].covers[file] == Cover::Promised {
            self.cover(source, file, None);
        }
    }

    /// The source serves this file, all of it or the groups in `part`.
    pub fn cover(&mut self, source: SourceId, file: FileId, part: Option<Bits>) {
        let plan = &mut self.sources[source];
        plan.covers[file] = Cover::Serves;
        plan.next_file = plan.next_file.min(file);
        match part {
            Some(bits) => drop(plan.has_part.insert(file, bits)),
            None => drop(plan.has_part.remove(&file)),
        }
    }

    /// The source is still fetching the file itself, and which groups it has is not known.
    pub fn cover_nothing_yet(&mut self, source: SourceId, file: FileId) {
        if self.covers(source, file) {
            self.sources[source].has_part.entry(file).or_default();
        }
    }

    /// The source has passed over a group that it was asked for.
    pub fn passed_over(&mut self, source: SourceId, assignment: Assignment) {
        self.take_back(source, |waiting| waiting.turn == assignment.turn);
        if let Some(part) = self.sources[source].has_part.get_mut(&assignment.file) {
            part.remove(assignment.group);
        }
    }

    /// Whether groups are missing that no source has, and nothing of the file is on its way.
    pub fn is_stuck(&self, file: FileId) -> bool {
        let plan = &self.files[file];
        let has_whole = |source: &SourcePlan| {
            !source.is_gone && source.covers[file] != Cover::No && !source.has_part.contains_key(&file)
        };
        plan.stage == Stage::Open
            && plan.missing > 0
            && !self.sources.iter().any(has_whole)
            && !plan.slots.iter().any(|slot| matches!(slot, Slot::Assigned { .. } | Slot::Checking { .. }))
    }

    /// The source does not serve this file (any more); what it owed of it is free again.
    pub fn uncover(&mut self, source: SourceId, file: FileId) {
        self.sources[source].covers[file] = Cover::No;
        self.take_back(source, |assignment| assignment.file == file);
        self.outline_failed(source, file);
    }

    /// Whether the source serves the file, or will.
    pub fn covers(&self, source: SourceId, file: FileId) -> bool {
        !self.sources[source].is_gone && self.sources[source].covers[file] != Cover::No
    }

    /// Whether any source is left for the file.
    pub fn is_covered(&self, file: FileId) -> bool {
        self.sources.iter().any(|source| !source.is_gone && source.covers[file] != Cover::No)
    }

    /// What the source shall do next; assignments are appended to `out`.
    pub fn next(&mut self, now: Instant, source: SourceId, out: &mut Vec<Assignment>) -> Next {
        let plan = &self.sources[source];
        if plan.is_gone || plan.must_cancel || !plan.is_due() {
            return Next::Wait;
        }
        let mut is_first = true;
        let mut file = plan.next_file;
        while file < self.files.len() {
            if self.sources[source].covers[file] == Cover::No || self.files[file].stage == Stage::Done {
                file += 1;
                if is_first {
                    self.sources[source].next_file = file;
                }
                continue;
            }
            is_first = false;
            if self.sources[source].covers[file] == Cover::Promised {
                file += 1;
                continue;
            }
            if self.wants_outline(now, source, file) {
                return if out.is_empty() { self.ask_outline(now, source, file) } else { Next::Ask };
            }
            if !self.hand_out(now, source, file, out) {
                return Next::Ask; // it has enough
            }
            file += 1;
        }
        while out.is_empty() || self.sources[source].queue.len() < GROUPS_AHEAD_MIN {
            match self.take_over(now, source) {
                Some(assignment) => out.push(assignment),
                None => break,
            }
        }
        match out.is_empty() {
            false => Next::Ask,
            true if self.sources[source].next_file == self.files.len() => Next::Nothing,
            true => Next::Wait,
        }
    }

    fn wants_outline(&self, now: Instant, source: SourceId, file: FileId) -> bool {
        match self.files[file].stage {
            Stage::NeedsOutline { asked: None } => self.large_open < LARGE_AT_ONCE,
            Stage::NeedsOutline { asked: Some((who, since)) } => {
                who != source && now.saturating_duration_since(since) > OUTLINE_PATIENCE
            }
            _ => false,
        }
    }

    fn ask_outline(&mut self, now: Instant, source: SourceId, file: FileId) -> Next {
        if self.files[file].stage == (Stage::NeedsOutline { asked: None }) {
            self.large_open += 1;
        }
        self.files[file].stage = Stage::NeedsOutline { asked: Some((source, now)) };
        Next::Outline(file)
    }

    /// A good outline has come; `false` if there was one already.
    pub fn outline_known(&mut self, file: FileId) -> bool {
        let is_first = matches!(self.files[file].stage, Stage::NeedsOutline { .. });
        if is_first {
            let plan = &mut self.files[file];
            plan.stage = Stage::Preparing;
            plan.nothing_is_known();
        }
        is_first
    }

    /// The source did not give the outline it was asked for.
    pub fn outline_failed(&mut self, source: SourceId, file: FileId) {
        if let Stage::NeedsOutline { asked: Some((who, _)) } = self.files[file].stage
            && who == source
        {
            self.files[file].stage = Stage::NeedsOutline { asked: None };
            self.large_open -= 1;
            self.revisit(file);
        }
    }

    /// The part file of a large file is open; `start` is the group to begin with.
    pub fn opened(&mut self, file: FileId, start: u32) {
        if self.files[file].stage == Stage::Preparing {
            self.files[file].stage = Stage::Open;
            self.files[file].cursor = start;
            self.files[file].seed = start;
            self.revisit(file);
        }
    }

    /// The part file does not hold this group.
    pub fn is_missing(&mut self, file: FileId, group: u32) {
        if self.files[file].learn(group) {
            self.files[file].release(group);
            self.revisit(file);
        }
    }

    /// The part file holds this group. Gives whether the whole file is verified now.
    pub fn is_present(&mut self, file: FileId, group: u32) -> bool {
        if self.files[file].learn(group) {
            self.set_verified(file, group);
        }
        self.is_whole(file)
    }

    fn set_verified(&mut self, file: FileId, group: u32) {
        let plan = &mut self.files[file];
        plan.slots[group as usize] = Slot::Verified;
        plan.verified += 1;
        plan.verified_bytes += plan.group_bytes(group);
    }

    /// Whether all groups are verified.
    pub fn is_whole(&self, file: FileId) -> bool {
        self.files[file].verified == self.files[file].groups
    }

    /// Verified so far, bytes.
    pub fn verified_bytes(&self, file: FileId) -> u64 {
        self.files[file].verified_bytes
    }

    /// Bytes have come from the source.
    pub fn received(&mut self, now: Instant, source: SourceId, bytes: u64) {
        self.received_bytes += bytes;
        self.sources[source].received(now, bytes);
    }

    /// All of a group has arrived; whether it is still wanted of this source. If so, [`verified`](Self::verified) or
    /// [`spoiled`](Self::spoiled) follows.
    pub fn arrived(&mut self, source: SourceId, assignment: Assignment) -> bool {
        let Assignment { file, group, turn } = assignment;
        let bytes = self.files[file].group_bytes(group);
        if !self.sources[source].remove(turn, bytes) {
            return false;
        }
        self.files[file].slots[group as usize] = Slot::Checking { turn };
        true
    }

    /// The group fits its hash and is stored. Gives whether the whole file is verified now.
    pub fn verified(&mut self, assignment: Assignment) -> bool {
        let Assignment { file, group, turn } = assignment;
        let is_expected = self.files[file].slot(group) == Some(Slot::Checking { turn });
        if is_expected {
            self.set_verified(file, group);
        }
        is_expected && self.is_whole(file)
    }

    /// The group is not what it should be, or could not be stored: it is missing as before.
    pub fn spoiled(&mut self, assignment: Assignment) {
        let Assignment { file, group, turn } = assignment;
        if self.files[file].slot(group) == Some(Slot::Checking { turn }) {
            self.files[file].release(group);
            self.revisit(file);
        }
    }

    /// The source has forgotten, as told, what it had not begun: `turns` will not come.
    pub fn cancelled(&mut self, source: SourceId) {
        self.sources[source].must_cancel = false;
        self.take_back(source, |_| true);
    }

    /// Whether the source must be told to forget what it has not begun.
    pub fn must_cancel(&self, source: SourceId) -> bool {
        self.sources[source].must_cancel
    }

    /// The source is gone; what it owed is free again.
    pub fn gone(&mut self, source: SourceId) {
        self.sources[source].is_gone = true;
        self.sources[source].has_part.clear();
        self.take_back(source, |_| true);
        for file in 0..self.files.len() {
            self.outline_failed(source, file);
        }
    }

    /// The file is finished, well or not: nothing of it is asked for any more.
    pub fn done(&mut self, file: FileId) {
        let was_active = match self.files[file].stage {
            Stage::Done => return,
            Stage::NeedsOutline { asked } => asked.is_some(),
            Stage::Held { .. } => {
                self.held -= 1;
                false
            }
            Stage::Preparing | Stage::Open => self.files[file].is_large(),
        };
        self.large_open -= usize::from(was_active);
        self.files[file].stage = Stage::Done;
        if self.files[file].slots.iter().any(|slot| matches!(slot, Slot::Assigned { .. })) {
            for source in 0..self.sources.len() {
                let before = self.sources[source].queue.len();
                self.take_back(source, |assignment| assignment.file == file);
                self.sources[source].must_cancel |= self.sources[source].queue.len() < before;
            }
        }
        self.let_go(file);
        if was_active {
            self.revisit(0);
        }
        self.files[file].slots = Vec::new();
        self.files[file].missing = 0;
    }

    /// Files that waited for this one begin.
    fn let_go(&mut self, file: FileId) {
        if self.held == 0 {
            return;
        }
        for other in 0..self.files.len() {
            if self.files[other].stage == (Stage::Held { after: file }) {
                self.files[other].stage = Stage::first(self.files[other].groups);
                self.held -= 1;
                self.revisit(other);
            }
        }
    }

    fn take_back(&mut self, source: SourceId, which: impl Fn(&Assignment) -> bool) {
        let queue = std::mem::take(&mut self.sources[source].queue);
        for assignment in queue {
            if !which(&assignment) {
                self.sources[source].queue.push_back(assignment);
                continue;
            }
            let plan = &mut self.files[assignment.file];
            self.sources[source].queued_bytes -= plan.group_bytes(assignment.group);
            self.sources[source].front_bytes = 0;
            if plan.stage != Stage::Done {
                plan.release(assignment.group);
                self.revisit(assignment.file);
            }
        }
    }

    /// The file has something to hand out again.
    fn revisit(&mut self, file: FileId) {
        for source in &mut self.sources {
            source.next_file = source.next_file.min(file);
        }
    }
}

#[cfg(test)]
mod tests;
