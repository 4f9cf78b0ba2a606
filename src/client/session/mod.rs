//! One client's session with the server, as a sans-IO state machine: time, datagrams and commands go in; datagrams,
//! events and the next deadline come out as values.
//!
//! Owns login, heartbeats, requests and their retransmission, reconnecting, and logout. Must not touch a socket, a clock
//! or a file: the driver (see [`control`](super::control)) moves bytes and decides nothing, and a test runs a network of
//! sessions in virtual time.
//!
//! After any input the driver drains [`Session::poll_transmit`] and [`Session::poll_event`], then sleeps until
//! [`Session::poll_timeout`].

mod acked_publications;
mod error;
mod established;
mod handshake;
mod heartbeat;
pub(crate) mod list_limits;
pub(crate) mod publishing;
mod reconnect;
mod reply_pages;
mod requests;
mod resync;
mod timers;
mod waits;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use subtle::ConstantTimeEq;

use self::acked_publications::AckedPublications;
pub use self::error::{LoginError, RequestError};
use self::established::ServerConnection;
use self::handshake::{AuthMethod, Handshake, UserCredentials};
use self::reconnect::Reconnect;
use self::requests::Requests;
use self::resync::Resync;
use self::timers::{Timer, TimerTable};
use self::waits::Waits;
pub use self::waits::{ChangedList, FinishedWait, WaitCondition, WaitId, WaitOutcome, WatchedList};
use crate::common::crypto::Secret;
use crate::common::handshake_keys::{ClientInfo, SessionParams, reset_tag};
use crate::common::limits::{COMMAND_TIMEOUT, LOGIN_TIMEOUT, LOGOUT_TIMEOUT, MESSAGE_MAX_BYTES, RESET_DELAY_MAX};
use crate::common::message::{ClientMessage, Request, Response, encoded_len};
use crate::common::opaque::KeyStretching;
use crate::common::packet::Packet;
use crate::common::types::{InstanceId, Password, UserName};

/// A LOGOUT is retransmitted after this wait until it is confirmed or [`LOGOUT_TIMEOUT`] is over.
const LOGOUT_RETRY: Duration = Duration::from_millis(80);
/// A login that a server answers, but too slowly to complete, is given up after this many times [`LOGIN_TIMEOUT`].
const ANSWERED_LOGIN_FACTOR: u32 = 3;
/// Variant tag, id, lowest pending id and number of pages before a request, bytes.
const REQUEST_HEADROOM_BYTES: usize = 1 + 10 + 10 + 1;

/// The fixed parameters of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Every address of the server, in the order to be tried; at least one.
    pub servers: Vec<SocketAddr>,
    /// The port of this client's TCP listener.
    pub tcp_port: u16,
    /// The cost of stretching a password.
    pub stretching: KeyStretching,
}

/// Identifies one [`Session::request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHandle(pub u64);

/// What a session reports.
#[derive(Debug)]
pub enum Event {
    /// A session is established.
    Started {
        /// The user who is logged in.
        user: UserName,
        /// The server's parameters of the session.
        params: SessionParams,
        /// Opens the transfer tickets sealed for this client from now on.
        ticket_key: Secret,
        /// Whether the session replaces one that ended, rather than following a [`Session::login`].
        resumed: bool,
    },
    /// A [`Session::login`] has ended; follows [`Event::Started`] if it succeeded.
    LoginFinished(Result<SessionParams, LoginError>),
    /// The server has been silent for the liveness time; the session reconnects by itself.
    ConnectionLost,
    /// The session has ended and cannot be resumed: credentials have changed, or the user is active elsewhere.
    LoggedOut,
    /// The server had lost acknowledged publications; after a reconnect this many were published again.
    Resynced(usize),
    /// A [`Session::request`] has ended.
    RequestFinished { request: RequestHandle, result: Result<Response, RequestError> },
    /// A [`Session::wait`] has ended.
    WaitFinished(FinishedWait),
    /// A list of a [`Session::watch`] is to be asked for.
    ListChanged(ChangedList),
    /// A [`Session::logout`] has ended.
    LoggedOutByUser,
}

enum State {
    Idle,
    LoggingIn { handshake: Box<Handshake>, started: Instant },
    Established,
    Reconnecting(Reconnect),
    LoggingOut,
}

/// What every part of a session uses: randomness in, datagrams (oldest first) and deadlines out.
struct Io {
    rng: ChaCha20Rng,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    timers: TimerTable,
}

/// A client's session with the server. See the module.
pub struct Session {
    config: SessionConfig,
    free_slots: u8,
    state: State,
    credentials: Option<Arc<UserCredentials>>,
    connection: Option<ServerConnection>,
    /// Sessions in a row that the server has ended soon after their start.
    short_sessions: u32,
    requests: Requests,
    acked: AckedPublications,
    resync: Resync,
    waits: Waits,
    io: Io,
    events: VecDeque<Event>,
}

impl Session {
    /// A session that is not logged in. `rng` must be seeded from the system's randomness except in tests.
    pub fn new(config: SessionConfig, rng: ChaCha20Rng) -> Self {
        assert!(!config.servers.is_empty(), "a server has at least one address");
        Self {
            config,
            free_slots: 0,
            state: State::Idle,
            credentials: None,
            connection: None,
            short_sessions: 0,
            requests: Requests::default(),
            acked: AckedPublications::default(),
            resync: Resync::default(),
            waits: Waits::default(),
            io: Io { rng, out: VecDeque::new(), timers: TimerTable::default() },
            events: VecDeque::new(),
        }
    }

    /// Starts to log in; ends with [`Event::LoginFinished`].
    pub fn login(&mut self, now: Instant, user: UserName, password: Password) {
        if !matches!(self.state, State::Idle) {
            return self.events.push_back(Event::LoginFinished(Err(LoginError::LoggedIn)));
        }
        let credentials = Arc::new(UserCredentials { user, password });
        let auth = AuthMethod::Password(Arc::clone(&credentials), self.config.stretching);
        self.credentials = Some(credentials);
        let handshake = self.start_handshake(now, auth);
        self.state = State::LoggingIn { handshake, started: now };
        self.io.timers.set(Timer::LoginDeadline, now + LOGIN_TIMEOUT);
    }

    /// Starts a request; ends with [`Event::RequestFinished`] under the returned handle.
    pub fn request(&mut self, now: Instant, request: Request) -> RequestHandle {
        if encoded_len(&request) + REQUEST_HEADROOM_BYTES > MESSAGE_MAX_BYTES {
            return self.fail_request(RequestError::Refused);
        }
        if !matches!(self.state, State::Established | State::Reconnecting(_)) {
            return self.fail_request(RequestError::NotAuthenticated);
        }
        let handle = self.requests.enqueue(now, request);
        self.flush_requests(now);
        handle
    }

    /// Waits until `condition` is met, for at most `timeout` (zero: asks once); ends with [`Event::WaitFinished`].
    pub fn wait(&mut self, now: Instant, wait: WaitId, condition: WaitCondition, timeout: Duration) {
        let started = match self.state {
            State::Established | State::Reconnecting(_) => self.waits.start(now, wait, condition, timeout),
            State::Idle | State::LoggingIn { .. } | State::LoggingOut => Err(RequestError::NotAuthenticated),
        };
        if let Err(error) = started {
            self.events.push_back(Event::WaitFinished(FinishedWait { wait, result: Err(error) }));
        }
        self.flush_requests(now);
    }

    /// Watches a list, also over logouts and logins, until [`cancel_wait`](Self::cancel_wait): [`Event::ListChanged`] comes
    /// when it is to be asked for, first at the start of each session. The error: there are too many waits and lists.
    pub fn watch(&mut self, now: Instant, id: WaitId, list: WatchedList) -> Result<(), RequestError> {
        self.waits.watch(id, list)?;
        self.flush_requests(now);
        Ok(())
    }

    /// Cancels a wait or a watched list, if it has not ended; ends with [`Event::WaitFinished`].
    pub fn cancel_wait(&mut self, now: Instant, wait: WaitId) {
        if self.waits.remove(wait) {
            let result = Ok(WaitOutcome::Cancelled);
            self.events.push_back(Event::WaitFinished(FinishedWait { wait, result }));
        }
        self.flush_requests(now);
    }

    /// Sets the number of uploads that could start now; heartbeats carry it.
    pub fn set_free_slots(&mut self, slots: u8) {
        self.free_slots = slots;
    }

    /// Logs out; ends with [`Event::LoggedOutByUser`] within [`LOGOUT_TIMEOUT`]. Pending requests fail, and the password
    /// is wiped.
    pub fn logout(&mut self, now: Instant) {
        let deadline = now + LOGOUT_TIMEOUT;
        match self.state {
            State::Idle => self.events.push_back(Event::LoggedOutByUser),
            State::LoggingIn { .. } => {
                self.events.push_back(Event::LoginFinished(Err(LoginError::Unreachable)));
                self.end(Event::LoggedOutByUser);
            }
            State::LoggingOut => {}
            State::Established => {
                self.fail_all();
                self.begin_logout(now, deadline);
            }
            State::Reconnecting(_) => {
                self.io.timers.set(Timer::LogoutDeadline, deadline);
                self.hurry_reconnect(now);
                self.fail_all();
                self.handle_timeout(now);
            }
        }
    }

    /// The network reports that no server listens at this address.
    pub fn unreachable(&mut self, now: Instant, address: SocketAddr) {
        if let Some((handshake, io)) = self.handshake_mut() {
            handshake.on_unreachable(now, address, io);
        }
    }

    /// Processes a datagram, which is decrypted in place. Datagrams that are not the server's are ignored.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        match Packet::parse(datagram) {
            None => log::trace!("{from}: {} bytes that are no packet", datagram.len()),
            Some(Packet::Session { .. }) => self.on_sealed(now, from, datagram),
            Some(Packet::Reset { id, tag, delay_ms }) => {
                let is_own = |connection: &ServerConnection| {
                    let expected = reset_tag(&connection.params.reset_token.0, delay_ms);
                    connection.server == from && connection.params.session == id && expected.ct_eq(&tag).into()
                };
                if self.connection.as_ref().is_some_and(is_own) {
                    self.on_reset(now, Duration::from_millis(delay_ms.into()).min(RESET_DELAY_MAX));
                }
            }
            Some(packet) if matches!(self.state, State::LoggingIn { .. }) => self.on_login_packet(now, from, &packet),
            Some(packet) => self.on_reconnect_packet(now, from, &packet),
        }
        self.flush_requests(now);
    }

    /// Handles the timers that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_expired_timers(now);
        self.flush_requests(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. `None`: not before another input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.io.timers.next_timeout()
    }

    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.io.out.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_expired_timers(&mut self, now: Instant) {
        for timer in Timer::ALL {
            if self.io.timers.take_expired(timer, now) {
                self.on_timer(now, timer);
            }
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::LogoutDeadline => self.end(Event::LoggedOutByUser),
            Timer::LoginDeadline => self.end(Event::LoginFinished(Err(LoginError::Unreachable))),
            Timer::Liveness => self.on_liveness_timer(now),
            Timer::Heartbeat => self.on_heartbeat_timer(now),
            Timer::ReportLost => self.events.push_back(Event::ConnectionLost),
            Timer::NextAddress | Timer::Login2Grace | Timer::HandshakeRetry => {
                if let Some((handshake, io)) = self.handshake_mut() {
                    handshake.on_timer(now, timer, io);
                }
            }
            Timer::ReconnectAttempt => self.on_reconnect_timer(now),
            Timer::LogoutRetry => self.send_logout(now),
            Timer::RequestDeadline => self.expire_requests(now),
            // Due requests are sent, and waits end, after every input.
            Timer::RequestRetry | Timer::WaitDeadline => {}
        }
    }

    fn on_login_packet(&mut self, now: Instant, from: SocketAddr, packet: &Packet<'_>) {
        let State::LoggingIn { handshake, started } = &mut self.state else { return };
        let outcome = handshake.on_packet(now, from, packet, &mut self.io);
        if handshake.got_reply() {
            self.io.timers.set(Timer::LoginDeadline, *started + LOGIN_TIMEOUT * ANSWERED_LOGIN_FACTOR);
        }
        match outcome {
            None => {}
            Some(Ok(established)) => {
                let params = established.params.clone();
                self.acked.reset(&params);
                self.establish(now, established);
                self.events.push_back(Event::LoginFinished(Ok(params)));
            }
            Some(Err(error)) => self.end(Event::LoginFinished(Err(error))),
        }
    }

    fn start_handshake(&mut self, now: Instant, auth: AuthMethod) -> Box<Handshake> {
        let instance = self.connection.as_ref().map_or(InstanceId(0), |connection| connection.params.instance);
        let client_info = ClientInfo { tcp_port: self.config.tcp_port, free_slots: self.free_slots, instance };
        Handshake::start(now, auth, &self.config.servers, client_info, &mut self.io)
    }

    /// The handshake under way, and what it works with.
    fn handshake_mut(&mut self) -> Option<(&mut Handshake, &mut Io)> {
        let handshake = match &mut self.state {
            State::LoggingIn { handshake, .. } => Some(&mut **handshake),
            State::Reconnecting(reconnect) => reconnect.handshake_mut(),
            State::Idle | State::Established | State::LoggingOut => None,
        };
        handshake.map(|handshake| (handshake, &mut self.io))
    }

    /// Sends LOGOUT over the established session.
    fn begin_logout(&mut self, now: Instant, deadline: Instant) {
        self.state = State::LoggingOut;
        if let Some(connection) = &mut self.connection {
            connection.heartbeats.stop(&mut self.io.timers);
        }
        self.io.timers.set(Timer::LogoutDeadline, deadline);
        self.send_logout(now);
        self.flush_requests(now);
    }

    fn send_logout(&mut self, now: Instant) {
        self.io.timers.set(Timer::LogoutRetry, now + LOGOUT_RETRY);
        self.send(&ClientMessage::Logout);
    }

    /// A request that fails before it is queued.
    fn fail_request(&mut self, error: RequestError) -> RequestHandle {
        let request = self.requests.new_handle();
        self.events.push_back(Event::RequestFinished { request, result: Err(error) });
        request
    }

    fn expire_requests(&mut self, now: Instant) {
        while let Some(expired) = self.requests.pop_expired(now) {
            if let Some(request) = expired.sent {
                self.acked.on_abandoned(&request);
            }
            let error = if expired.is_busy { RequestError::Busy } else { RequestError::Unreachable };
            self.events.push_back(Event::RequestFinished { request: expired.handle, result: Err(error) });
        }
    }

    fn fail_all(&mut self) {
        for request in self.requests.take_all() {
            self.events.push_back(Event::RequestFinished { request, result: Err(RequestError::NotAuthenticated) });
        }
        for wait in self.waits.take_all() {
            let result = Err(RequestError::NotAuthenticated);
            self.events.push_back(Event::WaitFinished(FinishedWait { wait, result }));
        }
    }

    /// The session has ended for good: everything is forgotten, and `event` is the last that it reports.
    fn end(&mut self, event: Event) {
        self.fail_all();
        self.state = State::Idle;
        (self.credentials, self.connection) = (None, None);
        self.acked = AckedPublications::default();
        self.resync.abandon();
        self.io.timers = TimerTable::default();
        self.events.push_back(event);
    }
}

const _: () = assert!(LOGOUT_TIMEOUT.as_millis() > LOGOUT_RETRY.as_millis() * 8, "a LOGOUT is sent often enough");
const _: () =
    assert!(COMMAND_TIMEOUT.as_millis() > LOGIN_TIMEOUT.as_millis(), "a reconnect fits into a command's timeout");

/// The start of the tests' virtual time.
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
