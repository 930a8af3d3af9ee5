//! `/devices`: identities (protocol notes: REST §2).

use std::sync::Arc;

use http::StatusCode;
use nave_hub::{DeviceView, Hub, HubError, MAX_LISTED_DEVICES};
use nave_model::DeviceId;
use serde_json::Value;

use crate::call::{Call, device_id, read_document};
use crate::identity_document::Document;
use crate::reply::{self, Reply};
use crate::service::Body;
use crate::work::to_its_end;

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
pub(crate) async fn put(hub: &Arc<Hub>, call: &Call, body: Body) -> Result<Reply, HubError> {
    let device = addressed(call)?;
    let condition = call.if_match();
    let document: Document = read_document(body, MAX_IDENTITY_BODY_BYTES).await?;
    let input = document.into_device(&device)?;
    let hub = Arc::clone(hub);
    let work = async move { hub.put_device(&device, &input, &condition).await };
    Ok(identity(&to_its_end(&**call.platform.env(), work).await?))
}

/// `DELETE /devices/{id}`.
pub(crate) async fn delete(hub: &Arc<Hub>, call: &Call) -> Result<Reply, HubError> {
    let (hub, device, condition) = (Arc::clone(hub), addressed(call)?, call.if_match());
    to_its_end(&**call.platform.env(), async move { hub.delete_device(&device, &condition).await }).await?;
    Ok(reply::no_content())
}

fn addressed(call: &Call) -> Result<DeviceId, HubError> {
    device_id(call.target.segment(1))
}

pub(crate) fn identity(view: &DeviceView) -> Reply {
    reply::with_etag(reply::json(StatusCode::OK, view.json.to_string()), &view.etag.header())
}
