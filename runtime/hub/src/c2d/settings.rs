//! What an operator may choose for a hub's cloud-to-device messages.

use std::time::Duration;

use crate::hub::Hub;

/// Longest time to live of a message (Azure IoT Hub documentation, cloud-to-device messages). A message that asks for more is
/// refused.
pub const MAX_TIME_TO_LIVE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Shortest time to live that can be configured as the default (the same page).
pub const MIN_TIME_TO_LIVE: Duration = Duration::from_secs(60);

/// The settings of one hub; the default is the cloud service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudToDeviceSettings {
    /// How long a message waits that has no expiry time of its own.
    pub time_to_live: Duration,
    /// How often a message may be handed out; at least 1.
    pub max_deliveries: u32,
    /// How long a message that was received over HTTPS belongs to its receiver.
    pub lock: Duration,
    /// How long feedback waits for a service.
    pub feedback_time_to_live: Duration,
    /// How often feedback may be handed out; at least 1.
    pub feedback_max_deliveries: u32,
    /// How long feedback that was handed out belongs to its receiver.
    pub feedback_lock: Duration,
}

impl Default for CloudToDeviceSettings {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            time_to_live: HOUR,
            max_deliveries: 10,
            lock: MINUTE,
            feedback_time_to_live: HOUR,
            feedback_max_deliveries: 10,
            feedback_lock: MINUTE,
        }
    }
}

impl Hub {
    /// Sets what is configured for cloud-to-device messages. It holds for what happens from now on.
    pub fn set_cloud_to_device(&self, settings: CloudToDeviceSettings) {
        self.queues.set(settings);
    }
}
