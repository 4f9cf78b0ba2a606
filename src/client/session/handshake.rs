//! One exchange that establishes a session: HELLO, RETRY, then either the two round trips of a login or the one of a
//! resumption.
//!
//! Owns the steps, their retransmission and the choice among several server addresses. Must not decide what an outcome
//! means (see [`reconnect`](super::reconnect)) nor give up: the session drops the exchange.
//!
//! Defended: a packet counts only if it carries the nonce of this exchange and comes from an address that was tried; a
//! session is established only by an answer under keys derived from the password or from the last session. A LOGIN2 that
//! does not verify, which any on-path attacker can forge, is set aside while the server's own may still come. Once the
//! server has proven itself, no other host can refuse a login. Not defended: an on-path attacker who sees the HELLO can
//! answer before the server, or flood the client with answers, and so make the login fail; the attacker could also drop
//! the client's datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, RngCore};
use rand_chacha::ChaCha20Rng;

use super::timers::Timer;
use super::{Io, LoginError};
use crate::client::backoff::Backoff;
use crate::common::crypto::Secret;
use crate::common::handshake_keys::{ClientInfo, LoginKey, LoginResult, ResumptionKey, SessionParams};
use crate::common::limits::{LOGIN_RETRY_FIRST, LOGIN_RETRY_MAX, PENDING_LOGIN_LIFETIME, PROTOCOL_VERSION};
use crate::common::opaque::{ClientLogin, KeyStretching};
use crate::common::packet::{
    CLIENT_INFO_BYTES, Cookie, KE1_BYTES, KE2_BYTES, KE3_BYTES, LOGIN_RESULT_BYTES, Nonce, Packet,
};
use crate::common::types::{Password, UserName};

/// First wait before a step of a resumption is retransmitted. The server begins the session when it answers, and that
/// answer must arrive well within the liveness time.
const RESUME_RETRY_FIRST: Duration = Duration::from_millis(100);
/// How long one server address is tried alone before the next one is tried as well.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// A HELLO costs the server next to nothing. It is sent this often before the waits grow, so that one arrives within the
/// login timeout even on a bad link.
const HELLO_TRIES: u32 = 20;
/// After this many transmissions of a step without an answer the exchange restarts: the server may have forgotten it.
const STEP_TRIES: u32 = 6;
/// A LOGIN2 that does not verify means a wrong password, unless an attacker forged it. The server's own is awaited for
/// this long before the exchange goes on to its refusal.
pub(super) const LOGIN2_GRACE: Duration = Duration::from_millis(250);
/// LOGIN2s verified in one exchange. Each costs a key stretching, and a forged one is a guess at the password.
const LOGIN2_TRIES: usize = 3;
/// The same as [`STEP_TRIES`] for LOGIN3. The session may be established by then, and a new exchange would find the user
/// active: LOGIN3 is sent until the server has forgotten the exchange.
const LOGIN3_TRIES: u32 = 12;
const _: () = assert!(LOGIN_RETRY_MAX.as_millis() * (LOGIN3_TRIES as u128 - 2) >= PENDING_LOGIN_LIFETIME.as_millis());

/// The user who logs in. The password is wiped when the session and its last exchange have dropped it.
pub(super) struct UserCredentials {
    pub user: UserName,
    pub password: Password,
}

/// What is kept of a session in order to resume it.
pub(super) struct ResumptionState {
    pub key: ResumptionKey,
    pub ticket: Vec<u8>,
}

/// How a client authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthKind {
    Password,
    /// With the last session's ticket.
    Ticket,
}

/// The secrets with which a client authenticates.
pub(super) enum AuthMethod {
    Password(Arc<UserCredentials>, KeyStretching),
    Ticket(Arc<ResumptionState>),
}

/// An exchange has established a session.
pub(super) struct Established {
    pub server: SocketAddr,
    pub params: SessionParams,
    pub secret: Secret,
}

/// How an exchange ended. [`LoginError::Refused`] also means that the ticket is invalid.
pub(super) type HandshakeResult = Result<Established, LoginError>;

enum Step {
    Hello,
    Login1 {
        cookie: Cookie,
        login: Box<ClientLogin>,
        ke1: [u8; KE1_BYTES],
    },
    /// Without a key the password was wrong: the exchange is completed with random bytes, so that a wrong password is
    /// indistinguishable on the wire.
    Login3 {
        packet: Vec<u8>,
        key: Option<LoginKey>,
    },
    Resume {
        cookie: Cookie,
    },
}

/// One exchange. Uses [`Timer::NextAddress`], [`Timer::Login2Grace`] and [`Timer::HandshakeRetry`].
pub(super) struct Handshake {
    auth: AuthMethod,
    client_info: ClientInfo,
    nonce: Nonce,
    /// Every address of the server; a HELLO was sent to the first `tried`.
    servers: Vec<SocketAddr>,
    tried: usize,
    /// The address that answered first; set from the second step on.
    server: Option<SocketAddr>,
    /// Kept when the exchange restarts.
    got_reply: bool,
    step: Step,
    /// The LOGIN2s of this exchange that did not verify.
    rejected_login2s: Vec<[u8; KE2_BYTES]>,
    /// Transmissions of the present step.
    tries: u32,
    backoff: Backoff,
}

impl Handshake {
    /// Sends the first HELLO. `servers` is never empty.
    pub fn start(
        now: Instant,
        auth: AuthMethod,
        servers: &[SocketAddr],
        client_info: ClientInfo,
        io: &mut Io,
    ) -> Box<Self> {
        io.timers.clear_handshake();
        let mut handshake = Box::new(Self {
            client_info,
            nonce: io.rng.r#gen(),
            servers: servers.to_vec(),
            tried: 1,
            server: None,
            got_reply: false,
            step: Step::Hello,
            rejected_login2s: Vec::new(),
            tries: 0,
            backoff: first_backoff(&auth),
            auth,
        });
        handshake.set_next_address_timer(now, io);
        handshake.send(now, io);
        handshake
    }

    pub fn auth_kind(&self) -> AuthKind {
        match self.auth {
            AuthMethod::Password(..) => AuthKind::Password,
            AuthMethod::Ticket(_) => AuthKind::Ticket,
        }
    }

    /// Whether a server has answered at all.
    pub fn got_reply(&self) -> bool {
        self.got_reply
    }

    /// Whether an attacker tampers: a server sends one LOGIN2 in an exchange, however often.
    pub fn saw_conflicting_login2(&self) -> bool {
        self.rejected_login2s.len() > 1
    }

    /// One of the timers of the exchange has expired.
    pub fn on_timer(&mut self, now: Instant, timer: Timer, io: &mut Io) {
        match timer {
            Timer::NextAddress => self.try_next_address(now, io),
            Timer::Login2Grace => {
                let (ke3, client_info) = (random(&mut io.rng), random(&mut io.rng));
                self.begin_login3(now, None, &ke3, &client_info, io);
            }
            Timer::HandshakeRetry => {
                let is_given_up = match self.step {
                    Step::Hello => false,
                    Step::Login3 { .. } => self.tries >= LOGIN3_TRIES,
                    Step::Login1 { .. } | Step::Resume { .. } => self.tries >= STEP_TRIES,
                };
                if is_given_up {
                    self.restart(now, io);
                }
                self.send(now, io);
            }
            _ => {}
        }
    }

    /// No server listens at `address`: the next one is tried without a wait.
    pub fn on_unreachable(&mut self, now: Instant, address: SocketAddr, io: &mut Io) {
        if self.servers[self.tried - 1] == address {
            self.try_next_address(now, io);
        }
    }

    /// Processes a packet that is not part of a session. Ignores what does not belong to this exchange.
    pub fn on_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &Packet<'_>,
        io: &mut Io,
    ) -> Option<HandshakeResult> {
        let from_server = match self.server {
            Some(server) => server == from,
            None => self.servers[..self.tried].contains(&from),
        };
        if !from_server || packet_nonce(packet) != Some(self.nonce) {
            return None;
        }
        match (*packet, &self.step) {
            (Packet::Retry { cookie, .. }, _) => self.on_retry(now, from, cookie, io),
            (Packet::Login2 { ke2, .. }, _) => self.on_login2(now, ke2, io),
            (Packet::Version { version, .. }, Step::Hello) if version != PROTOCOL_VERSION => {
                return Some(Err(LoginError::Version { server: version, client: PROTOCOL_VERSION }));
            }
            (Packet::Throttled { retry_after_s, .. }, Step::Login1 { .. }) => {
                return Some(Err(LoginError::Throttled(retry_after_s)));
            }
            (Packet::Login4 { result, .. }, Step::Login3 { key, .. }) => {
                return self.on_login4(from, key.as_ref(), result);
            }
            (Packet::Resumed { server_nonce, result, .. }, Step::Resume { .. }) => {
                return self.on_resumed(from, &server_nonce, result);
            }
            (Packet::Refused { .. }, Step::Resume { .. }) => return Some(Err(LoginError::Refused)),
            _ => {}
        }
        None
    }

    /// The first RETRY chooses the server; a later one brings a fresh cookie for the step it answers.
    fn on_retry(&mut self, now: Instant, from: SocketAddr, fresh: Cookie, io: &mut Io) {
        match &mut self.step {
            Step::Hello => {
                self.step = match &self.auth {
                    AuthMethod::Password(credentials, _) => {
                        let (login, ke1) = ClientLogin::start(&mut io.rng, &credentials.password);
                        Step::Login1 { cookie: fresh, login: Box::new(login), ke1 }
                    }
                    AuthMethod::Ticket(_) => Step::Resume { cookie: fresh },
                };
                self.server = Some(from);
                self.got_reply = true;
                io.timers.clear(Timer::NextAddress);
            }
            Step::Login1 { cookie, .. } | Step::Resume { cookie } if *cookie != fresh => *cookie = fresh,
            _ => return,
        }
        self.send_first(now, io);
    }

    fn on_login2(&mut self, now: Instant, ke2: &[u8; KE2_BYTES], io: &mut Io) {
        let AuthMethod::Password(credentials, stretching) = &self.auth else { return };
        if self.rejected_login2s.len() >= LOGIN2_TRIES || self.rejected_login2s.contains(ke2) {
            return;
        }
        match &mut self.step {
            Step::Login1 { login, .. } => {
                match login.finish(&mut io.rng, &credentials.user, &credentials.password, ke2, *stretching) {
                    Ok((key, ke3)) => {
                        let client_info = key.client_info(&self.nonce).seal(&self.client_info);
                        return self.begin_login3(now, Some(key), &ke3, &client_info, io);
                    }
                    Err(_) if io.timers.get(Timer::Login2Grace).is_none() => {
                        io.timers.set(Timer::Login2Grace, now + LOGIN2_GRACE);
                    }
                    Err(_) => {}
                }
            }
            // Too late to verify it, but it shows that one of the two is not the server's.
            Step::Login3 { key: None, .. } => {}
            _ => return,
        }
        self.rejected_login2s.push(*ke2);
    }

    fn begin_login3(
        &mut self,
        now: Instant,
        key: Option<LoginKey>,
        ke3: &[u8; KE3_BYTES],
        client_info: &[u8; CLIENT_INFO_BYTES],
        io: &mut Io,
    ) {
        let packet = Packet::Login3 { nonce: self.nonce, ke3, client_info }.to_bytes();
        self.step = Step::Login3 { packet, key };
        io.timers.clear(Timer::Login2Grace);
        self.send_first(now, io);
    }

    /// The server has proven that it holds the password's record. An answer that does not open is an attacker's, or one
    /// to an attacker's LOGIN3, or the password has just been changed, which the next exchange finds out.
    fn on_login4(
        &self,
        server: SocketAddr,
        key: Option<&LoginKey>,
        result: &[u8; LOGIN_RESULT_BYTES],
    ) -> Option<HandshakeResult> {
        let Some(key) = key else { return Some(Err(LoginError::Refused)) };
        Some(match key.result(&self.nonce).open(result).ok()? {
            LoginResult::Accepted(params) => Ok(Established { server, params, secret: key.session_secret() }),
            LoginResult::AlreadyActive { liveness_ms } => {
                Err(LoginError::AlreadyActive { liveness: Duration::from_millis(liveness_ms.into()) })
            }
        })
    }

    fn on_resumed(
        &self,
        server: SocketAddr,
        server_nonce: &Nonce,
        result: &[u8; LOGIN_RESULT_BYTES],
    ) -> Option<HandshakeResult> {
        let AuthMethod::Ticket(resumption) = &self.auth else { return None };
        Some(match resumption.key.result(&self.nonce, server_nonce).open(result).ok()? {
            LoginResult::Accepted(params) => {
                let secret = resumption.key.session_secret(&self.nonce, server_nonce);
                Ok(Established { server, params, secret })
            }
            LoginResult::AlreadyActive { .. } => Err(LoginError::Refused),
        })
    }

    /// Back to HELLO at every address. A login takes a new nonce, since the server may have forgotten half of the
    /// exchange. A resumption keeps its nonce, so that the server recognises the repetition of one that it has granted.
    fn restart(&mut self, now: Instant, io: &mut Io) {
        if let Some(server) = self.server.take() {
            move_to_front(&mut self.servers, server);
        }
        if self.auth_kind() == AuthKind::Password {
            self.nonce = io.rng.r#gen();
        }
        self.step = Step::Hello;
        self.rejected_login2s.clear();
        io.timers.clear(Timer::Login2Grace);
        self.tried = 1;
        self.set_next_address_timer(now, io);
        self.restart_retries();
    }

    /// Tries one more address, where there is one and no server has answered.
    fn try_next_address(&mut self, now: Instant, io: &mut Io) {
        if matches!(self.step, Step::Hello) && self.tried < self.servers.len() {
            io.out.push_back((self.servers[self.tried], self.packet()));
            self.tried += 1;
            self.set_next_address_timer(now, io);
        }
    }

    fn set_next_address_timer(&self, now: Instant, io: &mut Io) {
        let is_one_left = self.tried < self.servers.len();
        io.timers.update(Timer::NextAddress, is_one_left.then(|| now + NEXT_ADDRESS_AFTER));
    }

    fn restart_retries(&mut self) {
        (self.tries, self.backoff) = (0, first_backoff(&self.auth));
    }

    /// Sends a step for the first time.
    fn send_first(&mut self, now: Instant, io: &mut Io) {
        self.restart_retries();
        self.send(now, io);
    }

    /// Sends the present step, and schedules its retransmission with 20 % jitter.
    fn send(&mut self, now: Instant, io: &mut Io) {
        let packet = self.packet();
        match self.server {
            Some(server) => io.out.push_back((server, packet)),
            None => io.out.extend(self.servers[..self.tried].iter().map(|&server| (server, packet.clone()))),
        }
        self.tries += 1;
        let may_double = self.tries > HELLO_TRIES || !matches!(self.step, Step::Hello);
        let wait = if may_double { self.backoff.next_wait() } else { self.backoff.wait() };
        io.timers.set(Timer::HandshakeRetry, now + wait.mul_f64(io.rng.gen_range(0.8..1.2)));
    }

    fn packet(&self) -> Vec<u8> {
        let nonce = self.nonce;
        match (&self.step, &self.auth) {
            (Step::Login1 { cookie, ke1, .. }, AuthMethod::Password(credentials, _)) => {
                Packet::Login1 { nonce, cookie: *cookie, user: credentials.user.as_str(), ke1 }.to_bytes()
            }
            (Step::Login3 { packet, .. }, _) => packet.clone(),
            (Step::Resume { cookie }, AuthMethod::Ticket(resumption)) => {
                let client_info = resumption.key.client_info(&nonce, cookie).seal(&self.client_info);
                Packet::Resume { nonce, cookie: *cookie, client_info: &client_info, ticket: &resumption.ticket }
                    .to_bytes()
            }
            _ => Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes(),
        }
    }
}

fn first_backoff(auth: &AuthMethod) -> Backoff {
    let first = match auth {
        AuthMethod::Password(..) => LOGIN_RETRY_FIRST,
        AuthMethod::Ticket(_) => RESUME_RETRY_FIRST,
    };
    Backoff::new(first, LOGIN_RETRY_MAX)
}

/// Moves `first` to the front: the address that answered last is tried first the next time.
pub(super) fn move_to_front(servers: &mut [SocketAddr], first: SocketAddr) {
    if let Some(at) = servers.iter().position(|&server| server == first) {
        servers[..=at].rotate_right(1);
    }
}

fn packet_nonce(packet: &Packet<'_>) -> Option<Nonce> {
    match *packet {
        Packet::Retry { nonce, .. }
        | Packet::Version { nonce, .. }
        | Packet::Login2 { nonce, .. }
        | Packet::Login4 { nonce, .. }
        | Packet::Resumed { nonce, .. }
        | Packet::Refused { nonce }
        | Packet::Throttled { nonce, .. } => Some(nonce),
        _ => None,
    }
}

fn random<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
