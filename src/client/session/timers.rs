//! The timers of a session: one table, so that all that can happen next is visible in one place.

use std::time::Instant;

/// What a session waits for. Timers that expire together are handled in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The server has not confirmed a logout in time.
    LogoutDeadline,
    /// The server has not completed a login in time.
    LoginDeadline,
    /// Nothing was received since an unacknowledged heartbeat: the connection is lost.
    Liveness,
    /// A heartbeat is due, for the first time or again.
    Heartbeat,
    /// A reconnect takes so long that the user must know.
    ReportLost,
    /// The handshake tries the server's next address as well.
    NextAddress,
    /// No LOGIN2 has verified: the handshake goes on to its refusal.
    Login2Grace,
    /// The handshake retransmits its step.
    HandshakeRetry,
    /// The next attempt to reconnect starts.
    ReconnectAttempt,
    LogoutRetry,
    /// A request has waited too long for its reply.
    RequestDeadline,
    RequestRetry,
    /// A wait has reached its deadline.
    WaitDeadline,
}

impl Timer {
    pub const ALL: [Self; 13] = [
        Self::LogoutDeadline,
        Self::LoginDeadline,
        Self::Liveness,
        Self::Heartbeat,
        Self::ReportLost,
        Self::NextAddress,
        Self::Login2Grace,
        Self::HandshakeRetry,
        Self::ReconnectAttempt,
        Self::LogoutRetry,
        Self::RequestDeadline,
        Self::RequestRetry,
        Self::WaitDeadline,
    ];
}

/// When each timer expires; a timer that is not set never does.
#[derive(Debug, Default)]
pub(super) struct TimerTable {
    expires_at: [Option<Instant>; Timer::ALL.len()],
}

impl TimerTable {
    pub fn get(&self, timer: Timer) -> Option<Instant> {
        self.expires_at[timer as usize]
    }

    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.expires_at[timer as usize] = Some(at);
    }

    /// Sets the timer, or clears it where there is no time.
    pub fn update(&mut self, timer: Timer, at: Option<Instant>) {
        self.expires_at[timer as usize] = at;
    }

    pub fn clear(&mut self, timer: Timer) {
        self.expires_at[timer as usize] = None;
    }

    pub fn clear_handshake(&mut self) {
        for timer in [Timer::NextAddress, Timer::Login2Grace, Timer::HandshakeRetry] {
            self.clear(timer);
        }
    }

    /// Clears the timer if it has expired, and returns whether it had.
    pub fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        self.expires_at[timer as usize].take_if(|at| *at <= now).is_some()
    }

    /// When the next timer expires.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.expires_at.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_timer_has_its_own_place_and_expires_once() {
        let start = super::super::test_epoch();
        let mut timers = TimerTable::default();
        for (seconds, timer) in Timer::ALL.into_iter().enumerate() {
            timers.set(timer, start + Duration::from_secs(seconds as u64));
        }
        assert_eq!(timers.next_timeout(), Some(start));
        for (seconds, timer) in Timer::ALL.into_iter().enumerate() {
            let at = start + Duration::from_secs(seconds as u64);
            assert_eq!((timers.get(timer), timers.next_timeout()), (Some(at), Some(at)));
            assert!(!timers.take_expired(timer, at - Duration::from_nanos(1)));
            assert!(timers.take_expired(timer, at));
            assert!(!timers.take_expired(timer, at));
        }
        assert_eq!(timers.next_timeout(), None);
    }
}
