//! Heartbeat timing: when to send, when to retransmit, when to declare the connection lost.
//!
//! Must not know how heartbeats are sent.

use std::time::{Duration, Instant};

use super::timers::{Timer, TimerTable};
use crate::client::backoff::Backoff;
use crate::common::limits::HEARTBEAT_TRIES;

/// Longest wait between two heartbeats of a connection that seems lost.
const LOST_WAIT_MAX: Duration = Duration::from_secs(1);
/// Shortest interval, whatever the server says: it must not make the client spin. The server's options allow none shorter.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Shortest wait before a heartbeat is repeated.
const RETRY_MIN: Duration = Duration::from_millis(1);

/// The heartbeats of one session. Uses [`Timer::Heartbeat`] and [`Timer::Liveness`].
pub(super) struct Heartbeats {
    interval: Duration,
    /// Silence after an unacknowledged heartbeat that makes the connection lost: the liveness time without the interval.
    grace: Duration,
    retry: Duration,
    number: u32,
    phase: Phase,
}

enum Phase {
    /// The latest heartbeat is acknowledged, or none was sent yet.
    Acked,
    /// The latest heartbeat is not acknowledged.
    AwaitingAck { first_sent: Instant },
    /// Nothing was received for the liveness time. Heartbeats continue until `until`, with growing waits: the server may
    /// receive what it cannot answer, and must not expire the session while the client reconnects.
    Lost { backoff: Backoff, until: Instant },
    /// The session has ended.
    Stopped,
}

impl Heartbeats {
    /// The first heartbeat is due at once: the server began the session when it answered, and that answer may have been
    /// retransmitted for long. `interval` and `liveness` are the server's.
    pub fn new(now: Instant, interval: Duration, liveness: Duration, timers: &mut TimerTable) -> Self {
        let interval = interval.max(INTERVAL_MIN);
        let grace = liveness.saturating_sub(interval).max(RETRY_MIN * HEARTBEAT_TRIES);
        timers.set(Timer::Heartbeat, now);
        timers.clear(Timer::Liveness);
        // Rounded up, so that no further retransmission falls into the last nanoseconds before the connection is lost.
        let retry = grace / HEARTBEAT_TRIES + Duration::from_nanos(1);
        Self { interval, grace, retry, number: 0, phase: Phase::Acked }
    }

    /// A datagram of the session has arrived. It shows that the server lives, though not that the server receives:
    /// retransmissions continue.
    pub fn on_datagram(&self, now: Instant, timers: &mut TimerTable) {
        if let Phase::AwaitingAck { .. } = self.phase {
            timers.set(Timer::Liveness, now + self.grace);
        }
    }

    /// The server has this heartbeat. The next interval starts at its first transmission, since any of its
    /// retransmissions may be the one that arrived.
    pub fn on_ack(&mut self, number: u32, timers: &mut TimerTable) {
        if let Phase::AwaitingAck { first_sent } = self.phase
            && number == self.number
        {
            self.phase = Phase::Acked;
            timers.set(Timer::Heartbeat, first_sent + self.interval);
            timers.clear(Timer::Liveness);
        }
    }

    /// [`Timer::Heartbeat`] has expired: the number of the heartbeat to be sent, if any.
    pub fn on_heartbeat_timer(&mut self, now: Instant, timers: &mut TimerTable) -> Option<u32> {
        match &mut self.phase {
            Phase::Acked => {
                self.number = self.number.wrapping_add(1);
                self.phase = Phase::AwaitingAck { first_sent: now };
                timers.set(Timer::Heartbeat, now + self.retry);
                timers.set(Timer::Liveness, now + self.grace);
            }
            Phase::AwaitingAck { .. } => timers.set(Timer::Heartbeat, now + self.retry),
            Phase::Lost { until, .. } if now >= *until => return None,
            Phase::Lost { backoff, until } => {
                let next = now + backoff.next_wait();
                timers.update(Timer::Heartbeat, (next < *until).then_some(next));
            }
            Phase::Stopped => return None,
        }
        Some(self.number)
    }

    /// [`Timer::Liveness`] has expired: the connection is lost.
    pub fn on_liveness_timer(&mut self, now: Instant, timers: &mut TimerTable) {
        let backoff = Backoff::new(self.retry, LOST_WAIT_MAX);
        self.phase = Phase::Lost { backoff, until: now + self.interval + self.grace };
        timers.set(Timer::Heartbeat, now);
    }

    /// The session has ended: no more heartbeats.
    pub fn stop(&mut self, timers: &mut TimerTable) {
        self.phase = Phase::Stopped;
        timers.clear(Timer::Heartbeat);
        timers.clear(Timer::Liveness);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);
    const LIVENESS: Duration = Duration::from_secs(3);

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        None,
        Send(u32),
        Lost,
    }

    /// Heartbeats and their timers.
    struct Fixture {
        heartbeats: Heartbeats,
        timers: TimerTable,
    }

    impl Fixture {
        fn new(now: Instant, interval: Duration, liveness: Duration) -> Self {
            let mut timers = TimerTable::default();
            Self { heartbeats: Heartbeats::new(now, interval, liveness, &mut timers), timers }
        }

        fn poll(&mut self, now: Instant) -> Action {
            if self.timers.take_expired(Timer::Liveness, now) {
                self.heartbeats.on_liveness_timer(now, &mut self.timers);
                return Action::Lost;
            }
            if !self.timers.take_expired(Timer::Heartbeat, now) {
                return Action::None;
            }
            self.heartbeats.on_heartbeat_timer(now, &mut self.timers).map_or(Action::None, Action::Send)
        }

        fn on_ack(&mut self, number: u32) {
            self.heartbeats.on_ack(number, &mut self.timers);
        }

        fn timeout(&self) -> Option<Instant> {
            self.timers.next_timeout()
        }
    }

    /// The first heartbeat is sent and acknowledged.
    fn acked() -> (Instant, Fixture) {
        let start = super::super::test_epoch();
        let mut fixture = Fixture::new(start, INTERVAL, LIVENESS);
        assert_eq!(fixture.poll(start), Action::Send(1), "the first shows the server that its answer has arrived");
        fixture.on_ack(1);
        (start, fixture)
    }

    #[test]
    fn an_unacknowledged_heartbeat_is_sent_twelve_times_and_then_the_connection_is_lost() {
        let (start, mut fixture) = acked();
        assert_eq!(fixture.poll(start), Action::None);
        let mut sent = 0;
        loop {
            let now = fixture.timeout().expect("a timeout");
            match fixture.poll(now) {
                Action::Send(number) => {
                    assert_eq!(number, 2);
                    assert!(now >= start + INTERVAL && now < start + LIVENESS);
                    sent += 1;
                }
                Action::Lost => break assert_eq!(now, start + LIVENESS),
                Action::None => panic!("a timeout without a reason"),
            }
        }
        assert_eq!(sent, HEARTBEAT_TRIES);
        let mut after_loss = Vec::new();
        while let Some(now) = fixture.timeout() {
            assert_eq!(fixture.poll(now), Action::Send(2));
            after_loss.push(now);
        }
        assert!(after_loss.len() >= 4 && after_loss.last() < Some(&(start + LIVENESS * 2)));
    }

    #[test]
    fn a_client_that_slept_after_the_loss_does_not_spin() {
        let (start, mut fixture) = acked();
        assert_eq!(fixture.poll(start + INTERVAL), Action::Send(2));
        assert_eq!(fixture.poll(start + LIVENESS), Action::Lost);
        assert!(fixture.timeout().is_some());
        assert_eq!(fixture.poll(start + LIVENESS * 9), Action::None);
        assert_eq!(fixture.timeout(), None, "nothing remains due");
    }

    #[test]
    fn the_interval_starts_at_the_first_transmission() {
        let (start, mut fixture) = acked();
        assert_eq!(fixture.poll(start + INTERVAL), Action::Send(2));
        let retry = fixture.timeout().expect("a timeout");
        assert_eq!(fixture.poll(retry), Action::Send(2));
        fixture.on_ack(7);
        assert!(fixture.timeout() < Some(start + LIVENESS), "another number acknowledges nothing");
        fixture.on_ack(2);
        assert_eq!(fixture.timeout(), Some(start + INTERVAL * 2));
        assert_eq!(fixture.poll(start + INTERVAL * 2), Action::Send(3));
    }

    #[test]
    fn other_datagrams_do_not_stop_heartbeat_retries() {
        let (start, mut fixture) = acked();
        assert_eq!(fixture.poll(start + INTERVAL), Action::Send(2));
        let received = start + LIVENESS - Duration::from_millis(1);
        fixture.heartbeats.on_datagram(received, &mut fixture.timers);
        assert_eq!(fixture.poll(start + LIVENESS), Action::Send(2));
        assert_eq!(fixture.poll(received + (LIVENESS - INTERVAL)), Action::Lost);
    }

    #[test]
    fn intervals_of_zero_neither_spin_nor_panic() {
        let start = super::super::test_epoch();
        let mut fixture = Fixture::new(start, Duration::ZERO, Duration::ZERO);
        assert_eq!(fixture.poll(start), Action::Send(1));
        let retry = fixture.timeout();
        assert!(retry > Some(start));
        fixture.on_ack(1);
        assert!(fixture.timeout() >= Some(start + INTERVAL_MIN));
    }
}
