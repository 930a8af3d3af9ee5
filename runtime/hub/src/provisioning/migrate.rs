//! A twin that moves to another hub: copied when the device is placed there, brought up to date when the device is removed
//! from the hub that it left. Services may write to that one until it is gone, and what it acknowledged moves along.
//!
//! Modules do not move, as in the cloud service: "device data" are the twin, the capabilities and the id of the device
//! (documentation of `ReprovisionPolicy.MigrateDeviceData`), and who tried it found no module at the new hub
//! (Azure/iotedge issue 6697). They end with the device at the old hub. `$edgeAgent` and `$edgeHub` of an edge device begin
//! anew, others are made by whoever manages them.

use nave_engine::provisioning::Migration;
use nave_model::{CopiedTwin, DeviceId, DeviceRecord, DeviceStatus, Identity, Removal, SectionRecord};
use nave_store::CommitError;

use super::Provisioning;
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS};
use crate::session::CloseReason;

impl Provisioning {
    /// What is to be copied, as it is now.
    pub(super) async fn source_twin(&self, migration: &Migration) -> Result<Option<DeviceRecord>, HubError> {
        let Some(hub) = self.hub(&migration.source.hub) else { return Ok(None) };
        let Ok(device) = DeviceId::parse(&migration.source.device_id) else { return Ok(None) };
        Ok(hub.load(&Identity::device(device)).await?.map(|(record, _)| record))
    }

    /// Removes the device from the hub that it left; what was written there since the copy goes to `assigned` (hub and
    /// device id) before. To be called within the registration's lane.
    pub(super) async fn remove_source(
        &self,
        removal: &Removal,
        assigned: Option<(&str, &str)>,
    ) -> Result<(), HubError> {
        let address = &removal.address;
        let (Some(hub), Ok(device)) = (self.hub(&address.hub), DeviceId::parse(&address.device_id)) else {
            return Ok(());
        };
        let mut copied = removal.copied.clone();
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let unchanged = |record: &DeviceRecord| match &copied {
                Some(copied) if changes(copied, record).any() => Err(HubError::precondition_failed()),
                _ => Ok(()),
            };
            match hub.delete_device_if(&device, &unchanged).await {
                Err(error) if error.code == ErrorCode::DeviceNotFound => return Ok(()),
                Err(error) if error.code == ErrorCode::PreconditionFailed => {}
                ended => return ended,
            }
            let Some((source, _)) = hub.load(&Identity::device(device.clone())).await? else { return Ok(()) };
            if let (Some(done), Some((target, id))) = (&copied, assigned) {
                follow(self.linked(target)?, id, &source, changes(done, &source)).await?;
            }
            copied = copied.map(|done| self::copied(&source, done.reported_only));
        }
        // Left for the next registration, or the next start.
        Err(CommitError::Conflict { key: hub.keys.identity(&Identity::device(device)), current: None }.into())
    }
}

/// How far `source` has been copied.
pub(super) fn copied(source: &DeviceRecord, reported_only: bool) -> CopiedTwin {
    CopiedTwin {
        generation_id: source.generation_id.clone(),
        identity_etag: source.etag,
        twin_etag: source.twin.etag,
        reported_version: source.twin.reported.version,
        reported_only,
    }
}

/// Gives `record` the twin of `source`, as far as it migrates.
pub(super) fn take_twin(record: &mut DeviceRecord, source: &DeviceRecord, migration: &Migration) {
    take_reported(record, source);
    if !migration.initial_twin_wins {
        take_desired(record, source);
    }
    take_status(record, source);
}

/// Versions never go back while an identity lives.
pub(super) fn keep_growing(section: &mut SectionRecord, before: &SectionRecord) {
    section.version = section.version.max(before.version + 1);
}

/// What of a device was written since it was copied.
#[derive(Clone, Copy)]
struct Changes {
    identity: bool,
    desired: bool,
    reported: bool,
}

impl Changes {
    const fn any(self) -> bool {
        self.identity || self.desired || self.reported
    }
}

fn changes(copied: &CopiedTwin, source: &DeviceRecord) -> Changes {
    // A device that was made anew under the id is nothing that moves.
    let same = copied.generation_id == source.generation_id;
    Changes {
        identity: same && copied.identity_etag != source.etag,
        desired: same && !copied.reported_only && copied.twin_etag != source.twin.etag,
        reported: same && copied.reported_version != source.twin.reported.version,
    }
}

/// Takes to the assigned hub what the old one acknowledged after the copy.
async fn follow(target: &Hub, id: &str, source: &DeviceRecord, changes: Changes) -> Result<(), HubError> {
    let device = DeviceId::parse(id).map_err(HubError::internal)?;
    let identity = Identity::device(device);
    let _lane = target.lanes.enter(&identity).await;
    let carried = target.change(&identity, None, |record| {
        let before = record.twin.clone();
        if changes.reported {
            take_reported(record, source);
            keep_growing(&mut record.twin.reported, &before.reported);
        }
        if changes.desired {
            take_desired(record, source);
            keep_growing(&mut record.twin.desired, &before.desired);
            record.twin.etag = before.etag + 1;
        }
        record.twin.version = before.version + 1;
        if changes.identity {
            let status = record.status;
            take_status(record, source);
            record.etag += u64::from(status != record.status);
        }
        Ok(record.status)
    });
    match carried.await {
        Ok(DeviceStatus::Disabled) => {
            target.close_everywhere(&identity, CloseReason::Disabled).await?;
            target.close_modules(&identity, CloseReason::Disabled).await
        }
        Ok(DeviceStatus::Enabled) => Ok(()),
        // Somebody deleted it there: then nothing is to be kept.
        Err(error) if error.code == ErrorCode::DeviceNotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn take_reported(record: &mut DeviceRecord, source: &DeviceRecord) {
    record.twin.reported = source.twin.reported.clone();
    record.twin.model_id.clone_from(&source.twin.model_id);
}

fn take_desired(record: &mut DeviceRecord, source: &DeviceRecord) {
    record.twin.tags = source.twin.tags.clone();
    record.twin.tags_size = source.twin.tags_size;
    record.twin.desired = source.twin.desired.clone();
}

fn take_status(record: &mut DeviceRecord, source: &DeviceRecord) {
    if source.status == DeviceStatus::Disabled {
        record.status = DeviceStatus::Disabled;
        record.status_reason.clone_from(&source.status_reason);
    }
}
