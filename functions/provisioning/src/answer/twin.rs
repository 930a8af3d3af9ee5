//! Whether an initial twin that a policy made could be a device's twin. Source of the limits: protocol notes, Semantics §4.3
//! (Azure IoT Hub documentation, device twins).

use std::fmt;

use serde_json::{Map, Value};

/// Longest text that is read at all. Sections are counted without structure characters, so the text of a full twin may be
/// longer than their sum; escapes can make it six times as long, which nobody needs.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Size of the tags.
const MAX_TAGS_BYTES: usize = 8 * 1024;
/// Size of the desired properties.
const MAX_DESIRED_BYTES: usize = 32 * 1024;
/// Levels of objects and arrays below a section's root.
const MAX_DEPTH: usize = 10;
/// Length of a key, in bytes of UTF-8.
const MAX_KEY_BYTES: usize = 1_024;
/// Length of a string value, in bytes of UTF-8.
const MAX_STRING_BYTES: usize = 4_096;
/// Integers reach from `-2^52` to `2^52 - 1`.
const INTEGER_LIMIT: i64 = 1 << 52;
/// What a number counts.
const NUMBER_BYTES: usize = 8;
/// What a boolean counts. Null, of which the documentation does not speak, counts as much.
const BOOL_BYTES: usize = 4;

/// What is wrong with an initial twin. The fault is the policy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The text is too long to look at.
    TooLong,
    /// It is not JSON, for this reason.
    Syntax(String),
    /// This member is not an object.
    NotAnObject(&'static str),
    /// This section is over its size in bytes.
    TooLarge(&'static str, usize),
    /// Objects and arrays are nested too deeply in this section.
    TooDeep(&'static str),
    /// This section has a key that is empty, too long or holds a forbidden character.
    Key(&'static str),
    /// This section has a string that is too long.
    LongString(&'static str),
    /// This section has an integer out of range.
    Integer(&'static str),
    /// This section has a null inside an array.
    NullInArray(&'static str),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it is longer than {MAX_TEXT_BYTES} bytes"),
            Self::Syntax(reason) => write!(f, "it is not JSON: {reason}"),
            Self::NotAnObject(member) => write!(f, "{member} is not an object"),
            Self::TooLarge(section, size) => write!(f, "{section} counts {size} bytes, which is too much"),
            Self::TooDeep(section) => write!(f, "{section} has more than {MAX_DEPTH} levels"),
            Self::Key(section) => write!(f, "{section} has a key that is empty, too long or not allowed"),
            Self::LongString(section) => write!(f, "{section} has a string of more than {MAX_STRING_BYTES} bytes"),
            Self::Integer(section) => write!(f, "{section} has an integer out of range"),
            Self::NullInArray(section) => write!(f, "{section} has a null inside an array"),
        }
    }
}

/// Checks the text of an initial twin. Members other than `tags` and `properties.desired` have no meaning and are not
/// looked at; `$metadata` and `$version` at the root of a section are what SDKs leave there and count for nothing.
pub(crate) fn check(json: &str) -> Result<(), Flaw> {
    if json.len() > MAX_TEXT_BYTES {
        return Err(Flaw::TooLong);
    }
    let twin: Value = serde_json::from_str(json).map_err(|error| Flaw::Syntax(error.to_string()))?;
    let twin = twin.as_object().ok_or(Flaw::NotAnObject("the twin"))?;
    if let Some(tags) = member(twin, "tags", "tags")? {
        check_section("tags", tags, MAX_TAGS_BYTES)?;
    }
    if let Some(properties) = member(twin, "properties", "properties")?
        && let Some(desired) = member(properties, "desired", "properties.desired")?
    {
        check_section("properties.desired", desired, MAX_DESIRED_BYTES)?;
    }
    Ok(())
}

fn member<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    name: &'static str,
) -> Result<Option<&'a Map<String, Value>>, Flaw> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Flaw::NotAnObject(name)),
    }
}

fn check_section(name: &'static str, root: &Map<String, Value>, max: usize) -> Result<(), Flaw> {
    let mut size = 0;
    for (key, value) in root {
        if key != "$metadata" && key != "$version" {
            size += size_of_key(name, key)? + size_of(name, value, 1, false)?;
        }
    }
    if size > max { Err(Flaw::TooLarge(name, size)) } else { Ok(()) }
}

/// What a value counts. `depth` is the level that the value has if it is an object or array; the recursion ends with
/// [`MAX_DEPTH`].
fn size_of(name: &'static str, value: &Value, depth: usize, in_array: bool) -> Result<usize, Flaw> {
    if depth > MAX_DEPTH && (value.is_object() || value.is_array()) {
        return Err(Flaw::TooDeep(name));
    }
    match value {
        Value::Null if in_array => Err(Flaw::NullInArray(name)),
        Value::Null | Value::Bool(_) => Ok(BOOL_BYTES),
        Value::Number(number) => {
            let in_range = match (number.as_i64(), number.is_u64()) {
                (Some(integer), _) => (-INTEGER_LIMIT..INTEGER_LIMIT).contains(&integer),
                (None, is_huge) => !is_huge,
            };
            if in_range { Ok(NUMBER_BYTES) } else { Err(Flaw::Integer(name)) }
        }
        Value::String(text) if text.len() > MAX_STRING_BYTES => Err(Flaw::LongString(name)),
        Value::String(text) => Ok(count(text)),
        Value::Array(items) => items.iter().map(|item| size_of(name, item, depth + 1, true)).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| Ok(size_of_key(name, key)? + size_of(name, value, depth + 1, in_array)?))
            .sum(),
    }
}

fn size_of_key(name: &'static str, key: &str) -> Result<usize, Flaw> {
    let forbidden = |c: char| c.is_control() || matches!(c, '.' | '$' | ' ');
    if key.is_empty() || key.len() > MAX_KEY_BYTES || key.contains(forbidden) {
        return Err(Flaw::Key(name));
    }
    Ok(key.len())
}

/// Bytes of a text, without control characters.
fn count(text: &str) -> usize {
    text.chars().filter(|c| !c.is_control()).map(char::len_utf8).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "so that the cases below read as documents")]
    fn tags(tags: Value) -> Result<(), Flaw> {
        check(&json!({ "tags": tags }).to_string())
    }

    fn nested(levels: usize, wrap: fn(Value) -> Value) -> Value {
        (0..levels).fold(json!(1), |inner, _| wrap(inner))
    }

    #[test]
    fn an_ordinary_twin_passes() {
        for json in [
            "{}",
            r#"{"tags":null,"properties":null}"#,
            r#"{"tags":{"a":1},"properties":{"desired":{"b":[2,{"c":"d"}],"e":null,"f":1.5e300}}}"#,
            r#"{"tags":{"$version":1},"properties":{"desired":{"$metadata":{"$lastUpdated":"x"},"$version":9}}}"#,
            r#"{"properties":{"reported":7}}"#,
        ] {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn shapes_are_checked() {
        assert!(matches!(check("{"), Err(Flaw::Syntax(_))));
        assert_eq!(check("[]"), Err(Flaw::NotAnObject("the twin")));
        assert_eq!(check(r#"{"tags":1}"#), Err(Flaw::NotAnObject("tags")));
        assert_eq!(check(r#"{"properties":[]}"#), Err(Flaw::NotAnObject("properties")));
        assert_eq!(check(r#"{"properties":{"desired":"x"}}"#), Err(Flaw::NotAnObject("properties.desired")));
        assert_eq!(check(&" ".repeat(MAX_TEXT_BYTES + 1)), Err(Flaw::TooLong));
    }

    #[test]
    fn depth_counts_objects_and_arrays() {
        for wrap in [|inner| json!({ "k": inner }), |inner| json!({ "k": [inner] })] as [fn(Value) -> Value; 2] {
            let per_turn = if wrap(json!(1))["k"].is_array() { 2 } else { 1 };
            let deepest = MAX_DEPTH / per_turn;
            assert_eq!(tags(json!({ "r": nested(deepest, wrap) })), Ok(()));
            assert_eq!(tags(json!({ "r": nested(deepest + 1, wrap) })), Err(Flaw::TooDeep("tags")));
        }
    }

    #[test]
    fn keys_strings_and_numbers_have_limits() {
        for key in ["", "a.b", "$a", "a b", "a\n", "\u{85}", &"k".repeat(MAX_KEY_BYTES + 1)] {
            assert_eq!(tags(json!({ key: 1 })), Err(Flaw::Key("tags")), "{key}");
            assert_eq!(tags(json!({ "a": { key: 1 } })), Err(Flaw::Key("tags")), "{key}");
        }
        assert_eq!(tags(json!({ "k".repeat(MAX_KEY_BYTES): "v".repeat(MAX_STRING_BYTES) })), Ok(()));
        assert_eq!(tags(json!({ "a": "v".repeat(MAX_STRING_BYTES + 1) })), Err(Flaw::LongString("tags")));
        assert_eq!(tags(json!({ "a": INTEGER_LIMIT - 1, "b": -INTEGER_LIMIT, "c": 1e300 })), Ok(()));
        for integer in [json!(INTEGER_LIMIT), json!(-INTEGER_LIMIT - 1), json!(u64::MAX)] {
            assert_eq!(tags(json!({ "a": integer })), Err(Flaw::Integer("tags")));
        }
    }

    #[test]
    fn null_removes_but_not_inside_arrays() {
        assert_eq!(tags(json!({ "a": { "b": null } })), Ok(()));
        assert_eq!(tags(json!({ "a": [null] })), Err(Flaw::NullInArray("tags")));
        assert_eq!(tags(json!({ "a": [{ "b": null }] })), Err(Flaw::NullInArray("tags")));
    }

    #[test]
    fn sections_have_sizes() {
        let filled = |bytes: usize| {
            let mut section = Map::new();
            section.insert("a".into(), json!("x".repeat(4_000)));
            section.insert("b".into(), json!("x".repeat(4_000)));
            section.insert("c".into(), json!("x".repeat(bytes - 8_003)));
            Value::Object(section)
        };
        assert_eq!(tags(filled(MAX_TAGS_BYTES)), Ok(()));
        assert_eq!(tags(filled(MAX_TAGS_BYTES + 1)), Err(Flaw::TooLarge("tags", MAX_TAGS_BYTES + 1)));
        let desired = |count: u32| {
            let members: Map<_, _> = (0..count).map(|n| (format!("{n:04}"), json!(n))).collect();
            check(&json!({ "properties": { "desired": members } }).to_string())
        };
        assert_eq!(desired(2_730), Ok(()));
        assert_eq!(desired(2_731), Err(Flaw::TooLarge("properties.desired", 2_731 * 12)));
        assert_eq!(tags(json!({ "a": "\u{1}".repeat(100) })), Ok(()));
        assert_eq!(count("a\u{1}ä"), 3);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(json in "\\PC{0,60}|[\\[{\"a:1,}\\]]{0,60}") {
            let _ = check(&json);
        }

        #[test]
        fn deep_texts_are_refused_without_exhausting_the_stack(levels in 11_usize..20_000) {
            let open = format!("{{\"tags\":{{\"a\":{}", "[".repeat(levels));
            prop_assert!(check(&open).is_err());
            let closed = format!("{{\"tags\":{{\"a\":{}{}}}}}", "[".repeat(levels), "]".repeat(levels));
            prop_assert!(check(&closed).is_err());
        }
    }
}
