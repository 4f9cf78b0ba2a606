//! Skeleton of the index: who publishes what, and what a user may see of it. Soft: rebuilt from the journal at start.

use crate::common::message::{FoundEntry, NameQuery, OwnEntry, PublishedFile};
use crate::common::types::{Audience, Content, ContentHash, FileName, StateDigest, UserName};

/// A user who publishes, interned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u32);

/// Where a list goes on; sealed by the core before a client sees it. 0 starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position(pub u64);

/// Part of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In no particular order; may be empty although there is more.
    pub entries: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Position>,
}

/// How much one call may do.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Encoded bytes of the entries of a page.
    pub bytes: usize,
    /// Names and publications looked at.
    pub steps: usize,
}

/// Name → publications → owners.
pub struct Index {}

impl Index {
    /// Empty.
    #[expect(clippy::new_without_default, reason = "skeleton")]
    pub fn new() -> Self {
        unimplemented!()
    }
    /// Interns a user.
    pub fn owner(&mut self, _user: &UserName) -> OwnerId {
        unimplemented!()
    }
    /// The user behind an id.
    pub fn user(&self, _owner: OwnerId) -> &UserName {
        unimplemented!()
    }
    /// Adds or replaces a publication. `published_s`: seconds since 1970.
    pub fn publish(&mut self, _owner: OwnerId, _file: &PublishedFile, _audience: &Audience, _published_s: u64) {
        unimplemented!()
    }
    /// Removes a publication; whether it was there.
    pub fn unpublish(&mut self, _owner: OwnerId, _name: &FileName) -> bool {
        unimplemented!()
    }
    /// Whether the owner's files are offered: it is active and its account exists.
    pub fn set_active(&mut self, _owner: OwnerId, _active: bool) {
        unimplemented!()
    }
    /// Sum over the owner's publications.
    pub fn digest(&self, _owner: OwnerId) -> StateDigest {
        unimplemented!()
    }
    /// One of the owner's own publications with its audience.
    pub fn publication(&self, _owner: OwnerId, _name: &FileName) -> Option<(Content, &Audience)> {
        unimplemented!()
    }
    /// `lpf`.
    pub fn published(&self, _owner: OwnerId, _from: Position, _budget: Budget) -> Page<OwnEntry> {
        unimplemented!()
    }
    /// `sch`: names with at least one publication of an active owner other than the asker that the asker may see.
    pub fn search(&self, _asker: OwnerId, _query: &NameQuery, _from: Position, _budget: Budget) -> Page<FileName> {
        unimplemented!()
    }
    /// `sch -l`, `get`: the distinct contents of such names. `now_s`: seconds since 1970.
    pub fn resolve(
        &self,
        _asker: OwnerId,
        _query: &NameQuery,
        _from: Position,
        _budget: Budget,
        _now_s: u64,
    ) -> Page<FoundEntry> {
        unimplemented!()
    }
    /// The active owners other than the asker that publish this content under this name visibly to the asker, with the
    /// size; at most `most`, starting at a place among them chosen by `spread` so that load spreads.
    pub fn sources(
        &self,
        _asker: OwnerId,
        _name: &FileName,
        _hash: ContentHash,
        _most: usize,
        _spread: u64,
    ) -> Vec<(OwnerId, u64)> {
        unimplemented!()
    }
    /// For `get --share`: who may see what the asker fetched: everyone if any visible publication of this name and hash
    /// is open, else one such audience with its owner added. `None`: no such publication is visible.
    pub fn inherited_audience(&self, _asker: OwnerId, _name: &FileName, _hash: ContentHash) -> Option<Audience> {
        unimplemented!()
    }
}
