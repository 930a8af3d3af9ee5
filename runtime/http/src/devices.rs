//! `/devices`: identities (protocol notes: REST §2).

use std::sync::Arc;

use http::StatusCode;
use nave_hub::{DeviceInput, DeviceView, Hub, HubError, MAX_LISTED_DEVICES};
use nave_model::{DeviceId, DeviceStatus};
use serde::Deserialize;
use serde_json::Value;

use crate::call::{Call, argument, device_id, read_document};
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
    let input = document.into_input(&device)?;
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

fn identity(view: &DeviceView) -> Reply {
    reply::with_etag(reply::json(StatusCode::OK, view.json.to_string()), &view.etag.header())
}

/// The members of an identity that count; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    device_id: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<Authentication>,
    capabilities: Option<Capabilities>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Authentication {
    r#type: Option<String>,
    symmetric_key: Option<SymmetricKey>,
    x509_thumbprint: Option<Thumbprints>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Capabilities {
    iot_edge: Option<bool>,
}

impl Document {
    fn into_input(self, device: &DeviceId) -> Result<DeviceInput, HubError> {
        if self.device_id.is_some_and(|written| written != device.as_str()) {
            return Err(argument("deviceId in the body is not the device id of the path."));
        }
        let authentication = self.authentication.unwrap_or_default();
        let keys = authentication.symmetric_key.unwrap_or_default();
        let thumbprints = authentication.x509_thumbprint.unwrap_or_default();
        Ok(DeviceInput {
            status: self.status.as_deref().map(status).transpose()?,
            status_reason: self.status_reason,
            authentication: nave_hub::AuthenticationInput {
                kind: authentication.r#type,
                primary_key: keys.primary_key,
                secondary_key: keys.secondary_key,
                primary_thumbprint: thumbprints.primary_thumbprint,
                secondary_thumbprint: thumbprints.secondary_thumbprint,
            },
            iot_edge: self.capabilities.unwrap_or_default().iot_edge.unwrap_or(false),
        })
    }
}

/// The Java SDK writes `Enabled` (protocol notes: Java SDKs).
fn status(text: &str) -> Result<DeviceStatus, HubError> {
    match text {
        text if text.eq_ignore_ascii_case("enabled") => Ok(DeviceStatus::Enabled),
        text if text.eq_ignore_ascii_case("disabled") => Ok(DeviceStatus::Disabled),
        _ => Err(argument("status is neither enabled nor disabled.")),
    }
}
