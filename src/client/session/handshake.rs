//! One exchange that makes a session: HELLO, RETRY, then either the login's two round trips or the resumption's one.
//!
//! Owns the steps, their repetition and the choice among several server addresses. Must not decide what a verdict means
//! (see [`reconnect`](super::reconnect)) nor give up: whoever started the exchange drops it.
//!
//! Defended: an answer counts only if it carries the nonce of this exchange and comes from an address that was asked; a
//! session stands only by an answer under keys that the password, or the last session, gave. A LOGIN2 that does not
//! verify, which anyone on the line can invent, is set aside while the server's own may still come. Once the server has
//! proven itself, nobody else can refuse a login. Not defended: somebody who sees our HELLO can answer before the server
//! does, or flood us with answers, and so spoil the exchange, as he could keep our datagrams from arriving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, RngCore};
use rand_chacha::ChaCha20Rng;

use super::{Outbox, Password};
use crate::common::crypto::Secret;
use crate::common::handshake_keys::{ClientInfo, LoginKey, LoginResult, ResumptionKey, SessionParams};
use crate::common::limits::{LOGIN_RETRY_FIRST, LOGIN_RETRY_MAX, PENDING_LOGIN_LIFETIME, PROTOCOL_VERSION};
use crate::common::opaque::{ClientLogin, KeyStretching};
use crate::common::packet::{
    CLIENT_INFO_BYTES, Cookie, KE1_BYTES, KE2_BYTES, KE3_BYTES, LOGIN_RESULT_BYTES, Nonce, Packet,
};
use crate::common::types::UserName;

/// First wait before a step of a resumption is repeated: the session stands at the server from its answer on, and that
/// must have arrived well within the liveness time.
const RESUME_RETRY_FIRST: Duration = Duration::from_millis(100);
/// How long one server address has for itself before the next one is asked as well.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// A HELLO costs the server next to nothing: it is repeated this often before the waits grow, so that even a bad line
/// lets one through within a login's patience.
const HELLO_TRIES: u32 = 20;
/// A step that was sent this often without an answer is given up: the server may have forgotten the exchange.
const STEP_TRIES: u32 = 6;
/// A LOGIN2 that does not verify means a wrong password, unless it is a stranger's: the server's own is waited for this
/// long before the exchange goes on to its refusal.
pub(super) const LOGIN2_GRACE: Duration = Duration::from_millis(250);
/// LOGIN2s tried in one exchange: each costs a stretching, and one that is a stranger's is a guess at the password.
const LOGIN2_TRIES: usize = 3;
/// The same for LOGIN3, after which the session may stand: a new exchange would find the user active. So it is repeated
/// until the server has forgotten the exchange.
const LOGIN3_TRIES: u32 = 12;
const _: () = assert!(LOGIN_RETRY_MAX.as_millis() * (LOGIN3_TRIES as u128 - 2) >= PENDING_LOGIN_LIFETIME.as_millis());

/// Who logs in. The password is wiped when the last exchange and the session have let go of it.
pub(super) struct Identity {
    pub user: UserName,
    pub password: Password,
}

/// What the last session left for taking it up again.
pub(super) struct Resumption {
    pub key: ResumptionKey,
    pub ticket: Vec<u8>,
}

/// What the exchange is to prove.
pub(super) enum Proof {
    /// The password.
    Password(Arc<Identity>, KeyStretching),
    /// That the last session was ours.
    Ticket(Arc<Resumption>),
}

/// How an exchange ended.
pub(super) enum Verdict {
    /// A session stands.
    Established { server: SocketAddr, welcome: SessionParams, secret: Secret },
    /// Wrong password or unknown user; or a ticket that is of no use.
    Refused,
    /// The password is right, the user active elsewhere: until silence of this long.
    AlreadyActive(Duration),
    /// Too many guesses; seconds to wait.
    Throttled(u16),
    /// The server speaks this other version.
    Version(u16),
}

enum Step {
    Hello,
    Login1 {
        cookie: Cookie,
        login: Box<ClientLogin>,
        ke1: [u8; KE1_BYTES],
        /// Set by the first LOGIN2 that does not verify: until when another is waited for.
        doubt_until: Option<Instant>,
    },
    /// Without a key the password was wrong: the exchange is played to its end for the sake of looks.
    Login3 {
        packet: Vec<u8>,
        key: Option<LoginKey>,
    },
    Resume {
        cookie: Cookie,
    },
}

/// One exchange under way.
pub(super) struct Handshake {
    proof: Proof,
    details: ClientInfo,
    nonce: Nonce,
    /// Every address of the server; the first `asked` have been sent a HELLO.
    servers: Vec<SocketAddr>,
    asked: usize,
    ask_next_at: Instant,
    /// Who answered first; set from the second step on.
    server: Option<SocketAddr>,
    /// Stays when the exchange starts over.
    is_answered: bool,
    step: Step,
    /// The LOGIN2s of this exchange that do not verify.
    unproven: Vec<[u8; KE2_BYTES]>,
    tries: u32,
    wait: Duration,
    retry_at: Instant,
}

impl Handshake {
    /// Sends the first HELLO. `servers` is never empty.
    pub fn start(
        now: Instant,
        proof: Proof,
        servers: &[SocketAddr],
        details: ClientInfo,
        rng: &mut ChaCha20Rng,
        out: &mut Outbox,
    ) -> Box<Self> {
        let mut handshake = Box::new(Self {
            proof,
            details,
            nonce: rng.r#gen(),
            servers: servers.to_vec(),
            asked: 1,
            ask_next_at: now + NEXT_ADDRESS_AFTER,
            server: None,
            is_answered: false,
            step: Step::Hello,
            unproven: Vec::new(),
            tries: 0,
            wait: Duration::ZERO,
            retry_at: now,
        });
        handshake.send_first(now, rng, out);
        handshake
    }

    /// Whether the password is what is to be proven.
    pub fn is_by_password(&self) -> bool {
        matches!(self.proof, Proof::Password(..))
    }

    /// Whether a server has answered at all.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Whether somebody meddles: a server sends one LOGIN2 in an exchange, however often.
    pub fn is_contradicted(&self) -> bool {
        self.unproven.len() > 1
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn timeout(&self) -> Instant {
        let ask_next_at = self.may_ask_next().then_some(self.ask_next_at);
        ask_next_at.into_iter().chain(self.doubt_until()).fold(self.retry_at, Instant::min)
    }

    fn doubt_until(&self) -> Option<Instant> {
        if let Step::Login1 { doubt_until, .. } = self.step { doubt_until } else { None }
    }

    /// Repeats a step, or asks the server's next address.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut ChaCha20Rng, out: &mut Outbox) {
        if self.may_ask_next() && now >= self.ask_next_at {
            self.ask_next(now, out);
        }
        if self.doubt_until().is_some_and(|until| now >= until) {
            let (ke3, details) = (random(rng), random(rng));
            return self.begin_login3(now, None, &ke3, &details, rng, out);
        }
        if now < self.retry_at {
            return;
        }
        let is_given_up = match self.step {
            Step::Hello => false,
            Step::Login3 { .. } => self.tries >= LOGIN3_TRIES,
            Step::Login1 { .. } | Step::Resume { .. } => self.tries >= STEP_TRIES,
        };
        if is_given_up {
            self.start_over(now, rng);
        }
        self.send(now, rng, out);
    }

    /// Nobody listens at `address`: there is no need to wait before asking the next.
    pub fn unreachable(&mut self, now: Instant, address: SocketAddr, out: &mut Outbox) {
        if self.may_ask_next() && self.servers[self.asked - 1] == address {
            self.ask_next(now, out);
        }
    }

    /// Takes a packet that is not part of a session. What does not belong here is ignored.
    pub fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &Packet<'_>,
        rng: &mut ChaCha20Rng,
        out: &mut Outbox,
    ) -> Option<Verdict> {
        let from_server = match self.server {
            Some(server) => server == from,
            None => self.servers[..self.asked].contains(&from),
        };
        if !from_server || packet_nonce(packet) != Some(self.nonce) {
            return None;
        }
        match *packet {
            Packet::Retry { cookie, .. } => self.handle_retry(now, from, cookie, rng, out),
            Packet::Version { version, .. } if version != PROTOCOL_VERSION => {
                return matches!(self.step, Step::Hello).then_some(Verdict::Version(version));
            }
            Packet::Login2 { ke2, .. } => self.handle_login2(now, ke2, rng, out),
            Packet::Login4 { result: answer, .. } => return self.handle_answer(from, answer),
            Packet::Throttled { retry_after_s, .. } => {
                return matches!(self.step, Step::Login1 { .. }).then_some(Verdict::Throttled(retry_after_s));
            }
            Packet::Resumed { server_nonce, result: answer, .. } => {
                return self.handle_resumed(from, &server_nonce, answer);
            }
            Packet::Refused { .. } => return matches!(self.step, Step::Resume { .. }).then_some(Verdict::Refused),
            _ => {}
        }
        None
    }

    /// The first RETRY chooses the server; a later one brings a fresh cookie for the step it answers.
    fn handle_retry(&mut self, now: Instant, from: SocketAddr, fresh: Cookie, rng: &mut ChaCha20Rng, out: &mut Outbox) {
        match &mut self.step {
            Step::Hello => {
                self.step = match &self.proof {
                    Proof::Password(identity, _) => {
                        let (login, ke1) = ClientLogin::start(rng, &identity.password);
                        Step::Login1 { cookie: fresh, login: Box::new(login), ke1, doubt_until: None }
                    }
                    Proof::Ticket(_) => Step::Resume { cookie: fresh },
                };
                self.server = Some(from);
                self.is_answered = true;
            }
            Step::Login1 { cookie, .. } | Step::Resume { cookie } if *cookie != fresh => *cookie = fresh,
            _ => return,
        }
        self.send_first(now, rng, out);
    }

    fn handle_login2(&mut self, now: Instant, ke2: &[u8; KE2_BYTES], rng: &mut ChaCha20Rng, out: &mut Outbox) {
        let Proof::Password(identity, stretching) = &self.proof else { return };
        if self.unproven.len() >= LOGIN2_TRIES || self.unproven.contains(ke2) {
            return;
        }
        match &mut self.step {
            Step::Login1 { login, doubt_until, .. } => {
                match login.finish(rng, &identity.user, &identity.password, ke2, *stretching) {
                    Ok((key, ke3)) => {
                        let details = key.seal_client_info(&self.nonce, &self.details);
                        return self.begin_login3(now, Some(key), &ke3, &details, rng, out);
                    }
                    Err(_) => doubt_until.get_or_insert(now + LOGIN2_GRACE),
                };
            }
            // Too late to try it, but it tells that one of the two is not the server's.
            Step::Login3 { key: None, .. } => {}
            _ => return,
        }
        self.unproven.push(*ke2);
    }

    fn begin_login3(
        &mut self,
        now: Instant,
        key: Option<LoginKey>,
        ke3: &[u8; KE3_BYTES],
        details: &[u8; CLIENT_INFO_BYTES],
        rng: &mut ChaCha20Rng,
        out: &mut Outbox,
    ) {
        let packet = Packet::Login3 { nonce: self.nonce, ke3, client_info: details }.to_bytes();
        self.step = Step::Login3 { packet, key };
        self.send_first(now, rng, out);
    }

    fn handle_answer(&self, server: SocketAddr, answer: &[u8; LOGIN_RESULT_BYTES]) -> Option<Verdict> {
        let Step::Login3 { key, .. } = &self.step else { return None };
        let Some(key) = key else { return Some(Verdict::Refused) };
        // The server has proven that it holds our password's record. What does not open is a stranger's answer, or one to
        // a stranger's LOGIN3, or the password has just been changed: the next exchange tells.
        Some(match key.open_result(&self.nonce, answer).ok()? {
            LoginResult::Accepted(welcome) => Verdict::Established { server, welcome, secret: key.session_secret() },
            LoginResult::AlreadyActive { liveness_ms } => {
                Verdict::AlreadyActive(Duration::from_millis(liveness_ms.into()))
            }
        })
    }

    fn handle_resumed(
        &self,
        server: SocketAddr,
        server_nonce: &Nonce,
        answer: &[u8; LOGIN_RESULT_BYTES],
    ) -> Option<Verdict> {
        let (Step::Resume { .. }, Proof::Ticket(resumption)) = (&self.step, &self.proof) else { return None };
        match resumption.key.open_result(&self.nonce, server_nonce, answer).ok()? {
            LoginResult::Accepted(welcome) => {
                let secret = resumption.key.session_secret(&self.nonce, server_nonce);
                Some(Verdict::Established { server, welcome, secret })
            }
            LoginResult::AlreadyActive { .. } => Some(Verdict::Refused),
        }
    }

    /// Back to HELLO at every address. A login takes a new nonce, since the server may have forgotten half of it; a
    /// resumption keeps its own, so that the server knows the repeat of one it has granted already.
    fn start_over(&mut self, now: Instant, rng: &mut ChaCha20Rng) {
        if let Some(server) = self.server.take() {
            prefer(&mut self.servers, server);
        }
        if matches!(self.proof, Proof::Password(..)) {
            self.nonce = rng.r#gen();
        }
        self.step = Step::Hello;
        self.unproven.clear();
        (self.tries, self.wait) = (0, self.first_wait());
        (self.asked, self.ask_next_at) = (1, now + NEXT_ADDRESS_AFTER);
    }

    fn first_wait(&self) -> Duration {
        if self.is_by_password() { LOGIN_RETRY_FIRST } else { RESUME_RETRY_FIRST }
    }

    fn may_ask_next(&self) -> bool {
        matches!(self.step, Step::Hello) && self.asked < self.servers.len()
    }

    fn ask_next(&mut self, now: Instant, out: &mut Outbox) {
        let address = self.servers[self.asked];
        self.asked += 1;
        self.ask_next_at = now + NEXT_ADDRESS_AFTER;
        out.push_back((address, self.packet()));
    }

    fn send_first(&mut self, now: Instant, rng: &mut ChaCha20Rng, out: &mut Outbox) {
        (self.tries, self.wait) = (0, self.first_wait());
        self.send(now, rng, out);
    }

    /// Sends the present step; the next repeat comes at about the wait, spread so that clients do not march in step.
    fn send(&mut self, now: Instant, rng: &mut ChaCha20Rng, out: &mut Outbox) {
        let packet = self.packet();
        match self.server {
            Some(server) => out.push_back((server, packet)),
            None => out.extend(self.servers[..self.asked].iter().map(|&server| (server, packet.clone()))),
        }
        self.tries += 1;
        self.retry_at = now + self.wait.mul_f64(rng.gen_range(0.8..1.2));
        if self.tries > HELLO_TRIES || !matches!(self.step, Step::Hello) {
            self.wait = (self.wait * 2).min(LOGIN_RETRY_MAX);
        }
    }

    fn packet(&self) -> Vec<u8> {
        let nonce = self.nonce;
        match (&self.step, &self.proof) {
            (Step::Login1 { cookie, ke1, .. }, Proof::Password(identity, _)) => {
                Packet::Login1 { nonce, cookie: *cookie, user: identity.user.as_str(), ke1 }.to_bytes()
            }
            (Step::Login3 { packet, .. }, _) => packet.clone(),
            (Step::Resume { cookie }, Proof::Ticket(resumption)) => {
                let details = resumption.key.seal_client_info(&nonce, cookie, &self.details);
                Packet::Resume { nonce, cookie: *cookie, client_info: &details, ticket: &resumption.ticket }.to_bytes()
            }
            _ => Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes(),
        }
    }
}

/// Moves `first` to the front: the address that answered last is asked first the next time.
pub(super) fn prefer(servers: &mut [SocketAddr], first: SocketAddr) {
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
