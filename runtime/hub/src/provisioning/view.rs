//! Registrations as the device API and the service API show them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_auth::CertificateInfo;
use nave_model::{EnrollmentKind, RegistrationRecord, RegistrationStatus};
use serde_json::{Map, Value, json};

use super::Operation;

/// The answer to a register or status request (protocol notes: provisioning devices §2.2). While the operation is not
/// final it shows nothing but that; an operation that was just accepted is shown the same way.
pub fn operation_json(operation: &Operation, accepted_only: bool) -> Value {
    if accepted_only || operation.state.status == RegistrationStatus::Assigning {
        return json!({
            "operationId": operation.id,
            "status": RegistrationStatus::Assigning.name(),
            "registrationState": {
                "registrationId": operation.state.registration_id,
                "status": RegistrationStatus::Assigning.name(),
            },
        });
    }
    json!({
        "operationId": operation.id,
        "status": operation.state.status.name(),
        "registrationState": registration_json(&operation.state),
    })
}

/// A registration's state.
pub fn registration_json(record: &RegistrationRecord) -> Value {
    let mut state = Map::new();
    let group = match record.enrollment_kind {
        EnrollmentKind::Group => json!({ "enrollmentGroupId": record.enrollment_id }),
        EnrollmentKind::Individual => json!({}),
    };
    let attestation = match (&record.certificate, group) {
        (Some(certificate), Value::Object(mut members)) => {
            if let Some(info) = certificate_info(certificate) {
                members.insert("certificateInfo".to_owned(), info);
            }
            Value::Object(members)
        }
        (_, group) => group,
    };
    state.insert(record.attestation.clone(), attestation);
    state.insert("registrationId".to_owned(), json!(record.registration_id));
    state.insert("createdDateTimeUtc".to_owned(), json!(record.created.iso()));
    if record.status == RegistrationStatus::Assigned {
        state.insert("assignedHub".to_owned(), json!(record.hub));
        state.insert("deviceId".to_owned(), json!(record.device_id));
    }
    state.insert("status".to_owned(), json!(record.status.name()));
    if let (RegistrationStatus::Assigned, Some(substatus)) = (record.status, record.substatus) {
        state.insert("substatus".to_owned(), json!(substatus.name()));
    }
    if let Some(code) = record.error_code {
        state.insert("errorCode".to_owned(), json!(code));
        state.insert("errorMessage".to_owned(), json!(record.error_message));
    }
    state.insert("lastUpdatedDateTimeUtc".to_owned(), json!(record.updated.iso()));
    state.insert("etag".to_owned(), json!(STANDARD.encode(format!("\"{}\"", record.etag))));
    if let (RegistrationStatus::Assigned, Some(payload)) = (record.status, &record.payload) {
        state.insert("payload".to_owned(), payload.value().unwrap_or(Value::Null));
    }
    Value::Object(state)
}

pub(super) fn certificate_info(certificate: &str) -> Option<Value> {
    let info = CertificateInfo::parse(&STANDARD.decode(certificate).ok()?).ok()?;
    Some(info_json(&info))
}

/// What a certificate says, as the service shows it: no member is null, because the Java SDK refuses that.
pub fn info_json(info: &CertificateInfo) -> Value {
    json!({
        "subjectName": info.subject_name,
        "sha1Thumbprint": info.sha1_thumbprint.to_string(),
        "sha256Thumbprint": info.sha256_thumbprint.to_string(),
        "issuerName": info.issuer_name,
        "notBeforeUtc": info.not_before.iso(),
        "notAfterUtc": info.not_after.iso(),
        "serialNumber": info.serial_number,
        "version": info.version,
    })
}
