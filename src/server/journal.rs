//! Skeleton of the journal: publications that survive. SQLite on one thread; the loop queues and is told what is durable.

use std::path::Path;
use std::sync::Arc;

use crate::common::message::PublishedFile;
use crate::common::types::{Audience, FileName, RequestId, RunId, UserName};

/// Numbers what was queued, from 1, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalSeq(pub u64);

/// One mutation of one user, stored in one transaction with its id and result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Whose.
    pub user: UserName,
    /// In which run of the client.
    pub run: RunId,
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
        files: Vec<PublishedFile>,
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
    pub run: RunId,
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
    pub file: PublishedFile,
    /// Who may see it.
    pub audience: Arc<Audience>,
    /// Seconds since 1970.
    pub published_s: u64,
}

/// What is read at start, in one pass.
pub trait Load {
    /// One publication.
    fn publication(&mut self, publication: StoredPublication);
    /// One user's last mutation.
    fn last_mutation(&mut self, user: UserName, last: LastMutation);
    /// `done` of `total` publications are read; called now and then.
    fn progress(&mut self, done: u64, total: u64);
}

/// Why the data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// To be refined by the owner of this file.
    #[error("{0}")]
    Other(String),
}

/// The queue is full: the client is told BUSY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal's queue is full")]
pub struct QueueFull;

/// The loop's end of the journal.
pub struct Journal {}

impl Journal {
    /// Opens (or creates, mode 0600) the data file, loads it, and starts the thread. `wake` is called on the journal
    /// thread whenever [`durable`](Self::durable) or [`failed`](Self::failed) has news.
    pub fn open(_path: &Path, _load: &mut dyn Load, _wake: Box<dyn Fn() + Send>) -> Result<Self, JournalError> {
        unimplemented!()
    }
    /// Nothing is kept (`--ephemeral`): everything queued is durable at once.
    pub fn ephemeral(_wake: Box<dyn Fn() + Send>) -> Self {
        unimplemented!()
    }
    /// The server's root secret, made once and kept in the data file.
    pub fn root_secret(&self) -> [u8; 32] {
        unimplemented!()
    }
    /// Queues a mutation; never blocks.
    pub fn push(&mut self, _mutation: Mutation) -> Result<JournalSeq, QueueFull> {
        unimplemented!()
    }
    /// Everything up to here is durable.
    pub fn durable(&self) -> JournalSeq {
        unimplemented!()
    }
    /// The store has failed: stop the server with this line.
    pub fn failed(&self) -> Option<String> {
        unimplemented!()
    }
    /// Waits until all that is queued is durable, and closes the file.
    pub fn close(self) -> Result<(), JournalError> {
        unimplemented!()
    }
}
