use proptest::prelude::*;

use super::*;

#[test]
fn a_bucket_gives_a_burst_then_one_token_per_interval() {
    let (start, rate) = (Instant::now(), Rate::every(Duration::from_secs(2), 3));
    let mut bucket = TokenBucket::full();
    let mut takes = |ms| bucket.try_take(start + Duration::from_millis(ms), rate).is_ok();
    assert_eq!([0, 0, 0, 0, 1_999].map(&mut takes), [true, true, true, false, false]);
    assert_eq!([2_000, 2_001, 4_000].map(&mut takes), [true, false, true]);
    assert_eq!([60_000, 60_000, 60_000, 60_000].map(&mut takes), [true, true, true, false]);
    assert_eq!(bucket.try_take(start + Duration::from_secs(60), rate), Err(Duration::from_secs(2)));
}

#[test]
fn a_refunded_token_can_be_taken_again_and_fills_no_bucket_beyond_its_burst() {
    let (now, rate) = (Instant::now(), Rate::every(Duration::from_secs(2), 3));
    let mut bucket = TokenBucket::full();
    for _ in 0..100 {
        bucket.try_take(now, rate).unwrap();
        bucket.refund(now, rate);
    }
    assert_eq!(bucket, TokenBucket::full());
    bucket.refund(now, rate);
    assert_eq!((0..10).filter(|_| bucket.try_take(now, rate).is_ok()).count(), 3);
}

#[test]
fn the_rate_holds_over_time_and_a_pause_saves_at_most_a_burst() {
    let (start, rate) = (Instant::now(), Rate::per_second(1_000_000, 50_000));
    let (mut bucket, mut now) = (TokenBucket::full(), start);
    for _ in 0..1_000 {
        now += bucket.take_in_advance(now, rate, 10_000);
    }
    let took = now - start;
    assert!(took >= Duration::from_millis(9_940) && took <= Duration::from_secs(10), "10 MB took {took:?}");
    now += Duration::from_secs(3_600);
    assert_eq!(bucket.take_in_advance(now, rate, 50_000), Duration::ZERO, "a burst is free");
    assert_eq!(bucket.take_in_advance(now, rate, 1_000), Duration::from_millis(1), "the rest is not");
}

#[test]
fn takers_in_debt_wait_in_the_order_of_their_calls() {
    let (now, rate) = (Instant::now(), Rate::per_second(1_000, 50));
    let mut bucket = TokenBucket::full();
    bucket.take_in_advance(now, rate, 50);
    let waits = [(); 3].map(|()| bucket.take_in_advance(now, rate, 1_000).as_secs());
    assert_eq!(waits, [1, 2, 3]);
    let slowest = Rate::per_second(0, 0);
    assert!(TokenBucket::full().take_in_advance(now, slowest, u64::MAX) > Duration::from_secs(1), "no division by 0");
}

/// Tokens as a number, in parts so small that all is exact.
struct Model {
    rate: Rate,
    /// Tokens times nanoseconds of `per`.
    level: i128,
}

impl Model {
    fn full(rate: Rate) -> Self {
        Self { rate, level: Self::capacity(rate) }
    }

    fn capacity(rate: Rate) -> i128 {
        i128::from(rate.burst) * Self::token(rate)
    }

    fn token(rate: Rate) -> i128 {
        rate.per.as_nanos() as i128
    }

    fn add(&mut self, parts: i128) {
        self.level = (self.level + parts).min(Self::capacity(self.rate));
    }

    fn pass(&mut self, time: Duration) {
        self.add(time.as_nanos() as i128 * i128::from(self.rate.tokens));
    }

    /// How long until the level is this.
    fn time_to(&self, level: i128) -> Duration {
        let nanos = (level - self.level).max(0) / i128::from(self.rate.tokens);
        Duration::from_nanos(nanos as u64)
    }

    fn try_take(&mut self) -> Result<(), Duration> {
        let token = Self::token(self.rate);
        if self.level < token {
            return Err(self.time_to(token));
        }
        self.level -= token;
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Op {
    Pass(Duration),
    TryTake,
    TakeInAdvance(u64),
    Refund,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..3_000_000_u64).prop_map(|micros| Op::Pass(Duration::from_micros(micros))),
        1 => (0..5_u64).prop_map(|seconds| Op::Pass(Duration::from_secs(seconds))),
        5 => Just(Op::TryTake),
        2 => (0..6_u64).prop_map(Op::TakeInAdvance),
        1 => Just(Op::Refund),
    ]
}

/// Rates whose tokens come back after whole nanoseconds, so that nothing is rounded.
fn rate() -> impl Strategy<Value = Rate> {
    let per_second = prop::sample::select(&[0, 1, 2, 5, 8, 1_000][..]);
    prop_oneof![
        (per_second, 0..8_u64).prop_map(|(tokens, burst)| Rate::per_second(tokens, burst)),
        (1..4_000_u64, 0..8_u64).prop_map(|(ms, burst)| Rate::every(Duration::from_millis(ms), burst)),
    ]
}

proptest! {
    #[test]
    fn a_bucket_agrees_with_a_number_of_tokens(rate in rate(), ops in prop::collection::vec(op(), 0..100)) {
        let (mut now, mut bucket, mut model) = (Instant::now(), TokenBucket::full(), Model::full(rate));
        for op in ops {
            match op {
                Op::Pass(time) => {
                    now += time;
                    model.pass(time);
                }
                Op::TryTake => prop_assert_eq!(bucket.try_take(now, rate), model.try_take()),
                Op::TakeInAdvance(tokens) => {
                    model.level -= i128::from(tokens) * Model::token(rate);
                    prop_assert_eq!(bucket.take_in_advance(now, rate, tokens), model.time_to(0));
                }
                Op::Refund => {
                    bucket.refund(now, rate);
                    model.add(Model::token(rate));
                }
            }
            let left = model.time_to(Model::capacity(rate));
            prop_assert_eq!(bucket.fills_at(now), (left > Duration::ZERO).then(|| now + left));
        }
    }
}
