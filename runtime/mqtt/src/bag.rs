//! Property bags: the properties of a message, in its topic (protocol notes: MQTT §5).

mod encode;
mod system;

use std::borrow::Cow;

pub use encode::{Audience, BagEncodeError, encode, encode_properties};
pub use system::{SystemProperties, SystemProperty};

use crate::percent;

/// Most pairs in a bag; more are [`BagError::TooManyProperties`]. A topic of 65,535 bytes could hold 32,000, each of which
/// would cost 50 bytes in memory and its share in every query; the cloud states no number.
pub const MAX_PROPERTIES: usize = 1024;

/// The property that marks a message published with RETAIN, with the value `true` (Azure IoT Hub documentation, MQTT
/// support). Retained messages do not exist.
pub const RETAIN_PROPERTY: &str = "mqtt-retain";

/// The property that marks a message published with DUP, with the value `true`.
pub const DUP_PROPERTY: &str = "mqtt-dup";

/// The property that marks a will, with the value [`WILL_MESSAGE_TYPE`] (Azure IoT Hub documentation, MQTT support).
pub const MESSAGE_TYPE_PROPERTY: &str = "iothub-MessageType";

/// See [`MESSAGE_TYPE_PROPERTY`].
pub const WILL_MESSAGE_TYPE: &str = "Will";

/// Properties with this prefix say who was connected; only the server may state them.
const CONNECTION_PREFIX: &str = "iothub-connection-";

/// Why a bag is refused; the connection is closed then (protocol notes: MQTT §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BagError {
    /// A key or a value is not UTF-8 after decoding.
    #[error("a message property is not UTF-8")]
    InvalidUtf8,
    /// A value has no key.
    #[error("a message property has no name")]
    NoName,
    /// [`MAX_PROPERTIES`].
    #[error("the message has more than {MAX_PROPERTIES} properties")]
    TooManyProperties,
}

/// An application property: without `=` the value is null, which is not the same as empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property<'a> {
    /// The name, decoded; not empty.
    pub name: Cow<'a, str>,
    /// The value, decoded.
    pub value: Option<Cow<'a, str>>,
}

/// The properties of a message. No name occurs twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bag<'a> {
    /// What the protocol gives a meaning to.
    pub system: SystemProperties<'a>,
    /// Everything else, in the order of the bag, including `$.`-names without a meaning. A property that came twice
    /// stands where it came last.
    pub application: Vec<Property<'a>>,
}

impl<'a> Bag<'a> {
    /// Decodes a bag. A `%` that begins no escape stays (the C SDK does not encode), `+` stays, empty pairs are skipped,
    /// and the last of several values of one name counts. What only the server may say (`$.cdid`, `$.cmid`,
    /// `iothub-connection-…`) is dropped without an error: Java always sends it.
    ///
    /// # Errors
    ///
    /// [`BagError`].
    pub fn decode(text: &'a str) -> Result<Self, BagError> {
        let mut bag = Self::default();
        let mut count = 0;
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            count += 1;
            if count > MAX_PROPERTIES {
                return Err(BagError::TooManyProperties);
            }
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) => (key, Some(percent::decode(value).ok_or(BagError::InvalidUtf8)?)),
                None => (pair, None),
            };
            if key.is_empty() {
                return Err(BagError::NoName);
            }
            // Most system properties are recognised without decoding their key.
            if let Some(property) = SystemProperty::from_raw_key(key) {
                bag.system.set(property, value);
                continue;
            }
            let name = percent::decode(key).ok_or(BagError::InvalidUtf8)?;
            if let Some(property) = SystemProperty::from_key(&name) {
                bag.system.set(property, value);
            } else if !name.starts_with(CONNECTION_PREFIX) {
                bag.application.push(Property { name, value });
            }
        }
        // They are the server's to state.
        bag.system.set(SystemProperty::ConnectionDeviceId, None);
        bag.system.set(SystemProperty::ConnectionModuleId, None);
        remove_overwritten(&mut bag.application);
        Ok(bag)
    }

    /// The value of an application property; the outer `None` if there is none of that name.
    pub fn property(&self, name: &str) -> Option<Option<&str>> {
        let property = self.application.iter().find(|property| property.name == name)?;
        Some(property.value.as_deref())
    }
}

/// Keeps the last property of each name.
fn remove_overwritten(properties: &mut Vec<Property<'_>>) {
    // Few are compared with each other; many are sorted, because a bag must not cost half a million comparisons.
    const FEW: usize = 16;
    if properties.len() <= FEW && all_different(properties) {
        return;
    }
    let mut overwritten = overwritten(properties).into_iter();
    properties.retain(|_| !overwritten.next().unwrap_or_default());
}

fn all_different(properties: &[Property<'_>]) -> bool {
    let mut rest = properties;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| other.name == first.name) {
            return false;
        }
        rest = others;
    }
    true
}

fn overwritten(properties: &[Property<'_>]) -> Vec<bool> {
    let mut order: Vec<(&str, usize)> = properties.iter().map(|property| &*property.name).zip(0..).collect();
    order.sort_unstable();
    let mut overwritten = vec![false; properties.len()];
    for ((name, at), (later, _)) in order.iter().zip(order.iter().skip(1)) {
        if name == later
            && let Some(flag) = overwritten.get_mut(*at)
        {
            *flag = true;
        }
    }
    overwritten
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn property(name: &'static str, value: Option<&'static str>) -> Property<'static> {
        Property { name: name.into(), value: value.map(Cow::Borrowed) }
    }

    #[test]
    fn values_are_null_empty_or_text() {
        let bag = Bag::decode("null&empty=&a=1=2&%C3%A4+=%F0%9F%9A%B2&raw ä:%=50%&&").unwrap();
        assert!(bag.system.is_empty());
        assert_eq!(
            bag.application,
            [
                property("null", None),
                property("empty", Some("")),
                property("a", Some("1=2")),
                property("ä+", Some("🚲")),
                property("raw ä:%", Some("50%")),
            ]
        );
    }

    #[test]
    fn system_properties_are_recognised_however_they_are_written() {
        for key in ["$.mid", "%24.mid", "%24%2Emid", "$%2emid", "%24.m%69d"] {
            let text = format!("{key}=a%2Fb");
            let bag = Bag::decode(&text).unwrap();
            assert_eq!(bag.system.get(SystemProperty::MessageId), Some("a/b"), "{key}");
            assert!(bag.application.is_empty());
        }
        for property in SystemProperty::ALL {
            assert_eq!(SystemProperty::from_key(property.key()), Some(property));
            let own = matches!(property, SystemProperty::ConnectionDeviceId | SystemProperty::ConnectionModuleId);
            let text = format!("{property}=x");
            assert_eq!(Bag::decode(&text).unwrap().system.get(property), (!own).then_some("x"));
        }
        let bag = Bag::decode("$.ct&$.new=1&$=2&$.=3").unwrap();
        assert!(bag.system.is_empty(), "null is absent");
        assert_eq!(
            bag.application,
            [property("$.new", Some("1")), property("$", Some("2")), property("$.", Some("3"))]
        );
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let text =
            "$.cdid=other&%24.cmid=other&iothub-connection-device-id=other&iothub%2Dconnection-auth-method=x&a=1";
        let bag = Bag::decode(text).unwrap();
        assert!(bag.system.is_empty());
        assert_eq!(bag.application, [property("a", Some("1"))]);
    }

    #[test]
    fn the_last_value_counts() {
        let bag = Bag::decode("a=1&b=2&a=3&%24.mid=x&$.mid=y&a").unwrap();
        assert_eq!(bag.application, [property("b", Some("2")), property("a", None)]);
        assert_eq!(bag.system.get(SystemProperty::MessageId), Some("y"));
        assert_eq!(Bag::decode("$.mid=x&$.mid").unwrap().system.get(SystemProperty::MessageId), None);
    }

    #[test]
    fn broken_bags_are_refused() {
        assert_eq!(Bag::decode("=1"), Err(BagError::NoName));
        assert_eq!(Bag::decode("a=%ff"), Err(BagError::InvalidUtf8));
        assert_eq!(Bag::decode("%c3=1"), Err(BagError::InvalidUtf8));
        let many = |count: usize| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join("&");
        assert_eq!(Bag::decode(&many(MAX_PROPERTIES)).unwrap().application.len(), MAX_PROPERTIES);
        assert_eq!(Bag::decode(&many(MAX_PROPERTIES + 1)), Err(BagError::TooManyProperties));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in "[%$.=&a-d0-9+ \u{e4}]{0,60}") {
            let _ = Bag::decode(&text);
        }

        #[test]
        fn what_is_encoded_decodes(properties in proptest::collection::vec(
            ("[^$]{1,6}", proptest::option::of(any::<String>())), 0..40)) {
            let text = encode_properties(
                &SystemProperties::default(),
                properties.iter().map(|(name, value)| (name.as_str(), value.as_deref())),
            );
            let bag = Bag::decode(&text).unwrap();
            // The model of "the last counts": walk backwards and take a name once.
            let mut expected: Vec<(&str, Option<&str>)> = Vec::new();
            for (name, value) in properties.iter().rev() {
                if expected.iter().all(|(seen, _)| seen != name) {
                    expected.push((name, value.as_deref()));
                }
            }
            expected.reverse();
            let decoded: Vec<_> = bag.application.iter().map(|p| (&*p.name, p.value.as_deref())).collect();
            prop_assert_eq!(decoded, expected);
        }
    }
}
