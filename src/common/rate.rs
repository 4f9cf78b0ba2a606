//! Token buckets without a tick, by the generic cell rate algorithm (GCRA, ITU-T I.371).
//!
//! The state of a bucket is one instant: when it will be full again. The time left until then is what is missing from it,
//! so a bucket whose instant has passed is full. No function reads a clock.

use std::time::{Duration, Instant};

/// How fast tokens come back, and how many a full bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    burst: u64,
    tokens: u64,
    per: Duration,
}

impl Rate {
    /// One token every `interval`; a full bucket holds `burst`.
    pub const fn every(interval: Duration, burst: u64) -> Self {
        Self { burst, tokens: 1, per: interval }
    }

    /// `tokens` a second, at least 1; a full bucket holds `burst`.
    pub const fn per_second(tokens: u64, burst: u64) -> Self {
        Self { burst, tokens: if tokens == 0 { 1 } else { tokens }, per: Duration::from_secs(1) }
    }

    /// Time in which `tokens` come back, bounded to 146 years so that it can be added to an instant.
    fn time_for(self, tokens: u64) -> Duration {
        let nanos = self.per.as_nanos().saturating_mul(tokens.into()) / u128::from(self.tokens);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).min(u64::MAX >> 2))
    }
}

/// A token bucket. The [`Rate`] is an argument, so that a table of buckets with one rate stores it once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    pub fn full() -> Self {
        Self { full_at: None }
    }

    /// A bucket that will be full at this instant.
    pub fn full_at(instant: Instant) -> Self {
        Self { full_at: Some(instant) }
    }

    /// When the bucket will be full again; `None` if it is full.
    pub fn fills_at(self, now: Instant) -> Option<Instant> {
        self.full_at.filter(|&at| at > now)
    }

    /// Takes one token if there is one. The error is how long until there is one.
    pub fn try_take(&mut self, now: Instant, rate: Rate) -> Result<(), Duration> {
        let mut after = *self;
        match after.take_in_advance(now, rate, 1) {
            Duration::ZERO => {
                *self = after;
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Takes tokens, in debt if need be, and returns how long to wait until the debt is paid. Callers that wait that long
    /// are served in the order of their calls.
    pub fn take_in_advance(&mut self, now: Instant, rate: Rate, tokens: u64) -> Duration {
        let full_at = self.fills_at(now).unwrap_or(now) + rate.time_for(tokens);
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(rate.time_for(rate.burst))
    }

    /// Returns one token that was taken.
    pub fn refund(&mut self, now: Instant, rate: Rate) {
        let before = self.full_at.and_then(|at| at.checked_sub(rate.time_for(1)));
        self.full_at = before.filter(|&at| at > now);
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
#[expect(clippy::disallowed_methods, reason = "a test needs an Instant to count from")]
mod tests;
