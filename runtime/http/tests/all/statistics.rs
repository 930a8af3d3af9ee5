//! `/statistics`, connection state and last activity.

use std::time::Duration;

use nave_env::Env as _;
use nave_hub::{Message, Subscriptions};
use serde_json::json;

use crate::world::World;

#[test]
fn devices_are_counted_by_status_and_by_connection() {
    let world = World::new();
    for id in ["a", "b", "c"] {
        world.create_device(id);
    }
    world.create_module("a/m");
    let disabled = json!({ "deviceId": "c", "status": "disabled" });
    world.hub_request("PUT", "/devices/c").header("If-Match", "*").json(&disabled).send().json();
    let read = |path: &str| world.hub_request("GET", path).send().json();
    let counted = json!({ "totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1 });
    assert_eq!(read("/statistics/devices"), counted);
    let connections = [world.connect("a", Subscriptions::NONE), world.connect("a/m", Subscriptions::NONE)];
    assert_eq!(read("/statistics/service"), json!({ "connectedDeviceCount": 1 }));
    connections.iter().for_each(|(session, _)| world.hub().disconnected(session));
    assert_eq!(read("/statistics/service"), json!({ "connectedDeviceCount": 0 }));
    let token = world.hub_token("service");
    world
        .hub_request("GET", "/statistics/devices")
        .header("Authorization", &token)
        .send()
        .hub_error(401, "IotHubUnauthorizedAccess");
}

#[test]
fn the_connection_and_the_last_activity_are_shown_as_they_change() {
    let world = World::new();
    world.create_device("d");
    let never = "0001-01-01T00:00:00";
    let device = || world.hub_request("GET", "/devices/d").send().json();
    let twin = || world.hub_request("GET", "/twins/d").send().json();
    assert_eq!(
        (device()["connectionStateUpdatedTime"].clone(), device()["lastActivityTime"].clone()),
        (never.into(), never.into())
    );
    let wait = || world.simulation.run(world.env.sleep(Duration::from_secs(10))).unwrap();
    let now = || world.env.now().iso();
    let (session, _) = world.connect("d", Subscriptions::NONE);
    let connected = device()["connectionStateUpdatedTime"].clone();
    assert_eq!((&device()["connectionState"], &twin()["connectionState"]), (&json!("Connected"), &json!("Connected")));
    wait();
    let active = now();
    world.simulation.run(world.hub().send_telemetry(&session, vec![Message::default()])).unwrap().unwrap();
    assert_eq!((&device()["lastActivityTime"], &twin()["lastActivityTime"]), (&json!(active), &json!(active)));
    wait();
    let left = now();
    world.hub().disconnected(&session);
    wait();
    let listed = world.hub_request("GET", "/devices").send().json()[0].clone();
    for shown in [device(), listed] {
        assert_eq!((&shown["connectionState"], &shown["lastActivityTime"]), (&json!("Disconnected"), &json!(active)));
        assert_eq!(shown["connectionStateUpdatedTime"], left);
        assert!(connected.as_str().unwrap() < left.as_str());
    }
    assert_eq!((&twin()["connectionState"], &twin()["lastActivityTime"]), (&json!("Disconnected"), &json!(active)));
    assert!(twin().get("connectionStateUpdatedTime").is_none());
    // A device of the same id that is made anew has never been there.
    world.hub_request("DELETE", "/devices/d").header("If-Match", "*").send();
    world.create_device("d");
    assert_eq!(device()["lastActivityTime"], never);
}

#[test]
fn the_time_of_a_status_moves_with_the_status_only() {
    let world = World::new();
    let put = |status: &str| {
        let body = json!({ "deviceId": "d", "status": status });
        world.hub_request("PUT", "/devices/d").header("If-Match", "*").json(&body).send().json()
    };
    world.create_device("d");
    assert_eq!(put("enabled")["statusUpdatedTime"], "0001-01-01T00:00:00");
    let disabled = put("disabled")["statusUpdatedTime"].clone();
    assert!(disabled.as_str().unwrap() > "2000");
    world.simulation.run(world.env.sleep(Duration::from_secs(5))).unwrap();
    assert_eq!(put("disabled")["statusUpdatedTime"], disabled);
    assert_eq!(world.hub_request("GET", "/twins/d").send().json()["statusUpdateTime"], disabled);
}
