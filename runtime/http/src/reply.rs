//! Responses: what they have in common, and the form that errors have on each surface.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, ETAG, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use nave_env::Env;
use nave_hub::{ErrorCode, HubError, Platform};
use serde_json::{Value, json};

use crate::service::ResponseBody;

/// An answer on its way.
pub(crate) type Reply = Response<ResponseBody>;

/// Seconds after which a device or service may try again when the provisioning service is busy (protocol notes: limits §1);
/// the Java SDK takes 2 to 5.
const DPS_RETRY_AFTER_SECONDS: &str = "5";

/// The header with the code's name on hubs (protocol notes: REST §1.1).
pub(crate) const HUB_ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

/// The header with the code's name on the provisioning service (protocol notes: provisioning service §1).
const DPS_ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// The id of a request, in every response.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// The form of an error (protocol notes: limits §1, provisioning service §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `{"Message":"ErrorCode:NAME;TEXT","ExceptionMessage":"Tracking ID:…"}`: the registry, twins.
    Hub,
    /// The error object as text in `Message`: methods. `ExceptionMessage` stays empty, because the Java SDK joins both
    /// before it reads the number.
    Nested,
    /// The error object itself: the provisioning service.
    Dps,
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ResponseBody::Bytes(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    reply
}

/// 200 with a JSON body.
pub(crate) fn ok(body: &Value) -> Reply {
    json(StatusCode::OK, body.to_string())
}

/// 204.
pub(crate) fn no_content() -> Reply {
    let mut reply = Response::new(ResponseBody::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// The same response with an entity tag, which has its quotes already.
pub(crate) fn with_etag(reply: Reply, etag: &str) -> Reply {
    with_header(reply, ETAG, etag)
}

/// The same response with one more header. A value that no header can have is left out.
pub(crate) fn with_header(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// The same response with a new request id.
pub(crate) fn with_request_id(reply: Reply, env: &dyn Env) -> Reply {
    let mut bytes = [0; 16];
    env.fill_random(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let id = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        number >> 96,
        number >> 80 & 0xFFFF,
        number >> 64 & 0xFFFF,
        number >> 48 & 0xFFFF,
        number & 0xFFFF_FFFF_FFFF
    );
    with_header(reply, REQUEST_ID, &id)
}

/// An error's response. `what` names the request in the log, which gets the detail and the tracking id.
pub(crate) fn failure(style: Style, error: &HubError, what: &str, platform: &Platform) -> Reply {
    let env = &**platform.env();
    let error = &for_style(style, error);
    let (body, tracking_id) = body(style, error, env);
    if error.is_internal() {
        tracing::error!(request = ?what, tracking_id, %error, "request failed");
    } else if error.code.status() == 401 {
        platform.metrics().https_authentication_failures.increment();
        match platform.refusal() {
            Some(suppressed) => tracing::info!(request = ?what, tracking_id, %error, suppressed, "request refused"),
            None => tracing::debug!(request = ?what, tracking_id, %error, "request refused"),
        }
    } else {
        tracing::debug!(request = ?what, tracking_id, %error, "request answered with an error");
    }
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reply = json(status, body);
    let header = if style == Style::Dps { DPS_ERROR_CODE } else { HUB_ERROR_CODE };
    let reply = with_header(reply, header, error.code.name());
    if error.code.status() != 429 {
        return reply;
    }
    match style {
        Style::Dps => with_header(reply, RETRY_AFTER, DPS_RETRY_AFTER_SECONDS),
        // Hubs name no time, and end the connection (protocol notes: limits §1).
        Style::Hub | Style::Nested => with_header(reply, CONNECTION, "close"),
    }
}

fn body(style: Style, error: &HubError, env: &dyn Env) -> (String, String) {
    if style == Style::Hub {
        let tracking_id = HubError::tracking_id(env);
        let body = json!({
            "Message": format!("ErrorCode:{};{}", error.code.name(), error.message),
            "ExceptionMessage": format!("Tracking ID:{tracking_id}"),
        });
        return (body.to_string(), tracking_id);
    }
    let document = error.document(env);
    let tracking_id = document.get("trackingId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let body = match style {
        Style::Nested => json!({ "Message": document.to_string(), "ExceptionMessage": "" }),
        Style::Hub | Style::Dps => document,
    };
    (body.to_string(), tracking_id)
}

/// The provisioning service has one code for every kind of "not you" (protocol notes: provisioning devices §2.3).
fn for_style(style: Style, error: &HubError) -> HubError {
    let mut error = error.clone();
    if style == Style::Dps && error.code == ErrorCode::IotHubUnauthorized {
        error.code = ErrorCode::IotHubUnauthorizedAccess;
    }
    error
}
