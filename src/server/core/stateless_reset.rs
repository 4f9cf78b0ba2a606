//! Telling a client that its session is unknown here, while keeping next to nothing: how clients find out about a restart.
//!
//! Defended: only an id that this server issued draws a reset, it is smaller than whatever drew it, there is a rate, for
//! each network and for all, above which none is sent, and only the session's own client knows the token that makes it
//! believable. After a restart the delay in it spreads the clients over the seconds that resuming all of them takes. A
//! session takes one turn, however often it asks: a recorded datagram that is said again delays nobody.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{debug, trace};

use super::Server;
use crate::common::net::AddressPrefix;
use crate::common::packet::Packet;
use crate::common::rate::{Rate, TokenBucket};
use crate::common::types::SessionId;
use crate::server::auth::rate_limit::KeyedRateLimit;
use crate::server::core::Effects;

/// Resets sent at once and, later, 20,000 in a second: what 10,000 clients that repeat their heartbeats need.
const RATE: Rate = Rate::every(Duration::from_micros(50), 20_000);
/// The same for one network, which may be where all of the clients are.
const RATE_PER_PREFIX: Rate = Rate::every(Duration::from_micros(100), 10_000);
/// Networks whose rate is known.
const PREFIXES_MAX: usize = 16_384;
/// Time allowed for each client to resume.
const SPREAD: Duration = Duration::from_micros(400);
/// No client is told to wait longer.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// FairQueue that are remembered until they come: a few more than there are before nobody is told to wait longer.
const TURNS_MAX: usize = 16_384;
const _: () = assert!(TURNS_MAX as u128 * SPREAD.as_micros() > DELAY_MAX.as_micros());

/// How many were sent lately, and whose turn comes when.
pub(super) struct Resets {
    rate: TokenBucket,
    per_prefix: KeyedRateLimit<AddressPrefix>,
    turns: HashMap<SessionId, Instant>,
    /// The same, by time.
    order: VecDeque<(Instant, SessionId)>,
}

impl Resets {
    pub(super) fn new() -> Self {
        let per_prefix = KeyedRateLimit::new(RATE_PER_PREFIX, PREFIXES_MAX);
        Self { rate: TokenBucket::full(), per_prefix, turns: HashMap::new(), order: VecDeque::new() }
    }

    fn allow(&mut self, now: Instant, from: SocketAddr) -> bool {
        self.per_prefix.try_take(now, &AddressPrefix::of(from.ip())).is_ok() && self.rate.try_take(now, RATE).is_ok()
    }

    /// How long the client of this session is to wait: until its turn, which is the next free one if it has none yet.
    fn delay(&mut self, now: Instant, id: SessionId) -> Duration {
        while let Some((turn, id)) = self.order.front()
            && turn.checked_add(SPREAD).is_none_or(|end| end <= now)
        {
            self.turns.remove(id);
            self.order.pop_front();
        }
        if let Some(turn) = self.turns.get(&id) {
            return turn.saturating_duration_since(now);
        }
        let next = self.order.back().map_or(now, |(last, _)| (*last + SPREAD).max(now));
        let delay = (next - now).min(DELAY_MAX);
        if self.order.len() < TURNS_MAX {
            self.turns.insert(id, now + delay);
            self.order.push_back((now + delay, id));
        }
        delay
    }
}

impl Server {
    pub(super) fn reset(&mut self, now: Instant, from: SocketAddr, id: SessionId, out: &mut Effects) {
        if !self.keys.is_own_session_id(&id) {
            trace!("{from}: a datagram of no session");
            return;
        }
        if !self.resets.allow(now, from) {
            debug!("{from}: too many resets; this one is not sent");
            return;
        }
        let delay_ms = u16::try_from(self.resets.delay(now, id).as_millis()).unwrap_or(u16::MAX);
        out.packet(from, Packet::Reset { id, token: self.keys.reset_token(&id), delay_ms });
    }
}
