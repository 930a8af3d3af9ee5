//! `/allocationPolicies`: custom allocation policies. Nave's own, beside the provisioning service's API and under its
//! authorisation: the right is `ServiceConfig`, because a policy decides about every device of every enrollment.
//!
//! | Request | Body | Answer |
//! |---|---|---|
//! | `GET /allocationPolicies` | | 200, an array of policies |
//! | `GET /allocationPolicies/{name}` | | 200, the policy |
//! | `PATCH /allocationPolicies/{name}` | `{"limits":{…},"debug":true}` | 200, the policy |
//! | `DELETE /allocationPolicies/{name}` | | 204 |
//! | `POST /allocationPolicies/{name}/activate` | `{"version":…,"canaryPercent":10,"maxErrorPercent":10}` | 200, the policy |
//! | `POST /allocationPolicies/{name}/rollback` | | 200, the policy |
//! | `POST /allocationPolicies/{name}/recording` | `{"count":100,"seconds":60}` | 200, the recording, without cases yet |
//! | `GET /allocationPolicies/{name}/recording` | | 200, the recording with its cases |
//! | `DELETE /allocationPolicies/{name}/recording` | | 204 |
//! | `PUT /allocationPolicies/{name}/versions/{version}` | the component | 200, the policy |
//! | `GET /allocationPolicies/{name}/versions/{version}` | | 200, the component |
//! | `DELETE /allocationPolicies/{name}/versions/{version}` | | 204 |
//!
//! Every change may carry `If-Match` with the policy's `etag`. An upload may carry its SHA-256 in `Content-Digest`
//! (RFC 9530: `sha-256=:BASE64:`), an Ed25519 signature in `x-nave-signature` (base64), which must be there where the service
//! has trusted keys, and where it is from in `x-nave-source`. A policy or version that an enrollment uses is deleted with
//! `force=true` only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};
use nave_hub::policy::{
    Activation, DEFAULT_MAX_ERROR_PERCENT, MAX_COMPONENT_BYTES, Policies, PolicySettings, Recording, SIGNATURE_LENGTH,
    Trial, Upload, VersionCounters,
};
use nave_hub::{ErrorCode, HubError};
use nave_model::{
    AllocationPolicyName, AllocationPolicyRecord, AllocationPolicyVersion, PolicyLimitsRecord, PolicyVersionRecord,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, argument, read_bytes, read_document};
use crate::reply::{self, Reply};
use crate::service::{Body, ResponseBody};

/// Longest body of a request other than an upload, in bytes.
const MAX_POLICY_BODY_BYTES: usize = 16 << 10;

/// The digest of a body (RFC 9530).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The signature of an upload, base64.
const SIGNATURE: HeaderName = HeaderName::from_static("x-nave-signature");

/// Where an uploaded component is from.
const SOURCE: HeaderName = HeaderName::from_static("x-nave-source");

/// `GET /allocationPolicies`.
pub(crate) async fn list(call: &Call) -> Result<Reply, HubError> {
    let policies = policies(call)?;
    let records = policies.list().await?;
    Ok(reply::ok(&Value::Array(records.iter().map(|record| policy_json(policies, record)).collect())))
}

/// `GET /allocationPolicies/{name}`.
pub(crate) async fn get(call: &Call) -> Result<Reply, HubError> {
    let policies = policies(call)?;
    Ok(policy(policies, &*policies.get(&name(call)?).await?))
}

/// `PATCH /allocationPolicies/{name}`.
pub(crate) async fn configure(call: &Call, body: Body) -> Result<Reply, HubError> {
    let settings: Settings = read_document(body, MAX_POLICY_BODY_BYTES).await?;
    let policies = policies(call)?;
    let settings = PolicySettings { limits: settings.limits, debug: settings.debug };
    Ok(policy(policies, &policies.configure(&name(call)?, settings, &call.if_match()).await?))
}

/// `DELETE /allocationPolicies/{name}`.
pub(crate) async fn delete(call: &Call) -> Result<Reply, HubError> {
    policies(call)?.delete(&name(call)?, force(call)?, &call.if_match()).await?;
    Ok(reply::no_content())
}

/// `POST /allocationPolicies/{name}/activate`.
pub(crate) async fn activate(call: &Call, body: Body) -> Result<Reply, HubError> {
    let wanted: Wanted = read_document(body, MAX_POLICY_BODY_BYTES).await?;
    let version = AllocationPolicyVersion::parse(&wanted.version).map_err(|error| argument(format!("{error}.")))?;
    if wanted.canary_percent.is_none() && wanted.max_error_percent.is_some() {
        return Err(argument("maxErrorPercent belongs to a canaryPercent."));
    }
    let trial = wanted.canary_percent.map(|percent| Trial {
        percent,
        max_error_percent: wanted.max_error_percent.unwrap_or(DEFAULT_MAX_ERROR_PERCENT),
    });
    let policies = policies(call)?;
    let activation = Activation { version, trial };
    Ok(policy(policies, &policies.activate(&name(call)?, activation, &call.if_match()).await?))
}

/// `POST /allocationPolicies/{name}/rollback`.
pub(crate) async fn roll_back(call: &Call) -> Result<Reply, HubError> {
    let policies = policies(call)?;
    Ok(policy(policies, &policies.roll_back(&name(call)?, &call.if_match()).await?))
}

/// `POST /allocationPolicies/{name}/recording`.
pub(crate) async fn record(call: &Call, body: Body) -> Result<Reply, HubError> {
    let wanted: WantedRecording = read_document(body, MAX_POLICY_BODY_BYTES).await?;
    let time = Duration::from_secs(wanted.seconds.into());
    Ok(reply::ok(&recording_json(&policies(call)?.record(&name(call)?, wanted.count, time).await?)))
}

/// `GET /allocationPolicies/{name}/recording`.
pub(crate) fn recording(call: &Call) -> Result<Reply, HubError> {
    Ok(reply::ok(&recording_json(&policies(call)?.recording(&name(call)?)?)))
}

/// `DELETE /allocationPolicies/{name}/recording`.
pub(crate) fn end_recording(call: &Call) -> Result<Reply, HubError> {
    policies(call)?.end_recording(&name(call)?)?;
    Ok(reply::no_content())
}

/// `PUT /allocationPolicies/{name}/versions/{version}`.
pub(crate) async fn push(call: &Call, body: Body) -> Result<Reply, HubError> {
    let (name, version) = (name(call)?, version(call)?);
    let digest = call.header(CONTENT_DIGEST).map(digest).transpose()?;
    let signature = call.header(SIGNATURE).map(signature).transpose()?;
    let source = call.header(SOURCE).map(str::to_owned);
    let policies = policies(call)?;
    let slot = policies.begin_upload()?;
    let component = read_bytes(body, MAX_COMPONENT_BYTES).await?;
    let upload = Upload { name, version, component, digest, signature, source };
    Ok(policy(policies, &policies.push(slot, upload, &call.if_match()).await?))
}

/// `GET /allocationPolicies/{name}/versions/{version}`.
pub(crate) async fn component(call: &Call) -> Result<Reply, HubError> {
    let bytes = policies(call)?.component(&name(call)?, &version(call)?).await?;
    let mut reply = Response::new(ResponseBody::from(bytes));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    Ok(reply)
}

/// `DELETE /allocationPolicies/{name}/versions/{version}`.
pub(crate) async fn delete_version(call: &Call) -> Result<Reply, HubError> {
    policies(call)?.delete_version(&name(call)?, &version(call)?, force(call)?, &call.if_match()).await?;
    Ok(reply::no_content())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    limits: Option<PolicyLimitsRecord>,
    debug: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    version: String,
    canary_percent: Option<u8>,
    max_error_percent: Option<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WantedRecording {
    count: u32,
    seconds: u32,
}

fn recording_json(recording: &Recording) -> Value {
    json!({
        "count": recording.wanted,
        "recorded": recording.cases.len(),
        "leftOut": recording.left_out,
        "isRunning": recording.is_running,
        "cases": recording.cases,
    })
}

fn policies(call: &Call) -> Result<&Arc<Policies>, HubError> {
    call.platform.provisioning().allocation_policies().ok_or_else(|| {
        HubError::new(ErrorCode::FeatureNotSupported, "This provisioning service has no custom allocation policies.")
    })
}

fn name(call: &Call) -> Result<AllocationPolicyName, HubError> {
    AllocationPolicyName::parse(call.target.segment(1)).map_err(|error| argument(format!("{error}.")))
}

/// Whether to delete what is in use.
fn force(call: &Call) -> Result<bool, HubError> {
    match call.target.parameter("force") {
        None => Ok(false),
        Some(text) => text.parse().map_err(|_| argument("force is true or false.")),
    }
}

fn version(call: &Call) -> Result<AllocationPolicyVersion, HubError> {
    AllocationPolicyVersion::parse(call.target.segment(3)).map_err(|error| argument(format!("{error}.")))
}

/// The SHA-256 among the digests of the header, in hexadecimal.
fn digest(header: &str) -> Result<String, HubError> {
    let wrong = || argument("Content-Digest has no sha-256=:BASE64: of 32 bytes.");
    let member = header.split(',').map(str::trim).find_map(|member| member.strip_prefix("sha-256=:"));
    let base64 = member.and_then(|member| member.strip_suffix(':')).ok_or_else(wrong)?;
    let bytes = STANDARD.decode(base64).ok().filter(|bytes| bytes.len() == 32).ok_or_else(wrong)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn signature(header: &str) -> Result<Vec<u8>, HubError> {
    let bytes = STANDARD.decode(header.trim()).ok().filter(|bytes| bytes.len() == SIGNATURE_LENGTH);
    bytes.ok_or_else(|| argument(format!("x-nave-signature is no base64 of {SIGNATURE_LENGTH} bytes.")))
}

fn policy(policies: &Policies, record: &AllocationPolicyRecord) -> Reply {
    reply::with_etag(reply::ok(&policy_json(policies, record)), &format!("\"{}\"", record.etag))
}

fn policy_json(policies: &Policies, record: &AllocationPolicyRecord) -> Value {
    let counters = policies.counters(record);
    let versions =
        record.versions.iter().zip(&counters).map(|(version, counters)| version_json(record, version, counters));
    let mut shown = json!({
        "name": record.name,
        "versions": versions.collect::<Vec<_>>(),
        "limits": record.limits,
        "debug": record.debug,
        // As everywhere in this API, the quotes belong to the text.
        "etag": format!("\"{}\"", record.etag),
        "createdDateTimeUtc": record.created.iso(),
        "lastUpdatedDateTimeUtc": record.updated.iso(),
    });
    let mut put = |name: &str, value: Value| {
        if let Some(members) = shown.as_object_mut() {
            members.insert(name.to_owned(), value);
        }
    };
    if let Some(active) = &record.active {
        put("active", json!(active));
    }
    if let Some(previous) = &record.previous {
        put("previous", json!(previous));
    }
    if let Some(canary) = &record.canary {
        put(
            "canary",
            json!({
                "version": canary.version,
                "percent": canary.percent,
                "maxErrorPercent": canary.max_error_percent,
                "startedDateTimeUtc": canary.started.iso(),
            }),
        );
    }
    if let Some(returned) = &record.returned {
        put(
            "returned",
            json!({
                "version": returned.version,
                "decisions": returned.decisions,
                "errors": returned.errors,
                "dateTimeUtc": returned.at.iso(),
            }),
        );
    }
    shown
}

fn version_json(record: &AllocationPolicyRecord, version: &PolicyVersionRecord, counters: &VersionCounters) -> Value {
    let role = if record.active.as_ref() == Some(&version.version) {
        "active"
    } else if record.canary.as_ref().is_some_and(|canary| canary.version == version.version) {
        "canary"
    } else if record.previous.as_ref() == Some(&version.version) {
        "previous"
    } else {
        "idle"
    };
    let mut shown = json!({
        "version": version.version,
        "role": role,
        "digest": format!("sha256:{}", version.digest),
        "size": version.size,
        "contract": version.contract,
        "createdDateTimeUtc": version.created.iso(),
        "statistics": {
            "decisions": counters.decisions,
            "assigned": counters.assigned,
            "delegated": counters.delegated,
            "refused": counters.refused,
            "postponed": counters.postponed,
            "overflowed": counters.overflowed,
            "failed": counters.failed(),
            "errors": counters.errors,
        },
    });
    if let Some(members) = shown.as_object_mut() {
        if let Some(schema) = &version.schema {
            members.insert("configurationSchema".to_owned(), schema.value().unwrap_or(Value::Null));
        }
        if let Some(source) = &version.source {
            members.insert("source".to_owned(), json!(source));
        }
        if let Some(key) = &version.signed_by {
            members.insert("signedBy".to_owned(), json!(key));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_signatures_are_read_or_refused() {
        let hex = digest("sha-512=:AAAA:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:").unwrap();
        assert_eq!(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for wrong in ["", "sha-256=:AAAA:", "sha-256=47DE", "md5=:AAAA:"] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
        assert_eq!(signature(&STANDARD.encode([7; 64])).unwrap(), vec![7; 64]);
        assert!(signature("AAAA").is_err());
    }
}
