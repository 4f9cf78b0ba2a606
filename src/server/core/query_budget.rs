//! Bounds the work of queries in one iteration of the event loop, and the share that one session has of the server's time.

use std::time::Duration;

use crate::common::rate::Rate;

/// Steps of all queries that arrive in one iteration, and again of those that were queued before: about 0.05 ms.
pub(super) const STEPS_PER_ITERATION: usize = 512;

/// One session's share of the server's time, in steps of about 0.06 µs: a quarter of a CPU, and what comes in 0.1 s of it at
/// once. What a session asks for beyond that waits, so that the loop has time for the others whenever they ask.
pub(super) const SESSION_RATE: Rate = Rate::per_second(4_000_000, 400_000);
/// The cost of a request besides what it asks for: receiving, opening, sealing the reply.
pub(super) const DATAGRAM_STEPS: u64 = 64;
/// The cost of a byte of a name that is published or unpublished: its place in the search structure.
pub(super) const NAME_BYTE_STEPS: u64 = 2;
/// Debt of a session from which on its requests are dropped. Only a flood of datagrams leads there: queries of a session in
/// debt wait. Heartbeats are always answered: that costs little more than dropping them.
pub(super) const DEBT_MAX: Duration = Duration::from_millis(100);

/// The steps taken in this iteration, over all sessions. Publications that inherit their audience have as many steps of
/// their own: queries that use up every iteration must not keep them from being served.
#[derive(Default)]
pub(super) struct QueryBudget {
    used: usize,
    inherit_used: usize,
}

impl QueryBudget {
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn charge(&mut self, steps: usize) {
        self.used = self.used.saturating_add(steps);
    }

    pub(super) fn charge_inherit(&mut self, steps: usize) {
        self.inherit_used = self.inherit_used.saturating_add(steps);
    }

    /// Whether no steps are left for queries.
    pub(super) fn is_exhausted(&self) -> bool {
        self.used >= STEPS_PER_ITERATION
    }

    /// Whether steps are left for publications that inherit their audience.
    pub(super) fn may_inherit(&self) -> bool {
        self.inherit_used < STEPS_PER_ITERATION
    }

    /// Whether clients may have to wait until [`reset`](Self::reset).
    pub(super) fn needs_reset(&self) -> bool {
        self.is_exhausted() || self.inherit_used > 0
    }

    /// Steps left for one slice of work; at least one.
    pub(super) fn slice(&self) -> usize {
        STEPS_PER_ITERATION.saturating_sub(self.used).max(1)
    }

    /// Steps of queries taken in this iteration.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_that_use_up_every_iteration_leave_steps_to_inherit_an_audience() {
        let mut budget = QueryBudget::default();
        budget.charge(STEPS_PER_ITERATION);
        assert!(budget.is_exhausted() && budget.may_inherit());
        budget.charge_inherit(STEPS_PER_ITERATION);
        assert!(!budget.may_inherit() && budget.needs_reset());
        budget.reset();
        assert!(budget.may_inherit() && !budget.needs_reset());
    }
}
