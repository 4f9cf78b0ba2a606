//! Starts the server: from options to a running event loop. Opens everything in an order in which an error is reported
//! before anything has changed, and prints `listening on` when everything is loaded.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use log::info;
use mio::{Poll, Waker};
use rand::rngs::OsRng;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use signal_hook::consts::SIGINT;
use zeroize::Zeroizing;

use super::auth::credentials::{Credentials, RECORD_PREFIX, line_of_record};
use super::auth::credentials_reload::CredentialsReloader;
use super::check::{Findings, check};
use super::cli::{LogFormat, ServeOptions, StatusOptions};
use super::core::{Effects, LoadedState, Server, ServerConfig};
use super::error::ServerError;
use super::event_loop::{EventLoop, STATUS, WAKE, Wake, now, wall_ms};
use super::journal::{Forgotten, Journal, JournalError, JournalSeq, LoadSink};
use super::logging;
use super::port_file::{self, PortFile};
use super::signals::Signals;
use super::socket::ServerSocket;
use super::status::{Monitor, StatusListener, Supervisor};
use crate::common::escape::{BYTE_ORDER_MARK, strip_line_ending};
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::opaque::{KeyStretching, OprfSeed, PasswordRecord};
use crate::common::signals::report_file_size_limit_as_error;
use crate::common::types::UserName;

/// Serves until SIGINT or SIGTERM.
pub fn serve(options: ServeOptions) -> Result<(), ServerError> {
    serve_with_journal(options, Journal::open)
}

/// [`serve`] with a journal that the caller opens; tests use a slow or failing store.
pub fn serve_with_journal(
    options: ServeOptions,
    open: impl FnOnce(&Path, &mut dyn LoadSink, Box<dyn Fn() + Send>) -> Result<Journal, JournalError>,
) -> Result<(), ServerError> {
    logging::init(options.log_level, options.log_format)?;
    report_file_size_limit_as_error()?;
    // Before anything that takes time: without a handler, SIGHUP would end the server.
    let signals = Signals::handle_reload()?;
    let (log_format, port_file) = (options.log_format, options.port_file.clone());
    let (mut event_loop, local_address) =
        prepare(options, signals, KeyStretching::Argon2id, Signals::handle_stop, open)?;
    // Removed at the very end.
    let _port_file = port_file.map(|path| PortFile::write(&path, local_address.port())).transpose()?;
    if log_format == LogFormat::Json {
        info!(event = "listening", address:% = local_address; "listening on {local_address}");
    }
    print_line(format_args!("listening on {local_address}"))?;
    event_loop.monitor.supervisor = Supervisor::from_environment();
    event_loop.monitor.supervisor.ready();
    Ok(event_loop.run()?)
}

/// Opens everything, and returns the loop that serves, with the address on which it receives. `on_bound` is called once
/// the address is taken: from then on a signal must not end the server at once.
pub fn prepare(
    options: ServeOptions,
    signals: Signals,
    stretching: KeyStretching,
    on_bound: impl FnOnce(&Signals) -> io::Result<()>,
    open: impl FnOnce(&Path, &mut dyn LoadSink, Box<dyn Fn() + Send>) -> Result<Journal, JournalError>,
) -> Result<(EventLoop, SocketAddr), ServerError> {
    let credentials = Credentials::read(&options.credentials)?;
    options.port_file.as_deref().map_or(Ok(()), port_file::check)?;
    let listen = options.listen;
    let socket = ServerSocket::bind(listen).map_err(|source| ServerError::Listen { listen, source })?;
    on_bound(&signals)?;
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let new_wake = move || -> Wake {
        let waker = Arc::clone(&waker);
        Box::new(move || waker.wake().unwrap_or_else(|error| log::error!("waking the event loop failed: {error}")))
    };
    let mut monitor = Monitor::start(&socket.udp, new_wake())?;
    if let Some(StatusOptions { address, shows_users }) = options.status {
        let listener = StatusListener::bind(address, poll.registry(), STATUS)
            .map_err(|source| ServerError::StatusPage { address, source })?;
        let address = listener.local_addr()?;
        info!(event = "status_page", address:% = address; "status page at http://{address}/");
        (monitor.listener, monitor.shows_users) = (Some(listener), shows_users);
    }
    let mut loaded = LoadedState::of_users(credentials.users.keys().cloned());
    let journal = match &options.data {
        Some(path) => open(path, &mut loaded, new_wake())?,
        None => Journal::ephemeral(new_wake())?,
    };
    let config = ServerConfig {
        heartbeat: options.heartbeat,
        liveness: options.liveness,
        root_secret: journal.root_secret().into(),
        listens_elsewhere: !listen.ip().is_loopback(),
        quotas: options.quotas,
    };
    let seed = *Zeroizing::new(random_seed());
    let local_address = socket.udp.local_addr()?;
    let server = Server::new(config, loaded, seed, now(), wall_ms());
    let reloader = CredentialsReloader::new(options.credentials, server.version_key(), options.data);
    let credentials = credentials.versioned(&server.version_key());
    let mut event_loop = EventLoop {
        poll,
        new_wake: Box::new(new_wake),
        socket,
        signals,
        server,
        journal,
        reloader,
        stretching,
        warn_on_sample_users: !listen.ip().is_loopback(),
        enrolment: None,
        effects: Effects::default(),
        last_queued: JournalSeq(0),
        monitor,
    };
    event_loop.register()?;
    event_loop.apply_credentials(credentials);
    Ok((event_loop, local_address))
}

/// Prints what [`check`] finds: errors and warnings to stderr, and `ok` to stdout if a server could start.
/// Returns whether it could.
pub fn print_check(options: &ServeOptions) -> Result<bool, ServerError> {
    let Findings { errors, warnings } = check(options);
    let mut stderr = io::stderr().lock();
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
    for line in errors.iter().map(ServerError::to_string).chain(warnings) {
        // A closed stderr is no failure.
        let _ = writeln!(stderr, "server: {line}");
    }
    if errors.is_empty() {
        print_line(format_args!("ok"))?;
    }
    Ok(errors.is_empty())
}

/// Deletes what a user has published who is not in the credentials, and prints how much it was.
pub fn forget(user: &UserName, credentials: &Path, data: &Path) -> Result<(), ServerError> {
    if Credentials::read(credentials)?.users.contains_key(user) {
        return Err(ServerError::StillListed { user: user.clone(), path: credentials.into() });
    }
    let Forgotten { publications, bytes } = Journal::forget(data, user)?;
    writeln!(io::stdout(), "{publications} publications of {user} deleted, {bytes} bytes freed")?;
    Ok(())
}

/// Reads a password and prints the credentials line with which `user` can log in: with the OPRF seed that the server with
/// this data file has for the name, if one is given.
pub fn print_record(user: &UserName, data: Option<&Path>) -> Result<(), ServerError> {
    let root_secret = data.map(Journal::read_root_secret).transpose()?.map(Zeroizing::new);
    let password = read_password(user).map_err(ServerError::PasswordInput)?;
    if password.starts_with(BYTE_ORDER_MARK) {
        // A closed stderr is no failure.
        let _ =
            writeln!(io::stderr(), "server: the password starts with a byte order mark, which counts as a part of it");
    }
    if password.is_empty() || password.len() > PASSWORD_MAX_BYTES || password.starts_with(RECORD_PREFIX.as_bytes()) {
        return Err(ServerError::Password);
    }
    let mut rng = ChaCha20Rng::from_seed(random_seed());
    let stretching = KeyStretching::Argon2id;
    let record = match root_secret.map(|root| OprfSeed::of_user(&root, user)) {
        Some(seed) => PasswordRecord::register_with_seed(&mut rng, &seed, user, &password, stretching),
        None => PasswordRecord::register(&mut rng, user, &password, stretching),
    };
    print_line(format_args!("{}", line_of_record(user, &record)))
}

/// Writes a line to stdout. A reader that has closed it needs no line; every other error is a failure.
fn print_line(line: fmt::Arguments<'_>) -> Result<(), ServerError> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ServerError::Output(error)),
        _ => Ok(()),
    }
}

/// From the terminal, without echo, or the first line of stdin without its line ending.
fn read_password(user: &UserName) -> io::Result<Zeroizing<Vec<u8>>> {
    if io::stdin().is_terminal() {
        // With a handler, Ctrl-C returns from the prompt, which restores the terminal's settings.
        signal_hook::flag::register(SIGINT, Arc::default())?;
        let password = rpassword::prompt_password(format!("Password of {user}: "))?;
        // The prompt replaces what is not UTF-8.
        if password.contains(char::REPLACEMENT_CHARACTER) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it was not typed as UTF-8"));
        }
        return Ok(Zeroizing::new(password.into_bytes()));
    }
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_MAX_BYTES + 2));
    io::stdin().lock().read_until(b'\n', &mut line)?;
    let password_bytes = strip_line_ending(&line).len();
    line.truncate(password_bytes);
    Ok(line)
}

/// The source of all of the server's randomness.
fn random_seed() -> [u8; 32] {
    OsRng.r#gen()
}
