//! Sending to devices, emptying queues, and feedback.

use std::time::Duration;

use nave_env::Env as _;
use nave_hub::{MAX_DEVICE_BOUND_BYTES, MAX_QUEUE_DEPTH};
use serde_json::{Value, json};

use crate::world::{Answer, Ask, World};

fn to<'a>(world: &'a World, device: &str) -> Ask<'a> {
    world.hub_request("POST", &format!("/devices/{device}/messages/deviceBound"))
}

fn feedback(world: &World) -> Answer {
    world.hub_request("GET", "/messages/servicebound/feedback").send()
}

fn records(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

fn pass(world: &World, seconds: u64) {
    world.simulation.run(world.env.sleep(Duration::from_secs(seconds))).unwrap();
}

/// A device with `count` purged messages, about which there is feedback.
fn purged(world: &World, device: &str, count: usize) {
    world.create_device(device);
    for number in 0..count {
        let id = format!("{device}-{number}");
        let sent = to(world, device).header("iothub-messageid", &id).header("iothub-ack", "negative").send();
        assert_eq!(sent.status, 204);
    }
    let answer = world.hub_request("DELETE", &format!("/devices/{device}/commands")).send().json();
    assert_eq!(answer, json!({ "totalMessagesPurged": count, "deviceId": device, "moduleId": null }));
}

#[test]
fn a_queue_has_room_for_fifty() {
    let world = World::new();
    world.create_device("d1");
    for _ in 0..MAX_QUEUE_DEPTH {
        assert_eq!(to(&world, "d1").send().status, 204);
    }
    let message = to(&world, "d1").send().hub_error(403, "DeviceMaximumQueueDepthExceeded");
    assert!(message.contains("50"), "{message}");
    let device = world.hub_request("GET", "/devices/d1").send().json();
    assert_eq!(device["cloudToDeviceMessageCount"], 50);
    assert_eq!(world.hub_request("DELETE", "/devices/d1/commands").send().json()["totalMessagesPurged"], 50);
    assert_eq!(to(&world, "d1").send().status, 204);
    assert_eq!(feedback(&world).status, 204, "nobody asked for any");
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let world = World::new();
    world.create_device("d1");
    to(&world, "d2").send().hub_error(404, "DeviceNotFound");
    world.hub_request("DELETE", "/devices/d2/commands").send().hub_error(404, "DeviceNotFound");
    for (header, value, status, code) in [
        ("iothub-ack", "maybe", 400, "ArgumentInvalid"),
        ("iothub-messageid", "a b", 400, "ArgumentInvalid"),
        ("iothub-expiry", "tomorrow", 400, "ArgumentInvalid"),
        ("iothub-expiry", "2020-01-01T00:00:00Z", 403, "InvalidMessageExpiryTime"),
        ("iothub-expiry", "2030-01-01T00:00:00Z", 403, "InvalidMessageExpiryTime"),
        ("iothub-app-x", &"x".repeat(17_000), 413, "MessageTooLarge"),
    ] {
        to(&world, "d1").header(header, value).send().hub_error(status, code);
    }
    to(&world, "d1").text(&"x".repeat(MAX_DEVICE_BOUND_BYTES)).send().hub_error(413, "MessageTooLarge");
    to(&world, "d1").text(&"x".repeat(MAX_DEVICE_BOUND_BYTES + 1)).send().hub_error(413, "MessageTooLarge");
    assert_eq!(to(&world, "d1").text(&"x".repeat(MAX_DEVICE_BOUND_BYTES - 100)).send().status, 204);
}

#[test]
fn the_rights_are_those_of_services() {
    let world = World::new();
    world.create_device("d1");
    for (method, path) in [
        ("POST", "/devices/d1/messages/devicebound"),
        ("DELETE", "/devices/d1/commands"),
        ("GET", "/messages/serviceBound/feedback"),
        ("DELETE", "/messages/serviceBound/feedback/x"),
        ("POST", "/messages/serviceBound/feedback/x/abandon"),
    ] {
        let ask = |policy: &str| {
            let ask = world.hub_request(method, path).header("Authorization", &world.hub_token(policy));
            ask.send()
        };
        ask("registryReadWrite").hub_error(401, "IotHubUnauthorizedAccess");
        ask("device").hub_error(401, "IotHubUnauthorizedAccess");
        assert_ne!(ask("service").status, 401, "{path}");
    }
}

#[test]
fn feedback_is_handed_out_until_it_is_completed() {
    let world = World::new();
    purged(&world, "d1", 2);
    let first = feedback(&world);
    assert_eq!(first.header("content-type"), Some("application/vnd.microsoft.iothub.feedback.json"));
    assert_eq!(first.header("iothub-userid"), Some("hub1"));
    let token = first.header("iothub-messagelocktoken").unwrap().to_owned();
    assert_eq!(first.header("etag"), Some(format!("\"{token}\"").as_str()));
    let list = records(&first);
    let generation = world.hub_request("GET", "/devices/d1").send().json()["generationId"].clone();
    for (record, id) in list.iter().zip(["d1-0", "d1-1"]) {
        let time = record["enqueuedTimeUtc"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == 28, "{time}");
        assert_eq!(
            *record,
            json!({ "originalMessageId": id, "deviceGenerationId": generation, "deviceId": "d1", "enqueuedTimeUtc": time,
                    "statusCode": "Purged", "description": "Purged" })
        );
    }
    assert_eq!(feedback(&world).status, 204, "locked");
    let path = |token: &str| format!("/messages/serviceBound/feedback/{token}");
    assert_eq!(world.hub_request("POST", &format!("{}/abandon", path(&token))).send().status, 204);
    world.hub_request("DELETE", &path(&token)).send().hub_error(412, "DeviceMessageLockLost");
    let again = feedback(&world);
    assert_eq!((records(&again), again.header("iothub-deliverycount")), (list, Some("1")));
    let token = again.header("iothub-messagelocktoken").unwrap().to_owned();
    assert_eq!(world.hub_request("DELETE", &path(&token)).send().status, 204);
    assert_eq!(feedback(&world).status, 204);
    for bad in [token.as_str(), "x", "00000000-0000-0000-0000-000000000000"] {
        world.hub_request("DELETE", &path(bad)).send().hub_error(412, "DeviceMessageLockLost");
        world.hub_request("POST", &format!("{}/abandon", path(bad))).send().hub_error(412, "DeviceMessageLockLost");
    }
}

#[test]
fn a_batch_has_sixty_four_records_and_the_next_has_the_rest() {
    let world = World::new();
    purged(&world, "d1", 50);
    purged(&world, "d2", 30);
    let (first, second) = (feedback(&world), feedback(&world));
    let ids: Vec<String> = records(&first)
        .iter()
        .chain(&records(&second))
        .map(|record| record["originalMessageId"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> =
        (0..50).map(|number| format!("d1-{number}")).chain((0..30).map(|number| format!("d2-{number}"))).collect();
    assert_eq!((records(&first).len(), ids), (64, expected));
    assert_ne!(first.header("etag"), second.header("etag"));
    // Locks run out, and whoever is too late is told.
    pass(&world, 61);
    let token = first.header("iothub-messagelocktoken").unwrap();
    let late = world.hub_request("DELETE", &format!("/messages/serviceBound/feedback/{token}")).send();
    late.hub_error(412, "DeviceMessageLockLost");
    assert_eq!(records(&feedback(&world)).len(), 64);
}

#[test]
fn feedback_is_given_up_in_time() {
    let world = World::new();
    purged(&world, "d1", 1);
    pass(&world, 3_700);
    assert_eq!(feedback(&world).status, 204, "an hour is over");
    purged(&world, "d2", 1);
    for _ in 0..10 {
        let token = feedback(&world).header("iothub-messagelocktoken").unwrap().to_owned();
        world.hub_request("POST", &format!("/messages/serviceBound/feedback/{token}/abandon")).send();
    }
    assert_eq!(feedback(&world).status, 204, "ten times is enough");
}

#[test]
fn a_deleted_device_takes_its_messages_and_their_feedback_with_it() {
    let world = World::new();
    purged(&world, "d1", 1);
    assert_eq!(to(&world, "d1").header("iothub-ack", "full").send().status, 204);
    assert_eq!(world.hub_request("DELETE", "/devices/d1").header("If-Match", "*").send().status, 204);
    let device = world.create_device("d1");
    assert_eq!(device["cloudToDeviceMessageCount"], 0);
    pass(&world, 3_700);
    assert_eq!(feedback(&world).status, 204);
}

#[test]
fn a_disabled_device_keeps_its_messages() {
    let world = World::new();
    let mut device = world.create_device("d1");
    assert_eq!(to(&world, "d1").send().status, 204);
    device["status"] = json!("disabled");
    let disabled = world.hub_request("PUT", "/devices/d1").header("If-Match", "*").json(&device).send().json();
    assert_eq!(disabled["cloudToDeviceMessageCount"], 1);
    assert_eq!(to(&world, "d1").send().status, 204, "and gets further ones");
}
