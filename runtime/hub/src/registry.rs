//! Device identities: create, read, update, delete, list.

use std::fmt;

use nave_auth::{KeyPair, Thumbprint};
use nave_model::{
    Authentication, DeviceId, DeviceRecord, DeviceStatus, Identity, IdentityEtag, IfMatch, KeyPairText, SecretText,
    SessionRecord, ThumbprintPair, Timestamp, TwinRecord,
};
use nave_store::{CommitError, Expect, Guard, Put};
use serde_json::Value;

use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::outbox::Event;
use crate::session::CloseReason;
use crate::twin::{rejected_by_service, twin_record};
use crate::view::{self, Connection};

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
}

/// Credentials as they were sent. Empty text counts as absent: the Node SDK sends it by default. The `Debug` output has no
/// keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthenticationInput {
    /// `sas`, `selfSigned`, `certificateAuthority` or `none`.
    pub kind: Option<String>,
    /// First key, base64.
    pub primary_key: Option<String>,
    /// Second key, base64.
    pub secondary_key: Option<String>,
    /// First thumbprint, hexadecimal.
    pub primary_thumbprint: Option<String>,
    /// Second thumbprint, hexadecimal.
    pub secondary_thumbprint: Option<String>,
}

impl fmt::Debug for AuthenticationInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthenticationInput").field("kind", &self.kind).finish_non_exhaustive()
    }
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
        let (record, _) = self.require(device).await?;
        Ok(self.show(&record))
    }

    /// Creates a device (no `If-Match`) or updates it (any other).
    ///
    /// # Errors
    ///
    /// As the protocol notes have it (service REST §1.2): 409 for a create of what exists, 404 for an update of what does
    /// not, 412 for a stale tag, 400 for credentials that are none.
    pub async fn put_device(
        &self,
        device: &DeviceId,
        input: &DeviceInput,
        condition: &IfMatch,
    ) -> Result<DeviceView, HubError> {
        let status_reason = input.status_reason.as_deref().filter(|reason| !reason.is_empty());
        if status_reason.is_some_and(|reason| reason.chars().count() > MAX_STATUS_REASON) {
            return Err(argument(format!("statusReason is longer than {MAX_STATUS_REASON} characters.")));
        }
        let authentication = self.authentication(&input.authentication)?;
        if condition.is_none() {
            let mut record = self.new_device(device, authentication, None)?;
            record.iot_edge = input.iot_edge;
            record.status_reason = status_reason.map(str::to_owned);
            record.status = input.status.unwrap_or_default();
            return self.create_device(record).await;
        }
        let _lane = self.lanes.enter(device).await;
        let now = self.env.now();
        let (record, end) = self
            .change_device(device, None, |record| {
                if !condition.holds_for(IdentityEtag::new(record.etag)) {
                    return Err(HubError::precondition_failed());
                }
                let status = input.status.unwrap_or_default();
                if status != record.status {
                    record.status_updated = Some(now);
                }
                let end = if status == DeviceStatus::Disabled {
                    Some(CloseReason::Disabled)
                } else {
                    (record.authentication != authentication).then_some(CloseReason::CredentialsChanged)
                };
                record.status = status;
                record.status_reason = status_reason.map(str::to_owned);
                record.authentication = authentication.clone();
                record.iot_edge = input.iot_edge;
                record.etag += 1;
                Ok((record.clone(), end))
            })
            .await?;
        if let Some(reason) = end {
            self.close_everywhere(&Identity::device(device.clone()), reason).await?;
        }
        Ok(self.show(&record))
    }

    /// Deletes a device with its twin and its session.
    ///
    /// # Errors
    ///
    /// 412 without `If-Match` or for a stale tag, 404.
    pub async fn delete_device(&self, device: &DeviceId, condition: &IfMatch) -> Result<(), HubError> {
        if condition.is_none() {
            return Err(HubError::new(
                ErrorCode::PreconditionFailed,
                "Deleting a device needs an If-Match header: its entity tag, or \"*\".",
            ));
        }
        let _lane = self.lanes.enter(device).await;
        let identity = Identity::device(device.clone());
        let key = self.keys.device(device.as_str());
        let session_key = self.keys.session(&identity.to_string());
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (record, revision) = self.require(device).await?;
            if !condition.holds_for(IdentityEtag::new(record.etag)) {
                return Err(HubError::precondition_failed());
            }
            let session = self.store.get(&session_key).await?.as_ref().map(decode::<SessionRecord>).transpose()?;
            let end_session = || {
                if let Some((stored, _)) = &session {
                    self.end_session(&identity, stored, CloseReason::Deleted);
                }
            };
            // Before the record is gone: after a crash nobody could find the host that holds the session.
            end_session();
            // The guard makes sure that no other session began meanwhile.
            let expect = session.as_ref().map_or(Expect::Absent, |(_, revision)| Expect::At(*revision));
            let guards = vec![
                Guard { key: key.clone(), expect: Expect::At(revision) },
                Guard { key: session_key.clone(), expect },
            ];
            let mut puts = vec![Put { key: key.clone(), value: None }, Put { key: session_key.clone(), value: None }];
            let has_event = self.orphan_events(&record, Event::deleted(&record), &mut puts)?;
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    // Once more: a session that had been committed may have come into the list since.
                    end_session();
                    if has_event {
                        self.forward_events(device).await;
                    }
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key, current: None }.into())
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
        entries.iter().map(|(_, entry)| Ok(self.show(&decode::<DeviceRecord>(entry)?.0))).collect()
    }

    /// A new device's record: nothing is stored yet.
    pub(crate) fn new_device(
        &self,
        device: &DeviceId,
        authentication: Authentication,
        initial_twin: Option<&str>,
    ) -> Result<DeviceRecord, HubError> {
        let now = self.env.now();
        let twin = self.functions.create_twin(initial_twin, now.unix_nanos())?.map_err(rejected_by_service)?;
        let record = TwinRecord { model_id: None, ..twin_record(twin)? };
        let mut record = DeviceRecord::new(device.as_str(), generation_id(now), authentication, record, now);
        // A tag of an earlier device of the same id must match nothing.
        record.etag = now.unix_millis();
        Ok(record)
    }

    /// Stores a record made by [`Hub::new_device`], unless the device exists.
    pub(crate) async fn create_device(&self, mut record: DeviceRecord) -> Result<DeviceView, HubError> {
        let device = DeviceId::parse(&record.device_id).map_err(HubError::internal)?;
        let _lane = self.lanes.enter(&device).await;
        let has_event = self.add_event(&mut record, Event::created);
        let key = self.keys.device(device.as_str());
        let marker_key = self.keys.outbox(device.as_str());
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            self.forward_orphans(&device).await?;
            let guards = vec![
                Guard { key: key.clone(), expect: Expect::Absent },
                Guard { key: marker_key.clone(), expect: Expect::Absent },
            ];
            let mut puts = vec![put(key.clone(), &record)?];
            if has_event {
                puts.push(self.outbox_marker(&device));
            }
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    if has_event {
                        self.forward_events(&device).await;
                    }
                    return Ok(self.show(&record));
                }
                Err(CommitError::Conflict { key: conflict, .. }) if conflict == key => {
                    return Err(HubError::new(
                        ErrorCode::DeviceAlreadyExists,
                        format!("A device with ID '{device}' is already registered."),
                    ));
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key: marker_key, current: None }.into())
    }

    pub(crate) fn connection(&self, identity: &Identity) -> Connection {
        self.sessions.get(identity).map_or_else(Connection::default, |session| Connection {
            connected_since: Some(session.connected_at),
            last_activity: Some(session.last_activity()),
        })
    }

    fn show(&self, record: &DeviceRecord) -> DeviceView {
        let connection = DeviceId::parse(&record.device_id)
            .map_or_else(|_| Connection::default(), |id| self.connection(&Identity::device(id)));
        DeviceView { json: view::identity_json(record, &connection), etag: IdentityEtag::new(record.etag) }
    }

    /// The rules of protocol notes, service REST §2.3.
    fn authentication(&self, input: &AuthenticationInput) -> Result<Authentication, HubError> {
        let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let keys = (present(&input.primary_key), present(&input.secondary_key));
        let thumbprints = (present(&input.primary_thumbprint), present(&input.secondary_thumbprint));
        let has_keys = keys.0.is_some() || keys.1.is_some();
        let has_thumbprints = thumbprints.0.is_some() || thumbprints.1.is_some();
        if has_keys && has_thumbprints {
            return Err(argument("A device has symmetric keys or thumbprints, not both."));
        }
        let kind = input.kind.as_deref().map_or(if has_thumbprints { "selfsigned" } else { "sas" }, |kind| kind);
        match kind.to_ascii_lowercase().as_str() {
            "sas" if has_thumbprints => {
                Err(argument("Authentication type 'sas' takes symmetric keys, not thumbprints."))
            }
            "sas" => match keys {
                (Some(primary), Some(secondary)) => {
                    KeyPair::from_base64(&primary, &secondary)
                        .map_err(|error| argument(format!("Invalid device key: {error}.")))?;
                    Ok(Authentication::Sas(KeyPairText {
                        primary: SecretText::new(primary),
                        secondary: SecretText::new(secondary),
                    }))
                }
                (None, None) => Ok(Authentication::Sas(self.new_keys(32))),
                _ => Err(argument("A device has either no keys or both keys: send none to have them made.")),
            },
            "selfsigned" if has_keys => {
                Err(argument("Authentication type 'selfSigned' takes thumbprints, not symmetric keys."))
            }
            "selfsigned" => {
                let (primary, secondary) = thumbprints;
                if let Some(bad) =
                    [&primary, &secondary].into_iter().flatten().find(|text| Thumbprint::parse_plain(text).is_err())
                {
                    return Err(argument(format!(
                        "StringIsNotThumbprint: '{bad}' is not 40 (SHA-1) or 64 (SHA-256) hexadecimal digits."
                    )));
                }
                Ok(Authentication::SelfSigned(ThumbprintPair { primary, secondary }))
            }
            "certificateauthority" if has_keys || has_thumbprints => {
                Err(argument("Authentication type 'certificateAuthority' takes neither keys nor thumbprints."))
            }
            "certificateauthority" => Ok(Authentication::CertificateAuthority),
            "none" => Err(argument("DeviceAuthenticationTypeIsMissing: a device needs an authentication type.")),
            other => Err(argument(format!(
                "Unknown authentication type '{other}': use sas, selfSigned or certificateAuthority."
            ))),
        }
    }

    pub(crate) fn new_keys(&self, bytes: usize) -> KeyPairText {
        let pair = KeyPair::generate(bytes, |buffer| self.env.fill_random(buffer));
        KeyPairText {
            primary: SecretText::new(pair.primary.expose_base64()),
            secondary: SecretText::new(pair.secondary.expose_base64()),
        }
    }
}

/// A number that grows with time, in the form of the cloud service: 100 ns units since the year 1.
fn generation_id(now: Timestamp) -> String {
    const UNIX_EPOCH_TICKS: u64 = 621_355_968_000_000_000;
    (UNIX_EPOCH_TICKS + now.unix_nanos() / 100).to_string()
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
        let webhook = nave_model::Webhook { url: "https://x/?code=c2VjcmV0".to_owned(), api_version: String::new() };
        let shown = format!("{device:?} {view:?} {attestation:?} {webhook:?}");
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }
}
