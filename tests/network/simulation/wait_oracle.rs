//! Whether a wait of a random script ended as it must, by what was true of the other users meanwhile.

use std::time::{Duration, Instant};

use fileshare::internals::client::session::{RequestError, WaitCondition, WaitOutcome};
use fileshare::internals::common::limits::SUBSCRIPTIONS_MAX;
use fileshare::internals::common::types::UserName;

use super::user_history::{Period, UserHistory, complement};

/// Longest time from a change to the end of a wait that has subscribed: a lost report comes with the next heartbeat.
const REPORT_MAX: Duration = Duration::from_secs(4);
/// Longest time that a SUBSCRIBE takes at 20 % loss both ways: 16 attempts.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(12);
/// A connection is lost this long before it is noticed.
const BEFORE_LOSS: Duration = Duration::from_secs(5);
/// After a restart or another disturbance all are connected again, and absence counts.
const AFTER_LOSS: Duration = Duration::from_secs(20);

/// A wait of a random script.
#[derive(Debug)]
pub struct ScriptWait {
    pub condition: WaitCondition,
    pub started: Instant,
    pub deadline: Instant,
    /// Different topics that the client waited for, with this one.
    pub topics: usize,
    pub is_cancelled: bool,
}

impl ScriptWait {
    /// What it waits for, as the server knows it.
    pub fn topic(&self) -> String {
        match &self.condition {
            WaitCondition::PeerActive(peer) | WaitCondition::PeerGone(peer) => format!("peer {peer}"),
            WaitCondition::FileAvailable(name) => format!("file {name}"),
        }
    }
}

/// A user, and when the connection of the client was disturbed.
pub struct ObservedUser<'a> {
    pub user: &'a UserName,
    pub history: &'a UserHistory,
    pub disturbances: &'a [Instant],
}

/// Everything that a wait depends on.
pub struct World<'a> {
    pub users: Vec<ObservedUser<'a>>,
    /// Starts and ends of the server.
    pub restarts: &'a [Instant],
    /// Publications are not what the responses say.
    pub has_lost_data: bool,
}

impl World<'_> {
    /// When the condition was met, surely or maybe.
    fn met(&self, asker: &UserName, condition: &WaitCondition, is_sure: bool, within: Period) -> Vec<Period> {
        let active = |peer: &UserName, is_sure| {
            let known = self.users.iter().filter(|other| other.user == peer && peer != asker);
            known.flat_map(|other| other.history.active(is_sure, within)).collect::<Vec<_>>()
        };
        match condition {
            WaitCondition::PeerActive(peer) => active(peer, is_sure),
            WaitCondition::PeerGone(peer) => complement(active(peer, !is_sure), within),
            WaitCondition::FileAvailable(name) => {
                let others = self.users.iter().filter(|other| other.user != asker);
                others.flat_map(|other| other.history.visible(is_sure, asker, name, within)).collect()
            }
        }
    }

    /// The parts of a period in which nothing kept the server from knowing and telling.
    fn calm(&self, asker: &UserName, condition: &WaitCondition, period: Period) -> Vec<Period> {
        let concerns = |other: &UserName| match condition {
            WaitCondition::PeerActive(peer) | WaitCondition::PeerGone(peer) => other == peer,
            WaitCondition::FileAvailable(name) => name.as_str().starts_with(other.as_str()),
        };
        let users = self.users.iter().filter(|other| other.user == asker || concerns(other.user));
        let disturbances = users.flat_map(|other| other.disturbances).chain(self.restarts);
        let is_within = |(from, until): &Period| *from < period.1 && *until > period.0;
        let windows = disturbances.map(|at| (*at - BEFORE_LOSS, *at + AFTER_LOSS));
        complement(windows.filter(is_within).collect(), period)
    }

    /// Panics unless a wait that has not ended until `at`, or ended then with this result, did as it must.
    pub fn check(
        &self,
        asker: &UserName,
        wait: &ScriptWait,
        at: Instant,
        result: Option<Result<WaitOutcome, RequestError>>,
    ) {
        let ScriptWait { condition, started, deadline, .. } = wait;
        let (is_file, whole) = (matches!(condition, WaitCondition::FileAvailable(_)), (*started, at));
        let told = |what| format!("{asker}: {what}: {wait:?} ended after {:?} with {result:?}", at - *started);
        let is_calm = |period| self.calm(asker, condition, period) == [period];
        match &result {
            Some(Ok(WaitOutcome::Met)) if is_file && self.has_lost_data => {}
            Some(Ok(WaitOutcome::Met)) => {
                assert!(!self.met(asker, condition, false, whole).is_empty(), "{}", told("it was never met"));
            }
            Some(Ok(WaitOutcome::TimedOut)) => assert!(at >= *deadline, "{}", told("too early")),
            Some(Ok(WaitOutcome::Cancelled)) => assert!(wait.is_cancelled, "{}", told("not cancelled")),
            Some(Err(RequestError::Unreachable)) => {
                assert!(at >= *deadline && !is_calm((at - REPORT_MAX, at)), "{}", told("the server was reachable"));
            }
            Some(Err(RequestError::NotAuthenticated)) => {
                let own = self.users.iter().find(|other| other.user == asker).expect("it has a history");
                assert!(!own.history.is_surely_online(at), "{}", told("not logged out"));
            }
            Some(Err(RequestError::TooManyWaits)) => {
                assert!(wait.topics > SUBSCRIPTIONS_MAX, "{}", told("not too many"));
            }
            Some(Err(_)) => panic!("{}", told("another error")),
            None => {}
        }
        let ends_unmet = matches!(result, None | Some(Ok(WaitOutcome::Met | WaitOutcome::TimedOut)));
        if !ends_unmet || (is_file && self.has_lost_data) {
            return;
        }
        for period in self.met(asker, condition, true, whole) {
            let is_missed = period == whole && is_calm(whole) && matches!(result, Some(Ok(WaitOutcome::TimedOut)));
            assert!(!is_missed, "{}", told("it was met all the time"));
            for (from, until) in self.calm(asker, condition, period) {
                let limit = (from + REPORT_MAX).max(*started + SUBSCRIBE_MAX);
                assert!(until <= limit, "{}", told("it was missed, or late"));
            }
        }
    }
}
