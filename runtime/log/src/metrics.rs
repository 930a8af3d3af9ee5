//! What a log counts.

use nave_metrics::{Counter, Family, Histogram, Page};

static RECORDS: Family = Family::counter("nave_log_records_total", "Records that became durable.");
static BYTES: Family =
    Family::counter("nave_log_bytes_total", "Bytes of records that became durable, with their frames.");
static APPENDS: Family = Family::counter("nave_log_appends_total", "Appends by outcome.");
static BATCH: Family = Family::histogram("nave_log_batch_appends", "Appends that shared one write and one sync.");
static SYNC: Family = Family::histogram("nave_log_sync_seconds", "Time of one write and sync.");
static QUEUED: Family = Family::gauge("nave_log_queued_bytes", "Bytes that wait for the disk.");
static SIZE: Family = Family::gauge("nave_log_size_bytes", "Bytes of all segments.");
static SEGMENTS: Family = Family::gauge("nave_log_segments", "Segment files.");

/// What a log did, and how the disk does.
#[derive(Debug)]
pub(crate) struct LogMetrics {
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) appended: Counter,
    pub(crate) busy: Counter,
    pub(crate) full: Counter,
    pub(crate) failed: Counter,
    pub(crate) batch: Histogram,
    pub(crate) sync: Histogram,
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self {
            records: Counter::new(),
            bytes: Counter::new(),
            appended: Counter::new(),
            busy: Counter::new(),
            full: Counter::new(),
            failed: Counter::new(),
            batch: Histogram::of_counts(),
            sync: Histogram::of_seconds(),
        }
    }
}

impl LogMetrics {
    pub(crate) fn collect(&self, page: &mut Page, hub: &str, queued: usize, (segments, size): (usize, u64)) {
        let label = [("hub", hub)];
        page.value(&RECORDS, &label, self.records.get());
        page.value(&BYTES, &label, self.bytes.get());
        for (outcome, counter) in
            [("appended", &self.appended), ("busy", &self.busy), ("full", &self.full), ("failed", &self.failed)]
        {
            page.value(&APPENDS, &[("hub", hub), ("outcome", outcome)], counter.get());
        }
        page.histogram(&BATCH, &label, &self.batch);
        page.histogram(&SYNC, &label, &self.sync);
        page.value(&QUEUED, &label, queued);
        page.value(&SIZE, &label, size);
        page.value(&SEGMENTS, &label, segments);
    }
}
