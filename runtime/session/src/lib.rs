//! What happens inside a device's connection, without sockets: MQTT packets against a hub or the provisioning service.
//!
//! [`protocol`] is the contract with whoever moves the bytes. [`MqttConnection`] fulfils it: it reads packets, turns them
//! into calls of `nave-hub`, drives those calls while it is polled, and collects what is to be sent. Nothing is spawned:
//! work in flight belongs to its connection, and an idle connection owns no buffer and no future.

mod connection;
mod device_bound;
mod dps;
mod hub;
mod inbox;
mod message;
pub mod protocol;

pub use connection::{MqttConnection, MqttFactory};
pub use device_bound::{MAX_IN_FLIGHT_BYTES, MAX_MESSAGES_IN_FLIGHT};
pub use dps::ANSWER_DELAY;
pub use hub::{
    MAX_MODEL_ID_BYTES, MAX_REQUESTS_IN_FLIGHT, MAX_SUBSCRIPTIONS, MAX_UNACKNOWLEDGED_BYTES, MESSAGE_OVERHEAD_BYTES,
};
pub use inbox::{MAX_INBOX_BYTES, MAX_INBOX_MESSAGES};

/// Paths of MQTT over WebSocket (device-mqtt.md §1, provisioning-device.md §1), with `$` as it is and as some HTTP clients
/// encode it. `/mqtt` is what the Java SDK for provisioning asks for (java-sdks.md).
pub const WEBSOCKET_PATHS: &[&str] = &["/$iothub/websocket", "/%24iothub/websocket", "/mqtt"];

/// The sub-protocol of MQTT over WebSocket (MQTT 3.1.1 §6).
pub const WEBSOCKET_SUB_PROTOCOL: &str = "mqtt";

/// Output that waits for the peer to read it; reading stops there, so a device that does not read cannot make us collect
/// answers to its own requests.
pub const MAX_UNWRITTEN_BYTES: usize = 256 << 10;
