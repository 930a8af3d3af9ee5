//! The rules of the MQTT surface that need time to pass, or a client that no SDK is: byte for byte, in virtual time.

use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::{Either, select};
use nave_auth::{KeyPair, SasToken};
use nave_env::Env;
use nave_hub::{AuthenticationInput, DeviceInput, TwinUpdate};
use nave_model::{DeviceId, DeviceStatus, Identity, IfMatch};
use nave_mqtt::decode::{Decoded, decode};
use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Delivery, Login, Packet, PacketId, QoS, Subscription, Will};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::world::{HUBS, Host, World};

const ID: &str = "device-0";
const HUB: &str = HUBS[0];

/// A client that writes what it likes.
struct Raw<'a> {
    world: &'a World,
    out: UnboundedSender<Vec<u8>>,
    input: UnboundedReceiver<Vec<u8>>,
}

impl<'a> Raw<'a> {
    fn dial(world: &'a World, host: &Host) -> Self {
        let (out, input) = world.connect(host);
        Self { world, out, input }
    }

    fn send(&self, bytes: &[u8]) {
        let _ = self.out.send(bytes.to_vec());
    }

    /// The next bytes, or nothing once the hub has closed the connection.
    async fn next(&mut self) -> Option<Vec<u8>> {
        self.input.recv().await
    }

    /// Everything that comes within `time`, and whether the connection is still open after it.
    async fn listen(&mut self, time: Duration) -> (Vec<u8>, bool) {
        let mut end = self.world.env.sleep(time);
        let mut seen = Vec::new();
        loop {
            let received = Box::pin(self.input.recv());
            match select(received, end).await {
                Either::Left((Some(bytes), remaining)) => {
                    seen.extend(bytes);
                    end = remaining;
                }
                Either::Left((None, _)) => return (seen, false),
                Either::Right(_) => return (seen, true),
            }
        }
    }

    async fn expect_closed_within(&mut self, time: Duration) -> Vec<u8> {
        let (seen, open) = self.listen(time).await;
        assert!(!open, "still open after {time:?}; it sent {seen:?}");
        seen
    }
}

fn connect_packet(username: &str, password: &str, keep_alive: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let login = Login { username, password: Some(password.as_bytes()) };
    let packet = Connect { client_id: ID, clean_session: true, keep_alive, will: None, login: Some(login) };
    encode::connect(&mut bytes, &packet).unwrap();
    bytes
}

fn publish(topic: &str, payload: &[u8], delivery: Delivery) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::publish(&mut bytes, topic, payload, delivery, false).unwrap();
    bytes
}

fn subscribe(filters: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let filters: Vec<_> = filters.iter().map(|filter| Subscription { filter, qos: QoS::ExactlyOnce }).collect();
    encode::subscribe(&mut bytes, PacketId::new(7).unwrap(), &filters).unwrap();
    bytes
}

const USERNAME: &str = "hub1.sim.test/device-0/?api-version=2021-04-12";
const CONNACK_ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
const CONNACK_NOT_AUTHORIZED: [u8; 4] = [0x20, 2, 0, 5];

fn token(world: &World, keys: &KeyPair, lifetime: Duration) -> String {
    SasToken::create(&format!("{HUB}/devices/{ID}"), &keys.primary, world.env.now().after(lifetime), None)
}

/// A device in the first hub, and its keys.
async fn device(world: &World, host: &Host) -> KeyPair {
    let keys = KeyPair::generate(32, |buffer| world.env.fill_random(buffer));
    host.platform.hubs()[0].put_device(&device_id(), &input(&keys), &IfMatch::None).await.unwrap();
    keys
}

fn input(keys: &KeyPair) -> DeviceInput {
    DeviceInput {
        authentication: AuthenticationInput {
            primary_key: Some(keys.primary.expose_base64()),
            secondary_key: Some(keys.secondary.expose_base64()),
            ..AuthenticationInput::default()
        },
        ..DeviceInput::default()
    }
}

fn device_id() -> DeviceId {
    DeviceId::parse(ID).unwrap()
}

async fn connected<'a>(world: &'a World, host: &Host, keys: &KeyPair, keep_alive: u16) -> Raw<'a> {
    let mut raw = Raw::dial(world, host);
    raw.send(&connect_packet(USERNAME, &token(world, keys, Duration::from_secs(3_600)), keep_alive));
    assert_eq!(raw.next().await.unwrap(), CONNACK_ACCEPTED);
    raw
}

fn scene(test: impl AsyncFnOnce(&World, Host, KeyPair)) {
    let world = World::new(21);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = device(&world, &host).await;
        test(&world, host, keys).await;
    });
    finished.unwrap();
}

#[test]
fn silence_ends_a_connection() {
    scene(async |world, host, keys| {
        let mut mute = Raw::dial(world, &host);
        let (_, open) = mute.listen(Duration::from_secs(59)).await;
        assert!(open, "a CONNECT may take up to 60 s");
        mute.expect_closed_within(Duration::from_secs(2)).await;

        let mut idle = connected(world, &host, &keys, 10).await;
        let (_, open) = idle.listen(Duration::from_secs(14)).await;
        assert!(open, "one and a half times the keep-alive is 15 s");
        idle.send(&[0xC0, 0]);
        assert_eq!(idle.next().await.unwrap(), [0xD0, 0]);
        let (_, open) = idle.listen(Duration::from_secs(14)).await;
        assert!(open, "a PINGREQ starts the time anew");
        idle.expect_closed_within(Duration::from_secs(3)).await;
    });
}

#[test]
fn a_connection_ends_with_its_token() {
    scene(async |world, host, keys| {
        let mut raw = Raw::dial(world, &host);
        raw.send(&connect_packet(USERNAME, &token(world, &keys, Duration::from_secs(600)), 0));
        assert_eq!(raw.next().await.unwrap(), CONNACK_ACCEPTED);
        let (_, open) = raw.listen(Duration::from_secs(590)).await;
        assert!(open);
        raw.expect_closed_within(Duration::from_secs(20)).await;

        let expired = token(world, &keys, Duration::ZERO);
        world.env.sleep(Duration::from_secs(301)).await;
        let mut late = Raw::dial(world, &host);
        late.send(&connect_packet(USERNAME, &expired, 0));
        assert_eq!(late.expect_closed_within(Duration::from_secs(2)).await, CONNACK_NOT_AUTHORIZED);
    });
}

#[test]
fn what_a_device_may_not_do_is_refused_without_saying_why() {
    scene(async |world, host, keys| {
        let other = KeyPair::generate(32, |buffer| world.env.fill_random(buffer));
        let good = token(world, &keys, Duration::from_secs(3_600));
        let wrong_key = token(world, &other, Duration::from_secs(3_600));
        for (username, password) in [
            (USERNAME, wrong_key.as_str()),
            (USERNAME, "SharedAccessSignature nonsense"),
            (USERNAME, ""),
            ("hub2.sim.test/device-0/?api-version=2021-04-12", &good),
            ("hub9.sim.test/device-0/?api-version=2021-04-12", &good),
            ("hub1.sim.test/device-1/?api-version=2021-04-12", &good),
            ("hub1.sim.test", &good),
        ] {
            let mut raw = Raw::dial(world, &host);
            raw.send(&connect_packet(username, password, 60));
            let answer = raw.expect_closed_within(Duration::from_secs(5)).await;
            assert_eq!(answer, CONNACK_NOT_AUTHORIZED, "{username}");
        }
    });
}

#[test]
fn the_service_ends_connections() {
    scene(async |world, host, keys| {
        let hub = &host.platform.hubs()[0];
        let soon = Duration::from_secs(2);

        let mut first = connected(world, &host, &keys, 60).await;
        let mut second = connected(world, &host, &keys, 60).await;
        first.expect_closed_within(soon).await;

        let disabled = DeviceInput { status: Some(DeviceStatus::Disabled), ..input(&keys) };
        hub.put_device(&device_id(), &disabled, &IfMatch::Any).await.unwrap();
        second.expect_closed_within(soon).await;
        let mut refused = Raw::dial(world, &host);
        refused.send(&connect_packet(USERNAME, &token(world, &keys, soon), 60));
        assert_eq!(refused.expect_closed_within(soon).await, CONNACK_NOT_AUTHORIZED);

        hub.put_device(&device_id(), &input(&keys), &IfMatch::Any).await.unwrap();
        let mut third = connected(world, &host, &keys, 60).await;
        let new_keys = KeyPair::generate(32, |buffer| world.env.fill_random(buffer));
        hub.put_device(&device_id(), &input(&new_keys), &IfMatch::Any).await.unwrap();
        third.expect_closed_within(soon).await;

        let mut fourth = connected(world, &host, &new_keys, 60).await;
        hub.delete_device(&device_id(), &IfMatch::Any).await.unwrap();
        fourth.expect_closed_within(soon).await;
        assert_eq!(hub.connected(), 0);
    });
}

#[test]
fn packets_that_break_the_rules_close_the_connection() {
    scene(async |world, host, keys| {
        let id = PacketId::new(1).unwrap();
        let exactly_once = Delivery::ExactlyOnce { packet_id: id, dup: false };
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("QoS 2", publish("devices/device-0/messages/events/", b"x", exactly_once)),
            ("another device's topic", publish("devices/device-1/messages/events/", b"x", Delivery::AtMostOnce)),
            ("an unknown topic", publish("something/else", b"x", Delivery::AtMostOnce)),
            ("a request without $rid", publish("$iothub/twin/GET/", b"", Delivery::AtMostOnce)),
            (
                "a property that is not UTF-8",
                publish("devices/device-0/messages/events/a=%FF", b"x", Delivery::AtMostOnce),
            ),
            ("a second CONNECT", connect_packet(USERNAME, "", 60)),
            ("a packet of a server", vec![0x20, 2, 0, 0]),
            ("a malformed length", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
            ("too large a packet", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        // A device that behaves must not notice any of it.
        let control_keys = KeyPair::generate(32, |buffer| world.env.fill_random(buffer));
        let control_id = DeviceId::parse("control").unwrap();
        host.platform.hubs()[0].put_device(&control_id, &input(&control_keys), &IfMatch::None).await.unwrap();
        let mut control = super::device::Connection::to_hub(world, &host, HUB, "control", &control_keys).await.unwrap();
        for (number, (what, bytes)) in cases.iter().enumerate() {
            let mut raw = connected(world, &host, &keys, 60).await;
            raw.send(bytes);
            let (seen, open) = raw.listen(Duration::from_secs(5)).await;
            assert!(!open, "{what} did not close the connection");
            assert_eq!(seen, Vec::<u8>::new(), "{what} was answered");
            control.telemetry("control", number as u64).await.expect(what);
        }
    });
}

#[test]
fn a_message_that_is_too_large_closes_and_is_not_stored() {
    scene(async |world, host, keys| {
        let mut raw = connected(world, &host, &keys, 60).await;
        let id = PacketId::new(1).unwrap();
        let body = vec![b'x'; nave_hub::MAX_MESSAGE_BYTES + 1];
        let delivery = Delivery::AtLeastOnce { packet_id: id, dup: false };
        raw.send(&publish("devices/device-0/messages/events/", &body, delivery));
        assert_eq!(raw.expect_closed_within(Duration::from_secs(5)).await, Vec::<u8>::new());

        let mut raw = connected(world, &host, &keys, 60).await;
        let body = vec![b'x'; nave_hub::MAX_MESSAGE_BYTES];
        raw.send(&publish("devices/device-0/messages/events/", &body, delivery));
        assert_eq!(raw.next().await.unwrap(), [0x40, 2, 0, 1], "the largest message is taken");
    });
}

#[test]
fn subscriptions_are_granted_by_name() {
    scene(async |world, host, keys| {
        let mut raw = connected(world, &host, &keys, 60).await;
        raw.send(&subscribe(&[
            "#",
            "devices/+/messages/devicebound/#",
            "$iothub/methods/POST/#",
            "$iothub/twin/res/#",
        ]));
        // Wildcards and strangers' topics 0x80; QoS 2 is granted as 1.
        assert_eq!(raw.next().await.unwrap(), [0x90, 6, 0, 7, 0x80, 0x80, 1, 1]);
        raw.send(&publish("$iothub/twin/GET/?$rid=a", b" ", Delivery::AtMostOnce));
        let answer = raw.next().await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("$iothub/twin/res/200/?$rid=a"), "{text}");
        assert!(text.ends_with(r#"{"desired":{"$version":1},"reported":{"$version":1}}"#), "{text}");
        // The same request id twice is two requests.
        raw.send(&publish("$iothub/twin/GET/?$rid=a", b" ", Delivery::AtMostOnce));
        assert!(String::from_utf8_lossy(&raw.next().await.unwrap()).contains("$rid=a"));
        raw.send(&publish("$iothub/twin/PATCH/properties/reported/?$rid=b", b"not JSON", Delivery::AtMostOnce));
        let answer = raw.next().await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("$iothub/twin/res/400/?$rid=b") && text.contains(r#""errorCode":400004"#), "{text}");
    });
}

#[test]
fn a_user_name_without_version_can_send_but_has_no_twin() {
    scene(async |world, host, keys| {
        let mut raw = Raw::dial(world, &host);
        raw.send(&connect_packet("hub1.sim.test/device-0", &token(world, &keys, Duration::from_secs(600)), 60));
        assert_eq!(raw.next().await.unwrap(), CONNACK_ACCEPTED);
        raw.send(&subscribe(&["$iothub/twin/res/#"]));
        raw.next().await.unwrap();
        raw.send(&publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{}", Delivery::AtMostOnce));
        let answer = raw.next().await.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("$iothub/twin/res/400/?$rid=1"));
        let id = PacketId::new(3).unwrap();
        let delivery = Delivery::AtLeastOnce { packet_id: id, dup: false };
        raw.send(&publish("devices/device-0/messages/events/", b"x", delivery));
        assert_eq!(raw.next().await.unwrap(), [0x40, 2, 0, 3]);
    });
}

#[test]
fn a_client_need_not_wait_for_its_answers() {
    scene(async |world, host, keys| {
        let mut raw = Raw::dial(world, &host);
        let mut bytes = connect_packet(USERNAME, &token(world, &keys, Duration::from_secs(600)), 60);
        bytes.extend(subscribe(&["$iothub/twin/res/#"]));
        for number in 1..=3 {
            let id = PacketId::new(number).unwrap();
            let delivery = Delivery::AtLeastOnce { packet_id: id, dup: false };
            bytes.extend(publish("devices/device-0/messages/events/", b"x", delivery));
        }
        // One byte at a time, before any answer.
        bytes.iter().for_each(|byte| raw.send(&[*byte]));
        let (seen, open) = raw.listen(Duration::from_secs(20)).await;
        assert!(open);
        assert!(seen.starts_with(&CONNACK_ACCEPTED), "{seen:?}");
        for expected in [&[0x90, 3, 0, 7, 1][..], &[0x40, 2, 0, 1], &[0x40, 2, 0, 2], &[0x40, 2, 0, 3]] {
            assert!(seen.windows(expected.len()).any(|window| window == expected), "{expected:?} in {seen:?}");
        }
    });
}

#[test]
fn a_will_is_sent_unless_the_device_says_goodbye() {
    scene(async |world, host, keys| {
        let will = |payload| Will {
            topic: "devices/device-0/messages/events/reason=lost",
            payload,
            qos: QoS::ExactlyOnce,
            retain: true,
        };
        let password = token(world, &keys, Duration::from_secs(3_600));
        let login = Login { username: USERNAME, password: Some(password.as_bytes()) };
        for (payload, goodbye) in [(&b"lost"[..], false), (b"left", true), (b"displaced", false)] {
            let mut raw = Raw::dial(world, &host);
            let mut bytes = Vec::new();
            let will = Some(will(payload));
            let packet = Connect { client_id: ID, clean_session: true, keep_alive: 60, will, login: Some(login) };
            encode::connect(&mut bytes, &packet).unwrap();
            raw.send(&bytes);
            assert_eq!(raw.next().await.unwrap(), CONNACK_ACCEPTED);
            if goodbye {
                raw.send(&[0xE0, 0]);
                raw.expect_closed_within(Duration::from_secs(2)).await;
            } else if payload == b"displaced" {
                drop(connected(world, &host, &keys, 60).await);
                raw.expect_closed_within(Duration::from_secs(2)).await;
            }
            drop(raw);
            world.env.sleep(Duration::from_secs(2)).await;
        }
        let mut stored = super::routing::messages(world).await;
        stored.retain(|record| record.source == nave_log::Source::DeviceMessages);
        let bodies: Vec<_> = stored.iter().map(|record| &record.body[..]).collect();
        assert_eq!(bodies, [&b"lost"[..], b"displaced"]);
        let properties = [("reason", "lost"), ("mqtt-retain", "true"), ("iothub-MessageType", "Will")];
        assert_eq!(stored[0].properties, properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
    });
}

/// One read can bring more requests than a device ever has answers in its hands.
#[test]
fn requests_are_answered_as_their_device_reads() {
    const REQUESTS: usize = 1_000;
    scene(async |world, host, keys| {
        let body =
            serde_json::json!({ "properties": { "desired": { "text": vec!["x".repeat(4_000); 5] } } }).to_string();
        let identity = Identity::device(device_id());
        host.platform.hubs()[0].update_twin(&identity, TwinUpdate::Patch, &body, &IfMatch::None).await.unwrap();
        let mut protocol = world.protocol(&host);
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = connect_packet(USERNAME, &token(world, &keys, Duration::from_secs(600)), 60);
        bytes.extend(subscribe(&["$iothub/twin/res/#"]));
        (0..REQUESTS).for_each(|number| {
            bytes.extend(publish(&format!("$iothub/twin/GET/?$rid={number}"), b"", Delivery::AtMostOnce));
        });
        protocol.receive(&bytes);
        // The device reads nothing for a while.
        for _ in 0..500 {
            protocol.poll(&mut context);
            world.env.sleep(Duration::from_millis(5)).await;
        }
        assert!(!protocol.wants_input());
        let mut seen = Vec::new();
        while protocol.transmit(&mut seen) {}
        let most = nave_session::MAX_UNWRITTEN_BYTES + nave_session::MAX_REQUESTS_IN_FLIGHT * 25_000;
        assert!(seen.len() <= most, "{} bytes wait for a device that does not read", seen.len());
        let mut answers = 0;
        while answers < REQUESTS {
            let Decoded::Packet { packet, consumed } = decode(&seen, usize::MAX).unwrap() else {
                protocol.poll(&mut context);
                while protocol.transmit(&mut seen) {}
                world.env.sleep(Duration::from_millis(5)).await;
                continue;
            };
            answers += usize::from(matches!(packet, Packet::Publish(_)));
            seen.drain(..consumed);
        }
        assert!(seen.is_empty() && protocol.wants_input());
    });
}
