//! Carrying out an assignment: steps that each are one compare-and-swap, in an order in which a crash between any two of
//! them loses nothing and a repetition changes nothing.
//!
//! 1. The device in the assigned hub is created or brought up to date. Until step 2 the registration on record still points
//!    to the old hub, so a repetition finds the twin where it was.
//! 2. The registration becomes the new one; it names what is to be removed, and a marker says so. For a new device, a store
//!    that can makes both steps durable together (`Store::commit_steps`).
//! 3. The device is removed from the hub that it left ([`migrate`](super::migrate)), then registration and marker are
//!    cleared.

use std::sync::Arc;

use bytes::Bytes;
use nave_engine::provisioning::{Assignment, DeviceData};
use nave_model::{
    CopiedTwin, DeviceId, DeviceRecord, DeviceStatus, EnrollmentKind, Identity, RegistrationId, RegistrationRecord,
};
use nave_store::{CommitError, Expect, Guard, Put, Revision, Step};

use super::Provisioning;
use super::attest::DeviceCredentials;
use super::migrate::{copied, keep_growing, take_twin};
use crate::aggregate::Next;
use crate::edge::{ScopeInput, first_scopes, next_scopes};
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, put};
use crate::session::CloseReason;

/// Registrations looked at per step when the service starts.
const RECOVERY_PAGE: usize = 500;

impl Provisioning {
    /// The twin that moves with the device, if one does, and what the hub that it leaves had when it was copied.
    pub(crate) async fn copy_of_source(
        &self,
        assignment: &Assignment,
    ) -> Result<(Option<DeviceRecord>, Option<CopiedTwin>), HubError> {
        let DeviceData::Migrate(migration) = &assignment.data else { return Ok((None, None)) };
        let source = self.source_twin(migration).await?;
        let copied = source.as_ref().map(|source| copied(source, migration.initial_twin_wins));
        Ok((source, copied))
    }

    /// Step 1. For a new device also step 2, which is `registration`: its outcome is returned then. Otherwise step 2 is still
    /// to be taken.
    pub(crate) async fn place_device(
        &self,
        assignment: &Assignment,
        credentials: &DeviceCredentials,
        source: Option<&DeviceRecord>,
        registration: &Step,
    ) -> Result<Option<Next>, HubError> {
        let hub = self.linked(&assignment.device.hub)?;
        let device = DeviceId::parse(&assignment.device.device_id)
            .map(Identity::device)
            .map_err(|error| HubError::new(ErrorCode::ArgumentInvalid, error.to_string()))?;
        let initial = assignment.initial_twin_json.as_deref();
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let Some((current, _)) = hub.load(&device).await? else {
                let mut record = hub.new_record(&device, credentials.authentication.clone(), initial)?;
                if let (Some(source), DeviceData::Migrate(migration)) = (source, &assignment.data) {
                    take_twin(&mut record, source, migration);
                }
                record.iot_edge = assignment.iot_edge;
                first_scopes(&mut record, &ScopeInput::default())?;
                match hub.add_device(record, Some(registration.clone())).await {
                    Ok((_, next)) => return Ok(Some(next)),
                    Err(error) if error.code == ErrorCode::DeviceAlreadyExists => continue,
                    Err(error) => return Err(error),
                }
            };
            let fresh = match assignment.data {
                DeviceData::Keep | DeviceData::Create => None,
                DeviceData::Reset | DeviceData::Migrate(_) => {
                    Some(hub.new_record(&device, credentials.authentication.clone(), initial)?)
                }
            };
            if fresh.is_none() && current.authentication == credentials.authentication {
                return Ok(None);
            }
            match self.update_device(hub, &device, assignment, credentials, fresh, source).await {
                Err(error) if error.code == ErrorCode::DeviceNotFound => {}
                updated => return updated.map(|()| None),
            }
        }
        Err(HubError::internal(format_args!("device {device} is created and deleted over and over")))
    }

    async fn update_device(
        &self,
        hub: &Hub,
        device: &Identity,
        assignment: &Assignment,
        credentials: &DeviceCredentials,
        fresh: Option<DeviceRecord>,
        source: Option<&DeviceRecord>,
    ) -> Result<(), HubError> {
        let (rekeyed, is_disabled) = {
            let _lane = hub.lanes.enter(device).await;
            let changed = hub.change(device, None, |record| {
                let status = record.status;
                let rekeyed = record.authentication != credentials.authentication;
                if rekeyed {
                    record.authentication = credentials.authentication.clone();
                    record.etag += 1;
                }
                if let Some(fresh) = &fresh {
                    let before = record.twin.clone();
                    record.twin = fresh.twin.clone();
                    if let (Some(source), DeviceData::Migrate(migration)) = (source, &assignment.data) {
                        take_twin(record, source, migration);
                    }
                    // Versions and tags never go back while the identity lives.
                    record.twin.version = before.version + 1;
                    record.twin.etag = before.etag + 1;
                    keep_growing(&mut record.twin.desired, &before.desired);
                    keep_growing(&mut record.twin.reported, &before.reported);
                    if record.iot_edge != assignment.iot_edge {
                        next_scopes(record, assignment.iot_edge, &ScopeInput::default())?;
                    }
                }
                if !rekeyed && record.status != status {
                    record.etag += 1;
                }
                Ok((rekeyed, record.status == DeviceStatus::Disabled, record.iot_edge))
            });
            let (rekeyed, is_disabled, iot_edge) = changed.await?;
            if fresh.is_some() {
                hub.settle_system_modules(device, iot_edge).await?;
            }
            (rekeyed, is_disabled)
        };
        if is_disabled {
            hub.close_everywhere(device, CloseReason::Disabled).await?;
            hub.close_modules(device, CloseReason::Disabled).await?;
        } else if rekeyed {
            hub.close_everywhere(device, CloseReason::CredentialsChanged).await?;
        }
        Ok(())
    }

    /// Step 2: `record` becomes the registration on record, unless another host was faster.
    pub(crate) fn registration_step(
        &self,
        record: &RegistrationRecord,
        before: Option<&(RegistrationRecord, Revision)>,
    ) -> Result<Step, HubError> {
        let id = record.registration_id.as_str();
        let key = self.keys.registration(id);
        let expect = before.map_or(Expect::Absent, |(_, revision)| Expect::At(*revision));
        let mut puts = vec![put(key.clone(), record)?];
        // Of two puts to one key the later one counts: a device that stays in its group stays in the group's list.
        if let Some((before, _)) = before.filter(|(before, _)| before.enrollment_kind == EnrollmentKind::Group) {
            puts.push(Put { key: self.keys.member(&before.enrollment_id, id), value: None });
        }
        if record.enrollment_kind == EnrollmentKind::Group {
            let member = self.keys.member(&record.enrollment_id, id);
            puts.push(Put { key: member, value: Some(Bytes::from_static(b"{\"v\":1}")) });
        }
        if record.removal.is_some() {
            puts.push(Put { key: self.keys.outbox(id), value: Some(Bytes::from_static(b"{\"v\":1}")) });
        }
        Ok(Step { guards: vec![Guard { key, expect }], puts })
    }

    /// Takes a step that [`registration_step`](Self::registration_step) made.
    pub(crate) async fn record_registration(&self, step: Step) -> Result<(), HubError> {
        recorded(self.store.commit(step.guards, step.puts).await.map(drop))
    }

    /// Step 3. To be called within the registration's lane.
    pub(crate) async fn finish_removal(&self, id: &RegistrationId) -> Result<(), HubError> {
        let marker = Put { key: self.keys.outbox(id.as_str()), value: None };
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let Some((mut record, revision)) = self.load_registration(id).await? else {
                self.store.commit(Vec::new(), vec![marker]).await?;
                return Ok(());
            };
            if let Some(removal) = record.removal.take() {
                let assigned = record.hub.as_deref().zip(record.device_id.as_deref());
                self.remove_source(&removal, assigned).await?;
            }
            let key = self.keys.registration(id.as_str());
            let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
            match self.store.commit(guards, vec![put(key, &record)?, marker.clone()]).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key: self.keys.registration(id.as_str()), current: None }.into())
    }

    /// Finishes the removals that a crash interrupted. To be called once when the service starts.
    pub(crate) async fn recover(&self) -> Result<(), HubError> {
        let prefix = self.keys.outboxes();
        let mut after = None;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), RECOVERY_PAGE).await?;
            for (key, _) in &page {
                let id = key.strip_prefix(&prefix).and_then(nave_model::unescape_key_part);
                match id.and_then(|id| RegistrationId::parse(&id).ok()) {
                    Some(id) => {
                        let _lane = self.lanes.enter(&id).await;
                        if let Err(error) = self.finish_removal(&id).await {
                            // A registration of the device, or the next start, takes it up.
                            tracing::error!(key, %error, "the removal of a device from its former hub is not finished");
                        }
                    }
                    None => drop(self.store.commit(Vec::new(), vec![Put { key: key.clone(), value: None }]).await?),
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == RECOVERY_PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn linked(&self, name: &str) -> Result<&Arc<Hub>, HubError> {
        self.hub(name).ok_or_else(|| HubError::internal(format_args!("the assigned hub `{name}` is not linked")))
    }
}

/// What the device is told about step 2.
pub(crate) fn recorded(outcome: Next) -> Result<(), HubError> {
    outcome.map_err(|error| match error {
        CommitError::Conflict { .. } => HubError::new(
            ErrorCode::RegistrationStatusConflict,
            "Precondition failed: the device registers twice at the same time.",
        ),
        error => error.into(),
    })
}
