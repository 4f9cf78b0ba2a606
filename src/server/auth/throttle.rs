//! Limits on password guesses: by location, by address prefix, by user.
//!
//! Every LOGIN1 takes a token from three buckets, and returns them if it proves the password:
//!
//! * *user at an address prefix*: the ordinary limit on guessing;
//! * *address prefix*: over all users, wide enough for hundreds of clients that log in from one host at once. It does not apply
//!   where that user has logged in before: otherwise an attacker at the users' own host could lock all of them out with
//!   guesses for names that do not exist;
//! * *user*: over all addresses, against guessing from many places. On its own it would let an attacker lock a user out.
//!   So each user has several, for guesses of different origins, and none applies where that user has logged in before.
//!   A guess that one bucket refuses takes no token from the others.
//!
//! Defended: online guessing, and locking a user out by it. No bucket distinguishes an unknown user from a known one:
//! at a prefix where any user has logged in, every user has a bucket that guesses from elsewhere cannot empty. Not
//! defended: an attacker at the victim's own prefix who guesses at the victim's password, or who empties the prefix's bucket
//! and so learns which users have logged in there; a user who logs in from a new location, or anywhere after a restart,
//! waits while hundreds of networks guess at that user's password. The memory is bounded and does not survive a restart.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::expiring_map::ExpiringMap;
use super::rate_limit::{BucketKind, KeyedRateLimit};
use crate::common::net::AddressPrefix;
use crate::common::rate::Rate;
use crate::common::types::UserName;

/// Guesses for one user from one prefix.
const USER_AT_PREFIX: Rate = Rate::every(Duration::from_secs(2), 20);
/// Guesses from one prefix.
const PREFIX: Rate = Rate::every(Duration::from_millis(125), 512);
/// Guesses for one user from each origin.
const USER: Rate = Rate::every(Duration::from_secs(1), 200);
/// Guesses for one user that count as fresh at one network: so few that an attacker needs as many networks as there are
/// fresh guesses in this interval to use all of them up.
const FRESH_AT_NETWORK: Rate = Rate::every(Duration::from_secs(900), 2);
/// Buckets of each kind. To keep this many short of full takes about 32,000 logins a second.
const BUCKETS_MAX: usize = 65_536;

/// How long a location where a user has logged in is remembered.
const KNOWN_LOCATION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Such locations over all users; beyond that, the longest unused are forgotten.
const KNOWN_LOCATIONS_MAX: usize = 65_536;
/// Such locations of one user, so that one user cannot displace those of the others.
const KNOWN_LOCATIONS_PER_USER_MAX: usize = 16;

/// The origin of a guess. Each has its own bucket of the user, so that guesses from one do not lock the user out at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum GuessOrigin {
    /// A prefix where some user has logged in before, but not this one.
    Known,
    /// Any other prefix.
    Unknown,
    /// The first guesses of a network, while the bucket for [`Unknown`](Self::Unknown) is empty.
    Fresh,
}

/// A user at an address prefix, or at a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Location {
    user: UserName,
    prefix: AddressPrefix,
}

impl Location {
    fn network(&self) -> Self {
        Self { user: self.user.clone(), prefix: self.prefix.network() }
    }
}

/// The login attempt exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// At least 1.
    pub seconds: u16,
}

/// The tokens that one guess has taken; [`LoginThrottle::refund`] returns them if the password was right.
#[derive(Debug)]
#[must_use = "a right password is refunded"]
pub struct Charge {
    location: Location,
    at_location: BucketKind,
    /// This and the next are `None` where the user has logged in before.
    at_prefix: Option<BucketKind>,
    of_user: Option<(GuessOrigin, BucketKind)>,
    /// If it was a fresh one.
    at_network: Option<BucketKind>,
}

pub struct LoginThrottle {
    by_location: KeyedRateLimit<Location>,
    by_prefix: KeyedRateLimit<AddressPrefix>,
    by_user: KeyedRateLimit<(UserName, GuessOrigin)>,
    fresh: KeyedRateLimit<Location>,
    known: KnownLocations,
}

impl Default for LoginThrottle {
    /// All buckets full, no location known.
    fn default() -> Self {
        Self {
            by_location: KeyedRateLimit::new(USER_AT_PREFIX, BUCKETS_MAX),
            by_prefix: KeyedRateLimit::new(PREFIX, BUCKETS_MAX),
            by_user: KeyedRateLimit::new(USER, BUCKETS_MAX),
            fresh: KeyedRateLimit::new(FRESH_AT_NETWORK, BUCKETS_MAX),
            known: KnownLocations::default(),
        }
    }
}

impl LoginThrottle {
    /// Charges one guess to all buckets or, if one of them is empty, to none. Known and unknown users are treated alike.
    pub fn check(&mut self, now: Instant, address: IpAddr, user: &UserName) -> Result<Charge, RetryAfter> {
        let location = Location { user: user.clone(), prefix: AddressPrefix::of(address) };
        let network = location.network();
        let origin = self.origin(now, &location, &network);
        let waits = [
            self.by_location.check(now, &location).err(),
            origin.and_then(|_| self.by_prefix.check(now, &location.prefix).err()),
            origin.and_then(|origin| self.by_user.check(now, &(user.clone(), origin)).err()),
        ];
        if let Some(wait) = waits.into_iter().flatten().max() {
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            return Err(RetryAfter { seconds: seconds.try_into().unwrap_or(u16::MAX) });
        }
        let at_location = self.by_location.take(now, &location);
        let at_prefix = origin.map(|_| self.by_prefix.take(now, &location.prefix));
        let of_user = origin.map(|origin| (origin, self.by_user.take(now, &(user.clone(), origin))));
        let at_network = (origin == Some(GuessOrigin::Fresh)).then(|| self.fresh.take(now, &network));
        Ok(Charge { location, at_location, at_prefix, of_user, at_network })
    }

    /// Which of the user's buckets a guess is charged to; `None` where the user has logged in before.
    fn origin(&mut self, now: Instant, location: &Location, network: &Location) -> Option<GuessOrigin> {
        if self.known.contains(now, location) {
            return None;
        }
        if self.is_known(location.prefix) {
            return Some(GuessOrigin::Known);
        }
        let is_empty = self.by_user.check(now, &(location.user.clone(), GuessOrigin::Unknown)).is_err();
        let is_fresh = is_empty && self.fresh.check(now, network).is_ok();
        Some(if is_fresh { GuessOrigin::Fresh } else { GuessOrigin::Unknown })
    }

    /// Returns the tokens of a guess that was right, whatever the outcome of the login.
    pub fn refund(&mut self, now: Instant, charge: Charge) {
        let Charge { location, at_location, at_prefix, of_user, at_network } = charge;
        self.by_location.refund(now, &location, at_location);
        if let Some(kind) = at_prefix {
            self.by_prefix.refund(now, &location.prefix, kind);
        }
        if let Some((origin, kind)) = of_user {
            self.by_user.refund(now, &(location.user.clone(), origin), kind);
        }
        if let Some(kind) = at_network {
            self.fresh.refund(now, &location.network(), kind);
        }
    }

    /// Remembers that the user has proven the password at this address: guesses from elsewhere no longer count there.
    pub fn record_success(&mut self, now: Instant, address: IpAddr, user: &UserName) {
        self.known.insert(now, Location { user: user.clone(), prefix: AddressPrefix::of(address) });
    }

    /// Whether any user has proven a password at this prefix. Which one makes no difference, so that nothing here
    /// reveals which users exist.
    pub fn is_known(&self, prefix: AddressPrefix) -> bool {
        self.known.per_prefix.contains_key(&prefix)
    }
}

/// The most recent locations where users have logged in.
#[derive(Default)]
struct KnownLocations {
    locations: ExpiringMap<Location, ()>,
    /// How many of them are at each prefix.
    per_prefix: HashMap<AddressPrefix, usize>,
}

impl KnownLocations {
    fn contains(&self, now: Instant, location: &Location) -> bool {
        self.locations.expiry(location).is_some_and(|expires| expires > now)
    }

    fn insert(&mut self, now: Instant, location: Location) {
        self.remove(&location);
        if let Some(oldest) = self.oldest_beyond_share(&location.user) {
            self.remove(&oldest);
        }
        while let Some((expired, ())) = self.locations.pop_expired(now) {
            self.uncount(expired.prefix);
        }
        if self.locations.len() >= KNOWN_LOCATIONS_MAX
            && let Some((oldest, ())) = self.locations.pop_first()
        {
            self.uncount(oldest.prefix);
        }
        *self.per_prefix.entry(location.prefix).or_default() += 1;
        self.locations.insert(location, now + KNOWN_LOCATION_LIFETIME, ());
    }

    /// The user's least recently used location, if the user has as many as allowed.
    fn oldest_beyond_share(&self, user: &UserName) -> Option<Location> {
        let first = Location { user: user.clone(), prefix: AddressPrefix::V4(Ipv4Addr::UNSPECIFIED) };
        let own = self.locations.range_from(first).take_while(|(location, _)| location.user == *user);
        let is_full = own.clone().count() >= KNOWN_LOCATIONS_PER_USER_MAX;
        let oldest = own.min_by_key(|(_, expires)| *expires).map(|(location, _)| location.clone());
        oldest.filter(|_| is_full)
    }

    fn remove(&mut self, location: &Location) {
        if self.locations.remove(location).is_some() {
            self.uncount(location.prefix);
        }
    }

    fn uncount(&mut self, prefix: AddressPrefix) {
        if let Entry::Occupied(mut count) = self.per_prefix.entry(prefix) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs an Instant to count from")]
#[path = "throttle_tests.rs"]
mod tests;
