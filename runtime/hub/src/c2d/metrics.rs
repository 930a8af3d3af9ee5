//! What is counted of cloud-to-device messages: per hub, never per device.

use nave_metrics::{Counter, Family, Page};
use nave_model::Outcome;

use super::queue::Queue;
use crate::hub::Hub;

static QUEUED: Family =
    Family::gauge("nave_cloud_to_device_queued", "Cloud-to-device messages in all queues, those in flight included.");
static MESSAGES: Family =
    Family::counter("nave_cloud_to_device_messages_total", "What happened to cloud-to-device messages.");
static FEEDBACK: Family = Family::gauge("nave_cloud_to_device_feedback", "Feedback that no service has completed.");

/// What happened to messages.
#[derive(Debug, Default)]
pub(crate) struct DeviceBoundMetrics {
    enqueued: Counter,
    delivered: Counter,
    completed: Counter,
    rejected: Counter,
    abandoned: Counter,
    expired: Counter,
    dead_lettered: Counter,
    purged: Counter,
}

impl DeviceBoundMetrics {
    /// Counts a change that is durable and handed out `delivered` messages.
    pub(super) fn count(&self, queue: &Queue, delivered: usize) {
        let (added, returned) = queue.moved();
        self.enqueued.add(u64::from(added));
        self.abandoned.add(u64::from(returned));
        self.delivered.add(u64::try_from(delivered).unwrap_or(u64::MAX));
        for (_, outcome) in queue.ended() {
            let counter = match outcome {
                Outcome::Success => &self.completed,
                Outcome::Expired => &self.expired,
                Outcome::DeliveryCountExceeded => &self.dead_lettered,
                Outcome::Rejected => &self.rejected,
                Outcome::Purged => &self.purged,
            };
            counter.increment();
        }
    }
}

impl Hub {
    pub(crate) fn collect_device_bound(&self, page: &mut Page) {
        let (hub, metrics) = (("hub", self.id().as_str()), &self.metrics().device_bound);
        let (queued, feedback) = self.queued();
        page.value(&QUEUED, &[hub], queued);
        for (event, counter) in [
            ("enqueued", &metrics.enqueued),
            ("delivered", &metrics.delivered),
            ("completed", &metrics.completed),
            ("rejected", &metrics.rejected),
            ("abandoned", &metrics.abandoned),
            ("expired", &metrics.expired),
            ("dead_lettered", &metrics.dead_lettered),
            ("purged", &metrics.purged),
        ] {
            page.value(&MESSAGES, &[hub, ("event", event)], counter.get());
        }
        page.value(&FEEDBACK, &[hub], feedback);
    }
}
