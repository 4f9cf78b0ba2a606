//! From options to a running loop: opens what must be open, in an order in which whatever is wrong is said before
//! anything has changed, and says `listening on` when everything is loaded.

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;
use mio::{Poll, Waker};
use rand::rngs::OsRng;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::cli::Options;
use super::core::{Outbox, Server, ServerConfig, Stored};
use super::credentials::{Credentials, CredentialsError, record_line};
use super::event_loop::{EventLoop, NEWS, Wake, now, wall_ms};
use super::journal::{Journal, JournalError, JournalSeq, LastMutation, Load, StoredPublication};
use super::logging;
use super::signals::Signals;
use super::socket::ServerSocket;
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::login::Stretching;
use crate::common::types::UserName;

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
    serve_over(options, Journal::open)
}

/// [`serve`] with a journal that the caller opens: where tests put a slow or failing store.
pub fn serve_over(
    options: Options,
    open: impl FnOnce(&Path, &mut dyn Load, Box<dyn Fn() + Send>) -> Result<Journal, JournalError>,
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
    let mut loading = Loading { stored: Stored::new(), since: now(), said: None };
    let journal = match &options.data {
        Some(path) => open(path, &mut loading, wake())?,
        None => Journal::ephemeral(wake()),
    };
    let config = ServerConfig {
        heartbeat: options.heartbeat,
        liveness: options.liveness,
        root_secret: journal.root_secret(),
        listens_elsewhere: !listen.ip().is_loopback(),
    };
    let seed = *Zeroizing::new(random_seed());
    let listening = socket.local_addr()?;
    let mut event_loop = EventLoop {
        poll,
        wake: Box::new(wake),
        socket,
        signals,
        server: Server::new(config, loading.stored, seed, now(), wall_ms()),
        journal,
        credentials: options.credentials,
        warns_of_samples: !listen.ip().is_loopback(),
        enrolment: None,
        out: Outbox::new(),
        pushed: JournalSeq(0),
    };
    event_loop.register()?;
    event_loop.put_in_force(credentials);
    announce(listening);
    Ok(event_loop.run()?)
}

/// Reads a password and prints the line that lets `user` in with it.
pub fn enrol(user: &UserName) -> Result<(), ServerError> {
    let password = read_password(user)?;
    if password.is_empty() || password.len() > PASSWORD_MAX_BYTES || password.starts_with(b"$fileshare$") {
        return Err(ServerError::Password);
    }
    let mut rng = ChaCha20Rng::from_seed(random_seed());
    writeln!(io::stdout(), "{}", record_line(user, &password, &mut rng, Stretching::Standard))?;
    Ok(())
}

/// The readiness line; a harness that closed its end does not stop the server.
fn announce(listening: SocketAddr) {
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
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(line)
}

/// Where all of the server's randomness comes from.
fn random_seed() -> [u8; 32] {
    OsRng.r#gen()
}

/// Loading, with a word on stderr when it takes longer than a second.
struct Loading {
    stored: Stored,
    since: Instant,
    said: Option<Instant>,
}

impl Load for Loading {
    fn publication(&mut self, publication: StoredPublication) {
        self.stored.publication(publication);
    }

    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        self.stored.last_mutation(user, last);
    }

    fn progress(&mut self, done: u64, total: u64) {
        let now = now();
        if now - self.said.unwrap_or(self.since) >= Duration::from_secs(1) {
            self.said = Some(now);
            info!("loading: {done} of {total} publications");
        }
    }
}
