//! Token buckets, one or a bounded table of them, without a tick.
//!
//! A bucket is the instant at which it will be full again (as in the generic cell rate algorithm, ITU-T I.371): what is
//! missing from it is the time left until then. A full bucket is the same as none, so a table forgets it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How much at once, and how fast it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket; at least 1.
    pub burst: u32,
    /// Time for one token to come back.
    pub interval: Duration,
}

impl Rate {
    /// When a bucket will be full after one more token is taken; else how long until there is one.
    fn take(self, now: Instant, full_at: Option<Instant>) -> Result<Instant, Duration> {
        let after = full_at.map_or(now, |at| at.max(now)) + self.interval;
        match (after - now).checked_sub(self.interval * self.burst) {
            None | Some(Duration::ZERO) => Ok(after),
            Some(wait) => Err(wait),
        }
    }
}

/// One token bucket, for things that may happen only so often: resets, log lines.
#[derive(Debug, Clone)]
pub struct RateLimit {
    rate: Rate,
    full_at: Option<Instant>,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    /// Takes a token if there is one; whether there was.
    pub fn allow(&mut self, now: Instant) -> bool {
        let taken = self.rate.take(now, self.full_at);
        self.full_at = taken.ok().or(self.full_at);
        taken.is_ok()
    }
}

/// As many token buckets as there are keys that have drawn lately, in bounded memory.
pub struct RateLimits<K>(Buckets<K>);

impl<K: Clone + Ord + Hash> RateLimits<K> {
    /// All full. Beyond `max` that are not, further keys share one.
    pub fn new(rate: Rate, max: usize) -> Self {
        Self(Buckets::new(rate, max))
    }

    /// Takes a token of this key if there is one; whether there was.
    pub fn allow(&mut self, now: Instant, key: &K) -> bool {
        self.0.check(now, key).map(|()| self.0.draw(now, key)).is_ok()
    }
}

/// A bounded table of buckets.
///
/// When it is full of buckets that are not, a key without one draws from a bucket shared by all such keys. No bucket is
/// dropped before it is full: whoever fills the table gets no token back by it, and those who have a bucket keep it.
pub(super) struct Buckets<K> {
    rate: Rate,
    max: usize,
    full_at: HashMap<K, Instant>,
    /// The same, by time.
    by_time: BTreeSet<(Instant, K)>,
    shared: Option<Instant>,
    has_overflowed: bool,
}

/// Which bucket a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    Own,
    Shared,
}

impl<K: Clone + Ord + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate, max: usize) -> Self {
        let (full_at, by_time) = (HashMap::new(), BTreeSet::new());
        Self { rate, max, full_at, by_time, shared: None, has_overflowed: false }
    }

    /// Whether a token could be taken; else how long until one could.
    pub(super) fn check(&mut self, now: Instant, key: &K) -> Result<(), Duration> {
        self.forget_full(now);
        let full_at = match self.full_at.get(key) {
            Some(&at) => Some(at),
            None if self.is_at_max() => self.shared,
            None => None,
        };
        self.rate.take(now, full_at).map(drop)
    }

    /// Takes a token after [`check`](Self::check) has found one.
    pub(super) fn draw(&mut self, now: Instant, key: &K) -> Drawn {
        let own = self.full_at.get(key).copied();
        if own.is_none() && self.is_at_max() {
            self.has_overflowed = true;
            self.shared = self.rate.take(now, self.shared).ok().or(self.shared);
            return Drawn::Shared;
        }
        if let Ok(after) = self.rate.take(now, own) {
            self.set(key, own, Some(after));
        }
        Drawn::Own
    }

    /// Puts a token back where it came from.
    pub(super) fn put_back(&mut self, now: Instant, key: &K, drawn: Drawn) {
        let before = |at: Instant| at.checked_sub(self.rate.interval).filter(|&at| at > now);
        match drawn {
            Drawn::Shared => self.shared = self.shared.and_then(before),
            Drawn::Own => {
                if let Some(&at) = self.full_at.get(key) {
                    self.set(key, Some(at), before(at));
                }
            }
        }
    }

    /// Whether the table was full since this was last asked.
    pub(super) fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.has_overflowed)
    }

    fn is_at_max(&self) -> bool {
        self.full_at.len() >= self.max
    }

    /// Two at a time: more than are added, so the table never holds more full buckets than a moment brings.
    fn forget_full(&mut self, now: Instant) {
        for _ in 0..2 {
            match self.by_time.first() {
                Some((at, _)) if *at <= now => {
                    let (_, key) = self.by_time.pop_first().expect("there is a first");
                    self.full_at.remove(&key);
                }
                _ => return,
            }
        }
    }

    fn set(&mut self, key: &K, old: Option<Instant>, new: Option<Instant>) {
        if let Some(old) = old {
            self.by_time.remove(&(old, key.clone()));
        }
        match new {
            Some(at) => {
                self.by_time.insert((at, key.clone()));
                self.full_at.insert(key.clone(), at);
            }
            None => {
                self.full_at.remove(key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.full_at.len(), self.by_time.len());
        self.full_at.len()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an Instant to count from can be had no other way")]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, interval: Duration::from_secs(2) };

    fn draw(buckets: &mut Buckets<u32>, now: Instant, key: u32) -> Result<Drawn, Duration> {
        buckets.check(now, &key).map(|()| buckets.draw(now, &key))
    }

    #[test]
    fn a_burst_and_then_one_an_interval() {
        let start = Instant::now();
        let mut limit = RateLimit::new(RATE);
        let allowed = |limit: &mut RateLimit, ms| limit.allow(start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 0, 1_999].map(|ms| allowed(&mut limit, ms)), [true, true, true, false, false]);
        assert_eq!([2_000, 2_001, 4_000].map(|ms| allowed(&mut limit, ms)), [true, false, true]);
        assert_eq!([60_000, 60_000, 60_000, 60_000].map(|ms| allowed(&mut limit, ms)), [true, true, true, false]);
    }

    #[test]
    fn what_is_put_back_can_be_drawn_again_and_no_more() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATE, 8);
        for _ in 0..100 {
            let drawn = draw(&mut buckets, now, 1).unwrap();
            buckets.put_back(now, &1, drawn);
        }
        assert_eq!(buckets.len(), 0, "a full bucket is forgotten");
        buckets.put_back(now, &1, Drawn::Own);
        assert_eq!((0..10).filter(|_| draw(&mut buckets, now, 1).is_ok()).count(), 3);
        assert_eq!(draw(&mut buckets, now, 1), Err(RATE.interval));
    }

    #[test]
    fn a_full_table_gives_nobody_a_token_back() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATE, 4);
        for key in 0..4 {
            assert_eq!((0..10).filter(|_| draw(&mut buckets, now, key).is_ok()).count(), 3);
        }
        assert!(!buckets.take_overflowed());
        // A thousand strangers share one bucket; none of the four is reset by them.
        assert_eq!((4..1_000).filter(|&key| draw(&mut buckets, now, key).is_ok()).count(), 3);
        assert!(buckets.take_overflowed() && !buckets.take_overflowed());
        assert!((0..4).all(|key| draw(&mut buckets, now, key).is_err()));
        assert_eq!(buckets.len(), 4);
        // As they fill up, they make room.
        let later = now + RATE.interval * RATE.burst;
        assert!((4..8).all(|key| draw(&mut buckets, later, key) == Ok(Drawn::Own)));
        assert!(buckets.len() <= 4);
    }
}
