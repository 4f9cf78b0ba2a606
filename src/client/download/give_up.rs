//! Decides when a download is abandoned: after `--retry-for` without a viable source.
//!
//! A connected source is viable, however slow it is, unless it has had three connections without a verified
//! group: peers that connect and disconnect could otherwise delay the end of a download for ever. A source that could
//! not be reached is dialled again but is not viable. Any verified group resets all failure counts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::discovery::PeerAddress;

/// A source with this many connections without a verified group is not viable.
const EMPTY_CONNECTIONS_MAX: u32 = 3;

/// The sources of one file, as far as they decide when it is abandoned.
pub(super) struct GiveUpTimer {
    /// When a source was viable for the last time. May be in the future.
    viable_until: Instant,
    failures: HashMap<PeerAddress, SourceFailures>,
}

#[derive(Default)]
struct SourceFailures {
    /// Connections that could not be established.
    connect: u32,
    /// Connections that ended without a verified group.
    empty: u32,
}

impl GiveUpTimer {
    pub fn new(now: Instant) -> Self {
        Self { viable_until: now, failures: HashMap::new() }
    }

    /// A source is viable up to this time at least.
    pub fn extend(&mut self, until: Instant) {
        self.viable_until = self.viable_until.max(until);
    }

    /// Whether a source is waited for up to a time in the future.
    pub fn is_extended(&self, now: Instant) -> bool {
        self.viable_until > now
    }

    /// A group was verified.
    pub fn record_progress(&mut self, now: Instant) {
        self.extend(now);
        self.failures.clear();
    }

    /// A source has ended without a verified group. `was_connected`: its connection had been established.
    pub fn record_failure(&mut self, peer: PeerAddress, was_connected: bool) {
        let failures = self.failures.entry(peer).or_default();
        match was_connected {
            true => failures.empty += 1,
            false => failures.connect += 1,
        }
    }

    /// Whether the source may still deliver something.
    pub fn is_viable(&self, peer: &PeerAddress, is_connected: bool) -> bool {
        self.failures
            .get(peer)
            .is_none_or(|failures| failures.empty < EMPTY_CONNECTIONS_MAX && (is_connected || failures.connect == 0))
    }

    /// When the file is abandoned unless a source becomes viable; `None`: never.
    pub fn expires_at(&self, retry_for: Duration) -> Option<Instant> {
        self.viable_until.checked_add(retry_for)
    }

    /// Whether no source has been viable for `retry_for`.
    pub fn has_expired(&self, now: Instant, retry_for: Duration) -> bool {
        self.expires_at(retry_for).is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time begins at any instant")]
mod tests {
    use super::*;
    use crate::common::types::UserName;

    const RETRY_FOR: Duration = Duration::from_secs(10);

    fn peer(user: &str, port: u16) -> PeerAddress {
        PeerAddress { user: UserName::parse(user).unwrap(), address: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn it_expires_after_the_last_viable_source_and_not_after_the_last_group() {
        let start = Instant::now();
        let mut timer = GiveUpTimer::new(start);
        timer.record_progress(start);
        let lost = start + Duration::from_secs(60);
        timer.extend(lost);
        assert!(!timer.has_expired(lost + RETRY_FOR / 2, RETRY_FOR));
        assert!(timer.has_expired(lost + RETRY_FOR, RETRY_FOR));
    }

    #[test]
    fn without_retry_time_it_expires_at_once_but_not_before_an_extension() {
        let start = Instant::now();
        let mut timer = GiveUpTimer::new(start);
        assert!(timer.has_expired(start, Duration::ZERO));
        timer.extend(start + Duration::from_secs(1));
        assert!(!timer.has_expired(start, Duration::ZERO));
        assert!(timer.has_expired(start + Duration::from_secs(1), Duration::ZERO));
    }

    #[test]
    fn a_source_with_empty_connections_is_not_viable_until_a_group_is_verified() {
        let mut timer = GiveUpTimer::new(Instant::now());
        for _ in 0..EMPTY_CONNECTIONS_MAX {
            assert!(timer.is_viable(&peer("hans", 1), true));
            timer.record_failure(peer("hans", 1), true);
        }
        assert!(!timer.is_viable(&peer("hans", 1), true) && !timer.is_viable(&peer("hans", 1), false));
        for other in [peer("hans", 2), peer("vader", 1)] {
            assert!(timer.is_viable(&other, true), "other sources are not affected: {other:?}");
        }
        timer.record_progress(Instant::now());
        assert!(timer.is_viable(&peer("hans", 1), true) && timer.is_viable(&peer("hans", 1), false));
    }

    #[test]
    fn an_unreachable_source_is_viable_once_it_is_connected() {
        let mut timer = GiveUpTimer::new(Instant::now());
        for _ in 0..20 {
            timer.record_failure(peer("hans", 1), false);
        }
        assert!(!timer.is_viable(&peer("hans", 1), false));
        assert!(timer.is_viable(&peer("hans", 1), true));
    }
}
