//! Cloud-to-device messages over MQTT and HTTPS, byte for byte and in virtual time (protocol notes: MQTT §3, semantics §2).

use std::sync::Arc;
use std::time::Duration;

use nave_auth::{KeyPair, SasToken};
use nave_env::Env;
use nave_hub::{
    Authenticated, AuthenticationInput, CloudToDevice, CloudToDeviceSettings, DeviceInput, Hub, MAX_QUEUE_DEPTH,
    Presented, Settlement,
};
use nave_model::{Ack, DeviceId, Identity, IfMatch};
use nave_mqtt::packet::QoS;
use nave_session::MAX_MESSAGES_IN_FLIGHT;
use serde_json::Value;

use super::device::{CloudMessage, Connection};
use super::world::{HUBS, Host, World};

pub(super) const ID: &str = "device-0";
pub(super) const HUB: &str = HUBS[0];

/// Long enough for everything that is under way.
const SOON: Duration = Duration::from_secs(2);

pub(super) fn device() -> DeviceId {
    DeviceId::parse(ID).unwrap()
}

pub(super) async fn create(world: &World, hub: &Hub) -> KeyPair {
    let keys = KeyPair::generate(32, |buffer| world.env.fill_random(buffer));
    let input = DeviceInput {
        authentication: AuthenticationInput {
            primary_key: Some(keys.primary.expose_base64()),
            secondary_key: Some(keys.secondary.expose_base64()),
            ..AuthenticationInput::default()
        },
        ..DeviceInput::default()
    };
    hub.put_device(&device(), &input, &IfMatch::None).await.unwrap();
    keys
}

pub(super) fn message(number: u64) -> CloudToDevice {
    CloudToDevice {
        message_id: Some(format!("m-{number}")),
        ack: Ack::Full,
        body: number.to_string().into_bytes().into(),
        ..CloudToDevice::default()
    }
}

/// A device over HTTPS.
pub(super) async fn over_https(world: &World, hub: &Hub, keys: &KeyPair) -> Result<Authenticated, nave_hub::HubError> {
    let expiry = world.env.now().after(Duration::from_secs(3_600));
    let token = SasToken::create(&format!("{HUB}/devices/{ID}"), &keys.primary, expiry, None);
    let presented = Presented { token: Some(&token), certificates: &[] };
    hub.authenticate(&Identity::device(device()), presented, &["messages", "devicebound"]).await
}

/// What feedback says: message ids with their outcomes, in order, all of it completed.
pub(super) async fn outcomes(hub: &Hub) -> Vec<(String, String)> {
    let mut outcomes = Vec::new();
    while let Some(batch) = hub.receive_feedback().await.unwrap() {
        outcomes.extend(told(&batch.json));
        hub.complete_feedback(&batch.lock_token).await.unwrap();
    }
    outcomes
}

/// The message ids and outcomes in a batch of feedback.
pub(super) fn told(json: &str) -> Vec<(String, String)> {
    let records: Vec<Value> = serde_json::from_str(json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    records.iter().map(|record| (text(&record["originalMessageId"]), text(&record["statusCode"]))).collect()
}

async fn waiting(hub: &Hub) -> u64 {
    hub.get_device(&device()).await.unwrap().json["cloudToDeviceMessageCount"].as_u64().unwrap()
}

fn bodies(messages: &[CloudMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.body.as_str()).collect()
}

/// A world with one host and one device.
fn with_a_device(test: impl AsyncFnOnce(&World, &Host, &Arc<Hub>, &KeyPair)) {
    let world = World::new(11);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let hub = Arc::clone(&host.platform.hubs()[0]);
        let keys = create(&world, &hub).await;
        test(&world, &host, &hub, &keys).await;
    });
    finished.unwrap();
}

async fn send(hub: &Hub, numbers: std::ops::Range<u64>) {
    for number in numbers {
        hub.send_to_device(&device(), message(number)).await.unwrap();
    }
}

#[test]
fn what_waited_comes_with_the_subscription_and_is_done_when_it_is_acknowledged() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..3).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, true).await.unwrap();
        assert_eq!(connection.messages(SOON).await.unwrap(), [], "nothing is sent that was not asked for");
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        let mut got = connection.messages(SOON).await.unwrap();
        assert_eq!(bodies(&got), ["0", "1", "2"]);
        assert_eq!(got[0].bag, "%24.mid=m-0&%24.to=%2Fdevices%2Fdevice-0%2Fmessages%2FdeviceBound&iothub-ack=full");
        send(hub, 3..4).await;
        got.extend(connection.messages(SOON).await.unwrap());
        assert_eq!(bodies(&got), ["0", "1", "2", "3"]);
        assert!(got.iter().all(|message| matches!(message.delivery, Some((_, false)))));
        assert_eq!(waiting(hub).await, 4, "in flight");
        // In whatever order.
        for message in got.iter().rev() {
            connection.acknowledge(message.delivery.unwrap().0).unwrap();
        }
        connection.idle(SOON).await.unwrap();
        assert_eq!(waiting(hub).await, 0);
        let outcomes = outcomes(hub).await;
        assert_eq!(outcomes.len(), 4);
        assert!(outcomes.iter().all(|(_, outcome)| outcome == "Success"), "{outcomes:?}");
    });
}

#[test]
fn what_was_not_acknowledged_comes_again_without_a_subscription_and_says_so() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..3).await;
        let (mut first, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        first.listen(ID, QoS::AtLeastOnce).await.unwrap();
        let got = first.messages(SOON).await.unwrap();
        first.acknowledge(got[1].delivery.unwrap().0).unwrap();
        first.disconnect();
        world.env.sleep(SOON).await;
        send(hub, 3..4).await;
        assert_eq!(waiting(hub).await, 3);
        let (mut second, resumed) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        assert!(resumed);
        let got = second.messages(SOON).await.unwrap();
        assert_eq!(bodies(&got), ["0", "2", "3"], "in the old order");
        let repeated: Vec<bool> = got.iter().map(|message| message.delivery.unwrap().1).collect();
        assert_eq!(repeated, [true, true, false]);
        // A connection that is simply gone is no different.
        drop(second);
        world.env.sleep(SOON).await;
        let (mut third, _) = Connection::log_in(world, host, HUB, ID, keys, true).await.unwrap();
        assert_eq!(third.messages(SOON).await.unwrap(), [], "a clean session begins with nothing");
        third.listen(ID, QoS::AtLeastOnce).await.unwrap();
        assert_eq!(bodies(&third.messages(SOON).await.unwrap()), ["0", "2", "3"]);
    });
}

#[test]
fn a_crash_is_the_end_of_a_connection() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..1).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        assert_eq!(connection.messages(SOON).await.unwrap().len(), 1);
        world.crash(host);
        world.lose_unsynced();
        let again = world.start("host-a").await;
        let hub = &again.platform.hubs()[0];
        // Over HTTPS, so that no new session helps.
        let who = over_https(world, hub, keys).await.unwrap();
        let got = hub.receive_message(&who).await.unwrap().unwrap();
        assert_eq!((got.deliveries, &*got.message.body), (1, b"0".as_slice()));
    });
}

#[test]
fn a_message_that_is_never_acknowledged_is_given_up() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..1).await;
        for attempt in 0..10 {
            let (mut connection, resumed) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
            if !resumed {
                connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
            }
            let got = connection.messages(SOON).await.unwrap();
            assert_eq!(got.len(), 1, "attempt {attempt}");
            assert_eq!(got[0].delivery.unwrap().1, attempt > 0);
            drop(connection);
            world.env.sleep(SOON).await;
        }
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        assert_eq!(connection.messages(SOON).await.unwrap(), []);
        assert_eq!(outcomes(hub).await, [("m-0".to_owned(), "DeliveryCountExceeded".to_owned())]);
    });
}

#[test]
fn qos_0_is_done_when_it_is_sent() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..40).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        connection.listen(ID, QoS::AtMostOnce).await.unwrap();
        let got = connection.messages(SOON).await.unwrap();
        assert_eq!(got.len(), 40);
        assert!(got.iter().all(|message| message.delivery.is_none()));
        assert_eq!(waiting(hub).await, 0);
        drop(connection);
        world.env.sleep(SOON).await;
        // The session keeps what was granted.
        send(hub, 40..41).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        let got = connection.messages(SOON).await.unwrap();
        assert_eq!((bodies(&got), got[0].delivery), (vec!["40"], None));
        connection.listen(ID, QoS::ExactlyOnce).await.unwrap();
        send(hub, 41..42).await;
        let got = connection.messages(SOON).await.unwrap();
        assert!(got[0].delivery.is_some(), "2 is granted as 1");
    });
}

#[test]
fn a_full_queue_passes_through_the_window_in_order() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..MAX_QUEUE_DEPTH as u64).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        let mut seen = Vec::new();
        let got = connection.messages(SOON).await.unwrap();
        assert_eq!(got.len(), MAX_MESSAGES_IN_FLIGHT, "no more until one is acknowledged");
        let mut got = got;
        while let Some(first) = got.first().cloned() {
            seen.extend(got.iter().map(|message| message.body.clone()));
            for message in &got {
                connection.acknowledge(message.delivery.unwrap().0).unwrap();
            }
            got = connection.messages(SOON).await.unwrap();
            assert!(got.first().is_none_or(|next| next.body != first.body));
        }
        let expected: Vec<String> = (0..MAX_QUEUE_DEPTH).map(|number| number.to_string()).collect();
        assert_eq!(seen, expected);
    });
}

#[test]
fn unsubscribing_stops_them_and_what_is_in_flight_can_still_be_acknowledged() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..1).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        let got = connection.messages(SOON).await.unwrap();
        connection.stop_listening(ID).await.unwrap();
        send(hub, 1..2).await;
        assert_eq!(connection.messages(SOON).await.unwrap(), []);
        connection.acknowledge(got[0].delivery.unwrap().0).unwrap();
        connection.idle(SOON).await.unwrap();
        assert_eq!(waiting(hub).await, 1);
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        assert_eq!(bodies(&connection.messages(SOON).await.unwrap()), ["1"]);
    });
}

#[test]
fn a_displaced_session_completes_nothing() {
    let world = World::new(5);
    let finished = world.simulation.run(async {
        let (one, other) = (world.start("host-a").await, world.start("host-b").await);
        let (hub, elsewhere) = (&one.platform.hubs()[0], &other.platform.hubs()[0]);
        let keys = create(&world, hub).await;
        send(hub, 0..1).await;
        let (mut stale, _) = Connection::log_in(&world, &one, HUB, ID, &keys, false).await.unwrap();
        stale.listen(ID, QoS::AtLeastOnce).await.unwrap();
        let got = stale.messages(SOON).await.unwrap();
        // The first host does not learn that the device is elsewhere now.
        world.cut_off(&one);
        let (mut fresh, _) = Connection::log_in(&world, &other, HUB, ID, &keys, false).await.unwrap();
        let again = fresh.messages(SOON).await.unwrap();
        assert_eq!((bodies(&again), again[0].delivery.unwrap().1), (vec!["0"], true));
        stale.acknowledge(got[0].delivery.unwrap().0).unwrap();
        assert!(stale.idle(Duration::from_secs(60)).await.is_err(), "the stale session is ended");
        assert_eq!(waiting(elsewhere).await, 1);
        fresh.acknowledge(again[0].delivery.unwrap().0).unwrap();
        fresh.idle(SOON).await.unwrap();
        assert_eq!(outcomes(elsewhere).await, [("m-0".to_owned(), "Success".to_owned())]);
    });
    finished.unwrap();
}

#[test]
fn a_message_sent_through_one_host_wakes_the_device_at_another() {
    let world = World::new(6);
    let finished = world.simulation.run(async {
        let (one, other) = (world.start("host-a").await, world.start("host-b").await);
        let keys = create(&world, &one.platform.hubs()[0]).await;
        let (mut connection, _) = Connection::log_in(&world, &one, HUB, ID, &keys, false).await.unwrap();
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        send(&other.platform.hubs()[0], 0..1).await;
        assert_eq!(bodies(&connection.messages(SOON).await.unwrap()), ["0"]);
    });
    finished.unwrap();
}

#[test]
fn what_is_abandoned_over_https_goes_to_the_connection_that_listens() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..2).await;
        let who = over_https(world, hub, keys).await.unwrap();
        let [first, second] = [0, 1].map(|_| hub.receive_message(&who));
        let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, true).await.unwrap();
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        assert_eq!(connection.messages(SOON).await.unwrap(), [], "both are locked");
        hub.settle_message(&who, &second.lock_token, Settlement::Abandon).await.unwrap();
        let got = connection.messages(SOON).await.unwrap();
        assert_eq!((bodies(&got), got[0].delivery.unwrap().1), (vec!["1"], true));
        // The other lock runs out by itself.
        world.env.sleep(Duration::from_secs(61)).await;
        let got = connection.messages(SOON).await.unwrap();
        assert_eq!((bodies(&got), got[0].delivery.unwrap().1), (vec!["0"], false));
        let lost = hub.settle_message(&who, &first.lock_token, Settlement::Complete).await.unwrap_err();
        assert_eq!(lost.code.name(), "DeviceMessageLockLost");
    });
}

#[test]
fn a_device_that_is_deleted_leaves_nothing_in_the_store() {
    with_a_device(async |world, host, hub, keys| {
        send(hub, 0..5).await;
        let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
        connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
        assert_eq!(connection.messages(SOON).await.unwrap().len(), 5);
        hub.delete_device(&device(), &IfMatch::Any).await.unwrap();
        world.env.sleep(SOON).await;
        let left = nave_store::Store::scan(&*world.store, "", None, 1_000).await.unwrap();
        let left: Vec<&str> = left.iter().map(|(key, _)| key.as_str()).filter(|key| key.contains(ID)).collect();
        assert_eq!(left, [""; 0]);
    });
}

#[test]
fn what_was_acknowledged_at_the_end_of_a_connection_stays_done_whatever_is_ahead_in_the_lane() {
    for delay in 0..12 {
        with_a_device(async |world, host, hub, keys| {
            // The first failure is the last.
            hub.set_cloud_to_device(CloudToDeviceSettings { max_deliveries: 1, ..CloudToDeviceSettings::default() });
            send(hub, 0..1).await;
            let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
            connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
            let got = connection.messages(SOON).await.unwrap();
            connection.acknowledge(got[0].delivery.unwrap().0).unwrap();
            connection.disconnect();
            // Several operations after each other, so that one is ahead whenever the end of the connection is seen.
            let busy = Arc::clone(hub);
            let env = Arc::clone(&host.env);
            host.env.spawn(Box::pin(async move {
                env.sleep(Duration::from_millis(delay)).await;
                for number in 1..5 {
                    busy.send_to_device(&device(), message(number)).await.unwrap();
                }
            }));
            world.env.sleep(SOON).await;
            let mut outcomes = outcomes(hub).await;
            // What was sent to the connection in time and not acknowledged is given up, as asked for.
            outcomes.retain(|(id, _)| id == "m-0");
            assert_eq!(outcomes, [("m-0".to_owned(), "Success".to_owned())], "after {delay} ms");
        });
    }
}

#[test]
fn what_could_not_be_noted_on_a_full_disk_is_noted_after_a_goodbye_and_delivered_again_after_a_break() {
    for goodbye in [true, false] {
        with_a_device(async |world, host, hub, keys| {
            send(hub, 0..1).await;
            let (mut connection, _) = Connection::log_in(world, host, HUB, ID, keys, false).await.unwrap();
            connection.listen(ID, QoS::AtLeastOnce).await.unwrap();
            let got = connection.messages(SOON).await.unwrap();
            world.set_full(true, [false; 2]);
            connection.acknowledge(got[0].delivery.unwrap().0).unwrap();
            connection.idle(SOON).await.unwrap();
            // After a goodbye the session stays until what it accepted is done. Without one nobody waits.
            if goodbye {
                connection.disconnect();
            } else {
                drop(connection);
            }
            world.env.sleep(SOON).await;
            world.set_full(false, [false; 2]);
            // Longer than between two tries.
            world.env.sleep(Duration::from_secs(60)).await;
            let who = over_https(world, hub, keys).await.unwrap();
            let got = hub.receive_message(&who).await.unwrap().map(|got| got.deliveries);
            assert_eq!(got, if goodbye { None } else { Some(1) }, "with a goodbye: {goodbye}");
            let told = if goodbye { vec![("m-0".to_owned(), "Success".to_owned())] } else { Vec::new() };
            assert_eq!(outcomes(hub).await, told);
        });
    }
}
