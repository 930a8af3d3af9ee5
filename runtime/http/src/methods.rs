//! `POST /twins/{id}/methods`: direct methods (protocol notes: REST §5).

use http::StatusCode;
use nave_hub::{Hub, HubError};

use crate::call::{Call, read_text};
use crate::reply::{self, Reply};
use crate::service::Body;
use crate::twins::addressed;

/// Longest body of a call, in bytes; a longer one is refused unread: 128 KB of payload (Azure IoT Hub documentation, direct
/// methods) and room for the other members.
pub const MAX_METHOD_BODY_BYTES: usize = (128 + 8) << 10;

/// Calls a method and waits for the device's answer.
pub(crate) async fn invoke(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let identity = addressed(call)?;
    let body = read_text(body, MAX_METHOD_BODY_BYTES).await?;
    Ok(reply::json(StatusCode::OK, hub.call_method(&identity, &body).await?))
}
