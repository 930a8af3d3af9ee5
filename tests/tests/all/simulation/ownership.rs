//! One owner for each device, and nothing forgotten: cases that random scenarios meet too rarely to rely on.

use std::sync::Arc;
use std::time::Duration;

use nave_auth::KeyPair;
use nave_env::Env;
use nave_hub::{Hub, TwinUpdate};
use nave_log::Log;
use nave_model::{HostName, Identity, IfMatch};

use super::device::Connection;
use super::world::{Host, World};

const ID: &str = "device-0";

/// Runs `test` on two fresh hosts with one registered device; it gets the device's keys and the name of its hub.
fn with_a_device(test: impl AsyncFnOnce(&World, [Host; 2], KeyPair, String)) {
    let world = World::new(11);
    let finished = world.simulation.run(async {
        let hosts = [world.start("host-a").await, world.start("host-b").await];
        let keys = world.enroll(&hosts[0]).await.derive(ID);
        let hub = Connection::register(&world, &hosts[0], ID, &keys).await.unwrap();
        test(&world, hosts, keys, hub).await;
    });
    finished.unwrap();
}

fn hub_of(host: &Host, name: &str) -> Arc<Hub> {
    Arc::clone(host.platform.hub(&HostName::parse(name).unwrap()).unwrap())
}

#[test]
fn a_session_that_was_displaced_on_another_host_changes_nothing() {
    with_a_device(async |world, [a, b], keys, hub| {
        let mut old = Connection::to_hub(world, &a, &hub, ID, &keys).await.unwrap();
        old.report("1", 1).await.unwrap();
        let session = hub_of(&a, &hub).session(&Identity::parse(ID).unwrap()).unwrap();
        // The message "you were displaced" does not arrive: only the store stands between the two owners.
        world.cut_off(&a);
        let mut new = Connection::to_hub(world, &b, &hub, ID, &keys).await.unwrap();
        new.report("2", 2).await.unwrap();
        assert!(session.is_open(), "the old host has heard nothing");
        assert!(hub_of(&a, &hub).report(&session, r#"{"n":3}"#, None).await.is_err());
        assert!(!session.is_open(), "the refused commit ended it");
        assert_eq!(new.twin("4").await.unwrap()["reported"]["n"], 2);
    });
}

#[test]
fn a_persistent_session_keeps_its_subscriptions() {
    with_a_device(async |world, [a, b], keys, hub| {
        drop(Connection::to_hub(world, &a, &hub, ID, &keys).await.unwrap());
        // The second connection finds its session and does not subscribe again.
        let mut device = Connection::to_hub(world, &b, &hub, ID, &keys).await.unwrap();
        device.twin("1").await.expect("answers to twin requests are subscribed");
        let body = r#"{"properties":{"desired":{"m":1}}}"#;
        let identity = Identity::parse(ID).unwrap();
        hub_of(&a, &hub).update_twin(&identity, TwinUpdate::Patch, body, &IfMatch::None).await.unwrap();
        device.idle(Duration::from_secs(1)).await.unwrap();
        assert_eq!(device.desired, [2], "the notification came from one host to the other and to the device");
    });
}

#[test]
fn an_event_that_a_crash_kept_from_the_log_is_appended_at_the_next_start() {
    with_a_device(async |world, [a, _b], _keys, hub| {
        let identity = Identity::parse(ID).unwrap();
        let body = r#"{"properties":{"desired":{"m":1}}}"#;
        world.logs.iter().for_each(|log| log.set_full(true));
        hub_of(&a, &hub).update_twin(&identity, TwinUpdate::Patch, body, &IfMatch::None).await.unwrap();
        assert_eq!(events(world).await, 0);
        world.crash(&a);
        world.logs.iter().for_each(|log| log.set_full(false));
        world.env.sleep(Duration::from_secs(1)).await;
        drop(world.start("host-a").await);
        assert_eq!(events(world).await, 1);
        // What is in the log is no longer in the outbox.
        drop(world.start("host-c").await);
        assert_eq!(events(world).await, 1);
    });
}

/// Number of twin events in the logs.
async fn events(world: &World) -> usize {
    let mut count = 0;
    for log in &world.logs {
        for number in 0..log.partitions() {
            let partition = nave_log::PartitionId::new(number).unwrap();
            let records = log.read(partition, 0, usize::MAX, usize::MAX).await.unwrap().records;
            count +=
                records.iter().filter(|record| record.content.source == nave_log::Source::TwinChangeEvents).count();
        }
    }
    count
}
