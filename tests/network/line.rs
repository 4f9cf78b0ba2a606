//! What becomes of a datagram between two hosts.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha20Rng;

/// How bad the network is, each way.
#[derive(Debug, Clone)]
pub struct Line {
    /// Chance that a datagram is lost.
    pub loss: f64,
    /// Chance that it arrives twice.
    pub duplication: f64,
    /// Shortest way.
    pub delay_min: Duration,
    /// Longest way but for stragglers; datagrams overtake each other within the difference.
    pub delay_max: Duration,
    /// Chance that one is held up for up to ten times as long.
    pub straggling: f64,
}

impl Line {
    /// Nothing is lost, nothing overtakes.
    pub fn perfect() -> Self {
        let delay = Duration::from_micros(200);
        Self { loss: 0.0, duplication: 0.0, delay_min: delay, delay_max: delay, straggling: 0.0 }
    }

    /// One in five is lost, one in ten comes twice, and the order is anyone's guess.
    pub fn bad() -> Self {
        let (delay_min, delay_max) = (Duration::from_millis(1), Duration::from_millis(30));
        Self { loss: 0.2, duplication: 0.1, delay_min, delay_max, straggling: 0.02 }
    }

    /// Draws when the copies of one datagram arrive.
    pub fn arrivals(&self, rng: &mut ChaCha20Rng) -> Vec<Duration> {
        let copies = if rng.gen_bool(self.duplication) { 2 } else { 1 };
        (0..copies).filter_map(|_| self.arrival(rng)).collect()
    }

    fn arrival(&self, rng: &mut ChaCha20Rng) -> Option<Duration> {
        if rng.gen_bool(self.loss) {
            return None;
        }
        let delay = rng.gen_range(self.delay_min..=self.delay_max);
        let held_up = rng.gen_bool(self.straggling).then(|| self.delay_max.mul_f64(rng.gen_range(0.0..10.0)));
        Some(delay + held_up.unwrap_or_default())
    }
}
