//! Bounds the work of queries in one iteration of the event loop.

use crate::server::index::Budget;

/// Steps of all queries in one iteration: two full slices, about half a millisecond.
pub(super) const STEPS_PER_ITERATION: usize = 2 * Budget::PAGE.steps;

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
        STEPS_PER_ITERATION.saturating_sub(self.used).clamp(1, Budget::PAGE.steps)
    }

    /// Steps of queries taken in this iteration.
    #[cfg(test)]
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
