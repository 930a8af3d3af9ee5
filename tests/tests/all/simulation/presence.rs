//! Events about connections: each that was announced ends, in what way it may.

use std::collections::BTreeMap;
use std::time::Duration;

use nave_env::Env;
use nave_hub::{CloudToDevice, DeviceInput, ModuleInput, RoutingConfig};
use nave_model::{DeviceId, IfMatch, ModuleId};

use super::device::Connection;
use super::routing::messages;
use super::world::{FUNCTIONS, Host, World};

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

/// The keys of announced sessions in the store.
async fn announced(world: &World) -> Vec<String> {
    let keys = nave_store::Store::scan(&*world.store, "", None, 1_000).await.unwrap();
    keys.into_iter().map(|(key, _)| key).filter(|key| key.contains("/announced/")).collect()
}

#[test]
fn an_entry_goes_with_its_session_also_if_what_displaces_it_is_not_announced() {
    with_a_device(async |world, host, keys, hub| {
        let silent = || host.platform.hubs().iter().for_each(|hub| hub.set_routing(RoutingConfig::default()).unwrap());
        let old = Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap();
        assert_eq!(announced(world).await.len(), 1);
        silent();
        let new = Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap();
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(announced(world).await, [""; 0], "displaced");
        drop((old, new));
    });
    // The same, and a crash before anybody could remove it.
    with_a_device(async |world, host, keys, hub| {
        drop(Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap());
        world.env.sleep(Duration::from_secs(1)).await;
        let old = Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap();
        let key = announced(world).await.remove(0);
        let entry = nave_store::Store::get(&*world.store, &key).await.unwrap().unwrap();
        drop(old);
        world.env.sleep(Duration::from_secs(1)).await;
        drop(Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap());
        world.env.sleep(Duration::from_secs(1)).await;
        world.crash(&host);
        world.plant(&key, entry.value).await;
        drop(world.start("host-a").await);
        assert_eq!(announced(world).await, [""; 0], "found at the start");
    });
}

#[test]
fn a_damaged_record_does_not_keep_the_hub_from_starting() {
    with_a_device(async |world, host, keys, hub| {
        drop(Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap());
        world.env.sleep(Duration::from_secs(1)).await;
        let of = |host: &Host| {
            let hubs = host.platform.hubs();
            std::sync::Arc::clone(hubs.iter().find(|found| found.host_name().as_str() == hub).unwrap())
        };
        of(&host).send_to_device(&DeviceId::parse(ID).unwrap(), CloudToDevice::default()).await.unwrap();
        let stored = nave_store::Store::scan(&*world.store, "", None, 1_000).await.unwrap();
        let queue = stored.iter().map(|(key, _)| key).find(|key| key.contains("/queue/")).unwrap().clone();
        world.crash(&host);
        for key in [
            queue.replace(ID, "broken"),
            queue.replace("/queue/", "/announced/"),
            queue.replace("/queue/", "/feedback/"),
        ] {
            world.plant(&key, b"{\"v\":1,\"messages\":".as_slice().into()).await;
        }
        let host = world.start("host-a").await;
        assert_eq!(of(&host).metrics().damaged_records(), 3);
        drop(Connection::to_hub(world, &host, &hub, ID, &keys).await.unwrap());
        // What a newer release wrote is no damage.
        world.crash(&host);
        world.plant(&queue.replace(ID, "newer"), b"{\"v\":99}".as_slice().into()).await;
        let error = world.try_start("host-a", &FUNCTIONS).await.err().unwrap();
        assert!(error.to_string().contains("newer"), "{error}");
    });
}
