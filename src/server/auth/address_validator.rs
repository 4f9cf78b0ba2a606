//! Stateless address validation: a client shows that it receives datagrams at its address before the server stores or
//! computes anything for it.
//!
//! A cookie is a keyed BLAKE3 hash over time, address and the handshake's nonce. Defended: handshakes from spoofed
//! addresses; a cookie cannot be guessed or used from another address, for another handshake, or later. Not defended: an
//! attacker who can read datagrams sent to an address can use that address. A cookie may be used any number of times
//! while it lasts; the table of pending logins answers repeats.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use zeroize::Zeroizing;

use crate::common::limits::COOKIE_BUCKET;
use crate::common::packet::{Cookie, Nonce};

pub struct AddressValidator {
    key: Zeroizing<[u8; 32]>,
    epoch: Instant,
}

impl AddressValidator {
    /// `key` is random and secret. Time is counted from `epoch`, any instant not after the first use.
    pub fn new(key: [u8; 32], epoch: Instant) -> Self {
        Self { key: Zeroizing::new(key), epoch }
    }

    /// A cookie for this address and handshake, valid for one to two times [`COOKIE_BUCKET`].
    pub fn issue(&self, now: Instant, from: SocketAddr, nonce: &Nonce) -> Cookie {
        *self.hash(self.bucket(now), from, nonce).as_bytes()
    }

    /// Whether this server issued the cookie to this address, for this handshake, in this time bucket or the one before.
    /// Compares in constant time.
    pub fn verify(&self, now: Instant, from: SocketAddr, nonce: &Nonce, cookie: &Cookie) -> bool {
        let bucket = self.bucket(now);
        let is_from = |bucket| self.hash(bucket, from, nonce) == blake3::Hash::from_bytes(*cookie);
        is_from(bucket) | bucket.checked_sub(1).is_some_and(is_from)
    }

    fn bucket(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / COOKIE_BUCKET.as_secs()
    }

    /// Every field has a fixed length, so different fields never hash the same bytes. [`blake3::Hash`] compares in
    /// constant time.
    fn hash(&self, bucket: u64, from: SocketAddr, nonce: &Nonce) -> blake3::Hash {
        let address = match from.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut bytes = [0; 8 + 16 + 2 + 16];
        bytes[..8].copy_from_slice(&bucket.to_be_bytes());
        bytes[8..24].copy_from_slice(&address);
        bytes[24..26].copy_from_slice(&from.port().to_be_bytes());
        bytes[26..].copy_from_slice(nonce);
        blake3::keyed_hash(&self.key, &bytes)
    }
}

const _: () = assert!(COOKIE_BUCKET.subsec_nanos() == 0 && COOKIE_BUCKET.as_secs() > 0);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs an Instant to count from")]
mod tests {
    use std::time::Duration;

    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const NONCE: Nonce = [7; 16];

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_cookie_is_valid_in_its_bucket_and_the_next() {
        let epoch = Instant::now();
        let validator = AddressValidator::new([1; 32], epoch);
        let from = address("127.0.0.1:4000");
        let last = COOKIE_BUCKET * 1_001 - Duration::from_millis(1);
        for start in [Duration::ZERO, COOKIE_BUCKET * 1_000, last] {
            let issued = epoch + start;
            let cookie = validator.issue(issued, from, &NONCE);
            assert!(validator.verify(issued, from, &NONCE, &cookie));
            assert!(validator.verify(issued + COOKIE_BUCKET, from, &NONCE, &cookie));
            assert!(!validator.verify(issued + COOKIE_BUCKET * 2, from, &NONCE, &cookie));
        }
        let late = validator.issue(epoch + COOKIE_BUCKET, from, &NONCE);
        assert!(!validator.verify(epoch, from, &NONCE, &late), "not before it was issued");
    }

    #[test]
    fn a_cookie_is_bound_to_address_handshake_and_server() {
        let now = Instant::now();
        let validator = AddressValidator::new([1; 32], now);
        let from = address("10.0.0.1:4000");
        let cookie = validator.issue(now, from, &NONCE);
        for other in ["10.0.0.2:4000", "10.0.0.1:4001", "[::1]:4000", "[::a00:1]:4000"] {
            assert!(!validator.verify(now, address(other), &NONCE, &cookie), "{other}");
        }
        assert!(
            validator.verify(now, address("[::ffff:10.0.0.1]:4000"), &NONCE, &cookie),
            "the same address, written in IPv6"
        );
        assert!(!validator.verify(now, from, &[8; 16], &cookie));
        assert!(!AddressValidator::new([2; 32], now).verify(now, from, &NONCE, &cookie));
        for bit in 0..256 {
            let mut forged = cookie;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!validator.verify(now, from, &NONCE, &forged), "bit {bit}");
        }
    }

    #[test]
    fn a_million_random_guesses_fail() {
        let now = Instant::now();
        let validator = AddressValidator::new([3; 32], now);
        let from = address("127.0.0.1:4000");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut guess = [0; 32];
        for _ in 0..1_000_000 {
            rng.fill_bytes(&mut guess);
            assert!(!validator.verify(now, from, &NONCE, &guess));
        }
    }
}
