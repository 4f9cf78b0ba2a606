//! When a file is given up: after `--retry-for` without any source that may still bring something of it.
//!
//! A connection that stands is such a source, however slow it is, unless connections to the same address have ended
//! several times without a single verified chunk group: peers that come and go could otherwise keep a download waiting
//! for ever. An address that could not be reached is tried again but not waited for. Every verified group forgives all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// So many connections to one address may end without a verified group.
const FRUITLESS_MAX: u32 = 3;

/// What can be hoped for one file.
pub(super) struct Hope {
    /// When there was some, at last.
    last: Instant,
    disappointments: HashMap<SocketAddr, Disappointments>,
}

#[derive(Default)]
struct Disappointments {
    /// It could not be reached, so many times.
    unreached: u32,
    /// A connection ended without a verified group, so many times.
    fruitless: u32,
}

impl Hope {
    pub fn new(now: Instant) -> Self {
        Self { last: now, disappointments: HashMap::new() }
    }

    /// There is hope up to this time.
    pub fn keep(&mut self, until: Instant) {
        self.last = self.last.max(until);
    }

    /// Something was verified.
    pub fn fulfil(&mut self, now: Instant) {
        self.keep(now);
        self.disappointments.clear();
    }

    /// A source has ended and verified nothing; `was_connected` tells whether it could be reached at all.
    pub fn disappoint(&mut self, address: SocketAddr, was_connected: bool) {
        let counts = self.disappointments.entry(address).or_default();
        match was_connected {
            true => counts.fruitless += 1,
            false => counts.unreached += 1,
        }
    }

    /// Whether a source may still bring something; `is_connected` tells whether it has been reached.
    pub fn rests_on(&self, address: SocketAddr, is_connected: bool) -> bool {
        self.disappointments
            .get(&address)
            .is_none_or(|counts| counts.fruitless < FRUITLESS_MAX && (is_connected || counts.unreached == 0))
    }

    /// Whether there has been none for too long.
    pub fn is_over(&self, now: Instant, retry_for: Duration) -> bool {
        now.saturating_duration_since(self.last) >= retry_for && self.last <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY_FOR: Duration = Duration::from_secs(10);

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn it_ends_a_while_after_the_last_source_and_not_after_the_last_group() {
        let start = Instant::now();
        let mut hope = Hope::new(start);
        hope.fulfil(start);
        let lost = start + Duration::from_secs(60);
        hope.keep(lost);
        assert!(!hope.is_over(lost + RETRY_FOR / 2, RETRY_FOR));
        assert!(hope.is_over(lost + RETRY_FOR, RETRY_FOR));
    }

    #[test]
    fn without_patience_it_ends_at_once_but_not_before_a_promised_time() {
        let start = Instant::now();
        let mut hope = Hope::new(start);
        assert!(hope.is_over(start, Duration::ZERO));
        hope.keep(start + Duration::from_secs(1));
        assert!(!hope.is_over(start, Duration::ZERO));
        assert!(hope.is_over(start + Duration::from_secs(1), Duration::ZERO));
    }

    #[test]
    fn a_peer_that_comes_and_goes_is_not_waited_for_until_something_is_verified() {
        let mut hope = Hope::new(Instant::now());
        for _ in 0..FRUITLESS_MAX {
            assert!(hope.rests_on(address(1), true));
            hope.disappoint(address(1), true);
        }
        assert!(!hope.rests_on(address(1), true) && !hope.rests_on(address(1), false));
        assert!(hope.rests_on(address(2), true), "another is not to blame");
        hope.fulfil(Instant::now());
        assert!(hope.rests_on(address(1), true) && hope.rests_on(address(1), false));
    }

    #[test]
    fn an_address_that_was_out_of_reach_counts_again_once_it_is_reached() {
        let mut hope = Hope::new(Instant::now());
        for _ in 0..20 {
            hope.disappoint(address(1), false);
        }
        assert!(!hope.rests_on(address(1), false));
        assert!(hope.rests_on(address(1), true));
    }
}
