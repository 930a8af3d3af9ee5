//! Events about connections: each that was announced ends, in what way it may.

use std::collections::BTreeMap;
use std::time::Duration;

use nave_env::Env;
use nave_hub::{DeviceInput, ModuleInput};
use nave_model::{DeviceId, IfMatch, ModuleId};

use super::device::Connection;
use super::routing::messages;
use super::world::{Host, World};

const ID: &str = "device-0";

/// The operation of the event with the largest sequence number, of each device in each log.
pub(super) async fn last_events(world: &World) -> BTreeMap<(usize, String), String> {
    let mut last: BTreeMap<(usize, String), (String, String)> = BTreeMap::new();
    for (hub, log) in world.logs.iter().enumerate() {
        for record in super::routing::of_log(log).await {
            if let Some((sequence, operation)) = connection_event(&record) {
                let newest = last.entry((hub, record.device_id.clone())).or_default();
                *newest = newest.clone().max((sequence, operation));
            }
        }
    }
    last.into_iter().map(|(key, (_, operation))| (key, operation)).collect()
}

/// Sequence number and operation, of an event about a connection.
fn connection_event(record: &nave_log::NewRecord) -> Option<(String, String)> {
    if record.source != nave_log::Source::DeviceConnectionStateEvents {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
    let operation = record.properties.iter().find(|(name, _)| name == "opType").unwrap().1.clone();
    Some((body["sequenceNumber"].as_str().unwrap().to_owned(), operation))
}

/// The operations in the order of the log; an event that a crash repeated counts once.
async fn operations(world: &World) -> Vec<String> {
    let mut events: Vec<_> = messages(world).await.iter().filter_map(connection_event).collect();
    events.dedup();
    assert!(events.is_sorted(), "{events:?}");
    events.into_iter().map(|(_, operation)| operation).collect()
}

fn with_a_device(test: impl AsyncFnOnce(&World, Host, nave_auth::KeyPair, String)) {
    let world = World::new(21);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = world.enroll(&host).await.derive(ID);
        let hub = Connection::register(&world, &host, ID, &keys).await.unwrap();
        test(&world, host, keys, hub).await;
    });
    finished.unwrap();
}

#[test]
fn a_connection_that_a_crash_ended_is_over_when_the_hub_is_back() {
    with_a_device(async |world, host, keys, hub| {
        let device = Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap();
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(operations(world).await, ["deviceConnected"]);
        world.crash(&host);
        drop(device);
        let host = world.start("host-a").await;
        assert_eq!(operations(world).await, ["deviceConnected", "deviceDisconnected"]);
        drop(Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap());
        world.env.sleep(Duration::from_secs(1)).await;
        let expected = ["deviceConnected", "deviceDisconnected", "deviceConnected", "deviceDisconnected"];
        assert_eq!(operations(world).await, expected);
        // What has been said is not said again.
        world.crash(&host);
        drop(world.start("host-a").await);
        assert_eq!(operations(world).await, expected);
    });
}

#[test]
fn who_is_displaced_has_not_left() {
    with_a_device(async |world, host, keys, hub| {
        let old = Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap();
        let new = Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap();
        world.env.sleep(Duration::from_secs(1)).await;
        drop(old);
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(operations(world).await, ["deviceConnected", "deviceConnected"]);
        drop(new);
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(operations(world).await.last().unwrap(), "deviceDisconnected");
    });
}

#[test]
fn while_the_log_takes_nothing_the_newest_event_stands_for_all() {
    with_a_device(async |world, host, keys, hub| {
        world.logs.iter().for_each(|log| log.set_full(true));
        for _ in 0..300 {
            drop(Connection::to_hub(world, &host, &hub, ID, &keys).await.expect("however many events wait"));
            world.env.sleep(Duration::from_millis(300)).await;
        }
        world.logs.iter().for_each(|log| log.set_full(false));
        world.env.sleep(Duration::from_secs(60)).await;
        assert_eq!(operations(world).await, ["deviceDisconnected"]);
    });
}

/// A stop at any commit of the deletion of a device with modules leaves what repeating it finishes, and no module behind.
#[test]
fn a_deletion_that_was_cut_is_finished_by_the_next() {
    for commits in 0..6 {
        let world = World::new(31);
        let finished = world.simulation.run(async {
            let host = world.start("host-a").await;
            let hub = std::sync::Arc::clone(&host.platform.hubs()[0]);
            let device = DeviceId::parse(ID).unwrap();
            hub.put_device(&device, &DeviceInput::default(), &IfMatch::None).await.unwrap();
            let modules = ["a", "b", "c"].map(|name| ModuleId::parse(name).unwrap());
            for module in &modules {
                hub.put_module(&device, module, &ModuleInput::default(), &IfMatch::None).await.unwrap();
            }
            world.store.set(Some(commits));
            let deleting = (std::sync::Arc::clone(&hub), device.clone());
            host.env.spawn(Box::pin(async move { drop(deleting.0.delete_device(&deleting.1, &IfMatch::Any).await) }));
            world.env.sleep(Duration::from_secs(1)).await;
            world.crash(&host);
            world.store.set(None);
            let host = world.start("host-a").await;
            let hub = &host.platform.hubs()[0];
            match hub.delete_device(&device, &IfMatch::Any).await {
                Ok(()) => assert!(commits < 4, "the deletion took {commits} commits"),
                Err(error) => assert_eq!((error.code.status(), commits >= 4), (404, true), "{error} {commits}"),
            }
            hub.put_device(&device, &DeviceInput::default(), &IfMatch::None).await.unwrap();
            assert!(hub.list_modules(&device).await.unwrap().is_empty(), "after {commits} commits");
        });
        finished.unwrap();
    }
}
