//! Private names that were published from this folder: hidden ones, and those that folders and patterns leave out.
//!
//! Defended: the list of publications that a client serves after a login comes from the server, which also seals the tickets.
//! A server that turns bad could ask for any name beneath the folder, so private names are served only if the user has
//! published them. Their hashes are kept in the user's state folder; without one, until the client ends.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::expand::is_excluded;
use crate::common::sync::lock;
use crate::common::types::FileName;

/// Most names that are remembered of all folders. Later ones are forgotten when the client ends.
const NAMES_MAX: usize = 100_000;

/// See the module.
pub struct PrivateNames {
    folder: PathBuf,
    file: Option<PathBuf>,
    published: Mutex<HashSet<String>>,
}

/// Whether a name is hidden, or left out by folders and patterns.
pub fn is_private(name: &FileName) -> bool {
    name.components().any(|component| component.starts_with('.') || is_excluded(component.as_bytes()))
}

impl PrivateNames {
    /// Of the folder `dir`, kept in `file` if there is one. A file that cannot be read is like an empty one.
    pub fn open(dir: &Path, file: Option<PathBuf>) -> Self {
        let lines = file.as_deref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let published = lines.lines().map(str::to_owned).collect();
        Self { folder: dir.canonicalize().unwrap_or_else(|_| dir.to_owned()), file, published: Mutex::new(published) }
    }

    /// In the user's state folder (XDG).
    pub fn in_user_state_dir(dir: &Path) -> Self {
        Self::open(dir, super::user_state_dir().map(|state| state.join("private-names")))
    }

    /// The user publishes this name. Does nothing unless it is private.
    pub fn record(&self, name: &FileName) {
        if !is_private(name) {
            return;
        }
        let entry = self.entry(name);
        let mut published = lock(&self.published);
        if published.insert(entry.clone())
            && published.len() <= NAMES_MAX
            && let Some(file) = &self.file
            && let Err(error) = append(file, &entry)
        {
            log::debug!("cannot remember that {name} is published: {error}");
        }
    }

    /// Whether the name is public, or was published by the user.
    pub fn allow(&self, name: &FileName) -> bool {
        !is_private(name) || lock(&self.published).contains(&self.entry(name))
    }

    fn entry(&self, name: &FileName) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.folder.as_os_str().as_encoded_bytes()).update(b"\0").update(name.as_str().as_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

fn append(file: &Path, entry: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(dir) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    // One write of a line: clients of other folders append too.
    let line = format!("{entry}\n");
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::parse(name).unwrap()
    }

    #[test]
    fn private_names_are_allowed_once_they_were_published_from_the_folder() {
        let (dir, other, state) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = state.path().join("fileshare/private-names");
        let open = |dir: &tempfile::TempDir| PrivateNames::open(dir.path(), Some(file.clone()));
        let names = open(&dir);
        let private = [".ssh/id_rsa", "a/.hidden", "credentials.txt", "fileshare.db-wal", "old-credentials.txt/x"];
        for private in private.map(name) {
            assert!(is_private(&private) && !names.allow(&private), "{private}");
        }
        assert!(names.allow(&name("a/b.pdf")));
        names.record(&name("a/b.pdf"));
        assert!(!file.exists(), "public names are not remembered");
        names.record(&name("a/.hidden"));
        names.record(&name("a/.hidden"));
        assert!(names.allow(&name("a/.hidden")) && !names.allow(&name(".hidden")));
        assert!(open(&dir).allow(&name("a/.hidden")), "after a restart");
        assert!(!open(&other).allow(&name("a/.hidden")), "another folder");
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    }
}
