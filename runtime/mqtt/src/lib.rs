//! MQTT 3.1.1 as the hub and the provisioning service speak it, without I/O: bytes in, typed packets out, and back.
//!
//! - [`packet`], [`decode`], [`encode`]: the codec, for both directions. Decoding borrows from the bytes it is given.
//! - [`session`]: the server's half of one connection: order of packets, keep-alive, back-pressure. It knows no hub.
//! - [`connect`]: the user names of CONNECT. [`topic`]: what the topics mean. [`bag`]: message properties in topics.
//!
//! The crate has no clock: times are milliseconds on a monotonic scale of the caller's choice.
//!
//! Sources: MQTT Version 3.1.1, OASIS Standard ("MQTT §" in the comments), and the project's protocol notes on the
//! Azure IoT Hub and DPS protocols.

pub mod bag;
pub mod connect;
pub mod decode;
pub mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod packet;
mod percent;
mod reader;
pub mod session;
pub mod topic;
