//! Files being downloaded: [`PartialFile`], the file `.<32 hex digits of the hash>.part` beside the target, and
//! [`IncompleteFile`], a large file that is being filled group by group.
//!
//! A partial file is locked while in use and has no sidecar file: what it holds is found out by hashing it. It is opened
//! without following links and must be a regular file with one name, so that a planted link, FIFO or hard link is never
//! written to.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

use super::DownloadError;
use crate::common::chunk_tree::{GroupHasher, GroupHashes, group_range};
use crate::common::sync::lock;
use crate::common::types::{ContentHash, UserName};

/// The file system type of a tmpfs, as `fstatfs` reports it (`linux/magic.h`).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Bytes read at once when a partial file is scanned.
const SCAN_BYTES: usize = 256 << 10;
/// How often a partial file may vanish while it is being opened, since another download finishes it.
const OPEN_TRIES: u32 = 8;
/// The owner of groups that an earlier download has left in the file, and of those beyond the 63 owners that are counted.
const UNKNOWN_OWNER: u8 = 64;
/// Disk space is reserved in runs of about this many bytes, each when its first bytes arrive: not for a size that a source
/// claims and for which it may send nothing.
const RESERVE_BYTES: u64 = 32 << 20;
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
    is_closed: AtomicBool,
}

/// What became of data of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Done,
    /// The group belongs to another assignment, or the download has failed: nothing was written.
    Stale,
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
        let is_assigned = self.assignments[group as usize].load(Ordering::Relaxed) == id;
        if !is_assigned || self.is_closed() {
            return Ok(Write::Stale);
        }
        self.reserve(group)?;
        self.partial.write_at(bytes, offset).map(|()| Write::Done)
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

    fn lock(&self, group: u32) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.write_locks[group as usize % WRITE_LOCKS])
    }
}

/// An open and locked partial file.
#[derive(Debug)]
pub(super) struct PartialFile {
    folder: Arc<OwnedFd>,
    name: String,
    file: Arc<File>,
    /// Its length when it was opened, bytes.
    initial_len: u64,
}

/// The names that a content's partial file may have: the second is used if a file that this user may not use has the first.
pub(super) fn partial_file_names(hash: &ContentHash) -> [String; 2] {
    let (first, second) = hash.0.split_at(hash.0.len() / 2);
    [first, second].map(|half| format!(".{}.part", hex::encode(half)))
}

impl PartialFile {
    /// Opens or creates the partial file of a content in a folder, and locks it.
    pub fn open(folder: Arc<OwnedFd>, hash: &ContentHash) -> Result<Self, DownloadError> {
        let [first, second] = partial_file_names(hash);
        if let Some(partial) = Self::open_named(&folder, first)? {
            return Ok(partial);
        }
        let opened = Self::open_named(&folder, second.clone())?;
        opened.ok_or_else(|| in_partial_file(&second, Errno::ACCESS.into()).into())
    }

    /// `None` if the name belongs to a file of another user, who could change the content at any time, or to one that may
    /// not be opened.
    fn open_named(folder: &Arc<OwnedFd>, name: String) -> Result<Option<Self>, DownloadError> {
        let failed = |error: Errno| DownloadError::from(in_partial_file(&name, error.into()));
        for _ in 0..OPEN_TRIES {
            let Some((file, is_new)) = open_or_create(folder, &name)? else { return Ok(None) };
            let stat = rustix::fs::fstat(&file).map_err(failed)?;
            if !is_new && !is_trusted_owner(folder, stat.st_uid).map_err(failed)? {
                return Ok(None);
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(DownloadError::Locked),
                // The file system has no locks: two downloads at once would write the same data.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS) => {}
                Err(error) => return Err(failed(error)),
            }
            let stat = rustix::fs::fstat(&file).map_err(failed)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
                let text = format!("{name} is in the way: not a plain file with one name");
                return Err(io::Error::other(text).into());
            }
            // Between opening and locking, another download may have finished and renamed it: then it is a target.
            let initial_len = stat.st_size as u64;
            let is_ours = match is_new && initial_len == 0 {
                true => stat.st_nlink == 1,
                false => rustix::fs::statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|named| (named.st_ino, named.st_dev) == (stat.st_ino, stat.st_dev)),
            };
            if is_ours {
                let file = Arc::new(File::from(file));
                return Ok(Some(Self { folder: folder.clone(), name, file, initial_len }));
            }
        }
        Err(DownloadError::Locked)
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets its length, if the disk has the space for it now.
    pub fn set_size(&self, size: u64) -> io::Result<()> {
        self.try_set_size(size).map_err(|error| in_partial_file(&self.name, error))
    }

    fn try_set_size(&self, size: u64) -> io::Result<()> {
        let stat = rustix::fs::fstatvfs(&self.file)?;
        let taken = self.file.metadata()?.blocks() * 512;
        let is_room = size.saturating_sub(taken) <= stat.f_bavail.saturating_mul(stat.f_frsize);
        if is_room { self.file.set_len(size) } else { Err(Errno::NOSPC.into()) }
    }

    /// Reserves the space of this part of the file, so that a full disk is detected before it is written.
    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        if self.is_in_memory() {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, range.start, range.end - range.start) {
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(in_partial_file(&self.name, error.into())),
        }
    }

    /// On a tmpfs, reserving space writes every page (measured: 0.5 s for 1 GiB), and the free space is known exactly.
    fn is_in_memory(&self) -> bool {
        rustix::fs::fstatfs(&self.file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
    }

    /// Writes a whole small content.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let is_longer = self.initial_len > bytes.len() as u64;
        let cut = if is_longer { self.file.set_len(bytes.len() as u64) } else { Ok(()) };
        cut.and_then(|()| self.write_at(bytes, 0))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| in_partial_file(&self.name, error))
    }

    /// Sets the publication's modification time.
    pub fn set_mtime(&self, mtime_ms: i64) -> io::Result<()> {
        let seconds = mtime_ms.div_euclid(1_000);
        let nanos = mtime_ms.rem_euclid(1_000) * 1_000_000;
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos } };
        match rustix::fs::futimens(&self.file, &times) {
            // Another user's: the content is worth more than its time.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(error) => Err(in_partial_file(&self.name, error.into())),
        }
    }

    /// Unlocks it: it has its final name, or its download has failed.
    pub fn unlock(&self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }

    /// Deletes it: it holds nothing worth keeping.
    pub fn remove(&self) {
        let _ = rustix::fs::unlinkat(&*self.folder, self.name.as_str(), AtFlags::empty());
    }

    /// The groups that the file may hold, by where it has data: the others need not be read.
    pub fn groups_with_data(&self, outline: &GroupHashes) -> Vec<u32> {
        let runs = self.data_extents();
        let holds = |&group: &u32| {
            let range = group_range(outline.size(), group);
            let first = runs.partition_point(|run| run.1 < range.end);
            runs.get(first).is_some_and(|run| run.0 <= range.start)
        };
        (0..outline.groups().len() as u32).filter(holds).collect()
    }

    /// Where the file has data, as (start, end), bytes.
    fn data_extents(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.initial_len {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(_) => {
                    runs.push((at, self.initial_len));
                    break;
                }
            };
            let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.initial_len);
            runs.push((start, end));
            at = end.max(start + 1);
        }
        runs
    }

    /// Whether the file holds the group; reads it all.
    pub fn verify_group(&self, outline: &GroupHashes, group: u32, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.resize(SCAN_BYTES, 0);
        let range = group_range(outline.size(), group);
        let mut hasher = GroupHasher::new(outline.size(), group);
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(SCAN_BYTES);
            let read = self.file.read_exact_at(&mut buffer[..length], at);
            read.map_err(|error| in_partial_file(&self.name, error))?;
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(Some(&hasher.finish()) == outline.group(group))
    }
}

/// Opens the file, or creates it: then `true`. `None` if this user may not open it.
fn open_or_create(folder: &OwnedFd, name: &str) -> Result<Option<(OwnedFd, bool)>, DownloadError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let failed = |error: Errno| Err(in_partial_file(name, error.into()).into());
    for _ in 0..OPEN_TRIES {
        match rustix::fs::openat(folder, name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => return Ok(Some((file, true))),
            Err(Errno::EXIST) => {}
            Err(error) => return failed(error),
        }
        match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(file) => return Ok(Some((file, false))),
            Err(Errno::NOENT) => {}
            Err(Errno::ACCESS | Errno::PERM) => return Ok(None),
            Err(Errno::LOOP) => {
                let text = format!("{name} is in the way: a symbolic link");
                return Err(io::Error::other(text).into());
            }
            Err(error) => return failed(error),
        }
    }
    Err(DownloadError::Locked)
}

/// Whether a file with this owner is safe from others: the owner of the folder can replace every file in it anyway.
fn is_trusted_owner(folder: &OwnedFd, owner: u32) -> rustix::io::Result<bool> {
    Ok(owner == rustix::process::geteuid().as_raw() || owner == rustix::fs::fstat(folder)?.st_uid)
}

/// Names the file that an error is about: what the user asked for has another name.
fn in_partial_file(name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("partial file {name}: {error}"))
}

#[cfg(test)]
#[path = "partial_file_tests.rs"]
mod tests;
