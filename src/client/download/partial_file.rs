//! Part files: `.<32 hex of the hash>.part` beside the target, locked while in use, with no sidecar that could lie.
//!
//! A part is opened without following links and must be a plain file with one name, so that a planted link, FIFO or hard
//! link is never written to. What it holds is believed only after hashing (by `run`).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

use super::DownloadError;
use crate::common::chunk_tree::{GroupHasher, GroupHashes, group_range};
use crate::common::types::ContentHash;

/// What `fstatfs` calls a tmpfs (`linux/magic.h`).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Bytes read at once when a part is scanned.
const SCAN_BYTES: usize = 256 << 10;
/// How often a part may vanish under our hands (another download finishing it) before we give up.
const OPEN_TRIES: u32 = 8;

/// A part file, open and locked.
#[derive(Debug)]
pub(super) struct Part {
    folder: Arc<OwnedFd>,
    name: String,
    file: Arc<File>,
    /// Its length when it was opened, bytes.
    found_bytes: u64,
}

/// What the unfinished part of a content is called.
pub(super) fn part_name(hash: &ContentHash) -> String {
    format!(".{}.part", hex::encode(&hash.0[..16]))
}

impl Part {
    /// Opens or makes the part of a content in a folder, and locks it.
    pub fn open(folder: Arc<OwnedFd>, hash: &ContentHash) -> Result<Self, DownloadError> {
        let name = part_name(hash);
        for _ in 0..OPEN_TRIES {
            let (file, is_new) = open_or_make(&folder, &name)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(DownloadError::Locked),
                // A file system without locks: two downloads at once would write the same bytes.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
                let text = format!("{name} is in the way: not a plain file with one name");
                return Err(io::Error::other(text).into());
            }
            // Between opening and locking, another download may have finished and renamed it: then it is a target now.
            let found_bytes = stat.st_size as u64;
            let is_ours = match is_new && found_bytes == 0 {
                true => stat.st_nlink == 1,
                false => rustix::fs::statat(&folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|named| (named.st_ino, named.st_dev) == (stat.st_ino, stat.st_dev)),
            };
            if is_ours {
                return Ok(Self { folder, name, file: Arc::new(File::from(file)), found_bytes });
            }
        }
        Err(DownloadError::Locked)
    }

    /// The open file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The folder it stands in.
    pub fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it its length and takes the room on the disk, so that a full disk shows at once.
    pub fn reserve(&self, size: u64) -> io::Result<()> {
        if self.found_bytes > size {
            self.file.set_len(size)?;
        }
        if self.is_in_memory() {
            let stat = rustix::fs::fstatvfs(&self.file)?;
            let taken = self.file.metadata()?.blocks() * 512;
            let is_room = size.saturating_sub(taken) <= stat.f_bavail.saturating_mul(stat.f_frsize);
            return if is_room { self.file.set_len(size) } else { Err(Errno::NOSPC.into()) };
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(size),
            Err(error) => Err(error.into()),
        }
    }

    /// A tmpfs would take every page before the first byte is asked for (0.5 s for 1 GiB were measured); what is free
    /// there is known exactly.
    fn is_in_memory(&self) -> bool {
        rustix::fs::fstatfs(&self.file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
    }

    /// Writes a whole small content.
    pub fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        if self.found_bytes > bytes.len() as u64 {
            self.file.set_len(bytes.len() as u64)?;
        }
        self.file.write_all_at(bytes, 0)
    }

    /// Sets the publication's modification time.
    pub fn set_mtime(&self, mtime_ms: i64) -> io::Result<()> {
        let seconds = mtime_ms.div_euclid(1_000);
        let nanos = mtime_ms.rem_euclid(1_000) * 1_000_000;
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos } };
        Ok(rustix::fs::futimens(&self.file, &times)?)
    }

    /// Lets others open it: it has its final name.
    pub fn unlock(&self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }

    /// Takes it away: there is nothing in it worth keeping.
    pub fn discard(&self) {
        let _ = rustix::fs::unlinkat(&*self.folder, self.name.as_str(), AtFlags::empty());
    }

    /// Which groups the file may hold, by where it has data: the rest need not be read.
    pub fn candidates(&self, outline: &GroupHashes) -> Vec<u32> {
        let runs = self.data_runs();
        let holds = |&group: &u32| {
            let range = group_range(outline.size(), group);
            let first = runs.partition_point(|run| run.1 < range.end);
            runs.get(first).is_some_and(|run| run.0 <= range.start)
        };
        (0..outline.groups().len() as u32).filter(holds).collect()
    }

    /// Where the file has data, as (start, end), bytes.
    fn data_runs(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.found_bytes {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(_) => {
                    runs.push((at, self.found_bytes));
                    break;
                }
            };
            let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.found_bytes);
            runs.push((start, end));
            at = end.max(start + 1);
        }
        runs
    }

    /// Whether the file holds the group; reads it all.
    pub fn holds(&self, outline: &GroupHashes, group: u32, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.resize(SCAN_BYTES, 0);
        let range = group_range(outline.size(), group);
        let mut hasher = GroupHasher::new(outline.size(), group);
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(SCAN_BYTES);
            self.file.read_exact_at(&mut buffer[..length], at)?;
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(Some(&hasher.finish()) == outline.group(group))
    }
}

fn open_or_make(folder: &OwnedFd, name: &str) -> Result<(OwnedFd, bool), DownloadError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    for _ in 0..OPEN_TRIES {
        match rustix::fs::openat(folder, name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => return Ok((file, true)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(file) => return Ok((file, false)),
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => {
                let text = format!("{name} is in the way: a symbolic link");
                return Err(io::Error::other(text).into());
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    Err(DownloadError::Locked)
}

#[cfg(test)]
#[path = "partial_file_tests.rs"]
mod tests;
