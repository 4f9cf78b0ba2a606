//! The journal's queue and its writer thread: the event loop appends mutations; the thread takes all of them at once,
//! stores them in one transaction and reports what is durable.
//!
//! The event loop holds the mutex only to append, the thread only to take the batch, so neither waits for the other's
//! work.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sqlite::{Store, StoreError};
use super::{Change, JournalSeq, Mutation};
use crate::common::types::Audience;

/// Most mutations that wait or are being written. A session has one under way, so this many users can publish at once.
pub const QUEUE_MAX_MUTATIONS: u64 = 16_384;
/// Most memory that waiting mutations take, bytes (as estimated by their names and audiences).
pub const QUEUE_MAX_BYTES: usize = 64 << 20;

/// How long to wait before asking a locked store again. The store itself has waited already.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// A store that stays locked is mentioned again after so many tries.
const LOCKED_TRIES_PER_WARNING: u32 = 60;
/// A closing server gives up on a locked store after so many tries, of about a second each.
const LOCKED_TRIES_WHEN_CLOSING: u32 = 30;

/// The queue is full: the client is told BUSY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal's queue is full")]
pub struct QueueFull;

#[derive(Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
    durable: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Mutation>,
    /// Of what waits and what is being written.
    bytes: usize,
    /// The last sequence number given out.
    last: u64,
    closing: bool,
    failed: Option<String>,
}

/// All that waited at one moment, in order.
struct Batch {
    mutations: Vec<Mutation>,
    bytes: usize,
    upto: u64,
}

impl Shared {
    pub(super) fn push(&self, mutation: Mutation) -> Result<JournalSeq, QueueFull> {
        let bytes = estimated_bytes(&mutation);
        let mut queue = self.lock();
        let outstanding = queue.last - self.durable.load(Ordering::Acquire);
        let full = outstanding >= QUEUE_MAX_MUTATIONS || queue.bytes + bytes > QUEUE_MAX_BYTES;
        if full || queue.closing || queue.failed.is_some() {
            return Err(QueueFull);
        }
        queue.waiting.push_back(mutation);
        queue.bytes += bytes;
        queue.last += 1;
        self.news.notify_one();
        Ok(JournalSeq(queue.last))
    }

    /// Waits for something to write; `None` when closed and empty.
    fn take(&self) -> Option<Batch> {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            if queue.closing {
                return None;
            }
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mutations = std::mem::take(&mut queue.waiting).into();
        // Whatever `bytes` holds belongs to this batch: the one before it has been taken off.
        Some(Batch { mutations, bytes: queue.bytes, upto: queue.last })
    }

    /// The batch is on the disk.
    fn stored(&self, batch: &Batch) {
        let mut queue = self.lock();
        queue.bytes -= batch.bytes;
        self.durable.store(batch.upto, Ordering::Release);
    }

    pub(super) fn durable(&self) -> JournalSeq {
        JournalSeq(self.durable.load(Ordering::Acquire))
    }

    /// The first failure stays.
    fn fail(&self, line: String) {
        self.lock().failed.get_or_insert(line);
    }

    pub(super) fn failed(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.news.notify_one();
    }

    fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits a little for the queue to change; for a thread that cannot write just now.
    fn pause(&self, most: Duration) {
        let queue = self.lock();
        if !queue.closing {
            drop(self.news.wait_timeout(queue, most));
        }
    }

    /// The queue is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About what a mutation takes in memory. A shared audience counts for each, so the estimate errs on the safe side.
fn estimated_bytes(mutation: &Mutation) -> usize {
    /// Reference counts and the allocator's own.
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

pub(super) fn start(
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    wake: Box<dyn Fn() + Send>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("journal".into()).spawn(move || {
        let run = catch_unwind(AssertUnwindSafe(|| run(&shared, store, &wake)));
        let outcome = run.unwrap_or_else(|_| Err("the journal thread ended by a fault of its own".into()));
        if let Err(line) = outcome {
            shared.fail(line);
            wake();
        }
    })
}

fn run(shared: &Shared, mut store: Box<dyn Store>, wake: &dyn Fn()) -> Result<(), String> {
    while let Some(batch) = shared.take() {
        write(shared, store.as_mut(), &batch)?;
        shared.stored(&batch);
        wake();
    }
    store.close().map_err(|error| error.to_string())
}

/// Stores a batch, however long another program locks the file: the queue is bounded and says so when full.
fn write(shared: &Shared, store: &mut dyn Store, batch: &Batch) -> Result<(), String> {
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
                closing_tries += u32::from(shared.is_closing());
                if closing_tries >= LOCKED_TRIES_WHEN_CLOSING {
                    return Err(format!("{line}; {} changes could not be stored", batch.mutations.len()));
                }
                shared.pause(LOCKED_PAUSE);
            }
        }
    }
}
