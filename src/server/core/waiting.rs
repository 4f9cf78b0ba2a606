//! Queries that wait for their turn.
//!
//! Owns the budget: the queries of one turn of the loop (and publications that inherit their audience) take so many steps
//! together, whoever asks them. Who finds it
//! spent waits, and so does who has a query waiting already; then every session has its turn before one has it again. So
//! a burst of long searches costs whoever sends it, and no heartbeat. Must not know what a query is.

use std::collections::{HashMap, VecDeque};

use super::walks::{Asked, Task};
use crate::common::limits::QUERY_WINDOW;
use crate::common::types::{RequestId, SessionId};
use crate::server::index::Budget;

/// Steps of all queries in one turn: two full slices, about half a millisecond.
pub(super) const STEPS_PER_TURN: usize = 2 * Budget::PAGE.steps;
/// Queries of all sessions that wait at once, but for a session's only one.
const WAITING_MAX: usize = 4_096;

/// Queries by session, and whose turn it is.
#[derive(Default)]
pub(super) struct Waiting {
    /// None is empty.
    by_session: HashMap<SessionId, VecDeque<(Asked, Task)>>,
    /// Each session of the table once.
    turns: VecDeque<SessionId>,
    len: usize,
    /// Since [`renew`](Self::renew).
    spent: usize,
    /// The same, of publications that inherit their audience: queries that keep every turn busy must not keep them out.
    inherited: usize,
}

impl Waiting {
    /// Whether anyone waits, or would have to until [`renew`](Self::renew).
    pub(super) fn is_ready(&self) -> bool {
        !self.turns.is_empty() || self.is_spent() || self.inherited > 0
    }

    /// Whether this request waits already: it is a repeat.
    pub(super) fn holds(&self, session: &SessionId, id: RequestId) -> bool {
        self.by_session.get(session).is_some_and(|queue| queue.iter().any(|(asked, _)| asked.id == id))
    }

    /// Whether one more of this session may wait.
    pub(super) fn has_room(&self, session: &SessionId) -> bool {
        self.by_session.get(session).is_none_or(|queue| queue.len() < QUERY_WINDOW && self.len < WAITING_MAX)
    }

    /// Whether a query of this session must wait.
    pub(super) fn is_due(&self, session: &SessionId) -> bool {
        self.is_spent() || self.by_session.contains_key(session)
    }

    /// To the end of the session's own queue.
    pub(super) fn push(&mut self, session: SessionId, asked: Asked, task: Task) {
        let queue = self.by_session.entry(session).or_default();
        if queue.is_empty() {
            self.turns.push_back(session);
        }
        queue.push_back((asked, task));
        self.len += 1;
    }

    /// Whose turn it is, while there are steps.
    pub(super) fn pop(&mut self) -> Option<(SessionId, Asked, Task)> {
        if self.is_spent() {
            return None;
        }
        let session = self.turns.pop_front()?;
        let queue = self.by_session.get_mut(&session)?;
        let (asked, task) = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.by_session.remove(&session);
        } else {
            self.turns.push_back(session);
        }
        Some((session, asked, task))
    }

    /// A turn of the loop begins.
    pub(super) fn renew(&mut self) {
        (self.spent, self.inherited) = (0, 0);
    }

    pub(super) fn spend(&mut self, steps: usize) {
        self.spent = self.spent.saturating_add(steps);
    }

    pub(super) fn inherit(&mut self, steps: usize) {
        self.inherited = self.inherited.saturating_add(steps);
    }

    /// Whether publications that inherit have taken their share of this turn.
    pub(super) fn may_inherit(&self) -> bool {
        self.inherited < STEPS_PER_TURN
    }

    /// Steps that are left for one slice of work; at least one.
    pub(super) fn slice(&self) -> usize {
        STEPS_PER_TURN.saturating_sub(self.spent).clamp(1, Budget::PAGE.steps)
    }

    /// Steps taken in this turn.
    #[cfg(test)]
    pub(super) fn spent(&self) -> usize {
        self.spent
    }

    /// Whether this turn has no steps left.
    pub(super) fn is_spent(&self) -> bool {
        self.spent >= STEPS_PER_TURN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_that_take_every_turn_leave_room_to_inherit_an_audience() {
        let mut waiting = Waiting::default();
        waiting.spend(STEPS_PER_TURN);
        assert!(waiting.is_spent() && waiting.may_inherit());
        waiting.inherit(STEPS_PER_TURN);
        assert!(!waiting.may_inherit() && waiting.is_ready());
        waiting.renew();
        assert!(waiting.may_inherit() && !waiting.is_ready());
    }
}
