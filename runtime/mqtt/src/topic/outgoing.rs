//! Topics to be written: by the server, and by clients of ours. And what a client reads of the server's.
//!
//! [`crate::encode::publish`] takes them as they are, without a text in between.

use std::fmt;

use super::query::{after_operation, number, request_id, value, version};
use super::{Client, Since};

/// A topic that the server publishes to, exactly as the SDKs' parsers need it (protocol notes: MQTT §5.2, §6, §7.4,
/// provisioning §3.2). Texts are written as they are: they must be fit for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToClient<'a> {
    /// A cloud-to-device message.
    CloudToDevice {
        /// The device id.
        device: &'a str,
        /// From [`crate::bag::encode`].
        bag: &'a str,
    },
    /// A message to an input of a module.
    ModuleInput {
        /// The device id.
        device: &'a str,
        /// The module id.
        module: &'a str,
        /// The input.
        input: &'a str,
        /// From [`crate::bag::encode`].
        bag: &'a str,
    },
    /// A method call.
    Method {
        /// The method; not encoded.
        name: &'a str,
        /// Chosen by the server; written in decimal digits, which suits every SDK.
        rid: u32,
    },
    /// The answer to a twin request.
    TwinResponse {
        /// Written in three digits, as Java needs it.
        status: u16,
        /// As the client wrote it.
        rid: &'a str,
        /// The new version after a change.
        version: Option<u64>,
    },
    /// Desired properties changed.
    TwinDesired {
        /// The new version.
        version: u64,
    },
    /// The answer to a request for a certificate.
    CredentialsResponse {
        /// Written in three digits.
        status: u16,
        /// As the client wrote it.
        rid: &'a str,
    },
    /// The answer of the provisioning service.
    DpsResponse {
        /// Written in three digits.
        status: u16,
        /// As the client wrote it.
        rid: &'a str,
        /// Seconds until the next question.
        retry_after: Option<u32>,
    },
}

impl fmt::Display for ToClient<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CloudToDevice { device, bag } => write!(formatter, "devices/{device}/messages/devicebound/{bag}"),
            Self::ModuleInput { device, module, input, bag } => {
                write!(formatter, "devices/{device}/modules/{module}/inputs/{input}/{bag}")
            }
            Self::Method { name, rid } => write!(formatter, "$iothub/methods/POST/{name}/?$rid={rid}"),
            Self::TwinResponse { status, rid, version: None } => {
                write!(formatter, "$iothub/twin/res/{status:03}/?$rid={rid}")
            }
            Self::TwinResponse { status, rid, version: Some(version) } => {
                write!(formatter, "$iothub/twin/res/{status:03}/?$rid={rid}&$version={version}")
            }
            Self::TwinDesired { version } => {
                write!(formatter, "$iothub/twin/PATCH/properties/desired/?$version={version}")
            }
            Self::CredentialsResponse { status, rid } => {
                write!(formatter, "$iothub/credentials/res/{status:03}/?$rid={rid}")
            }
            // `$rid` first: the Python SDK reads only what follows the second dollar sign.
            Self::DpsResponse { status, rid, retry_after: None } => {
                write!(formatter, "$dps/registrations/res/{status:03}/?$rid={rid}")
            }
            Self::DpsResponse { status, rid, retry_after: Some(seconds) } => {
                write!(formatter, "$dps/registrations/res/{status:03}/?$rid={rid}&retry-after={seconds}")
            }
        }
    }
}

/// A topic that a client publishes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToServer<'a> {
    /// A message.
    Telemetry {
        /// Who sends it.
        client: Client<'a>,
        /// From [`crate::bag::encode_properties`]; may be empty.
        bag: &'a str,
    },
    /// Read the twin.
    TwinGet {
        /// Request id.
        rid: &'a str,
        /// What is known of the desired properties.
        since: Option<Since<'a>>,
    },
    /// Change reported properties.
    TwinPatch {
        /// Request id.
        rid: &'a str,
        /// Apply only to this version.
        version: Option<u64>,
    },
    /// Answer a method call.
    MethodResponse {
        /// The status.
        status: i32,
        /// That of the call.
        rid: &'a str,
    },
    /// Register at the provisioning service.
    DpsRegister {
        /// Request id.
        rid: &'a str,
    },
    /// Ask how the registration goes.
    DpsOperationStatus {
        /// Request id.
        rid: &'a str,
        /// The operation.
        operation_id: &'a str,
    },
}

impl fmt::Display for ToServer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Telemetry { client: Client { device, module: None }, bag } => {
                write!(formatter, "devices/{device}/messages/events/{bag}")
            }
            Self::Telemetry { client: Client { device, module: Some(module) }, bag } => {
                write!(formatter, "devices/{device}/modules/{module}/messages/events/{bag}")
            }
            Self::TwinGet { rid, since: None } => write!(formatter, "$iothub/twin/GET/?$rid={rid}"),
            Self::TwinGet { rid, since: Some(Since { version, lineage }) } => {
                write!(formatter, "$iothub/twin/GET/?$rid={rid}&$since={version}&$lineage={lineage}")
            }
            Self::TwinPatch { rid, version: None } => {
                write!(formatter, "$iothub/twin/PATCH/properties/reported/?$rid={rid}")
            }
            Self::TwinPatch { rid, version: Some(version) } => {
                write!(formatter, "$iothub/twin/PATCH/properties/reported/?$rid={rid}&$version={version}")
            }
            Self::MethodResponse { status, rid } => write!(formatter, "$iothub/methods/res/{status}/?$rid={rid}"),
            Self::DpsRegister { rid } => write!(formatter, "$dps/registrations/PUT/iotdps-register/?$rid={rid}"),
            Self::DpsOperationStatus { rid, operation_id } => write!(
                formatter,
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation_id}"
            ),
        }
    }
}

/// A PUBLISH of the server, as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// A cloud-to-device message.
    CloudToDevice {
        /// For [`crate::bag::Bag::decode`].
        bag: &'a str,
    },
    /// A message to an input of a module.
    ModuleInput {
        /// The input.
        input: &'a str,
        /// For [`crate::bag::Bag::decode`].
        bag: &'a str,
    },
    /// A method call.
    Method {
        /// The method.
        name: &'a str,
        /// To be repeated in the answer.
        rid: &'a str,
    },
    /// The answer to a twin request.
    TwinResponse {
        /// As in HTTP.
        status: u16,
        /// That of the request.
        rid: &'a str,
        /// The new version after a change.
        version: Option<u64>,
    },
    /// Desired properties changed.
    TwinDesired {
        /// The new version.
        version: u64,
    },
    /// The answer to a request for a certificate.
    CredentialsResponse {
        /// As in HTTP.
        status: u16,
        /// That of the request.
        rid: &'a str,
    },
    /// The answer of the provisioning service.
    DpsResponse {
        /// As in HTTP.
        status: u16,
        /// That of the request.
        rid: &'a str,
        /// Seconds until the next question.
        retry_after: Option<u32>,
    },
}

/// Reads a topic that a server published to; `None` if it is none of those of [`ToClient`].
pub fn parse_from_server(topic: &str) -> Option<FromServer<'_>> {
    if let Some(rest) = topic.strip_prefix("devices/") {
        return message(rest);
    }
    if let Some(rest) = topic.strip_prefix("$iothub/methods/POST/") {
        let (name, rest) = rest.split_once('/')?;
        return Some(FromServer::Method { name, rid: request_id(after_operation(rest).ok()?).ok()? });
    }
    if let Some(rest) = topic.strip_prefix("$iothub/twin/res/") {
        let (status, query) = status(rest)?;
        let rid = request_id(query).ok()?;
        return Some(FromServer::TwinResponse { status, rid, version: version(query).ok()? });
    }
    if let Some(rest) = topic.strip_prefix("$iothub/twin/PATCH/properties/desired") {
        let version = version(after_operation(rest).ok()?).ok()??;
        return Some(FromServer::TwinDesired { version });
    }
    if let Some(rest) = topic.strip_prefix("$iothub/credentials/res/") {
        let (status, query) = status(rest)?;
        return Some(FromServer::CredentialsResponse { status, rid: request_id(query).ok()? });
    }
    let (status, query) = status(topic.strip_prefix("$dps/registrations/res/")?)?;
    let retry_after = value(query, "retry-after").and_then(number).and_then(|seconds| u32::try_from(seconds).ok());
    Some(FromServer::DpsResponse { status, rid: request_id(query).ok()?, retry_after })
}

fn message(rest: &str) -> Option<FromServer<'_>> {
    let (_device, rest) = rest.split_once('/')?;
    if let Some(bag) = rest.strip_prefix("messages/devicebound/") {
        return Some(FromServer::CloudToDevice { bag });
    }
    let (_module, rest) = rest.strip_prefix("modules/")?.split_once('/')?;
    let (input, bag) = rest.strip_prefix("inputs/")?.split_once('/')?;
    Some(FromServer::ModuleInput { input, bag })
}

/// `{status}/?{query}`.
fn status(rest: &str) -> Option<(u16, &str)> {
    let (status, rest) = rest.split_once('/')?;
    let status = number(status).and_then(|status| u16::try_from(status).ok())?;
    Some((status, after_operation(rest).ok()?))
}
