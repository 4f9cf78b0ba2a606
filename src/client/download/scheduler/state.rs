//! One file of the scheduler: the state of each of its chunk groups.

use std::time::Instant;

use super::{FileId, SourceId, Verified};
use crate::common::chunk_tree::{group_count, group_range};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupState {
    /// Whether the partial file holds the group is not known yet.
    Unchecked,
    Missing,
    Assigned {
        source: SourceId,
        id: u32,
        /// How many sources it was taken from in a row.
        steals: u8,
    },
    /// Received; being verified and stored.
    Checking {
        id: u32,
    },
    Verified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileStage {
    /// Waits until another file is finished.
    Blocked {
        after: FileId,
    },
    NeedsOutline {
        requested: Option<(SourceId, Instant)>,
    },
    /// The outline is known, the partial file is being opened.
    Opening,
    Open,
    Done,
}

impl FileStage {
    /// The first stage of a file of this many groups.
    pub(super) fn first(group_count: u32) -> Self {
        if group_count == 1 { Self::Open } else { Self::NeedsOutline { requested: None } }
    }
}

pub(super) struct FileSchedule {
    pub(super) size: u64,
    pub(super) group_count: u32,
    pub(super) stage: FileStage,
    /// Empty before the outline is known and after the end, so that waiting files cost nothing.
    pub(super) groups: Vec<GroupState>,
    /// How many groups are in these states.
    pub(super) unchecked: u32,
    pub(super) missing: u32,
    pub(super) verified: u32,
    pub(super) verified_bytes: u64,
    /// Where the search for a missing group continues.
    pub(super) cursor: u32,
    /// Differs between downloads of the same file.
    pub(super) seed: u32,
}

impl FileSchedule {
    pub(super) fn new(size: u64, after: Option<FileId>) -> Self {
        let group_count = group_count(size);
        let (groups, missing) = if group_count == 1 { (vec![GroupState::Missing], 1) } else { (Vec::new(), 0) };
        let stage = after.map_or_else(|| FileStage::first(group_count), |after| FileStage::Blocked { after });
        let (unchecked, verified, verified_bytes, cursor, seed) = (0, 0, 0, 0, 0);
        Self { size, group_count, stage, groups, unchecked, missing, verified, verified_bytes, cursor, seed }
    }

    pub(super) fn group_bytes(&self, group: u32) -> u64 {
        let range = group_range(self.size, group);
        range.end - range.start
    }

    pub(super) fn is_large(&self) -> bool {
        self.group_count > 1
    }

    pub(super) fn is_complete(&self) -> bool {
        self.verified == self.group_count
    }

    pub(super) fn group(&self, group: u32) -> Option<GroupState> {
        self.groups.get(group as usize).copied()
    }

    /// What the partial file holds is not known yet.
    pub(super) fn set_unchecked(&mut self) {
        self.groups = vec![GroupState::Unchecked; self.group_count as usize];
        self.unchecked = self.group_count;
    }

    pub(super) fn is_unchecked(&self, group: u32) -> bool {
        self.group(group) == Some(GroupState::Unchecked)
    }

    /// Whether groups can be assigned, or will be once the partial file is scanned.
    pub(super) fn has_unassigned(&self) -> bool {
        self.missing > 0 || self.unchecked > 0
    }

    pub(super) fn set_missing(&mut self, group: u32) {
        self.groups[group as usize] = GroupState::Missing;
        self.missing += 1;
    }

    pub(super) fn set_verified(&mut self, group: u32) -> Verified {
        self.groups[group as usize] = GroupState::Verified;
        self.verified += 1;
        self.verified_bytes += self.group_bytes(group);
        if self.is_complete() { Verified::Complete } else { Verified::Partial }
    }

    /// The next missing group from the cursor on, circularly, that `accept` accepts.
    pub(super) fn find_missing(&self, accept: impl Fn(u32) -> bool) -> Option<u32> {
        self.find_missing_from(self.cursor, accept)
    }

    /// The next missing group from `start` on, circularly, that `accept` accepts.
    pub(super) fn find_missing_from(&self, start: u32, accept: impl Fn(u32) -> bool) -> Option<u32> {
        if self.missing == 0 {
            return None;
        }
        let count = self.groups.len() as u32;
        let is_free = |&group: &u32| self.groups[group as usize] == GroupState::Missing && accept(group);
        (start..count).find(is_free).or_else(|| (0..start.min(count)).find(is_free))
    }
}
