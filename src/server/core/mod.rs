//! The server as a sans-IO state machine. Inputs are datagrams, durable sequence numbers, records, credentials and the
//! time; outputs are datagrams, mutations and deadlines. It has no socket, no clock, no file and no source of randomness.
//!
//! The driver
//! 1. passes in what has arrived ([`Server::handle_datagram`], [`handle_durable`](Server::handle_durable), ...),
//! 2. calls [`Server::handle_timeout`] (or [`run_deferred_work`](Server::run_deferred_work) while more datagrams wait),
//! 3. carries out the [`Effects`],
//! 4. sleeps until [`Server::poll_timeout`].
//!
//! This file owns the state and the entry points. `login` has the handshakes; `dispatch` what is sent in a session, with
//! `mutations`, `queries` and `sources` for the requests.

mod credentials;
mod cursors;
mod dispatch;
mod effects;
mod loading;
mod login;
mod mutations;
mod pending_logins;
mod queries;
mod query_budget;
mod quotas;
mod request_log;
mod sessions;
mod sources;
mod stateless_reset;
mod stats;
mod subscriptions;
mod topics;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{debug, info, trace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

#[cfg(test)]
pub use self::credentials::Plaintext;
use self::cursors::CursorCodec;
pub use self::effects::{Datagram, Effects};
pub use self::loading::LoadedState;
use self::mutations::Mutations;
use self::pending_logins::{LoginId, PendingLogins};
use self::queries::QueuedQuery;
use self::query_budget::QueryBudget;
pub use self::quotas::Quotas;
use self::sessions::{Session, SessionKey, Sessions};
use self::stateless_reset::ResetLimiter;
#[cfg(test)]
pub use self::stats::ReplyStatus;
pub use self::stats::{
    Counters, Counts, Label, LoginStatus, OnlineUser, Refusal, RequestKind, ServerStats, SessionEnd, Traffic,
};
use self::subscriptions::Subscriptions;
use super::auth::accounts::Accounts;
use super::auth::address_validator::AddressValidator;
use super::auth::keys::Keys;
use super::auth::throttle::LoginThrottle;
use super::fair_queue::FairQueue;
use super::index::{Index, OwnerId};
use super::journal::JournalSeq;
use crate::common::escape::escape_controls;
use crate::common::limits::{HEARTBEAT_DEFAULT, LIVENESS_DEFAULT, PROTOCOL_VERSION};
use crate::common::packet::{Nonce, Packet};
use crate::common::rate::{Rate, TokenBucket};
use crate::common::redacted::Redacted;
use crate::common::types::SessionId;

/// Iterations per login step while more datagrams wait. A step takes about 0.3 ms, so a flood of logins uses less than a
/// fifth of the loop.
const ITERATIONS_PER_LOGIN_WHEN_BUSY: u32 = 16;
/// Loaded names added to the search structure in one iteration, which takes about 0.1 ms.
const NAMES_PER_ITERATION: usize = 50;
/// Log lines about clients of other protocol versions.
const VERSION_LINES: Rate = Rate::every(Duration::from_secs(10), 5);
/// After the server was suspended, its clients have at most this long to send a datagram before they expire.
const SUSPENSION_GRACE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The interval at which clients send heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a session expires.
    pub liveness: Duration,
    /// From the data file; the server's keys are derived from it.
    pub root_secret: Redacted<[u8; 32]>,
    /// Whether other hosts can reach the server. If so, a client at a loopback address is informed that peers on other
    /// hosts cannot download from it.
    pub listens_elsewhere: bool,
    pub quotas: Quotas,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT_DEFAULT,
            liveness: LIVENESS_DEFAULT,
            root_secret: [0; 32].into(),
            listens_elsewhere: false,
            quotas: Quotas::default(),
        }
    }
}

/// What the driver knows of the socket's receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveBuffer {
    Empty,
    MayHoldMore,
}

pub struct Server {
    config: ServerConfig,
    rng: ChaCha20Rng,
    started: Instant,
    /// When the server started, by the wall clock as it is set now.
    wall_ms_at_start: u64,
    /// When the server started, by the wall clock as it was set then.
    ticket_clock_ms_at_start: u64,
    keys: Keys,
    address_validator: AddressValidator,
    throttle: LoginThrottle,
    pending_logins: PendingLogins,
    accounts: Accounts,
    sessions: Sessions,
    index: Index,
    mutations: Mutations,
    cursors: CursorCodec,
    reset_limiter: ResetLimiter,
    queued_queries: FairQueue<SessionId, QueuedQuery>,
    /// The sessions whose queued queries wait for their share, and until when.
    held_queries: BTreeSet<(Instant, SessionId)>,
    query_budget: QueryBudget,
    subscriptions: Subscriptions,
    /// Records are being made from plaintext passwords: every login waits for one, real or not.
    enrolling: bool,
    iterations: u32,
    version_lines: TokenBucket,
    counters: Counters,
}

impl Server {
    /// Makes a server without credentials. The driver passes them in by [`set_credentials`](Self::set_credentials) before
    /// the first datagram. `wall_ms` is the wall clock at `now`, in milliseconds since 1970.
    pub fn new(config: ServerConfig, loaded: LoadedState, seed: [u8; 32], now: Instant, wall_ms: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let keys = Keys::new(Zeroizing::new(config.root_secret.0));
        Self {
            started: now,
            wall_ms_at_start: wall_ms,
            ticket_clock_ms_at_start: wall_ms,
            keys,
            address_validator: AddressValidator::new(rng.r#gen(), now),
            throttle: LoginThrottle::default(),
            pending_logins: PendingLogins::default(),
            accounts: loaded.accounts,
            sessions: Sessions::default(),
            index: loaded.index,
            mutations: Mutations::default(),
            cursors: CursorCodec::new(&mut rng),
            reset_limiter: ResetLimiter::new(),
            queued_queries: FairQueue::default(),
            held_queries: BTreeSet::new(),
            query_budget: QueryBudget::default(),
            subscriptions: Subscriptions::default(),
            enrolling: false,
            iterations: 0,
            version_lines: TokenBucket::full(),
            counters: Counters::default(),
            config,
            rng,
        }
    }

    /// Corrects the wall clock: `now` is `wall_ms` milliseconds since 1970.
    pub fn set_wall_clock(&mut self, now: Instant, wall_ms: u64) {
        self.wall_ms_at_start = wall_ms.saturating_sub(self.uptime_ms(now));
    }

    /// One datagram has arrived. Decrypts it in place.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8], out: &mut Effects) {
        let address = SocketAddr::new(from.ip().to_canonical(), from.port());
        self.expire(now);
        self.counters.received.add(datagram.len());
        match Packet::parse(datagram) {
            Some(Packet::Session { id }) => self.on_session_datagram(now, address, id, datagram, out),
            Some(Packet::Hello { version, nonce }) => self.on_hello(now, address, version, nonce, out),
            Some(Packet::Login1 { nonce, cookie, .. } | Packet::Resume { nonce, cookie, .. })
                if !self.address_validator.verify(now, address, &nonce, &cookie) =>
            {
                self.counters.refused.add(Refusal::Cookie);
                self.send_retry(now, address, nonce, out);
            }
            Some(Packet::Login1 { nonce, user, ke1, .. }) => {
                self.on_login1(now, LoginId { address, nonce }, user, ke1, out);
            }
            Some(Packet::Login3 { nonce, ke3, client_info }) => {
                self.on_login3(now, LoginId { address, nonce }, ke3, client_info, out);
            }
            Some(Packet::Resume { nonce, cookie, client_info, ticket }) => {
                match self.resume(now, LoginId { address, nonce }, &cookie, client_info, ticket) {
                    Some(resumed) => out.send_bytes(address, &resumed),
                    None => {
                        self.counters.logins.add(LoginStatus::ResumeRefused);
                        out.send_packet(address, Packet::Refused { nonce });
                    }
                }
            }
            _ => {
                self.counters.refused.add(Refusal::Malformed);
                trace!("{address}: not a request, {} bytes", datagram.len());
            }
        }
    }

    /// The journal has stored everything up to `upto`. [`run_deferred_work`](Self::run_deferred_work) makes it visible and
    /// acknowledges it.
    pub fn handle_durable(&mut self, upto: JournalSeq) {
        self.mutations.durable = self.mutations.durable.max(upto);
    }

    /// Expires what has expired by `now`, and does deferred work. To be called at [`poll_timeout`](Self::poll_timeout);
    /// an earlier call is harmless.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Effects) {
        self.expire(now);
        self.run_deferred_work(now, ReceiveBuffer::Empty, out);
    }

    /// Does a bounded part of the deferred work: durable mutations, queued queries, search structure, and one login step
    /// (in every iteration if no datagrams wait, in every fourth otherwise).
    pub fn run_deferred_work(&mut self, now: Instant, buffer: ReceiveBuffer, out: &mut Effects) {
        self.apply_durable(out);
        self.run_queued_queries(now, out);
        self.run_subscriptions(now, out);
        self.index.index_pending(NAMES_PER_ITERATION);
        self.iterations = self.iterations.wrapping_add(1);
        if buffer == ReceiveBuffer::Empty || self.iterations.is_multiple_of(ITERATIONS_PER_LOGIN_WHEN_BUSY) {
            self.process_next_login(out);
        }
    }

    /// The server was suspended (the process by a signal, or the machine) past a deadline. Datagrams that clients sent
    /// meanwhile may wait in the socket: no session expires before these can be processed.
    pub fn handle_suspension(&mut self, now: Instant) {
        debug!("the server was suspended for a while; {} sessions get time to send a datagram", self.session_count());
        let grace = self.config.liveness.saturating_sub(self.config.heartbeat);
        self.sessions.postpone_expiry(now + grace.min(SUSPENSION_GRACE_MAX));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout): in the past if work is left, `None` if there is nothing to
    /// wait for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let has_work = self.pending_logins.has_ready()
            || self.mutations.has_durable()
            || self.queued_queries.has_ready()
            || self.query_budget.needs_reset()
            || self.subscriptions.has_queued()
            || self.index.has_pending();
        if has_work {
            return Some(self.started);
        }
        let deadlines = [
            self.sessions.next_deadline(),
            self.pending_logins.next_expiry(),
            self.subscriptions.next_send(),
            self.held_queries.first().map(|(at, _)| *at),
            self.settles_at(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Whether durable mutations are left for [`run_deferred_work`](Self::run_deferred_work) to acknowledge.
    pub fn has_unacknowledged(&self) -> bool {
        self.mutations.has_durable()
    }

    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    fn on_hello(&mut self, now: Instant, from: SocketAddr, version: u16, nonce: Nonce, out: &mut Effects) {
        if version == PROTOCOL_VERSION {
            return self.send_retry(now, from, nonce, out);
        }
        self.counters.refused.add(Refusal::Version);
        if self.version_lines.try_take(now, VERSION_LINES).is_ok() {
            info!(event = "other_version", address:% = from; "{from}: speaks protocol version {version}, this server {PROTOCOL_VERSION}");
        }
        out.send_packet(from, Packet::Version { version: PROTOCOL_VERSION, nonce });
    }

    /// Sends a fresh cookie, in a datagram smaller than the one it answers.
    fn send_retry(&self, now: Instant, to: SocketAddr, nonce: Nonce, out: &mut Effects) {
        let cookie = self.address_validator.issue(now, to, &nonce);
        out.send_packet(to, Packet::Retry { nonce, cookie });
    }

    fn expire(&mut self, now: Instant) {
        while let Some(key) = self.sessions.pop_expired(now) {
            let session = self.end_session(key, SessionEnd::TimedOut);
            let (address, user) = (session.address, session.user.as_str());
            info!(event = "timed_out", address:% = address, user = user; "{} timed out", escape_controls(user));
        }
        while let Some(login) = self.pending_logins.pop_expired(now) {
            self.count_ended_login(&login);
        }
    }

    fn end_session(&mut self, key: SessionKey, end: SessionEnd) -> Box<Session> {
        let session = self.remove_session(key, end);
        self.set_active(session.owner, false);
        session
    }

    /// Removes a session that another one of its owner replaces at once: the owner stays active.
    fn remove_session(&mut self, key: SessionKey, end: SessionEnd) -> Box<Session> {
        self.counters.sessions_ended.add(end);
        let session = self.sessions.remove(key);
        self.subscriptions.remove_session(key, &session);
        session
    }

    fn set_active(&mut self, owner: OwnerId, active: bool) {
        if self.index.is_active(owner) != active {
            self.index.set_active(owner, active);
            self.subscriptions.on_activity(owner, self.index.user(owner));
        }
    }

    /// Milliseconds since the start of the server; never jumps.
    fn uptime_ms(&self, now: Instant) -> u64 {
        u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since 1970 by a clock that is never set, for tickets: clients learn it at the start of a session and
    /// advance it by themselves.
    fn ticket_clock_ms(&self, now: Instant) -> u64 {
        self.ticket_clock_ms_at_start + self.uptime_ms(now)
    }

    /// Milliseconds since 1970, for what outlives the process; jumps when the wall clock is set.
    fn wall_ms(&self, now: Instant) -> u64 {
        self.wall_ms_at_start + self.uptime_ms(now)
    }
}

#[cfg(test)]
mod tests;
