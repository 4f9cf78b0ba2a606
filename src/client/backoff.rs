//! Exponential backoff.

use std::time::Duration;

/// Waits that double from `first` up to `max`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    wait: Duration,
    max: Duration,
}

impl Backoff {
    /// The first wait is `first`, at most `max`.
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, wait: first, max }
    }

    /// The present wait. Does not double it.
    pub(crate) fn wait(&self) -> Duration {
        self.wait.min(self.max)
    }

    /// The present wait; the next one is twice as long.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = self.wait();
        self.wait = wait * 2;
        wait
    }

    /// The next wait is `first` again.
    pub(crate) fn reset(&mut self) {
        self.wait = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        let waits: Vec<u64> = (0..4).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 3, 3]);
        assert_eq!(backoff.wait(), Duration::from_secs(3));
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::from_secs(1));
    }
}
