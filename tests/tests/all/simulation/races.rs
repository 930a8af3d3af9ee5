//! Two things at the same time: whatever the order, nothing that was revoked stays, and nobody is thrown out for nothing.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join;
use nave_auth::{KeyPair, SasToken};
use nave_env::Env;
use nave_hub::{
    AuthenticationInput, ConnectOptions, DeviceInput, Hub, Mailbox, MailboxFull, ModuleInput, Presented, Subscriptions,
    ToDevice, TwinUpdate,
};
use nave_model::{DeviceId, DeviceStatus, Identity, IfMatch};
use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Delivery, Login, PacketId, QoS, Subscription};
use nave_session::protocol::{CloseReason, PeerFacts, Protocol, ProtocolFactory, TlsVersion};
use nave_session::{MAX_INBOX_BYTES, MAX_UNACKNOWLEDGED_BYTES, MAX_UNWRITTEN_BYTES, MqttFactory};

use super::world::{HUBS, Host, World};

const ID: &str = "device-0";
const MODULE: &str = "device-0/camera";

struct Nobody;

impl Mailbox for Nobody {
    fn deliver(&self, _message: ToDevice) -> Result<(), MailboxFull> {
        Ok(())
    }
}

fn options() -> ConnectOptions {
    ConnectOptions { persistent: true, model_id: None, mailbox: Arc::new(Nobody) }
}

fn identity() -> Identity {
    Identity::parse(ID).unwrap()
}

/// Runs `test` with a new device in the first hub, its input, and a token of it.
fn with_a_device(seed: u64, test: impl AsyncFnOnce(&World, &Host, &Arc<Hub>, DeviceInput, String)) {
    let world = World::new(seed);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let hub = Arc::clone(&host.platform.hubs()[0]);
        let keys = KeyPair::generate(32, |buffer| world.env.fill_random(buffer));
        let input = DeviceInput {
            authentication: AuthenticationInput {
                primary_key: Some(keys.primary.expose_base64()),
                secondary_key: Some(keys.secondary.expose_base64()),
                ..AuthenticationInput::default()
            },
            ..DeviceInput::default()
        };
        hub.put_device(identity().device_id(), &input, &IfMatch::None).await.unwrap();
        let expiry = world.env.now().after(Duration::from_secs(3_600));
        let token = SasToken::create(&format!("{}/devices/{ID}", HUBS[0]), &keys.primary, expiry, None);
        test(&world, &host, &hub, input, token).await;
    });
    finished.unwrap();
}

/// Lets `who`, the device or a module on it, connect while `revoke` is under way, many times in different orders.
fn never_connected_after<F: Future<Output = ()> + Send + 'static>(
    who: &str,
    revoke: fn(Arc<Hub>, DeviceId, DeviceInput) -> F,
) {
    let identity = Identity::parse(who).unwrap();
    let mut connected = 0;
    for seed in 0..60 {
        with_a_device(seed, async |world, host, hub, input, own_token| {
            let mut token = own_token;
            if let Some(module) = identity.module_id() {
                let module_input = ModuleInput { managed_by: None, authentication: input.authentication.clone() };
                hub.put_module(identity.device_id(), module, &module_input, &IfMatch::None).await.unwrap();
                let policy = hub.policy("device").unwrap();
                let expiry = world.env.now().after(Duration::from_secs(3_600));
                token = SasToken::create(HUBS[0], &policy.keys.primary, expiry, Some("device"));
            }
            let presented = Presented { token: Some(&token), certificates: &[] };
            let who = hub.authenticate(&identity, presented, &[]).await.unwrap();
            let hub2 = Arc::clone(hub);
            let [first, second] = [seed % 3, seed / 3 % 4].map(Duration::from_millis);
            let env = Arc::clone(&host.env);
            let (sender, receiver) = tokio::sync::oneshot::channel();
            host.env.spawn(Box::pin(async move {
                env.sleep(first).await;
                drop(sender.send(hub2.connect(&who, options()).await));
            }));
            let revoked = revoke(Arc::clone(hub), identity.device_id().clone(), input);
            let env = Arc::clone(&host.env);
            host.env.spawn(Box::pin(async move {
                env.sleep(second).await;
                revoked.await;
            }));
            let outcome = receiver.await.unwrap().unwrap();
            connected += u32::from(matches!(outcome, nave_hub::Connected::Session { .. }));
            world.env.sleep(Duration::from_secs(1)).await;
            assert!(hub.session(&identity).is_none(), "seed {seed}: still connected");
            if let nave_hub::Connected::Session { session, .. } = outcome {
                assert!(!session.is_open(), "seed {seed}: still open");
            }
        });
    }
    assert!(connected > 0, "in no order the device was connected first");
}

#[test]
fn a_device_that_is_disabled_while_it_connects_does_not_stay_connected() {
    for who in [ID, MODULE] {
        never_connected_after(who, |hub, device, input| async move {
            let disabled = DeviceInput { status: Some(DeviceStatus::Disabled), ..input };
            hub.put_device(&device, &disabled, &IfMatch::Any).await.unwrap();
        });
    }
}

#[test]
fn a_device_that_is_deleted_while_it_connects_does_not_stay_connected() {
    for who in [ID, MODULE] {
        never_connected_after(who, |hub, device, _| async move {
            hub.delete_device(&device, &IfMatch::Any).await.unwrap();
        });
    }
}

#[test]
fn a_module_that_is_deleted_while_it_connects_does_not_stay_connected() {
    never_connected_after(MODULE, |hub, device, _| async move {
        let identity = Identity::parse(MODULE).unwrap();
        hub.delete_module(&device, identity.module_id().unwrap(), &IfMatch::Any).await.unwrap();
    });
}

#[test]
fn a_subscription_does_not_displace_its_own_session() {
    with_a_device(1, async |_, _, hub, _, token| {
        let presented = Presented { token: Some(&token), certificates: &[] };
        let who = hub.authenticate(&identity(), presented, &[]).await.unwrap();
        let nave_hub::Connected::Session { session, .. } = hub.connect(&who, options()).await.unwrap() else {
            panic!("nothing changed meanwhile");
        };
        let subscribed = hub.subscribe(&session, Subscriptions::TWIN_RESPONSES);
        let (subscribed, reported) = join(subscribed, hub.report(&session, r#"{"n":1}"#, None)).await;
        subscribed.unwrap();
        assert_eq!(reported.unwrap(), 2);
        assert!(session.is_open());
        assert_eq!(hub.report(&session, r#"{"n":2}"#, None).await.unwrap(), 3);
    });
}

/// A connection without a driver: the test decides when it is read, polled and written.
async fn bare_connection(host: &Host, token: &str) -> Box<dyn Protocol> {
    let peer = PeerFacts {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
        server_name: None,
        certificates: Vec::new(),
        tls: TlsVersion::Tls13,
    };
    let mut protocol = MqttFactory::new(Arc::clone(&host.platform)).accept(peer);
    let mut bytes = Vec::new();
    let username = format!("{}/{ID}/?api-version=2021-04-12", HUBS[0]);
    let login = Login { username: &username, password: Some(token.as_bytes()) };
    let packet = Connect { client_id: ID, clean_session: true, keep_alive: 0, will: None, login: Some(login) };
    encode::connect(&mut bytes, &packet).unwrap();
    protocol.receive(&bytes);
    assert_eq!(output(&mut protocol).await, [0x20, 2, 0, 0]);
    protocol
}

/// Polls once, as a driver does whose peer takes nothing.
async fn poll_once(protocol: &mut dyn Protocol) {
    poll_fn(|context| {
        protocol.poll(context);
        Poll::Ready(())
    })
    .await;
}

/// Polls until there is output.
async fn output(protocol: &mut Box<dyn Protocol>) -> Vec<u8> {
    poll_fn(|context| {
        protocol.poll(context);
        let mut bytes = Vec::new();
        while protocol.transmit(&mut bytes) {}
        if bytes.is_empty() { Poll::Pending } else { Poll::Ready(bytes) }
    })
    .await
}

#[test]
fn what_a_device_does_not_read_is_bounded() {
    with_a_device(2, async |_, host, hub, _, token| {
        let mut protocol = bare_connection(host, &token).await;
        let mut bytes = Vec::new();
        let filter = Subscription { filter: "$iothub/twin/PATCH/properties/desired/#", qos: QoS::AtMostOnce };
        encode::subscribe(&mut bytes, PacketId::new(1).unwrap(), &[filter]).unwrap();
        protocol.receive(&bytes);
        output(&mut protocol).await;
        let text = "x".repeat(4_096);
        let body = format!(r#"{{"properties":{{"desired":{{"a":"{text}","b":"{text}","c":"{text}","d":"{text}"}}}}}}"#);
        for _ in 0..200 {
            hub.update_twin(&identity(), TwinUpdate::Patch, &body, &IfMatch::None).await.unwrap();
            poll_once(&mut *protocol).await;
        }
        assert!(matches!(protocol.closing(), Some(CloseReason::Overload(_))), "{:?}", protocol.closing());
        let mut kept = Vec::new();
        while protocol.transmit(&mut kept) {}
        assert!(kept.len() < MAX_UNWRITTEN_BYTES + 2 * body.len(), "{} bytes were kept", kept.len());
        const { assert!(MAX_INBOX_BYTES + MAX_UNWRITTEN_BYTES < 200 * 4 * 4_096, "more was sent than may be kept") };
    });
}

#[test]
fn a_device_that_reads_late_gets_everything_that_waited() {
    with_a_device(2, async |_, host, hub, _, token| {
        let mut protocol = bare_connection(host, &token).await;
        let mut bytes = Vec::new();
        let filter = Subscription { filter: "$iothub/twin/PATCH/properties/desired/#", qos: QoS::AtMostOnce };
        encode::subscribe(&mut bytes, PacketId::new(1).unwrap(), &[filter]).unwrap();
        protocol.receive(&bytes);
        output(&mut protocol).await;
        let text = "x".repeat(4_096);
        for number in 0..100 {
            let body = format!(r#"{{"properties":{{"desired":{{"n":{number},"text":"{text}"}}}}}}"#);
            hub.update_twin(&identity(), TwinUpdate::Patch, &body, &IfMatch::None).await.unwrap();
            poll_once(&mut *protocol).await;
        }
        // 100 notifications of 4 KB are more than is kept unwritten: the rest comes when there is room, without a further
        // event to wait for.
        let mut received = Vec::new();
        let expected = 100 * text.len();
        while received.len() < expected {
            received.extend(output(&mut protocol).await);
        }
        assert!(String::from_utf8_lossy(&received).contains(r#""n":99"#));
        assert_eq!(protocol.closing(), None);
    });
}

#[test]
fn the_properties_of_messages_count_as_what_waits() {
    with_a_device(3, async |_, host, _, _, token| {
        let mut protocol = bare_connection(host, &token).await;
        let topic = format!("devices/{ID}/messages/events/p={}", "x".repeat(60_000));
        let mut received = 0;
        while protocol.wants_input() {
            received += 1;
            let mut bytes = Vec::new();
            let delivery = Delivery::AtLeastOnce { packet_id: PacketId::new(received).unwrap(), dup: false };
            encode::publish(&mut bytes, topic.as_str(), b"x", delivery, false).unwrap();
            protocol.receive(&bytes);
            assert!(usize::from(received) * 60_000 < MAX_UNACKNOWLEDGED_BYTES + 2 * 60_000, "reading does not stop");
        }
        let mut acknowledged = 0;
        while acknowledged < usize::from(received) {
            acknowledged += output(&mut protocol).await.len() / 4;
        }
        assert!(protocol.wants_input());
    });
}
