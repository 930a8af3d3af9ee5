//! `/devices/{id}/modules`: identities of modules (protocol notes: REST §2).

use nave_hub::{Hub, HubError};
use nave_model::{DeviceId, ModuleId};
use serde_json::Value;

use crate::call::{Call, argument, device_id, read_document};
use crate::devices::{MAX_IDENTITY_BODY_BYTES, identity};
use crate::identity_document::Document;
use crate::reply::{self, Reply};
use crate::service::Body;

/// `GET /devices/{id}/modules`.
pub(crate) async fn list(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    let modules = hub.list_modules(&device_id(call.target.segment(1))?).await?;
    Ok(reply::ok(&Value::Array(modules.into_iter().map(|module| module.json).collect())))
}

/// `GET /devices/{id}/modules/{module}`.
pub(crate) async fn get(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    let (device, module) = addressed(call)?;
    Ok(identity(&hub.get_module(&device, &module).await?))
}

/// `PUT /devices/{id}/modules/{module}`.
pub(crate) async fn put(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let (device, module) = addressed(call)?;
    let condition = call.if_match();
    let document: Document = read_document(body, MAX_IDENTITY_BODY_BYTES).await?;
    let input = document.into_module(&device, &module)?;
    Ok(identity(&hub.put_module(&device, &module, &input, &condition).await?))
}

/// `DELETE /devices/{id}/modules/{module}`.
pub(crate) async fn delete(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    let (device, module) = addressed(call)?;
    hub.delete_module(&device, &module, &call.if_match()).await?;
    Ok(reply::no_content())
}

fn addressed(call: &Call) -> Result<(DeviceId, ModuleId), HubError> {
    let module = ModuleId::parse(call.target.segment(3)).map_err(|error| argument(error.to_string()))?;
    Ok((device_id(call.target.segment(1))?, module))
}
