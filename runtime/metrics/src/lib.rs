//! Counters and histograms, and the text in which Prometheus reads them.
//!
//! Each part of the program owns the metrics of what it does, as plain members: there is no registry and nothing global, so
//! that two hubs in a process, or two tests, do not share any. A part that has metrics implements [`Collect`]; whoever
//! answers a scrape asks all of them for a [`Page`].
//!
//! The hot path pays one relaxed atomic addition for a counter, and two for a histogram.

mod histogram;
mod page;

use std::sync::atomic::{AtomicU64, Ordering};

pub use histogram::Histogram;
pub use page::{Family, Kind, Page};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that has metrics.
pub trait Collect: Send + Sync {
    /// Puts the current values on the page.
    fn collect(&self, page: &mut Page);
}
