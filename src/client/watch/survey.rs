//! What is found at paths of a watched folder.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::files::{FileIdentity, FileKind, ListedDir, ShareError, SharedDir, entry_name, is_left_out};
use crate::common::types::FileName;

/// A file and how long ago it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundFile {
    pub identity: FileIdentity,
    pub age: Duration,
    /// A change could leave the identity as it is.
    pub is_racy: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Survey {
    /// Why the watched folder is not the one that is watched; then nothing else is known.
    pub folder: Result<(), String>,
    /// The files at and beneath the examined paths, without those that folders leave out.
    pub files: BTreeMap<FileName, FoundFile>,
    /// Published, and there is no such file at or beneath the examined paths.
    pub gone: Vec<FileName>,
    /// Folders on which another file system is mounted.
    pub mounts: BTreeSet<String>,
    /// What could not be read.
    pub errors: Vec<String>,
    /// Names that cannot be published.
    pub invalid: Vec<ShareError>,
}

/// The folder that is watched. It stays the same when another one gets its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedFolder {
    /// Relative to the shared folder.
    pub path: String,
    device: u64,
    inode: u64,
}

/// Whether a path is beneath the folder `top`; the empty path is the shared folder.
pub fn is_beneath(path: &str, top: &str) -> bool {
    top.is_empty() || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

impl WatchedFolder {
    pub fn open(dir: &SharedDir, path: &str) -> Result<Self, ShareError> {
        let (kind, identity) = dir.identify(path)?;
        if kind != FileKind::Directory {
            return Err(ShareError::NoFolder(path.into()));
        }
        Ok(Self { path: path.into(), device: identity.device, inode: identity.inode })
    }

    /// Whether this absolute path leads to it.
    pub fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode))
    }

    /// Examines these paths, and what is beneath them. `published` yields the published names at and beneath a path.
    /// `on_folder` is called before a folder is listed.
    pub fn survey(
        &self,
        dir: &SharedDir,
        due: &BTreeSet<String>,
        published: &dyn Fn(&str) -> Vec<FileName>,
        on_folder: &mut dyn FnMut(&str),
    ) -> Survey {
        let (top, top_device) = (&*self.path, self.device);
        let mut walk = Walk { dir, top, top_device, now: system_time(), survey: Survey::empty(), on_folder };
        walk.survey.folder = self.check(dir);
        let mut last: Option<&String> = None;
        for path in due {
            if walk.survey.folder.is_ok() && !last.is_some_and(|top| is_beneath(path, top)) {
                walk.examine(path);
                walk.find_gone(published(path));
                last = Some(path);
            }
        }
        // It may have been unmounted meanwhile.
        let mut survey = walk.survey;
        survey.folder = survey.folder.and_then(|()| self.check(dir));
        survey
    }

    fn check(&self, dir: &SharedDir) -> Result<(), String> {
        let shown = if self.path.is_empty() { "." } else { &self.path };
        match dir.identify(&self.path) {
            Ok((_, identity)) if (identity.device, identity.inode) == (self.device, self.inode) => Ok(()),
            Ok(_) => Err(format!("{shown}: is another folder than the one that is watched")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Survey {
    pub(super) fn empty() -> Self {
        Self {
            folder: Ok(()),
            files: BTreeMap::new(),
            gone: Vec::new(),
            mounts: BTreeSet::new(),
            errors: Vec::new(),
            invalid: Vec::new(),
        }
    }
}

struct Walk<'a> {
    dir: &'a SharedDir,
    /// The watched folder.
    top: &'a str,
    top_device: u64,
    now: SystemTime,
    survey: Survey,
    on_folder: &'a mut dyn FnMut(&str),
}

impl Walk<'_> {
    fn examine(&mut self, path: &str) {
        let parent_device = self.find_mounts_above(path);
        match self.dir.identify(path) {
            Ok((FileKind::File, identity)) => {
                if let Ok(name) = FileName::parse(path) {
                    self.found(name, identity);
                }
            }
            Ok((FileKind::Directory, identity)) => self.walk(path, parent_device.unwrap_or(identity.device)),
            Ok((FileKind::Special, _)) | Err(ShareError::Missing(_) | ShareError::Special(_)) => {}
            Err(error) => self.survey.errors.push(error.to_string()),
        }
    }

    /// What is beneath a file system that is not mounted any more is not gone. Returns the device of the folder that holds
    /// the path.
    fn find_mounts_above(&mut self, path: &str) -> Option<u64> {
        let is_in_top = |folder: &&str| self.top.is_empty() || is_beneath(folder, self.top);
        let folders: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).filter(is_in_top).collect();
        let mut parent_device = self.top_device;
        for folder in folders {
            let (_, identity) = self.dir.identify(folder).ok()?;
            if identity.device != parent_device {
                self.survey.mounts.insert(folder.to_owned());
            }
            parent_device = identity.device;
        }
        Some(parent_device)
    }

    fn walk(&mut self, top: &str, device: u64) {
        let mut remaining = vec![(top.to_owned(), device)];
        while let Some((path, parent_device)) = remaining.pop() {
            (self.on_folder)(&path);
            let ListedDir { identity: folder, entries } = match self.dir.list_identified(&path) {
                Ok(listed) => listed,
                // It has vanished since: its own event comes.
                Err(ShareError::Missing(_)) => continue,
                Err(error) => {
                    self.survey.errors.push(error.to_string());
                    continue;
                }
            };
            if folder.device != parent_device {
                self.survey.mounts.insert(path.clone());
            }
            for (entry, identity) in entries.into_iter().filter(|(entry, _)| !is_left_out(&entry.name)) {
                match (entry.kind, entry_name(&path, &entry)) {
                    (FileKind::Special, _) => {}
                    (FileKind::File, Ok(name)) => self.found(name, identity),
                    (FileKind::Directory, Ok(name)) => remaining.push((name.to_string(), folder.device)),
                    (_, Err(error)) => self.survey.invalid.push(error),
                }
            }
        }
    }

    fn found(&mut self, name: FileName, identity: FileIdentity) {
        let now_ns = self.now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let age_ns = i128::try_from(now_ns).unwrap_or(i128::MAX) - identity.changed_ns;
        // The clock was set back: nothing is known.
        let age = u64::try_from(age_ns).map_or(Duration::MAX, Duration::from_nanos);
        let is_racy = identity.is_racy(self.now);
        self.survey.files.insert(name, FoundFile { identity, age, is_racy });
    }

    /// Which of these published names have no file. Private ones have, though they are not listed.
    fn find_gone(&mut self, published: Vec<FileName>) {
        for name in published {
            if self.survey.files.contains_key(&name) {
                continue;
            }
            match self.dir.identify(name.as_str()) {
                Ok((FileKind::File, _)) => {}
                Ok(_) | Err(ShareError::Missing(_) | ShareError::Special(_)) => self.survey.gone.push(name),
                Err(error) => self.survey.errors.push(error.to_string()),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of files is that of the wall clock")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
