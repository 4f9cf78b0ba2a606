//! A bound on what all uploads together send.
//!
//! [`TokenBucket`] is the arithmetic, without a clock; [`RateLimiter`] sleeps as it says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::limits::RECORD_MAX_BYTES;
use crate::common::sync::lock;

/// What may be sent at once after a pause, as a part of what may be sent in a second.
const BURST_PER_SECOND: u64 = 20;
/// A sleeper looks this often whether it should end.
const NAP: Duration = Duration::from_millis(50);

/// Bytes that may be sent now, and how long to wait for those that may not. Whoever takes more than there is goes into
/// debt and waits until it is paid: so takers are served in the order they came, and none starves.
#[derive(Debug)]
pub(super) struct TokenBucket {
    bytes_per_second: u64,
    /// Nanoseconds ahead of time that may be used up, as if a pause had lasted so long.
    burst: Duration,
    /// When everything taken so far is paid for.
    paid: Instant,
}

impl TokenBucket {
    /// Full at `now`.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        let burst = Duration::from_secs(1) / u32::try_from(BURST_PER_SECOND).expect("a small number");
        Self { bytes_per_second: bytes_per_second.max(1), burst, paid: now.checked_sub(burst).unwrap_or(now) }
    }

    /// Takes `bytes`; they may be sent after the returned time.
    pub(super) fn take(&mut self, now: Instant, bytes: u64) -> Duration {
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.paid = self.paid.max(earliest) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX >> 16));
        self.paid.saturating_duration_since(now)
    }
}

/// The bucket that all uploads share.
pub(super) struct RateLimiter {
    bucket: Mutex<TokenBucket>,
    piece_bytes: usize,
}

impl RateLimiter {
    /// Bytes a second over all uploads.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let piece = usize::try_from(bytes_per_second / BURST_PER_SECOND).unwrap_or(usize::MAX);
        Self {
            bucket: Mutex::new(TokenBucket::new(bytes_per_second, Instant::now())),
            piece_bytes: piece.clamp(512, RECORD_MAX_BYTES),
        }
    }

    /// How much to send in one record, so that a low rate still flows rather than comes in gulps.
    pub(super) fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Reserves `bytes`; the wait before they may go.
    pub(super) fn reserve(&self, bytes: usize) -> Duration {
        lock(&self.bucket).take(Instant::now(), bytes as u64)
    }

    /// Waits, unless `stop` is set meanwhile.
    pub(super) fn wait(&self, time: Duration, stop: &AtomicBool) {
        let until = Instant::now() + time;
        while !stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time_and_no_pause_saves_up_more_than_a_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1_000_000, start);
        let mut now = start;
        for _ in 0..1_000 {
            now += bucket.take(now, 10_000);
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(9_940) && took <= Duration::from_secs(10), "10 MB took {took:?}");
        now += Duration::from_secs(3_600);
        assert_eq!(bucket.take(now, 50_000), Duration::ZERO, "a burst is free");
        assert_eq!(bucket.take(now, 1_000), Duration::from_millis(1), "the rest is not");
    }

    #[test]
    fn takers_wait_in_line() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(1_000, now);
        bucket.take(now, 50);
        let waits: Vec<_> = (0..3).map(|_| bucket.take(now, 1_000).as_secs()).collect();
        assert_eq!(waits, [1, 2, 3]);
        assert!(
            TokenBucket::new(0, now).take(now, u64::MAX) > Duration::from_secs(1),
            "no rate is so low that it divides by 0"
        );
    }

    #[test]
    fn a_low_rate_makes_small_records() {
        assert_eq!(RateLimiter::new(1).piece_bytes(), 512);
        assert_eq!(RateLimiter::new(u64::MAX).piece_bytes(), RECORD_MAX_BYTES);
    }
}
