//! Enrollments as JSON documents (protocol notes: provisioning service §3): for services, and for allocation policies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_auth::CertificateInfo;
use nave_model::{AttestationRecord, CertificateText, EnrollmentKind, EnrollmentRecord, Json, Reprovision};
use serde_json::{Map, Value, json};

use super::view::info_json;
use crate::error::HubError;

/// Whether keys and certificates appear in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// They do not.
    Hidden,
    /// They do.
    Shown,
}

/// An enrollment as services see it: without secrets, without null members.
///
/// # Errors
///
/// A stored document or certificate that cannot be read: the store is damaged.
pub fn enrollment_json(record: &EnrollmentRecord, registration: Option<Value>) -> Result<Value, HubError> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
    put(id_member(record.kind), json!(record.id));
    if record.kind == EnrollmentKind::Individual {
        if let Some(device) = &record.device_id {
            put("deviceId", json!(device));
        }
        if let Some(registration) = registration {
            put("registrationState", registration);
        }
        if let Some(information) = &record.optional_device_information {
            put("optionalDeviceInformation", document(information)?);
        }
    }
    put("attestation", attestation_json(&record.attestation, Secrets::Hidden)?);
    put("capabilities", json!({ "iotEdge": record.iot_edge }));
    if let Some(hub) = &record.hub_host_name {
        put("iotHubHostName", json!(hub));
    }
    if let Some(twin) = &record.initial_twin {
        put("initialTwin", document(twin)?);
    }
    // The quotes belong to the text (protocol notes: provisioning service §1).
    put("etag", json!(format!("\"{}\"", record.etag)));
    put("provisioningStatus", json!(if record.enabled { "enabled" } else { "disabled" }));
    let policy = record.reprovision.unwrap_or(Reprovision { update_hub_assignment: true, migrate_device_data: true });
    put(
        "reprovisionPolicy",
        json!({
            "updateHubAssignment": policy.update_hub_assignment,
            "migrateDeviceData": policy.migrate_device_data,
        }),
    );
    put("createdDateTimeUtc", json!(record.created.iso()));
    put("lastUpdatedDateTimeUtc", json!(record.updated.iso()));
    if let Some(policy) = &record.allocation_policy {
        put("allocationPolicy", json!(policy));
    }
    if !record.hubs.is_empty() {
        put("iotHubs", json!(record.hubs));
    }
    if let Some(webhook) = &record.webhook {
        let mut definition = json!({ "webhookUrl": webhook.url, "apiVersion": webhook.api_version });
        if let (Some(configuration), Some(members)) = (&webhook.configuration, definition.as_object_mut()) {
            members.insert("configuration".to_owned(), document(configuration)?);
        }
        put("customAllocationDefinition", definition);
    }
    Ok(Value::Object(members))
}

/// The attestation. `type` comes last, because the .NET SDK's setters of the other members change it. Without its keys
/// `symmetricKey` is an empty object, because the Java SDK wants one.
///
/// # Errors
///
/// As [`enrollment_json`].
pub fn attestation_json(attestation: &AttestationRecord, secrets: Secrets) -> Result<Value, HubError> {
    Ok(match attestation {
        AttestationRecord::SymmetricKey(keys) => {
            let keys = match secrets {
                Secrets::Hidden => json!({}),
                Secrets::Shown => {
                    json!({ "primaryKey": keys.primary.reveal(), "secondaryKey": keys.secondary.reveal() })
                }
            };
            json!({ "symmetricKey": keys, "type": "symmetricKey" })
        }
        AttestationRecord::ClientCertificates { primary, secondary } => {
            json!({ "x509": { "clientCertificates": certificates(primary, secondary.as_ref(), secrets)? }, "type": "x509" })
        }
        AttestationRecord::SigningCertificates { primary, secondary } => {
            json!({ "x509": { "signingCertificates": certificates(primary, secondary.as_ref(), secrets)? }, "type": "x509" })
        }
        AttestationRecord::CaReferences { primary, secondary } => {
            let mut pair = json!({ "primary": primary });
            if let (Some(secondary), Some(members)) = (secondary, pair.as_object_mut()) {
                members.insert("secondary".to_owned(), json!(secondary));
            }
            json!({ "x509": { "caReferences": pair }, "type": "x509" })
        }
        AttestationRecord::Tpm { endorsement_key, storage_root_key } => {
            let mut tpm = json!({ "endorsementKey": endorsement_key });
            if let (Some(key), Some(members)) = (storage_root_key, tpm.as_object_mut()) {
                members.insert("storageRootKey".to_owned(), json!(key));
            }
            json!({ "tpm": tpm, "type": "tpm" })
        }
    })
}

/// The member that holds the id.
pub const fn id_member(kind: EnrollmentKind) -> &'static str {
    match kind {
        EnrollmentKind::Individual => "registrationId",
        EnrollmentKind::Group => "enrollmentGroupId",
    }
}

fn certificates(
    primary: &CertificateText,
    secondary: Option<&CertificateText>,
    secrets: Secrets,
) -> Result<Value, HubError> {
    let mut members = Map::new();
    for (name, certificate) in [("primary", Some(primary)), ("secondary", secondary)] {
        let Some(certificate) = certificate else { continue };
        let der = STANDARD.decode(&certificate.0).map_err(HubError::internal)?;
        let info = CertificateInfo::parse(&der).map_err(HubError::internal)?;
        let mut shown = Map::new();
        if secrets == Secrets::Shown {
            shown.insert("certificate".to_owned(), json!(certificate.0));
        }
        shown.insert("info".to_owned(), info_json(&info));
        members.insert(name.to_owned(), Value::Object(shown));
    }
    Ok(Value::Object(members))
}

fn document(json: &Json) -> Result<Value, HubError> {
    json.value().map_err(HubError::internal)
}
