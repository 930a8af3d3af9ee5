//! Events that are part of a commit: written with the change, appended to the log afterwards, exactly the committed ones.
//!
//! An event sits in its device's record until it is in the log. A marker key, written in the same batch, lets a restart find
//! the records that still hold some. The event of a deletion cannot sit in the deleted record; it travels in the marker.
//! Appending twice is possible after a crash; both carry the same message key.

use std::sync::Arc;

use bytes::Bytes;
use nave_log::{NewRecord, partition_of};
use nave_model::{DeviceId, DeviceRecord, FormatVersion, Json, OutboxEntry, Record};
use nave_routing::{MessageView, Outcome, Source, SystemProperties};
use nave_store::{CommitError, Expect, Guard, Put};
use serde::{Deserialize, Serialize};

use crate::error::HubError;
use crate::hub::{Hub, decode, put};
use crate::telemetry::{RoutedTwin, log_failed, system, with_enrichments};
use crate::view;

/// Most events that may wait in one record. They wait only while the log refuses appends; a change that would add one more
/// is refused, because dropping the event would break "events are part of the commit".
pub const MAX_OUTBOX_ENTRIES: usize = 256;

/// Markers looked at per step when a hub starts.
const RECOVERY_PAGE: usize = 500;

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

    pub(crate) const fn twin_updated(body: Json) -> Self {
        Self { source: Source::TwinChangeEvents, op_type: "updateTwin", body }
    }

    pub(crate) const fn twin_replaced(body: Json) -> Self {
        Self { source: Source::TwinChangeEvents, op_type: "replaceTwin", body }
    }

    fn lifecycle(op_type: &'static str, record: &DeviceRecord) -> Self {
        let body = Json::parse(view::twin_event_json(record)).unwrap_or_default();
        Self { source: Source::DeviceLifecycleEvents, op_type, body }
    }
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

    /// The marker that `device`'s record holds events.
    pub(crate) fn outbox_marker(&self, device: &DeviceId) -> Put {
        Put { key: self.keys.outbox(device.as_str()), value: Some(Bytes::from_static(b"{\"v\":1}")) }
    }

    /// Takes the events of a record that is about to be deleted, and `last`, into the marker.
    pub(crate) fn orphan_events(
        &self,
        record: &DeviceRecord,
        last: Event,
        puts: &mut Vec<Put>,
    ) -> Result<bool, HubError> {
        let mut record = record.clone();
        self.add_event(&mut record, |_| last);
        if record.outbox.is_empty() {
            return Ok(false);
        }
        let marker = Marker { v: FormatVersion, entries: record.outbox, generation_id: record.generation_id };
        puts.push(put(self.keys.outbox(&record.device_id), &marker)?);
        Ok(true)
    }

    /// Appends the waiting events of `device` to the log, then takes them out of the store. A failure is logged and made
    /// good by the next event of the device or the next start.
    pub(crate) async fn forward_events(&self, device: &DeviceId) {
        if let Err(error) = self.try_forward(device).await {
            tracing::warn!(hub = %self.id(), device = %device, %error, "events wait in the outbox");
        }
    }

    /// Appends what a crash left in outboxes. To be called once when the hub starts.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store or the log fails.
    pub async fn recover_outboxes(&self) -> Result<usize, HubError> {
        let prefix = self.keys.outboxes();
        let mut after = None;
        let mut recovered = 0;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), RECOVERY_PAGE).await?;
            for (key, _) in &page {
                let id = key.strip_prefix(&prefix).and_then(nave_model::unescape_key_part);
                let Some(device) = id.and_then(|id| DeviceId::parse(&id).ok()) else { continue };
                let _lane = self.lanes.enter(&device).await;
                self.try_forward(&device).await?;
                recovered += 1;
            }
            match page.last() {
                Some((key, _)) if page.len() == RECOVERY_PAGE => after = Some(key.clone()),
                _ => return Ok(recovered),
            }
        }
    }

    async fn try_forward(&self, device: &DeviceId) -> Result<(), HubError> {
        loop {
            let marker_key = self.keys.outbox(device.as_str());
            let Some(entry) = self.store.get(&marker_key).await? else { return Ok(()) };
            let (marker, marker_revision) = decode::<Marker>(&entry)?;
            let record = self.load(device).await?;
            let mut events = self.events_as_messages(device, &marker.entries, &marker.generation_id, None);
            if let Some((record, _)) = &record {
                let more = self.events_as_messages(device, &record.outbox, &record.generation_id, Some(record));
                events.extend(more);
            }
            if !events.is_empty() {
                let partition = partition_of(device.as_str(), self.log.partitions());
                self.log.append(partition, events).await.map_err(log_failed)?;
            }
            let mut guards = vec![Guard { key: marker_key.clone(), expect: Expect::At(marker_revision) }];
            let mut puts = vec![Put { key: marker_key, value: None }];
            if let Some((mut record, revision)) = record {
                let key = self.keys.device(device.as_str());
                record.outbox.clear();
                guards.push(Guard { key: key.clone(), expect: Expect::At(revision) });
                puts.push(put(key, &record)?);
            }
            match self.store.commit(guards, puts).await {
                Ok(_) => return Ok(()),
                // Another host changed the device: its events are looked at again, repeated ones carry their keys.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn events_as_messages(
        &self,
        device: &DeviceId,
        entries: &[OutboxEntry],
        generation: &str,
        record: Option<&DeviceRecord>,
    ) -> Vec<NewRecord> {
        let table = Arc::clone(&self.routes.read());
        let entries = entries.iter().filter_map(|entry| {
            let source: Source = entry.source.parse().ok()?;
            let properties = vec![
                ("hubName".to_owned(), self.host_name().short().to_owned()),
                ("deviceId".to_owned(), device.as_str().to_owned()),
                ("operationTimestamp".to_owned(), entry.at.iso()),
                ("iothub-message-schema".to_owned(), schema(source).to_owned()),
                ("opType".to_owned(), entry.op_type.clone()),
            ];
            let enqueued = entry.at.iso();
            let sections = record.map(RoutedTwin);
            let mut view = MessageView::new(source, entry.body.text().as_bytes())
                .with_system(SystemProperties {
                    content_type: Some("application/json"),
                    content_encoding: Some("utf-8"),
                    connection_device_id: Some(device.as_str()),
                    enqueued_time: Some(&enqueued),
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
            let key = self.message_key(device.as_str(), generation, u64::MAX, entry.number);
            let system = [
                (system::CONTENT_TYPE, "application/json"),
                (system::CONTENT_ENCODING, "utf-8"),
                (system::USER_ID, self.host_name().short()),
                (system::DEVICE_ID, device.as_str()),
            ];
            Some(NewRecord {
                key,
                source: log_source(source),
                device_id: device.as_str().to_owned(),
                module_id: None,
                endpoints: decision.endpoints.iter().map(|endpoint| endpoint.as_str().to_owned()).collect(),
                system: system.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
                properties: with_enrichments(properties.clone(), &decision),
                body: Bytes::copy_from_slice(entry.body.text().as_bytes()),
            })
        });
        entries.collect()
    }
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
