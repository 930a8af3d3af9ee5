//! A JSON document as conditions see it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::names::same_name;
use crate::program::Step;

/// A JSON value. Objects keep every member in document order: where names collide, which in a condition they do
/// without regard to case, the last one counts. A matcher that reads the bytes once, from the start, can keep the rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A number, as exactly as it was written when it is an integer of 64 bits.
    Number(serde_json::Number),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// The members of an object in document order, repeated names included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads UTF-8 JSON text. `None` when it is malformed, nested more than 127 levels deep or holds a number beyond
    /// the range of a double: the bounds of the JSON library, which keep the stack small.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Follows a path. `None` when a step leads nowhere.
    #[must_use]
    pub fn at(&self, steps: &[Step]) -> Option<&Self> {
        steps.iter().try_fold(self, |value, step| match (value, step) {
            (Self::Object(members), Step::Member(name)) => {
                members.iter().rev().find(|(key, _)| same_name(key, name)).map(|(_, value)| value)
            }
            (Self::Array(elements), Step::Element(index)) => elements.get(usize::try_from(*index).ok()?),
            _ => None,
        })
    }

    /// The value as an application property: strings as they are, everything else as JSON text
    /// (protocol notes: routing §4).
    #[must_use]
    pub fn to_property_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            // Serialising a tree of strings and numbers into memory has no way to fail.
            other => serde_json::to_string(other).unwrap_or_default(),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Boolean(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Json, E> {
                Ok(Json::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = access.next_element()? {
                    elements.push(element);
                }
                Ok(Json::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Array(elements) => serializer.collect_seq(elements),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Step {
        Step::Member(name.into())
    }

    #[test]
    fn paths_ignore_case_and_the_last_of_equal_names_counts() {
        let json = Json::parse(br#"{"A":{"b":[10,{"C":"x"}]},"t":1,"T":2,"u":1,"U":2,"u":3}"#).unwrap();
        assert_eq!(json.at(&[member("a"), member("B"), Step::Element(1), member("c")]), Some(&Json::Text("x".into())));
        assert_eq!(json.at(&[member("t")]), Some(&Json::Number(2.into())));
        assert_eq!(json.at(&[member("U")]), Some(&Json::Number(3.into())));
        assert_eq!(json.at(&[member("a"), Step::Element(0)]), None);
        assert_eq!(json.at(&[member("a"), member("b"), Step::Element(2)]), None);
    }

    #[test]
    fn properties_keep_strings_and_write_the_rest_as_json() {
        let json = Json::parse(br#"{"s":"a\"b","n":1.50,"i":1,"o":{"k":[null,true]}}"#).unwrap();
        let text = |name| json.at(&[member(name)]).unwrap().to_property_text();
        assert_eq!(text("s"), "a\"b");
        assert_eq!(text("n"), "1.5");
        assert_eq!(text("i"), "1");
        assert_eq!(text("o"), r#"{"k":[null,true]}"#);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::parse(nested(127).as_bytes()).is_some());
        assert!(Json::parse(nested(100_000).as_bytes()).is_none());
        assert!(Json::parse(b"{\"a\":").is_none());
    }
}
