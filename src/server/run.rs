//! From options to a running loop: opens what must be open, in an order in which whatever is wrong is said before
//! anything has changed, and says `listening on` when everything is loaded.

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::info;
use mio::{Poll, Waker};
use rand::rngs::OsRng;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::auth::credentials::{Credentials, CredentialsError, record_line};
use super::auth::credentials_reload::CredentialsReloader;
use super::cli::Options;
use super::core::{Effects, LoadedState, Server, ServerConfig};
use super::event_loop::{EventLoop, NEWS, Wake, now, wall_ms};
use super::io::{ServerSocket, Signals};
use super::journal::{Journal, JournalError, JournalSeq, LastMutation, LoadSink, StoredPublication};
use super::logging;
use crate::common::escape::strip_line_ending;
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::opaque::KeyStretching;
use crate::common::types::{Audience, NamedContent, UserName};

/// Publications of one user that are read before they go to the index.
const RUN_MAX: usize = 512;
/// Such runs that wait for the index.
const READ_AHEAD: usize = 1_024;

/// Why the server does not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The credentials file is missing or malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The data file is damaged, in use, or has failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// As asked for.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something every program needs.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// `--enrol` without a usable password.
    #[error("a password has 1 to {PASSWORD_MAX_BYTES} bytes, does not start with \"$fileshare$\" and is one line")]
    Password,
}

/// Serves until a signal says stop.
pub fn serve(options: Options) -> Result<(), ServerError> {
    serve_with_journal(options, Journal::open)
}

/// [`serve`] with a journal that the caller opens: where tests put a slow or failing store.
pub fn serve_with_journal(
    options: Options,
    open: impl FnOnce(&Path, &mut dyn LoadSink, Box<dyn Fn() + Send>) -> Result<Journal, JournalError>,
) -> Result<(), ServerError> {
    logging::init(options.log_level);
    let credentials = Credentials::read(&options.credentials)?;
    let listen = options.listen;
    let socket = ServerSocket::bind(listen).map_err(|source| ServerError::Listen { listen, source })?;
    let signals = Signals::catch()?;
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), NEWS)?);
    let wake = move || -> Wake {
        let waker = Arc::clone(&waker);
        Box::new(move || waker.wake().unwrap_or_else(|error| log::error!("the loop cannot be woken: {error}")))
    };
    let mut loading = Loading::start()?;
    let journal = match &options.data {
        Some(path) => open(path, &mut loading, wake())?,
        None => Journal::ephemeral(wake()),
    };
    let config = ServerConfig {
        heartbeat: options.heartbeat,
        liveness: options.liveness,
        root_secret: journal.root_secret().into(),
        listens_elsewhere: !listen.ip().is_loopback(),
    };
    let seed = *Zeroizing::new(random_seed());
    let listening = socket.local_addr()?;
    let server = Server::new(config, loading.finish(), seed, now(), wall_ms());
    let rereading = CredentialsReloader::new(options.credentials, server.version_key());
    let credentials = credentials.versioned(&server.version_key());
    let mut event_loop = EventLoop {
        poll,
        wake: Box::new(wake),
        socket,
        signals,
        server,
        journal,
        rereading,
        warns_of_samples: !listen.ip().is_loopback(),
        enrolment: None,
        out: Effects::new(),
        pushed: JournalSeq(0),
    };
    event_loop.register()?;
    event_loop.put_in_force(credentials);
    print_listening(listening);
    Ok(event_loop.run()?)
}

/// Reads a password and prints the line that lets `user` in with it.
pub fn print_record(user: &UserName) -> Result<(), ServerError> {
    let password = read_password(user)?;
    if password.is_empty() || password.len() > PASSWORD_MAX_BYTES || password.starts_with(b"$fileshare$") {
        return Err(ServerError::Password);
    }
    let mut rng = ChaCha20Rng::from_seed(random_seed());
    writeln!(io::stdout(), "{}", record_line(user, &password, &mut rng, KeyStretching::Argon2id))?;
    Ok(())
}

/// The readiness line; a harness that closed its end does not stop the server.
fn print_listening(listening: SocketAddr) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "listening on {listening}").and_then(|()| stdout.flush()) {
        info!("listening on {listening} ({error} on stdout)");
    }
}

/// One line end is stripped, nothing else.
fn read_password(user: &UserName) -> io::Result<Zeroizing<Vec<u8>>> {
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password(format!("Password of {user}: "))?;
        return Ok(Zeroizing::new(password.into_bytes()));
    }
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_MAX_BYTES + 2));
    io::stdin().lock().read_until(b'\n', &mut line)?;
    let password_bytes = strip_line_ending(&line).len();
    line.truncate(password_bytes);
    Ok(line)
}

/// Where all of the server's randomness comes from.
fn random_seed() -> [u8; 32] {
    OsRng.r#gen()
}

/// Loading: read by this thread, put into the index by another, with a word on stderr when it takes longer than a second.
struct Loading {
    to_index: SyncSender<Read>,
    index: JoinHandle<LoadedState>,
    files: Vec<(NamedContent, Option<Arc<Audience>>, u64)>,
    user: Option<UserName>,
    since: Instant,
    said: Option<Instant>,
}

/// What has been read.
enum Read {
    /// A run of one user's publications: the file, its audience unless that is everyone, and when it was published.
    Publications(UserName, Vec<(NamedContent, Option<Arc<Audience>>, u64)>),
    LastMutation(UserName, LastMutation),
    Total(u64),
}

impl Loading {
    fn start() -> io::Result<Self> {
        let (to_index, read) = sync_channel(READ_AHEAD);
        let index = std::thread::Builder::new().name("loading".into()).spawn(move || index(read))?;
        Ok(Self { to_index, index, files: Vec::new(), user: None, since: now(), said: None })
    }

    fn send(&self, read: Read) {
        // A thread that is gone has panicked, which `finish` passes on.
        let _ = self.to_index.send(read);
    }

    fn send_files(&mut self) {
        if let Some(user) = &self.user
            && !self.files.is_empty()
        {
            let files = std::mem::replace(&mut self.files, Vec::with_capacity(RUN_MAX));
            self.send(Read::Publications(user.clone(), files));
        }
    }

    /// Waits until everything is in the index.
    fn finish(mut self) -> LoadedState {
        self.send_files();
        drop(self.to_index);
        self.index.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Whether it is time for a word.
    fn is_progress_due(&mut self, now: Instant) -> bool {
        let is_progress_due = now - self.said.unwrap_or(self.since) >= Duration::from_secs(1);
        if is_progress_due {
            self.said = Some(now);
        }
        is_progress_due
    }
}

impl LoadSink for Loading {
    fn publication(&mut self, publication: StoredPublication) {
        let StoredPublication { user, file, audience, published_s } = publication;
        if self.user.as_ref() != Some(&user) || self.files.len() == RUN_MAX {
            self.send_files();
            self.user = Some(user);
        }
        // Counting references to what all publications share from two threads would slow down both.
        self.files.push((file, (*audience != Audience::Everyone).then_some(audience), published_s));
    }

    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        self.send_files();
        self.send(Read::LastMutation(user, last));
    }

    fn progress(&mut self, done: u64, total: u64) {
        if done == 0 {
            self.send(Read::Total(total));
        }
        if self.is_progress_due(now()) {
            info!("loading: {done} of {total} publications");
        }
    }
}

/// Puts everything into the index.
fn index(read: Receiver<Read>) -> LoadedState {
    let (mut stored, everyone) = (LoadedState::new(), Arc::new(Audience::Everyone));
    for read in read {
        match read {
            Read::Publications(user, files) => {
                for (file, audience, published_s) in files {
                    let audience = audience.unwrap_or_else(|| Arc::clone(&everyone));
                    stored.publication(StoredPublication { user: user.clone(), file, audience, published_s });
                }
            }
            Read::LastMutation(user, last) => stored.last_mutation(user, last),
            Read::Total(total) => stored.progress(0, total),
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_start_says_so_once_a_second() {
        let mut loading = Loading::start().unwrap();
        let start = loading.since;
        let at_ms = |ms| start + Duration::from_millis(ms);
        let said: Vec<u64> = (0..40).map(|at| at * 100).filter(|&ms| loading.is_progress_due(at_ms(ms))).collect();
        assert_eq!(said, [1_000, 2_000, 3_000]);
    }
}
