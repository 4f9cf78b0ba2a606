//! A large file while it arrives: its outline, its part file, and which groups are verified.
//!
//! Every group has one source whose bytes may be written, named by the turn of its assignment. A piece is written only
//! under a lock that also guards the turn, so that a source that was relieved can never write over what its successor
//! has put there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::partial_file::Part;
use crate::common::chunk_tree::{GroupHashes, group_range};

/// Writers of different groups seldom meet at the same lock.
const LOCKS: usize = 16;

/// A file of several chunk groups that is being fetched. Its verified groups can be served already.
pub struct IncompleteFile {
    outline: Arc<GroupHashes>,
    part: Part,
    verified: Vec<AtomicU64>,
    turns: Vec<AtomicU32>,
    locks: [Mutex<()>; LOCKS],
}

impl IncompleteFile {
    pub(super) fn new(outline: GroupHashes, part: Part) -> Self {
        let groups = outline.groups().len();
        Self {
            verified: (0..groups.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            turns: (0..groups).map(|_| AtomicU32::new(0)).collect(),
            locks: [const { Mutex::new(()) }; LOCKS],
            outline: Arc::new(outline),
            part,
        }
    }

    /// A part in `dir` of no content in particular, for tests of others.
    #[cfg(test)]
    pub(crate) fn example(dir: &std::path::Path) -> Arc<Self> {
        let outline = GroupHashes::from_groups((1 << 20) + 1, vec![[1; 32], [2; 32]]).unwrap();
        Self::with_verified(dir, outline, &[])
    }

    /// A file in `dir` of which these groups are verified, for tests.
    #[cfg(test)]
    pub(crate) fn with_verified(dir: &std::path::Path, outline: GroupHashes, verified: &[u32]) -> Arc<Self> {
        let folder = Arc::new(File::open(dir).unwrap().into());
        let part = Part::open(folder, &outline.root()).unwrap();
        let incomplete = Self::new(outline, part);
        verified.iter().for_each(|&group| incomplete.set_verified(group));
        Arc::new(incomplete)
    }

    /// The content's group hashes, verified against its root.
    pub fn outline(&self) -> &Arc<GroupHashes> {
        &self.outline
    }

    /// Whether group `index` is verified and written; then [`file`](Self::file) holds it.
    pub fn has(&self, index: u32) -> bool {
        let word = self.verified.get(index as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (index % 64) != 0)
    }

    /// The file: of its bytes only those of verified groups mean anything. It stays the same when it gets its final name.
    pub fn file(&self) -> &Arc<File> {
        self.part.file()
    }

    pub(super) fn part(&self) -> &Part {
        &self.part
    }

    pub(in crate::client) fn set_verified(&self, index: u32) {
        self.verified[index as usize / 64].fetch_or(1 << (index % 64), Ordering::AcqRel);
    }

    /// From now on only the bearer of this turn writes the group, or of a later one: turns are given by the threads that
    /// have got them, and one that was held up may come after the one that has relieved it.
    pub(super) fn give_turn(&self, group: u32, turn: u32) {
        let _guard = self.locks[group as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner);
        self.turns[group as usize].fetch_max(turn, Ordering::Relaxed);
    }

    /// Writes a piece of a group, unless the turn has gone to another; whether it did.
    pub(super) fn write(&self, group: u32, turn: u32, bytes: &[u8], offset: u64) -> std::io::Result<bool> {
        debug_assert!(group_range(self.outline.size(), group).contains(&offset));
        let _guard = self.locks[group as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner);
        if self.turns[group as usize].load(Ordering::Relaxed) != turn {
            return Ok(false);
        }
        self.file().write_all_at(bytes, offset).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_comes_late_does_not_take_the_group_from_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let arriving = IncompleteFile::example(dir.path());
        arriving.give_turn(0, 7);
        arriving.give_turn(0, 5);
        assert!(!arriving.write(0, 5, b"relieved", 0).unwrap());
        assert!(arriving.write(0, 7, b"kept", 0).unwrap());
        arriving.give_turn(0, 8);
        assert!(!arriving.write(0, 7, b"relieved", 0).unwrap());
        assert!(!arriving.write(1, 7, b"never had it", 1 << 20).unwrap());
        assert_eq!(std::fs::read(dir.path().join(arriving.part().name())).unwrap(), b"kept");
    }
}
