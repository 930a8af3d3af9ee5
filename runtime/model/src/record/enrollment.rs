//! What may be provisioned: enrollments, and the certificate authorities that vouch for devices.

use serde::{Deserialize, Serialize};

use super::{FormatVersion, Json, KeyPairText, Record};
use crate::Timestamp;

/// An individual enrollment (key `enrollment/{registration id}`) or a group (key `group/{group id}`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentRecord {
    /// Format version.
    pub v: FormatVersion,
    /// One device or many.
    pub kind: EnrollmentKind,
    /// Registration id or group id, lower case.
    pub id: String,
    /// The device id that an individual enrollment asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// How devices prove that they belong to it.
    pub attestation: AttestationRecord,
    /// Whether it provisions anything.
    pub enabled: bool,
    /// Whether its devices are edge devices.
    #[serde(default)]
    pub iot_edge: bool,
    /// The legacy single hub (`iotHubHostName`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_host_name: Option<String>,
    /// `{"tags":…,"properties":{"desired":…}}` for a new device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_twin: Option<Json>,
    /// Free metadata of an individual enrollment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional_device_information: Option<Json>,
    /// What a repeated registration does; `None` for the default of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reprovision: Option<Reprovision>,
    /// `hashed`, `geoLatency`, `static` or `custom`; `None` for the service's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_policy: Option<String>,
    /// Host names of the hubs that are allowed; empty for all linked hubs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hubs: Vec<String>,
    /// The custom allocation policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Entity tag, without the quotes that the protocol puts into the JSON text.
    pub etag: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last written.
    pub updated: Timestamp,
}

impl Record for EnrollmentRecord {}

/// One device or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnrollmentKind {
    /// One device.
    Individual,
    /// Every device that holds a derived key or a certificate of one CA.
    Group,
}

/// The credentials of an enrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttestationRecord {
    /// Two keys: the device's own, or the ones that a group derives from.
    SymmetricKey(KeyPairText),
    /// The leaf certificates of one device.
    ClientCertificates {
        /// First certificate.
        primary: CertificateText,
        /// Second certificate.
        secondary: Option<CertificateText>,
    },
    /// The certificates that sign the leaves of a group.
    SigningCertificates {
        /// First certificate.
        primary: CertificateText,
        /// Second certificate.
        secondary: Option<CertificateText>,
    },
    /// Names of certificate authorities of the provisioning service.
    CaReferences {
        /// First name.
        primary: String,
        /// Second name.
        secondary: Option<String>,
    },
    /// A TPM's endorsement key and, optionally, its storage root key (base64 of TPM2B_PUBLIC).
    Tpm {
        /// Endorsement key.
        endorsement_key: String,
        /// Storage root key.
        storage_root_key: Option<String>,
    },
}

/// A certificate: base64 of its DER form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CertificateText(pub String);

/// What a repeated registration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reprovision {
    /// Whether the hub is chosen anew.
    pub update_hub_assignment: bool,
    /// Whether the twin moves along.
    pub migrate_device_data: bool,
}

/// A custom allocation policy. The query of the address, which may hold the key of the web hook, is not in its `Debug`
/// output.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Where it is: `https://…`, or `nave:policy/NAME[@VERSION]`.
    pub url: String,
    /// The version of its contract.
    pub api_version: String,
    /// The configuration of a `nave:policy` for this enrollment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Json>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.url.split('?').next().unwrap_or_default();
        formatter.debug_struct("Webhook").field("url", &address).field("api_version", &self.api_version).finish()
    }
}

/// A certificate authority that was registered with a hub or the provisioning service. Key: `ca/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaRecord {
    /// Format version.
    pub v: FormatVersion,
    /// Its name.
    pub name: String,
    /// The certificate.
    pub certificate: CertificateText,
    /// Whether the uploader has shown possession of its private key. Only then is it trusted.
    pub verified: bool,
    /// The challenge that a proof certificate must carry as its subject's common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_code: Option<String>,
    /// When it was uploaded.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl Record for CaRecord {}
