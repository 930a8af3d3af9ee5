//! A device's session with its hub: telemetry, twin and methods over MQTT.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nave_auth::CLOCK_SKEW;
use nave_env::{BoxFuture, Moment, SharedEnv};
use nave_hub::{
    CloseReason as HubClose, ConnectOptions, Connected, ErrorCode, Hub, HubError, KnownTwin, Mailbox, Message,
    Platform, Presented, Session, Subscriptions, ToDevice,
};
use nave_model::{HubId, Identity};
use nave_mqtt::bag::{MESSAGE_TYPE_PROPERTY, WILL_MESSAGE_TYPE};
use nave_mqtt::connect::HubUsername;
use nave_mqtt::encode;
use nave_mqtt::packet::{
    Connect, Delivery, Filters, Login, PacketId, QoS, SubAckCode, Subscriptions as Filtered, Will,
};
use nave_mqtt::session::{Event, Flow, ServerSession};
use nave_mqtt::topic::{Client, Feature, HubPublish, ToClient, hub_filter, hub_publish};
use nave_trace::{Carried, Parent};
use tracing::Span;

use crate::device_bound::DeviceBoundMessages;
use crate::inbox::Inbox;
use crate::message;
use crate::protocol::{CloseReason, PeerFacts};

/// Most telemetry bytes (topics, bodies, the model's id and [`MESSAGE_OVERHEAD_BYTES`] for each message) of one connection that
/// are not durable yet; reading stops there, and the client's window closes.
pub const MAX_UNACKNOWLEDGED_BYTES: usize = 1 << 20;

/// What a message counts besides what its sender wrote: about the memory of its properties. It also bounds the number of messages, so that
/// those of one batch fit into one append however small they are: 1 MiB of them, and those of the read that went beyond.
pub const MESSAGE_OVERHEAD_BYTES: usize = 640;

/// The shortest PUBLISH of telemetry: header, length, and `devices/{id}/messages/events/` with an id of one character.
const SHORTEST_TELEMETRY: usize = 30;

/// The longest read that a driver hands over (see [`crate::protocol::Protocol::receive`]).
const LONGEST_READ: usize = 64 << 10;

const _: () = assert!(
    MAX_UNACKNOWLEDGED_BYTES / MESSAGE_OVERHEAD_BYTES + LONGEST_READ / SHORTEST_TELEMETRY
        < nave_hub::MAX_MESSAGES_AT_ONCE,
    "a batch fits into one append"
);

/// Most twin requests of one connection under way; reading stops there.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 32;

/// Most subscriptions of one connection (Azure IoT Hub documentation); the SDKs need at most five.
pub const MAX_SUBSCRIPTIONS: u32 = 5;

/// Longest model id: that of a DTMI (Digital Twins Definition Language). It is stored with every message of the connection; a
/// longer one is refused.
pub const MAX_MODEL_ID_BYTES: usize = 2_048;

/// Times that credentials are checked again because the device's record changed meanwhile.
const MAX_AUTHENTICATIONS: u32 = 5;

/// A CONNECT to a hub, read and not yet checked.
pub(crate) struct HubLogin {
    env: SharedEnv,
    hub: Arc<Hub>,
    peer: Arc<PeerFacts>,
    identity: Identity,
    token: Option<String>,
    persistent: bool,
    versioned: bool,
    model_id: Option<String>,
    will: Option<Box<Message>>,
}

impl HubLogin {
    pub(crate) fn read(
        platform: &Platform,
        hub: &Arc<Hub>,
        peer: &Arc<PeerFacts>,
        connect: &Connect<'_>,
        login: Login<'_>,
    ) -> Result<Self, String> {
        let username = HubUsername::parse(login.username).map_err(|error| error.to_string())?;
        if !username.matches_client_id(connect.client_id) {
            return Err("the client id is not that of the user name".to_owned());
        }
        let identity = Identity::parse(connect.client_id).map_err(|error| error.to_string())?;
        if username.model_id.as_ref().is_some_and(|model| model.len() > MAX_MODEL_ID_BYTES) {
            return Err(format!("the model id has more than {MAX_MODEL_ID_BYTES} bytes"));
        }
        let will = connect.will.map(|will| read_will(&identity, &will)).transpose()?;
        let password = login.password.unwrap_or_default();
        let token = match std::str::from_utf8(password) {
            Ok("") => None,
            Ok(token) => Some(token.to_owned()),
            Err(_) => return Err("the password is not text".to_owned()),
        };
        Ok(Self {
            env: Arc::clone(platform.env()),
            hub: Arc::clone(hub),
            peer: Arc::clone(peer),
            identity,
            token,
            persistent: !connect.clean_session,
            versioned: username.api_version.is_some(),
            model_id: username.model_id.map(std::borrow::Cow::into_owned),
            will,
        })
    }

    /// Who the client says it is.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Checks the credentials and takes over the device's session. The flag says whether subscriptions are live again.
    pub(crate) async fn connect(self) -> Result<(HubSide, bool), HubError> {
        let hub = Arc::clone(&self.hub);
        let outcome = self.log_in().await;
        hub.metrics().connects.count(&outcome);
        outcome
    }

    async fn log_in(self) -> Result<(HubSide, bool), HubError> {
        let presented = Presented { token: self.token.as_deref(), certificates: &self.peer.certificates };
        for _ in 0..MAX_AUTHENTICATIONS {
            let who = self.hub.authenticate(&self.identity, presented, &[]).await?;
            let inbox = Arc::new(Inbox::default());
            let options = ConnectOptions {
                persistent: self.persistent,
                model_id: self.model_id.clone(),
                mailbox: Arc::clone(&inbox) as Arc<dyn Mailbox>,
            };
            if let Connected::Session { session, resumed } = self.hub.connect(&who, options).await? {
                let now = self.env.now();
                // A token that is accepted in spite of its time, because clocks differ, lasts to the end of the allowance.
                let end = who.expires.map(|expires| if expires > now { expires } else { expires.after(CLOCK_SKEW) });
                let mut device_bound = DeviceBoundMessages::default();
                // Messages that waited for a persistent session come without a new SUBSCRIBE.
                device_bound.wake();
                let side = HubSide {
                    expires: end.map(|end| self.env.monotonic().after(end.since(now))),
                    wanted: session.subscriptions(),
                    env: self.env,
                    hub: self.hub,
                    session,
                    inbox,
                    versioned: self.versioned,
                    model_bytes: self.model_id.as_ref().map_or(0, String::len),
                    collected: Batch::default(),
                    sending: None,
                    requests: None,
                    requests_in_flight: 0,
                    subscribing: None,
                    sub_acks: Vec::new(),
                    will: self.will,
                    device_bound,
                };
                return Ok((side, resumed));
            }
        }
        Err(HubError::new(ErrorCode::ThrottlingBacklogTimeout, "The device changes too often to be connected."))
    }
}

/// The session of a connected device.
pub(crate) struct HubSide {
    env: SharedEnv,
    hub: Arc<Hub>,
    session: Arc<Session>,
    inbox: Arc<Inbox>,
    expires: Option<Moment>,
    /// Twin requests need an api-version in the user name (protocol notes: MQTT §2.2).
    versioned: bool,
    /// Length of the model's id, which goes with every message.
    model_bytes: usize,
    /// Telemetry that waits for the batch before it.
    collected: Batch,
    /// The batch under way, what to acknowledge when it is durable, and its bytes.
    sending: Option<(Outcome, Vec<PacketId>, usize)>,
    requests: Option<Box<FuturesUnordered<BoxFuture<Answer>>>>,
    requests_in_flight: usize,
    /// What the client asked to be subscribed to.
    wanted: Subscriptions,
    /// The change of subscriptions under way, and the answers to send after it.
    subscribing: Option<(Outcome, Vec<u8>)>,
    /// SUBACKs and UNSUBACKs that wait until what they grant is on disk.
    sub_acks: Vec<u8>,
    /// What to send on the device's behalf when its connection ends without DISCONNECT.
    will: Option<Box<Message>>,
    device_bound: DeviceBoundMessages,
}

/// Work that succeeds or fails.
type Outcome = BoxFuture<Result<(), HubError>>;

#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    acks: Vec<PacketId>,
    bytes: usize,
}

/// The outcome of a twin request.
struct Answer {
    ack: Option<PacketId>,
    rid: Option<String>,
    result: Result<TwinAnswer, HubError>,
}

enum TwinAnswer {
    Twin(String),
    Version(u64),
}

impl HubSide {
    pub(crate) fn hub_id(&self) -> &HubId {
        self.hub.id()
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.session.identity()
    }

    pub(crate) const fn expires(&self) -> Option<Moment> {
        self.expires
    }

    /// Nothing that was accepted is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.sending.is_none()
            && self.collected.messages.is_empty()
            && self.requests_in_flight == 0
            && self.subscribing.is_none()
            && self.device_bound.is_idle()
    }

    pub(crate) fn wants_input(&self) -> bool {
        let sending = self.sending.as_ref().map_or(0, |(_, _, bytes)| *bytes);
        self.collected.bytes + sending < MAX_UNACKNOWLEDGED_BYTES && self.takes_requests()
    }

    /// The device said goodbye: its will is void.
    pub(crate) fn goodbye(&mut self) {
        self.will = None;
    }

    /// The connection is gone. The will, if there still is one, follows the messages before it.
    pub(crate) fn disconnected(&mut self) {
        self.device_bound.disconnected(&self.hub, &self.session);
        self.hub.disconnected(&self.session);
        let Some(will) = self.will.take() else { return };
        let (hub, session) = (Arc::clone(&self.hub), Arc::clone(&self.session));
        let earlier = self.sending.take();
        self.sending = Some((
            Box::pin(async move {
                if let Some((earlier, ..)) = earlier {
                    earlier.await?;
                }
                hub.send_will(&session, *will).await
            }),
            Vec::new(),
            0,
        ));
    }

    /// Whether another request may begin.
    pub(crate) const fn takes_requests(&self) -> bool {
        self.requests_in_flight < MAX_REQUESTS_IN_FLIGHT
    }

    /// There is room for output again.
    pub(crate) fn resume(&self) {
        self.inbox.resume(self.device_bound.is_stalled());
    }

    /// Takes a packet. An error closes the connection.
    pub(crate) fn handle(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Result<Flow, CloseReason> {
        match event {
            Event::Publish { topic, payload, ack, retain, .. } => self.publish(topic, payload, ack, retain, out)?,
            Event::Subscribe { packet_id, filters } => self.subscribe(packet_id, filters),
            Event::Unsubscribe { packet_id, filters } => self.unsubscribe(packet_id, filters),
            Event::PubAck(packet_id) => self.device_bound.acknowledge(packet_id),
            Event::Connect(_) | Event::Disconnect => {}
        }
        // One read may bring thousands of requests, and each answer may be as large as a twin.
        let busy = !self.takes_requests() || out.len() >= crate::MAX_UNWRITTEN_BYTES;
        Ok(if busy { Flow::Pause } else { Flow::Continue })
    }

    /// Drives what is under way. A reason means that the session is over.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mqtt: &mut ServerSession,
        out: &mut Vec<u8>,
    ) -> Option<CloseReason> {
        self.inbox.register(context.waker());
        let over = self.inbox.closed().map(close_reason);
        if !mqtt.is_open() {
            drop(self.inbox.take());
        } else if out.len() < crate::MAX_UNWRITTEN_BYTES {
            // What a device does not read stays in the inbox, which has a bound and ends the session there.
            self.inbox.take().into_iter().for_each(|message| deliver(message, out));
        }
        let sent = self.poll_sending(context, out);
        self.poll_requests(context, mqtt, out);
        let subscribed = self.poll_subscribing(context, out);
        if self.inbox.take_device_bound() {
            self.device_bound.wake();
        }
        let exchanged = self.device_bound.poll(context, &self.hub, &self.session, mqtt, out);
        over.or(sent).or(subscribed).or(exchanged)
    }

    fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        ack: Option<PacketId>,
        retain: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), CloseReason> {
        let publish = hub_publish(client(self.session.identity()), topic).map_err(violation)?;
        match publish {
            HubPublish::Telemetry { bag } => {
                let mut message = message::telemetry(bag, payload, retain).map_err(violation)?;
                let (listener, session) = self.trace("telemetry", message::parent(&message));
                message.trace = Carried::new(listener, session);
                self.collected.bytes += topic.len() + payload.len() + self.model_bytes + MESSAGE_OVERHEAD_BYTES;
                self.collected.messages.push(message);
                self.collected.acks.extend(ack);
            }
            HubPublish::TwinGet { rid, since } => {
                let (hub, session, versioned) = (Arc::clone(&self.hub), Arc::clone(&self.session), self.versioned);
                let rid = Some(rid.to_owned());
                let known = since.map(|since| KnownTwin { version: since.version, lineage: since.lineage.to_owned() });
                self.request("twin_get", async move {
                    let result = match versioned {
                        true => hub.device_twin(&session, known.as_ref()).await.map(TwinAnswer::Twin),
                        false => Err(unversioned()),
                    };
                    Answer { ack, rid, result }
                });
            }
            HubPublish::TwinPatch { rid, version } => {
                let (hub, session, versioned) = (Arc::clone(&self.hub), Arc::clone(&self.session), self.versioned);
                let rid = rid.map(str::to_owned);
                let patch = String::from_utf8(payload.to_vec());
                self.request("twin_patch", async move {
                    let result = match patch {
                        _ if !versioned => Err(unversioned()),
                        Ok(patch) => hub.report(&session, &patch, version).await.map(TwinAnswer::Version),
                        Err(_) => Err(HubError::new(ErrorCode::ArgumentInvalid, "The patch is not UTF-8.")),
                    };
                    Answer { ack, rid, result }
                });
            }
            HubPublish::MethodResponse { status, rid } => {
                if let Ok(request) = rid.parse() {
                    self.session.answer_method(request, status, payload);
                }
                if let Some(ack) = ack {
                    encode::pub_ack(out, ack);
                }
            }
            HubPublish::IssueCertificate { rid } => {
                let error = HubError::new(
                    ErrorCode::InvalidOperation,
                    "Certificates are not issued by this hub: renew the device's certificate at its own authority.",
                );
                let body = message::error_body(&error, &*self.env);
                if let Some(ack) = ack {
                    encode::pub_ack(out, ack);
                }
                send(out, &ToClient::CredentialsResponse { status: error.code.status(), rid }, &body);
            }
        }
        Ok(())
    }

    fn request(&mut self, operation: &'static str, request: impl Future<Output = Answer> + Send + 'static) {
        self.requests_in_flight += 1;
        let (listener, session) = self.trace(operation, None);
        let work: BoxFuture<Answer> = Box::pin(async move {
            let answer = request.await;
            if let Err(error) = &answer.result {
                nave_trace::failed(error.code.name());
            }
            answer
        });
        // The outer one too, because a span ends when it was left last.
        let work = nave_trace::within(listener, nave_trace::within(session, work));
        self.requests.get_or_insert_default().push(work);
    }

    /// The first two spans of what the device asks for, if that is to be traced.
    fn trace(&self, operation: &'static str, parent: Option<Parent>) -> (Span, Span) {
        let listener = nave_trace::listener("mqtt", parent.as_ref());
        if listener.is_disabled() {
            return (listener, Span::none());
        }
        let device = self.identity().to_string();
        let session = listener.in_scope(|| nave_trace::session(operation, self.hub_id().as_str(), &device));
        (listener, session)
    }

    fn subscribe(&mut self, packet_id: PacketId, filters: Filtered<'_>) {
        let codes: Vec<SubAckCode> =
            filters.map(|subscription| self.grant(subscription.filter, subscription.qos)).collect();
        if let Err(error) = encode::sub_ack(&mut self.sub_acks, packet_id, &codes) {
            tracing::error!(%error, "a SUBACK cannot be encoded");
        }
    }

    fn grant(&mut self, filter: &str, qos: QoS) -> SubAckCode {
        let Ok(feature) = hub_filter(client(self.session.identity()), filter) else { return SubAckCode::Refused };
        let mut wanted = self.wanted.with(subscription(feature));
        if wanted.without(Subscriptions::AT_MOST_ONCE).bits().count_ones() > MAX_SUBSCRIPTIONS {
            return SubAckCode::Refused;
        }
        if feature == Feature::CloudToDevice {
            wanted = match qos {
                QoS::AtMostOnce => wanted.with(Subscriptions::AT_MOST_ONCE),
                _ => wanted.without(Subscriptions::AT_MOST_ONCE),
            };
            self.device_bound.wake();
        }
        self.wanted = wanted;
        SubAckCode::Granted(if qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce })
    }

    fn unsubscribe(&mut self, packet_id: PacketId, filters: Filters<'_>) {
        for filter in filters {
            if let Ok(feature) = hub_filter(client(self.session.identity()), filter) {
                self.wanted = self.wanted.without(subscription(feature));
                if feature == Feature::CloudToDevice {
                    self.wanted = self.wanted.without(Subscriptions::AT_MOST_ONCE);
                }
            }
        }
        encode::unsub_ack(&mut self.sub_acks, packet_id);
    }

    /// One batch of telemetry is under way at a time; what comes meanwhile is the next.
    fn poll_sending(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Option<CloseReason> {
        loop {
            if let Some((sending, acks, _)) = &mut self.sending {
                let Poll::Ready(result) = sending.as_mut().poll(context) else { return None };
                let acks = std::mem::take(acks);
                self.sending = None;
                match result {
                    Ok(()) => {
                        self.hub.metrics().acknowledgements.add(acks.len() as u64);
                        encode::pub_acks(out, acks);
                    }
                    Err(error) => {
                        self.collected = Batch::default();
                        return Some(telemetry_failed(&error));
                    }
                }
            }
            if self.collected.messages.is_empty() {
                return None;
            }
            let batch = std::mem::take(&mut self.collected);
            let (hub, session) = (Arc::clone(&self.hub), Arc::clone(&self.session));
            let sending = Box::pin(async move { hub.send_telemetry(&session, batch.messages).await });
            self.sending = Some((sending, batch.acks, batch.bytes));
        }
    }

    fn poll_requests(&mut self, context: &mut Context<'_>, mqtt: &ServerSession, out: &mut Vec<u8>) {
        let Some(mut requests) = self.requests.take() else { return };
        while let Poll::Ready(Some(answer)) = requests.poll_next_unpin(context) {
            if mqtt.is_open() {
                self.answer(answer, out);
            }
        }
        self.requests_in_flight = requests.len();
        if !requests.is_empty() {
            self.requests = Some(requests);
        }
    }

    fn answer(&self, answer: Answer, out: &mut Vec<u8>) {
        if let Some(ack) = answer.ack {
            encode::pub_ack(out, ack);
        }
        if let Some(error) = answer.result.as_ref().err().filter(|error| error.is_internal()) {
            tracing::error!(hub = %self.hub_id(), device = %self.identity(), %error, "a twin request failed");
        }
        let Some(rid) = answer.rid else { return };
        if !self.wanted.contains(Subscriptions::TWIN_RESPONSES) {
            return;
        }
        match answer.result {
            Ok(TwinAnswer::Twin(twin)) => {
                send(out, &ToClient::TwinResponse { status: 200, rid: &rid, version: None }, twin.as_bytes());
            }
            Ok(TwinAnswer::Version(version)) => {
                send(out, &ToClient::TwinResponse { status: 204, rid: &rid, version: Some(version) }, b"");
            }
            Err(error) => {
                let body = message::error_body(&error, &*self.env);
                send(out, &ToClient::TwinResponse { status: error.code.status(), rid: &rid, version: None }, &body);
            }
        }
    }

    fn poll_subscribing(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Option<CloseReason> {
        loop {
            if let Some((subscribing, acks)) = &mut self.subscribing {
                let Poll::Ready(result) = subscribing.as_mut().poll(context) else { return None };
                let acks = std::mem::take(acks);
                self.subscribing = None;
                match result {
                    Ok(()) => out.extend_from_slice(&acks),
                    Err(error) => return Some(CloseReason::Internal(error.to_string().into())),
                }
            }
            if self.sub_acks.is_empty() {
                return None;
            }
            let acks = std::mem::take(&mut self.sub_acks);
            if self.wanted == self.session.subscriptions() {
                out.extend_from_slice(&acks);
                return None;
            }
            let (hub, session, wanted) = (Arc::clone(&self.hub), Arc::clone(&self.session), self.wanted);
            let subscribing: Pin<Box<_>> = Box::pin(async move { hub.subscribe(&session, wanted).await });
            self.subscribing = Some((subscribing, acks));
        }
    }
}

/// Also after a panic inside the connection, of which nobody is told, the device is no longer connected.
impl Drop for HubSide {
    fn drop(&mut self) {
        self.hub.disconnected(&self.session);
    }
}

/// A will is telemetry with a sign that it is one (Azure IoT Hub documentation, MQTT support); its QoS 2 is taken for 1.
fn read_will(identity: &Identity, will: &Will<'_>) -> Result<Box<Message>, String> {
    let Ok(HubPublish::Telemetry { bag }) = hub_publish(client(identity), will.topic) else {
        return Err("the will's topic is not that of the device's messages".to_owned());
    };
    let mut message = message::telemetry(bag, will.payload, will.retain).map_err(|error| error.to_string())?;
    message.properties.push((MESSAGE_TYPE_PROPERTY.to_owned(), WILL_MESSAGE_TYPE.to_owned()));
    Ok(Box::new(message))
}

fn client(identity: &Identity) -> Client<'_> {
    Client { device: identity.device_id().as_str(), module: identity.module_id().map(|module| module.as_str()) }
}

fn deliver(message: ToDevice, out: &mut Vec<u8>) {
    match message {
        ToDevice::Method { request, name, payload } => {
            send(out, &ToClient::Method { name: &name, rid: request }, payload.as_bytes());
        }
        ToDevice::Desired { version, payload } => {
            send(out, &ToClient::TwinDesired { version }, payload.as_bytes());
        }
        // The inbox keeps them apart.
        ToDevice::MessagesWait | ToDevice::Close(_) => {}
    }
}

/// Twin answers, notifications and method calls go with QoS 0, whatever was granted (protocol notes: MQTT §3).
pub(crate) fn send(out: &mut Vec<u8>, topic: &ToClient<'_>, payload: &[u8]) {
    if let Err(error) = encode::publish(out, topic, payload, Delivery::AtMostOnce, false) {
        tracing::error!(%topic, %error, "a message to a device cannot be encoded");
    }
}

const fn subscription(feature: Feature) -> Subscriptions {
    match feature {
        Feature::Methods => Subscriptions::METHODS,
        Feature::TwinResponses => Subscriptions::TWIN_RESPONSES,
        Feature::TwinDesired => Subscriptions::TWIN_DESIRED,
        Feature::CloudToDevice | Feature::ModuleDeviceBound => Subscriptions::CLOUD_TO_DEVICE,
        Feature::ModuleInputs => Subscriptions::MODULE_INPUTS,
        Feature::Credentials => Subscriptions::CREDENTIALS,
    }
}

pub(crate) fn violation(error: impl std::fmt::Display) -> CloseReason {
    CloseReason::Violation(error.to_string().into())
}

fn unversioned() -> HubError {
    HubError::new(ErrorCode::InvalidProtocolVersion, "The user name of CONNECT has no api-version, which twins need.")
}

/// Over MQTT there is no negative acknowledgement: the connection ends, and the client sends again.
fn telemetry_failed(error: &HubError) -> CloseReason {
    match error.code.status() {
        413 => CloseReason::Violation(error.message.clone().into()),
        401 => CloseReason::Superseded,
        429 => CloseReason::Overload("messages that wait for the log"),
        _ => CloseReason::Internal(error.to_string().into()),
    }
}

const fn close_reason(reason: HubClose) -> CloseReason {
    match reason {
        HubClose::Displaced => CloseReason::Superseded,
        HubClose::Disabled | HubClose::Deleted | HubClose::CredentialsChanged => CloseReason::Revoked,
        HubClose::TokenExpired => CloseReason::Expired,
        HubClose::Overflow => CloseReason::Overload("messages that the device does not take"),
        HubClose::Shutdown => CloseReason::Shutdown,
    }
}
