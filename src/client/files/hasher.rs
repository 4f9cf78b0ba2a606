//! Hashes an open file on all cores, chunk group by chunk group.
//!
//! Memory is one buffer for each thread of the pool, whatever the size. A change of the file meanwhile is noticed by its
//! identity.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use rayon::ThreadPool;
use rayon::iter::{ParallelBridge, ParallelIterator};

use super::shared_dir::FileIdentity;
use crate::common::chunk_tree::{GroupHash, GroupHasher, GroupHashes, group_count, group_range};
use crate::common::sync::{lock, unpoison};
use crate::common::threads;

/// Bytes read at once: fits a core's own cache, and BLAKE3 uses its widest instructions.
const PIECE_BYTES: usize = 256 << 10;

/// Gets the number of bytes of a file that are hashed so far, from any thread, and can stop the work.
pub type HashProgress<'a> = dyn FnMut(u64) -> ControlFlow<()> + Send + 'a;

/// How often a file is read whose identity changes meanwhile.
const READS_MAX: u32 = 3;

/// Why a file has no hash.
#[derive(Debug)]
pub enum HashError {
    /// The file is not what it was when it was opened.
    Changed,
    /// `on_progress` returned [`ControlFlow::Break`].
    Interrupted,
    Io(io::Error),
}

impl From<io::Error> for HashError {
    fn from(error: io::Error) -> Self {
        // The file was longer when its identity was taken.
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Changed } else { Self::Io(error) }
    }
}

/// Hashes `file`, which had this identity when it was opened. If the identity changes meanwhile, the file is read again: a
/// new mode or a new time is no new content. While one call of `on_progress` is running, the other threads go on without
/// calling it: a terminal that takes no output holds up one thread of the pool at most.
pub fn hash_file(
    file: &File,
    identity: &FileIdentity,
    on_progress: &mut HashProgress<'_>,
) -> Result<GroupHashes, HashError> {
    let (mut before, mut last) = (*identity, None);
    for _ in 0..READS_MAX {
        let hashes = read_and_hash(file, identity.size, on_progress)?;
        let now = FileIdentity::of_file(file)?;
        if now.size != identity.size {
            break;
        }
        if now == before || last == Some(hashes.root()) {
            return Ok(hashes);
        }
        (before, last) = (now, Some(hashes.root()));
    }
    Err(HashError::Changed)
}

fn read_and_hash(file: &File, size: u64, on_progress: &mut HashProgress<'_>) -> Result<GroupHashes, HashError> {
    let job = HashJob {
        file,
        size,
        done_bytes: AtomicU64::new(0),
        is_stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        on_progress: Mutex::new(ProgressCallback { reported_bytes: 0, on_progress }),
    };
    let hashes: Vec<OnceLock<GroupHash>> = (0..group_count(size)).map(|_| OnceLock::new()).collect();
    let buffer = || vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(usize::MAX))];
    let hash_group = |buffer: &mut Vec<u8>, (group, place): (u32, &OnceLock<GroupHash>)| {
        let hash = job.hash_group(group, buffer).map_err(|failure| job.fail(failure))?;
        let _ = place.set(hash);
        Ok::<_, ()>(())
    };
    let hashed = match hashes.as_slice() {
        // Handing a small file to the pool takes longer than hashing it.
        [place] => hash_group(&mut buffer(), (0, place)),
        // The bridge hands the groups out in order, so that the file is read from its start to its end.
        places => match hash_pool() {
            Some(pool) => pool.install(|| (0..).zip(places).par_bridge().try_for_each_init(buffer, hash_group)),
            None => {
                let mut buffer = buffer();
                (0..).zip(places).try_for_each(|place| hash_group(&mut buffer, place))
            }
        },
    };
    if hashed.is_ok() {
        job.report_progress(&mut lock(&job.on_progress));
    }
    if let Some(failure) = unpoison(job.failure.into_inner()) {
        return Err(failure);
    }
    let hashes = hashes.into_iter().filter_map(OnceLock::into_inner).collect();
    GroupHashes::from_groups(size, hashes).ok_or(HashError::Interrupted)
}

/// The threads that hash large files, one for each core. `None`: the system has none to spare now.
fn hash_pool() -> Option<Arc<ThreadPool>> {
    static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
    let mut pool = lock(&POOL);
    if pool.is_none() {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        *pool = threads::pool("hash", threads).map(Arc::new);
    }
    pool.clone()
}

/// What the threads share.
struct HashJob<'a> {
    file: &'a File,
    size: u64,
    done_bytes: AtomicU64,
    is_stopped: AtomicBool,
    /// The first failure; the other threads stop because of it.
    failure: Mutex<Option<HashError>>,
    on_progress: Mutex<ProgressCallback<'a>>,
}

struct ProgressCallback<'a> {
    reported_bytes: u64,
    on_progress: &'a mut HashProgress<'a>,
}

impl HashJob<'_> {
    fn hash_group(&self, group: u32, buffer: &mut [u8]) -> Result<GroupHash, HashError> {
        let mut hasher = GroupHasher::new(self.size, group);
        let mut range = group_range(self.size, group);
        while range.start < range.end {
            let length = usize::try_from(range.end - range.start).map_or(buffer.len(), |left| left.min(buffer.len()));
            let piece = &mut buffer[..length];
            self.file.read_exact_at(piece, range.start)?;
            hasher.update(piece);
            range.start += length as u64;
            self.report(length as u64)?;
        }
        Ok(hasher.finish())
    }

    fn report(&self, bytes: u64) -> Result<(), HashError> {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Ok(mut progress) = self.on_progress.try_lock() {
            self.report_progress(&mut progress);
        }
        if self.is_stopped.load(Ordering::Relaxed) { Err(HashError::Interrupted) } else { Ok(()) }
    }

    /// Reports what was hashed since the last report.
    fn report_progress(&self, progress: &mut ProgressCallback<'_>) {
        let done_bytes = self.done_bytes.load(Ordering::Relaxed);
        if done_bytes > progress.reported_bytes && !self.is_stopped.load(Ordering::Relaxed) {
            progress.reported_bytes = done_bytes;
            if (progress.on_progress)(done_bytes).is_break() {
                self.fail(HashError::Interrupted);
            }
        }
    }

    fn fail(&self, failure: HashError) {
        lock(&self.failure).get_or_insert(failure);
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::common::threads::test_limit::with_threads;

    fn file_of(bytes: &[u8]) -> (File, FileIdentity) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let identity = FileIdentity::of_file(&file).unwrap();
        (file, identity)
    }

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at / 3 + at / 70_001) as u8).collect()
    }

    #[test]
    fn the_hash_is_that_of_the_whole_file() {
        for size in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (7 << 20) + 12_345] {
            let bytes = bytes(size);
            let (file, identity) = file_of(&bytes);
            let mut last = 0;
            let hashes = hash_file(&file, &identity, &mut |done| {
                last = done;
                ControlFlow::Continue(())
            });
            assert_eq!(hashes.unwrap().root().0, *blake3::hash(&bytes).as_bytes(), "{size} bytes");
            assert_eq!(last, size as u64);
        }
    }

    #[test]
    fn a_change_of_the_file_meanwhile_is_noticed() {
        let (mut file, identity) = file_of(&bytes(3 << 20));
        let mut writer = file.try_clone().unwrap();
        let grown = hash_file(&file, &identity, &mut |_| match writer.write_all(b"more") {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        assert!(matches!(grown, Err(HashError::Changed)), "{grown:?}");
        let identity = FileIdentity::of_file(&file).unwrap();
        file.set_len(1 << 20).unwrap();
        let cut = hash_file(&file, &identity, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(cut, Err(HashError::Changed)));
        file.write_all(b"x").unwrap();
    }

    #[test]
    fn a_new_mode_or_time_meanwhile_is_no_change() {
        let (file, identity) = file_of(&bytes(3 << 20));
        let mut calls = 0;
        let hashes = hash_file(&file, &identity, &mut |_| {
            calls += 1;
            file.set_permissions(Permissions::from_mode(if calls % 2 == 0 { 0o600 } else { 0o644 })).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(calls)).unwrap();
            ControlFlow::Continue(())
        });
        assert_eq!(hashes.unwrap().root().0, *blake3::hash(&bytes(3 << 20)).as_bytes());
        assert_ne!(FileIdentity::of_file(&file).unwrap(), identity);
    }

    #[test]
    fn a_content_that_changes_with_every_read_has_no_hash() {
        let (file, identity) = file_of(&bytes(3 << 20));
        let mut calls = 0u8;
        let changed = hash_file(&file, &identity, &mut |done| {
            calls += u8::from(done == 3 << 20);
            file.write_all_at(&[calls], 0).unwrap();
            ControlFlow::Continue(())
        });
        assert!(matches!(changed, Err(HashError::Changed)), "{changed:?}");
    }

    #[test]
    fn hashing_stops_when_the_caller_breaks() {
        let (file, identity) = file_of(&bytes(20 << 20));
        let mut calls = 0;
        let stopped = hash_file(&file, &identity, &mut |_| {
            calls += 1;
            ControlFlow::Break(())
        });
        assert!(matches!(stopped, Err(HashError::Interrupted)));
        assert_eq!(calls, 1);
    }

    #[test]
    fn without_threads_a_file_is_hashed_by_the_caller() {
        let bytes = bytes((5 << 20) + 1);
        let (file, identity) = file_of(&bytes);
        let hashes = with_threads(0, || hash_file(&file, &identity, &mut |_| ControlFlow::Continue(())));
        assert_eq!(hashes.unwrap().root().0, *blake3::hash(&bytes).as_bytes());
    }
}
