//! Cloud-to-device messages: a durable queue for each device, what its connections take out of it, and feedback to services
//! (protocol notes: semantics §2).
//!
//! The queue is one aggregate with compare-and-swap of its own, so a message in it has one fate, whoever asks: a session over
//! MQTT, a request over HTTPS, the clock, or a service that empties the queue. Whoever is handed a message holds a lock on it
//! that is as durable as the queue. A session's lock is worth what the session is: it ends with the session's epoch, after a
//! crash as well, and the commits of a session are guarded by its record like all others. Only when it leaves, it completes
//! what its device had acknowledged whoever owns the device by then, unless another has the message.
//!
//! Feedback is part of the commit that decided the message's fate.

mod change;
mod content;
mod deliver;
mod due;
mod feedback;
mod metrics;
mod queue;
mod receive;
mod send;
mod settings;

use std::sync::atomic::AtomicUsize;

use nave_model::DeviceId;
use parking_lot::RwLock;

use crate::lane::Lanes;

pub use content::{DeviceBound, Received};
pub use deliver::{Appetite, Delivery, Exchange, Leaving};
pub use feedback::{FeedbackBatch, MAX_BATCH_RECORDS, MAX_FEEDBACK_RECORDS};
pub use queue::{MAX_QUEUE_DEPTH, Settlement};
pub use send::{CloudToDevice, MAX_DEVICE_BOUND_BYTES, MAX_MESSAGE_ID, MAX_PROPERTY_BYTES};
pub use settings::{CloudToDeviceSettings, MAX_TIME_TO_LIVE, MIN_TIME_TO_LIVE};

pub(crate) use metrics::DeviceBoundMetrics;

use deliver::LeavingSessions;
use due::Due;

/// What a hub has for its queues.
pub(crate) struct Queues {
    /// Changes of one queue follow each other. A lane of its own: messages do not wait for the twin.
    pub(crate) lanes: Lanes<DeviceId>,
    settings: RwLock<CloudToDeviceSettings>,
    due: Due,
    /// Sessions whose connection is gone and whose messages are not given back yet.
    leaving: LeavingSessions,
    /// Feedback that no service has completed.
    feedback: AtomicUsize,
}

/// A number in the form of a GUID, which is what clients expect of lock tokens and message ids.
fn guid(number: u128) -> String {
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        number >> 96,
        number >> 80 & 0xFFFF,
        number >> 64 & 0xFFFF,
        number >> 48 & 0xFFFF,
        number & 0xFFFF_FFFF_FFFF
    )
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self {
            lanes: Lanes::new(),
            settings: RwLock::new(CloudToDeviceSettings::default()),
            due: Due::default(),
            leaving: LeavingSessions::default(),
            feedback: AtomicUsize::new(0),
        }
    }

    pub(crate) fn settings(&self) -> CloudToDeviceSettings {
        *self.settings.read()
    }

    pub(crate) fn set(&self, settings: CloudToDeviceSettings) {
        *self.settings.write() = settings;
    }
}
