//! Records as the service API shows them.
//!
//! The order of members is part of the form: the .NET SDK's setters change `type` as they run, so `type` comes last inside
//! `authentication` (protocol notes: service REST §2.2). Sections are spliced together as text; the function that made them
//! guarantees that they are canonical objects.

use nave_model::{Authentication, DeviceRecord, DeviceStatus, IdentityEtag, Json, SectionRecord, Timestamp, TwinEtag};
use serde_json::{Value, json};

/// "Never", for times of an identity.
const NEVER: &str = "0001-01-01T00:00:00";

/// "Never", for times of a twin.
const TWIN_NEVER: &str = "0001-01-01T00:00:00Z";

/// What a host knows of a device's connection besides its record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connection {
    /// Since when it is connected, if it is.
    pub(crate) connected_since: Option<Timestamp>,
    /// When it last sent something, as far as this host remembers.
    pub(crate) last_activity: Option<Timestamp>,
}

impl Connection {
    const fn state(&self) -> &'static str {
        if self.connected_since.is_some() { "Connected" } else { "Disconnected" }
    }
}

/// A device identity.
pub(crate) fn identity_json(record: &DeviceRecord, connection: &Connection) -> Value {
    let never = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), Timestamp::iso);
    json!({
        "deviceId": record.device_id,
        "generationId": record.generation_id,
        "etag": IdentityEtag::new(record.etag).to_string(),
        "connectionState": connection.state(),
        "status": status_name(record.status),
        "statusReason": record.status_reason,
        "connectionStateUpdatedTime": never(connection.connected_since),
        "statusUpdatedTime": never(record.status_updated),
        "lastActivityTime": never(connection.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authentication": authentication_json(&record.authentication),
        "capabilities": { "iotEdge": record.iot_edge },
    })
}

fn authentication_json(authentication: &Authentication) -> Value {
    let (keys, thumbprints) = match authentication {
        Authentication::Sas(keys) => (Some(keys), None),
        Authentication::SelfSigned(thumbprints) => (None, Some(thumbprints)),
        Authentication::CertificateAuthority => (None, None),
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
pub(crate) fn twin_json(record: &DeviceRecord, connection: &Connection) -> String {
    let never = |time: Option<Timestamp>| time.map_or_else(|| TWIN_NEVER.to_owned(), Timestamp::iso);
    let (primary, secondary) = match &record.authentication {
        Authentication::SelfSigned(pair) => (pair.primary.as_deref(), pair.secondary.as_deref()),
        _ => (None, None),
    };
    let mut head = json!({
        "deviceId": record.device_id,
        "etag": TwinEtag::new(record.twin.etag).to_string(),
        "deviceEtag": IdentityEtag::new(record.etag).to_string(),
        "status": status_name(record.status),
    });
    if let (Some(reason), Some(members)) = (&record.status_reason, head.as_object_mut()) {
        members.insert("statusReason".to_owned(), Value::String(reason.clone()));
    }
    let middle = json!({
        "statusUpdateTime": never(record.status_updated),
        "connectionState": connection.state(),
        "lastActivityTime": never(connection.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authenticationType": authentication_name(&record.authentication),
        "x509Thumbprint": { "primaryThumbprint": primary, "secondaryThumbprint": secondary },
        "modelId": record.twin.model_id.as_deref().unwrap_or(""),
        "version": record.twin.version,
    });
    let capabilities = json!({ "capabilities": { "iotEdge": record.iot_edge } });
    format!(
        "{{{},{},\"tags\":{},{},{}}}",
        members(&head.to_string()),
        members(&middle.to_string()),
        record.twin.tags.text(),
        properties(record),
        members(&capabilities.to_string()),
    )
}

/// The body of a `replaceTwin` event and of life-cycle events: the twin without what is volatile.
pub(crate) fn twin_event_json(record: &DeviceRecord) -> String {
    let head = json!({
        "deviceId": record.device_id,
        "etag": TwinEtag::new(record.twin.etag).to_string(),
        "version": record.twin.version,
    });
    format!("{{{},\"tags\":{},{}}}", members(&head.to_string()), record.twin.tags.text(), properties(record))
}

/// The twin as the device sees it: the two property sections with their versions.
pub(crate) fn device_twin_json(record: &DeviceRecord) -> String {
    let section = |section: &SectionRecord| with_members(&section.json, &format!("\"$version\":{}", section.version));
    format!("{{\"desired\":{},\"reported\":{}}}", section(&record.twin.desired), section(&record.twin.reported))
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
        DeviceRecord::new("d1", "1".into(), authentication, twin, Timestamp::default())
    }

    #[test]
    fn the_device_sees_values_and_versions_only() {
        let record = record(Authentication::CertificateAuthority);
        assert_eq!(device_twin_json(&record), r#"{"desired":{"x":1,"$version":3},"reported":{"$version":1}}"#);
    }

    #[test]
    fn the_service_twin_is_json_with_metadata() {
        let pair = ThumbprintPair { primary: Some("AB".into()), secondary: None };
        let text = twin_json(&record(Authentication::SelfSigned(pair)), &Connection::default());
        let twin: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(twin["etag"], "AAAAAAAAAAE=");
        assert_eq!(twin["properties"]["desired"]["$version"], 3);
        assert_eq!(twin["properties"]["reported"]["$metadata"], json!({}));
        assert_eq!(twin["x509Thumbprint"]["primaryThumbprint"], "AB");
        assert_eq!(twin["connectionState"], "Disconnected");
        assert!(twin.get("statusReason").is_none());
    }

    #[test]
    fn the_type_comes_last() {
        let keys = KeyPairText { primary: SecretText::new("a".into()), secondary: SecretText::new("b".into()) };
        let text =
            identity_json(&record(Authentication::Sas(keys)), &Connection::default())["authentication"].to_string();
        assert!(text.ends_with(r#""type":"sas"}"#), "{text}");
    }
}
