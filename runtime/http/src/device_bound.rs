//! Cloud-to-device messages on behalf of services: sending, emptying a queue, feedback (protocol notes: REST §2.1, §9).
//!
//! The cloud service takes messages over AMQP only; it once had this request, and nothing public says what it looked like. Here
//! it mirrors what a device receives over HTTPS: the body is the message's, properties are headers.

use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use nave_hub::{CloudToDevice, Hub, HubError, MAX_DEVICE_BOUND_BYTES, system};
use nave_model::Ack;
use serde_json::json;

use crate::call::{Call, argument, device_id, read_bytes};
use crate::message_headers::{self, Property};
use crate::reply::{self, Reply};
use crate::service::Body;

/// Media type of feedback (protocol notes: service AMQP §4.3).
const FEEDBACK: HeaderValue = HeaderValue::from_static("application/vnd.microsoft.iothub.feedback.json");

/// `POST /devices/{id}/messages/deviceBound`: 204, with the message's id as `iothub-messageid`.
pub(crate) async fn send(hub: &Hub, call: &Call, body: Body) -> Result<Reply, HubError> {
    let device = device_id(call.target.segment(1))?;
    let mut message = CloudToDevice::default();
    for property in message_headers::properties(&call.headers)? {
        match property {
            Property::System(system::MESSAGE_ID, id) => message.message_id = Some(id),
            Property::System(system::EXPIRY, text) => {
                message.expires = Some(message_headers::time("iothub-expiry", &text)?);
            }
            Property::System(system::ACK, word) => {
                let refused = || argument("The header iothub-ack is none of none, positive, negative, full.");
                message.ack = Ack::parse(&word).ok_or_else(refused)?;
            }
            Property::System(
                name @ (system::CORRELATION_ID
                | system::USER_ID
                | system::TO
                | system::CONTENT_TYPE
                | system::CONTENT_ENCODING),
                value,
            ) => message.system.push((name, value)),
            // Nothing that a device gets to see (protocol notes: MQTT §5.2).
            Property::System(..) => {}
            Property::Application(name, value) => message.properties.push((name, value)),
        }
    }
    message.body = read_bytes(body, MAX_DEVICE_BOUND_BYTES).await?;
    let id = hub.send_to_device(&device, message).await?;
    let mut reply = reply::no_content();
    message_headers::add(reply.headers_mut(), "iothub-messageid", &id);
    Ok(reply)
}

/// `DELETE /devices/{id}/commands`.
pub(crate) async fn purge(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    let device = device_id(call.target.segment(1))?;
    let purged = hub.purge_queue(&device).await?;
    Ok(reply::ok(&json!({ "totalMessagesPurged": purged, "deviceId": device.as_str(), "moduleId": null })))
}

/// `GET /messages/serviceBound/feedback`: what there is now, up to 64 records; 204 if there is nothing.
pub(crate) async fn feedback(hub: &Hub) -> Result<Reply, HubError> {
    let Some(batch) = hub.receive_feedback().await? else { return Ok(reply::no_content()) };
    let mut reply = reply::json(StatusCode::OK, batch.json);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, FEEDBACK);
    message_headers::add(headers, ETAG.as_str(), &format!("\"{}\"", batch.lock_token));
    message_headers::add(headers, "iothub-messagelocktoken", &batch.lock_token);
    message_headers::add(headers, "iothub-userid", hub.host_name().short());
    message_headers::add(headers, "iothub-sequencenumber", &batch.number.to_string());
    message_headers::add(headers, "iothub-enqueuedtime", &batch.created.iso());
    message_headers::add(headers, "iothub-deliverycount", &batch.deliveries.to_string());
    Ok(reply)
}

/// `DELETE /messages/serviceBound/feedback/{lockToken}`. Rejecting removes as well, so the query does not count.
pub(crate) async fn complete_feedback(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    hub.complete_feedback(call.target.segment(3)).await?;
    Ok(reply::no_content())
}

/// `POST /messages/serviceBound/feedback/{lockToken}/abandon`.
pub(crate) async fn abandon_feedback(hub: &Hub, call: &Call) -> Result<Reply, HubError> {
    hub.abandon_feedback(call.target.segment(3)).await?;
    Ok(reply::no_content())
}
