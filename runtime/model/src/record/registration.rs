//! The outcome of a device's registration.

use serde::{Deserialize, Serialize};

use super::{EnrollmentKind, FormatVersion, Json, Record};
use crate::Timestamp;

/// A device's registration. Key: `registration/{registration id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationRecord {
    /// Format version.
    pub v: FormatVersion,
    /// The id, lower case.
    pub registration_id: String,
    /// The operation that made this state; what a device polls.
    pub operation_id: String,
    /// Where the registration stands.
    pub status: RegistrationStatus,
    /// How it came to be assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substatus: Option<Substatus>,
    /// The enrollment that decided, and whether it is a group.
    pub enrollment_kind: EnrollmentKind,
    /// Its id.
    pub enrollment_id: String,
    /// Host name of the assigned hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// The device's id there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// `symmetricKey`, `x509` or `tpm`.
    pub attestation: String,
    /// The leaf certificate, for X.509 attestation: base64 of DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// DPS error code of a failed registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<u32>,
    /// Its text for the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// What a custom allocation policy returns to the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Json>,
    /// A device to be removed from the hub that it left: work of this registration that is not done yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
    /// Entity tag, without quotes.
    pub etag: String,
    /// When the device first registered.
    pub created: Timestamp,
    /// When this state was reached.
    pub updated: Timestamp,
}

impl Record for RegistrationRecord {}

/// A device in a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceAddress {
    /// Host name of the hub.
    pub hub: String,
    /// The device's id there.
    pub device_id: String,
}

/// A device that is to be removed from the hub that it left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// Where it still is.
    #[serde(flatten)]
    pub address: DeviceAddress,
    /// What of it has moved to the assigned hub; `None` if nothing moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<CopiedTwin>,
}

/// How far a twin has been copied: what was written to it afterwards has to follow before it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopiedTwin {
    /// The generation of the device that was copied.
    pub generation_id: String,
    /// [`DeviceRecord::etag`](super::DeviceRecord::etag) at that time.
    pub identity_etag: u64,
    /// [`TwinRecord::etag`](super::TwinRecord::etag), which moves with tags and desired properties.
    pub twin_etag: u64,
    /// `$version` of the reported properties.
    pub reported_version: u64,
    /// Whether tags and desired properties stay behind.
    pub reported_only: bool,
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RegistrationStatus {
    /// Being decided or carried out.
    Assigning,
    /// Done.
    Assigned,
    /// Ended with an error.
    Failed,
    /// Its enrollment is disabled.
    Disabled,
}

impl RegistrationStatus {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assigning => "assigning",
            Self::Assigned => "assigned",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
        }
    }
}

/// How a device came to be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Substatus {
    /// For the first time.
    InitialAssignment,
    /// To another hub, with its data.
    DeviceDataMigrated,
    /// With its data reset.
    DeviceDataReset,
    /// Again to where it was.
    ReprovisionedToInitialAssignment,
}

impl Substatus {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitialAssignment => "initialAssignment",
            Self::DeviceDataMigrated => "deviceDataMigrated",
            Self::DeviceDataReset => "deviceDataReset",
            Self::ReprovisionedToInitialAssignment => "reprovisionedToInitialAssignment",
        }
    }
}
