//! What the devices have done, counted.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Counters that every device adds to.
#[derive(Default)]
pub(super) struct Statistics {
    /// Devices that are connected now.
    pub(super) connected: AtomicU64,
    /// Registrations that ended well.
    pub(super) registered: AtomicU64,
    /// Messages sent.
    pub(super) sent: AtomicU64,
    /// Messages acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// Changes of reported properties that were confirmed.
    pub(super) reported: AtomicU64,
    /// Changes of desired properties received.
    pub(super) desired: AtomicU64,
    /// Methods answered.
    pub(super) methods: AtomicU64,
    /// Connections that failed or broke.
    pub(super) failures: AtomicU64,
    last_failure: Mutex<String>,
    latency_micros: AtomicU64,
}

impl Statistics {
    /// Adds one.
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was acknowledged after `latency`.
    pub(super) fn acknowledge(&self, latency: Duration) {
        Self::add(&self.acknowledged);
        self.latency_micros.fetch_add(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A connection failed or broke.
    pub(super) fn fail(&self, device: &str, reason: &impl std::fmt::Display) {
        Self::add(&self.failures);
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = format!("{device}: {reason}");
    }

    /// The latest failure; empty without any.
    pub(super) fn last_failure(&self) -> String {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Mean time to an acknowledgement.
    pub(super) fn mean_latency(&self) -> Option<Duration> {
        let total = self.latency_micros.load(Ordering::Relaxed);
        total.checked_div(self.acknowledged.load(Ordering::Relaxed)).map(Duration::from_micros)
    }

    /// All of it.
    pub(super) fn json(&self) -> Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "connected": get(&self.connected),
            "registered": get(&self.registered),
            "sent": get(&self.sent),
            "acknowledged": get(&self.acknowledged),
            "meanAcknowledgementMicros": self.mean_latency().map(|mean| mean.as_micros().to_string().parse::<u64>().unwrap_or_default()),
            "reported": get(&self.reported),
            "desired": get(&self.desired),
            "methods": get(&self.methods),
            "failures": get(&self.failures),
            "lastFailure": self.last_failure(),
        })
    }
}
