//! Copies the write-ahead log into the database, in a thread of its own: that takes up to 0.1 s, for which no commit waits.
//!
//! The log starts anew at a commit before which all of it has been copied. Commits go on during a pass of the thread; so
//! the thread makes several, of which each copies what the log got during the one before. The journal's thread copies the
//! rest, which is a commit or two, and often nothing.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

use super::JournalError;
use crate::common::threads;

/// Size of the write-ahead log, in pages, at which it is copied (12 MiB).
const LOG_PAGES: u32 = 3_072;
/// Size at which a commit waits until the thread has done so (18 MiB), if the disk is so slow.
pub(super) const LOG_PAGES_MAX: u32 = 4_608;
/// Passes of the thread over the log. With one, the rest took the journal's thread 4.6 ms in the median beside the attacker
/// of the bench `worst_user`; with three, 0.4 ms.
const PASSES: u32 = 3;

/// The thread. It closes its own connection and ends when the connection that it serves is closed.
#[derive(Debug)]
pub(super) struct Checkpointer(JoinHandle<()>);

/// What the journal's connection knows of the thread.
struct Remote {
    requests: SyncSender<()>,
    results: Receiver<()>,
    is_busy: bool,
}

impl Checkpointer {
    /// Checkpoints what `connection` commits.
    pub(super) fn start(connection: &mut Connection, path: &Path) -> Result<Self, JournalError> {
        let failed = |error: rusqlite::Error| JournalError::from_sqlite(path, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let own = Connection::open_with_flags(path, flags).map_err(failed)?;
        let (requests, next_request) = sync_channel(1);
        let (done, results) = sync_channel(1);
        let thread =
            spawn(own, next_request, done).map_err(|source| JournalError::Thread { reason: source.to_string() })?;
        let mut remote = Remote { requests, results, is_busy: false };
        let hook = move |log: &mut Wal, pages: i32| {
            remote.on_commit(log, pages.unsigned_abs());
            Ok(())
        };
        connection.wal_hook(Some(hook)).map_err(failed)?;
        Ok(Self(thread))
    }

    /// Waits until the thread has ended.
    pub(super) fn join(self) {
        // It has reported a panic.
        _ = self.0.join();
    }
}

fn spawn(connection: Connection, requests: Receiver<()>, done: SyncSender<()>) -> io::Result<JoinHandle<()>> {
    threads::spawn("checkpointer", move || {
        for () in requests {
            for _ in 0..PASSES {
                checkpoint(&connection);
            }
            if done.send(()).is_err() {
                return;
            }
        }
    })
}

/// What fails is tried again at a later commit; what is in the log is durable.
fn checkpoint(connection: &Connection) {
    if let Err(error) = connection.pragma_query_value(None, "wal_checkpoint", |_| Ok(())) {
        log::debug!("checkpoint failed: {error}");
    }
}

impl Remote {
    /// `pages`: the length of the log.
    fn on_commit(&mut self, log: &mut Wal, pages: u32) {
        if self.is_busy {
            let result = match pages {
                LOG_PAGES_MAX.. => self.results.recv().map_err(|_| TryRecvError::Disconnected),
                _ => self.results.try_recv(),
            };
            if result == Err(TryRecvError::Empty) {
                return;
            }
            self.is_busy = false;
        } else if pages < LOG_PAGES {
            return;
        } else if self.requests.send(()).is_ok() {
            self.is_busy = true;
            return;
        }
        if let Err(error) = log.checkpoint() {
            log::debug!("checkpoint failed: {error}");
        }
    }
}
