//! The journal's queue and its writer thread: the event loop appends mutations; the thread takes all of them at once,
//! stores them in one transaction and reports what is durable.
//!
//! The event loop holds the mutex only to append, the thread only to take the batch, so neither waits for the other's
//! work.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sqlite::{Store, StoreError};
use super::{Change, JournalSeq, Mutation};
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::common::sync::{Condvar, Mutex, lock, wait};
use crate::common::threads::{self, JoinHandle};
use crate::common::types::Audience;
use crate::server::histogram::Histogram;

/// Maximum of mutations queued or being written. A session has one in flight, so this many users can publish at once.
pub const QUEUE_MAX_MUTATIONS: u64 = 16_384;
/// Maximum of bytes that these mutations take, estimated from their names and audiences.
pub const QUEUE_MAX_BYTES: usize = 64 << 20;

/// Pause before a locked store is tried again, besides the timeout of the store itself.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// Tries of a locked store, of about a second each, between two warnings.
const LOCKED_TRIES_PER_WARNING: u32 = 60;
/// Tries of a locked store after which a closing journal gives up.
const LOCKED_TRIES_WHEN_CLOSING: u32 = 30;

/// The queue is full, or the journal is closing or has failed. The event loop keeps the mutation for its next iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal's queue is full")]
pub struct QueueFull;

#[derive(Default)]
pub(super) struct JournalQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    durable: AtomicU64,
}

#[derive(Default)]
struct QueueState {
    queued: Vec<Mutation>,
    /// Of the mutations queued and being written.
    bytes: usize,
    /// The last sequence number assigned.
    last: u64,
    is_closing: bool,
    failed: Option<String>,
    commit_times: Histogram,
}

/// All mutations that were queued at one moment, in order.
struct MutationBatch {
    mutations: Vec<Mutation>,
    bytes: usize,
    /// The sequence number of the last one.
    last: u64,
}

impl JournalQueue {
    pub(super) fn push(&self, mutation: Mutation) -> Result<JournalSeq, QueueFull> {
        let bytes = estimated_bytes(&mutation);
        let mut state = lock(&self.state);
        let outstanding = state.last - self.durable.load(Ordering::Acquire);
        let is_full = outstanding >= QUEUE_MAX_MUTATIONS || state.bytes + bytes > QUEUE_MAX_BYTES;
        if is_full || state.is_closing || state.failed.is_some() {
            return Err(QueueFull);
        }
        state.queued.push(mutation);
        state.bytes += bytes;
        state.last += 1;
        self.changed.notify_one();
        Ok(JournalSeq(state.last))
    }

    /// Blocks until mutations are queued; `None` when the queue is closed and empty.
    fn take_batch(&self) -> Option<MutationBatch> {
        let mut state = lock(&self.state);
        while state.queued.is_empty() {
            if state.is_closing {
                return None;
            }
            state = wait(&self.changed, state);
        }
        let mutations = std::mem::take(&mut state.queued);
        // No other batch is being written, so all of `bytes` belongs to this one.
        Some(MutationBatch { mutations, bytes: state.bytes, last: state.last })
    }

    /// `commit_time`: how long it took to store the batch.
    fn mark_durable(&self, batch: &MutationBatch, commit_time: Duration) {
        let mut state = lock(&self.state);
        state.commit_times.record(commit_time);
        state.bytes -= batch.bytes;
        self.durable.store(batch.last, Ordering::Release);
    }

    pub(super) fn durable(&self) -> JournalSeq {
        JournalSeq(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn commit_times(&self) -> Histogram {
        lock(&self.state).commit_times
    }

    /// Keeps the first failure.
    fn fail(&self, line: String) {
        lock(&self.state).failed.get_or_insert(line);
    }

    pub(super) fn failed(&self) -> Option<String> {
        lock(&self.state).failed.clone()
    }

    pub(super) fn close(&self) {
        lock(&self.state).is_closing = true;
        self.changed.notify_one();
    }

    fn is_closing(&self) -> bool {
        lock(&self.state).is_closing
    }

    /// Waits until the queue changes, at most `timeout`; not at all when it is closing.
    fn wait_for_change(&self, timeout: Duration) {
        let state = lock(&self.state);
        if !state.is_closing {
            drop(self.changed.wait_timeout(state, timeout));
        }
    }
}

/// Estimates the memory of a mutation. A shared audience is counted for each mutation, so the estimate is an upper bound.
fn estimated_bytes(mutation: &Mutation) -> usize {
    /// Reference counts and the allocator's overhead.
    const TEXT_OVERHEAD_BYTES: usize = 32;
    let change = match &mutation.change {
        Change::Publish { files, audience, .. } => {
            let names: usize = files.iter().map(|file| file.name.as_str().len()).sum();
            let members = match &**audience {
                Audience::Everyone => 0,
                Audience::Only(users) => {
                    users.iter().map(|user| user.as_str().len() + size_of_val(user) + TEXT_OVERHEAD_BYTES).sum()
                }
            };
            names + files.len() * TEXT_OVERHEAD_BYTES + size_of_val(files.as_slice()) + members
        }
        Change::Unpublish { names, .. } => {
            names.iter().map(|name| name.as_str().len() + size_of_val(name) + TEXT_OVERHEAD_BYTES).sum()
        }
    };
    size_of::<Mutation>() + change
}

/// Starts the writer thread, which calls `wake` when `queue` has a new durable mutation or a failure.
pub(super) fn start(
    queue: Arc<JournalQueue>,
    store: Box<dyn Store>,
    wake: Box<dyn Fn() + Send>,
) -> io::Result<JoinHandle<()>> {
    threads::spawn("journal", move || {
        let result = catch_unwind(AssertUnwindSafe(|| run(&queue, store, &wake)));
        if let Err(line) = result.unwrap_or_else(|_| Err("the journal thread panicked".into())) {
            queue.fail(line);
            wake();
        }
    })
}

fn run(queue: &JournalQueue, mut store: Box<dyn Store>, wake: &dyn Fn()) -> Result<(), String> {
    while let Some(batch) = queue.take_batch() {
        let started = now();
        write(queue, store.as_mut(), &batch)?;
        queue.mark_durable(&batch, now() - started);
        wake();
    }
    store.close().map_err(|error| error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "only the metrics depend on it")]
fn now() -> Instant {
    Instant::now()
}

/// Stores a batch, and repeats while another program locks the file. Meanwhile the bounded queue may fill up.
fn write(queue: &JournalQueue, store: &mut dyn Store, batch: &MutationBatch) -> Result<(), String> {
    let mut locked_tries = 0;
    let mut closing_tries = 0;
    loop {
        match store.write(&batch.mutations) {
            Ok(()) => return Ok(()),
            Err(StoreError::Failed(line)) => return Err(line),
            Err(StoreError::Locked(line)) => {
                if locked_tries % LOCKED_TRIES_PER_WARNING == 0 {
                    log::warn!("{line}; {} changes wait", batch.mutations.len());
                }
                locked_tries += 1;
                closing_tries += u32::from(queue.is_closing());
                if closing_tries >= LOCKED_TRIES_WHEN_CLOSING {
                    return Err(format!("{line}; {} changes could not be stored", batch.mutations.len()));
                }
                queue.wait_for_change(LOCKED_PAUSE);
            }
        }
    }
}
