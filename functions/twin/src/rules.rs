//! The three operations.

use std::fmt::Write as _;

use nave_model::Timestamp;

use crate::document::{Object, SystemMembers, read_part};
use crate::limits::{MAX_REPORTED_PATCH_BYTES, MAX_SECTION_SIZE, MAX_SERVICE_BODY_BYTES, MAX_TAGS_SIZE, TEXT_PER_SIZE};
use crate::merge::{Merged, merge_metadata, merge_values, new_metadata, new_values, write_patch, write_removal};
use crate::reader::Reader;
use crate::rejection::{Fault, too_large};
use crate::{
    Condition, Event, Part, Rejection, ReportOutcome, ReportRequest, Rule, Section, State, Tags, UpdateKind,
    UpdateOutcome, UpdateRequest,
};

/// `$version` of the sections of a new twin.
const FIRST_SECTION_VERSION: u64 = 1;

/// `version` of a new twin, as in the lifecycle events of the cloud service.
const FIRST_TWIN_VERSION: u64 = 2;

/// ETag counter of a new twin.
const FIRST_ETAG: u64 = 1;

/// The twin of a new identity, with the tags and desired properties of `initial_json` if there are any.
///
/// # Errors
///
/// [`Rejection::Invalid`] and [`Rejection::TooLarge`] if `initial_json` breaks a rule of twins.
pub fn create(initial_json: Option<&str>, unix_nanos: u64) -> Result<State, Rejection> {
    let body = initial_json.map_or_else(|| Ok(Body::default()), read_body)?;
    let tags = body.tags.into_object();
    let desired = body.desired.into_object();
    // A section that was never written has no version to its metadata.
    let written = (!desired.members().is_empty()).then_some(FIRST_SECTION_VERSION);
    let desired_stamp = stamp(unix_nanos, written);
    Ok(State {
        tags: checked_tags(new_values(&tags, 0))?,
        desired: section(
            Part::Desired,
            new_values(&desired, 0),
            new_metadata(&desired, &desired_stamp),
            FIRST_SECTION_VERSION,
        )?,
        reported: Section {
            json: "{}".to_owned(),
            metadata_json: new_metadata(&Object::default(), &stamp(unix_nanos, None)),
            version: FIRST_SECTION_VERSION,
            size: 0,
        },
        version: FIRST_TWIN_VERSION,
        etag: FIRST_ETAG,
    })
}

/// Changes tags and desired properties on behalf of a service.
///
/// # Errors
///
/// Every [`Rejection`]; nothing is to be changed then.
pub fn update(request: &UpdateRequest) -> Result<UpdateOutcome, Rejection> {
    check_condition(&request.condition, request.etag)?;
    let body = read_body(&request.body_json)?;
    let (tags, desired) = (body.tags.change(request.kind), body.desired.change(request.kind));
    let mut outcome = UpdateOutcome {
        tags: None,
        desired: None,
        version: request.version,
        etag: request.etag,
        notification_json: None,
        event: None,
    };
    if matches!((&tags, &desired), (Change::Keep, Change::Keep)) {
        return Ok(outcome);
    }
    outcome.version = request.version.saturating_add(1);
    outcome.etag = request.etag.saturating_add(1);
    outcome.tags = change_tags(&request.tags, &tags, request.body_json.len())?;
    outcome.desired = change_desired(&request.desired, &desired, request)?;

    let parts_are_named = request.kind == UpdateKind::Patch;
    let desired_text = match &outcome.desired {
        Some(section) if parts_are_named => {
            Some(change_text(&desired, Part::Desired, &request.desired.json, section.version)?)
        }
        Some(section) => Some(VersionedText::new(section.json.clone(), section.version)),
        None => None,
    };
    outcome.notification_json = desired_text.as_ref().map(VersionedText::notification);
    if request.emit_event {
        outcome.event = Some(match request.kind {
            UpdateKind::Replace => Event::ReplaceTwin,
            UpdateKind::Patch => {
                let mut body = EventBody::new(outcome.version);
                if outcome.tags.is_some() {
                    body.tags(&change_text(&tags, Part::Tags, &request.tags.json, 0)?.text);
                }
                if let Some(text) = &desired_text {
                    let stamp = stamp(request.unix_nanos, Some(text.version));
                    body.section("desired", text, &new_metadata(desired.object(), &stamp));
                }
                Event::UpdateTwin(body.finish())
            }
        });
    }
    Ok(outcome)
}

/// Changes reported properties on behalf of a device or module.
///
/// # Errors
///
/// Every [`Rejection`]; nothing is to be changed then.
pub fn report(request: &ReportRequest) -> Result<ReportOutcome, Rejection> {
    let old = &request.reported;
    if let Some(expected) = request.if_version.filter(|expected| *expected != old.version) {
        let message = format!("The reported properties are at version {}, not {expected}.", old.version);
        return Err(Rejection::PreconditionFailed(message));
    }
    check_body(&request.patch_json, MAX_REPORTED_PATCH_BYTES)?;
    let mut reader = Reader::new(&request.patch_json);
    let patch = read_part(&mut reader, SystemMembers::Refused).map_err(|fault| fault.reject(Some(Part::Reported)))?;
    reader.finish().map_err(|error| Fault::from(error).reject(None))?;

    let stamp = stamp(request.unix_nanos, None);
    let version = old.version.saturating_add(1);
    let reported = merged_section(Part::Reported, old, &patch, &stamp, version, request.patch_json.len())?;
    let twin_version = request.version.saturating_add(1);
    let event = request.emit_event.then(|| {
        let mut text = String::with_capacity(request.patch_json.len());
        write_patch(&patch, &mut text);
        let mut body = EventBody::new(twin_version);
        body.section("reported", &VersionedText::new(text, version), &new_metadata(&patch, &stamp));
        Event::UpdateTwin(body.finish())
    });
    Ok(ReportOutcome { reported, version: twin_version, event })
}

/// What a service's body says about one part.
#[derive(Default)]
enum Named<'a> {
    #[default]
    Absent,
    Null,
    Object(Object<'a>),
}

/// What is to be done to one part.
enum Change<'a> {
    Keep,
    Merge(Object<'a>),
    Replace(Object<'a>),
}

/// A service's body: the parts that a service may write.
#[derive(Default)]
struct Body<'a> {
    tags: Named<'a>,
    desired: Named<'a>,
}

impl<'a> Named<'a> {
    fn into_object(self) -> Object<'a> {
        match self {
            Self::Absent | Self::Null => Object::default(),
            Self::Object(object) => object,
        }
    }

    /// A null clears the part, as in a merge patch it removes a member.
    fn change(self, kind: UpdateKind) -> Change<'a> {
        match (kind, self) {
            (UpdateKind::Patch, Self::Absent) => Change::Keep,
            (UpdateKind::Patch, Self::Object(object)) => Change::Merge(object),
            (UpdateKind::Patch, Self::Null) => Change::Replace(Object::default()),
            (UpdateKind::Replace, named) => Change::Replace(named.into_object()),
        }
    }
}

impl<'a> Change<'a> {
    /// The members that the change names; none for a part that stays.
    fn object(&self) -> &Object<'a> {
        static NONE: Object<'static> = Object::EMPTY;
        match self {
            Self::Keep => &NONE,
            Self::Merge(object) | Self::Replace(object) => object,
        }
    }
}

fn read_body(text: &str) -> Result<Body<'_>, Rejection> {
    check_body(text, MAX_SERVICE_BODY_BYTES)?;
    let whole = |error| Fault::from(error).reject(None);
    let mut body = Body::default();
    let mut reader = Reader::new(text);
    open(&mut reader, "the body")?;
    let mut first = true;
    while let Some(name) = reader.name(first).map_err(whole)? {
        first = false;
        match &*name.decode().map_err(whole)? {
            "tags" => body.tags = read_named(&mut reader, Part::Tags)?,
            // Without `properties` and with null there is nothing about desired: it is not a part by itself.
            "properties" if reader.peek() == b'{' => body.desired = read_properties(&mut reader)?,
            "properties" if reader.peek() != b'n' => open(&mut reader, "'properties'")?,
            _ => reader.skip().map_err(whole)?,
        }
    }
    reader.finish().map_err(whole)?;
    Ok(body)
}

fn read_properties<'a>(reader: &mut Reader<'a>) -> Result<Named<'a>, Rejection> {
    let whole = |error| Fault::from(error).reject(None);
    let mut desired = Named::Absent;
    reader.take(b'{');
    let mut first = true;
    while let Some(name) = reader.name(first).map_err(whole)? {
        first = false;
        match &*name.decode().map_err(whole)? {
            "desired" => desired = read_named(reader, Part::Desired)?,
            _ => reader.skip().map_err(whole)?,
        }
    }
    Ok(desired)
}

fn read_named<'a>(reader: &mut Reader<'a>, part: Part) -> Result<Named<'a>, Rejection> {
    if reader.peek() == b'n' {
        reader.skip().map_err(|error| Fault::from(error).reject(None))?;
        return Ok(Named::Null);
    }
    read_part(reader, SystemMembers::Ignored).map(Named::Object).map_err(|fault| fault.reject(Some(part)))
}

/// Consumes the `{` of an object that has to come.
fn open(reader: &mut Reader<'_>, what: &str) -> Result<(), Rejection> {
    if reader.take(b'{') {
        return Ok(());
    }
    reader.skip().map_err(|error| Fault::from(error).reject(None))?;
    Err(Fault::new(Rule::NotAnObject, format!("{what} must be an object")).reject(None))
}

fn check_body(text: &str, limit: usize) -> Result<(), Rejection> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(too_large(None, u32::try_from(limit).unwrap_or(u32::MAX), "bytes"))
}

fn check_condition(condition: &Condition, etag: u64) -> Result<(), Rejection> {
    match condition {
        Condition::Unconditional => Ok(()),
        Condition::Etag(expected) if *expected == etag => Ok(()),
        Condition::Etag(_) | Condition::Never => {
            Err(Rejection::PreconditionFailed("Precondition failed: the ETag of the twin is another one.".to_owned()))
        }
    }
}

fn change_tags(old: &Tags, change: &Change<'_>, growth: usize) -> Result<Option<Tags>, Rejection> {
    let merged = match change {
        Change::Keep => return Ok(None),
        Change::Merge(patch) => {
            merge_values(&old.json, old.size, patch, growth).map_err(|damaged| damaged.reject(Part::Tags, "values"))?
        }
        Change::Replace(object) => new_values(object, growth),
    };
    checked_tags(merged).map(Some)
}

fn change_desired(old: &Section, change: &Change<'_>, request: &UpdateRequest) -> Result<Option<Section>, Rejection> {
    let version = old.version.saturating_add(1);
    let stamp = stamp(request.unix_nanos, Some(version));
    match change {
        Change::Keep => Ok(None),
        Change::Merge(patch) => {
            merged_section(Part::Desired, old, patch, &stamp, version, request.body_json.len()).map(Some)
        }
        Change::Replace(object) => {
            let values = new_values(object, request.body_json.len());
            section(Part::Desired, values, new_metadata(object, &stamp), version).map(Some)
        }
    }
}

/// `patch_length`, the length of the received text, bounds how much the values grow.
fn merged_section(
    part: Part,
    old: &Section,
    patch: &Object<'_>,
    stamp: &str,
    version: u64,
    patch_length: usize,
) -> Result<Section, Rejection> {
    let values =
        merge_values(&old.json, old.size, patch, patch_length).map_err(|damaged| damaged.reject(part, "values"))?;
    let growth = (stamp.len() + 8) * (patch.members().len() + 1) + patch_length;
    let metadata =
        merge_metadata(&old.metadata_json, patch, stamp, growth).map_err(|damaged| damaged.reject(part, "metadata"))?;
    section(part, values, metadata, version)
}

fn section(part: Part, values: Merged, metadata_json: String, version: u64) -> Result<Section, Rejection> {
    check_size(part, &values, MAX_SECTION_SIZE)?;
    Ok(Section { json: values.json, metadata_json, version, size: values.size })
}

fn checked_tags(values: Merged) -> Result<Tags, Rejection> {
    check_size(Part::Tags, &values, MAX_TAGS_SIZE)?;
    Ok(Tags { json: values.json, size: values.size })
}

fn check_size(part: Part, values: &Merged, limit: u32) -> Result<(), Rejection> {
    let text_limit = limit.saturating_mul(TEXT_PER_SIZE);
    if values.size > limit {
        Err(too_large(Some(part), limit, "bytes of names and values"))
    } else if u32::try_from(values.json.len()).is_ok_and(|length| length <= text_limit) {
        Ok(())
    } else {
        Err(too_large(Some(part), text_limit, "bytes of text"))
    }
}

/// An object's metadata up to its first member: the opening brace and what the hub says about a change that happens now.
fn stamp(unix_nanos: u64, desired_version: Option<u64>) -> String {
    let mut stamp = String::with_capacity(80);
    stamp.push_str("{\"$lastUpdated\":\"");
    stamp.push_str(&Timestamp::from_unix_nanos(unix_nanos).iso());
    stamp.push('"');
    if let Some(version) = desired_version {
        stamp.push_str(",\"$lastUpdatedVersion\":");
        write_number(version, &mut stamp);
    }
    stamp
}

/// An object that is sent with the `$version` that it made.
struct VersionedText {
    text: String,
    version: u64,
}

/// A part's change as a text: the patch, or for a part that was cleared the patch that does the same.
fn change_text(change: &Change<'_>, part: Part, old: &str, version: u64) -> Result<VersionedText, Rejection> {
    let mut text = String::new();
    match change {
        Change::Keep => {}
        Change::Merge(patch) => write_patch(patch, &mut text),
        Change::Replace(_) => write_removal(old, &mut text).map_err(|damaged| damaged.reject(part, "values"))?,
    }
    Ok(VersionedText::new(text, version))
}

impl VersionedText {
    fn new(text: String, version: u64) -> Self {
        Self { text, version }
    }

    /// The payload of a notification.
    fn notification(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 32);
        self.write_members(&mut out);
        self.write_version(&mut out);
        out
    }

    /// The opening brace and the members, with a comma if there are any.
    fn write_members(&self, out: &mut String) {
        let members = self.text.strip_suffix('}').unwrap_or(&self.text);
        out.push_str(members);
        if members.len() > 1 {
            out.push(',');
        }
    }

    fn write_version(&self, out: &mut String) {
        out.push_str("\"$version\":");
        write_number(self.version, out);
        out.push('}');
    }
}

/// The body of an `updateTwin` event.
struct EventBody {
    json: String,
    properties: bool,
}

impl EventBody {
    fn new(twin_version: u64) -> Self {
        let mut json = String::with_capacity(512);
        json.push_str("{\"version\":");
        write_number(twin_version, &mut json);
        Self { json, properties: false }
    }

    fn tags(&mut self, change: &str) {
        self.json.push_str(",\"tags\":");
        self.json.push_str(change);
    }

    fn section(&mut self, name: &str, change: &VersionedText, metadata: &str) {
        self.json.push_str(",\"properties\":{\"");
        self.json.push_str(name);
        self.json.push_str("\":");
        change.write_members(&mut self.json);
        self.json.push_str("\"$metadata\":");
        self.json.push_str(metadata);
        self.json.push(',');
        change.write_version(&mut self.json);
        self.properties = true;
    }

    fn finish(mut self) -> String {
        self.json.push_str(if self.properties { "}}" } else { "}" });
        self.json
    }
}

fn write_number(number: u64, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{number}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_IGNORED_DEPTH;

    /// 2026-09-21T14:13:20.1234567Z
    const NOW: u64 = 1_790_000_000_123_456_700;
    const INITIAL: &str = r#"{"tags":{"site":"north"},"properties":{"desired":{"a":1,"b":{"c":2}}}}"#;

    fn twin() -> State {
        create(Some(INITIAL), 0).unwrap()
    }

    fn request(kind: UpdateKind, body: &str) -> UpdateRequest {
        let State { tags, desired, version, etag, .. } = twin();
        let (condition, body_json) = (Condition::Unconditional, body.to_owned());
        UpdateRequest { tags, desired, version, etag, kind, body_json, condition, unix_nanos: NOW, emit_event: true }
    }

    fn patch(body: &str) -> Result<UpdateOutcome, Rejection> {
        update(&request(UpdateKind::Patch, body))
    }

    fn reported(patch: &str, if_version: Option<u64>) -> Result<ReportOutcome, Rejection> {
        let State { reported, version, .. } = twin();
        let patch_json = patch.to_owned();
        report(&ReportRequest { reported, version, patch_json, if_version, unix_nanos: NOW, emit_event: true })
    }

    #[test]
    fn a_new_twin_is_as_the_cloud_service_makes_it() {
        let state = create(None, NOW).unwrap();
        let metadata = r#"{"$lastUpdated":"2026-09-21T14:13:20.1234567Z"}"#;
        let empty = Section { json: "{}".into(), metadata_json: metadata.into(), version: 1, size: 0 };
        assert_eq!((&state.desired, &state.reported), (&empty, &empty));
        assert_eq!((state.tags.json.as_str(), state.version, state.etag), ("{}", 2, 1));
        for body in ["{}", r#"{"tags":null,"properties":null}"#, r#"{"properties":{"desired":null}}"#] {
            assert_eq!(create(Some(body), NOW), Ok(state.clone()), "{body}");
        }
    }

    #[test]
    fn a_patch_tells_the_device_and_the_routes() {
        let outcome = patch(r#"{"tags":{"site":null},"properties":{"desired":{"b":{"c":null,"d":[1.50]}}}}"#).unwrap();
        assert_eq!(outcome.tags, Some(Tags { json: "{}".into(), size: 0 }));
        let stamp = r#"{"$lastUpdated":"2026-09-21T14:13:20.1234567Z","$lastUpdatedVersion":2"#;
        let old = r#"{"$lastUpdated":"1970-01-01T00:00:00.0000000Z","$lastUpdatedVersion":1}"#;
        let desired = Section {
            json: r#"{"a":1,"b":{"d":[1.5]}}"#.into(),
            metadata_json: format!(r#"{stamp},"a":{old},"b":{stamp},"d":{stamp}}}}}}}"#),
            version: 2,
            size: 19,
        };
        assert_eq!(outcome.desired, Some(desired));
        assert_eq!((outcome.version, outcome.etag), (3, 2));
        let notification = r#"{"b":{"c":null,"d":[1.5]},"$version":2}"#;
        assert_eq!(outcome.notification_json.as_deref(), Some(notification));
        let metadata = format!(r#"{stamp},"b":{stamp},"d":{stamp}}}}}}}"#);
        let event = format!(
            r#"{{"version":3,"tags":{{"site":null}},"properties":{{"desired":{{"b":{{"c":null,"d":[1.5]}},"$metadata":{metadata},"$version":2}}}}}}"#
        );
        assert_eq!(outcome.event, Some(Event::UpdateTwin(event)));
    }

    #[test]
    fn an_empty_patch_of_a_section_counts_and_an_empty_body_does_not() {
        let outcome = patch(r#"{"properties":{"desired":{}}}"#).unwrap();
        assert_eq!(outcome.notification_json.as_deref(), Some(r#"{"$version":2}"#));
        assert_eq!((outcome.version, outcome.etag), (3, 2));
        for body in ["{}", r#"{"properties":{"reported":{"x":1}}}"#, r#"{"etag":"x","properties":null}"#] {
            let outcome = patch(body).unwrap();
            assert_eq!((outcome.version, outcome.etag, outcome.desired, outcome.event), (2, 1, None, None), "{body}");
        }
    }

    #[test]
    fn null_clears_a_section_and_the_device_is_told_what_went() {
        let outcome = patch(r#"{"tags":null,"properties":{"desired":null}}"#).unwrap();
        assert_eq!(outcome.tags.map(|tags| tags.json).as_deref(), Some("{}"));
        assert_eq!(outcome.desired.map(|desired| desired.json).as_deref(), Some("{}"));
        assert_eq!(outcome.notification_json.as_deref(), Some(r#"{"a":null,"b":null,"$version":2}"#));
    }

    #[test]
    fn a_replacement_takes_back_what_was_read() {
        let body = r#"{"deviceId":"d","etag":"x","properties":{"desired":{"$metadata":{"a":{}},"n":null,"z":1,"$version":9},"reported":{"$version":1}}}"#;
        let outcome = update(&request(UpdateKind::Replace, body)).unwrap();
        assert_eq!(outcome.tags.map(|tags| tags.json).as_deref(), Some("{}"), "not named, so emptied");
        assert_eq!(outcome.desired.map(|desired| desired.json).as_deref(), Some(r#"{"z":1}"#));
        assert_eq!(outcome.notification_json.as_deref(), Some(r#"{"z":1,"$version":2}"#));
        assert_eq!(outcome.event, Some(Event::ReplaceTwin));
    }

    #[test]
    fn conditions_are_checked_first() {
        let mut request = request(UpdateKind::Patch, "not JSON");
        for (condition, holds) in [
            (Condition::Unconditional, true),
            (Condition::Etag(1), true),
            (Condition::Etag(2), false),
            (Condition::Never, false),
        ] {
            request.condition = condition;
            let rejection = update(&request).unwrap_err();
            assert_eq!(matches!(rejection, Rejection::Invalid(_)), holds, "{rejection:?}");
            assert_eq!(matches!(rejection, Rejection::PreconditionFailed(_)), !holds, "{rejection:?}");
        }
        for (if_version, holds) in [(None, true), (Some(1), true), (Some(0), false), (Some(2), false)] {
            assert_eq!(reported("{}", if_version).is_ok(), holds);
        }
        assert!(matches!(reported("{}", Some(2)), Err(Rejection::PreconditionFailed(_))));
    }

    #[test]
    fn texts_begin_as_clients_know_them() {
        for (rejection, rule, part, path) in [
            (reported(r#"{"x":{"$version":3}}"#, None).unwrap_err(), Rule::Name, Some(Part::Reported), "x"),
            (reported("[]", None).unwrap_err(), Rule::NotAnObject, Some(Part::Reported), ""),
            (reported("{} {}", None).unwrap_err(), Rule::Syntax, None, ""),
            (patch(r#"{"tags":{"x":{"y":[null]}}}"#).unwrap_err(), Rule::NullInArray, Some(Part::Tags), "x.y"),
            (patch(r#"{"tags":5}"#).unwrap_err(), Rule::NotAnObject, Some(Part::Tags), ""),
            (patch(r#"{"properties":[]}"#).unwrap_err(), Rule::NotAnObject, None, ""),
            (patch("5").unwrap_err(), Rule::NotAnObject, None, ""),
            (patch(r#"{"properties":{"desired":{"a b":1}}}"#).unwrap_err(), Rule::Name, Some(Part::Desired), ""),
            (patch(r#"{"other":[}"#).unwrap_err(), Rule::Syntax, None, ""),
            (patch(r#"{"properties":nul}"#).unwrap_err(), Rule::Syntax, None, ""),
        ] {
            let Rejection::Invalid(violation) = rejection else { panic!("{rejection:?}") };
            assert_eq!((violation.rule, violation.part, violation.path.as_str()), (rule, part, path));
            let begin = "Provided json is not a valid 'tags' or 'properties' object: ";
            assert!(violation.message.starts_with(begin), "{}", violation.message);
        }
    }

    #[test]
    fn long_names_are_not_repeated_in_full() {
        let name = "ä".repeat(400);
        let Err(Rejection::Invalid(violation)) = reported(&format!(r#"{{"{name}":{{"x":1e999}}}}"#), None) else {
            panic!("accepted")
        };
        assert_eq!(violation.path, format!("{}….x", "ä".repeat(64)));
    }

    #[test]
    fn bodies_have_a_length_and_a_depth() {
        let padded = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
        assert!(reported(&padded(MAX_REPORTED_PATCH_BYTES), None).is_ok());
        assert!(patch(&padded(MAX_SERVICE_BODY_BYTES)).is_ok());
        for result in [
            reported(&padded(MAX_REPORTED_PATCH_BYTES + 1), None).map(|_| ()),
            patch(&padded(MAX_SERVICE_BODY_BYTES + 1)).map(|_| ()),
        ] {
            assert!(matches!(&result, Err(Rejection::TooLarge(excess)) if excess.part.is_none()), "{result:?}");
        }
        let bomb = format!(r#"{{"other":{}"#, "[".repeat(MAX_IGNORED_DEPTH + 1));
        assert!(matches!(patch(&bomb), Err(Rejection::Invalid(violation)) if violation.rule == Rule::Syntax));
    }

    #[test]
    fn damaged_state_is_the_hosts_fault() {
        let mut damaged = request(UpdateKind::Patch, r#"{"properties":{"desired":{"a":2}}}"#);
        damaged.desired.metadata_json = r#"{"a" :1}"#.to_owned();
        assert!(matches!(update(&damaged), Err(Rejection::DamagedState(_))));
    }
}
