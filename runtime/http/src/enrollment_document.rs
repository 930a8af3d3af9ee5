//! Enrollments as JSON documents, read from requests (protocol notes: provisioning service §3). How they are written into
//! responses is in `nave_hub::provisioning`, because allocation policies read them too.

use nave_hub::HubError;
use nave_hub::provisioning::{AttestationInput, EnrollmentInput, id_member};
use nave_model::{EnrollmentKind, Json, Reprovision, Webhook};
use serde::Deserialize;

use crate::call::argument;
use crate::shared_document::{Capabilities, SymmetricKey};

/// The names of allocation policies as they are written in answers.
const POLICIES: [&str; 4] = ["hashed", "geoLatency", "static", "custom"];

/// The members of an enrollment that count; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Document {
    registration_id: Option<String>,
    enrollment_group_id: Option<String>,
    device_id: Option<String>,
    optional_device_information: Option<Json>,
    attestation: Option<Attestation>,
    capabilities: Option<Capabilities>,
    iot_hub_host_name: Option<String>,
    initial_twin: Option<Json>,
    pub(crate) etag: Option<String>,
    provisioning_status: Option<String>,
    reprovision_policy: Option<ReprovisionPolicy>,
    allocation_policy: Option<String>,
    iot_hubs: Option<Vec<String>>,
    custom_allocation_definition: Option<CustomAllocation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attestation {
    r#type: Option<String>,
    tpm: Option<Tpm>,
    x509: Option<X509>,
    symmetric_key: Option<SymmetricKey>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Tpm {
    endorsement_key: Option<String>,
    storage_root_key: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct X509 {
    client_certificates: Option<Pair<Certificate>>,
    signing_certificates: Option<Pair<Certificate>>,
    ca_references: Option<Pair<String>>,
}

#[derive(Deserialize)]
struct Pair<T> {
    primary: Option<T>,
    secondary: Option<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Certificate {
    certificate: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReprovisionPolicy {
    update_hub_assignment: Option<bool>,
    migrate_device_data: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CustomAllocation {
    webhook_url: Option<String>,
    api_version: Option<String>,
    /// Nave's own: the configuration of the policy. Null is not the same as nothing, which leaves what is stored.
    #[serde(deserialize_with = "also_null")]
    configuration: Option<Json>,
}

impl Document {
    /// The enrollment's id as it is written in the document; empty if it is not.
    pub(crate) fn id(&self, kind: EnrollmentKind) -> &str {
        let id = match kind {
            EnrollmentKind::Individual => &self.registration_id,
            EnrollmentKind::Group => &self.enrollment_group_id,
        };
        id.as_deref().unwrap_or_default()
    }

    /// What is asked for. `id` is the path's, with which the document must agree, ignoring case, if it says anything.
    pub(crate) fn into_input(self, kind: EnrollmentKind, id: Option<&str>) -> Result<EnrollmentInput, HubError> {
        let written = self.id(kind);
        let id = match id {
            Some(id) if written.is_empty() || written.eq_ignore_ascii_case(id) => id.to_owned(),
            Some(_) => return Err(argument(format!("{} in the body is not the id of the path.", id_member(kind)))),
            None => written.to_owned(),
        };
        let attestation = self.attestation.ok_or_else(|| argument("The enrollment has no attestation."))?;
        Ok(EnrollmentInput {
            kind,
            id,
            device_id: self.device_id,
            attestation: attestation.into_input(kind)?,
            enabled: enabled(self.provisioning_status.as_deref())?,
            iot_edge: self.capabilities.unwrap_or_default().iot_edge.unwrap_or(false),
            hub_host_name: self.iot_hub_host_name,
            initial_twin: readable("initialTwin", self.initial_twin)?,
            optional_device_information: readable("optionalDeviceInformation", self.optional_device_information)?,
            reprovision: self.reprovision_policy.map(|policy| Reprovision {
                update_hub_assignment: policy.update_hub_assignment.unwrap_or(true),
                migrate_device_data: policy.migrate_device_data.unwrap_or(true),
            }),
            allocation_policy: self.allocation_policy.map(|policy| canonical_policy(&policy)),
            hubs: self.iot_hubs.unwrap_or_default(),
            webhook: self.custom_allocation_definition.and_then(|definition| {
                let url = definition.webhook_url.filter(|url| !url.is_empty())?;
                Some(Webhook {
                    url,
                    api_version: definition.api_version.unwrap_or_default(),
                    configuration: definition.configuration,
                })
            }),
        })
    }
}

impl Attestation {
    fn into_input(self, kind: EnrollmentKind) -> Result<AttestationInput, HubError> {
        let named = self.r#type.as_deref().map(str::to_ascii_lowercase);
        let by_members = match (&self.tpm, &self.x509, &self.symmetric_key) {
            (Some(_), None, None) => "tpm",
            (None, Some(_), None) => "x509",
            (None, None, Some(_)) => "symmetrickey",
            _ => "",
        };
        match named.as_deref().unwrap_or(by_members) {
            "symmetrickey" => {
                let keys = self.symmetric_key.unwrap_or_default();
                Ok(AttestationInput::SymmetricKey { primary: keys.primary_key, secondary: keys.secondary_key })
            }
            "x509" => self.x509.unwrap_or_default().into_input(kind),
            "tpm" => {
                let tpm = self.tpm.unwrap_or_default();
                let endorsement_key = tpm.endorsement_key.filter(|key| !key.is_empty());
                let endorsement_key =
                    endorsement_key.ok_or_else(|| argument("A TPM attestation needs an endorsementKey."))?;
                Ok(AttestationInput::Tpm { endorsement_key, storage_root_key: tpm.storage_root_key })
            }
            _ => Err(argument("The attestation's type is none of symmetricKey, x509, tpm.")),
        }
    }
}

impl X509 {
    fn into_input(self, kind: EnrollmentKind) -> Result<AttestationInput, HubError> {
        let (certificates, misplaced, expected) = match kind {
            EnrollmentKind::Individual => (self.client_certificates, self.signing_certificates, "clientCertificates"),
            EnrollmentKind::Group => (self.signing_certificates, self.client_certificates, "signingCertificates"),
        };
        if let Some(references) = self.ca_references {
            if certificates.is_some() {
                return Err(argument(format!("An X.509 attestation has {expected} or caReferences, not both.")));
            }
            let primary = references.primary.filter(|name| !name.is_empty());
            let primary = primary.ok_or_else(|| argument("caReferences needs a primary name."))?;
            return Ok(AttestationInput::CaReferences { primary, secondary: references.secondary });
        }
        match (certificates, misplaced) {
            (Some(pair), _) => {
                let text = |certificate: Option<Certificate>| certificate.and_then(|with| with.certificate);
                Ok(AttestationInput::X509 { primary: text(pair.primary), secondary: text(pair.secondary) })
            }
            (None, Some(_)) => Err(argument(format!("This kind of enrollment has {expected} or caReferences."))),
            // An update that keeps the stored certificates.
            (None, None) => Ok(AttestationInput::X509 { primary: None, secondary: None }),
        }
    }
}

/// A document that can be shown again: its text was only skipped so far, however deep it is.
fn readable(name: &str, json: Option<Json>) -> Result<Option<Json>, HubError> {
    match json.as_ref().map(Json::value) {
        Some(Err(_)) => Err(argument(format!("{name} is nested too deeply or has a number that is too large."))),
        _ => Ok(json),
    }
}

/// A policy that is known in any case gets its usual spelling; the hub refuses others.
fn canonical_policy(policy: &str) -> String {
    let known = POLICIES.iter().find(|known| known.eq_ignore_ascii_case(policy));
    known.map_or_else(|| policy.to_owned(), |known| (*known).to_owned())
}

fn enabled(status: Option<&str>) -> Result<bool, HubError> {
    match status {
        None | Some("") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("enabled") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("disabled") => Ok(false),
        Some(_) => Err(argument("provisioningStatus is neither enabled nor disabled.")),
    }
}

fn also_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}
