//! Private names that were published from this folder: hidden ones, and those that folders and patterns leave out.
//!
//! Defended: the list of publications that a client serves after a login comes from the server, which also seals the tickets.
//! A server that turns bad could ask for any name beneath the folder, so private names are served only if the user has
//! published them. Their hashes are kept in the user's state folder, in a file for each shared folder; without it, until the
//! client ends.

use std::collections::HashSet;
use std::sync::Mutex;

use super::expand::is_excluded;
use super::record_file::RecordFile;
use crate::common::sync::lock;
use crate::common::types::FileName;

/// See the module.
pub struct PrivateNames(Mutex<PrivateTable>);

#[derive(Default)]
struct PrivateTable {
    /// Hashes of the names.
    published: HashSet<String>,
    file: RecordFile,
}

/// Whether a name is hidden, or left out by folders and patterns.
pub fn is_private(name: &FileName) -> bool {
    name.components().any(|component| component.starts_with('.') || is_excluded(component.as_bytes()))
}

impl PrivateNames {
    /// A file that cannot be read is like an empty one.
    pub fn open(file: RecordFile) -> Self {
        let mut table = PrivateTable { file, ..PrivateTable::default() };
        table.read();
        table.file.opened(None::<fn(&str) -> String>);
        Self(Mutex::new(table))
    }

    /// The user publishes this name. Does nothing unless it is private.
    pub fn record(&self, name: &FileName) {
        if !is_private(name) {
            return;
        }
        let (mut table, entry) = (lock(&self.0), entry(name));
        if table.published.insert(entry.clone())
            && let Err(error) = table.file.append(&format!("{entry}\n"))
        {
            log::debug!("cannot remember that {name} is published: {error}");
        }
    }

    /// Whether the name is public, or was published by the user.
    pub fn allow(&self, name: &FileName) -> bool {
        !is_private(name) || {
            let mut table = lock(&self.0);
            // Another client of the folder may have published it.
            table.read();
            table.published.contains(&entry(name))
        }
    }
}

impl PrivateTable {
    fn read(&mut self) {
        let lines = self.file.read();
        self.published.extend(lines.lines().map(str::to_owned));
    }
}

fn entry(name: &FileName) -> String {
    blake3::hash(name.as_str().as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::parse(name).unwrap()
    }

    #[test]
    fn private_names_are_allowed_once_they_were_published_from_the_folder() {
        let [dir, other, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let open = |dir: &tempfile::TempDir| PrivateNames::open(RecordFile::open(dir.path(), Some(state.path())));
        let recorded = || {
            let files = std::fs::read_dir(state.path()).unwrap().map(|file| file.unwrap().path());
            let texts = files.map(|file| std::fs::read_to_string(file).unwrap());
            texts
                .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
                .filter(|line| !line.starts_with('#'))
                .count()
        };
        let names = open(&dir);
        let private = [".ssh/id_rsa", "a/.hidden", "credentials.txt", "fileshare.db-wal", "old-credentials.txt/x"];
        for private in private.map(name) {
            assert!(is_private(&private) && !names.allow(&private), "{private}");
        }
        assert!(names.allow(&name("a/b.pdf")));
        names.record(&name("a/b.pdf"));
        assert_eq!(recorded(), 0, "public names are not remembered");
        let same_folder = open(&dir);
        assert!(!same_folder.allow(&name("a/.hidden")));
        names.record(&name("a/.hidden"));
        names.record(&name("a/.hidden"));
        assert!(names.allow(&name("a/.hidden")) && !names.allow(&name(".hidden")));
        assert!(open(&dir).allow(&name("a/.hidden")), "after a restart");
        assert!(!open(&other).allow(&name("a/.hidden")), "another folder");
        assert!(same_folder.allow(&name("a/.hidden")), "another client");
        assert_eq!(recorded(), 1);
    }
}
