//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

#![expect(clippy::unwrap_used, reason = "a panic is how a fuzz target reports")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use nave_auth::percent_encode;
use nave_hub::system;
use nave_model::{DeviceId, EnrollmentKind, ModuleId};
use serde_json::value::RawValue;

use crate::call::{parse_json, parse_object};
use crate::message_headers::{self, Property};
use crate::route::{Target, check_dps_version, check_hub_version, host, method};
use crate::{bulk, device, dps, enrollment_document, events, hub, identity_document};

/// The target of a request, as text. Paths stay within their bound, lead to at most one side, and are read as the same
/// when they are written with every segment encoded.
pub fn fuzz_target(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    let Ok(target) = Target::parse(&uri) else { return };
    let _ = (check_hub_version(&target).is_ok(), check_dps_version(&target).is_ok());
    let _ = events::reads(&target, 4);
    let segments = target.segments();
    assert_eq!(target.words().len(), segments.len());
    for verb in [http::Method::GET, http::Method::POST] {
        if dps::is_path(&target) {
            assert!(!hub::is_path(&verb, &target), "{segments:?} is a path of a hub and of the provisioning service");
        }
    }
    // A segment that is empty at the end is what the slash before it is: nothing.
    if segments.last().is_some_and(|last| !last.is_empty()) && !segments.iter().all(|segment| segment.is_empty()) {
        let written = segments.iter().fold(String::new(), |path, segment| path + "/" + &percent_encode(segment));
        let again = Target::parse(&Uri::try_from(written.as_str()).unwrap()).unwrap();
        assert_eq!(again.segments(), segments);
    }
}

/// Headers, one `name: value` a line. What is read out of them is read again out of what is written for a device.
pub fn fuzz_headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let mut request = Request::post("/").body(()).unwrap();
    request.headers_mut().clone_from(&headers);
    let parts = request.into_parts().0;
    let _ = (method(&parts), host(&parts));
    let Ok(read) = message_headers::properties(&headers) else { return };
    let of_kind = |application: bool| {
        read.iter().filter_map(move |property| match property {
            Property::System(name, value) => (!application).then_some((*name, value.as_str())),
            Property::Application(name, value) => application.then_some((name.as_str(), value.as_str())),
        })
    };
    for (name, value) in of_kind(false) {
        if name == system::EXPIRY {
            let _ = message_headers::time("iothub-expiry", value).is_ok();
        }
    }
    let mut written = HeaderMap::new();
    message_headers::write(&mut written, of_kind(false), of_kind(true));
    let again = message_headers::properties(&written).unwrap();
    let sorted = |properties: &[Property]| {
        let mut shown: Vec<String> = properties.iter().map(|property| format!("{property:?}")).collect();
        shown.sort();
        shown
    };
    assert_eq!(sorted(&again), sorted(&read));
}

/// A batch of messages. What is read is read again when it is written.
pub fn fuzz_batch(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(messages) = device::batch(text) else { return };
    assert!(!messages.is_empty());
    let items: Vec<serde_json::Value> = messages
        .iter()
        .map(|message| match std::str::from_utf8(&message.body) {
            Ok(body) => serde_json::json!({ "body": body, "base64Encoded": false }),
            Err(_) => serde_json::json!({ "body": STANDARD.encode(&message.body) }),
        })
        .collect();
    let again = device::batch(&serde_json::Value::Array(items).to_string()).unwrap();
    assert!(again.iter().map(|message| &message.body).eq(messages.iter().map(|message| &message.body)));
}

/// Identities, enrollments and bulk requests: whatever the document, it is read or refused.
pub fn fuzz_documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(document) = parse_object::<identity_document::Document>(text) {
        let _ = document.into_device(&DeviceId::parse("d").unwrap()).is_ok();
    }
    if let Ok(document) = parse_object::<identity_document::Document>(text) {
        let _ = document.into_module(&DeviceId::parse("d").unwrap(), &ModuleId::parse("m").unwrap()).is_ok();
    }
    for kind in [EnrollmentKind::Individual, EnrollmentKind::Group] {
        if let Ok(document) = parse_object::<enrollment_document::Document>(text) {
            let _ = document.into_input(kind, None).is_ok();
        }
    }
    if let Ok(elements) = parse_json::<Vec<&RawValue>>(text) {
        for element in elements {
            if let (_, Ok(change)) = bulk::read(element) {
                // Twins travel as text: what is put together of members has to be a document again.
                assert!(change.twin.is_none_or(|twin| parse_object::<&RawValue>(&twin).is_ok()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("http_target", super::fuzz_target);
        exercise("http_headers", super::fuzz_headers);
        exercise("http_batch", super::fuzz_batch);
        exercise("http_documents", super::fuzz_documents);
    }
}
