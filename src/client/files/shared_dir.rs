//! The shared folder as a capability: every path is resolved beneath it, and no symbolic link is ever followed.
//!
//! Defended: names that lead outside, planted links at any depth, a link that takes the place of a folder or file while
//! it is being opened (the kernel resolves the whole path in one step, or each step starts from a folder that is held
//! open), and special files (a FIFO is opened without waiting for its other end, then refused). Not defended: hard links
//! and mounts that the owner has made inside the folder; they are part of it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::ShareError;
use crate::common::types::FileName;

/// Folders are opened with this.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Files are opened with this: a FIFO does not block, a terminal does not become ours.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A file's last change and the start of hashing lie at least this far apart, or a change right after could keep the
/// same time: twice the coarsest clock tick of a file system that counts nanoseconds (10 ms).
const FINE_TICK: Duration = Duration::from_millis(20);
/// The same for one that counts whole seconds, or pairs of them.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What tells one state of a file from another. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::client) struct FileIdentity {
    pub(in crate::client) device: u64,
    pub(in crate::client) inode: u64,
    /// Backing.
    pub(in crate::client) size: u64,
    pub(in crate::client) modified_ns: i128,
    /// The inode's change time: set by the kernel alone, so that a modification time put back is noticed.
    pub(in crate::client) changed_ns: i128,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of an open file, as it is now.
    pub(in crate::client) fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::of(&metadata))
    }

    /// The modification time in milliseconds since 1970, as publications tell it.
    pub(in crate::client) fn modified_ms(&self) -> i64 {
        i64::try_from(self.modified_ns.div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Whether any change of the file after `now` is sure to change the stamp too: every change sets the change time, which
    /// nobody can set otherwise. The modification time may be anything, also in the future.
    pub(in crate::client) fn is_stable(&self, now: SystemTime) -> bool {
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let whole_seconds = |ns: i128| ns.rem_euclid(1_000_000_000) == 0;
        let coarse = whole_seconds(self.modified_ns) && whole_seconds(self.changed_ns);
        let tick = if coarse { COARSE_TICK } else { FINE_TICK };
        i128::try_from(now_ns.saturating_sub(tick.as_nanos())).is_ok_and(|settled| self.changed_ns < settled)
    }
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum FileKind {
    File,
    Directory,
    /// A symbolic link, a FIFO, a device, a socket.
    Special,
}

/// One entry of a folder; the name as it stands on the disk.
#[derive(Debug)]
pub(in crate::client) struct Entry {
    pub(in crate::client) name: Vec<u8>,
    pub(in crate::client) kind: FileKind,
}

/// The shared folder, held open: renaming it changes nothing.
pub(in crate::client) struct SharedDir {
    root: Dir,
}

impl SharedDir {
    /// The one place where a path is followed as it is: it is the user's own choice.
    pub(in crate::client) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self { root: Dir::open_ambient_dir(dir, ambient_authority())? })
    }

    /// Opens a regular file for reading.
    pub(in crate::client) fn open_file(&self, name: &FileName) -> Result<(File, FileIdentity), ShareError> {
        let file =
            File::from(self.open_beneath(name.as_str(), FILE).map_err(|errno| self.error(name.as_str(), errno))?);
        let metadata = file.metadata().map_err(|error| ShareError::Unreadable(name.to_string(), error))?;
        if !metadata.is_file() {
            return Err(ShareError::Special(name.to_string()));
        }
        let stamp = FileIdentity::of(&metadata);
        Ok((file, stamp))
    }

    /// What stands at `path`, which obeys the rules of names. Nothing is opened for reading.
    pub(in crate::client) fn kind(&self, path: &str) -> Result<FileKind, ShareError> {
        self.stat(path).map(kind_of_stat).map_err(|errno| self.error(path, errno))
    }

    /// Backing of what stands under a name; 0 if nothing does.
    pub(in crate::client) fn size(&self, name: &FileName) -> u64 {
        self.stat(name.as_str()).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// The entries of a folder, without `.` and `..`, in no order. `None` is the shared folder itself.
    pub(in crate::client) fn list(&self, path: Option<&str>) -> Result<Vec<Entry>, ShareError> {
        let shown = path.unwrap_or(".");
        let folder = match path {
            None => openat(&self.root, ".", FOLDER, Mode::empty()),
            Some(path) => self.open_beneath(path, FOLDER),
        };
        let folder = folder.map_err(|errno| self.error(shown, errno))?;
        entries(folder).map_err(|errno| ShareError::Unreadable(shown.into(), errno.into()))
    }

    fn stat(&self, path: &str) -> rustix::io::Result<Stat> {
        match path.rsplit_once('/') {
            None => statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW),
            Some((parent, last)) => statat(self.open_beneath(parent, FOLDER)?, last, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// `ENOTDIR` does not tell a link in the way from a file in the way; both are refused, but not in the same words.
    fn error(&self, path: &str, errno: Errno) -> ShareError {
        let mut ways = path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]);
        if errno == Errno::NOTDIR && ways.any(|way| self.stat(way).map(kind_of_stat) == Ok(FileKind::Special)) {
            return ShareError::Special(path.into());
        }
        error(path, errno)
    }

    #[cfg(target_os = "linux")]
    fn open_beneath(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.root, path, flags, Mode::empty(), resolve) {
            // An old kernel, or a sandbox that has not heard of the call.
            Err(Errno::NOSYS | Errno::PERM) => walk(self.root.as_fd(), path, flags),
            opened => opened,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_beneath(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        walk(self.root.as_fd(), path, flags)
    }
}

/// Opens component by component, each beneath the folder opened before, never through a link. `path` holds no `..`.
fn walk(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let at = held.as_ref().map_or(root, |folder| folder.as_fd());
        let flags = if parts.peek().is_some() { FOLDER } else { flags };
        held = Some(openat(at, part, flags, Mode::empty())?);
    }
    held.ok_or(Errno::NOENT)
}

fn entries(folder: OwnedFd) -> rustix::io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut unknown = Vec::new();
    let mut reading = rustix::fs::Dir::new(folder)?;
    while let Some(entry) = reading.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        match entry.file_type() {
            FileType::Unknown => unknown.push(name),
            kind => found.push(Entry { name, kind: kind_of(kind) }),
        }
    }
    for name in unknown {
        // Gone since: not an entry any more.
        if let Ok(stat) = statat(reading.fd()?, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
            found.push(Entry { name, kind: kind_of_stat(stat) });
        }
    }
    Ok(found)
}

fn kind_of_stat(stat: Stat) -> FileKind {
    kind_of(FileType::from_raw_mode(stat.st_mode))
}

fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        _ => FileKind::Special,
    }
}

fn error(path: &str, errno: Errno) -> ShareError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => ShareError::Missing(path.into()),
        // Links, and what only `open` refuses: sockets, devices without a driver.
        Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::NODEV => ShareError::Special(path.into()),
        errno => ShareError::Unreadable(path.into(), errno.into()),
    }
}

#[cfg(test)]
#[path = "shared_dir_tests.rs"]
mod tests;
