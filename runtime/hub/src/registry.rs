//! Device identities: create, read, update, delete, list.

use std::fmt;

use nave_model::{DeviceId, DeviceRecord, DeviceStatus, Identity, IdentityEtag, IfMatch};
use nave_store::{CommitError, Step};
use serde_json::Value;

use crate::aggregate::{Check, Next, matches};
use crate::credentials::AuthenticationInput;
use crate::edge::{ScopeInput, first_scopes, next_scopes};
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode};
use crate::presence::Connection;
use crate::session::CloseReason;
use crate::view;

/// Most devices that one list call returns.
pub const MAX_LISTED_DEVICES: usize = 1_000;

/// Longest status reason, in characters.
pub const MAX_STATUS_REASON: usize = 128;

/// What the service wants an identity to be: the members of the REST body that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInput {
    /// Enabled or disabled; enabled if absent.
    pub status: Option<DeviceStatus>,
    /// Why.
    pub status_reason: Option<String>,
    /// Credentials.
    pub authentication: AuthenticationInput,
    /// Whether it is an edge device.
    pub iot_edge: bool,
    /// The scopes of parents and children.
    pub scopes: ScopeInput,
}

/// An identity to be shown, with its keys. The `Debug` output has none.
#[derive(Clone)]
pub struct DeviceView {
    /// The JSON form.
    pub json: Value,
    /// Its entity tag.
    pub etag: IdentityEtag,
}

impl fmt::Debug for DeviceView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeviceView").field("etag", &self.etag).finish_non_exhaustive()
    }
}

impl Hub {
    /// A device's identity, keys included.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::DeviceNotFound`].
    pub async fn get_device(&self, device: &DeviceId) -> Result<DeviceView, HubError> {
        let (record, _) = self.require(&Identity::device(device.clone())).await?;
        self.show(&record).await
    }

    /// Creates a device (no `If-Match`) or updates it (any other).
    ///
    /// # Errors
    ///
    /// As the protocol notes have it (service REST §1.2): 409 for a create of what exists, 404 for an update of what does
    /// not, 412 for a stale tag, 400 for credentials and scopes that are none.
    pub async fn put_device(
        &self,
        device: &DeviceId,
        input: &DeviceInput,
        condition: &IfMatch,
    ) -> Result<DeviceView, HubError> {
        if condition.is_none() {
            let record = self.first_device(device, input, None)?;
            return self.create_device(record).await;
        }
        let status_reason = status_reason(input)?;
        let authentication = self.authentication(&input.authentication)?;
        let identity = Identity::device(device.clone());
        let _lane = self.lanes.enter(&identity).await;
        let now = self.env.now();
        let (before, record) = self
            .change(&identity, None, |record| {
                if !condition.holds_for(IdentityEtag::new(record.etag)) {
                    return Err(HubError::precondition_failed());
                }
                let before = record.clone();
                next_scopes(record, input.iot_edge, &input.scopes)?;
                record.status = input.status.unwrap_or_default();
                if record.status != before.status {
                    record.status_updated = Some(now);
                }
                record.status_reason.clone_from(&status_reason);
                record.authentication = authentication.clone();
                record.etag += 1;
                Ok((before, record.clone()))
            })
            .await?;
        if record.status == DeviceStatus::Disabled {
            self.close_everywhere(&identity, CloseReason::Disabled).await?;
            self.close_modules(&identity, CloseReason::Disabled).await?;
        } else if record.authentication != before.authentication {
            self.close_everywhere(&identity, CloseReason::CredentialsChanged).await?;
        }
        // Also if that is not what changed: a stop may have come in between before.
        self.settle_system_modules(&identity, record.iot_edge).await?;
        self.show(&record).await
    }

    /// Deletes a device with its queue and its modules, their twins and sessions: first the modules, one after the other, then the device.
    /// A stop in between leaves a device with fewer modules, and repeating the request goes on from there.
    ///
    /// # Errors
    ///
    /// 412 without `If-Match` or for a stale tag, 404.
    pub async fn delete_device(&self, device: &DeviceId, condition: &IfMatch) -> Result<(), HubError> {
        needs_if_match(condition, "device")?;
        self.delete_device_if(device, &matches(condition)).await
    }

    /// Deletes a device whose record is as `check` wants it.
    pub(crate) async fn delete_device_if(&self, device: &DeviceId, check: &Check<'_>) -> Result<(), HubError> {
        let identity = Identity::device(device.clone());
        let _lane = self.lanes.enter(&identity).await;
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            if self.remove(&identity, check).await? {
                return Ok(());
            }
            self.remove_modules(&identity, false).await?;
        }
        Err(CommitError::Conflict { key: self.keys.identity(&identity), current: None }.into())
    }

    /// Up to `limit` devices in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::DeviceInvalidResultCount`] for a limit of 0 or above [`MAX_LISTED_DEVICES`].
    pub async fn list_devices(&self, limit: usize) -> Result<Vec<DeviceView>, HubError> {
        if limit == 0 || limit > MAX_LISTED_DEVICES {
            return Err(HubError::new(
                ErrorCode::DeviceInvalidResultCount,
                format!("top must be between 1 and {MAX_LISTED_DEVICES}."),
            ));
        }
        let entries = self.store.scan(&self.keys.devices(), None, limit).await?;
        let mut views = Vec::with_capacity(entries.len());
        for (_, entry) in &entries {
            let (record, _) = decode::<DeviceRecord>(entry)?;
            let identity = record.identity().map_err(HubError::internal)?;
            // Of as many devices other hosts are not asked.
            views.push(view_of(&record, &self.local_connection(&identity), self.queue_length(&record).await?));
        }
        Ok(views)
    }

    /// The record of a device that a service wants to create: nothing is stored yet.
    pub(crate) fn first_device(
        &self,
        device: &DeviceId,
        input: &DeviceInput,
        initial_twin: Option<&str>,
    ) -> Result<DeviceRecord, HubError> {
        let status_reason = status_reason(input)?;
        let authentication = self.authentication(&input.authentication)?;
        let mut record = self.new_record(&Identity::device(device.clone()), authentication, initial_twin)?;
        record.iot_edge = input.iot_edge;
        record.status = input.status.unwrap_or_default();
        record.status_reason = status_reason;
        first_scopes(&mut record, &input.scopes)?;
        Ok(record)
    }

    /// Stores a record made by [`Hub::new_record`], unless the device exists; an edge device with its system modules.
    pub(crate) async fn create_device(&self, record: DeviceRecord) -> Result<DeviceView, HubError> {
        let (record, _) = self.add_device(record, None).await?;
        self.show(&record).await
    }

    /// Stores a new device with its system modules, and takes the step that follows: see [`Hub::create_then`].
    pub(crate) async fn add_device(
        &self,
        record: DeviceRecord,
        next: Option<Step>,
    ) -> Result<(DeviceRecord, Next), HubError> {
        let identity = record.identity().map_err(HubError::internal)?;
        let mut records = vec![record];
        if records.iter().any(|record| record.iot_edge) {
            records.extend(self.system_modules(&identity)?);
        }
        let mut lanes = Vec::with_capacity(records.len());
        let identities: Vec<Identity> =
            records.iter().map(DeviceRecord::identity).collect::<Result<_, _>>().map_err(HubError::internal)?;
        for identity in &identities {
            lanes.push(self.lanes.enter(identity).await);
        }
        let next = self.create_then(&mut records, None, next).await?;
        let record = records.into_iter().next();
        Ok((record.ok_or_else(|| HubError::internal("a device was created without a record"))?, next))
    }

    /// A record as services see it.
    pub(crate) async fn show(&self, record: &DeviceRecord) -> Result<DeviceView, HubError> {
        let identity = record.identity().map_err(HubError::internal)?;
        Ok(view_of(record, &self.connection(&identity).await?, self.queue_length(record).await?))
    }
}

fn view_of(record: &DeviceRecord, connection: &Connection, queued: usize) -> DeviceView {
    DeviceView { json: view::identity_json(record, connection, queued), etag: IdentityEtag::new(record.etag) }
}

fn status_reason(input: &DeviceInput) -> Result<Option<String>, HubError> {
    let reason = input.status_reason.clone().filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_STATUS_REASON) {
        return Err(argument(format!("statusReason is longer than {MAX_STATUS_REASON} characters.")));
    }
    Ok(reason)
}

/// Whoever deletes says what, or that it does not matter (protocol notes: REST §1.2).
pub(crate) fn needs_if_match(condition: &IfMatch, what: &str) -> Result<(), HubError> {
    if condition.is_none() {
        let message = format!("Deleting a {what} needs an If-Match header: its entity tag, or \"*\".");
        return Err(HubError::new(ErrorCode::PreconditionFailed, message));
    }
    Ok(())
}

pub(crate) fn argument(message: impl Into<String>) -> HubError {
    HubError::new(ErrorCode::ArgumentInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provisioning::AttestationInput;

    #[test]
    fn keys_are_not_shown() {
        let key = || Some("c2VjcmV0".to_owned());
        let authentication =
            AuthenticationInput { primary_key: key(), secondary_key: key(), ..AuthenticationInput::default() };
        let device = DeviceInput { authentication, ..DeviceInput::default() };
        let view = DeviceView { json: serde_json::json!({ "primaryKey": key() }), etag: IdentityEtag::new(1) };
        let attestation = AttestationInput::SymmetricKey { primary: key(), secondary: key() };
        let webhook = nave_model::Webhook {
            url: "https://x/?code=c2VjcmV0".to_owned(),
            api_version: String::new(),
            configuration: None,
        };
        let shown = format!("{device:?} {view:?} {attestation:?} {webhook:?}");
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }
}
