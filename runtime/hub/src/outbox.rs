//! Events that are part of a commit: written with the change, appended to the log afterwards, exactly the committed ones.
//!
//! An event sits in the record of its device or module until it is in the log. A marker key, written in the same batch, lets a restart find
//! the records that still hold some. The event of a deletion cannot sit in the deleted record; it travels in the marker.
//! Appending twice is possible after a crash; both carry the same message key. What the log refuses is tried again in the
//! background.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use nave_log::{MAX_APPEND_BYTES, MessageKey, NewRecord, partition_of};
use nave_model::{DeviceRecord, FormatVersion, Identity, Json, OutboxEntry, Record};
use nave_routing::{MessageView, Outcome, Source, SystemProperties};
use nave_store::{CommitError, Expect, Guard, Put};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::telemetry::{RoutedTwin, log_failed, system, with_enrichments};
use crate::view;

/// Most events that may wait in one record. They wait only while the log refuses appends; a change that would add one more
/// is refused, because dropping the event would break "events are part of the commit".
pub const MAX_OUTBOX_ENTRIES: usize = 256;

/// Most bytes of bodies that may wait in one record besides the newest event: the record has to fit into the store.
const MAX_OUTBOX_BYTES: usize = 1 << 20;

/// Longest body of an event. A longer one goes without the twin's `$metadata`, which can be many times the twin; so every
/// event fits into a record of the log, with room for enrichments.
const MAX_EVENT_BYTES: usize = 512 << 10;

/// What a record of an event has besides its body, generously.
const EVENT_OVERHEAD_BYTES: usize = 1 << 10;

const _: () = assert!(
    MAX_OUTBOX_BYTES + 2 * MAX_EVENT_BYTES + (MAX_OUTBOX_ENTRIES + 3) * EVENT_OVERHEAD_BYTES <= MAX_APPEND_BYTES,
    "what waits in a record, its connection and the event of its deletion included, fits into one append"
);

/// How long after a refusal the log is tried again, first and at most: a short stop is not noticed, and a full disk does not
/// fill the hub's own log.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Markers looked at per step when a hub starts.
const RECOVERY_PAGE: usize = 500;

/// Outboxes emptied at the same time when a hub starts: their appends and commits share syncs, so that the start is not held
/// up by one sync after the other. Each holds the events of one device.
const RECOVERED_AT_ONCE: usize = 128;

/// An event about to be committed with a change.
pub(crate) struct Event {
    source: Source,
    op_type: &'static str,
    body: Json,
}

impl Event {
    pub(crate) fn created(record: &DeviceRecord) -> Self {
        Self::lifecycle("createDeviceIdentity", record)
    }

    pub(crate) fn deleted(record: &DeviceRecord) -> Self {
        Self::lifecycle("deleteDeviceIdentity", record)
    }

    pub(crate) fn twin_updated(body: Json) -> Self {
        Self { source: Source::TwinChangeEvents, op_type: "updateTwin", body: fitting(body) }
    }

    pub(crate) fn twin_replaced(body: Json) -> Self {
        Self { source: Source::TwinChangeEvents, op_type: "replaceTwin", body: fitting(body) }
    }

    pub(crate) const fn connection(connected: bool, body: Json) -> Self {
        let op_type = if connected { "deviceConnected" } else { "deviceDisconnected" };
        Self { source: Source::DeviceConnectionStateEvents, op_type, body }
    }

    fn lifecycle(op_type: &'static str, record: &DeviceRecord) -> Self {
        let body = Json::parse(view::lifecycle_json(record)).unwrap_or_default();
        Self { source: Source::DeviceLifecycleEvents, op_type, body: fitting(body) }
    }
}

/// Devices whose events the log refused, and who tries again.
#[derive(Default)]
pub(crate) struct Late {
    hub: OnceLock<Weak<Hub>>,
    waiting: Mutex<Waiting>,
}

impl Late {
    pub(crate) fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.get()?.upgrade()
    }
}

#[derive(Default)]
struct Waiting {
    identities: BTreeSet<Identity>,
    /// Whether a task takes care of them.
    tended: bool,
}

/// A record takes one event more as long as few wait in it.
///
/// # Errors
///
/// 503: the log has refused events for so long that the change has to wait.
pub(crate) fn check_outbox(record: &DeviceRecord) -> Result<(), HubError> {
    // There is at most one about the connection, and it is small.
    let connection = Source::DeviceConnectionStateEvents.as_str();
    let mut earlier = record.outbox.iter().filter(|entry| entry.source != connection).rev();
    let newest = usize::from(earlier.next().is_some());
    let (count, bytes) =
        earlier.fold((newest, 0), |(count, bytes), entry| (count + 1, bytes + entry.body.text().len()));
    if count > MAX_OUTBOX_ENTRIES || bytes > MAX_OUTBOX_BYTES { Err(events_wait()) } else { Ok(()) }
}

fn events_wait() -> HubError {
    let message = "Too many events of this device wait for the log: repeat the request later.";
    HubError::new(ErrorCode::ServiceUnavailable, message)
}

/// The body of an event as it is, or without `$metadata` if it is too long for the log.
fn fitting(body: Json) -> Json {
    if body.text().len() <= MAX_EVENT_BYTES {
        return body;
    }
    let without = body.value().ok().and_then(|mut value| {
        if let Some(properties) = value.get_mut("properties").and_then(Value::as_object_mut) {
            for section in properties.values_mut().filter_map(Value::as_object_mut) {
                section.remove("$metadata");
            }
        }
        Json::parse(value.to_string()).ok()
    });
    // The limits of twins leave nothing that is longer still; an empty object says at least that there was a change.
    without.filter(|body| body.text().len() <= MAX_EVENT_BYTES).unwrap_or_default()
}

/// The marker. It holds entries only for a device that no longer exists.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    v: FormatVersion,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<OutboxEntry>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    generation_id: String,
}

impl Record for Marker {}

impl Hub {
    /// Puts an event into `record` if somebody listens to its source. True if it did: then the marker belongs into the
    /// same commit.
    pub(crate) fn add_event(&self, record: &mut DeviceRecord, event: impl FnOnce(&DeviceRecord) -> Event) -> bool {
        let event = event(record);
        if !self.routes.read().listens(event.source) {
            return false;
        }
        record.outbox_count += 1;
        record.outbox.push(OutboxEntry {
            number: record.outbox_count,
            source: event.source.as_str().to_owned(),
            op_type: event.op_type.to_owned(),
            body: event.body,
            at: self.env.now(),
        });
        true
    }

    /// The marker that the record of `identity` holds events.
    pub(crate) fn outbox_marker(&self, identity: &Identity) -> Put {
        Put { key: self.keys.outbox(&identity.to_string()), value: Some(Bytes::from_static(b"{\"v\":1}")) }
    }

    /// Takes the events of a record that is about to be deleted, and `last`, into the marker.
    pub(crate) fn orphan_events(
        &self,
        record: &DeviceRecord,
        last: Event,
        puts: &mut Vec<Put>,
    ) -> Result<bool, HubError> {
        let identity = record.identity().map_err(HubError::internal)?;
        let mut record = record.clone();
        self.add_event(&mut record, |_| last);
        if record.outbox.is_empty() {
            return Ok(false);
        }
        let marker = Marker { v: FormatVersion, entries: record.outbox, generation_id: record.generation_id };
        puts.push(put(self.keys.outbox(&identity.to_string()), &marker)?);
        Ok(true)
    }

    /// Appends the waiting events of `device` to the log, then takes them out of the store. To be called within the device's
    /// lane. A failure is logged and made good in the background.
    pub(crate) async fn forward_events(&self, identity: &Identity) {
        if let Err(error) = self.try_forward(identity).await {
            tracing::warn!(hub = %self.id(), %identity, %error, "events wait in the outbox");
            self.forward_later(identity);
        }
    }

    /// Lets the hub try again by itself what the log refuses. Without it only the next event of the device or the next start
    /// does.
    pub(crate) fn retry_forwarding(self: &Arc<Self>) {
        // A second call changes nothing.
        let _ = self.late.hub.set(Arc::downgrade(self));
    }

    /// This hub, for tasks that must not keep it alive; `None` until [`Hub::retry_forwarding`].
    pub(crate) fn weak(&self) -> Option<Weak<Self>> {
        self.late.hub.get().map(Weak::clone)
    }

    /// Makes sure that the events of an earlier device of this id are in the log, before a new device takes the marker over.
    /// To be called within the device's lane.
    ///
    /// # Errors
    ///
    /// 503 while the log refuses them.
    pub(crate) async fn forward_orphans(&self, identity: &Identity) -> Result<(), HubError> {
        let marker = self.store.get(&self.keys.outbox(&identity.to_string())).await?;
        if marker.is_none() || self.load(identity).await?.is_some() {
            return Ok(());
        }
        self.try_forward(identity).await.map_err(|error| events_wait().with_detail(error))
    }

    fn forward_later(&self, identity: &Identity) {
        let Some(hub) = self.late.hub.get() else { return };
        let mut waiting = self.late.waiting.lock();
        waiting.identities.insert(identity.clone());
        if std::mem::replace(&mut waiting.tended, true) {
            return;
        }
        drop(waiting);
        let (hub, env) = (Weak::clone(hub), Arc::clone(&self.env));
        self.env.spawn(Box::pin(async move {
            let mut wait = RETRY_FIRST;
            loop {
                env.sleep(wait).await;
                let Some(hub) = hub.upgrade() else { return };
                match hub.forward_late().await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(hub = %hub.id(), %error, "events still wait in outboxes"),
                }
                wait = RETRY_MOST.min(wait * 2);
            }
        }));
    }

    /// Forwards the events of the devices that wait. While the log takes nothing, one failure stands for all.
    async fn forward_late(&self) -> Result<(), HubError> {
        let mut failure = None;
        let mut after = None;
        loop {
            let identity = {
                let mut waiting = self.late.waiting.lock();
                if waiting.identities.is_empty() {
                    waiting.tended = false;
                    return Ok(());
                }
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                match (waiting.identities.range::<Identity, _>((from, Bound::Unbounded)).next(), failure.take()) {
                    (Some(identity), earlier) => {
                        failure = earlier;
                        identity.clone()
                    }
                    (None, Some(failure)) => return Err(failure),
                    // Only those are left that came while this was under way.
                    (None, None) => {
                        after = None;
                        continue;
                    }
                }
            };
            let _lane = self.lanes.enter(&identity).await;
            match self.try_forward(&identity).await {
                // Within the lane: nobody has put it there again since.
                Ok(()) => drop(self.late.waiting.lock().identities.remove(&identity)),
                Err(error) if matches!(error.code.status(), 429 | 503) => return Err(error),
                Err(error) => failure = Some(error),
            }
            after = Some(identity);
        }
    }

    /// Appends what a crash left in outboxes. To be called once when the hub starts. What the log refuses now waits on and is
    /// tried again.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store cannot be read.
    pub async fn recover_outboxes(&self) -> Result<usize, HubError> {
        let prefix = self.keys.outboxes();
        let mut after = None;
        let mut recovered = 0;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), RECOVERY_PAGE).await?;
            let identities = page.iter().filter_map(|(key, _)| {
                let id = key.strip_prefix(&prefix).and_then(nave_model::unescape_key_part);
                id.and_then(|id| Identity::parse(&id).ok())
            });
            let identities: Vec<Identity> = identities.collect();
            recovered += identities.len();
            let forward = |identity: Identity| async move {
                let _lane = self.lanes.enter(&identity).await;
                self.forward_events(&identity).await;
            };
            stream::iter(identities).for_each_concurrent(RECOVERED_AT_ONCE, forward).await;
            match page.last() {
                Some((key, _)) if page.len() == RECOVERY_PAGE => after = Some(key.clone()),
                _ => return Ok(recovered),
            }
        }
    }

    async fn try_forward(&self, identity: &Identity) -> Result<(), HubError> {
        let marker_key = self.keys.outbox(&identity.to_string());
        let record_key = self.keys.identity(identity);
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let Some(entry) = self.store.get(&marker_key).await? else { return Ok(()) };
            let (marker, marker_revision) = decode::<Marker>(&entry)?;
            let record = self.load(identity).await?;
            let mut events = self.events_as_messages(identity, &marker.entries, &marker.generation_id, None);
            if let Some((record, _)) = &record {
                let more = self.events_as_messages(identity, &record.outbox, &record.generation_id, Some(record));
                events.extend(more);
            }
            let partition = partition_of(identity.device_id().as_str(), self.log.partitions());
            if !events.is_empty() {
                self.log.append(partition, events).await.map_err(log_failed)?;
            }
            let mut guards = vec![Guard { key: marker_key.clone(), expect: Expect::At(marker_revision) }];
            let mut puts = vec![Put { key: marker_key.clone(), value: None }];
            // Also that there is no record is guarded: one that appears now may hold events, which need the marker.
            let mut expect = Expect::Absent;
            if let Some((mut record, revision)) = record {
                record.outbox.clear();
                puts.push(put(record_key.clone(), &record)?);
                expect = Expect::At(revision);
            }
            guards.push(Guard { key: record_key.clone(), expect });
            match self.store.commit(guards, puts).await {
                Ok(_) => return Ok(()),
                // Another host changed the device: its events are looked at again, repeated ones carry their keys.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key: record_key, current: None }.into())
    }

    fn events_as_messages(
        &self,
        identity: &Identity,
        entries: &[OutboxEntry],
        generation: &str,
        record: Option<&DeviceRecord>,
    ) -> Vec<NewRecord> {
        let table = Arc::clone(&self.routes.read());
        let device = identity.device_id().as_str();
        let module = identity.module_id().map(|module| module.as_str());
        let name = identity.to_string();
        let entries = entries.iter().filter_map(|entry| {
            let source: Source = entry.source.parse().ok()?;
            let enqueued = entry.at.iso();
            let key = self.message_key(&name, generation, u64::MAX, entry.number);
            let correlation = correlation_id(&key);
            let properties: Vec<_> = [
                Some(("hubName", self.host_name().short().to_owned())),
                Some(("deviceId", device.to_owned())),
                module.map(|module| ("moduleId", module.to_owned())),
                Some(("operationTimestamp", with_offset(&enqueued))),
                Some(("iothub-message-schema", schema(source).to_owned())),
                Some(("opType", entry.op_type.clone())),
            ]
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
            let sections = record.map(RoutedTwin);
            let mut view = MessageView::new(source, entry.body.text().as_bytes())
                .with_system(SystemProperties {
                    content_type: Some("application/json"),
                    content_encoding: Some("utf-8"),
                    connection_device_id: Some(device),
                    connection_module_id: module,
                    enqueued_time: Some(&enqueued),
                    correlation_id: Some(&correlation),
                    user_id: Some(self.host_name().short()),
                    ..SystemProperties::default()
                })
                .with_application(&properties);
            if let Some(sections) = &sections {
                view = view.with_twin(sections);
            }
            let decision = table.decide(&view);
            if decision.outcome == Outcome::Orphaned {
                return None;
            }
            let system = [
                Some((system::CONTENT_TYPE, "application/json")),
                Some((system::CONTENT_ENCODING, "utf-8")),
                Some((system::CORRELATION_ID, correlation.as_str())),
                Some((system::USER_ID, self.host_name().short())),
                Some((system::DEVICE_ID, device)),
                module.map(|module| (system::MODULE_ID, module)),
            ];
            let system = system.into_iter().flatten();
            Some(NewRecord {
                key,
                source: log_source(source),
                device_id: device.to_owned(),
                module_id: module.map(str::to_owned),
                endpoints: decision.endpoints.iter().map(|endpoint| endpoint.as_str().to_owned()).collect(),
                system: system.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                properties: with_enrichments(properties.clone(), &decision),
                body: Bytes::copy_from_slice(entry.body.text().as_bytes()),
            })
        });
        entries.collect()
    }
}

/// A short text that is the same for every copy of an event: six bytes of its message key.
fn correlation_id(key: &MessageKey) -> String {
    key.0.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// A time as `operationTimestamp` has it: with the offset written out (protocol notes: routing §7).
fn with_offset(iso: &str) -> String {
    format!("{}+00:00", iso.trim_end_matches('Z'))
}

/// `iothub-message-schema` of each source (protocol notes: routing §7).
const fn schema(source: Source) -> &'static str {
    match source {
        Source::DeviceMessages => "deviceMessage",
        Source::TwinChangeEvents => "twinChangeNotification",
        Source::DeviceLifecycleEvents => "deviceLifecycleNotification",
        Source::DeviceConnectionStateEvents => "deviceConnectionStateNotification",
        Source::DeviceJobLifecycleEvents => "jobLifecycleNotification",
        Source::DigitalTwinChangeEvents => "digitalTwinChangeNotification",
    }
}

const fn log_source(source: Source) -> nave_log::Source {
    match source {
        Source::DeviceMessages => nave_log::Source::DeviceMessages,
        Source::TwinChangeEvents => nave_log::Source::TwinChangeEvents,
        Source::DeviceLifecycleEvents => nave_log::Source::DeviceLifecycleEvents,
        Source::DeviceConnectionStateEvents => nave_log::Source::DeviceConnectionStateEvents,
        Source::DeviceJobLifecycleEvents => nave_log::Source::DeviceJobLifecycleEvents,
        Source::DigitalTwinChangeEvents => nave_log::Source::DigitalTwinChangeEvents,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_the_log_would_refuse_goes_without_metadata() {
        let body = |metadata: &str| {
            let text = format!(
                r#"{{"deviceId":"d","properties":{{"desired":{{"x":1,"$metadata":{{"k":"{metadata}"}},"$version":2}}}}}}"#
            );
            Json::parse(text).unwrap()
        };
        let small = body("m");
        assert_eq!(fitting(small.clone()), small);
        let value = fitting(body(&"m".repeat(MAX_EVENT_BYTES))).value().unwrap();
        assert_eq!(value, serde_json::json!({"deviceId":"d","properties":{"desired":{"x":1,"$version":2}}}));
        let hopeless = Json::parse(format!("[\"{}\"]", "x".repeat(MAX_EVENT_BYTES))).unwrap();
        assert_eq!(fitting(hopeless).text(), "{}");
    }
}
