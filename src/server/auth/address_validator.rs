//! Stateless cookies: an address shows that it receives what is sent to it before the server remembers or computes
//! anything for it.
//!
//! A cookie is a keyed BLAKE3 hash over time, address and the handshake's nonce, so it can be neither guessed nor used
//! from elsewhere, for another handshake or later. Defended here: handshakes from spoofed addresses. Not defended here:
//! who can read the answers sent to an address can use that address, and one cookie is good any number of times while it
//! lasts (the handshake cache answers repeats).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use zeroize::Zeroizing;

use crate::common::limits::COOKIE_BUCKET;
use crate::common::packet::{Cookie, Nonce};

/// Makes cookies and knows its own.
pub struct AddressValidator {
    key: Zeroizing<[u8; 32]>,
    epoch: Instant,
}

impl AddressValidator {
    /// With a key that nobody else has. Time is counted from `epoch`, any instant not after the first use.
    pub fn new(key: [u8; 32], epoch: Instant) -> Self {
        Self { key: Zeroizing::new(key), epoch }
    }

    /// A cookie for this address and handshake, good for one to two times [`COOKIE_BUCKET`].
    pub fn issue(&self, now: Instant, from: SocketAddr, nonce: &Nonce) -> Cookie {
        *self.hash(self.bucket(now), from, nonce).as_bytes()
    }

    /// Whether this jar issued the cookie, to this address, for this handshake, not too long ago. Takes the same time
    /// wherever a wrong cookie differs.
    pub fn verify(&self, now: Instant, from: SocketAddr, nonce: &Nonce, cookie: &Cookie) -> bool {
        let bucket = self.bucket(now);
        let good_in = |bucket| self.hash(bucket, from, nonce) == blake3::Hash::from_bytes(*cookie);
        good_in(bucket) | bucket.checked_sub(1).is_some_and(good_in)
    }

    fn bucket(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / COOKIE_BUCKET.as_secs()
    }

    /// [`blake3::Hash`] compares in constant time.
    fn hash(&self, bucket: u64, from: SocketAddr, nonce: &Nonce) -> blake3::Hash {
        // Every field has a fixed length: no two sets of fields hash the same bytes.
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
#[expect(clippy::disallowed_methods, reason = "an Instant to count from can be had no other way")]
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
    fn a_cookie_is_good_for_its_bucket_and_the_next() {
        let epoch = Instant::now();
        let jar = AddressValidator::new([1; 32], epoch);
        let from = address("127.0.0.1:4000");
        let last = COOKIE_BUCKET * 1_001 - Duration::from_millis(1);
        for start in [Duration::ZERO, COOKIE_BUCKET * 1_000, last] {
            let issued = epoch + start;
            let cookie = jar.issue(issued, from, &NONCE);
            assert!(jar.verify(issued, from, &NONCE, &cookie));
            assert!(jar.verify(issued + COOKIE_BUCKET, from, &NONCE, &cookie));
            assert!(!jar.verify(issued + COOKIE_BUCKET * 2, from, &NONCE, &cookie));
        }
        let late = jar.issue(epoch + COOKIE_BUCKET, from, &NONCE);
        assert!(!jar.verify(epoch, from, &NONCE, &late), "not before it was made");
    }

    #[test]
    fn a_cookie_is_for_one_address_one_handshake_and_one_server() {
        let now = Instant::now();
        let jar = AddressValidator::new([1; 32], now);
        let from = address("10.0.0.1:4000");
        let cookie = jar.issue(now, from, &NONCE);
        for other in ["10.0.0.2:4000", "10.0.0.1:4001", "[::1]:4000", "[::a00:1]:4000"] {
            assert!(!jar.verify(now, address(other), &NONCE, &cookie), "{other}");
        }
        assert!(
            jar.verify(now, address("[::ffff:10.0.0.1]:4000"), &NONCE, &cookie),
            "the same address, written in IPv6"
        );
        assert!(!jar.verify(now, from, &[8; 16], &cookie));
        assert!(!AddressValidator::new([2; 32], now).verify(now, from, &NONCE, &cookie));
        for bit in 0..256 {
            let mut forged = cookie;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!jar.verify(now, from, &NONCE, &forged), "bit {bit}");
        }
    }

    #[test]
    fn a_million_guesses_do_not_hit() {
        let now = Instant::now();
        let jar = AddressValidator::new([3; 32], now);
        let from = address("127.0.0.1:4000");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut guess = [0; 32];
        for _ in 0..1_000_000 {
            rng.fill_bytes(&mut guess);
            assert!(!jar.verify(now, from, &NONCE, &guess));
        }
    }
}
