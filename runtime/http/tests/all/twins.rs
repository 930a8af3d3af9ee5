//! `/twins`.

use serde_json::{Value, json};

use crate::world::World;

#[test]
fn a_twin_is_read_patched_and_replaced() {
    let world = World::new();
    let device = world.create_device("d1");
    let read = world.hub_request("GET", "/twins/d1").send();
    assert_eq!(read.header("etag"), Some("\"AAAAAAAAAAE=\""));
    assert_eq!((&read.json()["deviceEtag"], &read.json()["etag"]), (&device["etag"], &json!("AAAAAAAAAAE=")));
    let patch = json!({ "tags": { "site": "a" }, "properties": { "desired": { "x": 1, "y": 2 } } });
    let patched = world.hub_request("PATCH", "/twins/d1").json(&patch).send();
    let twin = patched.json();
    assert_eq!((&twin["tags"]["site"], &twin["properties"]["desired"]["x"]), (&json!("a"), &json!(1)));
    assert_eq!(twin["properties"]["desired"]["$version"], 2);
    assert_eq!(patched.header("etag"), Some(format!("\"{}\"", twin["etag"].as_str().unwrap()).as_str()));
    let merged = world.hub_request("PATCH", "/twins/d1").json(&json!({ "properties": { "desired": { "x": null } } }));
    let twin = merged.send().json();
    assert_eq!((&twin["properties"]["desired"]["x"], &twin["properties"]["desired"]["y"]), (&Value::Null, &json!(2)));
    let replaced = world.hub_request("PUT", "/twins/d1").json(&json!({ "properties": { "desired": { "z": 3 } } }));
    let twin = replaced.send().json();
    assert_eq!((&twin["tags"], &twin["properties"]["desired"]["y"]), (&json!({}), &Value::Null));
    assert_eq!(twin["properties"]["desired"]["z"], 3);
}

#[test]
fn the_java_sdk_patches_by_post() {
    let world = World::new();
    world.create_device("d1");
    let patch = json!({ "tags": { "a": 1 } });
    let post = world.hub_request("POST", "/twins/d1").header("X-HTTP-Method-Override", "PATCH").json(&patch);
    assert_eq!(post.send().json()["tags"], json!({ "a": 1 }));
    world.hub_request("POST", "/twins/d1").json(&patch).send().hub_error(405, "GenericMethodNotAllowed");
}

/// The table of protocol notes, REST §1.2.
#[test]
fn preconditions() {
    let world = World::new();
    world.create_device("d1");
    for method in ["PATCH", "PUT"] {
        let change = |condition: &str| {
            let ask = world.hub_request(method, "/twins/d1").json(&json!({ "tags": { "a": 1 } }));
            if condition.is_empty() { ask.send() } else { ask.header("If-Match", condition).send() }
        };
        for unconditional in ["", "*", "\"*\""] {
            assert_eq!(change(unconditional).status, 200);
        }
        let tag = change("").json()["etag"].as_str().unwrap().to_owned();
        let quoted = change(&format!("\"{tag}\"")).json()["etag"].as_str().unwrap().to_owned();
        let bare = change(&quoted).json();
        assert_ne!(bare["etag"], quoted.as_str());
        change(&format!("\"{tag}\"")).hub_error(412, "PreconditionFailed");
        change("\"no tag at all\"").hub_error(412, "PreconditionFailed");
    }
}

#[test]
fn errors_are_those_of_the_registry() {
    let world = World::new();
    world.create_device("d1");
    world.hub_request("GET", "/twins/d2").send().hub_error(404, "DeviceNotFound");
    world.hub_request("GET", "/twins/d1/modules/m").send().hub_error(404, "DeviceNotFound");
    world.hub_request("PATCH", "/twins/d2").text("{}").send().hub_error(404, "DeviceNotFound");
    let patch = |body: &str| world.hub_request("PATCH", "/twins/d1").text(body).send();
    patch("not json").hub_error(400, "ArgumentInvalid");
    patch(r#"{"tags":{"a b":1}}"#).hub_error(400, "ArgumentInvalid");
    patch(&format!(r#"{{"tags":{{"a":"{}"}}}}"#, "x".repeat(1 << 20))).hub_error(413, "MessageTooLarge");
}
