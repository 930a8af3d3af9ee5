//! Device-to-cloud messages: accepted, routed, made durable, and only then acknowledged.

use std::borrow::Cow;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use nave_env::Env;
use nave_log::{Encoded, Head, LogError, MessageKey, partition_of};
use nave_model::{DeviceRecord, Identity, Timestamp};
use nave_routing::{Decision, MessageView, Outcome, RouteTable, Source, SystemProperties, TwinSection, TwinSections};
use nave_trace::Carried;
use xxhash_rust::xxh3::xxh3_128;

use crate::connect::Authenticated;
use crate::error::{ErrorCode, HubError};
use crate::hub::Hub;
use crate::session::Session;
use crate::view;

/// Largest device-to-cloud message: body, values of system properties, names and values of application properties. Larger
/// ones end the connection (protocol notes: semantics §1).
pub const MAX_MESSAGE_BYTES: usize = 262_144;

/// What a record is expected to have besides its body; a wrong guess costs a copy.
const ESTIMATED_OVERHEAD: usize = 320;

/// Most messages of one request over HTTPS (Azure IoT Hub documentation, quotas).
pub const MAX_BATCH_MESSAGES: usize = 500;

/// Most messages that [`Hub::send_telemetry`] takes at once: one append.
pub const MAX_MESSAGES_AT_ONCE: usize = nave_log::MAX_APPEND_RECORDS;

/// A message as its sender made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// System properties that the sender may set, by the names of [`system`].
    pub system: Vec<(&'static str, String)>,
    /// Application properties in the order sent.
    pub properties: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// What the message's way through the hub is a part of, if that is traced.
    pub trace: Carried,
}

/// Names of system properties as they are stored: those of routing conditions where there is one.
pub mod system {
    /// Message id.
    pub const MESSAGE_ID: &str = "messageId";
    /// Correlation id.
    pub const CORRELATION_ID: &str = "correlationId";
    /// User id.
    pub const USER_ID: &str = "userId";
    /// Destination as the sender wrote it.
    pub const TO: &str = "to";
    /// Media type of the body.
    pub const CONTENT_TYPE: &str = "contentType";
    /// Character encoding of the body.
    pub const CONTENT_ENCODING: &str = "contentEncoding";
    /// Absolute expiry time.
    pub const EXPIRY: &str = "expiryTimeUtc";
    /// The feedback that the sender of a cloud-to-device message wants.
    pub const ACK: &str = "ack";
    /// Creation time as the sender wrote it.
    pub const CREATION_TIME: &str = "creationTimeUtc";
    /// Output of a module.
    pub const OUTPUT_NAME: &str = "outputName";
    /// Interface id of security messages.
    pub const INTERFACE_ID: &str = "interfaceId";
    /// Message schema.
    pub const MESSAGE_SCHEMA: &str = "messageSchema";
    /// Diagnostic id of distributed tracing.
    pub const DIAGNOSTIC_ID: &str = "diagnosticId";
    /// Context of distributed tracing.
    pub const DIAGNOSTIC_CONTEXT: &str = "diagnosticContext";
    /// Model of the device.
    pub const DATA_SCHEMA: &str = "dt-dataschema";
    /// Component of the model.
    pub const SUBJECT: &str = "dt-subject";
    /// Sending device.
    pub const DEVICE_ID: &str = "connectionDeviceId";
    /// Sending module.
    pub const MODULE_ID: &str = "connectionModuleId";
    /// Generation of the sending device.
    pub const GENERATION_ID: &str = "connectionDeviceGenerationId";
    /// How the sender authenticated.
    pub const AUTH_METHOD: &str = "connectionAuthMethod";
}

impl Message {
    fn size(&self) -> usize {
        let system: usize = self.system.iter().map(|(_, value)| value.len()).sum();
        let application: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + system + application
    }
}

impl Hub {
    /// Takes messages of one device in their order. It resolves once all of them are durable; then, and not before, they
    /// may be acknowledged.
    ///
    /// # Errors
    ///
    /// 413 if one is too large: then none is taken. 503 if the disk is full, 429 if the log is busy or the throttle refuses, 403 if
    /// the day's quota is used up, 401 if the session is over: then some may have been taken.
    pub async fn send_telemetry(&self, session: &Session, messages: Vec<Message>) -> Result<(), HubError> {
        if let Some(message) = messages.iter().find(|message| message.size() > MAX_MESSAGE_BYTES) {
            return Err(HubError::new(
                ErrorCode::MessageTooLarge,
                format!("A message has {} bytes; the limit is {MAX_MESSAGE_BYTES}.", message.size()),
            ));
        }
        // The device waits, not its messages: as long as they are not taken, its connection is not read.
        while let Some(room) = self.log.room() {
            room.await;
        }
        session.active(self.env.now());
        for messages in messages.chunks(self.throttle.part()) {
            self.throttle.messages(&self.env, &session.identity, messages).await?;
            if !session.is_open() {
                return Err(HubError::unauthorized().with_detail("the session is over"));
            }
            let first = session.number_messages(messages.len() as u64);
            self.take(&Origin::session(session), first, messages).await?;
        }
        Ok(())
    }

    /// Takes messages of a device that has no session, over HTTPS: all of them or none. It resolves once they are durable.
    ///
    /// # Errors
    ///
    /// 413 if together they are too large or too many: then none is taken. 503 if the disk is full, 429 if the log is busy.
    pub async fn send_batch(&self, who: &Authenticated, messages: &[Message]) -> Result<(), HubError> {
        let bytes: usize = messages.iter().map(Message::size).sum();
        if bytes > MAX_MESSAGE_BYTES || messages.len() > MAX_BATCH_MESSAGES {
            return Err(HubError::new(
                ErrorCode::MessageTooLarge,
                format!(
                    "{} message(s) of {bytes} bytes; the limit is {MAX_BATCH_MESSAGES} messages and {MAX_MESSAGE_BYTES} bytes together.",
                    messages.len()
                ),
            ));
        }
        while let Some(room) = self.log.room() {
            room.await;
        }
        self.note_activity(&who.identity);
        self.throttle.messages(&self.env, &who.identity, messages).await?;
        self.take(&Origin::request(who, &*self.env), 0, messages).await
    }

    /// Takes the message that a device left for the case that its connection ends without a goodbye. Its session is over.
    ///
    /// # Errors
    ///
    /// As [`Hub::send_telemetry`]. What the throttle or the quota refuses is lost, because nobody is there to send it again.
    pub async fn send_will(&self, session: &Session, will: Message) -> Result<(), HubError> {
        let passed = self.throttle.messages(&self.env, &session.identity, slice::from_ref(&will)).await;
        if let Err(error) = passed {
            tracing::info!(hub = %self.id(), device = %session.identity, %error, "a will message was refused");
            return Err(error);
        }
        let first = session.number_messages(1);
        self.take(&Origin::session(session), first, &[will]).await
    }

    async fn take(&self, origin: &Origin<'_>, first: u64, messages: &[Message]) -> Result<(), HubError> {
        let outcome = self.accept(origin, first, messages).await;
        let metrics = self.metrics();
        metrics.messages.count_many(&outcome, messages.len() as u64);
        if outcome.is_ok() {
            metrics.message_bytes.add(messages.iter().map(|message| message.body.len() as u64).sum());
        }
        outcome
    }

    async fn accept(&self, origin: &Origin<'_>, first: u64, messages: &[Message]) -> Result<(), HubError> {
        let now = self.env.now();
        let table = Arc::clone(&self.routes.read());
        let device = origin.identity.device_id().as_str();
        let twin = if table.needs_twin(Source::DeviceMessages) {
            self.load(origin.identity).await?.map(|(record, _)| record)
        } else {
            None
        };
        let size = messages.iter().map(|message| message.body.len() + ESTIMATED_OVERHEAD).sum();
        let mut records = Encoded::with_capacity(size);
        let identity = origin.identity.to_string();
        let mut stream = MessageStream::new(self.id().as_str(), &identity, origin.generation_id, origin.stream);
        for (message, number) in messages.iter().zip(first..) {
            let key = stream.key(number);
            Self::route_message(origin, &table, twin.as_ref(), message, key, now, &mut records)?;
        }
        if records.is_empty() {
            return Ok(());
        }
        let partition = partition_of(device, self.log.partitions());
        // One append for all of them; each trace sees it as its own.
        let _spans: Vec<_> = messages.iter().filter_map(|message| message.trace.within(nave_trace::append)).collect();
        self.log.append_encoded(partition, records).await.map_err(log_failed)?;
        Ok(())
    }

    /// Decides where a message goes and adds its record, unless nobody wants it.
    fn route_message(
        origin: &Origin<'_>,
        table: &RouteTable,
        twin: Option<&DeviceRecord>,
        message: &Message,
        key: MessageKey,
        now: Timestamp,
        records: &mut Encoded,
    ) -> Result<(), HubError> {
        let device = origin.identity.device_id().as_str();
        let module = origin.identity.module_id().map(|module| module.as_str());
        let enqueued = table.routes().next().is_some().then(|| now.iso());
        let view = MessageView::new(Source::DeviceMessages, &message.body)
            .with_system(SystemProperties {
                connection_device_id: Some(device),
                connection_module_id: module,
                connection_auth_method: Some(origin.auth_method),
                connection_device_generation_id: Some(origin.generation_id),
                enqueued_time: enqueued.as_deref(),
                dt_dataschema: origin.model_id,
                ..sender_properties(&message.system)
            })
            .with_application(&message.properties);
        let sections = twin.map(RoutedTwin);
        let decision = match &sections {
            Some(sections) => table.decide(&view.with_twin(sections)),
            None => table.decide(&view),
        };
        if decision.outcome == Outcome::Orphaned {
            return Ok(());
        }
        let of_connection = [
            Some((system::DEVICE_ID, device)),
            module.map(|module| (system::MODULE_ID, module)),
            Some((system::GENERATION_ID, origin.generation_id)),
            Some((system::AUTH_METHOD, origin.auth_method)),
            origin.model_id.map(|model| (system::DATA_SCHEMA, model)),
        ];
        let of_sender = message.system.iter().map(|(name, value)| (*name, value.as_str()));
        let of_application = message.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let added = decision.enrichments.iter().map(|enrichment| (enrichment.key.as_str(), enrichment.value.as_ref()));
        let head = Head { key, source: nave_log::Source::DeviceMessages, device_id: device, module_id: module };
        records
            .push(
                head,
                decision.endpoints.iter().map(|endpoint| endpoint.as_str()),
                of_connection.into_iter().flatten().chain(of_sender),
                of_application.chain(added),
                &message.body,
            )
            .map_err(log_failed)
    }

    /// The stable name of a message: the same for a repeated append, different for any other message.
    pub(crate) fn message_key(&self, identity: &str, generation: &str, stream: u64, number: u64) -> MessageKey {
        MessageStream::new(self.id().as_str(), identity, generation, stream).key(number)
    }
}

/// Who sends messages, as they carry it.
struct Origin<'a> {
    identity: &'a Identity,
    generation_id: &'a str,
    auth_method: &'a str,
    model_id: Option<&'a str>,
    /// Tells the messages of this sender from all others of the device: with their numbers it makes their keys.
    stream: u64,
}

impl<'a> Origin<'a> {
    fn session(session: &'a Session) -> Self {
        Self {
            identity: &session.identity,
            generation_id: &session.generation_id,
            auth_method: &session.auth_method,
            model_id: session.model_id.as_deref(),
            stream: session.epoch,
        }
    }

    /// A request is a stream of its own. Its random number has the highest bit, which no epoch reaches.
    fn request(who: &'a Authenticated, env: &dyn Env) -> Self {
        let mut random = [0; 8];
        env.fill_random(&mut random);
        Self {
            identity: &who.identity,
            generation_id: &who.generation_id,
            auth_method: &who.auth_method,
            model_id: None,
            // Not the largest of all, which is that of the device's events.
            stream: (u64::from_be_bytes(random) | 1 << 63) & !1,
        }
    }
}

/// Names the messages of one stream: those of a session or a request, or the events of a device.
struct MessageStream {
    text: Vec<u8>,
    prefix: usize,
}

impl MessageStream {
    fn new(hub: &str, identity: &str, generation: &str, stream: u64) -> Self {
        let mut text = Vec::with_capacity(128);
        for part in [hub, identity, generation] {
            text.extend_from_slice(part.as_bytes());
            text.push(0);
        }
        text.extend_from_slice(&stream.to_be_bytes());
        Self { prefix: text.len(), text }
    }

    fn key(&mut self, number: u64) -> MessageKey {
        self.text.truncate(self.prefix);
        self.text.extend_from_slice(&number.to_be_bytes());
        MessageKey(xxh3_128(&self.text).to_be_bytes())
    }
}

/// The twin of a device or module as conditions and enrichments read it: as services see it, and rendered only if they do.
pub(crate) struct RoutedTwin<'a>(pub(crate) &'a DeviceRecord);

impl TwinSections for RoutedTwin<'_> {
    fn section(&self, section: TwinSection) -> Option<Cow<'_, str>> {
        let twin = &self.0.twin;
        Some(match section {
            TwinSection::Tags => Cow::Borrowed(twin.tags.text()),
            TwinSection::Desired => Cow::Owned(view::section_json(&twin.desired)),
            TwinSection::Reported => Cow::Owned(view::section_json(&twin.reported)),
        })
    }
}

/// Application properties with what the hub adds. What differs by endpoint is resolved when endpoints of their own exist;
/// here every endpoint gets the same.
pub(crate) fn with_enrichments(mut properties: Vec<(String, String)>, decision: &Decision) -> Vec<(String, String)> {
    for enrichment in &decision.enrichments {
        properties.push((enrichment.key.as_str().to_owned(), enrichment.value.as_ref().to_owned()));
    }
    properties
}

pub(crate) fn log_failed(error: LogError) -> HubError {
    match error {
        LogError::Full => HubError::new(
            ErrorCode::ServiceUnavailable,
            "The hub's disk is full: the messages were not taken. Send them again when there is space.",
        )
        .with_detail("the log's disk is full"),
        LogError::Busy => HubError::new(
            ErrorCode::ThrottlingBacklogTimeout,
            "The hub takes no more messages at the moment: send them again later.",
        ),
        LogError::Stopped => HubError::new(ErrorCode::ServiceUnavailable, "The hub is stopping."),
        other => HubError::internal(other),
    }
}

fn sender_properties<'a>(properties: &'a [(&'static str, String)]) -> SystemProperties<'a> {
    let mut view = SystemProperties::default();
    for (name, value) in properties {
        let slot = match *name {
            system::CONTENT_TYPE => &mut view.content_type,
            system::CONTENT_ENCODING => &mut view.content_encoding,
            system::MESSAGE_ID => &mut view.message_id,
            system::CORRELATION_ID => &mut view.correlation_id,
            system::USER_ID => &mut view.user_id,
            system::SUBJECT => &mut view.dt_subject,
            _ => continue,
        };
        *slot = Some(value.as_str());
    }
    view
}
