//! The journal: publications that survive. SQLite on one thread of its own; the loop queues mutations and is told what is
//! durable, and never waits for the disk.
//!
//! Owns the data file, its lock and its thread. Must not know what a publication means to anyone: that is the index.
//!
//! The promise: what [`Journal::durable`] covers is on the disk (a write-ahead log synced at every commit) and is there
//! after a crash or a power cut. The queue is written in order, everything waiting in one transaction, so what is found
//! after a crash is what was asked for up to some point at or after the last acknowledgement. When the store reports an
//! error nothing more is stored or reported durable, and [`Journal::failed`] says why.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rand::RngCore;

use crate::common::types::{Audience, FileName, InstanceId, NamedContent, RequestId, UserName};

mod data_file;
mod error;
mod load;
mod sqlite;
mod writer;

pub use error::JournalError;
pub use load::LoadSink;
pub use sqlite::{SqliteStore, Store, StoreError};
pub use writer::{QUEUE_MAX_BYTES, QUEUE_MAX_MUTATIONS, QueueFull};

/// Numbers what was queued, from 1, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalSeq(pub u64);

/// One mutation of one user, stored in one transaction with its id and result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Whose.
    pub user: UserName,
    /// In which run of the client.
    pub run: InstanceId,
    /// Which request of that run.
    pub request: RequestId,
    /// What changes.
    pub change: Change,
}

/// What a mutation changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces.
    Publish {
        /// The files.
        files: Vec<NamedContent>,
        /// Who may see all of them.
        audience: Arc<Audience>,
        /// Seconds since 1970.
        published_s: u64,
    },
    /// Removes. `found` is the result to be remembered: bit *i* for name *i*.
    Unpublish {
        /// The names.
        names: Vec<FileName>,
        /// Which of them were published.
        found: u64,
    },
}

/// The last mutation of a user, as stored with its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastMutation {
    /// In which run.
    pub run: InstanceId,
    /// Which request.
    pub request: RequestId,
    /// `None` for a PUBLISH, the bits for an UNPUBLISH.
    pub found: Option<u64>,
}

/// One stored publication, as read at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPublication {
    /// The owner.
    pub user: UserName,
    /// What is published.
    pub file: NamedContent,
    /// Who may see it.
    pub audience: Arc<Audience>,
    /// Seconds since 1970.
    pub published_s: u64,
}

/// The loop's end of the journal. Dropping it waits for the queue as [`close`](Self::close) does, and hides errors.
pub struct Journal {
    root_secret: [u8; 32],
    backend: Backend,
}

enum Backend {
    Thread { shared: Arc<writer::Shared>, thread: Option<JoinHandle<()>> },
    Ephemeral { last: u64, wake: Box<dyn Fn() + Send> },
}

impl Journal {
    /// Opens (or creates, mode 0600) the data file, loads it, and starts the thread. `wake` is called on the journal
    /// thread whenever [`durable`](Self::durable) or [`failed`](Self::failed) has news. A file that is damaged, newer
    /// than this program, not ours or in use is refused and left as it is.
    pub fn open(path: &Path, load: &mut dyn LoadSink, wake: Box<dyn Fn() + Send>) -> Result<Self, JournalError> {
        let (store, root_secret) = SqliteStore::open(path, load)?;
        Self::with_store(Box::new(store), root_secret, wake)
    }

    /// Starts the thread over a store that is already open: [`open`](Self::open)'s second half, and the place where
    /// tests put a slow or failing store between the thread and the file.
    pub fn with_store(
        store: Box<dyn Store>,
        root_secret: [u8; 32],
        wake: Box<dyn Fn() + Send>,
    ) -> Result<Self, JournalError> {
        let shared = Arc::new(writer::Shared::default());
        let thread = writer::start(Arc::clone(&shared), store, wake)
            .map_err(|source| JournalError::Thread { reason: source.to_string() })?;
        Ok(Self { root_secret, backend: Backend::Thread { shared, thread: Some(thread) } })
    }

    /// Nothing is kept (`--ephemeral`): everything queued is durable at once. `wake` is called by
    /// [`push`](Self::push) itself, so that the loop learns of it the same way as from a file.
    pub fn ephemeral(wake: Box<dyn Fn() + Send>) -> Self {
        let mut root_secret = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut root_secret);
        Self { root_secret, backend: Backend::Ephemeral { last: 0, wake } }
    }

    /// The server's root secret, made once and kept in the data file.
    pub fn root_secret(&self) -> [u8; 32] {
        self.root_secret
    }

    /// Queues a mutation; never blocks. Full, closed or failed: [`QueueFull`], and nothing happens.
    pub fn push(&mut self, mutation: Mutation) -> Result<JournalSeq, QueueFull> {
        match &mut self.backend {
            Backend::Thread { shared, .. } => shared.push(mutation),
            Backend::Ephemeral { last, wake } => {
                *last += 1;
                wake();
                Ok(JournalSeq(*last))
            }
        }
    }

    /// Everything up to here is durable.
    pub fn durable(&self) -> JournalSeq {
        match &self.backend {
            Backend::Thread { shared, .. } => shared.durable(),
            Backend::Ephemeral { last, .. } => JournalSeq(*last),
        }
    }

    /// The store has failed: stop the server with this line.
    pub fn failed(&self) -> Option<String> {
        match &self.backend {
            Backend::Thread { shared, .. } => shared.failed(),
            Backend::Ephemeral { .. } => None,
        }
    }

    /// Waits until all that is queued is durable, and closes the file. Gives up on a file that another program keeps
    /// locked after about half a minute.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.finish();
        self.failed().map_or(Ok(()), |line| Err(JournalError::Failed { line }))
    }

    fn finish(&mut self) {
        if let Backend::Thread { shared, thread } = &mut self.backend {
            shared.close();
            if let Some(thread) = thread.take() {
                // The thread catches its own panics and reports them as a failure.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
