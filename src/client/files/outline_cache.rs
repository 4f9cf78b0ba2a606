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
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rustix::fs::{Timespec, Timestamps};

use super::shared_dir::FileIdentity;
use crate::common::chunk_tree::{GroupHash, GroupHashes, group_count};
use crate::common::limits::GROUPS_MAX;
use crate::common::sync::lock;
use crate::common::types::ContentHash;

/// The first bytes of an entry; the number is the format's version.
const MAGIC: &[u8; 8] = b"fshout1\n";
/// Magic, device, inode, size, two times, root hash.
const HEAD_BYTES: usize = 8 + 3 * 8 + 2 * 16 + 32;
/// Largest entry, bytes.
const ENTRY_MAX_BYTES: u64 = HEAD_BYTES as u64 + 32 * GROUPS_MAX;
/// What all entries may take on the disk, bytes: 65,536 small ones, or the hashes of 8 TiB in large files. Beyond that those
/// used longest ago are dropped, until a quarter is free.
const DISK_MAX_BYTES: u64 = 256 << 20;
/// An entry takes whole blocks.
const BLOCK_BYTES: u64 = 4 << 10;
/// It is looked whether there is too much whenever so much was written.
const LOOK_EVERY_BYTES: u64 = DISK_MAX_BYTES / 16;
/// Group hashes kept in memory over all contents: 256 GiB of content in 8 MiB.
const MEMORY_MAX_GROUPS: usize = 1 << 18;

/// The outlines on disk.
pub struct DiskCache {
    dir: Option<PathBuf>,
    /// Since it was last looked whether there is too much. Each client starts at random, so that many that write little
    /// look as often as one that writes all of it.
    written_bytes: AtomicU64,
}

impl DiskCache {
    /// In the user's own cache folder (XDG), if there is one.
    pub fn in_user_cache_dir() -> Self {
        use etcetera::BaseStrategy;
        let dir = etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("fileshare").join("outlines"));
        Self::at(dir)
    }

    /// In `dir`, which is made when it is first needed.
    pub fn at(dir: Option<PathBuf>) -> Self {
        Self { dir, written_bytes: AtomicU64::new(rand::random::<u64>() % LOOK_EVERY_BYTES) }
    }

    /// What was hashed when a file had this stamp.
    pub fn load(&self, stamp: &FileIdentity) -> Option<GroupHashes> {
        if group_count(stamp.size) == 1 {
            return None;
        }
        let path = self.dir.as_deref()?.join(entry_name(stamp));
        let file = fs::File::open(path).ok()?;
        let mut bytes = Vec::new();
        (&file).take(ENTRY_MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let rest = bytes.strip_prefix(head(stamp).as_slice())?;
        let (root, groups) = rest.split_first_chunk::<32>()?;
        let (groups, []) = groups.as_chunks::<32>() else { return None };
        // Damage shows: the groups no longer merge to the root.
        let outline = GroupHashes::verify(ContentHash(*root), stamp.size, groups.to_vec())?;
        touch(&file);
        Some(outline)
    }

    /// Keeps an outline. The caller knows that the file cannot have changed unnoticed: its stamp was settled before its
    /// bytes were read ([`FileIdentity::is_stable`]).
    pub fn store(&self, stamp: &FileIdentity, outline: &GroupHashes) {
        let Some(dir) = self.dir.as_deref().filter(|_| outline.groups().len() > 1) else {
            return;
        };
        if let Err(error) = write(dir, stamp, outline) {
            log::debug!("a hash was not kept for later: {error}");
        }
        let entry_bytes = on_disk(HEAD_BYTES as u64 + 32 * outline.groups().len() as u64);
        if self.written_bytes.fetch_add(entry_bytes, Relaxed) + entry_bytes >= LOOK_EVERY_BYTES {
            self.written_bytes.store(0, Relaxed);
            prune(dir, DISK_MAX_BYTES);
        }
    }
}

fn entry_name(stamp: &FileIdentity) -> String {
    format!("{:x}-{:x}", stamp.device, stamp.inode)
}

fn head(stamp: &FileIdentity) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    for number in [stamp.device, stamp.inode, stamp.size] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&stamp.modified_ns.to_le_bytes());
    head.extend_from_slice(&stamp.changed_ns.to_le_bytes());
    head
}

fn write(dir: &Path, stamp: &FileIdentity, outline: &GroupHashes) -> std::io::Result<()> {
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

/// Used just now: for [`prune`].
fn touch(file: &fs::File) {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    // A cache that cannot be written forgets a little too early.
    let _ = rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now });
}

fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// If there is more than `most` bytes, drops what was used longest ago, down to three quarters.
fn prune(dir: &Path, most: u64) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let aged = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some((metadata.modified().ok()?, on_disk(metadata.len()), entry.path()))
    });
    let mut aged: Vec<_> = aged.collect();
    let mut total: u64 = aged.iter().map(|(_, bytes, _)| bytes).sum();
    if total <= most {
        return;
    }
    aged.sort_unstable();
    for (_, bytes, path) in aged {
        if total <= most / 4 * 3 {
            return;
        }
        let _ = fs::remove_file(path);
        total -= bytes;
    }
}

/// The outlines used last, in memory: what is served needs no cache folder.
#[derive(Default)]
pub struct MemoryCache {
    kept: Mutex<VecDeque<Arc<GroupHashes>>>,
}

impl MemoryCache {
    /// The outline of a content of several groups, if it was used lately.
    pub fn of(&self, root: ContentHash) -> Option<Arc<GroupHashes>> {
        lock(&self.kept).iter().find(|outline| outline.root() == root).cloned()
    }

    /// Keeps an outline, for others that were put in longest ago if need be. Tells its root.
    pub fn keep(&self, outline: GroupHashes) -> ContentHash {
        if outline.groups().len() == 1 { outline.root() } else { self.share(outline).root() }
    }

    /// Keeps an outline and hands it out.
    pub fn share(&self, outline: GroupHashes) -> Arc<GroupHashes> {
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
#[path = "outline_cache_tests.rs"]
mod tests;
