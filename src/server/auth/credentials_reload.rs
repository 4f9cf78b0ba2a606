//! Rereads the credentials file while the server runs, on a thread of its own: a record takes about 0.1 ms, and a slow
//! file system or a pipe may block, but the event loop never waits. The same thread reads what users have stored who come
//! back to the credentials, since the server has loaded only the publications of the others.
//!
//! One reading at a time; requests during a reading cause one more afterwards. Must not apply anything.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use zeroize::Zeroizing;

use super::credentials::{Credentials, CredentialsError, VersionedCredentials};
use crate::common::escape::display_path;
use crate::common::threads;
use crate::common::types::UserName;
use crate::server::BACKGROUND_NICENESS;
use crate::server::journal::{Journal, JournalError, LastMutation, LoadSink, StoredPublication};

/// Publications that the event loop takes in at once, so that they do not delay heartbeats.
const ROWS_PER_STEP: usize = 128;

pub struct CredentialsReloader {
    path: PathBuf,
    version_key: Zeroizing<[u8; 32]>,
    /// The data file; `None`: nothing is stored.
    data: Option<PathBuf>,
    in_progress: Option<Receiver<Result<ReloadStep, ReloadError>>>,
    /// A reload was requested during the one in progress.
    is_pending: bool,
}

/// A result of a reading.
pub enum ReloadStep {
    /// Some of what returning users have stored. To be loaded before the credentials take effect.
    Rows(StoredRows),
    /// The last step: the credentials to put in force.
    Credentials(VersionedCredentials),
}

/// Some of what users have stored.
#[derive(Default)]
pub struct StoredRows {
    pub publications: Vec<StoredPublication>,
    /// After all publications.
    pub last_mutations: Vec<(UserName, LastMutation)>,
}

/// Why the credentials in force stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Most likely a file that was truncated, or is being written: it would log everybody out.
    #[error("{} has no users", display_path(.path))]
    NoUsers { path: PathBuf },
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The thread could not be started, or panicked.
    #[error("the credentials cannot be reread: {0}")]
    System(#[from] io::Error),
}

impl CredentialsReloader {
    /// Rereads the file at `path`; versions are keyed by `version_key`.
    pub fn new(path: PathBuf, version_key: Zeroizing<[u8; 32]>, data: Option<PathBuf>) -> Self {
        Self { path, version_key, data, in_progress: None, is_pending: false }
    }

    /// Starts reading, or remembers the request while a reading is in progress. `loaded`: users of whom nothing more is to be
    /// read from the data file. The thread calls `wake` when [`poll`](Self::poll) has a result.
    pub fn start(&mut self, loaded: HashSet<UserName>, wake: Box<dyn Fn() + Send>) -> Result<(), ReloadError> {
        self.is_pending = self.in_progress.is_some();
        if self.is_pending {
            return Ok(());
        }
        // One step at a time is in memory.
        let (sender, receiver) = sync_channel(1);
        let (path, key, data) = (self.path.clone(), self.version_key.clone(), self.data.clone());
        threads::spawn("credentials", move || {
            // Failure to lower the priority is harmless. The threads that parse inherit it.
            let _ = rustix::process::nice(BACKGROUND_NICENESS);
            let steps = StepSender { sender, wake };
            let read = read(&path, &key, data.as_deref(), &loaded, &steps);
            steps.send(read.map(ReloadStep::Credentials));
        })?;
        self.in_progress = Some(receiver);
        Ok(())
    }

    /// The next result of the reading. After an error or the credentials the reading has ended, and
    /// [`take_pending`](Self::take_pending) says whether another one was requested.
    pub fn poll(&mut self) -> Option<Result<ReloadStep, ReloadError>> {
        let step = match self.in_progress.as_ref()?.try_recv() {
            Ok(step) => step,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread panicked").into()),
        };
        if !matches!(step, Ok(ReloadStep::Rows(_))) {
            self.in_progress = None;
        }
        Some(step)
    }

    /// Whether a reload was requested during the last reading, which has finished. Clears the request.
    pub fn take_pending(&mut self) -> bool {
        self.in_progress.is_none() && std::mem::take(&mut self.is_pending)
    }
}

fn read(
    path: &Path,
    version_key: &[u8; 32],
    data: Option<&Path>,
    loaded: &HashSet<UserName>,
    steps: &StepSender,
) -> Result<VersionedCredentials, ReloadError> {
    let credentials = Credentials::read(path)?;
    if credentials.users.is_empty() {
        return Err(ReloadError::NoUsers { path: path.into() });
    }
    let wanted: HashSet<_> = credentials.users.keys().filter(|user| !loaded.contains(*user)).cloned().collect();
    if let Some(data) = data.filter(|_| !wanted.is_empty()) {
        let mut sink = RowSink { wanted, rows: StoredRows::default(), steps };
        Journal::read_users(data, &mut sink)?;
        sink.flush();
    }
    Ok(credentials.versioned(version_key))
}

struct StepSender {
    sender: SyncSender<Result<ReloadStep, ReloadError>>,
    wake: Box<dyn Fn() + Send>,
}

impl StepSender {
    fn send(&self, step: Result<ReloadStep, ReloadError>) {
        // The receiver is gone when the server stops.
        let _ = self.sender.send(step);
        (self.wake)();
    }
}

/// Passes what the wanted users have stored on in steps.
struct RowSink<'a> {
    wanted: HashSet<UserName>,
    rows: StoredRows,
    steps: &'a StepSender,
}

impl RowSink<'_> {
    fn flush(&mut self) {
        self.steps.send(Ok(ReloadStep::Rows(std::mem::take(&mut self.rows))));
    }

    fn flush_if_full(&mut self) {
        if self.rows.publications.len() + self.rows.last_mutations.len() >= ROWS_PER_STEP {
            self.flush();
        }
    }
}

impl LoadSink for RowSink<'_> {
    fn wants(&self, user: &UserName) -> bool {
        self.wanted.contains(user)
    }

    fn publication(&mut self, publication: StoredPublication) {
        self.rows.publications.push(publication);
        self.flush_if_full();
    }

    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        self.rows.last_mutations.push((user, last));
        self.flush_if_full();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::common::types::{InstanceId, RequestId};
    use crate::server::core::LoadedState;
    use crate::server::journal::{Change, Mutation, SqliteStore, Store};
    use crate::server::test_support::{file, user};

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
        let mut reloader = CredentialsReloader::new(path.clone(), Zeroizing::new([1; 32]), None);
        assert!(reloader.poll().is_none() && !reloader.take_pending());
        reloader.start(HashSet::new(), wake()).unwrap();
        reloader.start(HashSet::new(), wake()).unwrap();
        assert!(!reloader.take_pending(), "not yet");
        news.recv().unwrap();
        let Ok(ReloadStep::Credentials(read)) = reloader.poll().unwrap() else { panic!("the credentials") };
        let hans = &read.users[0];
        assert_eq!((&hans.user, read.users.len(), read.has_sample_users), (&user("hans"), 1, false));
        let other = Credentials::parse(b"hans leia\n", &path).unwrap().versioned(&[1; 32]);
        assert_ne!(hans.version, other.users[0].version);

        assert!(reloader.poll().is_none() && reloader.take_pending() && !reloader.take_pending());
        fs::write(&path, "hans\n").unwrap();
        reloader.start(HashSet::new(), wake()).unwrap();
        news.recv().unwrap();
        assert!(reloader.poll().unwrap().is_err_and(|error| error.to_string().contains("line 1")));
        assert!(!reloader.take_pending());
    }

    #[test]
    fn a_file_without_users_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.txt");
        for text in ["", "# hans falcon\n\n"] {
            fs::write(&path, text).unwrap();
            let error = steps(&path, None, &[]).pop().unwrap().err().unwrap();
            assert_eq!(error.to_string(), format!("{} has no users", path.display()));
        }
    }

    #[test]
    fn what_returning_users_have_stored_comes_before_the_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let (path, data) = (dir.path().join("credentials.txt"), dir.path().join("data.db"));
        let (mut store, _) = SqliteStore::open(&data, &mut LoadedState::new()).unwrap();
        let publish = |name: &str, files: usize| {
            let files = (0..files).map(|number| file(&format!("file {number:04}"))).collect();
            let change = Change::Publish { files, audience: Arc::default(), published_s: 7 };
            Mutation { user: user(name), instance: InstanceId(1), request: RequestId(2), change }
        };
        store.write(&[publish("hans", 3), publish("leia", 300), publish("vader", 3)]).unwrap();
        fs::write(&path, "hans x\nleia x\nyoda x\n").unwrap();

        let mut steps = steps(&path, Some(&data), &["hans", "luke"]);
        assert!(matches!(steps.pop(), Some(Ok(ReloadStep::Credentials(credentials))) if credentials.users.len() == 3));
        let rows: Vec<StoredRows> = steps
            .into_iter()
            .map(|step| match step {
                Ok(ReloadStep::Rows(rows)) => rows,
                _ => panic!("rows"),
            })
            .collect();
        let published: Vec<_> = rows.iter().flat_map(|rows| &rows.publications).collect();
        assert!(published.len() == 300 && published.iter().all(|publication| publication.user == user("leia")));
        assert!(rows.iter().all(|rows| rows.publications.len() + rows.last_mutations.len() <= ROWS_PER_STEP));
        assert_eq!(rows.last().unwrap().last_mutations[0].0, user("leia"));
        // The server's own lock and connection are as they were.
        store.write(&[publish("leia", 1)]).unwrap();
        Box::new(store).close().unwrap();
    }

    /// The results of one reading, to its end.
    fn steps(path: &Path, data: Option<&Path>, loaded: &[&str]) -> Vec<Result<ReloadStep, ReloadError>> {
        let (sender, news) = mpsc::channel();
        let mut reloader = CredentialsReloader::new(path.into(), Zeroizing::new([1; 32]), data.map(PathBuf::from));
        let loaded = loaded.iter().map(|name| user(name)).collect();
        reloader.start(loaded, Box::new(move || sender.send(()).unwrap())).unwrap();
        let mut steps = Vec::new();
        while matches!(steps.last(), None | Some(Ok(ReloadStep::Rows(_)))) {
            news.recv().unwrap();
            steps.extend(reloader.poll());
        }
        steps
    }
}
