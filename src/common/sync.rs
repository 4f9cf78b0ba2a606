//! Locks that ignore poisoning. A panic ends the thread it happens in, not the program: the other threads go on with
//! the state as it is.
//!
//! The modules that `tests/schedules` runs under many schedules take locks, atomics and channels from here, and threads from
//! [`threads`](super::threads): there both are others.

pub use std::sync::{Condvar, Mutex, MutexGuard, atomic, mpsc};
use std::sync::{LockResult, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use crossbeam_channel as channel;

pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoison(mutex.lock())
}

pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    unpoison(lock.read())
}

pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    unpoison(lock.write())
}

pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    unpoison(condvar.wait(guard))
}

/// What `result` holds, poisoned or not. For `Mutex::into_inner`, `Condvar::wait_timeout` and the like.
pub fn unpoison<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
