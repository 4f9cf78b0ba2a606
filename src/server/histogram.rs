//! How long something took, in fixed buckets, for the metrics.

use std::time::Duration;

/// Upper bounds of the buckets, in microseconds. What takes longer is in no bucket but counted.
pub const BOUNDS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// Each with what is above the previous bound and at most its own.
    counts: [u64; BOUNDS_US.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    pub fn record(&mut self, time: Duration) {
        let bucket = BOUNDS_US.partition_point(|&bound_us| Duration::from_micros(bound_us) < time);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum += time;
    }

    /// How many took at most the time of each bound in [`BOUNDS_US`].
    pub fn cumulative(&self) -> [u64; BOUNDS_US.len()] {
        let mut sum = 0;
        self.counts.map(|count| {
            sum += count;
            sum
        })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let cumulative = histogram.cumulative();
        assert_eq!((cumulative[0], cumulative[1], cumulative[12], cumulative[13]), (2, 3, 3, 4));
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_micros(20_000_102));
    }
}
