//! The file `.<32 hex digits of the hash>.part` beside the target, which holds a content while it is incomplete.
//!
//! A partial file is locked while in use and has no sidecar file: what it holds is found out by hashing it. It is opened
//! without following links and must be a regular file with one name, so that a planted link, FIFO or hard link is never
//! written to.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

use super::DownloadError;
use crate::common::chunk_tree::{GroupHasher, GroupHashes, group_range};
use crate::common::types::ContentHash;

/// The file system type of a tmpfs, as `fstatfs` reports it (`linux/magic.h`).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Bytes read at once when a partial file is scanned.
const SCAN_BYTES: usize = 256 << 10;
/// How often a partial file may vanish while it is being opened, since another download finishes it.
const OPEN_TRIES: u32 = 8;

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

    /// Creates one without a name, which disappears with its last handle.
    pub fn create_unnamed(folder: Arc<OwnedFd>) -> Result<Self, DownloadError> {
        let partial = Self::create(folder)?;
        partial.remove();
        Ok(partial)
    }

    /// Creates one for a content that is not known yet, and locks it.
    #[expect(clippy::disallowed_methods, reason = "the name must not be in use")]
    pub fn create(folder: Arc<OwnedFd>) -> Result<Self, DownloadError> {
        Self::open(folder, &ContentHash(rand::random()))
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
        let (blocks, free) = (self.file.metadata()?.blocks(), stat.f_bavail.saturating_mul(stat.f_frsize));
        if fits(size, blocks, free) { self.file.set_len(size) } else { Err(Errno::NOSPC.into()) }
    }

    /// Reserves the space of this part of the file, so that a full disk is detected before it is written.
    pub fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        if self.is_in_memory() {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, range.start, range.end - range.start) {
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(in_partial_file(&self.name, error.into())),
        }
    }

    /// On a tmpfs, reserving space writes every page (measured: 0.5 s for 1 GiB), and the free space is known exactly.
    pub fn is_in_memory(&self) -> bool {
        rustix::fs::fstatfs(&self.file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
    }

    /// Writes a whole small content.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let is_longer = self.initial_len > bytes.len() as u64;
        let cut = if is_longer { self.file.set_len(bytes.len() as u64) } else { Ok(()) };
        cut.and_then(|()| self.write_at(bytes, 0))
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| in_partial_file(&self.name, error))
    }

    /// Copies this part of another file in the kernel; on a file system that can, the two then share the space.
    pub fn copy_range(&self, source: &File, range: Range<u64>) -> io::Result<()> {
        let (mut from, mut to) = (range.start, range.start);
        while to < range.end {
            let length = usize::try_from(range.end - to).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(source, Some(&mut from), &*self.file, Some(&mut to), length) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sets the publication's modification time.
    pub fn set_mtime(&self, mtime_ms: i64) -> io::Result<()> {
        set_mtime(&self.file, mtime_ms).map_err(|error| in_partial_file(&self.name, error))
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

/// Whether a file that has so many blocks already can grow to this size, with these bytes free. A block of `st_blocks` has
/// 512 bytes on every file system (stat(3type)).
fn fits(size: u64, blocks: u64, free: u64) -> bool {
    size.saturating_sub(blocks * 512) <= free
}

/// Sets the publication's modification time.
pub(super) fn set_mtime(file: &File, mtime_ms: i64) -> io::Result<()> {
    let seconds = mtime_ms.div_euclid(1_000);
    let nanos = mtime_ms.rem_euclid(1_000) * 1_000_000;
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos } };
    match rustix::fs::futimens(file, &times) {
        // Another user's: the content is worth more than its time.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
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

/// Whether a download uses the partial file of a content in a folder.
pub(super) fn is_in_use(folder: &OwnedFd, hash: &ContentHash) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    partial_file_names(hash).iter().any(|name| {
        let file = rustix::fs::openat(folder, name.as_str(), flags, Mode::empty());
        let locked = file.and_then(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared));
        locked == Err(Errno::WOULDBLOCK)
    })
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
mod tests {
    use super::*;

    #[test]
    fn what_a_partial_file_has_needs_no_space_again() {
        assert!(fits(10_000, 0, 10_000) && !fits(10_001, 0, 10_000));
        assert!(fits(1 << 20, 2_047, 512) && !fits(1 << 20, 2_047, 511));
        assert!(fits(1 << 20, 2_048, 0) && fits(1 << 20, 9_999, 0));
    }

    #[test]
    fn a_partial_file_is_in_use_while_it_is_locked_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OwnedFd::from(File::open(dir.path()).unwrap());
        let hash = ContentHash([1; 32]);
        let [name, ..] = &partial_file_names(&hash)[..] else { panic!("it has names") };
        assert!(!is_in_use(&folder, &hash));
        let file = File::create(dir.path().join("elsewhere")).unwrap();
        file.lock().unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join(name)).unwrap();
        assert!(!is_in_use(&folder, &hash), "a link to a locked file");
        std::fs::rename(dir.path().join("elsewhere"), dir.path().join(name)).unwrap();
        assert!(is_in_use(&folder, &hash));
        file.unlock().unwrap();
        assert!(!is_in_use(&folder, &hash));
    }
}
