//! What the loop and the journal thread share: the bounded queue, the durable sequence, the failure.
//!
//! The loop's side takes the mutex only to append, the thread's only to take everything, so neither waits for the other's
//! work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Change, JournalSeq, Mutation};
use crate::common::types::Audience;

/// Most mutations that wait or are being written. A session has one under way, so this many users can publish at once.
pub const QUEUE_MAX_MUTATIONS: u64 = 16_384;
/// Most memory that waiting mutations take, bytes (as estimated by their names and audiences).
pub const QUEUE_MAX_BYTES: usize = 64 << 20;

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
pub(super) struct Batch {
    pub(super) mutations: Vec<Mutation>,
    bytes: usize,
    upto: u64,
}

impl Shared {
    pub(super) fn push(&self, mutation: Mutation) -> Result<JournalSeq, QueueFull> {
        let bytes = memory_bytes(&mutation);
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
    pub(super) fn take(&self) -> Option<Batch> {
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
    pub(super) fn stored(&self, batch: &Batch) {
        let mut queue = self.lock();
        queue.bytes -= batch.bytes;
        self.durable.store(batch.upto, Ordering::Release);
    }

    pub(super) fn durable(&self) -> JournalSeq {
        JournalSeq(self.durable.load(Ordering::Acquire))
    }

    /// The first failure stays.
    pub(super) fn fail(&self, line: String) {
        self.lock().failed.get_or_insert(line);
    }

    pub(super) fn failed(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.news.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits a little for the queue to change; for a thread that cannot write just now.
    pub(super) fn pause(&self, most: Duration) {
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
fn memory_bytes(mutation: &Mutation) -> usize {
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
