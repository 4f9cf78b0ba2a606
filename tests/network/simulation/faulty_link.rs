//! A link that loses, duplicates, delays and reorders datagrams.

use std::time::Duration;

use rand::Rng;

use crate::simulation::choices::Choices;

/// The faults of a link, in each direction.
#[derive(Debug, Clone)]
pub struct FaultyLink {
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that it arrives twice.
    pub duplication: f64,
    /// Shortest delay.
    pub delay_min: Duration,
    /// Longest delay except for stragglers; datagrams are reordered within the difference.
    pub delay_max: Duration,
    /// Probability that a datagram is delayed up to ten times as long.
    pub straggling: f64,
}

impl FaultyLink {
    /// No loss, no reordering.
    pub fn perfect() -> Self {
        let delay = Duration::from_micros(200);
        Self { loss: 0.0, duplication: 0.0, delay_min: delay, delay_max: delay, straggling: 0.0 }
    }

    /// 20 % loss, 10 % duplication, and reordering.
    pub fn bad() -> Self {
        let (delay_min, delay_max) = (Duration::from_millis(1), Duration::from_millis(30));
        Self { loss: 0.2, duplication: 0.1, delay_min, delay_max, straggling: 0.02 }
    }

    /// The random delays after which the copies of one datagram arrive.
    pub fn arrivals(&self, rng: &mut Choices) -> Vec<Duration> {
        let copies = if rng.gen_bool(self.duplication) { 2 } else { 1 };
        (0..copies).filter_map(|_| self.arrival(rng)).collect()
    }

    fn arrival(&self, rng: &mut Choices) -> Option<Duration> {
        if rng.gen_bool(self.loss) {
            return None;
        }
        let delay = rng.gen_range(self.delay_min..=self.delay_max);
        let extra = rng.gen_bool(self.straggling).then(|| self.delay_max.mul_f64(rng.gen_range(0.0..10.0)));
        Some(delay + extra.unwrap_or_default())
    }
}
