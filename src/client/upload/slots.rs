//! Upload slots: a bound on the uploads that run at once, and on how many of them one user has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::sync::lock;
use crate::common::types::UserName;

/// All slots of one client.
pub(super) struct UploadSlots {
    total: u8,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    by_user: HashMap<UserName, u8>,
    count: u8,
    /// When somebody was last sent away.
    last_refused: Option<Instant>,
}

impl UploadSlots {
    pub(super) fn new(total: u8) -> Self {
        Self { total, taken: Mutex::default() }
    }

    /// Uploads that could start now.
    pub(super) fn free(&self) -> u8 {
        self.total.saturating_sub(lock(&self.taken).count)
    }

    /// Takes a slot for `user`, who may have at most half of them (rounded up): one user cannot shut out all others.
    pub(super) fn take(self: &Arc<Self>, user: &UserName, now: Instant) -> Option<UploadSlot> {
        let mut taken = lock(&self.taken);
        let own = taken.by_user.get(user).copied().unwrap_or(0);
        if taken.count >= self.total || own >= self.total.div_ceil(2) {
            taken.last_refused = Some(now);
            return None;
        }
        taken.count += 1;
        *taken.by_user.entry(user.clone()).or_insert(0) += 1;
        Some(UploadSlot { slots: self.clone(), user: user.clone() })
    }

    /// Whether somebody was sent away within `time` before `now`, and may come back for a slot.
    pub(super) fn wanted(&self, now: Instant, time: Duration) -> bool {
        lock(&self.taken).last_refused.is_some_and(|at| now.saturating_duration_since(at) <= time)
    }
}

/// One upload's slot; free again when dropped.
pub(super) struct UploadSlot {
    slots: Arc<UploadSlots>,
    user: UserName,
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.taken);
        taken.count -= 1;
        if let Some(own) = taken.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_in_all_and_for_each_user() {
        let (slots, now) = (Arc::new(UploadSlots::new(3)), Instant::now());
        let user = |name: &str| UserName::parse(name).unwrap();
        let vader: Vec<_> = (0..2).map(|_| slots.take(&user("vader"), now).unwrap()).collect();
        assert!(!slots.wanted(now, Duration::ZERO));
        assert!(slots.take(&user("vader"), now).is_none(), "half, rounded up");
        assert!(slots.wanted(now, Duration::ZERO));
        let yoda = slots.take(&user("yoda"), now);
        assert!(yoda.is_some() && slots.free() == 0 && slots.take(&user("hans"), now).is_none());
        drop(vader);
        assert_eq!(slots.free(), 2);
        assert!(slots.take(&user("hans"), now).is_some());
        drop(yoda);
        assert_eq!(slots.free(), 3);
        assert!(Arc::new(UploadSlots::new(0)).take(&user("hans"), now).is_none());
    }
}
