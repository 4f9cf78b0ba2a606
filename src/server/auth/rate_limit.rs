//! Rate limits by key, in bounded memory.
//!
//! Defended: filling the table gains an attacker no token. A bucket is forgotten only when it is full, which is the same
//! as having none; while the table is at its maximum, all keys without a bucket share one.

use std::time::{Duration, Instant};

use super::expiring_map::ExpiringMap;
use crate::common::rate::{Rate, TokenBucket};

/// One token bucket per key that took tokens lately.
pub struct KeyedRateLimit<K> {
    rate: Rate,
    max: usize,
    /// Until they are full.
    buckets: ExpiringMap<K, ()>,
    /// Of keys without a bucket while the table is at its maximum.
    shared: TokenBucket,
}

/// Which bucket a token was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketKind {
    /// The key's own.
    Own,
    /// The one that keys share while the table is at its maximum.
    Shared,
}

impl<K: Clone + Ord> KeyedRateLimit<K> {
    /// A table of at most `max` buckets, all full.
    pub fn new(rate: Rate, max: usize) -> Self {
        Self { rate, max, buckets: ExpiringMap::default(), shared: TokenBucket::full() }
    }

    /// Takes one token of this key if there is one. The error is how long until there is one.
    pub fn try_take(&mut self, now: Instant, key: &K) -> Result<BucketKind, Duration> {
        self.check(now, key).map(|()| self.take(now, key))
    }

    /// Whether [`try_take`](Self::try_take) would succeed.
    pub fn check(&mut self, now: Instant, key: &K) -> Result<(), Duration> {
        self.forget_full(now);
        self.bucket(key).1.try_take(now, self.rate)
    }

    /// Takes a token that [`check`](Self::check) has found.
    pub fn take(&mut self, now: Instant, key: &K) -> BucketKind {
        let (kind, mut bucket) = self.bucket(key);
        if bucket.try_take(now, self.rate).is_ok() {
            self.store(now, key, kind, bucket);
        }
        kind
    }

    /// Returns a token to the bucket it was taken from.
    pub fn refund(&mut self, now: Instant, key: &K, kind: BucketKind) {
        let mut bucket = match kind {
            BucketKind::Own => self.buckets.expiry(key).map_or(TokenBucket::full(), TokenBucket::full_at),
            BucketKind::Shared => self.shared,
        };
        bucket.refund(now, self.rate);
        self.store(now, key, kind, bucket);
    }

    fn bucket(&self, key: &K) -> (BucketKind, TokenBucket) {
        match self.buckets.expiry(key) {
            Some(full_at) => (BucketKind::Own, TokenBucket::full_at(full_at)),
            None if self.buckets.len() >= self.max => (BucketKind::Shared, self.shared),
            None => (BucketKind::Own, TokenBucket::full()),
        }
    }

    fn store(&mut self, now: Instant, key: &K, kind: BucketKind, bucket: TokenBucket) {
        match (kind, bucket.fills_at(now)) {
            (BucketKind::Shared, _) => self.shared = bucket,
            (BucketKind::Own, Some(full_at)) => drop(self.buckets.insert(key.clone(), full_at, ())),
            (BucketKind::Own, None) => drop(self.buckets.remove(key)),
        }
    }

    /// Forgets up to two full buckets. A call adds at most one, so their number stays small.
    fn forget_full(&mut self, now: Instant) {
        for _ in 0..2 {
            self.buckets.pop_expired(now);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs an Instant to count from")]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);
    const RATE: Rate = Rate::every(INTERVAL, 3);

    #[test]
    fn a_refunded_token_can_be_taken_again_once() {
        let now = Instant::now();
        let mut limit = KeyedRateLimit::new(RATE, 8);
        for _ in 0..100 {
            let kind = limit.try_take(now, &1).unwrap();
            limit.refund(now, &1, kind);
        }
        assert_eq!(limit.buckets.len(), 0, "a full bucket is forgotten");
        limit.refund(now, &1, BucketKind::Own);
        assert_eq!((0..10).filter(|_| limit.try_take(now, &1).is_ok()).count(), 3);
        assert_eq!(limit.try_take(now, &1), Err(INTERVAL));
    }

    #[test]
    fn a_full_table_returns_no_tokens() {
        let now = Instant::now();
        let mut limit = KeyedRateLimit::new(RATE, 4);
        for key in 0..4 {
            let taken: Vec<_> = (0..10).map_while(|_| limit.try_take(now, &key).ok()).collect();
            assert_eq!(taken, [BucketKind::Own; 3]);
        }
        // A thousand keys without a bucket share one; the four keep theirs.
        let taken: Vec<_> = (4..1_000).filter_map(|key| limit.try_take(now, &key).ok()).collect();
        assert_eq!(taken, [BucketKind::Shared; 3]);
        assert!((0..4).all(|key| limit.try_take(now, &key).is_err()));
        assert_eq!(limit.buckets.len(), 4);
        // As buckets fill up, others take their places.
        let later = now + INTERVAL * 3;
        assert!((4..8).all(|key| limit.try_take(later, &key) == Ok(BucketKind::Own)));
        assert!(limit.buckets.len() <= 4);
    }
}
