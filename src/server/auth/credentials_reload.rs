//! Reading the credentials again while the server runs: on a thread of its own, since a record line takes some 0.1 ms and
//! a file may not come at once (a slow file system, a pipe), and the loop waits for nothing.
//!
//! One reading at a time: whoever asks meanwhile gets one more afterwards. Must not put anything in force.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use zeroize::Zeroizing;

use super::credentials::{Credentials, CredentialsError, VersionedCredentials};
use crate::server::BACKGROUND_NICENESS;

/// See the module.
pub struct CredentialsReloader {
    path: PathBuf,
    version_key: Zeroizing<[u8; 32]>,
    under_way: Option<Receiver<Result<VersionedCredentials, CredentialsError>>>,
    again: bool,
}

/// Why there is nothing to put in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system has no thread for it.
    #[error("the credentials cannot be read again: {0}")]
    System(#[from] io::Error),
}

impl CredentialsReloader {
    /// Of this file; versions are keyed by `version_key`.
    pub fn new(path: PathBuf, version_key: Zeroizing<[u8; 32]>) -> Self {
        Self { path, version_key, under_way: None, again: false }
    }

    /// Starts reading, or remembers to. `wake` is called on the thread when [`poll`](Self::poll) has news.
    pub fn start(&mut self, wake: Box<dyn Fn() + Send>) -> Result<(), ReloadError> {
        self.again = self.under_way.is_some();
        if self.again {
            return Ok(());
        }
        let (sender, receiver) = channel();
        let (path, key) = (self.path.clone(), self.version_key.clone());
        std::thread::Builder::new().name("credentials".into()).spawn(move || {
            // A thread that may not be nice works all the same. Those that it starts are as nice.
            let _ = rustix::process::nice(BACKGROUND_NICENESS);
            // A loop that has ended needs no news.
            let _ = sender.send(Credentials::read(&path).map(|credentials| credentials.versioned(&key)));
            wake();
        })?;
        self.under_way = Some(receiver);
        Ok(())
    }

    /// What has been read, once. Whether it is to be [`start`](Self::start)ed again is asked with
    /// [`take_again`](Self::take_again).
    pub fn poll(&mut self) -> Option<Result<VersionedCredentials, ReloadError>> {
        let read = match self.under_way.as_ref()?.try_recv() {
            Ok(read) => read.map_err(ReloadError::from),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread has failed").into()),
        };
        self.under_way = None;
        Some(read)
    }

    /// Whether somebody asked while the last reading, which has come to its end, was under way.
    pub fn take_again(&mut self) -> bool {
        self.under_way.is_none() && std::mem::take(&mut self.again)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;
    use crate::server::test_support::user;

    #[test]
    fn who_asks_while_it_is_read_gets_one_more_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.txt");
        fs::write(&path, "hans falcon\n").unwrap();
        let (sender, news) = mpsc::channel();
        let wake = || {
            let sender = sender.clone();
            Box::new(move || sender.send(()).unwrap())
        };
        let mut rereading = CredentialsReloader::new(path.clone(), Zeroizing::new([1; 32]));
        assert!(rereading.poll().is_none() && !rereading.take_again());
        rereading.start(wake()).unwrap();
        rereading.start(wake()).unwrap();
        assert!(!rereading.take_again(), "not yet");
        news.recv().unwrap();
        let read = rereading.poll().unwrap().unwrap();
        let version = read.users[0].2;
        assert_eq!((&read.users[0].0, read.users.len(), read.has_samples), (&user("hans"), 1, false));
        let other = Credentials::parse(b"hans leia\n", &path).unwrap();
        assert_ne!(Some(version), other.version(&user("hans"), &[1; 32]));

        assert!(rereading.poll().is_none() && rereading.take_again() && !rereading.take_again());
        fs::write(&path, "hans\n").unwrap();
        rereading.start(wake()).unwrap();
        news.recv().unwrap();
        assert!(rereading.poll().unwrap().is_err_and(|error| error.to_string().contains("line 1")));
        assert!(!rereading.take_again());
    }
}
