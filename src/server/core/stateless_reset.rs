//! Stateless resets (the term of RFC 9000): how a client learns that the server does not know its session, usually
//! because the server was restarted.
//!
//! Defended: only an id that this server issued is answered; a reset is smaller than the datagram that caused it, and
//! limited in rate, per prefix and in all; only the session's own client knows the token that authenticates it and its
//! delay. After a restart, the delay in the resets spreads the clients over the seconds that it takes to resume all of
//! them. A session gets one turn, however often it asks, so a replayed datagram delays no other client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{debug, trace};

use super::Server;
use super::stats::Refusal;
use crate::common::handshake_keys::reset_tag;
use crate::common::limits::RESET_DELAY_MAX;
use crate::common::net::AddressPrefix;
use crate::common::packet::Packet;
use crate::common::rate::{Rate, TokenBucket};
use crate::common::types::SessionId;
use crate::server::auth::expiring_map::ExpiringMap;
use crate::server::auth::rate_limit::KeyedRateLimit;
use crate::server::core::Effects;

/// A burst, then 20,000 resets a second: what 10,000 clients that repeat their heartbeats need.
const RATE: Rate = Rate::every(Duration::from_micros(50), 20_000);
/// The same for one prefix, which may be that of all clients.
const RATE_PER_PREFIX: Rate = Rate::every(Duration::from_micros(100), 10_000);
/// Prefixes with a bucket of their own.
const PREFIXES_MAX: usize = 16_384;
/// Time allowed for each client to resume.
const SPREAD: Duration = Duration::from_micros(400);
/// Turns that are remembered until they are over: somewhat more than fit into the longest delay.
const TURNS_MAX: usize = 16_384;
const _: () = assert!(TURNS_MAX as u128 * SPREAD.as_micros() > RESET_DELAY_MAX.as_micros());

/// Limits the rate of resets and assigns the turns to resume.
pub(super) struct ResetLimiter {
    total: TokenBucket,
    per_prefix: KeyedRateLimit<AddressPrefix>,
    /// The sessions that have a turn, until it is over; a turn lasts for [`SPREAD`].
    turns: ExpiringMap<SessionId, ()>,
}

impl ResetLimiter {
    pub(super) fn new() -> Self {
        let per_prefix = KeyedRateLimit::new(RATE_PER_PREFIX, PREFIXES_MAX);
        Self { total: TokenBucket::full(), per_prefix, turns: ExpiringMap::default() }
    }

    /// Takes a token for one reset. The error is how long until there is one.
    fn try_take(&mut self, now: Instant, to: SocketAddr) -> Result<(), Duration> {
        self.per_prefix.try_take(now, &AddressPrefix::of(to.ip()))?;
        self.total.try_take(now, RATE)
    }

    /// How long the client of this session is to wait before it resumes: until its turn. A session without a turn gets
    /// the next free one.
    fn delay(&mut self, now: Instant, id: SessionId) -> Duration {
        while self.turns.pop_expired(now).is_some() {}
        if let Some(end) = self.turns.expiry(&id) {
            return end.saturating_duration_since(now + SPREAD);
        }
        let next = self.turns.last_expiry().map_or(now, |end| end.max(now));
        let delay = (next - now).min(RESET_DELAY_MAX);
        if self.turns.len() < TURNS_MAX {
            self.turns.insert(id, now + delay + SPREAD, ());
        }
        delay
    }
}

impl Server {
    /// Answers a datagram of a session that does not exist.
    pub(super) fn send_reset(&mut self, now: Instant, to: SocketAddr, id: SessionId, out: &mut Effects) {
        if !self.keys.is_own_session_id(&id) {
            self.counters.refused.add(Refusal::UnknownSession);
            return trace!("{to}: a datagram with an unknown session id");
        }
        if self.reset_limiter.try_take(now, to).is_err() {
            self.counters.refused.add(Refusal::ResetLimit);
            return debug!("{to}: too many resets; no reset is sent");
        }
        self.counters.refused.add(Refusal::EndedSession);
        let delay_ms = u16::try_from(self.reset_limiter.delay(now, id).as_millis()).unwrap_or(u16::MAX);
        let tag = reset_tag(&self.keys.reset_token(&id), delay_ms);
        out.send_packet(to, Packet::Reset { id, tag, delay_ms });
    }
}
