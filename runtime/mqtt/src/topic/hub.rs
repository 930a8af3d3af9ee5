//! What clients of a hub publish to and subscribe to.

use super::query::{after_operation, optional_request_id, request_id, since, version};
use super::{Client, FilterRefused, TopicError};

/// A PUBLISH to a hub. Request ids are text to be repeated, never decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubPublish<'a> {
    /// A message from the connected device or module.
    Telemetry {
        /// For [`crate::bag::Bag::decode`]; may be empty.
        bag: &'a str,
    },
    /// Read the twin.
    TwinGet {
        /// Request id.
        rid: &'a str,
        /// What the device knows of its desired properties, if it says so: beyond the protocol.
        since: Option<Since<'a>>,
    },
    /// Change reported properties.
    TwinPatch {
        /// Request id. `None`: apply and do not answer.
        rid: Option<&'a str>,
        /// Apply only to this version.
        version: Option<u64>,
    },
    /// The answer to a method call.
    MethodResponse {
        /// The status as written, which should be an integer.
        status: &'a str,
        /// Request id.
        rid: &'a str,
    },
    /// Ask for a certificate.
    IssueCertificate {
        /// Request id.
        rid: &'a str,
    },
}

/// What a device knows of its desired properties when it reads its twin: `$since={version}&$lineage={text}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The `$version` that it saw last; 0 for none.
    pub version: u64,
    /// The `$lineage` that it was told with a twin; empty if it was told none.
    pub lineage: &'a str,
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Cloud-to-device messages.
    CloudToDevice,
    /// Method calls.
    Methods,
    /// Answers to twin requests.
    TwinResponses,
    /// Changes of desired properties.
    TwinDesired,
    /// Messages routed to inputs of a module.
    ModuleInputs,
    /// Cloud-to-device messages of a module, which do not exist. Java subscribes to it: grant it.
    ModuleDeviceBound,
    /// Answers to requests for certificates.
    Credentials,
}

/// What a PUBLISH to `topic` by the connected `client` is.
///
/// Telemetry may come with or without the slash after `events`, with a `?` before the bag and with one slash after it.
/// Requests may come without the slash before the `?`, and with `%24` for `$` in names of the query.
///
/// # Errors
///
/// [`TopicError`]: close the connection.
pub fn hub_publish<'a>(client: Client<'_>, topic: &'a str) -> Result<HubPublish<'a>, TopicError> {
    if let Some(rest) = topic.strip_prefix("devices/") {
        return telemetry(client, rest);
    }
    let operation = topic.strip_prefix("$iothub/").ok_or(TopicError::Unknown)?;
    if let Some(rest) = operation.strip_prefix("twin/GET") {
        let query = after_operation(rest)?;
        return Ok(HubPublish::TwinGet { rid: request_id(query)?, since: since(query) });
    }
    if let Some(rest) = operation.strip_prefix("twin/PATCH/properties/reported") {
        let query = after_operation(rest)?;
        return Ok(HubPublish::TwinPatch { rid: optional_request_id(query)?, version: version(query)? });
    }
    if let Some(rest) = operation.strip_prefix("methods/res/") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (status, rest) = rest.split_at_checked(end).ok_or(TopicError::Unknown)?;
        return Ok(HubPublish::MethodResponse { status, rid: request_id(after_operation(rest)?)? });
    }
    if let Some(rest) = strip_credentials(operation).and_then(|rest| rest.strip_prefix("POST/issueCertificate")) {
        return Ok(HubPublish::IssueCertificate { rid: request_id(after_operation(rest)?)? });
    }
    Err(TopicError::Unknown)
}

/// What a subscription to `filter` by the connected `client` is for.
///
/// Module inputs have two filters (`…/inputs/#`, and `…/#` of C and .NET), `devicebound` ignores case, and the documented
/// misspelling `$iothub/credential/#` is accepted. Wider wildcards are refused.
///
/// # Errors
///
/// [`FilterRefused`]: answer 0x80 for this filter.
pub fn hub_filter(client: Client<'_>, filter: &str) -> Result<Feature, FilterRefused> {
    if let Some(rest) = filter.strip_prefix("devices/") {
        return own_filter(client, rest).ok_or(FilterRefused);
    }
    match filter.strip_prefix("$iothub/") {
        Some("methods/POST/#") => Ok(Feature::Methods),
        Some("twin/res/#") => Ok(Feature::TwinResponses),
        Some("twin/PATCH/properties/desired/#") => Ok(Feature::TwinDesired),
        Some("credentials/res/#" | "credentials/#" | "credential/res/#" | "credential/#") => Ok(Feature::Credentials),
        _ => Err(FilterRefused),
    }
}

fn telemetry<'a>(client: Client<'_>, rest: &'a str) -> Result<HubPublish<'a>, TopicError> {
    // The address first: a bag may contain anything.
    let (device, rest) = rest.split_once('/').ok_or(TopicError::Unknown)?;
    let (module, rest) = match rest.strip_prefix("modules/") {
        None => (None, rest),
        Some(rest) => {
            let (module, rest) = rest.split_once('/').ok_or(TopicError::Unknown)?;
            (Some(module), rest)
        }
    };
    let bag = rest.strip_prefix("messages/events").ok_or(TopicError::Unknown)?;
    let bag = match bag.strip_prefix('/') {
        Some(bag) => bag,
        None if bag.is_empty() || bag.starts_with('?') => bag,
        None => return Err(TopicError::Unknown),
    };
    if client != (Client { device, module }) {
        return Err(TopicError::OtherIdentity);
    }
    let bag = bag.strip_prefix('?').unwrap_or(bag);
    Ok(HubPublish::Telemetry { bag: bag.strip_suffix('/').unwrap_or(bag) })
}

fn own_filter(client: Client<'_>, rest: &str) -> Option<Feature> {
    let rest = rest.strip_prefix(client.device)?.strip_prefix('/')?;
    let Some(module) = client.module else {
        return is_device_bound(rest).then_some(Feature::CloudToDevice);
    };
    match rest.strip_prefix("modules/")?.strip_prefix(module)?.strip_prefix('/')? {
        "#" | "inputs/#" => Some(Feature::ModuleInputs),
        rest => is_device_bound(rest).then_some(Feature::ModuleDeviceBound),
    }
}

fn is_device_bound(rest: &str) -> bool {
    let word = rest.strip_prefix("messages/").and_then(|rest| rest.strip_suffix("/#"));
    word.is_some_and(|word| word.eq_ignore_ascii_case("devicebound"))
}

fn strip_credentials(operation: &str) -> Option<&str> {
    operation.strip_prefix("credentials/").or_else(|| operation.strip_prefix("credential/"))
}
