//! The journal: makes publications durable in SQLite, on a thread of its own. The event loop queues mutations, polls what
//! is durable, and never waits for the disk.
//!
//! Owns the data file, its lock and its thread. Must not know the meaning of publications, which belongs to the index.
//!
//! Guarantee: mutations up to [`Journal::durable`] are on the disk (a write-ahead log, synced at every commit) and survive
//! a crash and a power cut. The queue is written in order, all queued mutations in one transaction, so the state after a
//! crash is that of some mutation at or after the last acknowledged one. After an error of the store nothing more is
//! stored or reported durable, and [`Journal::failed`] returns the reason.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rand::RngCore;

use crate::common::types::{Audience, FileName, InstanceId, NamedContent, RequestId, UserName};
use crate::server::histogram::Histogram;

mod check;
mod checkpointer;
mod data_file;
mod error;
mod forget;
mod load;
mod sqlite;
mod writer;

pub use error::JournalError;
pub use forget::Forgotten;
pub use load::LoadSink;
pub use sqlite::{SqliteStore, Store, StoreError};
use writer::JournalQueue;
pub use writer::QueueFull;

/// Number of a mutation in the order of the queue, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalSeq(pub u64);

/// One mutation of one user, stored in one transaction with its request id and result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    pub user: UserName,
    pub instance: InstanceId,
    pub request: RequestId,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces publications.
    Publish {
        files: Vec<NamedContent>,
        /// Of all the files.
        audience: Arc<Audience>,
        /// Seconds since 1970.
        published_s: u64,
    },
    /// Removes publications.
    Unpublish {
        names: Vec<FileName>,
        /// The result, stored with the change: bit *i* is set if name *i* was published.
        found: u64,
    },
}

/// The stored request id and result of a user's last mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastMutation {
    pub instance: InstanceId,
    pub request: RequestId,
    /// `None` for a PUBLISH; for an UNPUBLISH, see [`Change::Unpublish`].
    pub found: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPublication {
    pub user: UserName,
    pub file: NamedContent,
    pub audience: Arc<Audience>,
    /// Seconds since 1970.
    pub published_s: u64,
}

/// The event loop's handle of the journal. Dropping it writes the queue as [`close`](Self::close) does, and ignores errors.
pub struct Journal {
    root_secret: [u8; 32],
    queue: Arc<JournalQueue>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens (or creates, mode 0600) the data file, loads it into `sink`, and starts the thread, which calls `wake` when
    /// [`durable`](Self::durable) or [`failed`](Self::failed) changes. A file that is damaged, in a newer format, of
    /// another program or in use is rejected unchanged.
    pub fn open(path: &Path, sink: &mut dyn LoadSink, wake: Box<dyn Fn() + Send>) -> Result<Self, JournalError> {
        let (store, root_secret) = SqliteStore::open(path, sink)?;
        Self::with_store(Box::new(store), root_secret, wake)
    }

    /// The root secret of an existing data file, which a running server may use meanwhile. Changes nothing.
    pub fn read_root_secret(path: &Path) -> Result<[u8; 32], JournalError> {
        sqlite::read_root_secret(path)
    }

    /// Checks the data file as [`open`](Self::open) does, and whether it could be written, without a lock that keeps a server
    /// out, and changes nothing. Returns what would draw a warning. A file that is missing is none.
    pub fn check(path: &Path) -> Result<Option<String>, JournalError> {
        check::check(path)
    }

    /// Deletes what a user has published from a data file that no server uses, and makes the file smaller.
    pub fn forget(path: &Path, user: &UserName) -> Result<Forgotten, JournalError> {
        forget::forget(path, user)
    }

    /// Reads what the users that `sink` wants have stored in the data file of a running server: this one's. Its lock is the
    /// caller's.
    pub fn read_users(path: &Path, sink: &mut dyn LoadSink) -> Result<(), JournalError> {
        sqlite::read_users(path, sink)
    }

    /// Starts the thread with an open store: the second half of [`open`](Self::open), with which tests insert a slow or
    /// failing store.
    pub fn with_store(
        store: Box<dyn Store>,
        root_secret: [u8; 32],
        wake: Box<dyn Fn() + Send>,
    ) -> Result<Self, JournalError> {
        let queue = Arc::new(JournalQueue::default());
        let thread = writer::start(Arc::clone(&queue), store, wake)
            .map_err(|source| JournalError::Thread { reason: source.to_string() })?;
        Ok(Self { root_secret, queue, thread: Some(thread) })
    }

    /// A journal that keeps nothing (`--ephemeral`).
    pub fn ephemeral(wake: Box<dyn Fn() + Send>) -> Result<Self, JournalError> {
        let mut root_secret = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut root_secret);
        Self::with_store(Box::new(EphemeralStore), root_secret, wake)
    }

    /// The server's root secret, generated with the data file and stored in it.
    pub fn root_secret(&self) -> [u8; 32] {
        self.root_secret
    }

    /// Queues mutations in their order, as [`push`](Self::push) does; those that the queue has no room for stay. Returns the
    /// number of the last one that was queued.
    pub fn push_all(&mut self, mutations: &mut VecDeque<Mutation>) -> Option<JournalSeq> {
        let mut last = None;
        while let Some(mutation) = mutations.front() {
            let Ok(seq) = self.push(mutation.clone()) else { break };
            mutations.pop_front();
            last = Some(seq);
        }
        last
    }

    /// Queues a mutation; never blocks. A queue that is full, closed or failed returns [`QueueFull`] and is unchanged.
    pub fn push(&mut self, mutation: Mutation) -> Result<JournalSeq, QueueFull> {
        self.queue.push(mutation)
    }

    /// The last durable mutation; all before it are durable too.
    pub fn durable(&self) -> JournalSeq {
        self.queue.durable()
    }

    /// How long the commits took.
    pub fn commit_times(&self) -> Histogram {
        self.queue.commit_times()
    }

    /// The error line of a failed store, after which the server must stop.
    pub fn failed(&self) -> Option<String> {
        self.queue.failed()
    }

    /// Waits until the queue is durable, and closes the file. Gives up after about 30 seconds when another program keeps
    /// the file locked.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.finish();
        self.failed().map_or(Ok(()), |line| Err(JournalError::Failed { line }))
    }

    fn finish(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // The thread catches panics and reports them as a failure.
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Everything counts as stored.
struct EphemeralStore;

impl Store for EphemeralStore {
    fn write(&mut self, _: &[Mutation]) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
