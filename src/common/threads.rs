//! Starting threads. A system that has none to spare is an error to report, never a panic.

use std::io;
use std::sync::mpsc::sync_channel;
pub use std::thread::JoinHandle;
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts a thread. An error says that there is none.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    test_limit::check()?;
    Builder::new().name(name.into()).spawn(test_limit::inherit(work)).map_err(describe)
}

/// Starts a thread that ends within `scope`.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    test_limit::check()?;
    Builder::new().name(name.into()).spawn_scoped(scope, test_limit::inherit(work)).map_err(describe)
}

/// Does the work on a new thread, or on this one if there is no other.
pub fn spawn_or_run(name: &str, work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = sync_channel::<Box<dyn FnOnce() + Send>>(1);
    let run = move || receiver.recv().map_or((), |work| work());
    match spawn(name, run) {
        Ok(_) => drop(sender.send(Box::new(work))),
        Err(_) => work(),
    }
}

/// A pool of threads for parallel iterators.
pub fn pool(name: &'static str, threads: usize) -> Option<rayon::ThreadPool> {
    let start = |thread: rayon::ThreadBuilder| spawn(name, move || thread.run()).map(drop);
    rayon::ThreadPoolBuilder::new().num_threads(threads).spawn_handler(start).build().ok()
}

fn describe(error: io::Error) -> io::Error {
    io::Error::other(format!("cannot start a thread: {error}"))
}

/// In production nothing but the system limits threads.
#[cfg(not(test))]
mod test_limit {
    pub fn check() -> std::io::Result<()> {
        Ok(())
    }

    pub fn inherit<F>(work: F) -> F {
        work
    }
}

#[cfg(test)]
pub(crate) mod test_limit {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    thread_local! {
        /// How many more threads this one and its descendants may start.
        static LEFT: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
    }

    /// Runs `work`, in which the threads after the first `count` cannot be started.
    pub(crate) fn with_threads<T>(count: usize, work: impl FnOnce() -> T) -> T {
        LEFT.set(Some(Arc::new(AtomicUsize::new(count))));
        let result = work();
        LEFT.set(None);
        result
    }

    pub(super) fn check() -> io::Result<()> {
        let take = |left: &Arc<AtomicUsize>| {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        let is_free = LEFT.with_borrow(|left| left.as_ref().is_none_or(take));
        if is_free { Ok(()) } else { Err(super::describe(io::ErrorKind::WouldBlock.into())) }
    }

    pub(super) fn inherit<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
        let left = LEFT.with_borrow(Clone::clone);
        move || {
            LEFT.set(left);
            work()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::test_limit::with_threads;
    use super::*;

    #[test]
    fn without_a_thread_there_is_an_error_or_the_work_is_done_here() {
        with_threads(1, || {
            assert!(spawn("first", || ()).is_ok());
            let error = spawn("second", || ()).unwrap_err().to_string();
            assert!(error.starts_with("cannot start a thread: "), "{error}");
            assert!(std::thread::scope(|scope| spawn_scoped(scope, "third", || ()).is_err()));
            assert!(pool("pool", 2).is_none());
            let (sender, receiver) = channel();
            spawn_or_run("fourth", move || sender.send(std::thread::current().id()).unwrap());
            assert_eq!(receiver.recv(), Ok(std::thread::current().id()));
        });
        let (sender, receiver) = channel();
        spawn_or_run("fifth", move || sender.send(std::thread::current().id()).unwrap());
        assert_ne!(receiver.recv(), Ok(std::thread::current().id()));
    }
}
