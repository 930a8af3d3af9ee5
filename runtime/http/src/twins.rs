//! `/twins`: twins of devices and modules (protocol notes: REST §3).

use http::{Method, StatusCode};
use nave_hub::{Hub, HubError, TwinUpdate, TwinView};
use nave_model::{Identity, ModuleId};

use crate::call::{Call, argument, device_id, read_text};
use crate::reply::{self, Reply};
use crate::service::Body;

/// Longest body of a change of a twin, in bytes; a longer one is refused unread. A replacement may carry the whole twin as
/// it was read: tags and both sections with the metadata of every member.
pub const MAX_TWIN_BODY_BYTES: usize = 1 << 20;

/// `GET /twins/{id}`.
pub(crate) async fn get(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    Ok(twin(hub.get_twin(&addressed(call)?).await?))
}

/// `PATCH` and `PUT /twins/{id}`.
pub(crate) async fn update(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let identity = addressed(call)?;
    let kind = if call.method == Method::PUT { TwinUpdate::Replace } else { TwinUpdate::Patch };
    let condition = call.if_match();
    let body = read_text(body, MAX_TWIN_BODY_BYTES).await?;
    Ok(twin(hub.update_twin(&identity, kind, &body, &condition).await?))
}

/// The device or module of `/twins/{device}[/modules/{module}]…`.
pub(crate) fn addressed(call: &Call) -> Result<Identity, HubError> {
    let segments = call.target.segments();
    let device = device_id(call.target.segment(1))?;
    let module = match segments.as_slice() {
        [_, _, word, module, ..] if word.eq_ignore_ascii_case("modules") => {
            Some(ModuleId::parse(module).map_err(|error| argument(error.to_string()))?)
        }
        _ => None,
    };
    Ok(Identity::new(device, module))
}

fn twin(view: TwinView) -> Reply {
    reply::with_etag(reply::json(StatusCode::OK, view.json), &view.etag.header())
}
