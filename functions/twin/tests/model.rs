//! Random twins, bodies and patches against a naive model: RFC 7396 on `serde_json::Value`, with metadata and limits computed
//! from scratch for the whole document.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test helpers")]

use nave_function_twin::limits::{MAX_SECTION_SIZE, MAX_TAGS_SIZE};
use nave_function_twin::{
    Condition, Event, Part, Rejection, ReportRequest, Section, State, UpdateKind, UpdateRequest, create, report, update,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// What a time of `second` seconds after the epoch looks like in metadata.
fn iso(second: u64) -> String {
    format!("1970-01-01T00:{:02}:{:02}.0000000Z", second / 60, second % 60)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Metadata after `patch`: what it names gets `stamp`, the rest keeps what it had.
fn stamp_metadata(old: &Value, patch: &Map<String, Value>, values: &Value, stamp: &Map<String, Value>) -> Value {
    let mut new = stamp.clone();
    for (name, value) in values.as_object().unwrap() {
        let old = old.get(name).cloned().unwrap_or(json!({}));
        let member = match patch.get(name) {
            None => old,
            Some(Value::Object(inner)) => stamp_metadata(&old, inner, value, stamp),
            Some(_) => Value::Object(stamp.clone()),
        };
        new.insert(name.clone(), member);
    }
    Value::Object(new)
}

fn size(value: &Value) -> usize {
    let text = |text: &str| text.chars().filter(|c| !c.is_control()).map(char::len_utf8).sum::<usize>();
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(string) => text(string),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| text(name) + size(value)).sum(),
    }
}

/// The canonical text; `serde_json` spells exponents differently.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap()),
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("{}:{}", json!(name), canonical(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// Compared as texts: the order of members counts too.
fn check_section(section: &Section, values: &Value, metadata: &Value, version: u64) {
    assert_eq!(section.json, canonical(values));
    assert_eq!(section.metadata_json, metadata.to_string());
    assert_eq!(section.version, version);
    assert_eq!(section.size as usize, size(values));
}

fn stamp(second: u64, version: Option<u64>) -> Map<String, Value> {
    let mut stamp = json!({"$lastUpdated": iso(second)});
    if let Some(version) = version {
        stamp["$lastUpdatedVersion"] = json!(version);
    }
    stamp.as_object().unwrap().clone()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-e]", 1 => r#"["\\/é😀]{0,3}"#, 1 => "[f-z]{2,9}"]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-(1i64 << 52)..1i64 << 52).prop_map(Value::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        r#"[\PC\u{0}-\u{1f}\u{7f}-\u{9f}]{0,6}"#.prop_map(Value::from),
    ]
}

/// Objects as patches hold them, with `nulls` or without.
fn object(nulls: bool) -> impl Strategy<Value = Value> {
    let array = prop::collection::vec(scalar(), 0..4).prop_map(Value::from);
    let null = if nulls { 2 } else { 0 };
    let leaf = prop_oneof![6 => scalar(), 1 => array, null => Just(Value::Null)];
    let tree = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            1 => inner.clone(),
            2 => prop::collection::vec((name(), inner), 0..10).prop_map(|members| members.into_iter().collect()),
        ]
    });
    prop::collection::vec((name(), tree), 0..12).prop_map(|members| members.into_iter().collect())
}

fn without_nulls(value: &Value) -> Value {
    let mut target = json!({});
    merge(&mut target, value);
    target
}

/// Written the way a careless client writes: indented, everything escaped that may be.
fn careless(value: &Value) -> String {
    let pretty = serde_json::to_string_pretty(value).unwrap();
    pretty.replace('/', "\\/").replace('é', "\\u00e9").replace('😀', "\\uD83D\\ude00")
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Report(Value),
    Patch(Option<Value>, Option<Value>),
    Replace(Option<Value>, Option<Value>),
    ClearDesired,
}

fn step() -> impl Strategy<Value = Step> {
    let part = || prop::option::weighted(0.8, object(true));
    prop_oneof![
        4 => object(true).prop_map(Step::Report),
        4 => (part(), part()).prop_map(|(tags, desired)| Step::Patch(tags, desired)),
        2 => (part(), part()).prop_map(|(tags, desired)| Step::Replace(tags, desired)),
        1 => Just(Step::ClearDesired),
    ]
}

/// What the model knows of a twin.
struct Model {
    tags: Value,
    desired: (Value, Value),
    reported: (Value, Value),
}

fn body(tags: Option<&Value>, desired: Option<&Value>) -> String {
    let mut body = json!({"deviceId": "ignored", "properties": {"reported": {"$x": [null]}}});
    if let Some(tags) = tags {
        body["tags"] = tags.clone();
    }
    if let Some(desired) = desired {
        body["properties"]["desired"] = desired.clone();
        if let Some(desired) = body["properties"]["desired"].as_object_mut() {
            desired.insert("$metadata".to_owned(), json!({"a": null}));
            desired.insert("$version".to_owned(), json!(77));
        }
    }
    careless(&body)
}

fn with_version(values: &Value, version: u64) -> String {
    let mut values = values.clone();
    values["$version"] = json!(version);
    canonical(&values)
}

impl Model {
    fn step(&mut self, state: &mut State, step: &Step, second: u64) {
        let (old_version, old_etag) = (state.version, state.etag);
        let versions = (state.desired.version, state.reported.version);
        match step {
            Step::Report(patch) => {
                let request = ReportRequest {
                    reported: state.reported.clone(),
                    version: state.version,
                    patch_json: careless(patch),
                    if_version: (second.is_multiple_of(2)).then_some(state.reported.version),
                    unix_nanos: second * 1_000_000_000,
                    emit_event: true,
                };
                let outcome = report(&request).unwrap();
                let stamp = stamp(second, None);
                merge(&mut self.reported.0, patch);
                self.reported.1 =
                    stamp_metadata(&self.reported.1, patch.as_object().unwrap(), &self.reported.0, &stamp);
                check_section(&outcome.reported, &self.reported.0, &self.reported.1, versions.1 + 1);
                let Some(Event::UpdateTwin(event)) = outcome.event else { panic!("no event") };
                let mut reported = patch.clone();
                let values = without_nulls(patch);
                reported["$metadata"] = stamp_metadata(&json!({}), patch.as_object().unwrap(), &values, &stamp);
                reported["$version"] = json!(versions.1 + 1);
                let expected = json!({"version": old_version + 1, "properties": {"reported": reported}});
                assert_eq!(event, canonical(&expected));
                assert_eq!(outcome.version, old_version + 1);
                state.reported = outcome.reported;
                state.version = outcome.version;
            }
            Step::Patch(tags, desired) => {
                self.update(state, second, UpdateKind::Patch, tags.as_ref(), desired.as_ref())
            }
            Step::Replace(tags, desired) => {
                self.update(state, second, UpdateKind::Replace, tags.as_ref(), desired.as_ref());
            }
            Step::ClearDesired => self.update(state, second, UpdateKind::Patch, None, Some(&Value::Null)),
        }
        assert!(state.version >= old_version && state.etag >= old_etag);
        assert!(state.desired.version >= versions.0 && state.reported.version >= versions.1);
    }

    fn update(
        &mut self,
        state: &mut State,
        second: u64,
        kind: UpdateKind,
        tags: Option<&Value>,
        desired: Option<&Value>,
    ) {
        let request = UpdateRequest {
            tags: state.tags.clone(),
            desired: state.desired.clone(),
            version: state.version,
            etag: state.etag,
            kind,
            body_json: body(tags, desired),
            condition: if second.is_multiple_of(2) { Condition::Unconditional } else { Condition::Etag(state.etag) },
            unix_nanos: second * 1_000_000_000,
            emit_event: true,
        };
        let outcome = update(&request).unwrap();
        if kind == UpdateKind::Patch && tags.is_none() && desired.is_none() {
            assert_eq!((outcome.version, outcome.etag), (state.version, state.etag));
            assert_eq!((outcome.tags, outcome.desired, outcome.event), (None, None, None));
            return;
        }
        assert_eq!((outcome.version, outcome.etag), (state.version + 1, state.etag + 1));
        let version = state.desired.version + 1;
        let stamp = stamp(second, Some(version));
        let empty = json!({});
        let before = self.desired.0.clone();
        let named = match kind {
            UpdateKind::Replace => {
                self.tags = without_nulls(tags.unwrap_or(&empty));
                self.desired = (without_nulls(desired.unwrap_or(&empty)), json!({}));
                Some(self.desired.0.clone())
            }
            UpdateKind::Patch => {
                if let Some(tags) = tags {
                    merge(&mut self.tags, tags);
                }
                match desired {
                    Some(Value::Null) => {
                        self.desired = (json!({}), json!({}));
                        let removed = before.as_object().unwrap().keys();
                        Some(removed.map(|name| (name.clone(), Value::Null)).collect())
                    }
                    Some(desired) => {
                        merge(&mut self.desired.0, desired);
                        Some(desired.clone())
                    }
                    None => None,
                }
            }
        };
        if let Some(tags) = &outcome.tags {
            assert_eq!(tags.json, canonical(&self.tags));
            assert_eq!(tags.size as usize, size(&self.tags));
            state.tags = tags.clone();
        } else {
            assert_eq!(state.tags.json, canonical(&self.tags));
        }
        let mut event = json!({"version": outcome.version});
        if let (Some(tags), UpdateKind::Patch) = (tags, kind) {
            event["tags"] = tags.clone();
        }
        if let Some(mut named) = named {
            let members = named.as_object().unwrap().clone();
            self.desired.1 = stamp_metadata(&self.desired.1, &members, &self.desired.0, &stamp);
            let section = outcome.desired.unwrap();
            check_section(&section, &self.desired.0, &self.desired.1, version);
            assert_eq!(outcome.notification_json.unwrap(), with_version(&named, version));
            named["$metadata"] = stamp_metadata(&json!({}), &members, &without_nulls(&named), &stamp);
            named["$version"] = json!(version);
            event["properties"] = json!({"desired": named});
            state.desired = section;
        } else {
            assert_eq!((outcome.desired, outcome.notification_json), (None, None));
        }
        match (kind, outcome.event.unwrap()) {
            (UpdateKind::Patch, Event::UpdateTwin(body)) => assert_eq!(body, canonical(&event)),
            (UpdateKind::Replace, Event::ReplaceTwin) => {}
            (_, other) => panic!("{other:?}"),
        }
        state.version = outcome.version;
        state.etag = outcome.etag;
    }
}

/// Nothing is checked against limits here: random twins of a few kilobytes stay below them; the model would say so otherwise.
fn small(model: &Model) -> bool {
    size(&model.tags) < MAX_TAGS_SIZE as usize / 2 && size(&model.desired.0) < MAX_SECTION_SIZE as usize / 2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_twin_follows_the_model(tags in object(false), desired in object(false), steps in prop::collection::vec(step(), 1..8)) {
        let initial = body(Some(&tags), Some(&desired));
        let mut state = create(Some(&initial), 0).unwrap();
        prop_assert_eq!((state.version, state.etag), (2, 1));
        let written = desired.as_object().is_some_and(|desired| !desired.is_empty());
        let stamp = stamp(0, written.then_some(1));
        let metadata = stamp_metadata(&json!({}), desired.as_object().unwrap(), &desired, &stamp);
        check_section(&state.desired, &desired, &metadata, 1);
        let mut model = Model { tags, desired: (desired, metadata), reported: (json!({}), json!({})) };
        prop_assert_eq!(&state.tags.json, &canonical(&model.tags));
        for (second, step) in (1..).zip(&steps) {
            if small(&model) {
                model.step(&mut state, step, second);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in r#"\{("[a$\\.]{0,2}":[\[\]{}0-9a-df-z,"\\ -]{0,8},?){0,3}\}|.{0,20}"#) {
        let mut state = create(None, 0).unwrap();
        state.reported.json = r#"{"a":{"b":[1]},"c":"x"}"#.to_owned();
        let request = ReportRequest {
            reported: state.reported, version: 1, patch_json: text.clone(), if_version: None, unix_nanos: 0, emit_event: true,
        };
        if let Ok(outcome) = report(&request) {
            let mut expected = parse(&request.reported.json);
            merge(&mut expected, &parse(&text));
            prop_assert_eq!(parse(&outcome.reported.json), expected);
        }
        let _ = create(Some(&text), 0);
        let _ = create(Some(&format!("{{\"tags\":{text}}}")), 0);
    }

    #[test]
    fn damaged_state_makes_it_fail_and_not_panic(json in r#"[{}\[\]",:\\a1]{0,16}"#, metadata in r#"[{}\[\]",:\\a1$]{0,16}"#) {
        let reported = Section { json, metadata_json: metadata, version: u64::MAX, size: u32::MAX };
        let request = ReportRequest {
            reported, version: u64::MAX, patch_json: r#"{"a":{"a":null},"b":null}"#.to_owned(), if_version: None, unix_nanos: 0, emit_event: false,
        };
        let _ = report(&request);
    }
}

#[test]
fn sections_are_limited_by_what_they_count() {
    let fill = |size: usize| {
        // Names of four bytes and texts of 4,092: 4,096 each.
        let members: Map<_, _> =
            (0..size / 4096).map(|place| (format!("n{place:03}"), json!("x".repeat(4092)))).collect();
        Value::Object(members)
    };
    for (part, limit) in
        [(Part::Tags, MAX_TAGS_SIZE), (Part::Desired, MAX_SECTION_SIZE), (Part::Reported, MAX_SECTION_SIZE)]
    {
        let mut full = fill(limit as usize);
        let change = |values: &Value| {
            let state = create(None, 0).unwrap();
            match part {
                Part::Tags => create(Some(&json!({"tags": values}).to_string()), 0).map(|state| state.tags.size),
                Part::Desired => create(Some(&json!({"properties": {"desired": values}}).to_string()), 0)
                    .map(|state| state.desired.size),
                Part::Reported => report(&ReportRequest {
                    reported: state.reported,
                    version: 2,
                    patch_json: values.to_string(),
                    if_version: None,
                    unix_nanos: 0,
                    emit_event: false,
                })
                .map(|outcome| outcome.reported.size),
            }
        };
        assert_eq!(change(&full), Ok(limit));
        full["x"] = json!("");
        let Err(Rejection::TooLarge(excess)) = change(&full) else { panic!("{part:?} may grow without limit") };
        assert_eq!((excess.part, excess.limit), (Some(part), limit));
    }
}

#[test]
fn what_counts_nothing_is_limited_as_text() {
    let mut reported = create(None, 0).unwrap().reported;
    let brackets = format!("[{}[]]", "[],".repeat(20_000));
    for name in ["a", "b", "c"] {
        let request = ReportRequest {
            reported: reported.clone(),
            version: 2,
            patch_json: format!("{{\"{name}\":{brackets}}}"),
            if_version: None,
            unix_nanos: 0,
            emit_event: false,
        };
        match report(&request) {
            Ok(outcome) => reported = outcome.reported,
            Err(Rejection::TooLarge(excess)) => {
                assert_eq!((name, excess.limit), ("c", MAX_SECTION_SIZE * 4));
                return;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("stored {} bytes that count {}", reported.json.len(), reported.size);
}
