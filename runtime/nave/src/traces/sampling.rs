//! Which requests are traced: decided once for each, before anything is made for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nave_trace::{CONTINUED, ROOT, TARGET};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The share of requests that are traced.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// A number below this is a request that is traced; 0 while there are no traces at all.
    threshold: AtomicU64,
    /// Numbers the requests.
    count: AtomicU64,
}

impl Sampling {
    /// `None` for no traces; else the share, from 0 (only those that a client asks for) to 1.
    pub(super) fn set(&self, ratio: Option<f64>) {
        // 2^64 times 1 is the largest number, not zero; and 1 stands for "on, but none by itself".
        let threshold = ratio.map_or(0, |ratio| ((ratio * 2f64.powi(64)) as u64).max(1));
        self.threshold.store(threshold, Ordering::Relaxed);
        // Places that make spans remember whether anybody wants them.
        tracing::callsite::rebuild_interest_cache();
    }

    fn is_on(&self) -> bool {
        self.threshold.load(Ordering::Relaxed) != 0
    }

    fn sample(&self) -> bool {
        let threshold = self.threshold.load(Ordering::Relaxed);
        threshold == u64::MAX || mixed(self.count.fetch_add(1, Ordering::Relaxed)) < threshold
    }
}

/// The output of SplitMix64 (Steele, Lea and Flood, 2014) at a place of its sequence: evenly spread, and without a lock.
fn mixed(place: u64) -> u64 {
    let mut z = place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Lets the spans of traces through that are recorded, and nothing else: no log line becomes a part of a trace.
pub(super) struct Filter(pub(super) Arc<Sampling>);

impl<S> tracing_subscriber::layer::Filter<S> for Filter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        if !metadata.is_span() || !metadata.target().starts_with(TARGET) || !self.0.is_on() {
            return false;
        }
        // Within a trace everything is recorded; else only what begins one.
        context.lookup_current().is_some()
            || match metadata.target() {
                ROOT => self.0.sample(),
                CONTINUED => true,
                _ => false,
            }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() && metadata.target().starts_with(TARGET) && self.0.is_on() {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.0.is_on() { LevelFilter::INFO } else { LevelFilter::OFF })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_what_was_asked_for() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.01, 700, 1_300), (0.5, 49_000, 51_000), (1.0, 100_000, 100_000)] {
            let sampling = Sampling::default();
            sampling.set(Some(ratio));
            assert!(sampling.is_on());
            let traced = (0..100_000).filter(|_| sampling.sample()).count();
            assert!((least..=most).contains(&traced), "{traced} at {ratio}");
        }
        let sampling = Sampling::default();
        assert!(!sampling.is_on());
    }
}
