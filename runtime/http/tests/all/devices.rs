//! `/devices`.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use nave_env::Env as _;
use nave_hub::{CloseReason, Subscriptions, ToDevice};
use serde_json::{Value, json};

use crate::world::{Ask, World};

#[test]
fn a_device_is_created_with_keys_and_read_back() {
    let world = World::new();
    let created = world.hub_request("PUT", "/devices/d1").json(&json!({ "deviceId": "d1" })).send();
    let device = created.json();
    assert_eq!(created.header("etag"), Some(format!("\"{}\"", device["etag"].as_str().unwrap()).as_str()));
    assert_eq!((&device["status"], &device["connectionState"]), (&json!("enabled"), &json!("Disconnected")));
    assert_eq!(device["authentication"]["type"], "sas");
    assert!(device["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len() > 40);
    let read = world.hub_request("GET", "/devices/d1").send();
    assert_eq!((read.json(), read.header("etag")), (device, created.header("etag")));
    // The .NET SDK's setters of the other members change the type.
    assert!(read.body.contains(r#""type":"sas"},"capabilities""#), "{}", read.body);
}

/// What the Node and Java SDKs send when nothing is set, and what nobody has to know.
#[test]
fn empty_and_unknown_members_are_nothing() {
    let world = World::new();
    let body = json!({
        "deviceId": "d1", "status": "Enabled", "statusReason": null, "attributes": { "x": 1 }, "etag": "zzz",
        "authentication": {
            "type": "sas", "symmetricKey": { "primaryKey": "", "secondaryKey": "" },
            "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
        },
        "capabilities": { "iotEdge": false }, "deviceScope": "", "parentScopes": [],
    });
    let device = world.hub_request("PUT", "/devices/d1").text(&format!("\u{FEFF}{body}")).send().json();
    assert_eq!(device["status"], "enabled");
    assert_ne!(device["etag"], "zzz");
    assert!(!device["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().is_empty());
}

#[test]
fn credentials_are_kept_as_they_were_sent() {
    let world = World::new();
    let keys = json!({ "primaryKey": "MDEyMzQ1Njc4OWFiY2RlZg==", "secondaryKey": "ZmVkY2JhOTg3NjU0MzIxMA==" });
    let body = json!({ "deviceId": "k", "status": "DISABLED", "statusReason": "lost",
        "authentication": { "type": "SAS", "symmetricKey": keys } });
    let device = world.hub_request("PUT", "/devices/k").json(&body).send().json();
    assert_eq!((&device["authentication"]["symmetricKey"], &device["status"]), (&keys, &json!("disabled")));
    assert_eq!(device["statusReason"], "lost");
    let thumbprint = "A".repeat(40);
    let body = json!({ "deviceId": "x", "authentication": { "x509Thumbprint": { "primaryThumbprint": thumbprint } } });
    let device = world.hub_request("PUT", "/devices/x").json(&body).send().json();
    assert_eq!(device["authentication"]["type"], "selfSigned");
    assert_eq!(device["authentication"]["x509Thumbprint"]["primaryThumbprint"], thumbprint);
    let body = json!({ "deviceId": "c", "authentication": { "type": "certificateAuthority" } });
    let device = world.hub_request("PUT", "/devices/c").json(&body).send().json();
    assert_eq!(device["authentication"]["symmetricKey"]["primaryKey"], Value::Null);
}

#[test]
fn what_is_no_identity_is_refused() {
    let world = World::new();
    let put = |body: &str| world.hub_request("PUT", "/devices/d1").text(body).send();
    put(r#"{"deviceId":"d2"}"#).hub_error(400, "ArgumentInvalid");
    put(r#"{"deviceId":"d1","status":"dead"}"#).hub_error(400, "ArgumentInvalid");
    put(r#"{"deviceId":"d1","authentication":{"type":"none"}}"#).hub_error(400, "ArgumentInvalid");
    put("").hub_error(400, "IotHubFormatError");
    put(r#"{"deviceId":"d1"} x"#).hub_error(400, "IotHubFormatError");
    put(&"[".repeat(10_000)).hub_error(400, "IotHubFormatError");
    let message =
        put(r#"{"authentication":{"symmetricKey":"c2VjcmV0LXNlY3JldA=="}}"#).hub_error(400, "ArgumentInvalid");
    assert!(!message.contains("c2Vj"), "a key is not repeated: {message}");
    put(&format!(r#"{{"deviceId":"d1","x":"{}"}}"#, "x".repeat(70_000))).hub_error(413, "MessageTooLarge");
    world.hub_request("GET", "/devices/d1").send().hub_error(404, "DeviceNotFound");
}

/// The table of protocol notes, REST §1.2, with the tag in the form of each SDK.
#[test]
fn preconditions() {
    let world = World::new();
    let body = json!({ "deviceId": "d1" });
    let put = |condition: Option<&str>| {
        let ask = world.hub_request("PUT", "/devices/d1").json(&body);
        match condition {
            Some(condition) => ask.header("If-Match", condition).send(),
            None => ask.send(),
        }
    };
    for star in ["*", "\"*\""] {
        put(Some(star)).hub_error(404, "DeviceNotFound");
    }
    put(Some("\"ODAxMjMyNDI2\"")).hub_error(404, "DeviceNotFound");
    let mut tag = put(None).json()["etag"].as_str().unwrap().to_owned();
    put(None).hub_error(409, "DeviceAlreadyExists");
    let forms: [fn(&str) -> String; 5] = [
        |tag| format!("\"{tag}\""),
        |tag| tag.to_owned(),
        |tag| format!("W/\"{tag}\""),
        |_| "*".to_owned(),
        |_| "\"*\"".to_owned(),
    ];
    for form in forms {
        let updated = put(Some(&form(&tag)));
        let next = updated.json()["etag"].as_str().unwrap().to_owned();
        assert_ne!(next, tag);
        put(Some(&format!("\"{tag}\""))).hub_error(412, "PreconditionFailed");
        tag = next;
    }
    let delete = |condition: Option<&str>| {
        let ask = world.hub_request("DELETE", "/devices/d1");
        match condition {
            Some(condition) => ask.header("If-Match", condition).send(),
            None => ask.send(),
        }
    };
    delete(None).hub_error(412, "PreconditionFailed");
    delete(Some("\"AAAA\"")).hub_error(412, "PreconditionFailed");
    let deleted = delete(Some(&tag));
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    delete(Some("*")).hub_error(404, "DeviceNotFound");
}

#[test]
fn devices_are_listed_in_order_and_in_bounds() {
    let world = World::new();
    for id in ["c", "a", "b"] {
        world.create_device(id);
    }
    let list = |query: &str| world.hub_request("GET", &format!("/devices{query}")).send();
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|device| device["deviceId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&list("").json()), ["a", "b", "c"]);
    assert_eq!(ids(&list("/?top=2").json()), ["a", "b"]);
    for top in ["0", "1001", "-1", "many"] {
        list(&format!("?top={top}")).hub_error(400, "DeviceInvalidResultCount");
    }
}

#[test]
fn ids_are_decoded_once() {
    let world = World::new();
    let id = "a%b+c#d:e";
    let created = world.hub_request("PUT", "/devices/a%25b%2Bc%23d%3Ae").json(&json!({ "deviceId": id })).send();
    assert_eq!(created.json()["deviceId"], id);
    // The Java SDK does not encode.
    assert_eq!(world.hub_request("GET", "/devices/a%25b+c%23d:e").send().json()["deviceId"], id);
}

/// The client goes away after its request was committed and before what follows is done.
#[test]
fn a_change_ends_without_its_client() {
    let world = World::new();
    world.create_device("d1");
    let (session, messages) = world.connect("d1", Subscriptions::TWIN_DESIRED);
    let give_up = |ask: Ask<'_>| {
        let answer = pin!(ask.answer());
        let patience = world.env.sleep(Duration::from_micros(500));
        let gave_up =
            world.simulation.run(async { matches!(select(answer, patience).await, Either::Right(_)) }).unwrap();
        assert!(gave_up, "a commit takes a millisecond");
        world.simulation.run(world.env.sleep(Duration::from_secs(1))).unwrap();
    };
    let desired = json!({ "properties": { "desired": { "x": 1 } } });
    give_up(world.hub_request("PATCH", "/twins/d1").json(&desired));
    assert!(matches!(messages.all()[..], [ToDevice::Desired { version: 2, .. }]), "{:?}", messages.all());
    let disabled = json!({ "deviceId": "d1", "status": "disabled" });
    give_up(world.hub_request("PUT", "/devices/d1").header("If-Match", "*").json(&disabled));
    assert_eq!(session.close_reason(), Some(CloseReason::Disabled));
}
