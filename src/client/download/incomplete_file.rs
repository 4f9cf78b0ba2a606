//! A large file that is being filled group by group.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::partial_file::PartialFile;
use crate::common::chunk_tree::{GroupHashes, group_range};
use crate::common::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::common::sync::{Mutex, MutexGuard, lock};
use crate::common::types::UserName;

/// The owner of groups that an earlier download has left in the file, and of those beyond the 63 owners that are counted.
const UNKNOWN_OWNER: u8 = 64;
/// Disk space is reserved in runs of about this many bytes, each when its first bytes arrive: not for a size that a source
/// claims and for which it may send nothing.
const RESERVE_BYTES: u64 = 32 << 20;
/// Bytes copied at once where the kernel does not copy between two files.
const COPY_BYTES: usize = 256 << 10;
/// Locks of an incomplete file; writers of different groups rarely use the same one.
const WRITE_LOCKS: usize = 16;
/// A large file that is being downloaded. Its verified groups can be served already: those of owners whose audience the
/// copy has inherited.
///
/// Of each group only the data of one assignment is written. The assignment is checked under a lock that is held while
/// writing, so that a source that has lost a group never overwrites what its successor has written.
pub struct IncompleteFile {
    outline: Arc<GroupHashes>,
    partial: PartialFile,
    /// For each group 0 until it is verified, then whose it is: a place in `owners`, from 1, or [`UNKNOWN_OWNER`].
    verified: Vec<AtomicU8>,
    owners: Mutex<Vec<UserName>>,
    /// Bit *i*: the groups of owner *i* may be served.
    served_owners: AtomicU64,
    /// Bit *i* of the words: space for the run of groups *i* is reserved.
    reserved: Vec<AtomicU64>,
    /// Groups of one run.
    run_groups: u32,
    /// What the file held when it was opened is not verified yet.
    is_unscanned: AtomicBool,
    /// Some group was verified.
    holds_groups: AtomicBool,
    assignments: Vec<AtomicU32>,
    write_locks: [Mutex<()>; WRITE_LOCKS],
    /// The kernel does not copy into it, from another file system, for example.
    cannot_copy: AtomicBool,
    is_closed: AtomicBool,
}

/// What became of data of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Done,
    /// The group belongs to another assignment, or the download has failed: nothing was written.
    Stale,
}

/// Why a group could not be copied from another file.
#[derive(Debug)]
pub(super) enum CopyError {
    /// It cannot be read there.
    Source(io::Error),
    /// It cannot be written here.
    Target(io::Error),
}

impl IncompleteFile {
    /// `is_unscanned`: the file may hold groups, which [`batch`](super::batch) verifies.
    pub(super) fn new(outline: GroupHashes, partial: PartialFile, is_unscanned: bool) -> Self {
        let groups = outline.groups().len();
        let first = group_range(outline.size(), 0);
        let run_groups = u32::try_from((RESERVE_BYTES / (first.end - first.start)).max(1)).expect("at most 32");
        Self {
            verified: (0..groups).map(|_| AtomicU8::new(0)).collect(),
            owners: Mutex::default(),
            served_owners: AtomicU64::new(0),
            reserved: (0..groups.div_ceil(run_groups as usize).div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            run_groups,
            is_unscanned: AtomicBool::new(is_unscanned),
            holds_groups: AtomicBool::new(false),
            assignments: (0..groups).map(|_| AtomicU32::new(0)).collect(),
            write_locks: [const { Mutex::new(()) }; WRITE_LOCKS],
            cannot_copy: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            outline: Arc::new(outline),
            partial,
        }
    }

    /// A file of two groups in `dir`, for tests.
    #[cfg(test)]
    pub(crate) fn example(dir: &std::path::Path) -> Arc<Self> {
        let outline = GroupHashes::from_groups((1 << 20) + 1, vec![[1; 32], [2; 32]]).unwrap();
        Self::with_verified(dir, outline, &[])
    }

    /// A file in `dir` of which these groups are verified and served, for tests.
    #[cfg(test)]
    pub(crate) fn with_verified(dir: &std::path::Path, outline: GroupHashes, verified: &[u32]) -> Arc<Self> {
        let folder = Arc::new(File::open(dir).unwrap().into());
        let partial = PartialFile::open(folder, &outline.root()).unwrap();
        let incomplete = Self::new(outline, partial, false);
        let owner = UserName::parse("hans").unwrap();
        verified.iter().for_each(|&group| incomplete.set_verified(group, Some(&owner)));
        incomplete.serve_groups_of(&[owner]);
        Arc::new(incomplete)
    }

    /// The content's group hashes, verified against its hash.
    pub fn outline(&self) -> &Arc<GroupHashes> {
        &self.outline
    }

    /// Whether group `index` is verified and written.
    pub(super) fn is_verified(&self, index: u32) -> bool {
        self.verified.get(index as usize).is_some_and(|owner| owner.load(Ordering::Acquire) != 0)
    }

    /// Whether group `index` is verified and written, and may be served.
    pub fn serves(&self, index: u32) -> bool {
        let owner = self.verified.get(index as usize).map_or(0, |owner| owner.load(Ordering::Acquire));
        (1..UNKNOWN_OWNER).contains(&owner) && self.served_owners.load(Ordering::Acquire) & 1 << owner != 0
    }

    /// From now on the groups that these owners have delivered, or will, may be served.
    pub fn serve_groups_of(&self, owners: &[UserName]) {
        let bits = owners.iter().map(|owner| self.owner_number(owner)).filter(|&owner| owner < UNKNOWN_OWNER);
        self.served_owners.fetch_or(bits.fold(0, |bits, owner| bits | 1 << owner), Ordering::AcqRel);
    }

    /// Whether some of its groups were in the partial file before this download, so that it is not known whose they are.
    pub fn has_groups_of_unknown_owner(&self) -> bool {
        self.verified.iter().any(|owner| owner.load(Ordering::Acquire) == UNKNOWN_OWNER)
    }

    /// The open file, of which only verified groups are meaningful. It stays the same when it gets its final name.
    pub fn file(&self) -> &Arc<File> {
        self.partial.file()
    }

    pub(super) fn partial(&self) -> &PartialFile {
        &self.partial
    }

    /// The group is verified and written. `owner`: the user who has delivered it, or `None` if it was found.
    pub(in crate::client) fn set_verified(&self, index: u32, owner: Option<&UserName>) {
        let owner = owner.map_or(UNKNOWN_OWNER, |owner| self.owner_number(owner));
        self.verified[index as usize].store(owner, Ordering::Release);
        self.set_holds_groups();
    }

    /// A group is verified: the file is worth keeping.
    pub(super) fn set_holds_groups(&self) {
        self.holds_groups.store(true, Ordering::Relaxed);
    }

    /// All that the file held when it was opened has been verified, or found to be invalid.
    pub(super) fn set_scanned(&self) {
        self.is_unscanned.store(false, Ordering::Relaxed);
    }

    fn owner_number(&self, owner: &UserName) -> u8 {
        let mut owners = lock(&self.owners);
        let known = owners.iter().position(|known| known == owner);
        let place = known.unwrap_or_else(|| {
            owners.push(owner.clone());
            owners.len() - 1
        });
        u8::try_from(place + 1).unwrap_or(UNKNOWN_OWNER).min(UNKNOWN_OWNER)
    }

    /// From now on only this assignment, or a later one, may write the group. Assignments may be registered out of
    /// order, so an older id never replaces a newer one.
    pub(super) fn assign(&self, group: u32, id: u32) {
        let _guard = self.lock(group);
        self.assignments[group as usize].fetch_max(id, Ordering::Relaxed);
    }

    /// Writes data of an assignment at `offset` of the file.
    pub(super) fn write(&self, group: u32, id: u32, bytes: &[u8], offset: u64) -> io::Result<Write> {
        debug_assert!(group_range(self.outline.size(), group).contains(&offset));
        let _guard = self.lock(group);
        if !self.is_assigned(group, id) {
            return Ok(Write::Stale);
        }
        self.reserve(group)?;
        self.partial.write_at(bytes, offset).map(|()| Write::Done)
    }

    /// Copies the group of an assignment from its place in another file. What is then here may be anything: the other file
    /// may change at any time. `buffer` is for what the kernel does not copy.
    pub(super) fn copy_group(
        &self,
        group: u32,
        id: u32,
        source: &File,
        buffer: &mut Vec<u8>,
    ) -> Result<Write, CopyError> {
        let _guard = self.lock(group);
        if !self.is_assigned(group, id) {
            return Ok(Write::Stale);
        }
        let range = group_range(self.outline.size(), group);
        // No space is reserved before: where the file system shares what is copied, it would be taken and given back.
        if !self.cannot_copy.load(Ordering::Relaxed) {
            match self.partial.copy_range(source, range.clone()) {
                Ok(()) => return Ok(Write::Done),
                Err(error) => {
                    let is_lasting = matches!(
                        error.raw_os_error().map(Errno::from_raw_os_error),
                        Some(Errno::XDEV | Errno::NOSYS | Errno::NOTSUP)
                    );
                    self.cannot_copy.fetch_or(is_lasting, Ordering::Relaxed);
                }
            }
        }
        // Whatever else was wrong shows which of the two files is to blame.
        self.reserve(group).map_err(CopyError::Target)?;
        buffer.resize(COPY_BYTES, 0);
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            source.read_exact_at(&mut buffer[..length], at).map_err(CopyError::Source)?;
            self.partial.write_at(&buffer[..length], at).map_err(CopyError::Target)?;
            at += length as u64;
        }
        Ok(Write::Done)
    }

    /// Whether data of an assignment may be written. Only under the group's lock.
    fn is_assigned(&self, group: u32, id: u32) -> bool {
        self.assignments[group as usize].load(Ordering::Relaxed) == id && !self.is_closed()
    }

    /// Reserves space for the group and those of its run, once.
    fn reserve(&self, group: u32) -> io::Result<()> {
        let run = group / self.run_groups;
        let (word, bit) = (&self.reserved[run as usize / 64], 1 << (run % 64));
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let first = run * self.run_groups;
        let last = (first + self.run_groups).min(self.outline.groups().len() as u32) - 1;
        let size = self.outline.size();
        self.partial.reserve(group_range(size, first).start..group_range(size, last).end)?;
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// The download has failed: ends all writing and unlocks the file, so that another download may use it. Deletes a file
    /// that holds nothing.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // A write that has begun ends first.
        self.write_locks.iter().for_each(|mutex| drop(lock(mutex)));
        if !self.is_unscanned.load(Ordering::Relaxed) && !self.holds_groups.load(Ordering::Relaxed) {
            self.partial.remove();
        }
        self.partial.unlock();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn lock(&self, group: u32) -> MutexGuard<'_, ()> {
        lock(&self.write_locks[group as usize % WRITE_LOCKS])
    }
}

#[cfg(test)]
#[path = "incomplete_file_tests.rs"]
mod tests;
