//! Spans that wait to be sent: a bounded number, beyond which they are dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nave_metrics::Counter;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanProcessor};
use parking_lot::RwLock;

use super::collector::Collector;

/// Most spans that wait. Each has some 500 bytes, so they take a few megabytes; a collector that is away for longer misses
/// what comes meanwhile.
pub(super) const MAX_WAITING: usize = 8_192;

/// Spans of one request to the collector.
const BATCH: usize = 512;

/// How long spans wait for a batch to fill.
const DELAY: Duration = Duration::from_secs(1);

/// How long the end of the process, or a change of the collector, waits for what is left.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) exported: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
    pub(super) dropped: Counter,
    /// Those that wait or are being sent.
    pub(super) waiting: AtomicUsize,
}

impl Counts {
    pub(super) fn all(&self) -> [(&'static str, u64); 4] {
        [
            ("exported", self.exported.get()),
            ("refused", self.refused.get()),
            ("failed", self.failed.get()),
            ("dropped", self.dropped.get()),
        ]
    }
}

/// Where spans go when they end.
#[derive(Debug, Default)]
pub(super) struct Outlet(RwLock<Option<Current>>);

#[derive(Clone, Debug)]
struct Current {
    batches: Arc<BatchSpanProcessor>,
    counts: Arc<Counts>,
}

impl Outlet {
    /// Sends to another collector, or to none; what waited for the one before is sent there first.
    pub(super) fn replace(&self, collector: Option<Collector>, counts: &Arc<Counts>) {
        let next = collector.map(|collector| {
            let config = BatchConfigBuilder::default()
                .with_max_queue_size(MAX_WAITING)
                .with_max_export_batch_size(BATCH)
                .with_scheduled_delay(DELAY)
                .build();
            let batches = BatchSpanProcessor::builder(collector).with_batch_config(config).build();
            Current { batches: Arc::new(batches), counts: Arc::clone(counts) }
        });
        let before = std::mem::replace(&mut *self.0.write(), next);
        if let Some(before) = before
            && let Err(error) = before.batches.shutdown_with_timeout(LAST_WORDS)
        {
            tracing::warn!(%error, "the last traces may not have reached the collector");
        }
    }
}

/// The outlet as a part of the SDK.
#[derive(Debug)]
pub(super) struct Processor(pub(super) Arc<Outlet>);

impl SpanProcessor for Processor {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let Some(Current { batches, counts }) = self.0.0.read().clone() else { return };
        // The queue behind drops silently; this bound is never above its own, so nothing is dropped there.
        if counts.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            counts.waiting.fetch_sub(1, Ordering::Relaxed);
            counts.dropped.increment();
            return;
        }
        batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
