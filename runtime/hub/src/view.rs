//! Records as the service API shows them.
//!
//! The order of members is part of the form: the .NET SDK's setters change `type` as they run, so `type` comes last inside
//! `authentication` (protocol notes: service REST §2.2). Sections are spliced together as text; the function that made them
//! guarantees that they are canonical objects.

use nave_model::{Authentication, DeviceRecord, DeviceStatus, IdentityEtag, Json, SectionRecord, Timestamp, TwinEtag};
use serde_json::{Value, json};

use crate::presence::Connection;

/// "Never", for times of an identity.
const NEVER: &str = "0001-01-01T00:00:00";

/// "Never", for times of a twin.
const TWIN_NEVER: &str = "0001-01-01T00:00:00Z";

/// The identity of a device, for which `queued` messages wait, or module. A module has only some of the members.
pub(crate) fn identity_json(record: &DeviceRecord, connection: &Connection, queued: usize) -> Value {
    let never = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), Timestamp::iso);
    let changed = never(connection.changed);
    let last_activity = never(connection.last_activity);
    let etag = IdentityEtag::new(record.etag).to_string();
    if let Some(module) = &record.module_id {
        return json!({
            "moduleId": module,
            "managedBy": record.managed_by,
            "deviceId": record.device_id,
            "generationId": record.generation_id,
            "etag": etag,
            "connectionState": state_name(connection),
            "connectionStateUpdatedTime": changed,
            "lastActivityTime": last_activity,
            "cloudToDeviceMessageCount": queued,
            "authentication": authentication_json(&record.authentication),
        });
    }
    let mut identity = json!({
        "deviceId": record.device_id,
        "generationId": record.generation_id,
        "etag": etag,
        "connectionState": state_name(connection),
        "status": status_name(record.status),
        "statusReason": record.status_reason,
        "connectionStateUpdatedTime": changed,
        "statusUpdatedTime": never(record.status_updated),
        "lastActivityTime": last_activity,
        "cloudToDeviceMessageCount": queued,
        "authentication": authentication_json(&record.authentication),
        "capabilities": { "iotEdge": record.iot_edge },
    });
    add_scopes(&mut identity, record);
    identity
}

const fn state_name(connection: &Connection) -> &'static str {
    if connection.connected { "Connected" } else { "Disconnected" }
}

/// Scopes are shown where there are some (protocol notes: REST §2.2).
fn add_scopes(object: &mut Value, record: &DeviceRecord) {
    let Some(members) = object.as_object_mut() else { return };
    if let Some(scope) = &record.device_scope {
        members.insert("deviceScope".to_owned(), scope.as_str().into());
    }
    if !record.parent_scopes.is_empty() {
        members.insert("parentScopes".to_owned(), record.parent_scopes.clone().into());
    }
}

fn authentication_json(authentication: &Authentication) -> Value {
    let (keys, thumbprints) = match authentication {
        Authentication::Sas(keys) => (Some(keys), None),
        Authentication::SelfSigned(thumbprints) => (None, Some(thumbprints)),
        Authentication::CertificateAuthority | Authentication::None => (None, None),
    };
    json!({
        "symmetricKey": {
            "primaryKey": keys.map(|keys| keys.primary.reveal()),
            "secondaryKey": keys.map(|keys| keys.secondary.reveal()),
        },
        "x509Thumbprint": {
            "primaryThumbprint": thumbprints.and_then(|pair| pair.primary.as_deref()),
            "secondaryThumbprint": thumbprints.and_then(|pair| pair.secondary.as_deref()),
        },
        "type": authentication_name(authentication),
    })
}

/// The twin as services see it.
pub(crate) fn twin_json(record: &DeviceRecord, connection: &Connection, queued: usize) -> String {
    let never = |time: Option<Timestamp>| time.map_or_else(|| TWIN_NEVER.to_owned(), Timestamp::iso);
    let (primary, secondary) = match &record.authentication {
        Authentication::SelfSigned(pair) => (pair.primary.as_deref(), pair.secondary.as_deref()),
        _ => (None, None),
    };
    let mut head = serde_json::Map::new();
    head.insert("deviceId".to_owned(), record.device_id.as_str().into());
    if let Some(module) = &record.module_id {
        head.insert("moduleId".to_owned(), module.as_str().into());
    }
    head.insert("etag".to_owned(), TwinEtag::new(record.twin.etag).to_string().into());
    head.insert("deviceEtag".to_owned(), IdentityEtag::new(record.etag).to_string().into());
    head.insert("status".to_owned(), status_name(record.status).into());
    if let Some(reason) = &record.status_reason {
        head.insert("statusReason".to_owned(), reason.as_str().into());
    }
    let middle = json!({
        "statusUpdateTime": never(record.status_updated),
        "connectionState": state_name(connection),
        "lastActivityTime": never(connection.last_activity),
        "cloudToDeviceMessageCount": queued,
        "authenticationType": authentication_name(&record.authentication),
        "x509Thumbprint": { "primaryThumbprint": primary, "secondaryThumbprint": secondary },
        "modelId": record.twin.model_id.as_deref().unwrap_or(""),
        "version": record.twin.version,
    });
    let mut tail = json!({});
    if record.module_id.is_none() {
        tail = json!({ "capabilities": { "iotEdge": record.iot_edge } });
        add_scopes(&mut tail, record);
    }
    let tail = tail.to_string();
    let tail = members(&tail);
    format!(
        "{{{},{},\"tags\":{},{}{}{tail}}}",
        members(&Value::Object(head).to_string()),
        members(&middle.to_string()),
        record.twin.tags.text(),
        properties(record),
        if tail.is_empty() { "" } else { "," },
    )
}

/// The body of a `replaceTwin` event: the twin without what is volatile.
pub(crate) fn twin_event_json(record: &DeviceRecord) -> String {
    format!("{{{},\"tags\":{},{}}}", event_head(record), record.twin.tags.text(), properties(record))
}

/// The body of life-cycle events: the twin without what is volatile and without tags (protocol notes: routing §7).
pub(crate) fn lifecycle_json(record: &DeviceRecord) -> String {
    format!("{{{},{}}}", event_head(record), properties(record))
}

fn event_head(record: &DeviceRecord) -> String {
    let mut head = serde_json::Map::new();
    head.insert("deviceId".to_owned(), record.device_id.as_str().into());
    if let Some(module) = &record.module_id {
        head.insert("moduleId".to_owned(), module.as_str().into());
    }
    head.insert("etag".to_owned(), TwinEtag::new(record.twin.etag).to_string().into());
    head.insert("version".to_owned(), record.twin.version.into());
    members(&Value::Object(head).to_string()).to_owned()
}

/// The twin as the device sees it: the two property sections with their versions.
pub(crate) fn device_twin_json(record: &DeviceRecord) -> String {
    let section = |section: &SectionRecord| with_members(&section.json, &format!("\"$version\":{}", section.version));
    format!("{{\"desired\":{},\"reported\":{}}}", section(&record.twin.desired), section(&record.twin.reported))
}

/// The same for a device that asked with what it knows: it is told how to say so.
pub(crate) fn device_twin_with_lineage_json(record: &DeviceRecord, lineage: &str) -> String {
    let twin = &record.twin;
    let desired = format!("\"$version\":{},\"$lineage\":\"{lineage}\"", twin.desired.version);
    let reported = format!("\"$version\":{}", twin.reported.version);
    let sections = (with_members(&twin.desired.json, &desired), with_members(&twin.reported.json, &reported));
    format!("{{\"desired\":{},\"reported\":{}}}", sections.0, sections.1)
}

/// What is new to a device since a version. What it reported itself is not sent.
pub(crate) fn caught_up_json(record: &DeviceRecord, missed: &Json, since: u64, lineage: &str) -> String {
    let (desired, reported) = (record.twin.desired.version, record.twin.reported.version);
    let more = format!("\"$since\":{since},\"$version\":{desired},\"$lineage\":\"{lineage}\"");
    format!("{{\"desired\":{},\"reported\":{{\"$version\":{reported}}}}}", with_members(missed, &more))
}

fn properties(record: &DeviceRecord) -> String {
    format!(
        "\"properties\":{{\"desired\":{},\"reported\":{}}}",
        section_json(&record.twin.desired),
        section_json(&record.twin.reported)
    )
}

pub(crate) fn section_json(section: &SectionRecord) -> String {
    with_members(&section.json, &format!("\"$metadata\":{},\"$version\":{}", section.metadata.text(), section.version))
}

/// `object` with further members at its end.
fn with_members(object: &Json, more: &str) -> String {
    let inner = members(object.text());
    if inner.is_empty() { format!("{{{more}}}") } else { format!("{{{inner},{more}}}") }
}

/// What stands between the braces of an object's text.
fn members(object: &str) -> &str {
    object.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or("").trim()
}

pub(crate) const fn status_name(status: DeviceStatus) -> &'static str {
    match status {
        DeviceStatus::Enabled => "enabled",
        DeviceStatus::Disabled => "disabled",
    }
}

const fn authentication_name(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::Sas(_) => "sas",
        Authentication::SelfSigned(_) => "selfSigned",
        Authentication::CertificateAuthority => "certificateAuthority",
        Authentication::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use nave_model::{KeyPairText, SecretText, ThumbprintPair, TwinRecord};

    use super::*;

    fn record(authentication: Authentication) -> DeviceRecord {
        let mut twin = TwinRecord { version: 2, etag: 1, ..TwinRecord::default() };
        twin.desired.json = Json::parse(r#"{"x":1}"#.into()).unwrap();
        twin.desired.version = 3;
        twin.reported.version = 1;
        DeviceRecord::new(
            &nave_model::Identity::parse("d1").unwrap(),
            "1".into(),
            authentication,
            twin,
            Timestamp::default(),
        )
    }

    #[test]
    fn the_device_sees_values_and_versions_only() {
        let record = record(Authentication::CertificateAuthority);
        assert_eq!(device_twin_json(&record), r#"{"desired":{"x":1,"$version":3},"reported":{"$version":1}}"#);
    }

    #[test]
    fn the_service_twin_is_json_with_metadata() {
        let pair = ThumbprintPair { primary: Some("AB".into()), secondary: None };
        let text = twin_json(&record(Authentication::SelfSigned(pair)), &Connection::default(), 2);
        let twin: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(twin["etag"], "AAAAAAAAAAE=");
        assert_eq!(twin["properties"]["desired"]["$version"], 3);
        assert_eq!(twin["properties"]["reported"]["$metadata"], json!({}));
        assert_eq!(twin["x509Thumbprint"]["primaryThumbprint"], "AB");
        assert_eq!(twin["connectionState"], "Disconnected");
        assert_eq!(twin["cloudToDeviceMessageCount"], 2);
        assert!(twin.get("statusReason").is_none());
    }

    #[test]
    fn the_type_comes_last() {
        let keys = KeyPairText { primary: SecretText::new("a".into()), secondary: SecretText::new("b".into()) };
        let text =
            identity_json(&record(Authentication::Sas(keys)), &Connection::default(), 0)["authentication"].to_string();
        assert!(text.ends_with(r#""type":"sas"}"#), "{text}");
    }
}
