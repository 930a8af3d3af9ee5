//! Devices over HTTPS: `POST /devices/{id}/messages/events`, and what they take out of their queues at
//! `/devices/{id}/messages/devicebound` (protocol notes: device HTTPS §2, §3).
//!
//! Each request proves by itself who sends it: by a token, or by the client certificate of the connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG};
use nave_auth::percent_decode;
use nave_hub::{
    Authenticated, ErrorCode, Hub, HubError, MAX_MESSAGE_BYTES, Message, Presented, Received, Settlement, system,
};
use nave_model::{Identity, ModuleId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::{Call, argument, device_id, parse_json, read_bytes, read_text};
use crate::message_headers::{self, Property};
use crate::reply::{self, Reply};
use crate::service::{Body, ResponseBody};

/// Longest body of a batch, in bytes; a longer one is refused unread: 256 KB of messages in base64, and room for the names
/// around them. How large the messages are is measured when they are decoded.
pub const MAX_BATCH_BODY_BYTES: usize = 512 << 10;

/// Media type of a batch.
const BATCH: &str = "application/vnd.microsoft.iothub.json";

/// `POST /devices/{id}/messages/events` and `…/modules/{id}/messages/events`.
pub(crate) async fn send(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let identity = sender(call)?;
    let who = authenticate(hub, call, &identity, &["messages", "events"]).await?;
    let messages = match is_batch(call) {
        true => batch(&read_text(body, MAX_BATCH_BODY_BYTES).await?)?,
        false => vec![single(call, &identity, read_bytes(body, MAX_MESSAGE_BYTES).await?)?],
    };
    hub.send_batch(&who, &messages).await?;
    Ok(reply::no_content())
}

/// `GET /devices/{id}/messages/devicebound`.
pub(crate) async fn receive(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    let who = queue_owner(hub, call).await?;
    Ok(hub.receive_message(&who).await?.map_or_else(reply::no_content, message))
}

/// `DELETE /devices/{id}/messages/devicebound/{lockToken}`, and with `reject` in the query.
pub(crate) async fn complete(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    // The Java SDK puts a second question mark before the word (protocol notes: device HTTPS §3.2).
    let reject = ["reject", "?reject"].into_iter().find_map(|name| call.target.parameter(name));
    let reject = reject.is_some_and(|value| !value.eq_ignore_ascii_case("false"));
    settle(hub, call, if reject { Settlement::Reject } else { Settlement::Complete }).await
}

/// `POST /devices/{id}/messages/devicebound/{lockToken}/abandon`. A body is not read: Java sends one byte.
pub(crate) async fn abandon(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    settle(hub, call, Settlement::Abandon).await
}

/// `If-Match` repeats the token in several forms; the path says it as well, and that is what counts.
async fn settle(hub: &Hub, call: &Call, settlement: Settlement) -> Result<Reply, HubError> {
    let who = queue_owner(hub, call).await?;
    hub.settle_message(&who, call.target.segment(4), settlement).await?;
    Ok(reply::no_content())
}

async fn queue_owner(hub: &Hub, call: &Call) -> Result<Authenticated, HubError> {
    let identity = Identity::device(device_id(call.target.segment(1))?);
    authenticate(hub, call, &identity, &["messages", "devicebound"]).await
}

async fn authenticate(
    hub: &Hub,
    call: &Call,
    identity: &Identity,
    operation: &[&str],
) -> Result<Authenticated, HubError> {
    let presented = Presented { token: call.token(), certificates: call.peer.certificates() };
    hub.authenticate(identity, presented, operation).await
}

/// The device or module of `/devices/{device}[/modules/{module}]/messages/events`.
fn sender(call: &Call) -> Result<Identity, HubError> {
    let device = device_id(call.target.segment(1))?;
    let module = match call.target.segment(2).eq_ignore_ascii_case("modules") {
        true => Some(ModuleId::parse(call.target.segment(3)).map_err(|error| argument(error.to_string()))?),
        false => None,
    };
    Ok(Identity::new(device, module))
}

fn is_batch(call: &Call) -> bool {
    let kind = call.header(CONTENT_TYPE).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(BATCH)
}

/// A message whose properties are headers and whose body is the request's.
fn single(call: &Call, identity: &Identity, body: Bytes) -> Result<Message, HubError> {
    let mut message = Message { body, ..Message::default() };
    let module = identity.module_id().map_or_else(String::new, |module| format!("/modules/{module}"));
    let path = format!("/devices/{}{module}/messages/events", identity.device_id());
    for property in message_headers::properties(&call.headers)? {
        match property {
            // Where the request goes anyway; every client says it.
            Property::System(system::TO, to) if percent_decode(&to).is_some_and(|to| to == path) => {}
            property => add(&mut message, property),
        }
    }
    Ok(message)
}

/// One message of a batch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    body: String,
    #[serde(default = "yes")]
    base64_encoded: bool,
    #[serde(default)]
    properties: Option<Map<String, Value>>,
}

const fn yes() -> bool {
    true
}

pub(crate) fn batch(text: &str) -> Result<Vec<Message>, HubError> {
    if !text.trim_start().starts_with('[') {
        return Err(HubError::new(ErrorCode::IotHubFormatError, "A batch is a JSON array of messages."));
    }
    let items: Vec<Item> = parse_json(text)?;
    if items.is_empty() {
        return Err(argument("A batch has at least one message."));
    }
    items.into_iter().enumerate().map(|(position, item)| item.into_message(position)).collect()
}

impl Item {
    fn into_message(self, position: usize) -> Result<Message, HubError> {
        let body = match self.base64_encoded {
            false => self.body.into_bytes(),
            true => STANDARD.decode(&self.body).map_err(|_| {
                argument(format!(
                    "The body of message {position} of the batch is not base64; say \"base64Encoded\":false for text."
                ))
            })?,
        };
        let mut message = Message { body: body.into(), ..Message::default() };
        for (name, value) in self.properties.unwrap_or_default() {
            let text = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => return Err(argument(format!("A property of message {position} of the batch is no text."))),
            };
            if let Some(property) = message_headers::property(&name, &text) {
                add(&mut message, property);
            }
        }
        Ok(message)
    }
}

fn add(message: &mut Message, property: Property) {
    match property {
        // Telemetry is acknowledged to nobody but its sender.
        Property::System(system::ACK, _) => {}
        Property::System(name, value) => message.system.push((name, value)),
        Property::Application(name, value) => message.properties.push((name, value)),
    }
}

fn message(received: Received) -> Reply {
    let mut reply = Reply::new(ResponseBody::Bytes(received.message.body));
    *reply.status_mut() = StatusCode::OK;
    let headers = reply.headers_mut();
    // In quotes: C insists on them, Node cuts the first and the last character off (protocol notes: device HTTPS §3.1).
    message_headers::add(headers, ETAG.as_str(), &format!("\"{}\"", received.lock_token));
    message_headers::add(headers, "iothub-messagelocktoken", &received.lock_token);
    message_headers::add(headers, "iothub-sequencenumber", &received.sequence.to_string());
    message_headers::add(headers, "iothub-enqueuedtime", &received.enqueued.iso());
    message_headers::add(headers, "iothub-deliverycount", &received.deliveries.to_string());
    let pairs = |list: &[(String, String)]| -> Vec<(String, String)> { list.to_vec() };
    let (system, application) = (pairs(&received.message.system), pairs(&received.message.properties));
    message_headers::write(
        headers,
        system.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        application.iter().map(|(name, value)| (name.as_str(), value.as_str())),
    );
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_two_encodings() {
        let messages = batch(
            r#" [{"body":"aGk="}, {"body":"hi","base64Encoded":false,"properties":{"iothub-app-Level":"1","iothub-messageid":"m",
                "iothub-app-n":2,"iothub-app-none":null,"other":"x","dt-subject":"pump"}}, {}]"#,
        )
        .unwrap();
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(messages.iter().map(|message| &*message.body).collect::<Vec<_>>(), [b"hi".as_slice(), b"hi", b""]);
        assert_eq!(messages[1].properties, [text("Level", "1"), text("n", "2"), text("none", "")]);
        assert_eq!(messages[1].system, [("messageId", "m".to_owned()), ("dt-subject", "pump".to_owned())]);
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        for (text, code) in [
            ("[]", ErrorCode::ArgumentInvalid),
            ("{}", ErrorCode::IotHubFormatError),
            ("", ErrorCode::IotHubFormatError),
            ("[1]", ErrorCode::ArgumentInvalid),
            (r#"[{"body":"%"}]"#, ErrorCode::ArgumentInvalid),
            (r#"[{"body":1}]"#, ErrorCode::ArgumentInvalid),
            (r#"[{"body":"","properties":{"iothub-app-a":{}}}]"#, ErrorCode::ArgumentInvalid),
            (r#"[{"body":""}"#, ErrorCode::IotHubFormatError),
        ] {
            assert_eq!(batch(text).unwrap_err().code, code, "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever is sent is a batch or an error, and the bodies of a batch are those that were sent.
        #[test]
        fn any_text_is_a_batch_or_not(text in "\\[?[\\[\\]{}:,\"a-d0-9=]{0,40}|.{0,40}") {
            drop(batch(&text));
        }

        #[test]
        fn bodies_come_as_they_were_sent(bodies in proptest::collection::vec((".{0,20}", proptest::bool::ANY), 1..5)) {
            let items: Vec<Value> = bodies
                .iter()
                .map(|(text, encoded)| match encoded {
                    true => serde_json::json!({ "body": STANDARD.encode(text) }),
                    false => serde_json::json!({ "body": text, "base64Encoded": false }),
                })
                .collect();
            let messages = batch(&Value::Array(items).to_string()).unwrap();
            let read: Vec<&[u8]> = messages.iter().map(|message| &*message.body).collect();
            let sent: Vec<&[u8]> = bodies.iter().map(|(text, _)| text.as_bytes()).collect();
            proptest::prop_assert_eq!(read, sent);
        }
    }
}
