//! Opens the tickets that downloaders show, offline: the keys of this session and of those just replaced, and an
//! estimate of the server's clock.
//!
//! Without a key (nobody is logged in yet) every ticket is a stranger's.

use std::time::{Duration, Instant};

use crate::common::crypto::{AeadKey, Secret};
use crate::common::limits::TICKET_KEY_GRACE;
use crate::common::ticket::{TicketError, TransferTicket};

/// Keys kept at once. A client that reconnects more often within the grace is told to ask the server again.
const KEYS_MAX: usize = 8;

/// The keys, newest first, and the clock.
#[derive(Default)]
pub(super) struct TicketKeys {
    keys: Vec<Key>,
    clock: Option<Clock>,
}

struct Key {
    key: AeadKey,
    /// When a newer one took its place.
    replaced: Option<Instant>,
}

/// What the server's clock said, and when.
#[derive(Clone, Copy)]
struct Clock {
    server_ms: u64,
    at: Instant,
}

impl TicketKeys {
    /// A session began at `now`; the server's clock stood at `server_ms`.
    pub(super) fn replace(&mut self, key: &Secret, server_ms: u64, now: Instant) {
        if let Some(current) = self.keys.first_mut() {
            current.replaced = Some(now);
        }
        self.keys.retain(|key| key.is_good(now));
        self.keys.truncate(KEYS_MAX - 1);
        self.keys.insert(0, Key { key: AeadKey::new(key), replaced: None });
        self.clock = Some(Clock { server_ms, at: now });
    }

    /// Opens a ticket sealed for this client that has not expired.
    pub(super) fn open(&self, sealed: &[u8], now: Instant) -> Result<TransferTicket, TicketError> {
        let clock = self.clock.ok_or(TicketError::Invalid)?;
        let elapsed = now.saturating_duration_since(clock.at);
        let server_ms = clock.server_ms.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.keys
            .iter()
            .filter(|key| key.is_good(now))
            .map(|key| TransferTicket::open(sealed, &key.key, server_ms))
            .find(|opened| *opened != Err(TicketError::Invalid))
            .unwrap_or(Err(TicketError::Invalid))
    }
}

impl Key {
    fn is_good(&self, now: Instant) -> bool {
        let age = self.replaced.map_or(Duration::ZERO, |replaced| now.saturating_duration_since(replaced));
        age <= TICKET_KEY_GRACE
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use zeroize::Zeroizing;

    use super::*;
    use crate::common::types::UserName;

    fn ticket(key: &Secret, expires_ms: u64) -> Vec<u8> {
        let downloader = UserName::parse("vader").unwrap();
        let ticket = TransferTicket { downloader, expires_ms, key: [7; 32].into(), grants: vec![] };
        ticket.seal(&AeadKey::new(key), &mut ChaCha20Rng::seed_from_u64(expires_ms))
    }

    #[test]
    fn tickets_open_by_the_servers_clock() {
        let (key, now) = (Zeroizing::new([1; 32]), Instant::now());
        let mut keys = TicketKeys::default();
        let sealed = ticket(&key, 11_000);
        assert_eq!(keys.open(&sealed, now), Err(TicketError::Invalid), "nobody is logged in");
        keys.replace(&key, 10_000, now);
        assert!(keys.open(&sealed, now + Duration::from_millis(999)).is_ok());
        assert_eq!(keys.open(&sealed, now + Duration::from_secs(1)), Err(TicketError::Expired));
        assert_eq!(keys.open(&ticket(&Zeroizing::new([2; 32]), 11_000), now), Err(TicketError::Invalid));
    }

    #[test]
    fn a_replaced_key_stays_good_for_the_grace() {
        let (old, new, now) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]), Instant::now());
        let mut keys = TicketKeys::default();
        keys.replace(&old, 0, now);
        let replaced = now + Duration::from_secs(500);
        keys.replace(&new, 500_000, replaced);
        let sealed = ticket(&old, u64::MAX);
        assert!(keys.open(&sealed, replaced + TICKET_KEY_GRACE).is_ok());
        assert!(keys.open(&sealed, replaced + TICKET_KEY_GRACE + Duration::from_millis(1)).is_err());
        assert!(keys.open(&ticket(&new, u64::MAX), replaced + Duration::from_secs(9_999)).is_ok());
        for round in 0..100 {
            keys.replace(&Zeroizing::new([round; 32]), 0, replaced);
        }
        assert_eq!(keys.keys.len(), KEYS_MAX);
    }
}
