//! A device's registration with the provisioning service over MQTT.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nave_env::{BoxFuture, SharedEnv};
use nave_hub::provisioning::{Attempt, Credentials, MAX_REGISTRATION_BYTES, Operation, operation_json};
use nave_hub::{ErrorCode, HubError, Platform, Provisioning};
use nave_model::SecretText;
use nave_mqtt::connect::DpsUsername;
use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Delivery, Login, PacketId, QoS, SubAckCode};
use nave_mqtt::session::{Event, Flow, ServerSession};
use nave_mqtt::topic::{DpsPublish, ToClient, dps_filter, dps_publish};
use serde_json::Value;
use tracing::Span;

use crate::hub::violation;
use crate::message;
use crate::protocol::{CloseReason, PeerFacts};

/// How long an answer to the Java SDK is held back: it loses one that arrives in the instant of its request (protocol notes:
/// Java SDKs, DPS; 20 ms were never lost). Other clients get theirs at once.
pub const ANSWER_DELAY: Duration = Duration::from_millis(20);

/// Most requests of one connection under way; reading stops there. SDKs have one.
const MAX_REQUESTS_IN_FLIGHT: usize = 4;

/// A connection to the provisioning service. The CONNECT is accepted before the enrollment is looked for, as in the cloud
/// service: the answer to the registration tells the device more than a refused CONNECT could.
pub(crate) struct DpsSide {
    env: SharedEnv,
    service: Arc<Provisioning>,
    registration_id: String,
    api_version: Option<String>,
    /// [`ANSWER_DELAY`] for those that need it.
    answer_delay: Option<Duration>,
    credentials: Credentials,
    subscribed: Option<QoS>,
    requests: FuturesUnordered<BoxFuture<Answer>>,
    /// The operation that the device was told of last.
    operation: Option<String>,
    authenticated: bool,
}

struct Answer {
    rid: String,
    ack: Option<PacketId>,
    /// Whether the client is only told that the operation was accepted.
    accepted_only: bool,
    result: Result<Operation, HubError>,
}

impl DpsSide {
    pub(crate) fn new(
        platform: &Platform,
        service: &Arc<Provisioning>,
        peer: &Arc<PeerFacts>,
        connect: &Connect<'_>,
        login: Login<'_>,
    ) -> Result<Self, String> {
        let username = DpsUsername::parse(login.username).map_err(|error| error.to_string())?;
        if !username.matches_client_id(connect.client_id) {
            return Err("the client id is not the registration id of the user name".to_owned());
        }
        let password = login.password.unwrap_or_default();
        let token = std::str::from_utf8(password).map_err(|_| "the password is not text".to_owned())?;
        Ok(Self {
            env: Arc::clone(platform.env()),
            service: Arc::clone(service),
            registration_id: username.registration_id.to_owned(),
            answer_delay: is_java(&username).then_some(ANSWER_DELAY),
            api_version: username.api_version.map(Cow::into_owned),
            credentials: Credentials {
                token: (!token.is_empty()).then(|| SecretText::new(token.to_owned())),
                certificates: peer.certificates.clone(),
                peer: Some(peer.address.ip()),
            },
            subscribed: None,
            requests: FuturesUnordered::new(),
            operation: None,
            authenticated: false,
        })
    }

    pub(crate) fn registration_id(&self) -> &str {
        &self.registration_id
    }

    pub(crate) const fn authenticated(&self) -> bool {
        self.authenticated
    }

    /// No request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.requests.len() < MAX_REQUESTS_IN_FLIGHT
    }

    pub(crate) fn handle(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Result<Flow, CloseReason> {
        match event {
            Event::Publish { topic, payload, ack, .. } => self.publish(topic, payload, ack)?,
            Event::Subscribe { packet_id, filters } => {
                let codes: Vec<SubAckCode> = filters
                    .map(|subscription| match dps_filter(subscription.filter) {
                        Ok(()) => {
                            let qos =
                                if subscription.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                            self.subscribed = Some(qos);
                            SubAckCode::Granted(qos)
                        }
                        Err(_) => SubAckCode::Refused,
                    })
                    .collect();
                encode::sub_ack(out, packet_id, &codes).map_err(violation)?;
            }
            Event::Unsubscribe { packet_id, filters } => {
                if { filters }.any(|filter| dps_filter(filter).is_ok()) {
                    self.subscribed = None;
                }
                encode::unsub_ack(out, packet_id);
            }
            Event::PubAck(_) | Event::Connect(_) | Event::Disconnect => {}
        }
        let busy = !self.wants_input() || out.len() >= crate::MAX_UNWRITTEN_BYTES;
        Ok(if busy { Flow::Pause } else { Flow::Continue })
    }

    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mqtt: &mut ServerSession,
        out: &mut Vec<u8>,
    ) -> Option<CloseReason> {
        while let Poll::Ready(Some(answer)) = self.requests.poll_next_unpin(context) {
            self.authenticated |= answer.result.is_ok();
            if let Ok(operation) = &answer.result {
                self.operation = Some(operation.id.clone());
            }
            if mqtt.is_open() {
                self.answer(answer, mqtt, out);
            }
        }
        None
    }

    fn publish(&mut self, topic: &str, payload: &[u8], ack: Option<PacketId>) -> Result<(), CloseReason> {
        if payload.len() > MAX_REGISTRATION_BYTES {
            return Err(CloseReason::Violation(
                format!("a registration message has more than {MAX_REGISTRATION_BYTES} bytes").into(),
            ));
        }
        match dps_publish(topic).map_err(violation)? {
            DpsPublish::Register { rid } => {
                let attempt = self.attempt(payload);
                let service = Arc::clone(&self.service);
                let accepted_only = self.service.answers_later();
                self.request("register", rid, ack, accepted_only, async move { service.register(attempt?).await });
            }
            DpsPublish::OperationStatus { rid, operation_id } => {
                let (service, id) = (Arc::clone(&self.service), self.registration_id.clone());
                let (operation, credentials) = (operation_id.to_owned(), self.credentials.clone());
                let own = self.operation.as_deref() == Some(operation_id);
                self.request("registration_status", rid, ack, false, async move {
                    match own {
                        true => service.operation_of_connection(&id, &operation, &credentials).await,
                        false => service.operation(&id, &operation, &credentials).await,
                    }
                });
            }
        }
        Ok(())
    }

    fn request(
        &self,
        operation: &'static str,
        rid: &str,
        ack: Option<PacketId>,
        accepted_only: bool,
        work: impl Future<Output = Result<Operation, HubError>> + Send + 'static,
    ) {
        let delay = self.answer_delay.map(|delay| self.env.sleep(delay));
        let rid = rid.to_owned();
        let work = async move { work.await.inspect_err(|error| nave_trace::failed(error.code.name())) };
        let (listener, session) = self.trace(operation);
        // The outer one too, because a span ends when it was left last.
        let work = nave_trace::within(listener, nave_trace::within(session, Box::pin(work)));
        self.requests.push(Box::pin(async move {
            let result = work.await;
            if let Some(delay) = delay {
                delay.await;
            }
            Answer { rid, ack, accepted_only, result }
        }));
    }

    /// The first two spans of a request, if it is to be traced.
    fn trace(&self, operation: &'static str) -> (Span, Span) {
        let listener = nave_trace::listener("mqtt", None);
        if listener.is_disabled() {
            return (listener, Span::none());
        }
        let scope = self.service.id_scope().as_str();
        let session = listener.in_scope(|| nave_trace::session(operation, scope, &self.registration_id));
        (listener, session)
    }

    /// Reads the registration message. An empty one is what the .NET SDK sends without a payload.
    fn attempt(&self, body: &[u8]) -> Result<Attempt, HubError> {
        let argument = |message: String| HubError::new(ErrorCode::ArgumentInvalid, message);
        let document: Value = if body.trim_ascii().is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_slice(body).map_err(|error| argument(format!("The body is not JSON: {error}.")))?
        };
        Attempt::from_document(
            &self.registration_id,
            &document,
            self.credentials.clone(),
            false,
            self.api_version.clone(),
        )
    }

    /// The acknowledgement comes before the answer, and the answer has QoS 1 if that was granted: the .NET SDK waits for
    /// the one and acknowledges the other.
    fn answer(&self, answer: Answer, mqtt: &mut ServerSession, out: &mut Vec<u8>) {
        if let Some(ack) = answer.ack {
            encode::pub_ack(out, ack);
        }
        let Some(qos) = self.subscribed else { return };
        let (status, retry_after, body) = match answer.result {
            Ok(operation) => {
                let pending = answer.accepted_only || operation.retry_after.is_some();
                let retry_after =
                    pending.then(|| operation.retry_after.unwrap_or(nave_hub::provisioning::RETRY_AFTER_SECONDS));
                let body = operation_json(&operation, answer.accepted_only).to_string();
                (if pending { 202 } else { 200 }, retry_after, message::ascii(&body))
            }
            Err(error) => {
                tracing::info!(registration = %self.registration_id, %error, "registration refused");
                let retry_after = (error.code.status() == 429).then_some(nave_hub::provisioning::RETRY_AFTER_SECONDS);
                (error.code.status(), retry_after, message::error_body(&error, &*self.env))
            }
        };
        let topic = ToClient::DpsResponse { status, rid: &answer.rid, retry_after };
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            _ => Delivery::AtLeastOnce { packet_id: mqtt.next_packet_id(), dup: false },
        };
        if let Err(error) = encode::publish(out, &topic, &body, delivery, false) {
            tracing::error!(%topic, %error, "an answer to a device cannot be encoded");
        }
    }
}

/// Whether the Java SDK is speaking: it writes the api-version where its own name belongs (protocol notes: provisioning §3.1);
/// its first releases wrote their package.
fn is_java(username: &DpsUsername<'_>) -> bool {
    username.agent.as_deref().is_some_and(|agent| {
        username.api_version.as_deref() == Some(agent) || agent.starts_with("com.microsoft.azure.sdk.iot")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_java_has_to_wait() {
        let waits =
            |parameters: &str| is_java(&DpsUsername::parse(&format!("0ne1/registrations/reg/{parameters}")).unwrap());
        assert!(waits("api-version=2019-03-31&ClientVersion=2019-03-31"));
        assert!(waits(
            "api-version=2019-03-31&ClientVersion=com.microsoft.azure.sdk.iot.dps.dps-device-client%2F1.8.0"
        ));
        assert!(!waits("api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0"));
        assert!(!waits("api-version=2019-03-31"));
        assert!(!waits(""));
    }
}
