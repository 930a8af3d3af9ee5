//! `POST /devices`: many changes of the registry at once (protocol notes: REST §2.5).

use http::{HeaderName, StatusCode};
use nave_hub::audit::Outcome;
use nave_hub::throttle::Operation;
use nave_hub::{BulkChange, ErrorCode, Hub, HubError, check_bulk};
use nave_model::Identity;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::call::{Call, parse_json, parse_object, read_text};
use crate::identity_document::Item;
use crate::reply::{self, HUB_ERROR_CODE, Reply};
use crate::service::Body;

/// Longest body, in bytes; a longer one is refused unread: a hundred identities with all members and twins of middle size.
pub const MAX_REGISTRY_BODY_BYTES: usize = 4 << 20;

/// The header without which the .NET SDK does not read the result of a request that failed in part.
const DOTNET_ERROR_CODE: HeaderName = HeaderName::from_static("iothuberrorcode");

/// Carries out what can be carried out, and says what could not: 200 if that is nothing, else 400.
pub(crate) async fn change(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let text = read_text(body, MAX_REGISTRY_BODY_BYTES).await?;
    let elements: Vec<&RawValue> = if text.trim_start().starts_with('[') {
        parse_json(&text)?
    } else {
        return Err(HubError::new(ErrorCode::IotHubFormatError, "The body is not a JSON array."));
    };
    let mut report = Report::default();
    let (mut changes, mut named): (Vec<BulkChange>, Vec<(Named, String)>) = (Vec::new(), Vec::new());
    check_bulk(elements.len(), std::iter::empty())?;
    hub.pass(Operation::Registry, elements.len() as u64).await?;
    for element in elements {
        let (name, change) = read(element);
        match change {
            Ok(change) => {
                named.push((name, path(&change.identity)));
                changes.push(change);
            }
            Err(error) => report.add(&name, &error),
        }
    }
    let outcomes = hub.bulk(&changes).await?;
    for ((name, path), outcome) in named.iter().zip(outcomes) {
        let ended = outcome.as_ref().map_or_else(Outcome::from, |()| Outcome::Done(StatusCode::OK.as_u16()));
        call.record_part(hub.id().as_str(), &name.operation, path, ended);
        if let Err(error) = outcome {
            report.add(name, &error);
        }
    }
    Ok(report.reply())
}

/// The path at which an identity can be changed by itself: its name in the audit records.
fn path(identity: &Identity) -> String {
    let device = identity.device_id();
    match identity.module_id() {
        None => format!("/devices/{device}"),
        Some(module) => format!("/devices/{device}/modules/{module}"),
    }
}

/// How the result names an element.
#[derive(Default)]
pub(crate) struct Named {
    device: String,
    module: String,
    operation: String,
}

pub(crate) fn read(element: &RawValue) -> (Named, Result<BulkChange, HubError>) {
    let value: Value = parse_json(element.get()).unwrap_or_default();
    let text = |member: &str| value.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let named = Named { device: text("id"), module: text("moduleId"), operation: text("importMode") };
    let item = parse_object::<Item<'_>>(element.get());
    (named, item.and_then(|item| item.identity().and_then(|identity| item.into_change(identity))))
}

/// What went wrong.
#[derive(Default)]
struct Report(Vec<Value>);

impl Report {
    fn add(&mut self, named: &Named, error: &HubError) {
        if error.is_internal() {
            tracing::error!(device = ?named.device, module = ?named.module, %error, "a change of a bulk request failed");
        }
        self.0.push(json!({
            "deviceId": named.device,
            "moduleId": named.module,
            "errorCode": error.code.name(),
            "errorStatus": error.message,
            "operation": named.operation,
        }));
    }

    fn reply(self) -> Reply {
        let successful = self.0.is_empty();
        let body = json!({ "isSuccessful": successful, "errors": self.0, "warnings": [] }).to_string();
        if successful {
            return reply::json(StatusCode::OK, body);
        }
        let code = ErrorCode::BulkRegistryOperationFailure.name();
        let reply = reply::with_header(reply::json(StatusCode::BAD_REQUEST, body), HUB_ERROR_CODE, code);
        reply::with_header(reply, DOTNET_ERROR_CODE, code)
    }
}
