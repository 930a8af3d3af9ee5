//! What the committer counts.

use nave_metrics::{Counter, Family, Histogram, Page};

use crate::CommitError;

static COMMITS: Family = Family::counter("nave_store_commits_total", "Commits by outcome.");
static BATCH: Family = Family::histogram("nave_store_batch_commits", "Commits that shared one write and one sync.");
static SYNC: Family = Family::histogram("nave_store_sync_seconds", "Time of one write and sync.");
static QUEUED: Family = Family::gauge("nave_store_queued_commits", "Commits that wait for the disk.");
static QUEUED_BYTES: Family =
    Family::gauge("nave_store_queued_bytes", "Bytes of keys and values that wait for the disk.");
static WRITABLE: Family =
    Family::gauge("nave_store_writable", "1 while changes are taken, 0 while the disk is full or fails.");

/// Commits by outcome, and how the disk does.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    committed: Counter,
    conflict: Counter,
    busy: Counter,
    full: Counter,
    failed: Counter,
    /// Commits in one fold.
    pub(crate) batch: Histogram,
    /// Write and sync of one fold.
    pub(crate) sync: Histogram,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            committed: Counter::new(),
            conflict: Counter::new(),
            busy: Counter::new(),
            full: Counter::new(),
            failed: Counter::new(),
            batch: Histogram::of_counts(),
            sync: Histogram::of_seconds(),
        }
    }
}

impl StoreMetrics {
    pub(crate) fn count(&self, outcome: Result<(), &CommitError>) {
        let counter = match outcome {
            Ok(_) => &self.committed,
            Err(CommitError::Conflict { .. }) => &self.conflict,
            Err(CommitError::Busy) => &self.busy,
            Err(CommitError::Full) => &self.full,
            Err(_) => &self.failed,
        };
        counter.increment();
    }

    pub(crate) fn collect(&self, page: &mut Page, (queued, bytes): (usize, usize), writable: bool) {
        for (outcome, counter) in [
            ("committed", &self.committed),
            ("conflict", &self.conflict),
            ("busy", &self.busy),
            ("full", &self.full),
            ("failed", &self.failed),
        ] {
            page.value(&COMMITS, &[("outcome", outcome)], counter.get());
        }
        page.histogram(&BATCH, &[], &self.batch);
        page.histogram(&SYNC, &[], &self.sync);
        page.value(&QUEUED, &[], queued);
        page.value(&QUEUED_BYTES, &[], bytes);
        page.value(&WRITABLE, &[], u8::from(writable));
    }
}
