//! Routes from their text to what is in the log: compiled by the function, run by the host, for messages and events.

use std::time::Duration;

use nave_env::Env;
use nave_hub::{DeviceInput, ErrorCode, RoutingConfig, RoutingError, TwinUpdate};
use nave_log::Log;
use nave_model::{DeviceId, HostName, Identity, IfMatch};
use nave_routing::{EndpointName, Enrichment, Route, RouteName, Source};

use super::device::Connection;
use super::world::{Host, World};

const ID: &str = "device-0";

fn route(name: &str, source: Source, condition: &str) -> Route {
    Route {
        name: RouteName::parse(name).unwrap(),
        source,
        condition: condition.to_owned(),
        endpoint: EndpointName::events(),
        enabled: true,
    }
}

/// Everything that is in the logs.
pub(super) async fn messages(world: &World) -> Vec<nave_log::NewRecord> {
    let mut found = Vec::new();
    for log in &world.logs {
        found.extend(of_log(log).await);
    }
    found
}

/// Everything that is in one log.
pub(super) async fn of_log(log: &nave_log::sim::SimLog) -> Vec<nave_log::NewRecord> {
    let mut found = Vec::new();
    for number in 0..log.partitions() {
        let partition = nave_log::PartitionId::new(number).unwrap();
        let batch = log.read(partition, 0, usize::MAX, usize::MAX).await.unwrap();
        found.extend(batch.records.into_iter().map(|record| record.content));
    }
    found
}

/// What is in the logs: source, message id or operation, and the application properties.
async fn stored(world: &World) -> Vec<(nave_log::Source, String, Vec<(String, String)>)> {
    let value = |list: &[(String, String)], name: &str| {
        list.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let stored = messages(world).await.into_iter().map(|content| {
        let what = value(&content.system, "messageId").or_else(|| value(&content.properties, "opType"));
        (content.source, what.unwrap_or_default(), content.properties)
    });
    stored.collect()
}

#[test]
fn conditions_decide_what_is_stored_and_enrichments_what_is_added() {
    let world = World::new(4);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = world.enroll(&host).await.derive(ID);
        let name = Connection::register(&world, &host, ID, &keys).await.unwrap();
        let hub = host.platform.hub(&HostName::parse(&name).unwrap()).unwrap();
        hub.set_routing(RoutingConfig {
            routes: vec![
                route("even-in-paris", Source::DeviceMessages, "n % 2 = 0 AND $twin.tags.site = 'paris'"),
                route("large", Source::TwinChangeEvents, "$body.properties.desired.m > 10"),
            ],
            fallback: false,
            enrichments: vec![Enrichment::parse("site", "$twin.tags.site", &["events"]).unwrap()],
        })
        .unwrap();
        // `n` is an application property, and properties are text: the route never matches, the compiler only warns.
        let mut device = Connection::to_hub(&world, &host, &name, ID, &keys).await.unwrap();
        device.telemetry(ID, 2).await.unwrap();
        assert_eq!(stored(&world).await.len(), 0);

        let identity = Identity::parse(ID).unwrap();
        for (number, body) in [
            (1, r#"{"tags":{"site":"paris"},"properties":{"desired":{"m":5}}}"#),
            (2, r#"{"properties":{"desired":{"m":50}}}"#),
        ] {
            hub.update_twin(&identity, TwinUpdate::Patch, body, &IfMatch::None).await.unwrap();
            let events = stored(&world).await;
            assert_eq!(events.len(), number - 1, "only the change to 50 is wanted: {events:?}");
        }
        let events = stored(&world).await;
        assert_eq!((events[0].0, events[0].1.as_str()), (nave_log::Source::TwinChangeEvents, "updateTwin"));

        hub.set_routing(RoutingConfig {
            routes: vec![route(
                "even-in-paris",
                Source::DeviceMessages,
                "as_number($body.n) % 2 = 0 AND $twin.tags.site = 'paris'",
            )],
            fallback: false,
            enrichments: vec![Enrichment::parse("site", "$twin.tags.site", &["events"]).unwrap()],
        })
        .unwrap();
        for number in 1..=4 {
            device.telemetry_json(ID, number).await.unwrap();
        }
        let messages: Vec<_> = stored(&world).await.into_iter().skip(1).collect();
        let ids: Vec<_> = messages.iter().map(|(_, id, _)| id.as_str()).collect();
        assert_eq!(ids, ["device-0-2", "device-0-4"], "odd ones are acknowledged and go nowhere");
        assert_eq!(messages[0].2, [("site".to_owned(), "paris".to_owned())]);
    });
    finished.unwrap();
}

#[test]
fn a_condition_that_is_none_is_refused_with_its_place() {
    let world = World::new(4);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let hub = &host.platform.hubs()[0];
        let routes = vec![route("broken", Source::DeviceMessages, "level = \n 'storage")];
        let error = hub.set_routing(RoutingConfig { routes, fallback: true, enrichments: Vec::new() }).unwrap_err();
        assert!(matches!(&error, RoutingError::Condition { route, line: 2, .. } if route == "broken"), "{error}");
    });
    finished.unwrap();
}

/// A host whose hubs route every change of a twin and every creation and deletion.
async fn host_with_events(world: &World) -> Host {
    let host = world.start("host-a").await;
    for hub in host.platform.hubs() {
        let routes = vec![
            route("twins", Source::TwinChangeEvents, "true"),
            route("lives", Source::DeviceLifecycleEvents, "true"),
        ];
        hub.set_routing(RoutingConfig { routes, fallback: true, enrichments: Vec::new() }).unwrap();
    }
    host
}

async fn operations(world: &World) -> Vec<String> {
    stored(world).await.into_iter().map(|(_, operation, _)| operation).collect()
}

#[test]
fn the_deletion_of_a_device_is_not_forgotten_for_its_successor() {
    let world = World::new(4);
    let finished = world.simulation.run(async {
        let host = host_with_events(&world).await;
        let (hub, device) = (&host.platform.hubs()[0], DeviceId::parse(ID).unwrap());
        let create = async || hub.put_device(&device, &DeviceInput::default(), &IfMatch::None).await;
        create().await.unwrap();
        world.logs.iter().for_each(|log| log.set_full(true));
        hub.delete_device(&device, &IfMatch::Any).await.unwrap();
        // The event of the deletion still waits where the events of the new device would.
        assert_eq!(create().await.unwrap_err().code, ErrorCode::ServiceUnavailable);
        world.logs.iter().for_each(|log| log.set_full(false));
        create().await.unwrap();
        assert_eq!(create().await.unwrap_err().code, ErrorCode::DeviceAlreadyExists);
        assert_eq!(operations(&world).await, ["createDeviceIdentity", "deleteDeviceIdentity", "createDeviceIdentity"]);
    });
    finished.unwrap();
}

#[test]
fn what_the_log_refused_is_appended_once_it_takes_events_again() {
    let world = World::new(4);
    let finished = world.simulation.run(async {
        let host = host_with_events(&world).await;
        let (hub, device) = (&host.platform.hubs()[0], DeviceId::parse(ID).unwrap());
        hub.put_device(&device, &DeviceInput::default(), &IfMatch::None).await.unwrap();
        world.logs.iter().for_each(|log| log.set_full(true));
        let members: Vec<_> = (0..7).map(|name| format!("\"{name}\":\"{}\"", "x".repeat(4_096))).collect();
        let body = format!("{{\"properties\":{{\"desired\":{{{}}}}}}}", members.join(","));
        let mut accepted = 0;
        let refused = loop {
            match hub.update_twin(&Identity::device(device.clone()), TwinUpdate::Patch, &body, &IfMatch::None).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.code, ErrorCode::ServiceUnavailable, "{refused}");
        assert!(accepted > 10, "only {accepted} changes were accepted");
        world.logs.iter().for_each(|log| log.set_full(false));
        world.env.sleep(Duration::from_secs(60)).await;
        let expected = std::iter::once("createDeviceIdentity").chain(std::iter::repeat_n("updateTwin", accepted));
        assert_eq!(operations(&world).await, expected.collect::<Vec<_>>());
    });
    finished.unwrap();
}
