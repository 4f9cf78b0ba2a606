//! Where downloads go: the folders beneath the shared folder, what stands there already, and the final rename.
//!
//! Every path is walked one component at a time from the shared folder's own descriptor, and no symbolic link is
//! followed anywhere, so neither a name nor a planted link leads outside. A target gets its name by a rename that
//! replaces nothing unless the user said `overwrite`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::OnExists;
use crate::common::content::group_count;
use crate::common::limits::{FILE_COMPONENT_MAX_BYTES, FILE_NAME_MAX_BYTES};
use crate::common::types::{Content, FileName};

/// Folders kept open at once; beyond that they are looked up again.
const FOLDERS_KEPT_MAX: usize = 64;
/// How many `name (n)` are tried.
const RENAMES_MAX: u32 = 9_999;
/// Bytes hashed at once when a file on the disk is compared.
const COMPARE_BYTES: usize = 1 << 20;

/// What stands at the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetState {
    /// Nothing.
    Absent,
    /// A file with just the wanted content.
    Identical,
    /// A folder: no policy replaces one.
    Directory,
    /// Anything else.
    Different,
}

/// What became of a finished part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finalized {
    /// It has this name now.
    Saved(FileName),
    /// The name was taken meanwhile.
    Exists,
}

/// The shared folder as the place that downloads go to.
pub(super) struct TargetDir {
    root: Arc<OwnedFd>,
    folders: Mutex<HashMap<String, Arc<OwnedFd>>>,
}

/// The folder part and the last component of a name.
pub(super) fn split_parent(name: &FileName) -> (&str, &str) {
    name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()))
}

impl TargetDir {
    /// Opens the shared folder; this path is the user's own and may lead over links.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let root = Dir::open_ambient_dir(dir, ambient_authority())?;
        Ok(Self { root: Arc::new(OwnedFd::from(root)), folders: Mutex::default() })
    }

    /// The folder that the name stands in; made, with those above it, if it is missing.
    pub fn folder(&self, name: &FileName) -> io::Result<Arc<OwnedFd>> {
        match self.walk(split_parent(name).0, true)? {
            Some(folder) => Ok(folder),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn walk(&self, path: &str, make: bool) -> io::Result<Option<Arc<OwnedFd>>> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folders.get(path) {
            return Ok(Some(folder.clone()));
        }
        let mut folder = self.root.clone();
        for component in path.split('/') {
            let next = match open_folder(&folder, component) {
                Err(Errno::NOENT) if make => make_folder(&folder, component),
                Err(Errno::NOENT) => return Ok(None),
                other => other,
            };
            folder = Arc::new(next.map_err(|error| not_a_directory(component, error))?);
        }
        if folders.len() >= FOLDERS_KEPT_MAX {
            folders.clear();
        }
        folders.insert(path.to_owned(), folder.clone());
        Ok(Some(folder))
    }

    /// Forgets the open folders, so that the next use looks at what is on the disk then.
    pub fn clear_cache(&self) {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What stands at the name. Reads the file if it has the right size; `interrupted` ends that with
    /// [`io::ErrorKind::Interrupted`].
    pub fn target_state(
        &self,
        name: &FileName,
        content: &Content,
        interrupted: &dyn Fn() -> bool,
    ) -> io::Result<TargetState> {
        let (path, leaf) = split_parent(name);
        match self.walk(path, false)? {
            Some(folder) => target_state_in(&folder, leaf, content, interrupted),
            None => Ok(TargetState::Absent),
        }
    }

    /// Gives the part its name under the user's policy. A part that gets none is kept only if it is large: a small content
    /// is fetched anew anyway.
    pub fn finalize(&self, folder: &OwnedFd, part: &str, name: &FileName, policy: OnExists) -> io::Result<Finalized> {
        let settled = self.rename_to_target(folder, part, name, policy);
        if !matches!(settled, Ok(Finalized::Saved(_))) {
            discard_small(folder, part);
        }
        settled
    }

    fn rename_to_target(
        &self,
        folder: &OwnedFd,
        part: &str,
        name: &FileName,
        policy: OnExists,
    ) -> io::Result<Finalized> {
        let (path, leaf) = split_parent(name);
        if policy == OnExists::Overwrite {
            rustix::fs::renameat(folder, part, folder, leaf)?;
            return Ok(Finalized::Saved(name.clone()));
        }
        if rename_noreplace(folder, part, leaf)? {
            return Ok(Finalized::Saved(name.clone()));
        }
        if policy != OnExists::Rename {
            return Ok(Finalized::Exists);
        }
        for number in 1..=RENAMES_MAX {
            let leaf = numbered_name(leaf, number, leaf_max_bytes(path));
            let whole = if path.is_empty() { leaf.clone() } else { format!("{path}/{leaf}") };
            let name = FileName::parse(&whole).map_err(io::Error::other)?;
            if rename_noreplace(folder, part, &leaf)? {
                return Ok(Finalized::Saved(name));
            }
        }
        Ok(Finalized::Exists)
    }
}

fn discard_small(folder: &OwnedFd, part: &str) {
    let stat = rustix::fs::statat(folder, part, AtFlags::SYMLINK_NOFOLLOW);
    if stat.is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|bytes| group_count(bytes) == 1)) {
        // What cannot be taken away stays, as it would have.
        let _ = rustix::fs::unlinkat(folder, part, AtFlags::empty());
    }
}

/// How long the last component in this folder can be for the whole to be a valid name, bytes.
fn leaf_max_bytes(path: &str) -> usize {
    let before = if path.is_empty() { 0 } else { path.len() + 1 };
    FILE_COMPONENT_MAX_BYTES.min(FILE_NAME_MAX_BYTES.saturating_sub(before))
}

/// `report.pdf` → `report (1).pdf`; a leading dot begins no extension, nor does one that would leave no room for a stem.
/// Shortened to fit, unless not even the number does.
fn numbered_name(leaf: &str, number: u32, most_bytes: usize) -> String {
    let number = format!(" ({number})");
    let is_extension = |&at: &usize| at > 0 && leaf.len() - at + number.len() < most_bytes;
    let dot = leaf.rfind('.').filter(is_extension).unwrap_or(leaf.len());
    let (stem, extension) = leaf.split_at(dot);
    let suffix = format!("{number}{extension}");
    let mut end = stem.len().min(most_bytes.saturating_sub(suffix.len()));
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &stem[..end])
}

/// What stands under one name of an open folder.
pub(super) fn target_state_in(
    folder: &OwnedFd,
    leaf: &str,
    content: &Content,
    interrupted: &dyn Fn() -> bool,
) -> io::Result<TargetState> {
    let stat = match rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(TargetState::Absent),
        Err(error) => return Err(error.into()),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return Ok(TargetState::Directory);
    }
    if kind != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(content.size) {
        return Ok(TargetState::Different);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(folder, leaf, flags, Mode::empty()) else {
        return Ok(TargetState::Different);
    };
    let is_same = hash(&mut File::from(file), content.size, interrupted)? == Some(content.hash.0);
    Ok(if is_same { TargetState::Identical } else { TargetState::Different })
}

/// The hash of a file of `size` bytes; `None` if it holds more or less.
fn hash(file: &mut File, size: u64, interrupted: &dyn Fn() -> bool) -> io::Result<Option<[u8; 32]>> {
    // One byte more than it should hold, so that a longer file is found out in one read.
    let wanted = usize::try_from(size).map_or(COMPARE_BYTES, |size| size.saturating_add(1));
    let mut buffer = vec![0; COMPARE_BYTES.min(wanted)];
    let mut hasher = blake3::Hasher::new();
    loop {
        if interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = file.read(&mut buffer)?;
        if count == 0 || hasher.count() + count as u64 > size {
            let is_exact = count == 0 && hasher.count() == size;
            return Ok(is_exact.then(|| *hasher.finalize().as_bytes()));
        }
        hasher.update_rayon(&buffer[..count]);
    }
}

fn open_folder(parent: &OwnedFd, component: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, component, flags, Mode::empty())
}

fn make_folder(parent: &OwnedFd, component: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, component, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => open_folder(parent, component),
        Err(error) => Err(error),
    }
}

fn not_a_directory(component: &str, error: Errno) -> io::Error {
    match error {
        Errno::NOTDIR | Errno::LOOP => io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{component} is not a folder (symbolic links are not followed)"),
        ),
        other => other.into(),
    }
}

/// Renames within one folder unless the new name is taken; whether it was done.
fn rename_noreplace(folder: &OwnedFd, from: &str, to: &str) -> io::Result<bool> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // File systems that cannot: a hard link replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match rustix::fs::linkat(folder, from, folder, to, AtFlags::empty()) {
                Ok(()) => Ok(rustix::fs::unlinkat(folder, from, AtFlags::empty()).map(|()| true)?),
                Err(Errno::EXIST) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
