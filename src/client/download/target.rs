//! Where downloads go: the folder of a target, what is at its name already, and the final rename.
//!
//! Defended: folders are opened by [`SharedDir`], so neither a name nor a planted link leads outside. A target gets its
//! name by a rename that replaces nothing unless the user chose `overwrite`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::ControlFlow::{Break, Continue};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::OnExists;
use crate::client::files::{FileIdentity, HashError, Rename, SharedDir, hash_file, is_partial_file, rename_noreplace};
use crate::common::chunk_tree::group_count;
use crate::common::limits::{FILE_COMPONENT_MAX_BYTES, FILE_NAME_MAX_BYTES};
use crate::common::sync::lock;
use crate::common::types::{Content, ContentHash, FileName};

/// Folders held open, so that the part files in one share a descriptor.
const OPEN_DIRS_MAX: usize = 64;
/// How many `name (n)` are tried.
const RENAMES_MAX: u32 = 9_999;

/// What is at the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetState {
    Absent,
    /// A file with the wanted content.
    Identical,
    /// A folder: no policy replaces one.
    Directory,
    /// Anything else.
    Different,
}

/// What became of a complete part file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finalized {
    /// It has this name now.
    Saved(FileName),
    /// The name is in use, and the policy keeps what is there.
    Exists,
}

/// The shared folder as the target of downloads.
pub(super) struct TargetDir {
    shared: SharedDir,
    open_dirs: Mutex<HashMap<String, Arc<OwnedFd>>>,
    /// Folders in which abandoned partial files were looked for.
    swept: Mutex<HashSet<String>>,
}

/// The folder of a name (empty: the shared folder itself) and its last component.
pub(super) fn split_parent(name: &FileName) -> (&str, &str) {
    name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()))
}

impl TargetDir {
    /// Opens the shared folder. This path is the user's own choice, and may lead over symbolic links.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self { shared: SharedDir::open(dir)?, open_dirs: Mutex::default(), swept: Mutex::default() })
    }

    /// Opens the folder of a name; makes it, and those above it, if it is missing.
    pub fn open_parent(&self, name: &FileName) -> io::Result<Arc<OwnedFd>> {
        self.open_folder(split_parent(name).0, |path| self.shared.create_dir(path))
    }

    /// Opens the shared folder itself.
    pub fn open_root(&self) -> io::Result<Arc<OwnedFd>> {
        self.open_folder("", |path| self.shared.open_dir(path))
    }

    fn open_folder(&self, path: &str, open: impl Fn(&str) -> io::Result<OwnedFd>) -> io::Result<Arc<OwnedFd>> {
        let mut open_dirs = lock(&self.open_dirs);
        if let Some(folder) = open_dirs.get(path) {
            return Ok(folder.clone());
        }
        let folder = Arc::new(open(path)?);
        if open_dirs.len() >= OPEN_DIRS_MAX {
            open_dirs.clear();
        }
        open_dirs.insert(path.to_owned(), folder.clone());
        Ok(folder)
    }

    /// A folder and its partial files. `None` if it has none, or was asked for before: one look in each is enough.
    pub fn partial_files(&self, path: &str) -> Option<(OwnedFd, Vec<String>)> {
        if !lock(&self.swept).insert(path.to_owned()) {
            return None;
        }
        let entries = self.shared.list(path).ok()?;
        let parts = entries.into_iter().filter(|entry| is_partial_file(&entry.name));
        let names: Vec<String> = parts.filter_map(|entry| String::from_utf8(entry.name).ok()).collect();
        Some((self.shared.open_dir(path).ok()?, names)).filter(|(_, names)| !names.is_empty())
    }

    /// Closes the folders held open: the next use resolves their paths again.
    pub fn clear_cache(&self) {
        lock(&self.open_dirs).clear();
    }

    /// What is at a name; makes no folders. Reads the file if it has the right size. Fails with
    /// [`io::ErrorKind::Interrupted`] when `interrupted` returns true.
    pub fn target_state(
        &self,
        name: &FileName,
        content: &Content,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> io::Result<TargetState> {
        let (path, leaf) = split_parent(name);
        match self.open_folder(path, |path| self.shared.open_dir(path)) {
            Ok(folder) => target_state_in(&folder, leaf, content, interrupted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(TargetState::Absent),
            Err(error) => Err(error),
        }
    }

    /// Renames a complete part file to its target under the user's policy. One that is not renamed is kept only if it is
    /// large: a small content is downloaded anew anyway.
    /// `before_rename` gets each name that is tried; its error is the result.
    pub fn finalize(
        &self,
        folder: &OwnedFd,
        part: &str,
        name: &FileName,
        policy: OnExists,
        before_rename: &dyn Fn(&FileName) -> io::Result<()>,
    ) -> io::Result<Finalized> {
        let finalized = rename_to_target(folder, part, name, policy, before_rename);
        if !matches!(finalized, Ok(Finalized::Saved(_))) {
            remove_small(folder, part);
        }
        finalized
    }
}

fn rename_to_target(
    folder: &OwnedFd,
    part: &str,
    name: &FileName,
    policy: OnExists,
    before_rename: &dyn Fn(&FileName) -> io::Result<()>,
) -> io::Result<Finalized> {
    if policy == OnExists::Overwrite {
        before_rename(name)?;
        rustix::fs::renameat(folder, part, folder, split_parent(name).1)?;
        return Ok(Finalized::Saved(name.clone()));
    }
    take_name(name, policy, before_rename, &|leaf| rename_noreplace(folder, part, leaf))
}

/// Gives a file a name that is not in use: this one, or by [`OnExists::Rename`] one like it. `take` gives it the name with
/// this last component, and `before` gets each name that is tried.
pub(super) fn take_name(
    name: &FileName,
    policy: OnExists,
    before: &dyn Fn(&FileName) -> io::Result<()>,
    take: &dyn Fn(&str) -> io::Result<Rename>,
) -> io::Result<Finalized> {
    let (path, leaf) = split_parent(name);
    before(name)?;
    if take(leaf)? == Rename::Done {
        return Ok(Finalized::Saved(name.clone()));
    }
    if policy != OnExists::Rename {
        return Ok(Finalized::Exists);
    }
    for number in 1..=RENAMES_MAX {
        let leaf = numbered_name(leaf, number, leaf_max_bytes(path));
        let whole = if path.is_empty() { leaf.clone() } else { format!("{path}/{leaf}") };
        let name = FileName::parse(&whole).map_err(io::Error::other)?;
        before(&name)?;
        if take(&leaf)? == Rename::Done {
            return Ok(Finalized::Saved(name));
        }
    }
    Ok(Finalized::Exists)
}

fn remove_small(folder: &OwnedFd, part: &str) {
    let stat = rustix::fs::statat(folder, part, AtFlags::SYMLINK_NOFOLLOW);
    if stat.is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|bytes| group_count(bytes) == 1)) {
        // A file that cannot be removed is harmless: the next download of the content uses it.
        let _ = rustix::fs::unlinkat(folder, part, AtFlags::empty());
    }
}

/// Longest last component in this folder that makes a valid name, bytes.
fn leaf_max_bytes(path: &str) -> usize {
    let before = if path.is_empty() { 0 } else { path.len() + 1 };
    FILE_COMPONENT_MAX_BYTES.min(FILE_NAME_MAX_BYTES.saturating_sub(before))
}

/// `report.pdf` → `report (1).pdf`. Neither a leading dot nor an extension that leaves no bytes for a stem counts as an
/// extension. The stem is cut to fit, unless not even the number does.
fn numbered_name(leaf: &str, number: u32, max_bytes: usize) -> String {
    let number = format!(" ({number})");
    let is_extension = |&at: &usize| at > 0 && leaf.len() - at + number.len() < max_bytes;
    let dot = leaf.rfind('.').filter(is_extension).unwrap_or(leaf.len());
    let (stem, extension) = leaf.split_at(dot);
    let suffix = format!("{number}{extension}");
    let end = stem.floor_char_boundary(stem.len().min(max_bytes.saturating_sub(suffix.len())));
    format!("{}{suffix}", &stem[..end])
}

/// What is at one name of an open folder. See [`TargetDir::target_state`].
pub(super) fn target_state_in(
    folder: &OwnedFd,
    leaf: &str,
    content: &Content,
    interrupted: &(dyn Fn() -> bool + Sync),
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
    let file = File::from(file);
    let identity = FileIdentity::of_file(&file)?;
    if identity.size != content.size {
        return Ok(TargetState::Different);
    }
    match hash_file(&file, &identity, &mut |_| if interrupted() { Break(()) } else { Continue(()) }) {
        Ok(hashes) if hashes.root() == content.hash => Ok(TargetState::Identical),
        Ok(_) | Err(HashError::Changed) => Ok(TargetState::Different),
        Err(HashError::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
        Err(HashError::Io(error)) => Err(error),
    }
}

/// Whether a name of an open folder is that of a file with this content, of any size.
pub(super) fn has_content(
    folder: &OwnedFd,
    leaf: &str,
    hash: ContentHash,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> io::Result<bool> {
    let size = match rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => u64::try_from(stat.st_size).unwrap_or(0),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let content = Content { hash, size, mtime_ms: 0 };
    Ok(target_state_in(folder, leaf, &content, interrupted)? == TargetState::Identical)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
