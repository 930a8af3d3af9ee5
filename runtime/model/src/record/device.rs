//! A device, or a module on a device: identity and twin are one aggregate. Its session is another.

use serde::{Deserialize, Serialize};

use super::{FormatVersion, Json, Record, SecretText};
use crate::{Identity, InvalidId, Timestamp};

/// A device, or a module on a device, with its twin. Key: `device/{id}`, or `module/{device}/{id}`.
///
/// A module has no status, capabilities and scopes of its own: those of its device hold for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRecord {
    /// Format version.
    pub v: FormatVersion,
    /// The device's id as the creator wrote it.
    pub device_id: String,
    /// The module's id, if this is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// Distinguishes this device from a deleted one of the same id.
    pub generation_id: String,
    /// Moves with each write of the identity; shown as base64 of the decimal number.
    pub etag: u64,
    /// Whether the device may connect.
    pub status: DeviceStatus,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// When `status` last changed; `None` is "never".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_updated: Option<Timestamp>,
    /// How the device proves who it is.
    pub authentication: Authentication,
    /// Whether it is an edge device.
    #[serde(default)]
    pub iot_edge: bool,
    /// An edge device's own scope; of another device, the scope of the edge device that it is a child of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_scope: Option<String>,
    /// The scopes of the edge devices that it is a child of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_scopes: Vec<String>,
    /// Who manages a module, in the creator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// The twin.
    pub twin: TwinRecord,
    /// When the identity was created.
    pub created: Timestamp,
    /// Events that were committed with a change and are not in the log yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<OutboxEntry>,
    /// Number of events ever put into the outbox: the next entry's place in its message key.
    #[serde(default)]
    pub outbox_count: u64,
}

impl Record for DeviceRecord {}

impl DeviceRecord {
    /// A new, enabled device, or a new module.
    pub fn new(
        identity: &Identity,
        generation_id: String,
        authentication: Authentication,
        twin: TwinRecord,
        now: Timestamp,
    ) -> Self {
        Self {
            v: FormatVersion,
            device_id: identity.device_id().as_str().to_owned(),
            module_id: identity.module_id().map(|module| module.as_str().to_owned()),
            generation_id,
            etag: 1,
            status: DeviceStatus::Enabled,
            status_reason: None,
            status_updated: None,
            authentication,
            iot_edge: false,
            device_scope: None,
            parent_scopes: Vec::new(),
            managed_by: None,
            twin,
            created: now,
            outbox: Vec::new(),
            outbox_count: 0,
        }
    }

    /// Whose record it is.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the stored ids are none.
    pub fn identity(&self) -> Result<Identity, InvalidId> {
        let module = self.module_id.as_deref().map(str::parse).transpose()?;
        Ok(Identity::new(self.device_id.parse()?, module))
    }
}

/// Whether a device may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceStatus {
    /// It may.
    #[default]
    Enabled,
    /// It is refused, and disconnected if it was connected.
    Disabled,
}

/// How a device proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authentication {
    /// A token signed with one of two keys.
    Sas(KeyPairText),
    /// A certificate with one of two thumbprints.
    SelfSigned(ThumbprintPair),
    /// A certificate that chains to a CA of the hub and names the device.
    CertificateAuthority,
    /// Not at all: the modules that an edge device is born with, until they are given keys.
    None,
}

/// Two keys in base64, either of which is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPairText {
    /// First key.
    pub primary: SecretText,
    /// Second key.
    pub secondary: SecretText,
}

/// Two certificate thumbprints in hexadecimal (SHA-1 or SHA-256), either of which is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbprintPair {
    /// First thumbprint.
    pub primary: Option<String>,
    /// Second thumbprint.
    pub secondary: Option<String>,
}

/// The three sections of a twin and the counters that the protocol shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwinRecord {
    /// Tags: of the service, unseen by the device.
    pub tags: Json,
    /// The tags' counted size, as the function that made them keeps it.
    #[serde(default)]
    pub tags_size: u32,
    /// Desired properties: of the service, seen by the device.
    pub desired: SectionRecord,
    /// Reported properties: of the device.
    pub reported: SectionRecord,
    /// Counts every write of the twin.
    pub version: u64,
    /// Moves with each write of tags or desired properties; shown as base64 of eight big-endian bytes.
    pub etag: u64,
    /// The model that the device announced when it last connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
}

/// One property section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SectionRecord {
    /// The properties, without `$metadata` and `$version`.
    pub json: Json,
    /// The `$metadata` tree.
    pub metadata: Json,
    /// `$version`.
    pub version: u64,
    /// The counted size, as the function that made this section keeps it.
    #[serde(default)]
    pub size: u32,
}

/// An event that waits for its way into the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxEntry {
    /// The entry's number; with hub, device and generation it makes the message key, so that a repeated append is seen.
    pub number: u64,
    /// Routing source, as its wire name (`twinChangeEvents`, …).
    pub source: String,
    /// What happened (`updateTwin`, …).
    pub op_type: String,
    /// The event's body.
    pub body: Json,
    /// When it happened.
    pub at: Timestamp,
}

/// Who holds a device's connection. Key: `session/{id}`.
///
/// Every commit on behalf of a connected device is guarded by this record's revision: a session whose epoch is no longer
/// the newest can change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Format version.
    pub v: FormatVersion,
    /// Grows with every connection of this device, over restarts and hosts.
    pub epoch: u64,
    /// The host that holds, or held, the connection.
    pub host: String,
    /// What a persistent session (clean session 0) subscribed to, as the session layer's bits; 0 for a clean one.
    #[serde(default)]
    pub subscriptions: u32,
}

impl Record for SessionRecord {}
