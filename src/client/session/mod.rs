//! One client's session with the server, as a state machine: time, datagrams and commands go in; datagrams, events and
//! the next deadline come out as values.
//!
//! Owns login, heartbeats, requests and their repetition, coming back after a break, and leaving. Must not touch a
//! socket, a clock or a file: the driver (see [`control`](super::control)) moves bytes and decides nothing, and a test
//! can run a whole network of sessions in virtual time.
//!
//! After any input the driver takes everything from [`Session::poll_transmit`] and [`Session::poll_event`], then sleeps
//! until [`Session::poll_timeout`].

mod acked_publications;
mod error;
mod established;
mod handshake;
mod heartbeat;
mod reconnect;
mod requests;
mod resync;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::acked_publications::Ledger;
pub use self::error::{LoginError, RequestError};
use self::established::Link;
use self::handshake::{Handshake, Identity, Proof, Verdict};
use self::reconnect::Reconnect;
use self::requests::{Ended, Owner, Requests};
use self::resync::Repair;
pub(crate) use self::resync::{batches, publish_batches, singly, staging};
use crate::common::crypto::Secret;
use crate::common::handshake_keys::{ClientInfo, SessionParams};
use crate::common::limits::{COMMAND_TIMEOUT, LOGIN_TIMEOUT, LOGOUT_TIMEOUT, MESSAGE_MAX_BYTES, PROTOCOL_VERSION};
use crate::common::message::{ClientMessage, Request, Response, encoded_len};
use crate::common::opaque::KeyStretching;
use crate::common::packet::Packet;
use crate::common::types::UserName;

/// A password, wiped when dropped.
pub type Password = Zeroizing<Vec<u8>>;

/// Datagrams to be sent, oldest first.
type Outbox = VecDeque<(SocketAddr, Vec<u8>)>;

/// A LEAVE is repeated this often until it is answered or [`LOGOUT_TIMEOUT`] is over.
const LEAVE_RETRY: Duration = Duration::from_millis(80);
/// A login that is being answered, but too slowly to finish, is given up after this many times [`LOGIN_TIMEOUT`].
const ANSWERED_PATIENCE: u32 = 3;
/// Variant tags, id and floor around a request, bytes.
const REQUEST_HEADROOM_BYTES: usize = 1 + 10 + 10;

/// What a session needs to know from the start.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Every address of the server, in the order to be tried; at least one.
    pub servers: Vec<SocketAddr>,
    /// The port of this client's TCP listener.
    pub tcp_port: u16,
    /// How hard passwords are stretched.
    pub stretching: KeyStretching,
}

/// Names one [`Session::request`] to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHandle(pub u64);

/// What the session has to tell.
#[derive(Debug)]
pub enum Event {
    /// A session stands, by a login or (`resumed`) in the place of one that broke off.
    Started {
        /// Who is logged in.
        user: UserName,
        /// What the server told.
        welcome: SessionParams,
        /// What opens the transfer tickets sealed for this client from now on.
        ticket_key: Secret,
        /// Whether it takes the place of one that broke off.
        resumed: bool,
    },
    /// A [`Session::login`] has come to its end; after [`Event::Started`] where it succeeded.
    LoginFinished(Result<SessionParams, LoginError>),
    /// The server has been silent for the liveness time; the session tries to come back by itself.
    ConnectionLost,
    /// The session has ended and could not be brought back: credentials changed, or the user is active elsewhere.
    LoggedOut,
    /// Acknowledged publications were missing at the server after a reconnect; that many were published again.
    Resynced(usize),
    /// A request has come to its end.
    RequestFinished {
        /// Which.
        request: RequestHandle,
        /// How.
        result: Result<Response, RequestError>,
    },
    /// A [`Session::logout`] has come to its end.
    LoggedOutByUser,
}

enum State {
    Idle,
    LoggingIn { handshake: Box<Handshake>, started: Instant },
    Standing,
    Reconnecting(Reconnect),
    Leaving { until: Instant, retry_at: Instant },
}

/// See the module.
pub struct Session {
    config: SessionConfig,
    rng: ChaCha20Rng,
    free_slots: u8,
    state: State,
    identity: Option<Arc<Identity>>,
    link: Option<Link>,
    requests: Requests,
    ledger: Ledger,
    repair: Repair,
    out: Outbox,
    events: VecDeque<Event>,
}

impl Session {
    /// A session that is not there yet. `rng` must be seeded from the system's randomness but in tests.
    pub fn new(config: SessionConfig, rng: ChaCha20Rng) -> Self {
        assert!(!config.servers.is_empty(), "a server has at least one address");
        Self {
            config,
            rng,
            free_slots: 0,
            state: State::Idle,
            identity: None,
            link: None,
            requests: Requests::default(),
            ledger: Ledger::default(),
            repair: Repair::default(),
            out: Outbox::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts to log in; ends with [`Event::LoginFinished`].
    pub fn login(&mut self, now: Instant, user: UserName, password: Password) {
        if !matches!(self.state, State::Idle) {
            return self.events.push_back(Event::LoginFinished(Err(LoginError::LoggedIn)));
        }
        let identity = Arc::new(Identity { user, password });
        let proof = Proof::Password(Arc::clone(&identity), self.config.stretching);
        self.identity = Some(identity);
        let handshake = self.handshake(now, proof);
        self.state = State::LoggingIn { handshake, started: now };
    }

    /// Starts a request; ends with [`Event::RequestFinished`] under the handle returned.
    pub fn request(&mut self, now: Instant, request: Request) -> RequestHandle {
        if encoded_len(&request) + REQUEST_HEADROOM_BYTES > MESSAGE_MAX_BYTES {
            return self.refuse(RequestError::Refused);
        }
        if !matches!(self.state, State::Standing | State::Reconnecting(_)) {
            return self.refuse(RequestError::NotAuthenticated);
        }
        let handle = self.requests.ask(now, request);
        self.pump(now);
        handle
    }

    /// Nobody waits for this answer any more; no event comes of it.
    pub fn cancel(&mut self, now: Instant, request: RequestHandle) {
        if let Some(ended) = self.requests.cancel(request) {
            self.gave_up(&ended);
            self.pump(now);
        }
    }

    /// Uploads that could start now; goes into heartbeats.
    pub fn set_free_slots(&mut self, slots: u8) {
        self.free_slots = slots;
    }

    /// Tells the server that the user goes; ends with [`Event::LoggedOutByUser`] within [`LOGOUT_TIMEOUT`]. Requests that have not
    /// ended fail, the password is wiped.
    pub fn logout(&mut self, now: Instant) {
        let until = now + LOGOUT_TIMEOUT;
        match &mut self.state {
            State::Idle => self.events.push_back(Event::LoggedOutByUser),
            State::LoggingIn { .. } => {
                self.events.push_back(Event::LoginFinished(Err(LoginError::Unreachable)));
                self.end(Event::LoggedOutByUser);
            }
            State::Leaving { .. } => {}
            State::Standing => {
                self.fail_all();
                self.state = State::Leaving { until, retry_at: now };
                self.handle_timeout(now);
            }
            State::Reconnecting(reconnect) => {
                reconnect.leave_by(now, until);
                self.fail_all();
                self.handle_timeout(now);
            }
        }
    }

    /// The network says that nobody listens at this address.
    pub fn unreachable(&mut self, now: Instant, address: SocketAddr) {
        let handshake = match &mut self.state {
            State::LoggingIn { handshake, .. } => Some(&mut **handshake),
            State::Reconnecting(reconnect) => reconnect.handshake_mut(),
            _ => None,
        };
        if let Some(handshake) = handshake {
            handshake.unreachable(now, address, &mut self.out);
        }
    }

    /// Takes a datagram; it is opened where it stands. What is not the server's is ignored.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        match Packet::parse(datagram) {
            None => log::trace!("{from}: {} bytes that are no packet", datagram.len()),
            Some(Packet::Session { .. }) => self.handle_sealed(now, from, datagram),
            Some(Packet::Reset { id, token, delay_ms }) => {
                let is_ours = |link: &Link| {
                    let is_true = link.welcome.reset_token.as_slice().ct_eq(&token).into();
                    link.server == from && link.welcome.session == id && is_true
                };
                if self.link.as_ref().is_some_and(is_ours) {
                    self.handle_reset(now, Duration::from_millis(delay_ms.into()));
                }
            }
            Some(packet) => self.handle_handshake(now, from, &packet),
        }
        self.pump(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Idle => {}
            State::LoggingIn { handshake, started } => {
                if now >= login_ends(handshake, *started) {
                    self.events.push_back(Event::LoginFinished(Err(LoginError::Unreachable)));
                    self.reset();
                } else {
                    handshake.handle_timeout(now, &mut self.rng, &mut self.out);
                }
            }
            State::Standing => self.beat(now),
            State::Reconnecting(_) => self.reconnect_timeout(now),
            State::Leaving { until, .. } if now >= *until => self.end(Event::LoggedOutByUser),
            State::Leaving { retry_at, .. } => {
                if now >= *retry_at {
                    *retry_at = now + LEAVE_RETRY;
                    self.send(&ClientMessage::Logout);
                }
            }
        }
        while let Some(ended) = self.requests.take_expired(now) {
            self.gave_up(&ended);
            if let Owner::Caller(request) = ended.owner {
                self.events.push_back(Event::RequestFinished { request, result: Err(RequestError::Unreachable) });
            }
        }
        self.pump(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. `None`: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (due, standing) = match &self.state {
            State::Idle => return None,
            State::LoggingIn { handshake, started } => {
                return Some(handshake.timeout().min(login_ends(handshake, *started)));
            }
            State::Leaving { until, retry_at } => return Some(*until.min(retry_at)),
            State::Standing => (self.link.as_ref().map(|link| link.heartbeats.timeout()), true),
            State::Reconnecting(reconnect) => {
                let fading = self.link.as_ref().and_then(|link| link.heartbeats.fading_timeout());
                (fading.into_iter().chain([reconnect.timeout()]).min(), false)
            }
        };
        due.into_iter().chain(self.requests.timeout(standing)).min()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    /// The next thing to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_handshake(&mut self, now: Instant, from: SocketAddr, packet: &Packet<'_>) {
        let State::LoggingIn { handshake, .. } = &mut self.state else {
            return self.reconnect_packet(now, from, packet);
        };
        let Some(verdict) = handshake.handle(now, from, packet, &mut self.rng, &mut self.out) else { return };
        let error = match verdict {
            Verdict::Established { server, welcome, secret } => {
                self.ledger.begin(&welcome);
                self.establish(now, server, welcome.clone(), &secret, false);
                return self.events.push_back(Event::LoginFinished(Ok(welcome)));
            }
            Verdict::Refused => LoginError::Refused,
            Verdict::AlreadyActive(liveness) => LoginError::AlreadyActive { liveness },
            Verdict::Throttled(seconds) => LoginError::Throttled(seconds),
            Verdict::Version(server) => LoginError::Version { server, client: PROTOCOL_VERSION },
        };
        self.events.push_back(Event::LoginFinished(Err(error)));
        self.reset();
    }

    fn handshake(&mut self, now: Instant, proof: Proof) -> Box<Handshake> {
        let details = ClientInfo { tcp_port: self.config.tcp_port, free_slots: self.free_slots };
        Handshake::start(now, proof, &self.config.servers, details, &mut self.rng, &mut self.out)
    }

    fn refuse(&mut self, error: RequestError) -> RequestHandle {
        let request = self.requests.new_handle();
        self.events.push_back(Event::RequestFinished { request, result: Err(error) });
        request
    }

    fn gave_up(&mut self, ended: &Ended) {
        if ended.was_sent {
            self.ledger.gave_up(&ended.request);
        }
    }

    fn fail_all(&mut self) {
        for request in self.requests.take_all() {
            self.events.push_back(Event::RequestFinished { request, result: Err(RequestError::NotAuthenticated) });
        }
    }

    /// The session is over for good.
    fn end(&mut self, event: Event) {
        self.reset();
        self.events.push_back(event);
    }

    fn reset(&mut self) {
        self.fail_all();
        self.state = State::Idle;
        self.identity = None;
        self.link = None;
        self.ledger = Ledger::default();
        self.repair.abandon();
    }
}

/// Nobody answers for [`LOGIN_TIMEOUT`]: unreachable. Who is answered waits longer, as on a bad line.
fn login_ends(handshake: &Handshake, started: Instant) -> Instant {
    started + if handshake.is_answered() { LOGIN_TIMEOUT * ANSWERED_PATIENCE } else { LOGIN_TIMEOUT }
}

const _: () = assert!(LOGOUT_TIMEOUT.as_millis() > LEAVE_RETRY.as_millis() * 8, "a LEAVE is repeated often enough");
const _: () = assert!(COMMAND_TIMEOUT.as_millis() > LOGIN_TIMEOUT.as_millis(), "a reconnect fits a command's patience");

/// The moment at which the tests' virtual time starts.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; tests need one to count from")]
fn test_epoch() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod forged_tests;
#[cfg(test)]
mod resync_tests;
#[cfg(test)]
pub(in crate::client) mod test_support;
#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
