//! Bags to be written.

use super::{SystemProperties, SystemProperty};
use crate::percent;

/// Who reads a bag, and with it which system properties it may have (protocol notes: MQTT §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A device, for a cloud-to-device message.
    Device,
    /// A module, for a message to one of its inputs.
    ModuleInput,
}

impl Audience {
    /// Whether a system property is passed on; the others are left out.
    pub const fn gets(self, property: SystemProperty) -> bool {
        use SystemProperty as P;
        match property {
            P::MessageId | P::CorrelationId | P::UserId | P::To => true,
            P::ContentType | P::ContentEncoding | P::Expiry | P::Ack => true,
            P::ConnectionDeviceId
            | P::ConnectionModuleId
            | P::Schema
            | P::CreationTime
            | P::Component
            | P::Operation => {
                matches!(self, Self::ModuleInput)
            }
            P::OutputName | P::InterfaceId | P::DiagnosticId | P::DiagnosticContext => false,
        }
    }
}

/// Why a bag cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BagEncodeError {
    /// A time is not in the only form that the .NET SDK survives: `2026-01-01T00:00:00.0000000Z`.
    #[error("{0} is not a time of the form 2026-01-01T00:00:00.0000000Z")]
    Time(SystemProperty),
}

/// Writes the bag of a message to a client, so that every SDK understands it (protocol notes: MQTT §5.2, rules 1 to 8):
/// system properties first and with `%24`; at least one of them, which is `to` when the message has none; no null and
/// no empty values, which Java does not survive; everything but unreserved characters encoded. An application property
/// that has the name of a system property is left out, since it would be taken for that.
///
/// `to` is the address of the receiver, such as `/devices/dev1/messages/devicebound`; it must not be empty.
///
/// # Errors
///
/// [`BagEncodeError`].
pub fn encode<'a>(
    audience: Audience,
    to: &str,
    system: &SystemProperties<'_>,
    application: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<String, BagEncodeError> {
    let mut bag = String::new();
    // A `$.` property before `iothub-ack`: Java starts reading at the first `%24`.
    let (dollar, plain): (Vec<_>, Vec<_>) = system
        .iter()
        .filter(|(property, value)| audience.gets(*property) && !value.is_empty())
        .partition(|(property, _)| property.key().starts_with('$'));
    if !dollar.iter().any(|(property, _)| *property == SystemProperty::To) {
        pair(&mut bag, SystemProperty::To.key(), to);
    }
    for (property, value) in dollar.into_iter().chain(plain) {
        if matches!(property, SystemProperty::Expiry | SystemProperty::CreationTime) && !is_time(value) {
            return Err(BagEncodeError::Time(property));
        }
        pair(&mut bag, property.key(), value);
    }
    for (name, value) in application {
        let value = value.filter(|value| !value.is_empty() && !name.is_empty());
        if let Some(value) = value.filter(|_| SystemProperty::from_key(name).is_none()) {
            pair(&mut bag, name, value);
        }
    }
    Ok(bag)
}

/// Writes the bag of a message from a client of ours: nothing is left out, null is a name alone.
pub fn encode_properties<'a>(
    system: &SystemProperties<'_>,
    application: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> String {
    let mut bag = String::new();
    for (property, value) in system.iter() {
        pair(&mut bag, property.key(), value);
    }
    for (name, value) in application {
        match value {
            Some(value) => pair(&mut bag, name, value),
            None => key(&mut bag, name),
        }
    }
    bag
}

fn key(bag: &mut String, name: &str) {
    if !bag.is_empty() {
        bag.push('&');
    }
    percent::encode(bag, name);
}

fn pair(bag: &mut String, name: &str, value: &str) {
    key(bag, name);
    bag.push('=');
    percent::encode(bag, value);
}

/// The .NET round-trip form in UTC, with seven digits after the point. Whether the day exists is not checked.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00.0000000Z";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == *form,
        })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::bag::Bag;

    fn system(values: &[(SystemProperty, &'static str)]) -> SystemProperties<'static> {
        let mut system = SystemProperties::default();
        for (property, value) in values {
            system.set(*property, Some(Cow::Borrowed(value)));
        }
        system
    }

    const TO: &str = "/devices/dev1/messages/devicebound";

    #[test]
    fn system_properties_come_first_and_there_is_always_one() {
        use SystemProperty as P;
        let none = SystemProperties::default();
        assert_eq!(
            encode(Audience::Device, TO, &none, [("color", Some("light blue/+")), ("$.mid", Some("forged"))]).unwrap(),
            "%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound&color=light%20blue%2F%2B"
        );
        let full = system(&[(P::Ack, "full"), (P::MessageId, "4f1"), (P::To, "/x"), (P::OutputName, "o")]);
        assert_eq!(
            encode(Audience::Device, TO, &full, [("a", Some("1"))]).unwrap(),
            "%24.mid=4f1&%24.to=%2Fx&iothub-ack=full&a=1"
        );
    }

    #[test]
    fn null_and_empty_values_are_left_out() {
        let properties = [("null", None), ("empty", Some("")), ("", Some("x")), ("a", Some("1"))];
        let system = system(&[(SystemProperty::MessageId, ""), (SystemProperty::To, "")]);
        assert_eq!(encode(Audience::Device, "/t", &system, properties).unwrap(), "%24.to=%2Ft&a=1");
    }

    #[test]
    fn times_have_seven_digits() {
        let good = system(&[(SystemProperty::Expiry, "2026-01-01T00:00:00.0000000Z")]);
        assert_eq!(
            encode(Audience::Device, "/t", &good, []).unwrap(),
            "%24.to=%2Ft&%24.exp=2026-01-01T00%3A00%3A00.0000000Z"
        );
        for bad in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.0000000+", "x"] {
            let bad = system(&[(SystemProperty::Expiry, bad)]);
            let error = encode(Audience::Device, "/t", &bad, []);
            assert_eq!(error, Err(BagEncodeError::Time(SystemProperty::Expiry)));
        }
        let created = system(&[(SystemProperty::CreationTime, "x")]);
        assert_eq!(encode(Audience::Device, "/t", &created, []).unwrap(), "%24.to=%2Ft", "not for devices");
        assert!(encode(Audience::ModuleInput, "/t", &created, []).is_err());
    }

    #[test]
    fn only_inputs_learn_who_was_connected() {
        let system = system(&[(SystemProperty::ConnectionDeviceId, "d"), (SystemProperty::Schema, "s")]);
        assert_eq!(encode(Audience::Device, "/t", &system, []).unwrap(), "%24.to=%2Ft");
        assert_eq!(encode(Audience::ModuleInput, "/t", &system, []).unwrap(), "%24.to=%2Ft&%24.cdid=d&%24.schema=s");
    }

    #[test]
    fn a_client_keeps_null_and_empty_apart() {
        let bag = encode_properties(&SystemProperties::default(), [("n", None), ("e", Some("")), ("v", Some("="))]);
        assert_eq!(bag, "n&e=&v=%3D");
        let decoded = Bag::decode(&bag).unwrap();
        assert_eq!(
            ["n", "e", "v", "x"].map(|name| decoded.property(name)),
            [Some(None), Some(Some("")), Some(Some("=")), None]
        );
    }
}
