//! `/events`.

use std::time::Duration;

use futures_util::future::join;
use nave_env::Env as _;
use nave_hub::{Message, Subscriptions, system};
use nave_log::{MessageKey, NewRecord, Source, partition_of};
use serde_json::{Value, json};

use crate::world::{Answer, World};

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson; charset=utf-8")));
    assert!(answer.body.is_empty() || answer.body.ends_with('\n'));
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bodies(answer: &Answer) -> Vec<String> {
    lines(answer).iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
}

fn message(body: &'static str) -> Message {
    Message { body: body.into(), ..Message::default() }
}

#[test]
fn a_message_is_shown_as_event_hubs_shows_it() {
    let world = World::new();
    let device = world.create_device("d1");
    let (session, _) = world.connect("d1", Subscriptions::NONE);
    let sent = Message {
        system: vec![
            (system::MESSAGE_ID, "m-1".into()),
            (system::CORRELATION_ID, "c-1".into()),
            (system::USER_ID, "u-1".into()),
            (system::CONTENT_TYPE, "application/json".into()),
            (system::CONTENT_ENCODING, "utf-8".into()),
            (system::TO, "/devices/d1/messages/events".into()),
            (system::EXPIRY, "2027-01-01T00:00:00Z".into()),
            (system::CREATION_TIME, "2026-01-01T00:00:00Z".into()),
            (system::INTERFACE_ID, "urn:x".into()),
            (system::SUBJECT, "part".into()),
        ],
        properties: vec![("a".into(), "1".into()), ("b c".into(), "ü".into())],
        body: r#"{"t":1}"#.into(),
        ..Message::default()
    };
    world.simulation.run(world.hub().send_telemetry(&session, vec![sent])).unwrap().unwrap();
    let answer = world.hub_request("GET", "/events?from=earliest&maxWait=1&consumerGroup=$Default").send();
    let mut found = lines(&answer);
    assert_eq!(found.len(), 1);
    let message = found.remove(0);
    let enqueued = message["enqueuedTime"].as_str().unwrap().to_owned();
    let auth = message["systemProperties"]["iothub-connection-auth-method"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&auth).unwrap()["scope"], "device");
    assert_eq!(
        message,
        json!({
            "partition": partition_of("d1", 4).get(), "offset": "0", "sequenceNumber": 0, "enqueuedTime": enqueued,
            "deviceId": "d1",
            "properties": { "a": "1", "b c": "ü" },
            "systemProperties": {
                "iothub-connection-device-id": "d1",
                "iothub-connection-auth-generation-id": device["generationId"],
                "iothub-connection-auth-method": auth,
                "message-id": "m-1", "correlation-id": "c-1", "user-id": "u-1",
                "content-type": "application/json", "content-encoding": "utf-8", "to": "/devices/d1/messages/events",
                "absolute-expiry-time": "2027-01-01T00:00:00Z", "iothub-creation-time-utc": "2026-01-01T00:00:00Z",
                "iothub-interface-id": "urn:x", "dt-subject": "part",
                "iothub-enqueuedtime": enqueued, "iothub-message-source": "Telemetry",
            },
            "body": "eyJ0IjoxfQ==",
        })
    );
}

#[test]
fn a_stream_begins_where_it_is_told() {
    let world = World::new();
    world.create_device("d1");
    let (session, _) = world.connect("d1", Subscriptions::NONE);
    let send = |body| world.simulation.run(world.hub().send_telemetry(&session, vec![message(body)])).unwrap().unwrap();
    let pause = || world.simulation.run(world.env.sleep(Duration::from_secs(10))).unwrap();
    send("0");
    pause();
    let between = world.env.now().iso();
    pause();
    send("1");
    let partition = partition_of("d1", 4).get();
    let read = |query: &str| bodies(&world.hub_request("GET", &format!("/events?maxWait=1&{query}")).send());
    assert_eq!(read("from=earliest"), ["MA==", "MQ=="]);
    assert_eq!(read("from=earliest&maxCount=1"), ["MA=="]);
    assert_eq!(read("from=latest"), Vec::<String>::new());
    assert_eq!(read(""), Vec::<String>::new());
    assert_eq!(read(&format!("from={between}")), ["MQ=="]);
    assert_eq!(read(&format!("from=0&partition={partition}")), ["MQ=="]);
    assert_eq!(read(&format!("from=1&partition={partition}")), Vec::<String>::new());
    assert_eq!(read(&format!("from=99&partition={partition}")), Vec::<String>::new());
    assert_eq!(read(&format!("from=earliest&partition={}", (partition + 1) % 4)), Vec::<String>::new());
}

#[test]
fn what_was_routed_elsewhere_is_not_shown() {
    let world = World::new();
    let record = |endpoints: &[&str], number: u8| NewRecord {
        key: MessageKey([number; 16]),
        source: Source::TwinChangeEvents,
        device_id: "d1".to_owned(),
        module_id: Some("m1".to_owned()),
        endpoints: endpoints.iter().map(|name| (*name).to_owned()).collect(),
        system: vec![("something".to_owned(), "else".to_owned())],
        properties: Vec::new(),
        body: vec![number].into(),
    };
    let records = vec![record(&["archive"], 1), record(&["archive", "events"], 2), record(&[], 3)];
    let partition = partition_of("d1", 4);
    world.simulation.run(world.hub().log().append(partition, records)).unwrap().unwrap();
    let found = lines(&world.hub_request("GET", "/events?from=earliest&maxWait=1").send());
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["sequenceNumber"], &found[0]["body"]), (&json!(1), &json!("Ag==")));
    assert_eq!(found[0]["moduleId"], "m1");
    assert_eq!(found[0]["systemProperties"]["iothub-message-source"], "twinChangeEvents");
    assert_eq!(found[0]["systemProperties"]["something"], "else");
    // What is not shown does not keep a stream open either.
    let partition = partition.get();
    let after = world.hub_request("GET", &format!("/events?from=1&partition={partition}&maxWait=1&maxCount=9")).send();
    assert_eq!(bodies(&after), Vec::<String>::new());
}

#[test]
fn a_waiting_stream_gets_what_comes_from_every_partition() {
    let world = World::new();
    let ids = ["d1", "d2", "d3", "d4", "d5", "d6"];
    let sessions = ids.map(|id| {
        world.create_device(id);
        world.connect(id, Subscriptions::NONE).0
    });
    let partitions: std::collections::BTreeSet<_> = ids.iter().map(|id| partition_of(id, 4)).collect();
    assert!(partitions.len() > 1, "the test needs devices in several partitions");
    let reading = world.hub_request("GET", "/events?maxCount=12&maxWait=3600").answer();
    let sending = async {
        for _ in 0..2 {
            world.env.sleep(Duration::from_secs(5)).await;
            for session in &sessions {
                let messages = vec![message("x")];
                world.hub().send_telemetry(session, messages).await.unwrap();
            }
        }
    };
    let (answer, ()) = world.simulation.run(join(reading, sending)).unwrap();
    let found = lines(&answer);
    let mut devices: Vec<_> = found.iter().map(|message| message["deviceId"].as_str().unwrap()).collect();
    devices.sort_unstable();
    assert_eq!(devices, ["d1", "d1", "d2", "d2", "d3", "d3", "d4", "d4", "d5", "d5", "d6", "d6"]);
    for partition in 0..4 {
        let numbers = found.iter().filter(|message| message["partition"] == partition);
        let numbers: Vec<_> = numbers.map(|message| message["sequenceNumber"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "partition {partition}");
    }
}

#[test]
fn wrong_parameters_are_named() {
    let world = World::new();
    let wrong =
        |query: &str| world.hub_request("GET", &format!("/events?{query}")).send().hub_error(400, "ArgumentInvalid");
    assert!(wrong("partition=4").starts_with("partition"));
    assert!(wrong("partition=x").starts_with("partition"));
    assert!(wrong("from=yesterday").starts_with("from"));
    assert!(wrong("from=5").starts_with("from is an offset"));
    assert!(wrong("maxWait=0").starts_with("maxWait"));
    assert!(wrong("maxWait=86401").starts_with("maxWait"));
    assert!(wrong("maxCount=-1").starts_with("maxCount"));
    assert!(wrong("consumerGroup=a%20b").starts_with("consumerGroup"));
}
