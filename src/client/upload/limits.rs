//! How fast is served, and to whom: timeouts, the rate of all uploads, the keys of tickets.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::client::transport;
use crate::common::crypto::{AeadKey, Secret};
use crate::common::limits::{RECORD_MAX_BYTES, TICKET_KEY_GRACE};
use crate::common::rate::{Rate, TokenBucket};
use crate::common::sync::lock;
use crate::common::ticket::{TicketError, TransferTicket};

/// A downloader that finds all slots taken retries after this time, milliseconds.
pub(super) const BUSY_RETRY_MS: u16 = 300;
/// Ticket keys kept at once. A downloader whose ticket is older needs a new one from the server.
const KEYS_MAX: usize = 8;
/// The rate limit allows bursts of a second's bytes divided by this.
const BURSTS_PER_SECOND: u64 = 20;

/// Least rate of all uploads that can be set, bytes a second: at a lower one downloaders would take the uploader for dead.
pub const LIMIT_RATE_MIN: u64 = 16;
/// With a limited rate there are no more slots than get this many bytes a second each.
const SLOT_MIN_BYTES_PER_SECOND: u64 = 64;

/// Timeouts and bounds of the listener. The defaults are for users, shorter ones for tests.
#[derive(Debug, Clone)]
pub struct UploadLimits {
    /// A connection presents its ticket within this time.
    pub handshake: Duration,
    /// A peer with a ticket sends its first request within this time, and its next one after everything was sent.
    pub idle: Duration,
    /// After this time without a request a downloader loses its slot if another one waits for it.
    pub idle_yield: Duration,
    /// After this time a downloader loses its slot between two chunk groups if another user waits for one.
    pub turn: Duration,
    /// While another user waits, a downloader that receives less than this in a second, beyond a turn, loses its slot in the
    /// middle of a group. What the uploader's own limit delays does not count.
    pub turn_min_rate: u64,
    /// While there is something to send, a downloader receives [`stall_min_bytes`](Self::stall_min_bytes) within this
    /// time. A kernel wakes a sender only when a third of its buffer is free: a shorter time would disconnect slow links.
    pub stall: Duration,
    /// See [`stall`](Self::stall).
    pub stall_min_bytes: usize,
    /// Most pending connections.
    pub pending_max: usize,
    /// The same from one address prefix.
    pub pending_per_prefix_max: usize,
}

impl Default for UploadLimits {
    fn default() -> Self {
        // A quarter of all descriptors: files and uploads need the others.
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let pending_max = (descriptors / 4).clamp(4, 64);
        Self {
            handshake: transport::HANDSHAKE_TIMEOUT,
            idle: Duration::from_secs(30),
            idle_yield: Duration::from_secs(1),
            turn: Duration::from_secs(10),
            turn_min_rate: 16 << 10,
            stall: Duration::from_secs(15),
            stall_min_bytes: 4 << 10,
            pending_max,
            pending_per_prefix_max: pending_max.div_ceil(2),
        }
    }
}

/// Most slots that leave each upload [`SLOT_MIN_BYTES_PER_SECOND`] of a limited rate.
pub fn slots_within(slots: u8, limit_rate: Option<u64>) -> u8 {
    let served = limit_rate.map_or(u64::MAX, |rate| (rate / SLOT_MIN_BYTES_PER_SECOND).max(1));
    slots.min(u8::try_from(served).unwrap_or(u8::MAX))
}

/// Limits the bytes a second of all uploads together.
pub(super) struct RateLimiter {
    bucket: Mutex<TokenBucket>,
    rate: Rate,
    piece_bytes: usize,
}

impl RateLimiter {
    /// `slots`: the most uploads that share the rate.
    pub(super) fn new(bytes_per_second: u64, slots: u8) -> Self {
        let burst = bytes_per_second / BURSTS_PER_SECOND;
        // At a low rate a record takes a second in each upload, so that no downloader takes the uploader for dead.
        let lowest = (bytes_per_second / u64::from(slots.max(1))).clamp(1, 512);
        let piece = burst.clamp(lowest, RECORD_MAX_BYTES as u64);
        Self {
            bucket: Mutex::new(TokenBucket::full()),
            rate: Rate::per_second(bytes_per_second, burst),
            piece_bytes: usize::try_from(piece).expect("at most a record"),
        }
    }

    /// Most bytes of one record, so that data flows evenly at a low rate.
    pub(super) fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Reserves `bytes` and returns how long to wait before sending them. Uploads are served in the order of their
    /// calls.
    pub(super) fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        lock(&self.bucket).take_in_advance(now, self.rate, bytes as u64)
    }
}

/// Opens the tickets of downloaders without asking the server: with the keys of this session and of those before it, and
/// an estimate of the server's clock. Before the first login there is no key, so every ticket is invalid.
#[derive(Default)]
pub(super) struct TicketKeys {
    /// Newest first.
    keys: Vec<TicketKey>,
    clock: Option<ServerClock>,
}

struct TicketKey {
    key: AeadKey,
    /// When a newer key replaced this one.
    replaced_at: Option<Instant>,
}

/// The server's clock was at `server_ms` at the instant `at`.
#[derive(Clone, Copy)]
struct ServerClock {
    server_ms: u64,
    at: Instant,
}

impl TicketKeys {
    /// A session began at `now`, when the server's clock was at `server_ms`.
    pub(super) fn rotate(&mut self, key: &Secret, server_ms: u64, now: Instant) {
        if let Some(current) = self.keys.first_mut() {
            current.replaced_at = Some(now);
        }
        self.keys.retain(|key| key.is_valid(now));
        self.keys.truncate(KEYS_MAX - 1);
        self.keys.insert(0, TicketKey { key: AeadKey::new(key), replaced_at: None });
        self.clock = Some(ServerClock { server_ms, at: now });
    }

    /// Opens a ticket that was sealed for this client and has not expired.
    pub(super) fn open(&self, sealed: &[u8], now: Instant) -> Result<TransferTicket, TicketError> {
        let clock = self.clock.ok_or(TicketError::Invalid)?;
        let elapsed = now.saturating_duration_since(clock.at);
        let server_ms = clock.server_ms.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.keys
            .iter()
            .filter(|key| key.is_valid(now))
            .map(|key| TransferTicket::open(sealed, &key.key, server_ms))
            .find(|opened| *opened != Err(TicketError::Invalid))
            .unwrap_or(Err(TicketError::Invalid))
    }
}

impl TicketKey {
    fn is_valid(&self, now: Instant) -> bool {
        let age = self.replaced_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        age <= TICKET_KEY_GRACE
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time begins at any instant")]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use zeroize::Zeroizing;

    use super::*;
    use crate::common::peer_crypto::data_record_bytes;
    use crate::common::types::UserName;

    #[test]
    fn at_any_rate_that_is_accepted_every_upload_sends_often_enough() {
        for rate in [LIMIT_RATE_MIN, 30, 64, 100, 512, 1_000, 10_000, 100_000, 10_000_000] {
            let slots = slots_within(8, Some(rate));
            let limiter = RateLimiter::new(rate, slots);
            let round = data_record_bytes(limiter.piece_bytes()) as u64 * u64::from(slots);
            assert!(round <= 5 * rate, "{rate}: a record of each of {slots} uploads takes {round} bytes");
        }
        assert_eq!((slots_within(8, None), slots_within(8, Some(1_000_000)), slots_within(8, Some(130))), (8, 8, 2));
        assert_eq!(RateLimiter::new(u64::MAX, 8).piece_bytes(), RECORD_MAX_BYTES);
    }

    fn ticket(key: &Secret, expires_ms: u64) -> Vec<u8> {
        let downloader = UserName::parse("vader").unwrap();
        let ticket = TransferTicket { downloader, expires_ms, key: [7; 32].into(), grants: vec![] };
        ticket.seal(&AeadKey::new(key), &mut ChaCha20Rng::seed_from_u64(expires_ms))
    }

    #[test]
    fn tickets_expire_by_the_servers_clock() {
        let (key, now) = (Zeroizing::new([1; 32]), Instant::now());
        let mut keys = TicketKeys::default();
        let sealed = ticket(&key, 11_000);
        assert_eq!(keys.open(&sealed, now), Err(TicketError::Invalid), "before the first login");
        keys.rotate(&key, 10_000, now);
        assert!(keys.open(&sealed, now + Duration::from_millis(999)).is_ok());
        assert_eq!(keys.open(&sealed, now + Duration::from_secs(1)), Err(TicketError::Expired));
        assert_eq!(keys.open(&ticket(&Zeroizing::new([2; 32]), 11_000), now), Err(TicketError::Invalid));
    }

    #[test]
    fn a_replaced_key_stays_valid_for_the_grace_period() {
        let (old, new, now) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]), Instant::now());
        let mut keys = TicketKeys::default();
        keys.rotate(&old, 0, now);
        let replaced = now + Duration::from_secs(500);
        keys.rotate(&new, 500_000, replaced);
        let sealed = ticket(&old, u64::MAX);
        assert!(keys.open(&sealed, replaced + TICKET_KEY_GRACE).is_ok());
        assert!(keys.open(&sealed, replaced + TICKET_KEY_GRACE + Duration::from_millis(1)).is_err());
        assert!(keys.open(&ticket(&new, u64::MAX), replaced + Duration::from_secs(9_999)).is_ok());
        for round in 0..100 {
            keys.rotate(&Zeroizing::new([round; 32]), 0, replaced);
        }
        assert_eq!(keys.keys.len(), KEYS_MAX);
    }
}
