//! Outlines of large files that were hashed before, by the file's identity: publishing again, and serving after a
//! restart, need no second look at the bytes.
//!
//! One small file an entry, named after device and inode and replaced in one step, so that any number of clients on one
//! host share the folder without a lock. Everything fails softly: a cache that cannot be read or written is a slower one.
//! Contents of a single chunk group are never kept: hashing a mebibyte again costs less than looking it up.
//!
//! Not defended: whoever can write to the user's cache folder is the user.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use super::folder::Stamp;
use super::lock;
use crate::common::content::{GroupHash, Outline, group_count};
use crate::common::limits::GROUPS_MAX;
use crate::common::types::ContentHash;

/// The first bytes of an entry; the number is the format's version.
const MAGIC: &[u8; 8] = b"fshout1\n";
/// Magic, device, inode, size, two times, root hash.
const HEAD_BYTES: usize = 8 + 3 * 8 + 2 * 16 + 32;
/// Largest entry, bytes.
const ENTRY_MAX_BYTES: u64 = HEAD_BYTES as u64 + 32 * GROUPS_MAX;
/// Entries beyond this many are dropped, those written longest ago first.
const ENTRIES_MAX: usize = 4_096;
/// Group hashes kept in memory over all contents: 256 GiB of content in 8 MiB.
const MEMORY_MAX_GROUPS: usize = 1 << 18;

/// The outlines on disk.
pub(super) struct Cache {
    dir: Option<PathBuf>,
    pruned: Once,
}

impl Cache {
    /// In the user's own cache folder (XDG), if there is one.
    pub(super) fn of_user() -> Self {
        use etcetera::BaseStrategy;
        let dir = etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("fileshare").join("outlines"));
        Self::at(dir)
    }

    /// In `dir`, which is made when it is first needed.
    pub(super) fn at(dir: Option<PathBuf>) -> Self {
        Self { dir, pruned: Once::new() }
    }

    /// What was hashed when a file had this stamp.
    pub(super) fn load(&self, stamp: &Stamp) -> Option<Outline> {
        if group_count(stamp.size) == 1 {
            return None;
        }
        let path = self.dir.as_deref()?.join(entry_name(stamp));
        if fs::metadata(&path).ok()?.len() > ENTRY_MAX_BYTES {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let rest = bytes.strip_prefix(head(stamp).as_slice())?;
        let (root, groups) = rest.split_first_chunk::<32>()?;
        let (groups, []) = groups.as_chunks::<32>() else { return None };
        // Damage shows: the groups no longer merge to the root.
        Outline::verified(ContentHash(*root), stamp.size, groups.to_vec())
    }

    /// Keeps an outline. The caller knows that the file cannot have changed unnoticed: its stamp was settled before its
    /// bytes were read ([`Stamp::is_settled`]).
    pub(super) fn store(&self, stamp: &Stamp, outline: &Outline) {
        let Some(dir) = self.dir.as_deref().filter(|_| outline.groups().len() > 1) else {
            return;
        };
        if let Err(error) = write(dir, stamp, outline) {
            log::debug!("a hash was not kept for later: {error}");
        }
        self.pruned.call_once(|| prune(dir));
    }
}

fn entry_name(stamp: &Stamp) -> String {
    format!("{:x}-{:x}", stamp.device, stamp.inode)
}

fn head(stamp: &Stamp) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    for number in [stamp.device, stamp.inode, stamp.size] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&stamp.modified_ns.to_le_bytes());
    head.extend_from_slice(&stamp.changed_ns.to_le_bytes());
    head
}

fn write(dir: &Path, stamp: &Stamp, outline: &Outline) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = entry_name(stamp);
    // Two threads or clients that hash the same file write the same bytes; each through a file of its own.
    let unfinished = dir.join(format!("{name}.{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut bytes = head(stamp);
    bytes.extend_from_slice(&outline.root().0);
    outline.groups().iter().for_each(|group: &GroupHash| bytes.extend_from_slice(group));
    let written = fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&unfinished, dir.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Drops the oldest half when there are too many entries: most are of files long gone.
fn prune(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    if paths.len() <= ENTRIES_MAX {
        return;
    }
    let age = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let mut aged: Vec<_> = paths.into_iter().map(|path| (age(&path), path)).collect();
    aged.sort_unstable();
    for (_, path) in aged.iter().take(aged.len() - ENTRIES_MAX / 2) {
        let _ = fs::remove_file(path);
    }
}

/// The outlines used last, in memory: what is served needs no cache folder.
#[derive(Default)]
pub(super) struct Recent {
    kept: Mutex<VecDeque<Arc<Outline>>>,
}

impl Recent {
    /// The outline of a content of several groups, if it was used lately.
    pub(super) fn of(&self, root: ContentHash) -> Option<Arc<Outline>> {
        lock(&self.kept).iter().find(|outline| outline.root() == root).cloned()
    }

    /// Keeps an outline, for others that were put in longest ago if need be. Tells its root.
    pub(super) fn keep(&self, outline: Outline) -> ContentHash {
        if outline.groups().len() == 1 { outline.root() } else { self.share(outline).root() }
    }

    /// Keeps an outline and hands it out.
    pub(super) fn share(&self, outline: Outline) -> Arc<Outline> {
        let mut kept = lock(&self.kept);
        if let Some(known) = kept.iter().find(|known| known.root() == outline.root()) {
            return known.clone();
        }
        let outline = Arc::new(outline);
        if outline.groups().len() > 1 {
            kept.push_back(outline.clone());
        }
        while kept.len() > 1 && kept.iter().map(|outline| outline.groups().len()).sum::<usize>() > MEMORY_MAX_GROUPS {
            kept.pop_front();
        }
        outline
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
