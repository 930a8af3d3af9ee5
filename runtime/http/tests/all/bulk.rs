//! `POST /devices`.

use nave_hub::{CloseReason, Subscriptions};
use serde_json::{Value, json};

use crate::world::{Answer, World};

fn bulk(world: &World, items: &Value) -> Answer {
    // .NET writes the slash.
    world.hub_request("POST", "/devices/").json(items).send()
}

/// Device, module and code of each failure.
fn errors(answer: &Answer) -> Vec<(String, String, String)> {
    let text = |error: &Value, member: &str| error[member].as_str().unwrap().to_owned();
    let document = answer.document();
    assert_eq!(document["isSuccessful"], document["errors"].as_array().unwrap().is_empty());
    document["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (text(error, "deviceId"), text(error, "moduleId"), text(error, "errorCode")))
        .collect()
}

fn failed(device: &str, module: &str, code: &str) -> (String, String, String) {
    (device.to_owned(), module.to_owned(), code.to_owned())
}

#[test]
fn identities_are_created_with_their_twins_and_modules() {
    let world = World::new();
    let keys = json!({ "primaryKey": "MDEyMzQ1Njc4OWFiY2RlZg==", "secondaryKey": "ZmVkY2JhOTg3NjU0MzIxMA==" });
    let items = json!([
        { "id": "a", "importMode": "create", "status": "enabled", "authentication": { "type": "sas", "symmetricKey": keys },
          "tags": { "site": "x" }, "properties": { "desired": { "n": 1 }, "reported": {} } },
        { "id": "a", "moduleId": "m", "importMode": "Create", "managedBy": "me", "status": "enabled" },
        { "id": "b", "importMode": "createOrUpdate", "status": "disabled", "statusReason": "lost",
          "capabilities": { "iotEdge": true } },
    ]);
    let answer = bulk(&world, &items);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "isSuccessful": true, "errors": [], "warnings": [] }));
    let device = world.hub_request("GET", "/devices/a").send().json();
    assert_eq!(device["authentication"]["symmetricKey"], keys);
    let twin = world.hub_request("GET", "/twins/a").send().json();
    assert_eq!((&twin["tags"]["site"], &twin["properties"]["desired"]["n"]), (&json!("x"), &json!(1)));
    assert_eq!(world.hub_request("GET", "/devices/a/modules/m").send().json()["managedBy"], "me");
    let edge = world.hub_request("GET", "/devices/b").send().json();
    assert_eq!((&edge["status"], &edge["capabilities"]["iotEdge"]), (&json!("disabled"), &json!(true)));
}

#[test]
fn what_can_be_done_is_done_and_the_rest_is_named() {
    let world = World::new();
    let old = world.create_device("there");
    let (session, _) = world.connect("there", Subscriptions::NONE);
    let stale = old["etag"].clone();
    let items = json!([
        { "id": "new", "importMode": "create" },
        { "id": "there", "importMode": "create" },
        { "id": "absent", "importMode": "update" },
        { "id": "bad id", "importMode": "create" },
        { "id": "x", "importMode": "invent" },
        { "id": "y" },
        { "importMode": "create" },
        { "id": "z", "importMode": "updateIfMatchETag" },
        { "id": "new", "moduleId": "$system", "importMode": "create" },
        { "id": 7, "importMode": "create" },
        { "id": "t", "importMode": "create", "capabilities": 1 },
        "nothing",
    ]);
    let answer = bulk(&world, &items);
    assert_eq!(answer.status, 400);
    for header in ["iothuberrorcode", "iothub-errorcode"] {
        assert_eq!(answer.header(header), Some("BulkRegistryOperationFailure"));
    }
    let mut failures = errors(&answer);
    failures.sort();
    let mut expected = vec![
        failed("there", "", "DeviceAlreadyExists"),
        failed("absent", "", "DeviceNotFound"),
        failed("bad id", "", "ArgumentInvalid"),
        failed("x", "", "ArgumentInvalid"),
        failed("y", "", "ArgumentNull"),
        failed("", "", "ArgumentNull"),
        failed("z", "", "ArgumentNull"),
        failed("new", "$system", "ArgumentInvalid"),
        failed("", "", "ArgumentInvalid"),
        failed("t", "", "ArgumentInvalid"),
        failed("", "", "IotHubFormatError"),
    ];
    expected.sort();
    assert_eq!(failures, expected);
    assert_eq!(world.hub_request("GET", "/devices/new").send().status, 200);
    // The Node.js SDK sends an identity as it was read, so that both spellings of the tag may be there.
    let quoted = format!("\"{}\"", stale.as_str().unwrap());
    let disable = json!([{ "id": "there", "etag": "no", "eTag": quoted, "importMode": "updateIfMatchETag", "status": "disabled" }]);
    assert_eq!(bulk(&world, &disable).status, 200);
    assert_eq!(session.close_reason(), Some(CloseReason::Disabled));
    assert_eq!(errors(&bulk(&world, &disable)), [failed("there", "", "PreconditionFailed")]);
    let gone = json!([
        { "id": "there", "eTag": stale, "importMode": "deleteIfMatchETag" },
        { "id": "new", "importMode": "delete" },
    ]);
    assert_eq!(errors(&bulk(&world, &gone)), [failed("there", "", "PreconditionFailed")]);
    world.hub_request("GET", "/devices/new").send().hub_error(404, "DeviceNotFound");
}

#[test]
fn twins_are_merged() {
    let world = World::new();
    world.create_device("d");
    let twin = world.hub_request("GET", "/twins/d").send().json();
    let patch = |mode: &str, etag: &Value| {
        let item = json!({ "id": "d", "importMode": mode, "twinETag": etag, "tags": { "n": 1 },
            "properties": { "desired": { "x": 2 }, "reported": { "no": 1 } } });
        bulk(&world, &json!([item]))
    };
    assert_eq!(patch("updateTwinIfMatchETag", &twin["etag"]).status, 200);
    assert_eq!(errors(&patch("updateTwinIfMatchETag", &twin["etag"])), [failed("d", "", "PreconditionFailed")]);
    assert_eq!(patch("updateTwin", &Value::Null).status, 200);
    let twin = world.hub_request("GET", "/twins/d").send().json();
    assert_eq!((&twin["tags"]["n"], &twin["properties"]["desired"]["$version"]), (&json!(1), &json!(3)));
    assert!(twin["properties"]["reported"].get("no").is_none());
}

#[test]
fn what_is_no_bulk_request_changes_nothing() {
    let world = World::new();
    let items = |count: usize| -> Value {
        (0..count).map(|number| json!({ "id": format!("d{number}"), "importMode": "create" })).collect()
    };
    bulk(&world, &items(101)).hub_error(413, "TooManyDevices");
    let twice = json!([{ "id": "d0", "importMode": "create" }, { "id": "d0", "importMode": "delete" }]);
    bulk(&world, &twice).hub_error(400, "DeviceDefinedMultipleTimes");
    bulk(&world, &json!({})).hub_error(400, "IotHubFormatError");
    world.hub_request("GET", "/devices/d0").send().hub_error(404, "DeviceNotFound");
    assert_eq!(bulk(&world, &items(100)).status, 200);
    let token = world.hub_token("registryRead");
    let read_only = world.hub_request("POST", "/devices").header("Authorization", &token).untouchable();
    read_only.send().hub_error(401, "IotHubUnauthorizedAccess");
}
