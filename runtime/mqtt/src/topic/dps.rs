//! What devices publish to and subscribe to at the provisioning service.

use super::query::{after_operation, request_id, value};
use super::{FilterRefused, TopicError};

/// The only filter of the provisioning service.
pub const DPS_RESPONSES_FILTER: &str = "$dps/registrations/res/#";

/// A PUBLISH to the provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpsPublish<'a> {
    /// Register.
    Register {
        /// Request id.
        rid: &'a str,
    },
    /// Ask how the registration goes.
    OperationStatus {
        /// Request id.
        rid: &'a str,
        /// The operation as written, not decoded: ids of operations should need no encoding.
        operation_id: &'a str,
    },
}

/// What a PUBLISH to `topic` is. The slash before the `?` may be missing.
///
/// # Errors
///
/// [`TopicError`]: close the connection.
pub fn dps_publish(topic: &str) -> Result<DpsPublish<'_>, TopicError> {
    let operation = topic.strip_prefix("$dps/registrations/").ok_or(TopicError::Unknown)?;
    if let Some(rest) = operation.strip_prefix("PUT/iotdps-register") {
        return Ok(DpsPublish::Register { rid: request_id(after_operation(rest)?)? });
    }
    if let Some(rest) = operation.strip_prefix("GET/iotdps-get-operationstatus") {
        let query = after_operation(rest)?;
        let rid = request_id(query)?;
        let operation_id = value(query, "operationId").filter(|id| !id.is_empty());
        return Ok(DpsPublish::OperationStatus { rid, operation_id: operation_id.ok_or(TopicError::NoOperationId)? });
    }
    Err(TopicError::Unknown)
}

/// Whether a subscription to `filter` is granted: only [`DPS_RESPONSES_FILTER`] is.
///
/// # Errors
///
/// [`FilterRefused`]: answer 0x80 for this filter.
pub fn dps_filter(filter: &str) -> Result<(), FilterRefused> {
    if filter == DPS_RESPONSES_FILTER { Ok(()) } else { Err(FilterRefused) }
}
