//! Rereads the credentials file while the server runs, on a thread of its own: a record takes about 0.1 ms, and a slow
//! file system or a pipe may block, but the event loop never waits.
//!
//! One reading at a time; requests during a reading cause one more afterwards. Must not apply anything.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use zeroize::Zeroizing;

use super::credentials::{Credentials, CredentialsError, VersionedCredentials};
use crate::common::threads;
use crate::server::BACKGROUND_NICENESS;

pub struct CredentialsReloader {
    path: PathBuf,
    version_key: Zeroizing<[u8; 32]>,
    in_progress: Option<Receiver<Result<VersionedCredentials, CredentialsError>>>,
    /// A reload was requested during the one in progress.
    is_pending: bool,
}

/// Why the credentials in force stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The thread could not be started, or panicked.
    #[error("the credentials cannot be reread: {0}")]
    System(#[from] io::Error),
}

impl CredentialsReloader {
    /// Rereads the file at `path`; versions are keyed by `version_key`.
    pub fn new(path: PathBuf, version_key: Zeroizing<[u8; 32]>) -> Self {
        Self { path, version_key, in_progress: None, is_pending: false }
    }

    /// Starts reading, or remembers the request while a reading is in progress. The thread calls `wake` when
    /// [`poll`](Self::poll) has a result.
    pub fn start(&mut self, wake: Box<dyn Fn() + Send>) -> Result<(), ReloadError> {
        self.is_pending = self.in_progress.is_some();
        if self.is_pending {
            return Ok(());
        }
        let (sender, receiver) = channel();
        let (path, key) = (self.path.clone(), self.version_key.clone());
        threads::spawn("credentials", move || {
            // Failure to lower the priority is harmless. The threads that parse inherit it.
            let _ = rustix::process::nice(BACKGROUND_NICENESS);
            // The receiver is gone when the server stops.
            let _ = sender.send(Credentials::read(&path).map(|credentials| credentials.versioned(&key)));
            wake();
        })?;
        self.in_progress = Some(receiver);
        Ok(())
    }

    /// The result of a finished reading, once. Then [`take_pending`](Self::take_pending) says whether another one was
    /// requested.
    pub fn poll(&mut self) -> Option<Result<VersionedCredentials, ReloadError>> {
        let read = match self.in_progress.as_ref()?.try_recv() {
            Ok(read) => read.map_err(ReloadError::from),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread panicked").into()),
        };
        self.in_progress = None;
        Some(read)
    }

    /// Whether a reload was requested during the last reading, which has finished. Clears the request.
    pub fn take_pending(&mut self) -> bool {
        self.in_progress.is_none() && std::mem::take(&mut self.is_pending)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;
    use crate::server::test_support::user;

    #[test]
    fn a_request_during_a_reading_causes_one_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.txt");
        fs::write(&path, "hans falcon\n").unwrap();
        let (sender, news) = mpsc::channel();
        let wake = || {
            let sender = sender.clone();
            Box::new(move || sender.send(()).unwrap())
        };
        let mut reloader = CredentialsReloader::new(path.clone(), Zeroizing::new([1; 32]));
        assert!(reloader.poll().is_none() && !reloader.take_pending());
        reloader.start(wake()).unwrap();
        reloader.start(wake()).unwrap();
        assert!(!reloader.take_pending(), "not yet");
        news.recv().unwrap();
        let read = reloader.poll().unwrap().unwrap();
        let hans = &read.users[0];
        assert_eq!((&hans.user, read.users.len(), read.has_sample_users), (&user("hans"), 1, false));
        let other = Credentials::parse(b"hans leia\n", &path).unwrap().versioned(&[1; 32]);
        assert_ne!(hans.version, other.users[0].version);

        assert!(reloader.poll().is_none() && reloader.take_pending() && !reloader.take_pending());
        fs::write(&path, "hans\n").unwrap();
        reloader.start(wake()).unwrap();
        news.recv().unwrap();
        assert!(reloader.poll().unwrap().is_err_and(|error| error.to_string().contains("line 1")));
        assert!(!reloader.take_pending());
    }
}
