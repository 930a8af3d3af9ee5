//! `/enrollments` and `/enrollmentGroups`.

use nave_auth::parse_certificate_text;
use serde_json::{Value, json};

use crate::world::{Answer, World};

fn symmetric(id: &str) -> Value {
    json!({ "registrationId": id, "attestation": { "type": "symmetricKey" } })
}

fn group(id: &str) -> Value {
    json!({ "enrollmentGroupId": id, "attestation": { "type": "symmetricKey" } })
}

fn put(world: &World, path: &str, body: &Value) -> Answer {
    world.dps_request("PUT", path).json(body).send()
}

fn member_names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// No null anywhere: the Java SDK fails on some.
fn assert_no_null(value: &Value) {
    match value {
        Value::Null => panic!("null"),
        Value::Array(items) => items.iter().for_each(assert_no_null),
        Value::Object(members) => members.values().for_each(assert_no_null),
        _ => {}
    }
}

#[test]
fn an_enrollment_comes_back_without_its_secrets() {
    let world = World::new();
    let mut body = json!({
        "registrationId": "Dev-1", "deviceId": "device-1", "etag": null,
        "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": "", "secondaryKey": "" } },
        "capabilities": { "iotEdge": false }, "provisioningStatus": "Enabled",
        "initialTwin": { "tags": { "a": 1 }, "properties": { "desired": { "b": [1.50, null] } } },
        "optionalDeviceInformation": { "note": "ü" },
        "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
        "allocationPolicy": "GeoLatency", "iotHubs": ["hub1.nave.test"], "unknown": {},
    });
    put(&world, "/enrollments/dev-1", &body).dps_error(400_004, "ArgumentInvalid");
    body["initialTwin"]["properties"]["desired"] = json!({ "b": [1.5] });
    let answer = put(&world, "/enrollments/dev-1", &body);
    let enrollment = answer.json();
    assert_eq!(
        member_names(&enrollment),
        [
            "registrationId",
            "deviceId",
            "optionalDeviceInformation",
            "attestation",
            "capabilities",
            "initialTwin",
            "etag",
            "provisioningStatus",
            "reprovisionPolicy",
            "createdDateTimeUtc",
            "lastUpdatedDateTimeUtc",
            "allocationPolicy",
            "iotHubs",
        ]
    );
    assert_eq!((&enrollment["registrationId"], &enrollment["deviceId"]), (&json!("dev-1"), &json!("device-1")));
    assert_eq!(enrollment["attestation"].to_string(), r#"{"symmetricKey":{},"type":"symmetricKey"}"#);
    assert_eq!(enrollment["allocationPolicy"], "geoLatency");
    assert_eq!(enrollment["initialTwin"], body["initialTwin"]);
    let etag = enrollment["etag"].as_str().unwrap();
    assert!(etag.len() == 38 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert_eq!(answer.header("etag"), Some(etag));
    assert_no_null(&enrollment);
    assert_eq!(world.dps_request("GET", "/Enrollments/DEV-1").send().json(), enrollment);
    let secrets = world.dps_request("POST", "/enrollments/dev-1/attestationMechanism").send().json();
    assert_eq!(secrets["symmetricKey"]["primaryKey"].as_str().unwrap().len(), 88, "64 bytes");
    assert_eq!(member_names(&secrets), ["symmetricKey", "type"]);
    assert_eq!(world.dps_request("GET", "/enrollments/other").send().status, 404);
}

/// The table of protocol notes, provisioning service §1, with the tag in the form of each SDK.
#[test]
fn preconditions() {
    let world = World::new();
    for (path, body, missing, exists) in [
        ("/enrollments/e", symmetric("e"), (404_201, "EnrollmentNotFound"), (409_201, "EnrollmentConflict")),
        ("/enrollmentGroups/e", group("e"), (404_204, "EnrollmentGroupNotFound"), (409_202, "EnrollmentGroupConflict")),
    ] {
        let update = |tag: &str| world.dps_request("PUT", path).header("If-Match", tag).json(&body).send();
        update("*").dps_error(missing.0, missing.1);
        world.dps_request("GET", path).send().dps_error(missing.0, missing.1);
        world.dps_request("DELETE", path).send().dps_error(missing.0, missing.1);
        let first = put(&world, path, &body).json()["etag"].as_str().unwrap().to_owned();
        put(&world, path, &body).dps_error(exists.0, exists.1);
        let second = update(&first).json()["etag"].as_str().unwrap().to_owned();
        assert_ne!(second, first);
        update(&first).dps_error(412_001, "PreconditionFailed");
        let third = update(second.trim_matches('"')).json()["etag"].as_str().unwrap().to_owned();
        assert_eq!((update("*").status, update("\"*\"").status), (200, 200));
        let delete = |tag: &str| world.dps_request("DELETE", path).header("If-Match", tag).send();
        delete(&third).dps_error(412_001, "PreconditionFailed");
        let deleted = delete("*");
        assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
        put(&world, path, &body).json();
        assert_eq!(world.dps_request("DELETE", path).send().status, 204);
    }
}

#[test]
fn what_was_read_can_be_written_back() {
    let world = World::new();
    let created = put(&world, "/enrollmentGroups/g", &group("g")).json();
    let secrets = || world.dps_request("POST", "/enrollmentgroups/g/attestationmechanism").send().json();
    let before = secrets();
    let mut changed = created.clone();
    changed["provisioningStatus"] = json!("disabled");
    let tag = created["etag"].as_str().unwrap();
    let written = world.dps_request("PUT", "/enrollmentGroups/g").header("If-Match", tag).json(&changed).send().json();
    assert_eq!((&written["provisioningStatus"], secrets()), (&json!("disabled"), before));
    assert_eq!(written["createdDateTimeUtc"], created["createdDateTimeUtc"]);
}

#[test]
fn certificates_are_shown_by_what_they_say() {
    let world = World::new();
    let pem = rcgen::generate_simple_self_signed(vec!["dev-1".to_owned()]).unwrap().cert.pem();
    let body = json!({
        "registrationId": "dev-1",
        "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "certificate": pem }, "secondary": null } } },
    });
    let enrollment = put(&world, "/enrollments/dev-1", &body).json();
    let attestation = &enrollment["attestation"];
    assert_eq!(member_names(attestation), ["x509", "type"]);
    let primary = &attestation["x509"]["clientCertificates"]["primary"];
    assert_eq!(member_names(primary), ["info"]);
    assert_eq!(
        member_names(&primary["info"]),
        [
            "subjectName",
            "sha1Thumbprint",
            "sha256Thumbprint",
            "issuerName",
            "notBeforeUtc",
            "notAfterUtc",
            "serialNumber",
            "version",
        ]
    );
    assert_no_null(&enrollment);
    let secrets = || world.dps_request("POST", "/enrollments/dev-1/attestationmechanism").send().json();
    let certificate = secrets()["x509"]["clientCertificates"]["primary"]["certificate"].as_str().unwrap().to_owned();
    assert_eq!(parse_certificate_text(&certificate).unwrap(), parse_certificate_text(&pem).unwrap());
    let back = world.dps_request("PUT", "/enrollments/dev-1").header("If-Match", "*").json(&enrollment).send();
    assert_eq!(back.json()["attestation"], *attestation);
    assert_eq!(secrets()["x509"]["clientCertificates"]["primary"]["certificate"], certificate);
}

#[test]
fn what_is_no_enrollment_is_refused() {
    let world = World::new();
    let wrong = |body: &Value| put(&world, "/enrollments/e", body).dps_error(400_004, "ArgumentInvalid");
    wrong(&json!({ "registrationId": "f", "attestation": { "type": "symmetricKey" } }));
    wrong(&json!({ "registrationId": "e" }));
    wrong(&json!({ "registrationId": "e", "attestation": { "type": "none" } }));
    wrong(&json!({ "registrationId": "e", "attestation": { "type": "tpm" } }));
    wrong(&json!({ "registrationId": "e", "attestation": { "type": "x509" } }));
    wrong(
        &json!({ "attestation": { "type": "x509", "x509": { "signingCertificates": { "primary": { "certificate": "x" } } } } }),
    );
    wrong(
        &json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "certificate": "x" } } } } }),
    );
    wrong(&json!({ "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": "AAAA" } } }));
    wrong(&json!({ "attestation": { "type": "symmetricKey" }, "provisioningStatus": "maybe" }));
    wrong(&json!({ "attestation": { "type": "symmetricKey" }, "allocationPolicy": "dice" }));
    wrong(&json!({ "attestation": { "type": "symmetricKey" }, "allocationPolicy": "custom" }));
    wrong(&json!({ "attestation": { "type": "symmetricKey" }, "deviceId": "a b" }));
    let deep = format!(
        r#"{{"attestation":{{"type":"symmetricKey"}},"optionalDeviceInformation":{}1{}}}"#,
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    world.dps_request("PUT", "/enrollments/e").text(&deep).send().dps_error(400_004, "ArgumentInvalid");
    world.dps_request("PUT", "/enrollments/e").text("[]").send().dps_error(400_006, "IotHubFormatError");
    put(&world, "/enrollments/bad!id", &symmetric("bad!id")).dps_error(400_004, "ArgumentInvalid");
    world.dps_request("GET", "/enrollments/e").send().dps_error(404_201, "EnrollmentNotFound");
    let tpm =
        json!({ "enrollmentGroupId": "g", "attestation": { "type": "tpm", "tpm": { "endorsementKey": "AA==" } } });
    put(&world, "/enrollmentGroups/g", &tpm).dps_error(400_004, "ArgumentInvalid");
}

#[test]
fn bulk_operations_succeed_and_fail_item_by_item() {
    let world = World::new();
    let bulk = |path: &str, body: &Value| world.dps_request("POST", path).json(body).send();
    let created = bulk("/enrollments/", &json!({ "mode": "create", "enrollments": [symmetric("a"), symmetric("b")] }));
    assert_eq!(created.json(), json!({ "isSuccessful": true, "errors": [] }));
    let mixed =
        bulk("/enrollments", &json!({ "mode": "create", "enrollments": [symmetric("b"), symmetric("c")] })).json();
    assert_eq!((&mixed["isSuccessful"], mixed["errors"].as_array().unwrap().len()), (&json!(false), 1));
    let error = &mixed["errors"][0];
    assert_eq!((&error["registrationId"], &error["errorCode"]), (&json!("b"), &json!(409_201)));
    assert!(error["errorStatus"].is_string());
    assert_eq!(world.dps_request("GET", "/enrollments/c").send().status, 200);
    let mut tagged = world.dps_request("GET", "/enrollments/a").send().json();
    let update = json!({ "mode": "updateIfMatchETag", "enrollments": [tagged] });
    assert_eq!(bulk("/enrollments", &update).json()["isSuccessful"], true);
    assert_eq!(bulk("/enrollments", &update).json()["errors"][0]["errorCode"], 412_001);
    tagged["etag"] = Value::Null;
    let untagged = json!({ "mode": "updateIfMatchETag", "enrollments": [tagged] });
    assert_eq!(bulk("/enrollments", &untagged).json()["errors"][0]["errorCode"], 400_005);
    let update = json!({ "mode": "Update", "enrollments": [symmetric("a"), symmetric("z")] });
    assert_eq!(bulk("/enrollments", &update).json()["errors"][0]["registrationId"], "z");
    let delete = json!({ "mode": "delete", "enrollments": [{ "registrationId": "a" }, { "registrationId": "z" }] });
    assert_eq!(bulk("/enrollments", &delete).json()["errors"][0]["errorCode"], 404_201);
    assert_eq!(world.dps_request("GET", "/enrollments/a").send().status, 404);
    let groups =
        bulk("/enrollmentGroups", &json!({ "mode": "create", "enrollmentGroups": [group("g"), group("")] })).json();
    assert_eq!(
        (&groups["errors"][0]["enrollmentGroupId"], &groups["errors"][0]["errorCode"]),
        (&json!(""), &json!(400_004))
    );
    let eleven: Vec<_> = (0..11).map(|number| symmetric(&format!("n{number}"))).collect();
    bulk("/enrollments", &json!({ "mode": "create", "enrollments": eleven })).dps_error(400_205, "TooManyEnrollments");
    let twice = json!({ "mode": "create", "enrollments": [symmetric("x"), symmetric("X")] });
    bulk("/enrollments", &twice).dps_error(400_206, "RegistrationIdDefinedMultipleTimes");
    bulk("/enrollments", &json!({ "mode": "upsert", "enrollments": [] })).dps_error(400_004, "ArgumentInvalid");
    bulk("/enrollments", &json!({ "mode": "create" })).dps_error(400_005, "ArgumentNull");
}

#[test]
fn queries_come_in_pages() {
    let world = World::new();
    for id in ["a", "b", "c"] {
        put(&world, &format!("/enrollments/{id}"), &symmetric(id)).json();
        put(&world, &format!("/enrollmentGroups/{id}"), &group(id)).json();
    }
    for (path, id, item_type) in [
        ("/enrollments/query", "registrationId", "Enrollment"),
        ("/enrollmentGroups/query", "enrollmentGroupId", "EnrollmentGroup"),
    ] {
        let mut found = Vec::new();
        let mut continuation: Option<String> = None;
        for size in [2, 1] {
            // What the Azure CLI sends for a query.
            let text = r#"{"query": "{'additional_properties': {}, 'query': 'SELECT *'}"}"#;
            let mut ask = world.dps_request("POST", path).header("x-ms-max-item-count", "2").text(text);
            if let Some(token) = &continuation {
                ask = ask.header("x-ms-continuation", token);
            }
            let page = ask.send();
            assert_eq!(
                (page.header("x-ms-item-type"), page.header("x-ms-max-item-count")),
                (Some(item_type), Some("2"))
            );
            let items = page.json();
            assert_eq!(items.as_array().unwrap().len(), size);
            found.extend(items.as_array().unwrap().iter().map(|item| item[id].as_str().unwrap().to_owned()));
            continuation = page.header("x-ms-continuation").map(str::to_owned);
        }
        assert_eq!((found.as_slice(), continuation), (["a", "b", "c"].map(str::to_owned).as_slice(), None));
        let all = world.dps_request("POST", path).header("x-ms-max-item-count", "-1").send();
        assert_eq!((all.json().as_array().unwrap().len(), all.header("x-ms-continuation")), (3, None));
        let wrong = world.dps_request("POST", path).header("x-ms-max-item-count", "many").send();
        wrong.dps_error(400_004, "ArgumentInvalid");
        let forged = world.dps_request("POST", path).header("x-ms-continuation", "!!/../!!").send();
        assert!(forged.status == 200 || forged.status == 400, "{forged:?}");
    }
}
