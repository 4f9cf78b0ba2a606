//! What this user of the host has fetched into the shared folder: which of the files there are copies.
//!
//! Each is recorded before the file gets its name, in a file of the user's state folder, one for each shared folder. A file
//! is such a copy only while it has the recorded content. A client may be killed before the rename or after it: until the
//! record says how that came out, the file may have the content that was recorded before, or the new one.
//!
//! The contents themselves are remembered too: a copy that is moved or copied is one under any name.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard};

use super::record_file::RecordFile;
use crate::common::sync::lock;
use crate::common::types::{ContentHash, FileName, UserName};

/// A file with so many lines more than it needs is written anew.
const SURPLUS_MAX_LINES: usize = 10_000;
/// Most contents that a file that is written anew has; the oldest are forgotten.
const CONTENTS_MAX: usize = 1 << 20;

/// What was fetched under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub hash: ContentHash,
    /// The user whom the name belongs to, if it was `follow` that fetched it.
    pub owner: Option<UserName>,
}

/// See the [module](self).
pub struct FetchedFiles(Mutex<FetchedTable>);

/// What is recorded of a name.
#[derive(Debug, Default)]
struct NameRecord {
    saved: Option<Fetched>,
    /// About to replace it.
    pending: Option<Fetched>,
}

#[derive(Default)]
struct FetchedTable {
    by_name: HashMap<FileName, NameRecord>,
    /// Everything that was fetched, but the empty content: that is nobody's.
    contents: HashSet<ContentHash>,
    file: RecordFile,
}

/// A line of the file.
enum RecordLine {
    Content(ContentHash),
    Pending(FileName, Fetched),
    /// `None`: forgotten.
    Saved(FileName, Option<Fetched>),
}

impl FetchedFiles {
    pub fn open(file: RecordFile) -> Self {
        let mut table = FetchedTable { file, ..FetchedTable::default() };
        let lines = table.read();
        let needed = table.by_name.len() + table.contents.len().min(CONTENTS_MAX);
        let FetchedTable { by_name, file, .. } = &mut table;
        file.opened((lines > needed + SURPLUS_MAX_LINES).then_some(|text: &str| compact(text, by_name)));
        Self(Mutex::new(table))
    }

    /// Why not everything is kept after the end of the client.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.0).file.trouble().map(str::to_owned)
    }

    /// The same, if it has happened since the client started.
    pub fn write_failure(&self) -> Option<String> {
        lock(&self.0).file.write_failure().map(str::to_owned)
    }

    /// What was fetched under this name. `local`: the content of the file, if there is one.
    pub fn get(&self, name: &FileName, local: Option<&ContentHash>) -> Option<Fetched> {
        let candidates = self.candidates(name);
        let same = candidates.iter().find(|fetched| Some(&fetched.hash) == local);
        same.or(candidates.first()).cloned()
    }

    /// What a file of this name may have been fetched as, the most likely first.
    pub fn candidates(&self, name: &FileName) -> Vec<Fetched> {
        self.table().candidates(name).cloned().collect()
    }

    /// Whether this content was fetched, under this name or another one.
    pub fn is_copy(&self, name: &FileName, hash: &ContentHash) -> bool {
        let table = self.table();
        table.contents.contains(hash) || table.candidates(name).any(|fetched| fetched.hash == *hash)
    }

    /// These contents are about to get these names. An error means that they are only known until the client ends.
    pub fn begin(&self, copies: &[(FileName, Fetched)]) -> io::Result<()> {
        let mut table = self.table();
        let mut lines = String::new();
        for (name, fetched) in copies {
            lines += &line_of(name, Some(fetched), true);
            table.apply(RecordLine::Pending(name.clone(), fetched.clone()));
        }
        table.file.append(&lines)
    }

    /// The contents have got the names, or have not.
    pub fn end(&self, copies: &[(FileName, Fetched)], is_saved: bool) {
        let mut table = self.table();
        let mut lines = String::new();
        for (name, fetched) in copies {
            let record = table.by_name.get(name);
            if is_saved {
                lines += &table.save(name, Some(fetched.clone()));
            } else if let Some(record) = record.filter(|record| record.pending.as_ref() == Some(fetched)) {
                let before = record.saved.clone();
                lines += &table.save(name, before);
            }
        }
        table.append(&lines);
    }

    /// What has this name is no copy any more.
    pub fn forget(&self, name: &FileName) {
        let mut table = self.table();
        if table.by_name.contains_key(name) {
            let line = table.save(name, None);
            table.append(&line);
        }
    }

    /// The names that belong to a user.
    pub fn owned(&self) -> Vec<(FileName, UserName)> {
        let table = self.table();
        let owner = |(name, NameRecord { saved, pending }): (&FileName, &NameRecord)| {
            Some((name.clone(), saved.as_ref().or(pending.as_ref())?.owner.clone()?))
        };
        table.by_name.iter().filter_map(owner).collect()
    }

    /// With what other clients of the folder have recorded.
    fn table(&self) -> MutexGuard<'_, FetchedTable> {
        let mut table = lock(&self.0);
        table.read();
        table
    }
}

impl FetchedTable {
    /// See [`FetchedFiles::candidates`].
    fn candidates(&self, name: &FileName) -> impl Iterator<Item = &Fetched> {
        self.by_name.get(name).into_iter().flat_map(|NameRecord { saved, pending }| saved.iter().chain(pending))
    }

    /// Reads what has been written since. Returns the number of lines.
    fn read(&mut self) -> usize {
        let text = self.file.read();
        text.lines().filter_map(parse_line).for_each(|line| self.apply(line));
        text.lines().count()
    }

    fn apply(&mut self, line: RecordLine) {
        let (hash, name, record) = match line {
            RecordLine::Content(hash) => (hash, None, None),
            RecordLine::Saved(name, None) => return drop(self.by_name.remove(&name)),
            RecordLine::Saved(name, Some(saved)) => {
                (saved.hash, Some(name), Some(NameRecord { saved: Some(saved), pending: None }))
            }
            RecordLine::Pending(name, pending) => {
                self.by_name.entry(name).or_default().pending = Some(pending.clone());
                (pending.hash, None, None)
            }
        };
        if *blake3::hash(&[]).as_bytes() != hash.0 {
            self.contents.insert(hash);
        }
        if let (Some(name), Some(record)) = (name, record) {
            self.by_name.insert(name, record);
        }
    }

    /// The record of the name from now on. Returns its line, to be appended.
    fn save(&mut self, name: &FileName, saved: Option<Fetched>) -> String {
        let line = line_of(name, saved.as_ref(), false);
        self.apply(RecordLine::Saved(name.clone(), saved));
        line
    }

    fn append(&mut self, lines: &str) {
        // Until they are written, the next client takes both contents of a name for copies.
        let _ = self.file.append(lines);
    }
}

/// What the text says, without lines that others replace.
fn compact(text: &str, by_name: &HashMap<FileName, NameRecord>) -> String {
    let mut contents = HashSet::new();
    let hash = |line| match parse_line(line)? {
        RecordLine::Content(hash) => Some(hash),
        RecordLine::Pending(_, fetched) | RecordLine::Saved(_, Some(fetched)) => Some(fetched.hash),
        RecordLine::Saved(_, None) => None,
    };
    let latest = text.lines().rev().filter_map(hash).filter(|hash| contents.insert(*hash)).take(CONTENTS_MAX);
    let latest: Vec<ContentHash> = latest.collect();
    let mut compact: String = latest.iter().rev().map(|hash| format!("={}\n", hash.to_hex())).collect();
    for (name, NameRecord { saved, pending }) in by_name {
        saved.iter().for_each(|saved| compact += &line_of(name, Some(saved), false));
        pending.iter().for_each(|pending| compact += &line_of(name, Some(pending), true));
    }
    compact
}

/// `<hash> <owner> <name>`; no hash: forgotten; `~` before it: about to replace the file.
fn line_of(name: &FileName, fetched: Option<&Fetched>, is_pending: bool) -> String {
    let hash = fetched.map_or_else(String::new, |fetched| fetched.hash.to_hex());
    let owner = fetched.and_then(|fetched| fetched.owner.as_ref()).map_or("", UserName::as_str);
    format!("{}{hash} {owner} {name}\n", if is_pending { "~" } else { "" })
}

/// Also `=<hash>`: a content that was fetched.
fn parse_line(line: &str) -> Option<RecordLine> {
    let parse_hash = |text: &str| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(ContentHash(bytes))
    };
    if let Some(hash) = line.strip_prefix('=') {
        return parse_hash(hash).map(RecordLine::Content);
    }
    let (is_pending, line) = line.strip_prefix('~').map_or((false, line), |line| (true, line));
    let mut words = line.splitn(3, ' ');
    let (hash, owner, name) = (words.next()?, words.next()?, FileName::parse(words.next()?).ok()?);
    if hash.is_empty() {
        return Some(RecordLine::Saved(name, None));
    }
    let owner = if owner.is_empty() { None } else { Some(UserName::parse(owner).ok()?) };
    let fetched = Fetched { hash: parse_hash(hash)?, owner };
    Some(if is_pending { RecordLine::Pending(name, fetched) } else { RecordLine::Saved(name, Some(fetched)) })
}

#[cfg(test)]
#[path = "fetched_tests.rs"]
mod tests;
