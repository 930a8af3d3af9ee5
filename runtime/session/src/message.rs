//! From a PUBLISH to a message of the hub, and from failures to the JSON that devices read.

use bytes::Bytes;
use nave_hub::{HubError, Message, system};
use nave_mqtt::bag::{Bag, BagError, RETAIN_PROPERTY, SystemProperty};
use nave_trace::Parent;

/// A telemetry message from its property bag and payload. A property without a value is stored as an empty one: nothing
/// behind the hub tells the two apart.
pub(crate) fn telemetry(bag: &str, payload: &[u8], retain: bool) -> Result<Message, BagError> {
    let bag = Bag::decode(bag)?;
    let mut message = Message { body: Bytes::copy_from_slice(payload), ..Message::default() };
    for (property, name) in BOTH_WAYS.iter().chain(FROM_DEVICE) {
        if let Some(value) = bag.system.get(*property) {
            message.system.push((name, value.to_owned()));
        }
    }
    message.properties.reserve_exact(bag.application.len() + usize::from(retain));
    for property in bag.application {
        message.properties.push((property.name.into_owned(), property.value.unwrap_or_default().into_owned()));
    }
    if retain {
        message.properties.push((RETAIN_PROPERTY.to_owned(), "true".to_owned()));
    }
    Ok(message)
}

/// The client's span that a message belongs to: what the SDKs call its diagnostic id, where that is one of the W3C's.
pub(crate) fn parent(message: &Message) -> Option<Parent> {
    let (_, id) = message.system.iter().find(|(name, _)| *name == system::DIAGNOSTIC_ID)?;
    Parent::parse(id)
}

/// The system properties that messages have in both directions, with the names under which they are stored, in the order of
/// the topics.
pub(crate) const BOTH_WAYS: &[(SystemProperty, &str)] = &[
    (SystemProperty::MessageId, system::MESSAGE_ID),
    (SystemProperty::CorrelationId, system::CORRELATION_ID),
    (SystemProperty::UserId, system::USER_ID),
    (SystemProperty::To, system::TO),
    (SystemProperty::ContentType, system::CONTENT_TYPE),
    (SystemProperty::ContentEncoding, system::CONTENT_ENCODING),
    (SystemProperty::Expiry, system::EXPIRY),
];

/// Those that only a device sets.
const FROM_DEVICE: &[(SystemProperty, &str)] = &[
    (SystemProperty::CreationTime, system::CREATION_TIME),
    (SystemProperty::OutputName, system::OUTPUT_NAME),
    (SystemProperty::InterfaceId, system::INTERFACE_ID),
    (SystemProperty::Component, system::SUBJECT),
    (SystemProperty::Schema, system::MESSAGE_SCHEMA),
    (SystemProperty::DiagnosticId, system::DIAGNOSTIC_ID),
    (SystemProperty::DiagnosticContext, system::DIAGNOSTIC_CONTEXT),
];

/// An error as the body of an answer over MQTT: it must have `errorCode`, which is what the Node SDK looks for, and it must
/// be ASCII, because the Node SDK of the provisioning service reads it as that.
pub(crate) fn error_body(error: &HubError, env: &dyn nave_env::Env) -> Vec<u8> {
    ascii(&error.document(env).to_string())
}

/// JSON text with everything beyond ASCII as `\u` escapes.
pub(crate) fn ascii(json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character as u8);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_properties_get_their_stored_names() {
        let message = telemetry("%24.ct=application%2Fjson&%24.mid=m1&level=3&$.cdid=other&flag", b"{}", true).unwrap();
        assert_eq!(message.system, [("messageId", "m1".to_owned()), ("contentType", "application/json".to_owned())]);
        assert_eq!(
            message.properties,
            [
                ("level".to_owned(), "3".to_owned()),
                ("flag".to_owned(), String::new()),
                ("mqtt-retain".to_owned(), "true".to_owned())
            ]
        );
    }

    #[test]
    fn answers_are_ascii() {
        assert_eq!(ascii(r#"{"a":"ü𝄞"}"#), br#"{"a":"\u00fc\ud834\udd1e"}"#);
    }
}
