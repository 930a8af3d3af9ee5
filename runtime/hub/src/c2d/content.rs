//! What a message contains, as the device gets it.

use bytes::Bytes;
use nave_model::{ContentRecord, Timestamp};

/// A message for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceBound {
    /// System properties by the names of [`crate::system`].
    pub system: Vec<(String, String)>,
    /// Application properties in the order sent.
    pub properties: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// A message that a device was handed over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What settles it.
    pub lock_token: String,
    /// Its number in the queue.
    pub sequence: u64,
    /// When it was accepted.
    pub enqueued: Timestamp,
    /// How often it came back before.
    pub deliveries: u32,
    /// The message.
    pub message: DeviceBound,
}

impl From<ContentRecord> for DeviceBound {
    fn from(record: ContentRecord) -> Self {
        Self { system: record.system, properties: record.properties, body: record.body.into() }
    }
}
