//! The server as a pure state machine: datagrams, durable sequence numbers, records, credentials and the time go in;
//! datagrams, mutations and deadlines come out. No socket, no clock, no file, no randomness of its own.
//!
//! Whoever drives it
//! 1. hands in what has arrived ([`Server::handle_datagram`], [`handle_durable`](Server::handle_durable), ...),
//! 2. calls [`Server::handle_timeout`] (or [`run_deferred_work`](Server::run_deferred_work) while more datagrams wait),
//! 3. carries out what the [`Effects`] holds,
//! 4. sleeps until [`Server::poll_timeout`].
//!
//! This file owns the state and the way in; each kind of thing a client can say has a file of its own in `core/`.

mod credentials;
mod dispatch;
mod effects;
mod lists;
mod login;
mod mutations;
pub(crate) mod pending_logins;
mod resume;
pub(crate) mod sessions;
mod sources;
mod stateless_reset;
mod waiting;
mod walks;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{debug, info, trace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

pub use self::effects::{Datagram, Effects};
use self::mutations::Mutations;
use self::pending_logins::Handshakes;
use self::sessions::{Sessions, Slot};
use self::stateless_reset::Resets;
use self::waiting::Waiting;
use super::auth::accounts::Accounts;
use super::auth::address_validator::AddressValidator;
use super::auth::keys::CursorCodec;
use super::auth::keys::Keys;
use super::auth::throttle::LoginThrottle;
use super::index::{Index, OwnerId};
use super::journal::{JournalSeq, LastMutation, LoadSink, StoredPublication};
use crate::common::escape::escape_controls;
use crate::common::limits::{HEARTBEAT_DEFAULT, LIVENESS_DEFAULT, PROTOCOL_VERSION};
use crate::common::packet::{Nonce, Packet};
use crate::common::rate::{Rate, TokenBucket};
use crate::common::redacted::Redacted;
use crate::common::types::{InstanceId, UserName};

/// FairQueue between two login steps while datagrams keep coming: a step takes about 0.3 ms, so this keeps a flood of
/// logins under a fifth of the loop.
const LOGIN_TURNS_WHEN_BUSY: u32 = 4;
/// Loaded names taken into the search structure in one turn: about a millisecond.
const NAMES_PER_TURN: usize = 500;
/// Lines about clients of other versions.
const VERSION_LINES: Rate = Rate::every(Duration::from_secs(10), 5);

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How often clients are told to report.
    pub heartbeat: Duration,
    /// Silence after which a session ends.
    pub liveness: Duration,
    /// From the data file; what resumption, resets and fake records hang on.
    pub root_secret: Redacted<[u8; 32]>,
    /// Whether hosts other than this one reach the server, so that a client seen at a loopback address is told that
    /// they cannot fetch from it.
    pub listens_elsewhere: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT_DEFAULT,
            liveness: LIVENESS_DEFAULT,
            root_secret: [0; 32].into(),
            listens_elsewhere: false,
        }
    }
}

/// What the journal had stored: filled by [`Journal::open`](super::journal::Journal::open), then given to the core.
pub struct LoadedState {
    index: Index,
    accounts: Accounts,
    /// Publications come user by user.
    latest: Option<(UserName, OwnerId)>,
}

impl LoadedState {
    /// Nothing.
    #[expect(clippy::new_without_default, reason = "an empty store is a decision, not a default")]
    pub fn new() -> Self {
        let mut index = Index::new();
        index.defer_indexing();
        Self { index, accounts: Accounts::default(), latest: None }
    }
}

impl LoadSink for LoadedState {
    fn publication(&mut self, publication: StoredPublication) {
        let StoredPublication { user, file, audience, published_s } = publication;
        let owner = match &self.latest {
            Some((latest, owner)) if *latest == user => *owner,
            _ => {
                let owner = self.index.intern_owner(&user);
                self.accounts.entry(&user, || owner);
                self.latest = Some((user, owner));
                owner
            }
        };
        self.index.publish(owner, &file, &audience, published_s);
    }

    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        let owner = self.index.intern_owner(&user);
        self.accounts.entry(&user, || owner).record_mutation(last);
    }

    fn begin(&mut self, publications: u64) {
        self.index.reserve(usize::try_from(publications).unwrap_or(0));
    }
}

/// The server. See the module for how to drive it.
pub struct Server {
    config: ServerConfig,
    rng: ChaCha20Rng,
    started: Instant,
    /// By the wall clock as it is set now.
    wall_ms_at_start: u64,
    /// By the wall clock as it was set then.
    clock_ms_at_start: u64,
    keys: Keys,
    cookies: AddressValidator,
    throttle: LoginThrottle,
    handshakes: Handshakes,
    accounts: Accounts,
    sessions: Sessions,
    index: Index,
    mutations: Mutations,
    cursors: CursorCodec,
    resets: Resets,
    waiting: Waiting,
    /// Records are still being made: everyone who logs in waits for theirs, real or not.
    enrolling: bool,
    login_turn: u32,
    /// Other versions that are logged.
    version_lines: TokenBucket,
}

impl Server {
    /// A server that nobody may join yet: [`handle_credentials`](Self::handle_credentials) comes next. `now` and
    /// `wall_ms` (milliseconds since 1970) are the same moment.
    pub fn new(config: ServerConfig, loaded: LoadedState, seed: [u8; 32], now: Instant, wall_ms: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let keys = Keys::new(Zeroizing::new(config.root_secret.0));
        Self {
            started: now,
            wall_ms_at_start: wall_ms,
            clock_ms_at_start: wall_ms,
            keys,
            cookies: AddressValidator::new(rng.r#gen(), now),
            throttle: LoginThrottle::new(),
            handshakes: Handshakes::default(),
            accounts: loaded.accounts,
            sessions: Sessions::default(),
            index: loaded.index,
            mutations: Mutations::default(),
            cursors: CursorCodec::new(&mut rng),
            resets: Resets::new(),
            waiting: Waiting::default(),
            enrolling: false,
            login_turn: 0,
            version_lines: TokenBucket::full(),
            config,
            rng,
        }
    }

    /// The wall clock was set: `now` is `wall_ms` milliseconds since 1970.
    pub fn set_clock(&mut self, now: Instant, wall_ms: u64) {
        let since_start = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        self.wall_ms_at_start = wall_ms.saturating_sub(since_start);
    }

    /// One datagram has arrived. It is opened where it stands.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8], out: &mut Effects) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        self.expire(now);
        match Packet::parse(datagram) {
            Some(Packet::Session { id }) => self.on_session(now, from, id, datagram, out),
            Some(Packet::Hello { version, nonce }) => self.on_hello(now, from, version, nonce, out),
            Some(Packet::Login1 { nonce, cookie, user, ke1 }) => {
                if self.check_cookie(now, from, nonce, &cookie, out) {
                    self.on_login1(now, (from, nonce), user, ke1, out);
                }
            }
            Some(Packet::Login3 { nonce, ke3, client_info: details }) => {
                self.on_login3(now, (from, nonce), ke3, details, out)
            }
            Some(Packet::Resume { nonce, cookie, client_info: details, ticket }) => {
                if self.check_cookie(now, from, nonce, &cookie, out) {
                    self.on_resume(now, (from, nonce), (&cookie, details), ticket, out);
                }
            }
            _ => trace!("{from}: {} bytes that are no request", datagram.len()),
        }
    }

    /// The journal has made everything up to `upto` durable: it becomes visible and is acknowledged, a bounded part at
    /// once and the rest by [`run_deferred_work`](Self::run_deferred_work).
    pub fn handle_durable(&mut self, _now: Instant, upto: JournalSeq, out: &mut Effects) {
        self.mutations.durable = self.mutations.durable.max(upto);
        self.apply_durable(out);
    }

    /// Ends what has ended by `now` and does what was put off. Call it when [`poll_timeout`](Self::poll_timeout) comes
    /// up; calling it earlier is harmless.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Effects) {
        self.expire(now);
        self.run_deferred_work(now, true, out);
    }

    /// Does a little of what was put off: a login step (each turn when no datagram waits, `drained`; every fourth
    /// otherwise), some mutations that are durable, some queries that wait.
    pub fn run_deferred_work(&mut self, now: Instant, drained: bool, out: &mut Effects) {
        self.apply_durable(out);
        self.answer_waiting(now, out);
        self.index.index_pending(NAMES_PER_TURN);
        self.login_turn = self.login_turn.wrapping_add(1);
        if drained || self.login_turn.is_multiple_of(LOGIN_TURNS_WHEN_BUSY) {
            self.login_step(out);
        }
    }

    /// The server itself has slept through a deadline (a stopped process, a suspended machine): what clients sent
    /// meanwhile may still be waiting in the socket, so nobody is declared dead before they had a chance.
    pub fn handle_stall(&mut self, now: Instant) {
        debug!("the server was stopped for a while; waiting for its clients");
        let chance = self.config.liveness.saturating_sub(self.config.heartbeat);
        self.sessions.forgive(now + chance.min(Duration::from_secs(1)));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout): at once if there is work left, `None` if there is nothing
    /// to wait for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let works = self.handshakes.is_ready()
            || self.mutations.is_ready()
            || self.waiting.is_ready()
            || self.index.has_pending();
        if works {
            return Some(self.started);
        }
        [self.sessions.next_deadline(), self.handshakes.next_expiry()].into_iter().flatten().min()
    }

    /// Whether mutations that are durable wait to be acknowledged by [`run_deferred_work`](Self::run_deferred_work).
    pub fn has_unacknowledged(&self) -> bool {
        self.mutations.is_ready()
    }

    /// How many sessions stand.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    fn on_hello(&mut self, now: Instant, from: SocketAddr, version: u16, nonce: Nonce, out: &mut Effects) {
        if version == PROTOCOL_VERSION {
            let cookie = self.cookies.issue(now, from, &nonce);
            out.packet(from, Packet::Retry { nonce, cookie });
            return;
        }
        if self.version_lines.try_take(now, VERSION_LINES).is_ok() {
            info!("{from}: speaks protocol version {version}, this server {PROTOCOL_VERSION}");
        }
        out.packet(from, Packet::Version { version: PROTOCOL_VERSION, nonce });
    }

    /// Whether the address is proven; otherwise a fresh cookie goes out, which is smaller than what asked for it.
    fn check_cookie(&self, now: Instant, from: SocketAddr, nonce: Nonce, cookie: &[u8; 32], out: &mut Effects) -> bool {
        let proven = self.cookies.verify(now, from, &nonce, cookie);
        if !proven {
            let cookie = self.cookies.issue(now, from, &nonce);
            out.packet(from, Packet::Retry { nonce, cookie });
        }
        proven
    }

    fn expire(&mut self, now: Instant) {
        while let Some(slot) = self.sessions.pop_expired(now) {
            let session = self.end_session(slot);
            info!("{} timed out", escape_controls(session.user.as_str()));
        }
        self.handshakes.expire(now);
    }

    fn end_session(&mut self, slot: Slot) -> Box<sessions::Session> {
        let session = self.sessions.remove(slot);
        self.index.set_active(session.owner, false);
        session
    }

    /// Milliseconds since the core was made; never jumps.
    fn uptime_ms(&self, now: Instant) -> u64 {
        u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since 1970 by a clock that is never set, for what clients reckon with: they learn it at the beginning
    /// of a session and count on by themselves.
    fn clock_ms(&self, now: Instant) -> u64 {
        self.clock_ms_at_start + self.uptime_ms(now)
    }

    /// Milliseconds since 1970, for what outlives this server; jumps when the wall clock is set.
    fn wall_ms(&self, now: Instant) -> u64 {
        self.wall_ms_at_start + self.uptime_ms(now)
    }

    fn last_writer(&self, user: &UserName) -> InstanceId {
        self.accounts.find(user).map_or(InstanceId(0), |account| account.last_writer())
    }
}

#[cfg(test)]
mod tests;
