//! Upload slots: how many uploads run at once, and whose turn it is.
//!
//! Defended: no user uses all slots while there is more than one, and none keeps one while others wait. A user who had
//! a slot while others waited gets the next one after them, and a slot is lost after a turn (see [`Turn`]). So a
//! downloader that receives as slowly as it can delays the others by a bounded time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::limits::UploadLimits;
use crate::common::sync::{Mutex, lock};
use crate::common::types::UserName;

/// A user who was refused a slot and has not asked again within this time does not wait any more.
const WAIT_WINDOW: Duration = Duration::from_secs(2);
/// Most users whose turn is remembered.
const WAITING_MAX: usize = 1_024;

/// All upload slots of one client.
pub(super) struct UploadSlots {
    total: u8,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    by_user: HashMap<UserName, u8>,
    in_use: u8,
    waiting: HashMap<UserName, Waiting>,
    /// When this user last had a slot while others waited.
    had_turn: HashMap<UserName, Instant>,
}

/// A user who was refused a slot.
struct Waiting {
    since: Instant,
    last_asked: Instant,
}

impl UploadSlots {
    pub(super) fn new(total: u8) -> Self {
        Self { total, state: Mutex::default() }
    }

    pub(super) fn total(&self) -> u8 {
        self.total
    }

    /// Number of uploads that could start now.
    pub(super) fn free(&self) -> u8 {
        self.total.saturating_sub(lock(&self.state).in_use)
    }

    /// Acquires a slot for `user`, who may have at most half of them (rounded up), unless it had one while
    /// others waited who still do.
    pub(super) fn acquire(self: &Arc<Self>, user: &UserName, now: Instant) -> Option<UploadSlot> {
        let mut state = lock(&self.state);
        state.waiting.retain(|_, waiting| now.saturating_duration_since(waiting.last_asked) <= WAIT_WINDOW);
        let since = state.waiting.get(user).map_or(now, |waiting| waiting.since);
        let oldest = state.waiting.values().map(|waiting| waiting.since).min();
        state.had_turn.retain(|_, at| oldest.is_some_and(|oldest| oldest <= *at));
        let had_turn = state.had_turn.get(user).copied();
        let is_ahead = |(other, waiting): &(&UserName, &Waiting)| {
            *other != user && had_turn.is_some_and(|at| waiting.since <= at) && self.may_have(&state, other)
        };
        let ahead = state.waiting.iter().filter(is_ahead).count();
        if !self.may_have(&state, user) || usize::from(self.total.saturating_sub(state.in_use)) <= ahead {
            if state.waiting.len() < WAITING_MAX || state.waiting.contains_key(user) {
                state.waiting.insert(user.clone(), Waiting { since, last_asked: now });
            }
            let SlotState { by_user, had_turn, .. } = &mut *state;
            had_turn.extend(by_user.keys().filter(|holder| *holder != user).map(|holder| (holder.clone(), now)));
            return None;
        }
        state.waiting.remove(user);
        if !state.waiting.is_empty() {
            state.had_turn.insert(user.clone(), now);
        }
        state.in_use += 1;
        *state.by_user.entry(user.clone()).or_insert(0) += 1;
        Some(UploadSlot { slots: self.clone(), user: user.clone(), turn: Arc::new(Turn::begin(now)) })
    }

    /// Whether a user was refused within `window` before `now`, and may ask again.
    pub(super) fn has_waiters(&self, now: Instant, window: Duration) -> bool {
        let asked = |waiting: &Waiting| now.saturating_duration_since(waiting.last_asked) <= window;
        lock(&self.state).waiting.values().any(asked)
    }

    /// Whether the user would get a slot that becomes free.
    pub(super) fn is_eligible(&self, user: &UserName) -> bool {
        self.may_have(&lock(&self.state), user)
    }

    fn may_have(&self, state: &SlotState, user: &UserName) -> bool {
        state.by_user.get(user).is_none_or(|slots| *slots < self.total.div_ceil(2))
    }

    /// Whether another user than this one waits, and would get its slot.
    fn has_others_waiting(&self, user: &UserName, now: Instant) -> bool {
        let asked = |waiting: &Waiting| now.saturating_duration_since(waiting.last_asked) <= WAIT_WINDOW;
        let state = lock(&self.state);
        let mut waiting = state.waiting.iter();
        waiting.any(|(other, waiting)| other != user && asked(waiting) && self.may_have(&state, other))
    }
}

/// One upload's slot; free again when dropped.
pub(super) struct UploadSlot {
    slots: Arc<UploadSlots>,
    user: UserName,
    turn: Arc<Turn>,
}

impl UploadSlot {
    pub(super) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// Whether the upload has had its turn, and another user waits: to be asked between two chunk groups.
    pub(super) fn must_yield(&self, now: Instant, limits: &UploadLimits) -> bool {
        now.saturating_duration_since(self.turn.began) >= limits.turn && self.slots.has_others_waiting(&self.user, now)
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let mut state = lock(&self.slots.state);
        state.in_use -= 1;
        if let Some(of_user) = state.by_user.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                state.by_user.remove(&self.user);
            }
        }
    }
}

/// How an upload has used its slot. The listener looks at it when a user is refused one.
pub(super) struct Turn {
    began: Instant,
    sending: Mutex<Option<Sending>>,
}

struct Sending {
    since: Instant,
    bytes: u64,
    /// What of this time the uploader itself has taken.
    own_delay: Duration,
}

impl Turn {
    pub(super) fn begin(now: Instant) -> Self {
        Self { began: now, sending: Mutex::new(None) }
    }

    /// The upload begins to send this many bytes.
    pub(super) fn begin_sending(&self, now: Instant, bytes: u64) {
        *lock(&self.sending) = Some(Sending { since: now, bytes, own_delay: Duration::ZERO });
    }

    /// The uploader itself has delayed what is being sent.
    pub(super) fn add_own_delay(&self, delay: Duration) {
        if let Some(sending) = &mut *lock(&self.sending) {
            sending.own_delay += delay;
        }
    }

    pub(super) fn end_sending(&self) {
        *lock(&self.sending) = None;
    }

    /// Whether the downloader receives so slowly that it loses its slot if another user waits for one.
    pub(super) fn is_overdue(&self, now: Instant, limits: &UploadLimits) -> bool {
        lock(&self.sending).as_ref().is_some_and(|sending| {
            let elapsed = now.saturating_duration_since(sending.since).saturating_sub(sending.own_delay);
            elapsed > limits.turn + Duration::from_secs(sending.bytes / limits.turn_min_rate.max(1))
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time begins at any instant")]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    #[test]
    fn slots_are_limited_in_total_and_per_user() {
        let (slots, now) = (Arc::new(UploadSlots::new(3)), Instant::now());
        let vader: Vec<_> = (0..2).map(|_| slots.acquire(&user("vader"), now).unwrap()).collect();
        assert!(!slots.has_waiters(now, Duration::ZERO));
        assert!(slots.acquire(&user("vader"), now).is_none(), "half, rounded up");
        assert!(slots.has_waiters(now, Duration::ZERO));
        let yoda = slots.acquire(&user("yoda"), now);
        assert!(yoda.is_some() && slots.free() == 0 && slots.acquire(&user("hans"), now).is_none());
        drop(vader);
        assert_eq!(slots.free(), 2);
        assert!(slots.acquire(&user("hans"), now).is_some());
        drop(yoda);
        assert_eq!(slots.free(), 3);
        assert!(Arc::new(UploadSlots::new(0)).acquire(&user("hans"), now).is_none());
    }

    #[test]
    fn a_user_who_had_a_turn_is_behind_those_who_waited() {
        let (slots, mut now) = (Arc::new(UploadSlots::new(1)), Instant::now());
        let mut ask = |name: &str| {
            now += Duration::from_millis(10);
            slots.acquire(&user(name), now)
        };
        let mut holder = ask("vader");
        assert!(ask("hans").is_none() && ask("yoda").is_none());
        for (behind, next) in [(&["vader"][..], "yoda"), (&["vader", "yoda"], "hans"), (&["hans"], "vader")] {
            drop(holder.take());
            // They do not get it, however often they ask.
            for other in behind.iter().chain(behind) {
                assert!(ask(other).is_none(), "{other} before {next}");
            }
            holder = ask(next);
            assert!(holder.is_some(), "{next}");
        }
        drop(holder);
        now += WAIT_WINDOW + Duration::from_millis(1);
        assert!(slots.acquire(&user("vader"), now).is_some(), "nobody waits any more");
    }

    #[test]
    fn a_turn_ends_between_two_groups_once_another_user_waits() {
        let (slots, now) = (Arc::new(UploadSlots::new(1)), Instant::now());
        let limits = UploadLimits::default();
        let slot = slots.acquire(&user("vader"), now).unwrap();
        let late = now + limits.turn;
        assert!(slots.acquire(&user("vader"), late).is_none());
        assert!(!slot.must_yield(late, &limits), "only the same user waits");
        assert!(slots.acquire(&user("hans"), late).is_none());
        assert!(slot.must_yield(late, &limits));
        let (two, limits) = (Arc::new(UploadSlots::new(2)), UploadLimits::default());
        let (slot, _other) = (two.acquire(&user("vader"), now).unwrap(), two.acquire(&user("hans"), now).unwrap());
        assert!(two.acquire(&user("hans"), late).is_none() && !two.is_eligible(&user("hans")));
        assert!(!slot.must_yield(late, &limits), "the other user has all that it may have");
        assert!(two.acquire(&user("yoda"), late).is_none());
        assert!(slot.must_yield(late, &limits));
        let early = late - Duration::from_millis(1);
        assert!(!slot.must_yield(early, &limits), "its turn is not over");
    }

    #[test]
    fn a_downloader_that_receives_too_slowly_is_overdue_but_not_for_the_uploaders_own_delay() {
        let (now, limits) = (Instant::now(), UploadLimits::default());
        let turn = Turn::begin(now);
        let allowed = limits.turn + Duration::from_secs((1 << 20) / limits.turn_min_rate);
        let late = now + allowed + Duration::from_millis(1);
        assert!(!turn.is_overdue(late, &limits), "nothing is to be sent");
        turn.begin_sending(now, 1 << 20);
        assert!(!turn.is_overdue(now + allowed, &limits) && turn.is_overdue(late, &limits));
        turn.add_own_delay(Duration::from_secs(1));
        assert!(!turn.is_overdue(late, &limits));
        assert!(turn.is_overdue(late + Duration::from_secs(1), &limits));
        turn.end_sending();
        assert!(!turn.is_overdue(late + Duration::from_secs(1), &limits));
    }
}
