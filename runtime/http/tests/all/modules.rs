//! `/devices/{id}/modules`, twins and methods of modules.

use nave_hub::{CloseReason, MAX_MODULES, Presented, Subscriptions, ToDevice};
use nave_model::Identity;
use serde_json::{Value, json};

use crate::world::World;

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|module| module["moduleId"].as_str().unwrap()).collect()
}

#[test]
fn a_module_is_created_read_listed_and_deleted() {
    let world = World::new();
    world.create_device("d");
    let body = json!({ "deviceId": "d", "moduleId": "m", "managedBy": "me", "authentication": { "type": "none" } });
    let created = world.hub_request("PUT", "/devices/d/modules/m").json(&body).send();
    let module = created.json();
    assert_eq!(created.header("etag"), Some(format!("\"{}\"", module["etag"].as_str().unwrap()).as_str()));
    assert_eq!(
        (&module["moduleId"], &module["deviceId"], &module["managedBy"]),
        (&json!("m"), &json!("d"), &json!("me"))
    );
    assert_eq!(module["authentication"]["type"], "sas", "no credentials means keys");
    assert!(module["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len() > 40);
    for absent in ["status", "statusReason", "capabilities", "deviceScope"] {
        assert!(module.get(absent).is_none(), "{absent}");
    }
    assert_eq!(world.hub_request("GET", "/devices/d/modules/m").send().json(), module);
    world.create_module("d/a");
    assert_eq!(ids(&world.hub_request("GET", "/devices/d/modules").send().json()), ["a", "m"]);
    assert_eq!(ids(&world.hub_request("GET", "/devices/d/modules/").send().json()), ["a", "m"]);
    let devices = world.hub_request("GET", "/devices").send().json();
    assert_eq!(devices.as_array().unwrap().len(), 1, "modules are not devices");
    let deleted = world.hub_request("DELETE", "/devices/d/modules/m").header("If-Match", "\"*\"").send();
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    world.hub_request("GET", "/devices/d/modules/m").send().hub_error(404, "ModuleNotFound");
    world.hub_request("GET", "/twins/d/modules/m").send().hub_error(404, "DeviceNotFound");
}

#[test]
fn preconditions() {
    let world = World::new();
    world.create_device("d");
    let put = |condition: Option<&str>, body: Value| {
        let ask = world.hub_request("PUT", "/devices/d/modules/m").json(&body);
        match condition {
            Some(condition) => ask.header("If-Match", condition).send(),
            None => ask.send(),
        }
    };
    put(Some("*"), json!({})).hub_error(404, "ModuleNotFound");
    let first = put(None, json!({ "managedBy": "me" })).json();
    put(None, json!({ "etag": first["etag"] })).hub_error(409, "ModuleAlreadyExistsOnDevice");
    let second = put(Some(first["etag"].as_str().unwrap()), json!({})).json();
    assert_eq!(second["managedBy"], Value::Null, "an update is a replacement");
    assert_ne!(second["authentication"]["symmetricKey"], first["authentication"]["symmetricKey"]);
    put(Some(first["etag"].as_str().unwrap()), json!({})).hub_error(412, "PreconditionFailed");
    put(None, json!({ "moduleId": "other" })).hub_error(400, "ArgumentInvalid");
    put(None, json!({ "deviceId": "other" })).hub_error(400, "ArgumentInvalid");
    put(Some("*"), json!({ "managedBy": "x".repeat(129) })).hub_error(400, "ArgumentInvalid");
    let delete = |condition: Option<&str>| {
        let ask = world.hub_request("DELETE", "/devices/d/modules/m");
        match condition {
            Some(condition) => ask.header("If-Match", condition).send(),
            None => ask.send(),
        }
    };
    delete(None).hub_error(412, "PreconditionFailed");
    delete(Some("\"AAAA\"")).hub_error(412, "PreconditionFailed");
    assert_eq!(delete(Some("*")).status, 204);
    delete(Some("*")).hub_error(404, "ModuleNotFound");
}

/// With a token, nobody learns from modules whether there is such a device (protocol notes: REST §2.3).
#[test]
fn modules_of_an_unknown_or_disabled_device_are_out_of_reach() {
    let world = World::new();
    world.create_device("off");
    world.create_module("off/m");
    let disabled = json!({ "deviceId": "off", "status": "disabled" });
    world.hub_request("PUT", "/devices/off").header("If-Match", "*").json(&disabled).send().json();
    for device in ["absent", "off"] {
        let path = format!("/devices/{device}/modules");
        world.hub_request("GET", &path).send().hub_error(401, "IotHubUnauthorizedAccess");
        let path = format!("{path}/m");
        world.hub_request("GET", &path).send().hub_error(401, "IotHubUnauthorizedAccess");
        world.hub_request("PUT", &path).json(&json!({})).send().hub_error(401, "IotHubUnauthorizedAccess");
        let delete = world.hub_request("DELETE", &path).header("If-Match", "*");
        delete.send().hub_error(401, "IotHubUnauthorizedAccess");
    }
}

#[test]
fn a_device_has_so_many_modules_and_no_more() {
    let world = World::new();
    world.create_device("d");
    for number in 0..MAX_MODULES {
        world.create_module(&format!("d/m{number}"));
    }
    // The modules of an edge device come on top, also when it is written again.
    for _ in 0..2 {
        let scope = world.hub_request("GET", "/devices/d").send().json()["deviceScope"].clone();
        let body = json!({ "deviceId": "d", "capabilities": { "iotEdge": true }, "deviceScope": scope });
        world.hub_request("PUT", "/devices/d").header("If-Match", "*").json(&body).send().json();
    }
    assert_eq!(ids(&world.hub_request("GET", "/devices/d/modules").send().json()).len(), MAX_MODULES + 2);
    let one_more = world.hub_request("PUT", "/devices/d/modules/x").text("{}");
    one_more.send().hub_error(413, "TooManyModulesOnDevice");
    world.hub_request("DELETE", "/devices/d/modules/m0").header("If-Match", "*").send();
    world.create_module("d/x");
    assert_eq!(world.hub_request("DELETE", "/devices/d").header("If-Match", "*").send().status, 204);
    world.create_device("d");
    assert_eq!(world.hub_request("GET", "/devices/d/modules").send().json(), json!([]));
}

#[test]
fn an_edge_device_is_born_with_its_modules() {
    let world = World::new();
    let put = |iot_edge: bool, condition: &str, scope: &Value| {
        let body = json!({ "deviceId": "e", "capabilities": { "iotEdge": iot_edge }, "deviceScope": scope });
        let ask = world.hub_request("PUT", "/devices/e").json(&body);
        if condition.is_empty() { ask.send() } else { ask.header("If-Match", condition).send() }
    };
    let edge = put(true, "", &json!("ms-azure-iot-edge://not-mine")).json();
    let scope = edge["deviceScope"].clone();
    assert!(scope.as_str().unwrap().starts_with("ms-azure-iot-edge://e-"), "{edge}");
    let modules = world.hub_request("GET", "/devices/e/modules").send().json();
    assert_eq!(ids(&modules), ["$edgeAgent", "$edgeHub"]);
    assert_eq!((&modules[0]["managedBy"], &modules[0]["authentication"]["type"]), (&json!("iotEdge"), &json!("none")));
    assert_eq!(world.hub_request("GET", "/twins/e/modules/$edgeAgent").send().json()["moduleId"], "$edgeAgent");
    for method in ["PUT", "DELETE"] {
        let ask = world.hub_request(method, "/devices/e/modules/$edgeHub").header("If-Match", "*").text("{}");
        ask.send().hub_error(400, "ArgumentInvalid");
    }
    put(true, "*", &Value::Null).hub_error(400, "ArgumentInvalid");
    assert_eq!(put(true, "*", &scope).json()["deviceScope"], scope);
    let leaf = json!({ "deviceId": "l", "deviceScope": scope });
    let leaf = world.hub_request("PUT", "/devices/l").json(&leaf).send().json();
    assert_eq!((&leaf["deviceScope"], &leaf["parentScopes"]), (&scope, &json!([scope])));
    assert_eq!(world.hub_request("GET", "/twins/l").send().json()["parentScopes"], json!([scope]));
    world.create_module("e/own");
    put(false, "*", &json!("")).json();
    assert_eq!(ids(&world.hub_request("GET", "/devices/e/modules").send().json()), ["own"]);
    put(true, "*", &json!("")).json();
    assert_eq!(ids(&world.hub_request("GET", "/devices/e/modules").send().json()), ["$edgeAgent", "$edgeHub", "own"]);
}

#[test]
fn a_modules_twin_is_its_own() {
    let world = World::new();
    world.create_device("d");
    let module = world.create_module("d/m");
    let (session, messages) = world.connect("d/m", Subscriptions::TWIN_DESIRED);
    let patch = json!({ "tags": { "t": 1 }, "properties": { "desired": { "x": 1 } } });
    let patched = world.hub_request("PATCH", "/twins/d/modules/m").json(&patch).send();
    let twin = patched.json();
    assert_eq!(
        (&twin["deviceId"], &twin["moduleId"], &twin["deviceEtag"]),
        (&json!("d"), &json!("m"), &module["etag"])
    );
    assert_eq!((&twin["connectionState"], &twin["status"]), (&json!("Connected"), &json!("enabled")));
    assert!(twin.get("capabilities").is_none(), "{twin}");
    assert_eq!(patched.header("etag"), Some(format!("\"{}\"", twin["etag"].as_str().unwrap()).as_str()));
    assert!(matches!(messages.all()[..], [ToDevice::Desired { version: 2, .. }]), "{:?}", messages.all());
    let stale = world.hub_request("PATCH", "/twins/d/modules/m").header("If-Match", "\"AAAAAAAAAAE=\"").json(&patch);
    stale.send().hub_error(412, "PreconditionFailed");
    let report = world.hub().report(&session, r#"{"r":7}"#, None);
    assert_eq!(world.simulation.run(report).unwrap().unwrap(), 2);
    let replaced = json!({ "tags": {}, "properties": { "desired": { "y": 2 } } });
    let twin = world.hub_request("PUT", "/twins/d/modules/m").json(&replaced).send().json();
    assert_eq!((twin["properties"]["desired"].get("x"), &twin["properties"]["reported"]["r"]), (None, &json!(7)));
    let own = world.simulation.run(world.hub().device_twin(&session, None)).unwrap().unwrap();
    let expected = r#"{"desired":{"y":2,"$version":3},"reported":{"r":7,"$version":2}}"#;
    assert_eq!(own, expected);
    let device = world.hub_request("GET", "/twins/d").send().json();
    assert_eq!((&device["tags"], &device["properties"]["desired"]["$version"]), (&json!({}), &json!(1)));
}

#[test]
fn methods_reach_the_module_and_not_its_device() {
    let world = World::new();
    world.create_device("d");
    world.create_module("d/m");
    let (_device, device_messages) = world.connect("d", Subscriptions::METHODS);
    let call = json!({ "methodName": "reboot", "responseTimeoutInSeconds": 5 });
    let invoke = |path: &str| world.hub_request("POST", path).json(&call).send();
    assert_eq!(invoke("/twins/d/modules/m/methods").status, 404);
    assert!(invoke("/twins/d/modules/absent/methods").body.contains("404001"));
    let (_module, messages) = world.connect("d/m", Subscriptions::METHODS);
    assert_eq!(invoke("/twins/d/modules/m/methods").status, 504, "nobody answers");
    assert!(matches!(&messages.all()[..], [ToDevice::Method { name, .. }] if name == "reboot"));
    assert!(device_messages.all().is_empty());
}

/// What ends the session of a module: its own new keys and deletion, and what happens to its device.
#[test]
fn sessions_of_modules_end_with_their_rights() {
    let world = World::new();
    let connect = || world.connect("d/m", Subscriptions::NONE).0;
    world.create_device("d");
    world.create_module("d/m");
    let session = connect();
    world.hub_request("PUT", "/devices/d/modules/m").header("If-Match", "*").text("{}").send().json();
    assert_eq!(session.close_reason(), Some(CloseReason::CredentialsChanged));
    let session = connect();
    assert_eq!(connect().close_reason(), None);
    assert_eq!(session.close_reason(), Some(CloseReason::Displaced));
    let session = connect();
    let put = |status: &str| {
        let body = json!({ "deviceId": "d", "status": status });
        world.hub_request("PUT", "/devices/d").header("If-Match", "*").json(&body).send().json();
    };
    put("disabled");
    assert_eq!(session.close_reason(), Some(CloseReason::Disabled));
    let refused = world.simulation.run(world.hub().authenticate(
        &Identity::parse("d/m").unwrap(),
        Presented { token: Some(&world.hub_token("iothubowner")), certificates: &[] },
        &[],
    ));
    let refused = refused.unwrap().unwrap_err();
    assert!(refused.to_string().contains("the module's device is disabled"), "{refused}");
    put("enabled");
    let session = connect();
    world.hub_request("DELETE", "/devices/d/modules/m").header("If-Match", "*").send();
    assert_eq!(session.close_reason(), Some(CloseReason::Deleted));
    world.create_module("d/m");
    let session = connect();
    assert_eq!(world.hub_request("DELETE", "/devices/d").header("If-Match", "*").send().status, 204);
    assert_eq!(session.close_reason(), Some(CloseReason::Deleted));
}
