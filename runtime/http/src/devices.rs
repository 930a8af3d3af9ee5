//! `/devices`: identities (protocol notes: REST §2).

use http::StatusCode;
use nave_hub::{DeviceView, Hub, HubError, MAX_LISTED_DEVICES};
use nave_model::DeviceId;
use serde_json::Value;

use crate::call::{Call, device_id, read_document};
use crate::identity_document::Document;
use crate::reply::{self, Reply};
use crate::service::Body;

/// Longest body of an identity, in bytes; a longer one is refused unread. An identity with all members has about 3 KB.
pub const MAX_IDENTITY_BODY_BYTES: usize = 64 << 10;

/// `GET /devices?top=N`.
pub(crate) async fn list(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    let top = match call.target.parameter("top") {
        None => MAX_LISTED_DEVICES,
        // 0 is no possible number either, so the hub names the right error.
        Some(text) => text.parse().unwrap_or(0),
    };
    let devices = hub.list_devices(top).await?;
    Ok(reply::ok(&Value::Array(devices.into_iter().map(|device| device.json).collect())))
}

/// `GET /devices/{id}`.
pub(crate) async fn get(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    Ok(identity(&hub.get_device(&addressed(call)?).await?))
}

/// `PUT /devices/{id}`.
pub(crate) async fn put(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let device = addressed(call)?;
    let condition = call.if_match();
    let document: Document = read_document(body, MAX_IDENTITY_BODY_BYTES).await?;
    let input = document.into_device(&device)?;
    Ok(identity(&hub.put_device(&device, &input, &condition).await?))
}

/// `DELETE /devices/{id}`.
pub(crate) async fn delete(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    hub.delete_device(&addressed(call)?, &call.if_match()).await?;
    Ok(reply::no_content())
}

fn addressed(call: &Call) -> Result<DeviceId, HubError> {
    device_id(call.target.segment(1))
}

pub(crate) fn identity(view: &DeviceView) -> Reply {
    reply::with_etag(reply::json(StatusCode::OK, view.json.to_string()), &view.etag.header())
}
