//! What a device that was away has missed of its desired properties.
//!
//! The metadata say of every member with which version it changed last, and a change anywhere in an object is a change of
//! the object. So the members that changed after a version are known; what was removed is not, and follows from the names
//! of the members that stayed: whatever is neither sent nor named is gone.

use crate::rejection::Damaged;
use crate::stored::Cursor;
use crate::{Part, Rejection, Section};

/// The members of `desired` that changed after version `since`, as a device merges them; `None` when all of it is the better
/// answer.
///
/// # Errors
///
/// [`Rejection::DamagedState`].
pub fn catch_up(desired: &Section, since: u64) -> Result<Option<String>, Rejection> {
    if since == 0 || since > desired.version {
        return Ok(None);
    }
    let mut out = String::new();
    if since == desired.version {
        out.push_str("{\"$unchanged\":true}");
    } else {
        let values = Cursor::new(&desired.json);
        let metadata =
            Metadata::open(&desired.metadata_json).map_err(|damaged| damaged.reject(Part::Desired, "metadata"))?;
        write_changes(values, metadata, since, &mut out).map_err(|damaged| damaged.reject(Part::Desired, "values"))?;
    }
    Ok((out.len() < desired.json.len()).then_some(out))
}

/// The metadata of one object or leaf, read up to its first member.
struct Metadata<'a> {
    cursor: Cursor<'a>,
    /// Absent in a section that was never written.
    version: Option<u64>,
    /// The member that was met while the version was looked for.
    pending: Option<&'a str>,
}

impl<'a> Metadata<'a> {
    fn open(text: &'a str) -> Result<Self, Damaged> {
        let mut cursor = Cursor::new(text);
        cursor.open()?;
        let mut version = None;
        let mut pending = None;
        while let Some(member) = cursor.member()? {
            match member.name {
                "$lastUpdated" => cursor.skip()?,
                "$lastUpdatedVersion" => {
                    let at = cursor.at();
                    version = Some(cursor.value()?.parse().map_err(|_| Damaged { at })?);
                }
                name => {
                    pending = Some(name);
                    break;
                }
            }
        }
        Ok(Self { cursor, version, pending })
    }

    /// The metadata of the next member, which has to be that of `name`: they have the order of the values.
    fn of(&mut self, name: &str) -> Result<Self, Damaged> {
        let found = match self.pending.take() {
            Some(found) => Some(found),
            None => self.cursor.member()?.map(|member| member.name),
        };
        if found != Some(name) {
            return Err(Damaged { at: self.cursor.at() });
        }
        Self::open(self.cursor.value()?)
    }

    /// What has no version may have changed at any time.
    fn is_after(&self, since: u64) -> bool {
        self.version.is_none_or(|version| version > since)
    }
}

/// Writes the object that `values` stand before: members that changed, then the names of those that did not.
fn write_changes(
    mut values: Cursor<'_>,
    mut metadata: Metadata<'_>,
    since: u64,
    out: &mut String,
) -> Result<(), Damaged> {
    let mut unchanged = String::new();
    let mut first = true;
    out.push('{');
    values.open()?;
    while let Some(member) = values.member()? {
        let about = metadata.of(member.name)?;
        let is_object = values.at_object();
        let value = values.value()?;
        if !about.is_after(since) {
            unchanged.push(if unchanged.is_empty() { '[' } else { ',' });
            push_quoted(member.name, &mut unchanged);
            continue;
        }
        comma(&mut first, out);
        push_quoted(member.name, out);
        out.push(':');
        if is_object {
            write_changes(Cursor::new(value), about, since, out)?;
        } else {
            out.push_str(value);
        }
    }
    if !unchanged.is_empty() {
        comma(&mut first, out);
        out.push_str("\"$unchanged\":");
        out.push_str(&unchanged);
        out.push(']');
    }
    out.push('}');
    Ok(())
}

fn comma(first: &mut bool, out: &mut String) {
    if !std::mem::take(first) {
        out.push(',');
    }
}

/// `name` is the content of a canonical string.
fn push_quoted(name: &str, out: &mut String) {
    out.push('"');
    out.push_str(name);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::{Condition, State, UpdateKind, UpdateRequest, create, update};

    /// What the documentation tells a device to do with an answer.
    fn apply(known: &mut Map<String, Value>, answer: &Map<String, Value>) {
        let unchanged = answer.get("$unchanged");
        if unchanged == Some(&Value::Bool(true)) {
            return;
        }
        let stays = |name: &String| {
            answer.contains_key(name)
                || unchanged.and_then(Value::as_array).is_some_and(|names| names.iter().any(|other| other == name))
        };
        known.retain(|name, _| stays(name));
        for (name, value) in answer.iter().filter(|(name, _)| !name.starts_with('$')) {
            match value {
                Value::Object(inner) => {
                    let place = known.entry(name.clone()).or_insert(Value::Null);
                    if !place.is_object() {
                        *place = json!({});
                    }
                    apply(place.as_object_mut().unwrap(), inner);
                }
                other => {
                    known.insert(name.clone(), other.clone());
                }
            }
        }
    }

    fn changed(state: &mut State, kind: UpdateKind, desired: &Value) {
        let request = UpdateRequest {
            tags: state.tags.clone(),
            desired: state.desired.clone(),
            version: state.version,
            etag: state.etag,
            kind,
            body_json: json!({"properties": {"desired": desired}}).to_string(),
            condition: Condition::Unconditional,
            unix_nanos: 1,
            emit_event: false,
        };
        let outcome = update(&request).unwrap();
        (state.version, state.etag) = (outcome.version, outcome.etag);
        state.desired = outcome.desired.unwrap_or_else(|| state.desired.clone());
    }

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_stayed_is_named_and_what_went_is_not() {
        let initial = json!({"properties": {"desired": {
            "a": "a long text that need not be sent again", "b": {"c": 1, "d": "another long text that stays as it is"}, "e": 1}}});
        let mut state = create(Some(&initial.to_string()), 0).unwrap();
        changed(&mut state, UpdateKind::Patch, &json!({"b": {"c": 2}, "e": null}));
        assert_eq!(
            catch_up(&state.desired, 1).unwrap().unwrap(),
            r#"{"b":{"c":2,"$unchanged":["d"]},"$unchanged":["a"]}"#
        );
        assert_eq!(catch_up(&state.desired, 2).unwrap().unwrap(), r#"{"$unchanged":true}"#);
        assert_eq!(catch_up(&state.desired, 3).unwrap(), None, "a version that never was");
        assert_eq!(catch_up(&state.desired, 0).unwrap(), None, "a device that knows nothing");
        let empty = create(None, 0).unwrap();
        assert_eq!(catch_up(&empty.desired, 1).unwrap(), None, "all of it is shorter");
    }

    #[test]
    fn damaged_state_is_the_hosts_fault() {
        let mut state = create(Some(r#"{"properties":{"desired":{"a":1,"b":"xxxxxxxxxxxxxxx"}}}"#), 0).unwrap();
        changed(&mut state, UpdateKind::Patch, &json!({"a": 2}));
        for metadata in ["", "{}", r#"{"$lastUpdatedVersion":x}"#, r#"{"b":{},"a":{}}"#, "[]"] {
            let damaged = Section { metadata_json: metadata.to_owned(), ..state.desired.clone() };
            assert!(matches!(catch_up(&damaged, 1), Err(Rejection::DamagedState(_))), "{metadata}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3).prop_map(|number| json!(number)),
            Just(json!("a text that is long enough to be worth leaving out")),
            Just(json!([1, {"a": 2}])),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            proptest::collection::btree_map("[a-d\"]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        })
    }

    fn sections() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-d\"]", values(), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    proptest! {
        /// From every version that a device may have seen, it arrives at the newest.
        #[test]
        fn every_device_arrives_at_the_newest_version(
            steps in proptest::collection::vec((prop::bool::weighted(0.8), sections()), 1..8)
        ) {
            let mut state = create(None, 0).unwrap();
            let mut seen = vec![(state.desired.version, object(&state.desired.json))];
            for (patch, desired) in steps {
                changed(&mut state, if patch { UpdateKind::Patch } else { UpdateKind::Replace }, &desired);
                seen.push((state.desired.version, object(&state.desired.json)));
            }
            let newest = object(&state.desired.json);
            for (version, mut known) in seen {
                if let Some(answer) = catch_up(&state.desired, version).unwrap() {
                    prop_assert!(answer.len() < state.desired.json.len());
                    apply(&mut known, &object(&answer));
                    prop_assert_eq!(&known, &newest, "from version {}: {}", version, answer);
                }
            }
        }
    }
}
