//! Resolves paths beneath the shared folder, never through a symbolic link.
//!
//! The kernel resolves a whole path in one call (`openat2`). Where it cannot (an old kernel, a sandbox, another system),
//! each component is opened beneath the folder before it.
//!
//! Defended: names that lead outside; symbolic links at any depth, also those swapped in while a path is resolved;
//! special files (a FIFO is opened without waiting for its other end, then refused). Not defended: hard links and mounts
//! that the owner has made inside the folder; they are part of it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::ShareError;
use crate::common::types::FileName;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Opening a FIFO does not block; a terminal does not become the controlling one.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Two changes further apart than this get different times: twice the coarsest clock tick (10 ms) of file systems that
/// count nanoseconds.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(20);
/// The same for file systems that count whole seconds, or pairs of them.
const COARSE_TIMESTAMP_GRANULARITY: Duration = Duration::from_secs(2);

/// Identifies one state of a file: two equal values mean unchanged bytes, unless the first [is racy](Self::is_racy).
/// Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    pub device: u64,
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    pub modified_ns: i128,
    /// The inode's change time. Only the kernel sets it, so a modification time that was set back is noticed.
    pub changed_ns: i128,
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

    fn of_stat(stat: &Stat) -> Self {
        let nanos = |seconds: i128, nanos: i128| seconds * 1_000_000_000 + nanos;
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ns: nanos(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            changed_ns: nanos(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
        }
    }

    pub fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::of(&metadata))
    }

    /// The modification time in milliseconds since 1970, as published.
    pub fn modified_ms(&self) -> i64 {
        i64::try_from(self.modified_ns.div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Whether a change of the file after `now` could leave the identity as it is, because the file was changed so shortly
    /// before `now` that both changes get the same time. Only the change time counts: every change sets it, and users
    /// cannot. The modification time may be anything, also in the future.
    pub fn is_racy(&self, now: SystemTime) -> bool {
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let is_whole_second = |ns: i128| ns.rem_euclid(1_000_000_000) == 0;
        let is_coarse = is_whole_second(self.modified_ns) && is_whole_second(self.changed_ns);
        let granularity = if is_coarse { COARSE_TIMESTAMP_GRANULARITY } else { TIMESTAMP_GRANULARITY };
        !i128::try_from(now_ns.saturating_sub(granularity.as_nanos())).is_ok_and(|latest| self.changed_ns < latest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    /// A symbolic link, a FIFO, a device or a socket.
    Special,
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            _ => Self::Special,
        }
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
}

impl From<Stat> for FileStat {
    fn from(stat: Stat) -> Self {
        Self { kind: FileType::from_raw_mode(stat.st_mode).into(), size: u64::try_from(stat.st_size).unwrap_or(0) }
    }
}

/// One entry of a folder; the name is any bytes.
#[derive(Debug)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub kind: FileKind,
}

/// A folder and what is in it, at one time.
#[derive(Debug)]
pub struct ListedDir {
    /// Two folders with the same device and inode are the same one.
    pub identity: FileIdentity,
    /// The files have their identities. What vanishes meanwhile is left out.
    pub entries: Vec<(DirEntry, FileIdentity)>,
}

/// What [`rename_noreplace`] did.
#[derive(Debug, PartialEq, Eq)]
pub enum Rename {
    Done,
    /// The new name exists; nothing was changed.
    Exists,
}

/// Who resolves a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolver {
    /// The kernel, in one call.
    #[cfg(target_os = "linux")]
    Openat2,
    /// This module, component by component.
    Components,
}

/// What is done about a missing folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fail,
    Create,
}

/// The shared folder, held open: renaming it changes nothing. Paths are relative to it, without `..`; the empty path is
/// the shared folder itself.
pub struct SharedDir {
    root: OwnedFd,
    resolver: Resolver,
}

impl SharedDir {
    /// Opens the folder. This path is the user's own choice, and may lead over symbolic links.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolver = Resolver::of_system(&root);
        Ok(Self { root, resolver })
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, name: &FileName) -> Result<(File, FileIdentity), ShareError> {
        let file = self.open_beneath(name.as_str(), FILE).map_err(|errno| self.error(name.as_str(), errno))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(|error| ShareError::Unreadable(name.to_string(), error))?;
        if !metadata.is_file() {
            return Err(ShareError::Special(name.to_string()));
        }
        let identity = FileIdentity::of(&metadata);
        Ok((file, identity))
    }

    pub fn open_dir(&self, path: &str) -> io::Result<OwnedFd> {
        self.open_beneath(path, DIRECTORY).map_err(|errno| self.dir_error(path, errno))
    }

    /// Opens a folder; makes it, and those above it, if it is missing.
    pub fn create_dir(&self, path: &str) -> io::Result<OwnedFd> {
        let opened = match self.open_beneath(path, DIRECTORY) {
            Err(Errno::NOENT) => open_by_components(&self.root, path, DIRECTORY, Missing::Create),
            opened => opened,
        };
        opened.map_err(|errno| self.dir_error(path, errno))
    }

    /// What `path` names. Nothing is opened for reading.
    pub fn stat(&self, path: &str) -> Result<FileStat, ShareError> {
        self.try_stat(path).map_err(|errno| self.error(path, errno))
    }

    /// The entries of a folder, without `.` and `..`, in no order.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, ShareError> {
        let shown = if path.is_empty() { "." } else { path };
        let folder = self.open_beneath(path, DIRECTORY).map_err(|errno| self.error(shown, errno))?;
        entries(folder).map_err(|errno| ShareError::Unreadable(shown.into(), errno.into()))
    }

    /// The same with the identities of all entries.
    pub fn list_identified(&self, path: &str) -> Result<ListedDir, ShareError> {
        let shown = if path.is_empty() { "." } else { path };
        let folder = self.open_beneath(path, DIRECTORY).map_err(|errno| self.error(shown, errno))?;
        identified_entries(folder).map_err(|errno| ShareError::Unreadable(shown.into(), errno.into()))
    }

    /// What kind of thing `path` names, and its identity. Nothing is opened for reading.
    pub fn identify(&self, path: &str) -> Result<(FileKind, FileIdentity), ShareError> {
        let stat = self.stat_raw(path).map_err(|errno| self.error(path, errno))?;
        Ok((FileType::from_raw_mode(stat.st_mode).into(), FileIdentity::of_stat(&stat)))
    }

    fn try_stat(&self, path: &str) -> rustix::io::Result<FileStat> {
        self.stat_raw(path).map(FileStat::from)
    }

    fn stat_raw(&self, path: &str) -> rustix::io::Result<Stat> {
        match path.rsplit_once('/') {
            None if path.is_empty() => fstat(&self.root),
            None => statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW),
            Some((parent, leaf)) => statat(self.open_beneath(parent, DIRECTORY)?, leaf, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if path.is_empty() {
            return openat(&self.root, ".", flags, Mode::empty());
        }
        match self.resolver {
            #[cfg(target_os = "linux")]
            Resolver::Openat2 => open_by_kernel(&self.root, path, flags),
            Resolver::Components => open_by_components(&self.root, path, flags, Missing::Fail),
        }
    }

    fn error(&self, path: &str, errno: Errno) -> ShareError {
        match errno {
            // The errno is the same for a link and for a file in the place of a folder; the messages differ.
            Errno::NOTDIR if self.obstacle(path).is_some_and(|(_, kind)| kind == FileKind::Special) => {
                ShareError::Special(path.into())
            }
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => ShareError::Missing(path.into()),
            // Links, and what only `open` refuses: sockets, devices without a driver.
            Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::NODEV => ShareError::Special(path.into()),
            errno => ShareError::Unreadable(path.into(), errno.into()),
        }
    }

    fn dir_error(&self, path: &str, errno: Errno) -> io::Error {
        match errno {
            Errno::NOTDIR | Errno::LOOP => {
                let obstacle = self.obstacle(path).map_or(path, |(obstacle, _)| obstacle);
                let text = format!("{obstacle} is not a folder (symbolic links are not followed)");
                io::Error::new(io::ErrorKind::NotADirectory, text)
            }
            errno => errno.into(),
        }
    }

    /// The first part of `path` that exists and is not a folder.
    fn obstacle<'a>(&self, path: &'a str) -> Option<(&'a str, FileKind)> {
        let prefixes = path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]);
        prefixes
            .filter_map(|prefix| Some((prefix, self.try_stat(prefix).ok()?.kind)))
            .find(|&(_, kind)| kind != FileKind::Directory)
    }
}

impl Resolver {
    #[cfg(target_os = "linux")]
    fn of_system(root: &OwnedFd) -> Self {
        match open_by_kernel(root, ".", DIRECTORY) {
            // An old kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => Self::Components,
            _ => Self::Openat2,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn of_system(_root: &OwnedFd) -> Self {
        Self::Components
    }
}

#[cfg(target_os = "linux")]
fn open_by_kernel(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn open_by_components(root: &OwnedFd, path: &str, flags: OFlags, missing: Missing) -> rustix::io::Result<OwnedFd> {
    let mut parent: Option<OwnedFd> = None;
    let mut components = path.split('/').peekable();
    while let Some(component) = components.next() {
        let at = parent.as_ref().unwrap_or(root).as_fd();
        let flags = if components.peek().is_some() { DIRECTORY } else { flags };
        let opened = match openat(at, component, flags, Mode::empty()) {
            Err(Errno::NOENT) if missing == Missing::Create => {
                match rustix::fs::mkdirat(at, component, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => openat(at, component, flags, Mode::empty()),
                    Err(errno) => Err(errno),
                }
            }
            opened => opened,
        };
        parent = Some(opened?);
    }
    parent.ok_or(Errno::NOENT)
}

fn entries(folder: OwnedFd) -> rustix::io::Result<Vec<DirEntry>> {
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
            kind => found.push(DirEntry { name, kind: kind.into() }),
        }
    }
    for name in unknown {
        // An error means that the entry is gone since.
        if let Ok(stat) = statat(reading.fd()?, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
            found.push(DirEntry { name, kind: FileStat::from(stat).kind });
        }
    }
    Ok(found)
}

fn identified_entries(folder: OwnedFd) -> rustix::io::Result<ListedDir> {
    let identity = FileIdentity::of_stat(&fstat(&folder)?);
    let mut found = Vec::new();
    let mut reading = rustix::fs::Dir::new(folder)?;
    while let Some(entry) = reading.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match statat(reading.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let kind = FileType::from_raw_mode(stat.st_mode).into();
                found.push((DirEntry { name: name.to_bytes().to_vec(), kind }, FileIdentity::of_stat(&stat)));
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(ListedDir { identity, entries: found })
}

/// Renames within one folder unless the new name exists.
pub fn rename_noreplace(folder: &OwnedFd, from: &str, to: &str) -> io::Result<Rename> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Rename::Done),
        Err(Errno::EXIST) => Ok(Rename::Exists),
        // The file system does not know the flag: a hard link does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match rustix::fs::linkat(folder, from, folder, to, AtFlags::empty()) {
                Ok(()) => Ok(rustix::fs::unlinkat(folder, from, AtFlags::empty()).map(|()| Rename::Done)?),
                Err(Errno::EXIST) => Ok(Rename::Exists),
                Err(errno) => Err(errno.into()),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[path = "shared_dir_tests.rs"]
mod tests;
