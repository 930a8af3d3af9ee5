//! Twins: read, change by the service, change by the device.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nave_engine::twin::{
    Condition, Event as TwinEvent, Part, Rejection, ReportRequest, Section, State, Tags, UpdateKind, UpdateRequest,
};
use nave_model::{DeviceRecord, Identity, IfMatch, Json, SectionRecord, SessionRecord, TwinEtag, TwinRecord};
use nave_routing::Source;

use crate::bus::{HostId, HostMessage};
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, decode};
use crate::outbox::Event;
use crate::session::{Session, Subscriptions, ToDevice};
use crate::throttle::Operation;
use crate::view;

/// A twin to be shown to a service.
#[derive(Clone, Debug)]
pub struct TwinView {
    /// The JSON form.
    pub json: String,
    /// Its entity tag.
    pub etag: TwinEtag,
}

/// What a device knows of its desired properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTwin {
    /// The `$version` that it saw last.
    pub version: u64,
    /// The lineage that it was told with a twin. It says whose versions these are: a device that was deleted and created
    /// again, and one that was restored from a backup, count from where they began.
    pub lineage: String,
}

/// How a service changes a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwinUpdate {
    /// Merge the named members.
    Patch,
    /// Replace tags and desired properties.
    Replace,
}

impl Hub {
    /// The twin of a device, as services see it.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::DeviceNotFound`].
    pub async fn get_twin(&self, identity: &Identity) -> Result<TwinView, HubError> {
        let outcome = self.read_twin(identity).await;
        self.metrics().twin_reads.count(&outcome);
        outcome
    }

    async fn read_twin(&self, identity: &Identity) -> Result<TwinView, HubError> {
        let (record, _) = self.require(identity).await?;
        self.show_twin(identity, &record).await
    }

    /// Changes tags and desired properties on behalf of a service, and tells the device.
    ///
    /// # Errors
    ///
    /// 404; 412 if `condition` does not hold; 400 with the rule that `body` breaks.
    pub async fn update_twin(
        &self,
        identity: &Identity,
        kind: TwinUpdate,
        body: &str,
        condition: &IfMatch,
    ) -> Result<TwinView, HubError> {
        let outcome = self.change_twin(identity, kind, body, condition).await;
        self.metrics().twin_updates.count(&outcome);
        outcome
    }

    async fn change_twin(
        &self,
        identity: &Identity,
        kind: TwinUpdate,
        body: &str,
        condition: &IfMatch,
    ) -> Result<TwinView, HubError> {
        let condition = match condition {
            IfMatch::None | IfMatch::Any => Condition::Unconditional,
            IfMatch::Tag(tag) => TwinEtag::parse(tag).map_or(Condition::Never, |tag| Condition::Etag(tag.counter())),
        };
        let now = self.env.now();
        let listened = self.routes.read().listens(Source::TwinChangeEvents);
        let _lane = self.lanes.enter(identity).await;
        let (record, notification) = self
            .change(identity, None, |record| {
                let twin = &record.twin;
                let request = UpdateRequest {
                    tags: Tags { json: twin.tags.text().to_owned(), size: twin.tags_size },
                    desired: section(&twin.desired),
                    version: twin.version,
                    etag: twin.etag,
                    kind: match kind {
                        TwinUpdate::Patch => UpdateKind::Patch,
                        TwinUpdate::Replace => UpdateKind::Replace,
                    },
                    body_json: body.to_owned(),
                    condition,
                    unix_nanos: now.unix_nanos(),
                    emit_event: listened,
                };
                let outcome = self.functions.update_twin(&request)?.map_err(rejected_by_service)?;
                if let Some(tags) = outcome.tags {
                    record.twin.tags = json(tags.json)?;
                    record.twin.tags_size = tags.size;
                }
                if let Some(desired) = outcome.desired {
                    record.twin.desired = section_record(desired)?;
                }
                record.twin.version = outcome.version;
                record.twin.etag = outcome.etag;
                if let Some(event) = outcome.event {
                    self.add_twin_event(record, event)?;
                }
                Ok((record.clone(), outcome.notification_json))
            })
            .await?;
        if let Some(payload) = notification {
            self.notify_desired(identity, record.twin.desired.version, payload).await?;
        }
        self.show_twin(identity, &record).await
    }

    /// Whether devices that say what they know of their desired properties are told the difference only.
    pub fn set_twin_catch_up(&self, on: bool) {
        self.twin_catch_up.store(on, Ordering::Relaxed);
    }

    /// The twin as the device sees it, or what is new of it to a device that says what it knows.
    ///
    /// # Errors
    ///
    /// 404 if the device was deleted meanwhile.
    pub async fn device_twin(&self, session: &Session, known: Option<&KnownTwin>) -> Result<String, HubError> {
        session.active(self.env.now());
        self.pass(Operation::TwinReads, 1).await?;
        let outcome = match self.require(&session.identity).await {
            Ok((record, _)) => self.show_device_twin(&record, known),
            Err(error) => Err(error),
        };
        self.metrics().device_twin_reads.count(&outcome);
        outcome
    }

    fn show_device_twin(&self, record: &DeviceRecord, known: Option<&KnownTwin>) -> Result<String, HubError> {
        let Some(known) = known.filter(|_| self.twin_catch_up.load(Ordering::Relaxed)) else {
            return Ok(view::device_twin_json(record));
        };
        let lineage = lineage(record);
        if known.lineage == lineage {
            let missed = self.functions.catch_up_twin(&section(&record.twin.desired), known.version)?;
            if let Some(missed) = missed.map_err(rejected_by_device)? {
                return Ok(view::caught_up_json(record, &json(missed)?, known.version, &lineage));
            }
        }
        Ok(view::device_twin_with_lineage_json(record, &lineage))
    }

    /// Merges a device's patch into its reported properties. The answer is the section's new `$version`.
    ///
    /// # Errors
    ///
    /// 400 with the rule that the patch breaks, 412 if `if_version` is not the section's, 413 if it would become too large.
    pub async fn report(&self, session: &Session, patch: &str, if_version: Option<u64>) -> Result<u64, HubError> {
        self.pass(Operation::TwinUpdates, 1).await?;
        let outcome = self.merge_reported(session, patch, if_version).await;
        self.metrics().twin_reports.count(&outcome);
        outcome
    }

    async fn merge_reported(&self, session: &Session, patch: &str, if_version: Option<u64>) -> Result<u64, HubError> {
        let identity = &session.identity;
        let now = self.env.now();
        session.active(now);
        let listened = self.routes.read().listens(Source::TwinChangeEvents);
        let _lane = self.lanes.enter(identity).await;
        self.change(identity, Some(session), |record| {
            let request = ReportRequest {
                reported: section(&record.twin.reported),
                version: record.twin.version,
                patch_json: patch.to_owned(),
                if_version,
                unix_nanos: now.unix_nanos(),
                emit_event: listened,
            };
            let outcome = self.functions.report_twin(&request)?.map_err(rejected_by_device)?;
            record.twin.reported = section_record(outcome.reported)?;
            record.twin.version = outcome.version;
            if let Some(event) = outcome.event {
                self.add_twin_event(record, event)?;
            }
            Ok(record.twin.reported.version)
        })
        .await
    }

    /// Delivers a desired-properties notification if the device is connected here and listens.
    pub(crate) fn deliver_desired(&self, identity: &Identity, version: u64, payload: &Arc<str>) -> bool {
        let Some(session) = self.sessions.get(identity) else { return false };
        if session.subscriptions().contains(Subscriptions::TWIN_DESIRED) {
            session.deliver(ToDevice::Desired { version, payload: Arc::clone(payload) });
        }
        true
    }

    async fn notify_desired(&self, identity: &Identity, version: u64, payload: String) -> Result<(), HubError> {
        let payload: Arc<str> = payload.into();
        if self.deliver_desired(identity, version, &payload) {
            return Ok(());
        }
        let Some(entry) = self.store.get(&self.keys.session(&identity.to_string())).await? else { return Ok(()) };
        let (stored, _) = decode::<SessionRecord>(&entry)?;
        if stored.host != self.host.as_str() {
            let message = HostMessage::Desired {
                hub: self.id().as_str().to_owned(),
                identity: identity.clone(),
                version,
                payload: payload.as_ref().to_owned(),
            };
            // A notification to a device that cannot be reached is not kept: it reads its twin when it is back.
            drop(self.bus.send(HostId::new(&stored.host), message).await);
        }
        Ok(())
    }

    fn add_twin_event(&self, record: &mut DeviceRecord, event: TwinEvent) -> Result<(), HubError> {
        let event = match event {
            TwinEvent::UpdateTwin(body) => Event::twin_updated(json(body)?),
            TwinEvent::ReplaceTwin => Event::twin_replaced(json(view::twin_event_json(record))?),
        };
        self.add_event(record, |_| event);
        Ok(())
    }

    async fn show_twin(&self, identity: &Identity, record: &DeviceRecord) -> Result<TwinView, HubError> {
        let json = view::twin_json(record, &self.connection(identity).await?, self.queue_length(record).await?);
        Ok(TwinView { json, etag: TwinEtag::new(record.twin.etag) })
    }
}

/// Generation and restores: a restore raises the twin's ETag counter by 2^32, which no number of changes does.
fn lineage(record: &DeviceRecord) -> String {
    format!("{}.{}", record.generation_id, record.twin.etag >> 32)
}

pub(crate) fn twin_record(state: State) -> Result<TwinRecord, HubError> {
    Ok(TwinRecord {
        tags: json(state.tags.json)?,
        tags_size: state.tags.size,
        desired: section_record(state.desired)?,
        reported: section_record(state.reported)?,
        version: state.version,
        etag: state.etag,
        model_id: None,
    })
}

fn section(record: &SectionRecord) -> Section {
    Section {
        json: record.json.text().to_owned(),
        metadata_json: record.metadata.text().to_owned(),
        version: record.version,
        size: record.size,
    }
}

fn section_record(section: Section) -> Result<SectionRecord, HubError> {
    Ok(SectionRecord {
        json: json(section.json)?,
        metadata: json(section.metadata_json)?,
        version: section.version,
        size: section.size,
    })
}

/// What a function returned as JSON is checked before it is stored: a broken function damages one answer, not the store.
pub(crate) fn json(text: String) -> Result<Json, HubError> {
    Json::parse(text).map_err(|error| HubError::internal(format_args!("a function returned what is not JSON: {error}")))
}

pub(crate) fn rejected_by_service(rejection: Rejection) -> HubError {
    match rejection {
        Rejection::PreconditionFailed(message) => HubError::new(ErrorCode::PreconditionFailed, message),
        Rejection::Invalid(violation) => HubError::new(ErrorCode::ArgumentInvalid, violation.message),
        Rejection::TooLarge(excess) => HubError::new(service_size_code(excess.part), excess.message),
        Rejection::DamagedState(detail) => HubError::internal(detail),
    }
}

const fn service_size_code(part: Option<Part>) -> ErrorCode {
    if part.is_some() { ErrorCode::ArgumentInvalid } else { ErrorCode::MessageTooLarge }
}

fn rejected_by_device(rejection: Rejection) -> HubError {
    match rejection {
        Rejection::TooLarge(excess) => HubError::new(ErrorCode::MessageTooLarge, excess.message),
        other => rejected_by_service(other),
    }
}
