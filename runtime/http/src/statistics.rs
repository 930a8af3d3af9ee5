//! `/statistics`: how many devices there are, and how many are connected (protocol notes: REST §2.7).

use nave_hub::{Hub, HubError};
use serde_json::json;

use crate::reply::{self, Reply};

/// `GET /statistics/devices`.
pub(crate) async fn devices(hub: &Hub) -> Result<Reply, HubError> {
    let figures = hub.device_statistics().await?;
    Ok(reply::ok(&json!({
        "totalDeviceCount": figures.enabled + figures.disabled,
        "enabledDeviceCount": figures.enabled,
        "disabledDeviceCount": figures.disabled,
    })))
}

/// `GET /statistics/service`.
pub(crate) fn service(hub: &Hub) -> Reply {
    reply::ok(&json!({ "connectedDeviceCount": hub.connected_devices() }))
}
