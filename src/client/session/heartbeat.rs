//! When to say "I am alive", and when to believe that nobody hears it.
//!
//! Owns the timing of heartbeats. Must not know how they are sent.

use std::time::{Duration, Instant};

use crate::common::limits::HEARTBEAT_TRIES;

/// Longest wait between two heartbeats of a session that seems lost.
const FADING_WAIT_MAX: Duration = Duration::from_secs(1);
/// Intervals below this are a server's mistake that would make us spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Nothing before [`Heartbeats::timeout`].
    Rest,
    /// Send the heartbeat of this number.
    Send(u32),
    /// Nothing was heard for the liveness time. Told once; heartbeats go on for a while with growing waits, since the
    /// server may hear what it cannot answer, and should not take the client for dead while it comes back.
    Lost,
}

/// The heartbeats of one session.
pub(super) struct Heartbeats {
    interval: Duration,
    /// What is left between the interval and the liveness time.
    grace: Duration,
    repeat: Duration,
    number: u32,
    phase: Phase,
    last_heard: Instant,
}

enum Phase {
    /// The latest is acknowledged (or none was sent yet).
    Resting { due: Instant },
    /// `number` is under way, unacknowledged.
    Waiting { first_sent: Instant, repeat_at: Instant },
    /// Lost, as far as we know.
    Fading { repeat_at: Instant, wait: Duration, until: Instant },
}

impl Heartbeats {
    /// The first heartbeat is due at once: the session began at the server when it answered, and that answer may have
    /// been repeated for long. `interval` and `liveness` are what the server told.
    pub fn new(now: Instant, interval: Duration, liveness: Duration) -> Self {
        let interval = interval.max(SHORTEST);
        let grace = liveness.saturating_sub(interval).max(SHORTEST * HEARTBEAT_TRIES);
        let phase = Phase::Resting { due: now };
        // Rounded up, so that the last try is not followed by one more in the last nanoseconds.
        let repeat = grace / HEARTBEAT_TRIES + Duration::from_nanos(1);
        Self { interval, grace, repeat, number: 0, phase, last_heard: now }
    }

    /// A datagram of the session has arrived.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// The server has this heartbeat. The next one counts from when this one was first sent, since any of its repeats
    /// may be the one that arrived.
    pub fn acknowledged(&mut self, number: u32) {
        if let Phase::Waiting { first_sent, .. } = self.phase
            && number == self.number
        {
            self.phase = Phase::Resting { due: first_sent + self.interval };
        }
    }

    /// When [`pulse`](Self::pulse) has something to say.
    pub fn timeout(&self) -> Instant {
        match self.phase {
            Phase::Resting { due } => due,
            Phase::Waiting { first_sent, repeat_at } => repeat_at.min(self.lost_at(first_sent)),
            Phase::Fading { repeat_at, .. } => repeat_at,
        }
    }

    /// The same for a session that seems lost, as long as it says anything.
    pub fn fading_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Fading { repeat_at, until, .. } if repeat_at < until => Some(repeat_at),
            _ => None,
        }
    }

    /// What is to be done now.
    pub fn pulse(&mut self, now: Instant) -> Pulse {
        match self.phase {
            Phase::Resting { due } if now >= due => {
                self.number = self.number.wrapping_add(1);
                self.phase = Phase::Waiting { first_sent: now, repeat_at: now + self.repeat };
                Pulse::Send(self.number)
            }
            Phase::Waiting { first_sent, .. } if now >= self.lost_at(first_sent) => {
                let until = now + self.interval + self.grace;
                self.phase = Phase::Fading { repeat_at: now, wait: self.repeat, until };
                Pulse::Lost
            }
            Phase::Fading { repeat_at, wait, until } if now >= repeat_at && now < until => {
                self.phase = Phase::Fading { repeat_at: now + wait, wait: (wait * 2).min(FADING_WAIT_MAX), until };
                Pulse::Send(self.number)
            }
            // Woken too late for what was due: without this it would stay due.
            Phase::Fading { wait, until, .. } if now >= until => {
                self.phase = Phase::Fading { repeat_at: until, wait, until };
                Pulse::Rest
            }
            Phase::Waiting { first_sent, repeat_at } if now >= repeat_at => {
                self.phase = Phase::Waiting { first_sent, repeat_at: now + self.repeat };
                Pulse::Send(self.number)
            }
            _ => Pulse::Rest,
        }
    }

    /// Whatever the server says shows that it lives, though not that it hears us: then the repeats go on.
    fn lost_at(&self, first_sent: Instant) -> Instant {
        first_sent.max(self.last_heard) + self.grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);
    const LIVENESS: Duration = Duration::from_secs(3);

    fn started() -> (Instant, Heartbeats) {
        let start = super::super::test_epoch();
        (start, Heartbeats::new(start, INTERVAL, LIVENESS))
    }

    fn resting() -> (Instant, Heartbeats) {
        let (start, mut heartbeats) = started();
        assert_eq!(heartbeats.pulse(start), Pulse::Send(1), "the first shows the server that its answer has arrived");
        heartbeats.acknowledged(1);
        (start, heartbeats)
    }

    #[test]
    fn an_unanswered_heartbeat_is_repeated_twelve_times_and_then_the_connection_is_lost() {
        let (start, mut heartbeats) = resting();
        assert_eq!(heartbeats.pulse(start), Pulse::Rest);
        let mut sent = 0;
        loop {
            let now = heartbeats.timeout();
            match heartbeats.pulse(now) {
                Pulse::Send(number) => {
                    assert_eq!(number, 2);
                    assert!(now >= start + INTERVAL && now < start + LIVENESS);
                    sent += 1;
                }
                Pulse::Lost => break assert_eq!(now, start + LIVENESS),
                Pulse::Rest => panic!("a timeout without a reason"),
            }
        }
        assert_eq!(sent, HEARTBEAT_TRIES);
        let mut fading = Vec::new();
        while let Some(now) = heartbeats.fading_timeout() {
            assert_eq!(heartbeats.pulse(now), Pulse::Send(2));
            fading.push(now);
        }
        assert!(fading.len() >= 4 && fading.last() < Some(&(start + LIVENESS * 2)));
    }

    #[test]
    fn a_client_that_slept_while_its_session_faded_does_not_spin() {
        let (start, mut heartbeats) = resting();
        assert_eq!(heartbeats.pulse(start + INTERVAL), Pulse::Send(2));
        assert_eq!(heartbeats.pulse(start + LIVENESS), Pulse::Lost);
        assert!(heartbeats.fading_timeout().is_some());
        assert_eq!(heartbeats.pulse(start + LIVENESS * 9), Pulse::Rest);
        assert_eq!(heartbeats.fading_timeout(), None, "what is over is not due");
    }

    #[test]
    fn the_next_heartbeat_counts_from_the_first_sending_of_the_last() {
        let (start, mut heartbeats) = resting();
        assert_eq!(heartbeats.pulse(start + INTERVAL), Pulse::Send(2));
        let repeat = heartbeats.timeout();
        assert_eq!(heartbeats.pulse(repeat), Pulse::Send(2));
        heartbeats.acknowledged(7);
        assert!(heartbeats.timeout() < start + LIVENESS, "another number acknowledges nothing");
        heartbeats.acknowledged(2);
        assert_eq!(heartbeats.timeout(), start + INTERVAL * 2);
        assert_eq!(heartbeats.pulse(start + INTERVAL * 2), Pulse::Send(3));
    }

    #[test]
    fn other_datagrams_keep_the_connection_but_not_the_peace() {
        let (start, mut heartbeats) = resting();
        assert_eq!(heartbeats.pulse(start + INTERVAL), Pulse::Send(2));
        let heard = start + LIVENESS - Duration::from_millis(1);
        heartbeats.heard(heard);
        assert_eq!(heartbeats.pulse(start + LIVENESS), Pulse::Send(2));
        assert_eq!(heartbeats.pulse(heard + (LIVENESS - INTERVAL)), Pulse::Lost);
    }

    #[test]
    fn senseless_intervals_neither_spin_nor_panic() {
        let start = super::super::test_epoch();
        let mut heartbeats = Heartbeats::new(start, Duration::ZERO, Duration::ZERO);
        assert_eq!(heartbeats.pulse(start), Pulse::Send(1));
        let repeat = heartbeats.timeout();
        assert!(repeat > start);
        heartbeats.acknowledged(1);
        assert!(heartbeats.timeout() > start);
    }
}
