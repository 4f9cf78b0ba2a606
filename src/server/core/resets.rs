//! Telling a client that its session is unknown here, without keeping anything: how clients find out about a restart.
//!
//! Defended: only an id that this server issued draws a reset, it is smaller than whatever drew it, there is a rate
//! above which none is sent, and only the session's own client knows the token that makes it believable. After a restart
//! the delay in it spreads the clients over the seconds that resuming all of them takes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{debug, trace};

use super::Server;
use crate::common::packet::Packet;
use crate::common::types::SessionId;
use crate::server::outbox::Outbox;
use crate::server::throttle::RateLimit;

/// Resets sent at once and in a second: 10,000 clients that each repeat a heartbeat every 85 ms.
const BURST: u32 = 20_000;
const PER_SECOND: f64 = 20_000.0;
/// Time allowed for each client to resume.
const SPREAD: Duration = Duration::from_micros(400);
/// No client is told to wait longer.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// How many were sent lately.
pub(super) struct Resets {
    rate: RateLimit,
    next_turn: Option<Instant>,
}

impl Resets {
    pub(super) fn new() -> Self {
        Self { rate: RateLimit::new(BURST, PER_SECOND), next_turn: None }
    }

    /// How long the next client is to wait; its turn is then taken.
    fn delay(&mut self, now: Instant) -> Duration {
        let turn = self.next_turn.map_or(now, |turn| turn.max(now));
        let delay = (turn - now).min(DELAY_MAX);
        self.next_turn = Some(now + delay + SPREAD);
        delay
    }
}

impl Server {
    pub(super) fn reset(&mut self, now: Instant, from: SocketAddr, id: SessionId, out: &mut Outbox) {
        if !self.keys.issued(&id) {
            trace!("{from}: a datagram of no session");
            return;
        }
        if !self.resets.rate.allow(now) {
            debug!("{from}: too many resets; this one is not sent");
            return;
        }
        let delay_ms = u16::try_from(self.resets.delay(now).as_millis()).unwrap_or(u16::MAX);
        out.packet(from, Packet::Reset { id, token: self.keys.reset_token(&id), delay_ms });
    }
}
