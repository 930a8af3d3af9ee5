//! Properties of messages as HTTP headers, and as the members of a batch that have the same names (protocol notes: device HTTPS
//! §2, §3).
//!
//! The case of a header's name is lost: the names of application properties arrive, and leave, in lower case. In a batch they
//! keep their case.

use http::{HeaderMap, HeaderName, HeaderValue};
use nave_hub::{ErrorCode, HubError, system};

use crate::call::argument;

/// Before the name of an application property.
pub(crate) const APPLICATION_PREFIX: &str = "iothub-app-";

/// System properties by their headers. Of several headers for one property the first is the one that we write.
const SYSTEM: &[(&str, &str)] = &[
    ("iothub-messageid", system::MESSAGE_ID),
    ("iothub-correlationid", system::CORRELATION_ID),
    ("iothub-userid", system::USER_ID),
    ("iothub-to", system::TO),
    ("iothub-expiry", system::EXPIRY),
    ("iothub-ack", system::ACK),
    ("iothub-contenttype", system::CONTENT_TYPE),
    ("iothub-contentencoding", system::CONTENT_ENCODING),
    ("iothub-messageschema", system::MESSAGE_SCHEMA),
    // Java, C# (protocol notes: device HTTPS §2.1).
    ("iothub-creation-time-utc", system::CREATION_TIME),
    ("iothub-creationtimeutc", system::CREATION_TIME),
    ("iothub-interface-id", system::INTERFACE_ID),
    ("dt-subject", system::SUBJECT),
];

/// What a name and its value mean for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    System(&'static str, String),
    Application(String, String),
}

/// The property of that name; `None` for a header that has nothing to do with the message.
pub(crate) fn property(name: &str, value: &str) -> Option<Property> {
    if let Some((_, stored)) = SYSTEM.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)) {
        return Some(Property::System(stored, value.to_owned()));
    }
    let (prefix, rest) = name.split_at_checked(APPLICATION_PREFIX.len())?;
    let named = prefix.eq_ignore_ascii_case(APPLICATION_PREFIX) && !rest.is_empty();
    named.then(|| Property::Application(rest.to_owned(), value.to_owned()))
}

/// The properties of a request, in the order of its headers.
pub(crate) fn properties(headers: &HeaderMap) -> Result<Vec<Property>, HubError> {
    let mut properties = Vec::new();
    for (name, value) in headers {
        let Some(text) = relevant(name.as_str(), value)? else { continue };
        properties.extend(property(name.as_str(), text));
    }
    Ok(properties)
}

/// The value of a header that is a property's. Only those have to be text.
fn relevant<'a>(name: &str, value: &'a HeaderValue) -> Result<Option<&'a str>, HubError> {
    if property(name, "").is_none() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(Some).map_err(|_| argument(format!("The value of the header {name} is not text in UTF-8.")))
}

/// Adds the headers of a message to a response. What no header can hold is left out, with a word to the log: a message that
/// cannot be received would stop the queue.
pub(crate) fn write<'a>(
    headers: &mut HeaderMap,
    system: impl IntoIterator<Item = (&'a str, &'a str)>,
    application: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    for (stored, value) in system {
        if let Some((header, _)) = SYSTEM.iter().find(|(_, name)| *name == stored) {
            add(headers, header, value);
        }
        // The names that the C SDK looks for (protocol notes: device HTTPS §3.1).
        match stored {
            system::CONTENT_TYPE => add(headers, "contenttype", value),
            system::CONTENT_ENCODING => add(headers, "contentencoding", value),
            _ => {}
        }
    }
    for (name, value) in application {
        add(headers, &format!("{APPLICATION_PREFIX}{name}"), value);
    }
}

pub(crate) fn add(headers: &mut HeaderMap, name: &str, value: &str) {
    match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
        (Ok(name), Ok(value)) => drop(headers.append(name, value)),
        _ => {
            tracing::warn!(property = ?name, "a property of a cloud-to-device message fits into no header and is left out")
        }
    }
}

/// A time as senders write it.
pub(crate) fn time(header: &str, text: &str) -> Result<nave_model::Timestamp, HubError> {
    nave_model::Timestamp::parse_iso(text.trim()).ok_or_else(|| {
        HubError::new(
            ErrorCode::ArgumentInvalid,
            format!("The header {header} is not a time in UTC such as 2026-01-31T10:00:00Z."),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case_and_values_are_theirs() {
        assert_eq!(property("IoTHub-MessageId", "1"), Some(Property::System("messageId", "1".into())));
        assert_eq!(property("iothub-creationtimeutc", "t"), property("iothub-creation-time-utc", "t"));
        assert_eq!(property("iothub-app-Colour", ""), Some(Property::Application("Colour".into(), String::new())));
        for other in ["iothub-app-", "iothub-operation", "content-type", "authorization", "é", ""] {
            assert_eq!(property(other, "x"), None, "{other}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut headers = HeaderMap::new();
        let system = [(system::MESSAGE_ID, "m"), (system::CONTENT_TYPE, "text/plain"), ("unknown", "x")];
        write(&mut headers, system, [("a", "grün"), ("not a token", "x"), ("b", "line\nbreak")]);
        assert_eq!(headers["contenttype"], "text/plain");
        assert_eq!(
            properties(&headers).unwrap(),
            [
                Property::System("messageId", "m".into()),
                Property::System("contentType", "text/plain".into()),
                Property::Application("a".into(), "grün".into()),
            ]
        );
        headers.insert("iothub-app-c", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(properties(&headers).unwrap_err().code, ErrorCode::ArgumentInvalid);
        headers.remove("iothub-app-c");
        headers.insert("user-agent", HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(properties(&headers).is_ok(), "other headers are not looked at");
    }
}
