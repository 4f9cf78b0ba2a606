//! Hashes an open file on all cores, chunk group by chunk group.
//!
//! Memory is one buffer a thread, whatever the size. A file that changes meanwhile is noticed by its stamp.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use super::shared_dir::FileIdentity;
use crate::common::chunk_tree::{GroupHash, GroupHasher, GroupHashes, group_count, group_range};

/// Read at once: fits a core's own cache, and enough for BLAKE3 to use the widest instructions.
const PIECE_BYTES: usize = 256 << 10;
/// More threads than this only wait for memory; it also bounds the buffers.
const THREADS_MAX: usize = 32;

/// Why a file has no hash.
#[derive(Debug)]
pub enum HashError {
    /// It is not what it was when it was opened.
    Changed,
    /// The caller has said stop.
    Interrupted,
    Io(io::Error),
}

impl From<io::Error> for HashError {
    fn from(error: io::Error) -> Self {
        // It was longer when its size was taken.
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Changed } else { Self::Io(error) }
    }
}

/// Hashes `file`, whose stamp was `stamp` when it was opened. `watch` is told the bytes hashed so far, on the calling
/// thread and at every piece it reads itself; when it says `false` the hashing stops.
pub fn hash_file(
    file: &File,
    stamp: &FileIdentity,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<GroupHashes, HashError> {
    let size = stamp.size;
    let work = Work {
        file,
        size,
        // The first is the caller's: however the threads are scheduled, it gets to watch.
        next: AtomicU32::new(1),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        hashes: (0..group_count(size)).map(|_| OnceLock::new()).collect(),
    };
    let helpers = threads().min(work.hashes.len()) - 1;
    thread::scope(|scope| {
        let spawned: Vec<_> = (0..helpers)
            .filter_map(|_| {
                thread::Builder::new().name("hash".into()).spawn_scoped(scope, || work.run(None, &mut |_| true)).ok()
            })
            .collect();
        let own = work.run(Some(0), watch);
        spawned.into_iter().fold(own, |so_far, helper| {
            match (so_far, helper.join().unwrap_or(Err(HashError::Changed))) {
                // Whoever fails stops the others; its own reason counts.
                (Ok(()) | Err(HashError::Interrupted), Err(error)) => Err(error),
                (so_far, _) => so_far,
            }
        })
    })?;
    if FileIdentity::of_file(file)? != *stamp {
        return Err(HashError::Changed);
    }
    let hashes = work.hashes.into_iter().filter_map(OnceLock::into_inner).collect();
    GroupHashes::from_groups(size, hashes).ok_or(HashError::Interrupted)
}

fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX))
}

/// What the threads share.
struct Work<'a> {
    file: &'a File,
    size: u64,
    /// The next group that nobody has taken.
    next: AtomicU32,
    /// Bytes hashed by all.
    done: AtomicU64,
    /// One has failed or was told to stop.
    stop: AtomicBool,
    hashes: Vec<OnceLock<GroupHash>>,
}

impl Work<'_> {
    fn run(&self, first: Option<u32>, watch: &mut dyn FnMut(u64) -> bool) -> Result<(), HashError> {
        let outcome = self.take_groups(first, watch);
        if outcome.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn take_groups(&self, mut first: Option<u32>, watch: &mut dyn FnMut(u64) -> bool) -> Result<(), HashError> {
        let largest = usize::try_from(self.size).unwrap_or(usize::MAX);
        let mut buffer = vec![0; PIECE_BYTES.min(largest)];
        loop {
            let index = first.take().unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
            let Some(place) = self.hashes.get(index as usize) else {
                return Ok(());
            };
            let mut hasher = GroupHasher::new(self.size, index);
            let range = group_range(self.size, index);
            let mut at = range.start;
            while at < range.end {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(HashError::Interrupted);
                }
                let length = usize::try_from(range.end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                let piece = &mut buffer[..length];
                self.file.read_exact_at(piece, at)?;
                hasher.update(piece);
                at += length as u64;
                let done = self.done.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
                if !watch(done) {
                    return Err(HashError::Interrupted);
                }
            }
            // Nobody else has this index.
            let _ = place.set(hasher.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> (File, FileIdentity) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let stamp = FileIdentity::of_file(&file).unwrap();
        (file, stamp)
    }

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at / 3 + at / 70_001) as u8).collect()
    }

    #[test]
    fn the_hash_is_that_of_the_whole_file() {
        for size in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (7 << 20) + 12_345] {
            let bytes = bytes(size);
            let (file, stamp) = file_of(&bytes);
            let mut last = 0;
            let outline = hash_file(&file, &stamp, &mut |done| {
                last = done;
                true
            });
            assert_eq!(outline.unwrap().root().0, *blake3::hash(&bytes).as_bytes(), "{size} bytes");
            assert!(last <= size as u64 && (size == 0 || last > 0));
        }
    }

    #[test]
    fn a_change_meanwhile_is_noticed() {
        let (mut file, stamp) = file_of(&bytes(3 << 20));
        let mut writer = file.try_clone().unwrap();
        let grown = hash_file(&file, &stamp, &mut |_| writer.write_all(b"more").is_ok());
        assert!(matches!(grown, Err(HashError::Changed)), "{grown:?}");
        let stamp = FileIdentity::of_file(&file).unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(matches!(hash_file(&file, &stamp, &mut |_| true), Err(HashError::Changed)));
        file.write_all(b"x").unwrap();
    }

    #[test]
    fn it_stops_when_told() {
        let (file, stamp) = file_of(&bytes(20 << 20));
        let mut calls = 0;
        let stopped = hash_file(&file, &stamp, &mut |_| {
            calls += 1;
            false
        });
        assert!(matches!(stopped, Err(HashError::Interrupted)));
        assert_eq!(calls, 1);
    }
}
