//! `common` as the modules under test see it: locks, channels and threads are those of the schedule explorer.

pub use fileshare::internals::common::types;

#[path = "channel.rs"]
pub mod channel;
#[path = "../../src/common/log_queue.rs"]
pub mod log_queue;
#[path = "logs.rs"]
pub mod logs;

pub mod sync {
    use std::sync::{LockResult, PoisonError};

    pub use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic, mpsc};

    pub use super::channel;

    pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        unpoison(mutex.lock())
    }

    pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        unpoison(condvar.wait(guard))
    }

    pub fn unpoison<T>(result: LockResult<T>) -> T {
        result.unwrap_or_else(PoisonError::into_inner)
    }
}

pub mod threads {
    use std::io;

    pub use shuttle::thread::JoinHandle;

    pub fn spawn<T: Send + 'static>(
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        shuttle::thread::Builder::new().name(name.into()).spawn(work)
    }

    pub fn spawn_or_run(name: &str, work: impl FnOnce() + Send + 'static) {
        spawn(name, work).map(drop).expect("a thread");
    }
}

pub mod chunk_tree {
    pub use fileshare::internals::common::chunk_tree::{GroupHash, GroupHasher, GroupHashes, group_count, group_range};

    pub fn hash_group(size: u64, index: u32, bytes: &[u8]) -> GroupHash {
        let mut hasher = GroupHasher::new(size, index);
        hasher.update(bytes);
        hasher.finish()
    }
}
