//! One file of a plan: how far each of its chunk groups is.

use std::time::Instant;

use super::{FileId, SourceId};
use crate::common::chunk_tree::group_range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// What the part file holds there is not known yet.
    Unknown,
    Missing,
    Assigned {
        source: SourceId,
        turn: u32,
    },
    /// All of it has arrived and is being verified.
    Checking {
        turn: u32,
    },
    Verified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for another file to be done.
    Held {
        after: FileId,
    },
    NeedsOutline {
        asked: Option<(SourceId, Instant)>,
    },
    /// The outline is there, the part file is being opened.
    Preparing,
    Open,
    Done,
}

pub(super) struct FilePlan {
    pub(super) size: u64,
    pub(super) groups: u32,
    pub(super) stage: Stage,
    /// One for each group; empty before the outline is there, so that files that wait cost nothing.
    pub(super) slots: Vec<Slot>,
    pub(super) unknown: u32,
    pub(super) missing: u32,
    pub(super) verified: u32,
    pub(super) verified_bytes: u64,
    /// Where the search for a missing group goes on.
    pub(super) cursor: u32,
    /// Differs from one download of the file to another.
    pub(super) seed: u32,
}

impl FilePlan {
    pub(super) fn group_bytes(&self, group: u32) -> u64 {
        let range = group_range(self.size, group);
        range.end - range.start
    }

    pub(super) fn is_large(&self) -> bool {
        self.groups > 1
    }

    pub(super) fn slot(&self, group: u32) -> Option<Slot> {
        self.slots.get(group as usize).copied()
    }

    /// What the part file holds is still to be found out.
    pub(super) fn nothing_is_known(&mut self) {
        self.slots = vec![Slot::Unknown; self.groups as usize];
        self.unknown = self.groups;
    }

    /// The part file was looked at there; whether that is news.
    pub(super) fn learn(&mut self, group: u32) -> bool {
        let is_news = self.slot(group) == Some(Slot::Unknown);
        self.unknown -= u32::from(is_news);
        is_news
    }

    /// Whether there are groups to hand out, or will be.
    pub(super) fn is_more_to_come(&self) -> bool {
        self.missing > 0 || self.unknown > 0
    }

    pub(super) fn release(&mut self, group: u32) {
        self.slots[group as usize] = Slot::Missing;
        self.missing += 1;
    }

    /// The next missing group at or behind the cursor, in a circle, that `suits`.
    pub(super) fn find_missing(&self, suits: impl Fn(u32) -> bool) -> Option<u32> {
        self.find_missing_from(self.cursor, suits)
    }

    /// The next missing group at or behind `start`, in a circle, that `suits`.
    pub(super) fn find_missing_from(&self, start: u32, suits: impl Fn(u32) -> bool) -> Option<u32> {
        if self.missing == 0 {
            return None;
        }
        let count = self.slots.len() as u32;
        let is_free = |&group: &u32| self.slots[group as usize] == Slot::Missing && suits(group);
        (start..count).find(is_free).or_else(|| (0..start.min(count)).find(is_free))
    }
}

impl Stage {
    /// Where a file of so many groups begins.
    pub(super) fn first(groups: u32) -> Self {
        if groups == 1 { Self::Open } else { Self::NeedsOutline { asked: None } }
    }
}
