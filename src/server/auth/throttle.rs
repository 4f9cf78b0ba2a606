//! Guess budgets: how often a password may be tried, from where, for whom.
//!
//! Every LOGIN1 is charged to three token buckets, and refunded when it proves the password:
//!
//! * *user at an address prefix*: the ordinary brake on guessing;
//! * *address prefix*: over all users, wide enough for hundreds of clients that log in from one host at once;
//! * *user*: over all addresses, against guessing from many places. This one alone would let anyone lock a user out, so
//!   each user has several of them, for what comes from different origins, and none applies where that user has
//!   logged in before. A guess that another bucket refuses does not charge it.
//!
//! A prefix is one IPv4 address or an IPv6 /64. Defended here: online guessing, and locking the victim out by it; and no
//! bucket tells an unknown user from a known one, since where somebody has logged in, all users have a bucket that nobody
//! elsewhere can empty. Not defended here: an attacker at the victim's own prefix; a user who logs in from a new place,
//! or anywhere after a restart, while hundreds of networks guess at it, has to wait. What is remembered is bounded and in
//! memory only.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::common::net::AddressPrefix;
use crate::common::types::UserName;
use crate::server::auth::rate_limit::{Buckets, Drawn, Rate};

/// Guesses for one user from one prefix.
const USER_AT_PREFIX: Rate = Rate { burst: 20, interval: Duration::from_secs(2) };
/// Guesses from one prefix.
const PREFIX: Rate = Rate { burst: 512, interval: Duration::from_millis(125) };
/// Guesses for one user from each origin.
const USER: Rate = Rate { burst: 200, interval: Duration::from_secs(1) };
/// How many guesses for one user count as fresh at one network: few, so that it takes as many networks as there are
/// fresh guesses in this time to use them up for good.
const FRESH_AT_NETWORK: Rate = Rate { burst: 2, interval: Duration::from_secs(900) };
/// Buckets of each kind: some 32,000 logins a second would be needed to hold so many short of full.
const BUCKETS_MAX: usize = 65_536;

/// Where users have logged in is remembered this long.
const FAMILIAR_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Such places remembered over all users; the longest unused are forgotten first.
const FAMILIAR_MAX: usize = 65_536;
/// Such places of one user, so that nobody can push out everyone else's.
const FAMILIAR_PER_USER_MAX: usize = 16;

/// Where a guess comes from: each has its own bucket of the user's, so that guessing from one keeps nobody out at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Origin {
    /// Where somebody has logged in before, but not this user.
    Known,
    /// Anywhere else.
    Elsewhere,
    /// The same, when that bucket is empty: the first guesses of a network.
    Fresh,
}

/// Too many guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many login attempts; try again in {seconds} s")]
pub struct RetryAfter {
    /// At least 1.
    pub seconds: u16,
}

/// A guess that has been charged; to be given to [`Throttle::refund`] if it proves right.
#[derive(Debug)]
#[must_use = "a right password is refunded"]
pub struct Charge {
    place: (UserName, AddressPrefix),
    at_place: Drawn,
    at_prefix: Drawn,
    /// `None` where the user has logged in before.
    at_user: Option<(Origin, Drawn)>,
    /// If it was a fresh one.
    at_network: Option<Drawn>,
}

/// The guess budgets.
pub struct Throttle {
    by_place: Buckets<(UserName, AddressPrefix)>,
    by_prefix: Buckets<AddressPrefix>,
    by_user: Buckets<(UserName, Origin)>,
    fresh: Buckets<(UserName, AddressPrefix)>,
    familiar: Familiar,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Throttle {
    /// Nothing charged, nobody known.
    pub fn new() -> Self {
        Self {
            by_place: Buckets::new(USER_AT_PREFIX, BUCKETS_MAX),
            by_prefix: Buckets::new(PREFIX, BUCKETS_MAX),
            by_user: Buckets::new(USER, BUCKETS_MAX),
            fresh: Buckets::new(FRESH_AT_NETWORK, BUCKETS_MAX),
            familiar: Familiar::default(),
        }
    }

    /// Charges one guess, to all buckets or, if one of them is empty, to none. The user need not exist: known and unknown
    /// ones are treated alike.
    pub fn check(&mut self, now: Instant, address: IpAddr, user: &UserName) -> Result<Charge, RetryAfter> {
        let place = (user.clone(), AddressPrefix::of(address));
        let network = (user.clone(), place.1.network());
        let origin = self.origin(now, &place, &network);
        let waits = [
            self.by_place.check(now, &place).err(),
            self.by_prefix.check(now, &place.1).err(),
            origin.and_then(|origin| self.by_user.check(now, &(user.clone(), origin)).err()),
        ];
        if let Some(wait) = waits.into_iter().flatten().max() {
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            return Err(RetryAfter { seconds: seconds.try_into().unwrap_or(u16::MAX) });
        }
        let at_place = self.by_place.draw(now, &place);
        let at_prefix = self.by_prefix.draw(now, &place.1);
        let at_user = origin.map(|origin| (origin, self.by_user.draw(now, &(user.clone(), origin))));
        let at_network = (origin == Some(Origin::Fresh)).then(|| self.fresh.draw(now, &network));
        Ok(Charge { place, at_place, at_prefix, at_user, at_network })
    }

    /// Which bucket of the user's a guess is charged to; `None` where the user has logged in before.
    fn origin(
        &mut self,
        now: Instant,
        place: &(UserName, AddressPrefix),
        network: &(UserName, AddressPrefix),
    ) -> Option<Origin> {
        if self.familiar.contains(now, place) {
            return None;
        }
        if self.is_known(place.1) {
            return Some(Origin::Known);
        }
        let is_empty = self.by_user.check(now, &(place.0.clone(), Origin::Elsewhere)).is_err();
        let is_fresh = is_empty && self.fresh.check(now, network).is_ok();
        Some(if is_fresh { Origin::Fresh } else { Origin::Elsewhere })
    }

    /// Gives a guess back that was right, whatever came of the login.
    pub fn refund(&mut self, now: Instant, charge: Charge) {
        let Charge { place, at_place, at_prefix, at_user, at_network } = charge;
        self.by_place.put_back(now, &place, at_place);
        self.by_prefix.put_back(now, &place.1, at_prefix);
        let (user, prefix) = place;
        if let Some((origin, at_user)) = at_user {
            self.by_user.put_back(now, &(user.clone(), origin), at_user);
        }
        if let Some(at_network) = at_network {
            self.fresh.put_back(now, &(user, prefix.network()), at_network);
        }
    }

    /// Remembers that the user has proven its password at this address: guessing elsewhere no longer counts there.
    pub fn proven(&mut self, now: Instant, address: IpAddr, user: &UserName) {
        self.familiar.insert(now, (user.clone(), AddressPrefix::of(address)));
    }

    /// Whether anybody has proven its password at this prefix. Who it was makes no difference, so that nobody there learns
    /// who exists.
    pub fn is_known(&self, prefix: AddressPrefix) -> bool {
        self.familiar.per_prefix.contains_key(&prefix)
    }

    /// Whether a table was full since this was last asked, so that strangers shared a bucket; worth a log line.
    pub fn take_overflowed(&mut self) -> bool {
        self.by_place.take_overflowed()
            | self.by_prefix.take_overflowed()
            | self.by_user.take_overflowed()
            | self.fresh.take_overflowed()
    }
}

/// Where users have logged in, the most recent ones.
#[derive(Default)]
struct Familiar {
    /// When it was last used.
    used_at: BTreeMap<(UserName, AddressPrefix), Instant>,
    /// The same, by time.
    by_time: BTreeSet<(Instant, (UserName, AddressPrefix))>,
    /// How many of them are there.
    per_prefix: HashMap<AddressPrefix, usize>,
}

impl Familiar {
    fn contains(&self, now: Instant, place: &(UserName, AddressPrefix)) -> bool {
        self.used_at.get(place).is_some_and(|&at| now.saturating_duration_since(at) < FAMILIAR_LIFETIME)
    }

    fn insert(&mut self, now: Instant, place: (UserName, AddressPrefix)) {
        self.remove(&place);
        if let Some(oldest) = self.oldest_beyond_share(&place.0) {
            self.remove(&oldest);
        }
        while let Some((at, oldest)) = self.by_time.first()
            && (self.by_time.len() >= FAMILIAR_MAX || now.saturating_duration_since(*at) >= FAMILIAR_LIFETIME)
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        self.by_time.insert((now, place.clone()));
        *self.per_prefix.entry(place.1).or_default() += 1;
        self.used_at.insert(place, now);
    }

    /// The user's least recently used place, if it has as many as it may.
    fn oldest_beyond_share(&self, user: &UserName) -> Option<(UserName, AddressPrefix)> {
        let first = (user.clone(), AddressPrefix::V4(Ipv4Addr::UNSPECIFIED));
        let own = self.used_at.range(first..).take_while(|((of, _), _)| of == user);
        let is_full = own.clone().count() >= FAMILIAR_PER_USER_MAX;
        let oldest = own.min_by_key(|(_, at)| **at).map(|(place, _)| place.clone());
        oldest.filter(|_| is_full)
    }

    fn remove(&mut self, place: &(UserName, AddressPrefix)) {
        if let Some((place, at)) = self.used_at.remove_entry(place) {
            if let Entry::Occupied(mut count) = self.per_prefix.entry(place.1) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            self.by_time.remove(&(at, place));
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an Instant to count from can be had no other way")]
#[path = "throttle_tests.rs"]
mod tests;
