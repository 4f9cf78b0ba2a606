//! The control thread: moves bytes between the server and the [`Session`], and decides nothing.
//!
//! Owns the UDP sockets, the clock and the randomness that the session is fed with, and the channels through which other
//! threads command it. One connected socket for each address of the server, so that the system delivers only what comes
//! from there and tells when nobody listens; they are made anew while the connection is lost, since this host's own
//! address may have changed.

mod resolve;
pub mod server_api;
mod sockets;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

pub use self::resolve::{local_ips_for, resolve};
pub use self::server_api::{PublishAudience, RequestTransport, ServerApi};
use self::sockets::Sockets;
use crate::client::session::{Event, RequestHandle, Session, SessionConfig};
pub use crate::client::session::{LoginError, Password, RequestError};
use crate::common::crypto::Secret;
use crate::common::handshake_keys::SessionParams;
use crate::common::message::{Request, Response};
use crate::common::opaque::KeyStretching;
use crate::common::types::UserName;

/// The waker's token; sockets have their address's index.
const WAKE: Token = Token(usize::MAX);
/// While the connection is lost, the way to the server is looked for anew this often: this host may have moved.
const SOCKETS_LIVE_WHILE_LOST: Duration = Duration::from_secs(3);
/// Readiness events taken at once.
const EVENTS: usize = 16;

/// Where the server may be and what to tell it.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// Every address of the server, in the order to be tried.
    pub servers: Vec<SocketAddr>,
    /// The port of this client's TCP listener.
    pub tcp_port: u16,
    /// How hard passwords are stretched.
    pub stretching: KeyStretching,
}

/// Who wants to know what becomes of the session; called on the control thread, must not block.
pub trait Observer: Send + Sync {
    /// A session stands (after a login, or after a resumption: `resumed`). `ticket_key` opens the transfer tickets that
    /// the server seals for this client from now on; keys before it stay valid for `TICKET_KEY_GRACE`.
    fn session_started(&self, user: &UserName, welcome: &SessionParams, ticket_key: &Secret, resumed: bool);
    /// The server has not answered for the liveness time; the client tries to reconnect.
    fn connection_lost(&self);
    /// The user was logged out by the server (credentials changed) or could not be logged in again.
    fn logged_out(&self);
    /// After a reconnect, publications acknowledged in this run were missing at the server and were published again.
    fn resynced(&self, files: usize);
    /// Uploads that could start now; goes into heartbeats.
    fn free_slots(&self) -> u8;
}

/// A handle on the control thread; cheap to clone, usable from any thread. The thread ends with the last handle, without
/// a word to the server: see [`logout`](Self::logout).
#[derive(Clone)]
pub struct ControlHandle {
    shared: Arc<Shared>,
    /// Ends the thread when the last handle is dropped.
    _stop: Arc<StopOnDrop>,
}

struct Shared {
    commands: Sender<Command>,
    waker: Waker,
    /// Whether the thread has been woken and has not looked yet.
    is_woken: AtomicBool,
    user: Mutex<Option<UserName>>,
}

struct StopOnDrop(Arc<Shared>);

/// An answer and the place of its request among those asked together.
type Answer = (usize, Result<Response, RequestError>);

enum Command {
    Login { user: UserName, password: Password, reply: Sender<Result<SessionParams, LoginError>> },
    Ask { request: Request, place: usize, reply: Sender<Answer> },
    Leave { reply: Sender<()> },
    Stop,
}

impl ControlHandle {
    /// Binds the UDP socket and starts the thread. Nothing is sent before [`login`](Self::login).
    pub fn start(options: ControlOptions, observer: Arc<dyn Observer>) -> io::Result<Self> {
        if options.servers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the server has no address"));
        }
        let poll = Poll::new()?;
        let (sender, commands) = mpsc::channel();
        let shared = Arc::new(Shared {
            commands: sender,
            waker: Waker::new(poll.registry(), WAKE)?,
            is_woken: AtomicBool::new(false),
            user: Mutex::new(None),
        });
        let sockets = Sockets::new(options.servers.clone());
        let ControlOptions { servers, tcp_port, stretching } = options;
        let session = Session::new(SessionConfig { servers, tcp_port, stretching }, ChaCha20Rng::from_entropy());
        let driver = Driver {
            session,
            sockets,
            poll,
            commands,
            observer,
            shared: Arc::clone(&shared),
            login: None,
            asked: HashMap::new(),
            leaving: Vec::new(),
            renew_at: None,
        };
        std::thread::Builder::new().name("control".into()).spawn(move || driver.run())?;
        Ok(Self { _stop: Arc::new(StopOnDrop(Arc::clone(&shared))), shared })
    }

    /// Logs in; blocks until the server has answered or [`LOGIN_TIMEOUT`](crate::common::limits::LOGIN_TIMEOUT) is
    /// over.
    pub fn login(&self, user: UserName, password: Password) -> Result<SessionParams, LoginError> {
        let (reply, answer) = mpsc::channel();
        self.shared.command(Command::Login { user, password, reply });
        answer.recv().unwrap_or(Err(LoginError::Unreachable))
    }

    /// Who is logged in.
    pub fn user(&self) -> Option<UserName> {
        lock(&self.shared.user).clone()
    }

    /// Asks and waits for the answer: retransmits, waits out a reconnect and BUSY for up to
    /// [`COMMAND_TIMEOUT`](crate::common::limits::COMMAND_TIMEOUT). Many threads may ask at once.
    pub fn request(&self, request: Request) -> Result<Response, RequestError> {
        let (reply, answer) = mpsc::channel();
        self.shared.command(Command::Ask { request, place: 0, reply });
        answer.recv().map_or(Err(RequestError::NotAuthenticated), |(_, result)| result)
    }

    /// Asks many queries (no mutations) with a window of them under way; answers in the order of the requests.
    pub fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        let (reply, answers) = mpsc::channel();
        let mut responses: Vec<Option<Response>> = vec![None; requests.len()];
        for (place, request) in requests.into_iter().enumerate() {
            self.shared.command(Command::Ask { request, place, reply: reply.clone() });
        }
        drop(reply);
        for (place, result) in answers {
            responses[place] = Some(result?);
        }
        responses.into_iter().map(|response| response.ok_or(RequestError::NotAuthenticated)).collect()
    }

    /// Tells the server that the user goes; waits at most
    /// [`LOGOUT_TIMEOUT`](crate::common::limits::LOGOUT_TIMEOUT). Without a session it does nothing. A later
    /// [`login`](Self::login) is possible.
    pub fn logout(&self) {
        let (reply, left) = mpsc::channel();
        self.shared.command(Command::Leave { reply });
        // An error means that the thread is gone, and with it the session.
        let _ = left.recv();
    }
}

impl Shared {
    fn command(&self, command: Command) {
        // A thread that is gone drops the command, and with it the channel on which its caller waits.
        let _ = self.commands.send(command);
        if !self.is_woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            log::error!("the control thread cannot be woken: {error}");
        }
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.command(Command::Stop);
    }
}

/// What the control thread works with.
struct Driver {
    session: Session,
    sockets: Sockets,
    poll: Poll,
    commands: Receiver<Command>,
    observer: Arc<dyn Observer>,
    shared: Arc<Shared>,
    /// Who waits for the login under way.
    login: Option<Sender<Result<SessionParams, LoginError>>>,
    asked: HashMap<RequestHandle, (usize, Sender<Answer>)>,
    leaving: Vec<Sender<()>>,
    /// When the sockets are made anew; set while the connection is lost.
    renew_at: Option<Instant>,
}

impl Driver {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if !self.take_commands() {
                return;
            }
            let now = clock();
            if self.session.poll_timeout().is_some_and(|due| due <= now) {
                self.session.set_free_slots(self.observer.free_slots());
                self.session.handle_timeout(now);
            }
            self.deliver();
            let wait = self.session.poll_timeout().map(|due| due.saturating_duration_since(clock()));
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return log::error!("the control thread cannot wait for datagrams: {error}"),
            }
            for event in &events {
                match event.token() {
                    WAKE => self.shared.is_woken.store(false, Ordering::Release),
                    Token(socket) => self.receive(socket),
                }
            }
        }
    }

    /// `false` when it is time to end.
    fn take_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            let now = clock();
            match command {
                Command::Login { user, password, reply } => {
                    if self.login.is_some() {
                        let _ = reply.send(Err(LoginError::LoggedIn));
                        continue;
                    }
                    self.login = Some(reply);
                    self.session.set_free_slots(self.observer.free_slots());
                    self.session.login(now, user, password);
                }
                Command::Ask { request, place, reply } => {
                    let handle = self.session.request(now, request);
                    self.asked.insert(handle, (place, reply));
                }
                Command::Leave { reply } => {
                    self.leaving.push(reply);
                    self.session.logout(now);
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn receive(&mut self, socket: usize) {
        while let Some(received) = self.sockets.receive(socket) {
            let now = clock();
            match received {
                Ok((from, datagram)) => self.session.handle_datagram(now, from, datagram),
                Err(address) => self.session.unreachable(now, address),
            }
        }
    }

    /// Tells and sends what the session has to tell and to send.
    fn deliver(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.tell(event);
        }
        if let Some(at) = self.renew_at
            && at <= clock()
        {
            self.renew_at = Some(clock() + SOCKETS_LIVE_WHILE_LOST);
            self.sockets.renew();
        }
        while let Some((to, datagram)) = self.session.poll_transmit() {
            if !self.sockets.send(self.poll.registry(), to, &datagram) {
                self.session.unreachable(clock(), to);
            }
        }
    }

    /// A caller who has gone away does not mind that the answer is lost.
    fn tell(&mut self, event: Event) {
        match event {
            Event::Started { user, welcome, ticket_key, resumed } => {
                self.renew_at = None;
                *lock(&self.shared.user) = Some(user.clone());
                self.observer.session_started(&user, &welcome, &ticket_key, resumed);
            }
            Event::LoginFinished(result) => {
                if let Some(reply) = self.login.take() {
                    let _ = reply.send(result);
                }
            }
            Event::ConnectionLost => {
                self.renew_at = Some(clock() + SOCKETS_LIVE_WHILE_LOST);
                self.observer.connection_lost();
            }
            Event::LoggedOut => {
                *lock(&self.shared.user) = None;
                self.observer.logged_out();
            }
            Event::Resynced(files) => self.observer.resynced(files),
            Event::RequestFinished { request, result } => {
                if let Some((place, reply)) = self.asked.remove(&request) {
                    let _ = reply.send((place, result));
                }
            }
            Event::LoggedOutByUser => {
                *lock(&self.shared.user) = None;
                for reply in self.leaving.drain(..) {
                    let _ = reply.send(());
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
fn clock() -> Instant {
    Instant::now()
}

/// What the mutexes here guard is replaced whole, so a panic elsewhere cannot leave it half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
