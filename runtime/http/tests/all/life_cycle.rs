//! Events about devices and modules, as back ends read them (protocol notes: routing §7).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_env::Env as _;
use nave_hub::{RoutingConfig, Subscriptions};
use nave_routing::{EndpointName, Route, RouteName, Source};
use serde_json::{Value, json};

use crate::world::World;

/// A world whose first hub routes all that happens to devices.
fn world() -> World {
    let world = World::new();
    let sources = [Source::DeviceLifecycleEvents, Source::TwinChangeEvents, Source::DeviceConnectionStateEvents];
    let routes = sources.map(|source| Route {
        name: RouteName::parse(source.as_str()).unwrap(),
        source,
        // Every name that conditions have for the sender.
        condition: "$connectionDeviceId = 'd' AND (NOT is_defined($connectionModuleId) OR $connectionModuleId = 'm')"
            .to_owned(),
        endpoint: EndpointName::events(),
        enabled: true,
    });
    let config = RoutingConfig { routes: routes.to_vec(), fallback: true, enrichments: Vec::new() };
    world.hub().set_routing(config).unwrap();
    world
}

/// The events so far, with their bodies read.
fn events(world: &World) -> Vec<Value> {
    world.simulation.run(world.env.sleep(Duration::from_secs(1))).unwrap();
    let answer = world.hub_request("GET", "/events?from=earliest&maxWait=1").send();
    let read = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let body = STANDARD.decode(event["body"].as_str().unwrap()).unwrap();
        event["body"] = serde_json::from_slice(&body).unwrap();
        event
    };
    answer.body.lines().map(read).collect()
}

/// Source, operation and module of each.
fn summary(events: &[Value]) -> Vec<(&str, &str, Option<&str>)> {
    events
        .iter()
        .map(|event| {
            let source = event["systemProperties"]["iothub-message-source"].as_str().unwrap();
            (source, event["properties"]["opType"].as_str().unwrap(), event["moduleId"].as_str())
        })
        .collect()
}

#[test]
fn the_life_of_a_module_is_told_in_every_detail() {
    let world = world();
    world.create_device("d");
    world.create_module("d/m");
    let created = events(&world);
    let life = "deviceLifecycleEvents";
    assert_eq!(summary(&created), [(life, "createDeviceIdentity", None), (life, "createDeviceIdentity", Some("m"))]);
    let event = created[1].clone();
    let enqueued = event["systemProperties"]["iothub-enqueuedtime"].as_str().unwrap();
    let correlation = event["systemProperties"]["correlation-id"].as_str().unwrap();
    assert!(correlation.len() == 12 && correlation.bytes().all(|byte| byte.is_ascii_hexdigit()), "{correlation}");
    let time = event["properties"]["operationTimestamp"].as_str().unwrap();
    assert!(time.len() == 33 && time.ends_with("+00:00"), "{time}");
    let never = event["body"]["properties"]["desired"]["$metadata"]["$lastUpdated"].clone();
    let section = json!({ "$metadata": { "$lastUpdated": never }, "$version": 1 });
    assert_eq!(
        (&event["deviceId"], &event["moduleId"], &event["properties"], &event["systemProperties"], &event["body"]),
        (
            &json!("d"),
            &json!("m"),
            &json!({
                "hubName": "hub1", "deviceId": "d", "moduleId": "m", "operationTimestamp": time,
                "iothub-message-schema": "deviceLifecycleNotification", "opType": "createDeviceIdentity",
            }),
            &json!({
                "content-type": "application/json", "content-encoding": "utf-8", "correlation-id": correlation,
                "user-id": "hub1", "iothub-connection-device-id": "d", "iothub-connection-module-id": "m",
                "iothub-enqueuedtime": enqueued, "iothub-message-source": life,
            }),
            &json!({
                "deviceId": "d", "moduleId": "m", "etag": "AAAAAAAAAAE=", "version": 2,
                "properties": { "desired": section, "reported": section },
            })
        )
    );
    // Deleting the device deletes its module first.
    world.hub_request("DELETE", "/devices/d").header("If-Match", "*").send();
    let deleted = events(&world).split_off(2);
    assert_eq!(summary(&deleted), [(life, "deleteDeviceIdentity", Some("m")), (life, "deleteDeviceIdentity", None)]);
}

#[test]
fn changes_of_twins_are_told_as_what_changed_or_as_a_whole() {
    let world = world();
    world.create_device("d");
    world.create_module("d/m");
    let patch = json!({ "tags": { "t": 1 }, "properties": { "desired": { "x": 1, "gone": null } } });
    world.hub_request("PATCH", "/twins/d/modules/m").json(&patch).send().json();
    let whole = json!({ "properties": { "desired": { "y": 2 } } });
    world.hub_request("PUT", "/twins/d/modules/m").json(&whole).send().json();
    let (session, _) = world.connect("d/m", Subscriptions::NONE);
    world.simulation.run(world.hub().report(&session, r#"{"r":true}"#, None)).unwrap().unwrap();
    let events = events(&world);
    let of_twins: Vec<Value> = events
        .into_iter()
        .filter(|event| event["properties"]["iothub-message-schema"] == "twinChangeNotification")
        .collect();
    let source = "twinChangeEvents";
    assert_eq!(
        summary(&of_twins),
        [(source, "updateTwin", Some("m")), (source, "replaceTwin", Some("m")), (source, "updateTwin", Some("m"))]
    );
    let [patched, replaced, reported] = [0, 1, 2].map(|number: usize| of_twins[number]["body"].clone());
    assert_eq!((&patched["tags"]["t"], &patched["properties"]["desired"]["$version"]), (&json!(1), &json!(2)));
    assert_eq!(patched["properties"]["desired"]["gone"], Value::Null);
    assert!(patched["properties"]["desired"]["$metadata"]["x"]["$lastUpdated"].is_string(), "{patched}");
    assert!(patched.get("deviceId").is_none() && patched["properties"].get("reported").is_none(), "{patched}");
    assert_eq!(
        (&replaced["deviceId"], &replaced["moduleId"], &replaced["tags"]),
        (&json!("d"), &json!("m"), &json!({}))
    );
    assert_eq!((&replaced["properties"]["desired"]["y"], replaced["version"].as_u64()), (&json!(2), Some(4)));
    assert_eq!((&reported["properties"]["reported"]["r"], reported.get("tags")), (&json!(true), None));
}

#[test]
fn connections_are_told_with_numbers_that_grow() {
    let world = world();
    world.create_device("d");
    world.create_module("d/m");
    let mut told = Vec::new();
    for _ in 0..2 {
        for id in ["d", "d/m"] {
            let (session, _) = world.connect(id, Subscriptions::NONE);
            events(&world);
            world.hub().disconnected(&session);
            events(&world);
        }
        // Deleted and made anew, the numbers go on growing.
        told.extend(events(&world));
        world.hub_request("DELETE", "/devices/d").header("If-Match", "*").send();
        world.create_device("d");
        world.create_module("d/m");
    }
    told.extend(events(&world));
    let schema = "deviceConnectionStateNotification";
    told.retain(|event| event["properties"]["iothub-message-schema"] == schema);
    let mut seen = Vec::new();
    told.retain(|event| {
        let new = !seen.contains(&event["sequenceNumber"].to_string());
        seen.push(event["sequenceNumber"].to_string());
        new
    });
    let source = "deviceConnectionStateEvents";
    let once = [
        (source, "deviceConnected", None),
        (source, "deviceDisconnected", None),
        (source, "deviceConnected", Some("m")),
        (source, "deviceDisconnected", Some("m")),
    ];
    assert_eq!(summary(&told), [once, once].concat());
    for module in [None, Some("m")] {
        let of_one = told.iter().filter(|event| event["moduleId"].as_str() == module);
        let numbers: Vec<&str> = of_one.map(|event| event["body"]["sequenceNumber"].as_str().unwrap()).collect();
        assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "{numbers:?}");
        let upper =
            |number: &&str| number.len() == 64 && number.bytes().all(|byte| b"0123456789ABCDEF".contains(&byte));
        assert!(numbers.iter().all(upper), "{numbers:?}");
    }
    assert_eq!(told[0]["body"].as_object().unwrap().len(), 1);
}

/// Who has no route for it pays nothing, and nothing is told later.
#[test]
fn without_a_route_nothing_is_told() {
    let world = World::new();
    world.create_device("d");
    let (session, _) = world.connect("d", Subscriptions::NONE);
    world.hub().set_routing(RoutingConfig { routes: Vec::new(), fallback: true, enrichments: Vec::new() }).unwrap();
    world.hub().disconnected(&session);
    assert_eq!(events(&world), Vec::<Value>::new());
}
