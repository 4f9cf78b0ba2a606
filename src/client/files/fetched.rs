//! What this user of the host has fetched into the shared folder, and not changed since: which of the files there are copies.
//!
//! Each is recorded before the file gets its name, in a file of the user's state folder, one for each shared folder. A file
//! is such a copy only while it has the recorded content.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};

use crate::common::sync::lock;
use crate::common::types::{ContentHash, FileName, UserName};

/// A file with so many lines more than it needs is written anew.
const SURPLUS_MAX_LINES: usize = 10_000;

/// What was fetched under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub hash: ContentHash,
    /// The user whom the name belongs to, if it was `follow` that fetched it.
    pub owner: Option<UserName>,
}

/// See the [module](self).
pub struct FetchedFiles(Mutex<FetchedTable>);

struct FetchedTable {
    by_name: HashMap<FileName, Fetched>,
    /// `None`: forgotten when the client ends.
    file: Option<File>,
}

impl FetchedFiles {
    /// Of the shared folder `dir`, kept in the folder `state` if there is one.
    pub fn open(dir: &Path, state: Option<PathBuf>) -> Self {
        let folder = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let id = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
        let mut by_name = HashMap::new();
        let file = state.and_then(|state| {
            let opened = open_record(&state, &id[..32], &folder, &mut by_name);
            opened.inspect_err(|error| log::debug!("cannot remember what is fetched: {error}")).ok()
        });
        Self(Mutex::new(FetchedTable { by_name, file }))
    }

    pub fn get(&self, name: &FileName) -> Option<Fetched> {
        lock(&self.0).by_name.get(name).cloned()
    }

    /// Whether this content was fetched under this name.
    pub fn is_copy(&self, name: &FileName, hash: &ContentHash) -> bool {
        lock(&self.0).by_name.get(name).is_some_and(|fetched| fetched.hash == *hash)
    }

    /// This content is about to get this name. Returns what was recorded before.
    pub fn record(&self, name: &FileName, fetched: Fetched) -> Option<Fetched> {
        let mut table = lock(&self.0);
        table.append(&line_of(name, Some(&fetched)));
        table.by_name.insert(name.clone(), fetched)
    }

    /// The content has not got this name: `before` is recorded again, unless there is another record meanwhile.
    pub fn restore(&self, name: &FileName, fetched: &Fetched, before: Option<Fetched>) {
        let mut table = lock(&self.0);
        if table.by_name.get(name) != Some(fetched) {
            return;
        }
        table.append(&line_of(name, before.as_ref()));
        match before {
            Some(before) => drop(table.by_name.insert(name.clone(), before)),
            None => drop(table.by_name.remove(name)),
        }
    }

    /// What has this name is none any more.
    pub fn forget(&self, name: &FileName) {
        let mut table = lock(&self.0);
        if table.by_name.remove(name).is_some() {
            table.append(&line_of(name, None));
        }
    }

    /// The names that belong to a user, with what was fetched.
    pub fn owned(&self) -> Vec<(FileName, Fetched)> {
        let table = lock(&self.0);
        let owned = table.by_name.iter().filter(|(_, fetched)| fetched.owner.is_some());
        owned.map(|(name, fetched)| (name.clone(), fetched.clone())).collect()
    }
}

impl FetchedTable {
    /// One write: other clients of this user may use the folder.
    fn append(&mut self, line: &str) {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            log::warn!("cannot remember what is fetched: {error}");
        }
    }
}

fn open_record(state: &Path, id: &str, folder: &Path, by_name: &mut HashMap<FileName, Fetched>) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let path = state.join(id);
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = 0;
    for (name, fetched) in text.lines().filter_map(parse_line) {
        lines += 1;
        match fetched {
            Some(fetched) => drop(by_name.insert(name, fetched)),
            None => drop(by_name.remove(&name)),
        }
    }
    if lines > by_name.len() + SURPLUS_MAX_LINES && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let compact: String = by_name.iter().map(|(name, fetched)| line_of(name, Some(fetched))).collect();
        let new = path.with_extension("new");
        let mut compacted = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        compacted.write_all(format!("{}{compact}", header(folder)).as_bytes())?;
        compacted.sync_all()?;
        fs::rename(&new, &path)?;
        file = OpenOptions::new().append(true).open(&path)?;
    } else if bytes.is_empty() {
        file.write_all(header(folder).as_bytes())?;
    } else if bytes.last() != Some(&b'\n') {
        // A crash has cut the last line short.
        file.write_all(b"\n")?;
    }
    // Nobody else writes it anew.
    let _ = flock(&file, FlockOperation::NonBlockingLockShared);
    Ok(file)
}

fn header(folder: &Path) -> String {
    format!("# {}\n", folder.display().to_string().replace('\n', " "))
}

/// `<hash> <owner> <name>`; no hash: forgotten.
fn line_of(name: &FileName, fetched: Option<&Fetched>) -> String {
    let hash = fetched.map_or_else(String::new, |fetched| fetched.hash.to_hex());
    let owner = fetched.and_then(|fetched| fetched.owner.as_ref()).map_or("", UserName::as_str);
    format!("{hash} {owner} {name}\n")
}

fn parse_line(line: &str) -> Option<(FileName, Option<Fetched>)> {
    let mut words = line.splitn(3, ' ');
    let (hash, owner, name) = (words.next()?, words.next()?, FileName::parse(words.next()?).ok()?);
    if hash.is_empty() {
        return Some((name, None));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(hash, &mut bytes).ok()?;
    let owner = if owner.is_empty() { None } else { Some(UserName::parse(owner).ok()?) };
    Some((name, Some(Fetched { hash: ContentHash(bytes), owner })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::parse(name).unwrap()
    }

    fn fetched(byte: u8, owner: Option<&str>) -> Fetched {
        Fetched { hash: ContentHash([byte; 32]), owner: owner.map(|owner| UserName::parse(owner).unwrap()) }
    }

    #[test]
    fn what_was_fetched_is_known_after_a_restart_and_of_its_folder_alone() {
        let [dir, other, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let open = |dir: &tempfile::TempDir| FetchedFiles::open(dir.path(), Some(state.path().join("fetched")));
        let files = open(&dir);
        files.record(&name("a b/c"), fetched(1, Some("hans")));
        files.record(&name("x"), fetched(2, None));
        files.record(&name("x"), fetched(3, None));
        files.record(&name("gone"), fetched(4, Some("hans")));
        files.forget(&name("gone"));
        for files in [files, open(&dir)] {
            assert_eq!(files.get(&name("a b/c")), Some(fetched(1, Some("hans"))));
            assert!(
                files.is_copy(&name("x"), &ContentHash([3; 32])) && !files.is_copy(&name("x"), &ContentHash([2; 32]))
            );
            assert_eq!(files.get(&name("gone")), None);
            assert_eq!(files.owned(), [(name("a b/c"), fetched(1, Some("hans")))]);
        }
        assert_eq!(open(&other).get(&name("x")), None);
    }

    #[test]
    fn a_line_that_was_cut_short_harms_no_other() {
        let [dir, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let open = || FetchedFiles::open(dir.path(), Some(state.path().to_owned()));
        open().record(&name("a"), fetched(1, None));
        let path = fs::read_dir(state.path()).unwrap().next().unwrap().unwrap().path();
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"0101 hans").unwrap();
        open().record(&name("b"), fetched(2, None));
        let files = open();
        assert_eq!((files.get(&name("a")), files.get(&name("b"))), (Some(fetched(1, None)), Some(fetched(2, None))));
    }

    #[test]
    fn a_record_with_many_old_lines_is_written_anew() {
        let [dir, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let open = || FetchedFiles::open(dir.path(), Some(state.path().to_owned()));
        let files = open();
        (0..=SURPLUS_MAX_LINES + 1).for_each(|at| drop(files.record(&name("a"), fetched(at as u8, None))));
        drop(files);
        open().record(&name("b"), fetched(2, None));
        let path = fs::read_dir(state.path()).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 3, "with the name of the folder");
        assert_eq!(open().get(&name("a")), Some(fetched((SURPLUS_MAX_LINES + 1) as u8, None)));
    }

    #[test]
    fn a_content_that_has_not_got_its_name_changes_no_record() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || FetchedFiles::open(dir.path(), Some(state.path().to_owned()));
        let files = open();
        for before in [None, Some(fetched(1, Some("hans")))] {
            before.iter().for_each(|before| drop(files.record(&name("a"), before.clone())));
            assert_eq!(files.record(&name("a"), fetched(2, None)), before);
            files.restore(&name("a"), &fetched(2, None), before.clone());
            assert_eq!((files.get(&name("a")), open().get(&name("a"))), (before.clone(), before));
        }
        files.record(&name("a"), fetched(3, None));
        files.restore(&name("a"), &fetched(2, None), None);
        assert_eq!(files.get(&name("a")), Some(fetched(3, None)), "another download has recorded it meanwhile");
    }
}
