//! Hashes of files that were hashed before, by the file's identity: publishing a file again, and serving it, does not
//! read it again, nor does a restart of the client.
//!
//! On disk, each entry is one small file, named after device and inode and replaced in one step, so that any number of
//! clients on one host share the folder without a lock. A cache that cannot be read or written only makes the client
//! slower. Contents of a single chunk group are not stored on disk: hashing a mebibyte takes less than looking it up.
//!
//! Not defended: an attacker who can write to the user's cache folder has the user's rights already.

use std::collections::{HashMap, VecDeque};
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
/// Most bytes of all entries on disk: 65,536 small ones, or the hashes of 8 TiB in large files. Beyond that, the least
/// recently used entries are removed until a quarter is free.
const DISK_MAX_BYTES: u64 = 256 << 20;
/// An entry occupies whole blocks.
const BLOCK_BYTES: u64 = 4 << 10;
/// Pruning runs after this many bytes were written.
const PRUNE_INTERVAL_BYTES: u64 = DISK_MAX_BYTES / 16;
/// Most group hashes in memory over all contents: 256 GiB of content in 8 MiB.
const MEMORY_MAX_GROUPS: usize = 1 << 18;
/// Most files whose content hash is in memory. Beyond that, all are dropped and files are hashed again on demand.
const MEMORY_MAX_FILES: usize = 1 << 20;

/// The group hashes of large files, on disk.
pub struct DiskCache {
    dir: Option<PathBuf>,
    /// Bytes written since the last pruning. Each client starts at a random number, so that many clients that write little
    /// prune as often as one that writes all of it.
    written_bytes: AtomicU64,
}

impl DiskCache {
    /// In the user's cache folder (XDG), if there is one.
    pub fn in_user_cache_dir() -> Self {
        use etcetera::BaseStrategy;
        let dir = etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("fileshare").join("outlines"));
        Self::at(dir)
    }

    /// In `dir`, which is created when it is first needed.
    pub fn at(dir: Option<PathBuf>) -> Self {
        Self { dir, written_bytes: AtomicU64::new(rand::random::<u64>() % PRUNE_INTERVAL_BYTES) }
    }

    pub fn load(&self, identity: &FileIdentity) -> Option<GroupHashes> {
        if group_count(identity.size) == 1 {
            return None;
        }
        let path = self.dir.as_deref()?.join(entry_name(identity));
        let file = fs::File::open(path).ok()?;
        let mut bytes = Vec::new();
        (&file).take(ENTRY_MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let rest = bytes.strip_prefix(head(identity).as_slice())?;
        let (root, groups) = rest.split_first_chunk::<32>()?;
        let (groups, []) = groups.as_chunks::<32>() else { return None };
        // A damaged entry is detected: its hashes do not merge to the root.
        let hashes = GroupHashes::verify(ContentHash(*root), identity.size, groups.to_vec())?;
        touch(&file);
        Some(hashes)
    }

    /// Stores hashes. The identity was taken before the file was read, and [is not racy](FileIdentity::is_racy).
    pub fn store(&self, identity: &FileIdentity, hashes: &GroupHashes) {
        let Some(dir) = self.dir.as_deref().filter(|_| hashes.groups().len() > 1) else {
            return;
        };
        if let Err(error) = write(dir, identity, hashes) {
            log::debug!("could not cache the hashes of a file: {error}");
        }
        let entry_bytes = on_disk(HEAD_BYTES as u64 + 32 * hashes.groups().len() as u64);
        if self.written_bytes.fetch_add(entry_bytes, Relaxed) + entry_bytes >= PRUNE_INTERVAL_BYTES {
            self.written_bytes.store(0, Relaxed);
            prune(dir, DISK_MAX_BYTES);
        }
    }
}

fn entry_name(identity: &FileIdentity) -> String {
    format!("{:x}-{:x}", identity.device, identity.inode)
}

fn head(identity: &FileIdentity) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    for number in [identity.device, identity.inode, identity.size] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&identity.modified_ns.to_le_bytes());
    head.extend_from_slice(&identity.changed_ns.to_le_bytes());
    head
}

fn write(dir: &Path, identity: &FileIdentity, hashes: &GroupHashes) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = entry_name(identity);
    // Threads and clients that hash the same file write the same bytes, each through a temporary file of its own.
    let unfinished = dir.join(format!("{name}.{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut bytes = head(identity);
    bytes.extend_from_slice(&hashes.root().0);
    hashes.groups().iter().for_each(|group: &GroupHash| bytes.extend_from_slice(group));
    let written = fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&unfinished, dir.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Marks an entry as used now, for [`prune`].
fn touch(file: &fs::File) {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    // A failure only makes pruning less exact.
    let _ = rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now });
}

fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// If the entries exceed `max_bytes`, removes the least recently used down to three quarters of it.
fn prune(dir: &Path, max_bytes: u64) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let aged = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some((metadata.modified().ok()?, on_disk(metadata.len()), entry.path()))
    });
    let mut aged: Vec<_> = aged.collect();
    let mut total: u64 = aged.iter().map(|(_, bytes, _)| bytes).sum();
    if total <= max_bytes {
        return;
    }
    aged.sort_unstable();
    for (_, bytes, path) in aged {
        if total <= max_bytes / 4 * 3 {
            return;
        }
        let _ = fs::remove_file(path);
        total -= bytes;
    }
}

/// Hashes in memory: needs no cache folder.
#[derive(Default)]
pub struct MemoryCache {
    content_hashes: Mutex<HashMap<FileIdentity, ContentHash>>,
    group_hashes: Mutex<VecDeque<Arc<GroupHashes>>>,
}

impl MemoryCache {
    pub fn content_hash(&self, identity: &FileIdentity) -> Option<ContentHash> {
        lock(&self.content_hashes).get(identity).copied()
    }

    /// Stores a file's content hash. For `identity` see [`DiskCache::store`].
    pub fn set_content_hash(&self, identity: FileIdentity, hash: ContentHash) {
        let mut hashes = lock(&self.content_hashes);
        if hashes.len() >= MEMORY_MAX_FILES {
            hashes.clear();
        }
        hashes.insert(identity, hash);
    }

    /// The group hashes of a content of several groups.
    pub fn group_hashes(&self, root: ContentHash) -> Option<Arc<GroupHashes>> {
        lock(&self.group_hashes).iter().find(|hashes| hashes.root() == root).cloned()
    }

    /// Stores group hashes, unless the content is a single group. Drops those stored first to stay within the maximum.
    pub fn insert(&self, hashes: GroupHashes) -> Arc<GroupHashes> {
        let mut stored = lock(&self.group_hashes);
        if let Some(known) = stored.iter().find(|known| known.root() == hashes.root()) {
            return known.clone();
        }
        let hashes = Arc::new(hashes);
        if hashes.groups().len() > 1 {
            stored.push_back(hashes.clone());
        }
        while stored.len() > 1 && stored.iter().map(|hashes| hashes.groups().len()).sum::<usize>() > MEMORY_MAX_GROUPS {
            stored.pop_front();
        }
        hashes
    }
}

#[cfg(test)]
#[path = "hash_cache_tests.rs"]
mod tests;
