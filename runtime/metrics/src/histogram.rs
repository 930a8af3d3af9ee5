//! Distributions, in buckets that are fixed when the program is written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: f64 = 1e9;

/// Upper bounds of durations in nanoseconds: from a warm call of a function (10 µs) to a disk that hangs (10 s), in steps of
/// 2 to 2.5, so that a quantile is off by that factor at most.
const DURATIONS: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of counts: of what is done together.
const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// How often which values were observed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// What a unit of the values is, when it is written down.
    unit: f64,
    /// One more than there are bounds: the last is for what is larger.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// For durations, written in seconds.
    pub fn of_seconds() -> Self {
        Self::new(DURATIONS, NANOS_PER_SECOND)
    }

    /// For counts.
    pub fn of_counts() -> Self {
        Self::new(COUNTS, 1.0)
    }

    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn observe(&self, duration: Duration) {
        self.count(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds a count.
    pub fn count(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values there were.
    pub fn observed(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Cumulated counts with their bounds; the last is that of infinity.
    pub(crate) fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / self.unit).chain([f64::INFINITY]);
        let counts = self.buckets.iter().scan(0_u64, |sum, bucket| {
            *sum += bucket.load(Ordering::Relaxed);
            Some(*sum)
        });
        bounds.zip(counts)
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.unit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_belong_to_their_bucket() {
        let histogram = Histogram::of_counts();
        for value in [0, 1, 2, 3, 1_024, 1_025] {
            histogram.count(value);
        }
        let cumulated: Vec<_> = histogram.cumulated().map(|(_, count)| count).collect();
        assert_eq!(cumulated, [2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6]);
        assert_eq!(histogram.sum(), 2_055.0);
    }

    proptest! {
        #[test]
        fn every_value_is_counted_where_it_belongs(values in proptest::collection::vec(0_u64..20_000_000_000, 0..50)) {
            let histogram = Histogram::of_seconds();
            for value in &values {
                histogram.observe(Duration::from_nanos(*value));
            }
            prop_assert_eq!(histogram.observed(), values.len() as u64);
            for ((bound, count), nanos) in histogram.cumulated().zip(DURATIONS) {
                prop_assert_eq!(bound, *nanos as f64 / 1e9);
                prop_assert_eq!(count, values.iter().filter(|value| *value <= nanos).count() as u64);
            }
        }
    }
}
