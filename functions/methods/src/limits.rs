//! Every limit of direct methods. The source is "Understand and invoke direct methods from IoT Hub" of the Azure IoT Hub
//! documentation, unless said otherwise.

use std::ops::RangeInclusive;

/// Longest method name, in characters (Azure IoT Edge). A longer one is refused.
pub const MAX_NAME_CHARACTERS: usize = 100;

/// Characters that a method name must not have (Azure IoT Edge). Neither may it have white space and control characters, nor
/// [`TOPIC_WILDCARDS`].
pub const FORBIDDEN_IN_NAMES: &str = "$()<>@,;:\\\"/[]?={}";

/// Characters that no topic name of an MQTT publication may have (MQTT 3.1.1, 4.7.1): a method with one could not be delivered.
pub const TOPIC_WILDCARDS: &str = "+#";

/// Longest payload of a call and of an answer, in bytes of JSON text. A longer one is refused; a device that answers with
/// more has answered badly.
pub const MAX_PAYLOAD_BYTES: usize = 128 * 1024;

/// Longest body of a call, in bytes: the payload and room for the other members. A longer one is refused unread.
pub const MAX_BODY_BYTES: usize = MAX_PAYLOAD_BYTES + 8 * 1024;

/// How long a caller may let the hub wait for the answer.
pub const RESPONSE_TIMEOUT_SECONDS: RangeInclusive<u32> = 5..=300;

/// How long the hub waits for the answer if the caller does not say.
pub const DEFAULT_RESPONSE_TIMEOUT_SECONDS: u32 = 30;

/// How long a caller may let the hub wait for a device that is not there.
pub const CONNECT_TIMEOUT_SECONDS: RangeInclusive<u32> = 0..=300;

/// How long the hub waits for a device that is not there if the caller does not say: not at all.
pub const DEFAULT_CONNECT_TIMEOUT_SECONDS: u32 = 0;
