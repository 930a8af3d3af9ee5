//! What each SDK puts on the wire, byte by byte, against session, codec, topics, bags and user names together.
//!
//! The clients' packets are built here by hand, not by the crate's encoder, so that an error in both halves cannot hide.
//! The rows come from the protocol notes: MQTT §2.3, §5, §11, provisioning §3 and §8.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use nave_mqtt::bag::{Bag, SystemProperty};
use nave_mqtt::connect::{DpsUsername, HubUsername};
use nave_mqtt::encode;
use nave_mqtt::packet::{Delivery, PacketId, QoS, SubAckCode};
use nave_mqtt::session::{Event, Flow, MAX_SILENCE_MS, ServerSession, SessionLimits};
use nave_mqtt::topic::{
    Client, DpsPublish, Feature, HubPublish, ToClient, dps_filter, dps_publish, hub_filter, hub_publish,
};

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    while length > 127 {
        out.push((length % 128) as u8 | 128);
        length /= 128;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(client_id: &str, username: &str, password: Option<&str>, clean: bool, keep_alive: u16) -> Vec<u8> {
    let flags = 0x80 | if password.is_some() { 0x40 } else { 0 } | if clean { 0x02 } else { 0 };
    let head = [b"\0\x04MQTT\x04".as_slice(), &[flags], &keep_alive.to_be_bytes()].concat();
    packet(0x10, &[head, text(client_id), text(username), password.map(text).unwrap_or_default()].concat())
}

fn publish(topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let id_bytes = id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
    packet(if id.is_some() { 0x32 } else { 0x30 }, &[text(topic), id_bytes, payload.to_vec()].concat())
}

fn subscribe(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(|(filter, qos)| [text(filter), vec![*qos]].concat()).collect();
    packet(0x82, &[&id.to_be_bytes()[..], &filters].concat())
}

/// A session as far as after CONNACK. `check` looks at the CONNECT.
fn accepted(connect: &[u8], check: impl Fn(&str, &str, Option<&[u8]>, bool)) -> ServerSession {
    let mut session = ServerSession::new(SessionLimits::default(), 0);
    let mut seen = 0;
    session
        .receive(connect, 0, |event| match event {
            Event::Connect(connect) => {
                let login = connect.login.unwrap();
                check(connect.client_id, login.username, login.password, connect.clean_session);
                seen += 1;
                Flow::Continue
            }
            event => panic!("{event:?}"),
        })
        .unwrap();
    assert_eq!(seen, 1);
    session.accept(false, 0, &mut Vec::new());
    session
}

const DEVICE: Client<'_> = Client::device("dev1");
const MODULE: Client<'_> = Client::module("dev1", "mod1");

struct HubConnect {
    username: &'static str,
    keep_alive: u16,
    silence_ms: u64,
    api_version: &'static str,
    agent: &'static str,
    model_id: Option<&'static str>,
}

#[test]
fn every_sdk_connects_to_a_hub() {
    let rows = [
        // Python
        HubConnect {
            username: "hub1.nave.test/dev1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%283.11.2%3BLinux%205.10%3Bx86_64%29",
            keep_alive: 60,
            silence_ms: 90_000,
            api_version: "2019-10-01",
            agent: "azure-iot-device-iothub-py/2.14.0(3.11.2;Linux 5.10;x86_64)",
            model_id: None,
        },
        // Node: the model id is raw and stands before the agent.
        HubConnect {
            username: "hub1.nave.test/dev1/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20.1.0%3B%20Linux%3B%20x64)",
            keep_alive: 180,
            silence_ms: 270_000,
            api_version: "2021-04-12",
            agent: "azure-iot-device/1.18.4 (node v20.1.0; Linux; x64)",
            model_id: Some("dtmi:com:example:Thermostat;1"),
        },
        // C: the model id comes last.
        HubConnect {
            username: "hub1.nave.test/dev1/?api-version=2020-09-30&DeviceClientType=iothubclient%2F1.11.0%20(native%3B%20Linux%3B%20x86_64)&model-id=dtmi:com:example:Thermostat;1",
            keep_alive: 240,
            silence_ms: 360_000,
            api_version: "2020-09-30",
            agent: "iothubclient/1.11.0 (native; Linux; x86_64)",
            model_id: Some("dtmi:com:example:Thermostat;1"),
        },
        // .NET: everything encoded.
        HubConnect {
            username: "hub1.nave.test/dev1/?api-version=2020-09-30&DeviceClientType=.NET%2F1.42.0%20%28.NET%208.0.1%3B%20Linux%3B%20X64%29&auth-chain=dev1%3Bedge1&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1",
            keep_alive: 300,
            silence_ms: 450_000,
            api_version: "2020-09-30",
            agent: ".NET/1.42.0 (.NET 8.0.1; Linux; X64)",
            model_id: Some("dtmi:com:example:Thermostat;1"),
        },
        // Java
        HubConnect {
            username: "hub1.nave.test/dev1/?api-version=2020-09-30&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1&DeviceClientType=com.microsoft.azure.sdk.iot.iot-device-client%2F2.5.0%20%28java%3B%20Linux%3B%20amd64%29",
            keep_alive: 230,
            silence_ms: 345_000,
            api_version: "2020-09-30",
            agent: "com.microsoft.azure.sdk.iot.iot-device-client/2.5.0 (java; Linux; amd64)",
            model_id: Some("dtmi:com:example:Thermostat;1"),
        },
        // Embedded C; the application chooses the keep-alive.
        HubConnect {
            username: "hub1.nave.test/dev1/?api-version=2020-09-30&DeviceClientType=azsdk-c%2F1.5.0",
            keep_alive: 1200,
            silence_ms: MAX_SILENCE_MS as u64,
            api_version: "2020-09-30",
            agent: "azsdk-c/1.5.0",
            model_id: None,
        },
    ];
    for row in rows {
        let bytes = connect("dev1", row.username, Some("SharedAccessSignature sr=x"), false, row.keep_alive);
        let session = accepted(&bytes, |client_id, username, password, clean| {
            let parsed = HubUsername::parse(username).unwrap();
            assert_eq!((parsed.host, parsed.client), ("hub1.nave.test", DEVICE));
            assert!(parsed.matches_client_id(client_id));
            assert_eq!(parsed.api_version.as_deref(), Some(row.api_version));
            assert_eq!(parsed.agent.as_deref(), Some(row.agent));
            assert_eq!(parsed.model_id.as_deref(), row.model_id);
            assert_eq!((password, clean), (Some(&b"SharedAccessSignature sr=x"[..]), false));
        });
        assert_eq!(session.deadline(), Some(row.silence_ms), "{}", row.username);
    }
}

#[test]
fn a_client_certificate_comes_without_a_password() {
    for password in [None, Some("")] {
        let bytes = connect("dev1/mod1", "hub1.nave.test/dev1/mod1/?api-version=2020-09-30", password, false, 60);
        accepted(&bytes, |client_id, username, password, _| {
            let parsed = HubUsername::parse(username).unwrap();
            assert_eq!(parsed.client, MODULE);
            assert!(parsed.matches_client_id(client_id) && password.unwrap_or_default().is_empty());
        });
    }
}

#[test]
fn every_sdk_connects_to_the_provisioning_service() {
    // (user name, CleanSession, keep-alive, silence that is allowed, agent)
    let rows = [
        (
            "0ne00001234/registrations/Reg-1/api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0",
            false,
            60,
            90_000,
            Some("azure-iot-device-provisioning-py/2.14.0"),
        ),
        (
            "0ne00001234/registrations/Reg-1/api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device-mqtt%2F1.8.0",
            true,
            180,
            270_000,
            Some("azure-iot-provisioning-device-mqtt/1.8.0"),
        ),
        (
            "0ne00001234/registrations/Reg-1/api-version=2021-06-01&ClientVersion=1.11.0",
            true,
            60,
            90_000,
            Some("1.11.0"),
        ),
        // .NET: keep-alive 0.
        (
            "0ne00001234/registrations/Reg-1/api-version=2019-03-31&ClientVersion=.NET%2F1.42.0",
            true,
            0,
            u64::from(MAX_SILENCE_MS),
            Some(".NET/1.42.0"),
        ),
        // Java: the version where the agent belongs.
        (
            "0ne00001234/registrations/Reg-1/api-version=2019-03-31&ClientVersion=2019-03-31",
            false,
            230,
            345_000,
            Some("2019-03-31"),
        ),
        // Embedded C: no agent.
        ("0ne00001234/registrations/Reg-1/api-version=2019-03-31", true, 240, 360_000, None),
    ];
    for (username, clean, keep_alive, silence_ms, agent) in rows {
        let session =
            accepted(&connect("reg-1", username, None, clean, keep_alive), |client_id, username, _, clean_session| {
                let parsed = DpsUsername::parse(username).unwrap();
                assert_eq!((parsed.id_scope, parsed.registration_id), ("0ne00001234", "Reg-1"));
                assert!(parsed.matches_client_id(client_id));
                assert!(parsed.api_version.is_some());
                assert_eq!((parsed.agent.as_deref(), clean_session), (agent, clean));
            });
        assert_eq!(session.deadline(), Some(silence_ms), "{username}");
    }
}

/// Telemetry of each SDK: topic, message id, content type, the application property `color`.
#[test]
fn every_sdk_sends_telemetry() {
    let rows = [
        // Python: encoded, system properties first.
        (
            DEVICE,
            "devices/dev1/messages/events/%24.mid=m%201&%24.ct=application%2Fjson&%24.ce=utf-8&color=light%20blue",
            "m 1",
        ),
        // Node
        (
            DEVICE,
            "devices/dev1/messages/events/%24.mid=m1&%24.ct=application%2Fjson&%24.ce=utf-8&color=light%20blue",
            "m1",
        ),
        // C without encoding: application properties first, raw blanks, raw slash.
        (DEVICE, "devices/dev1/messages/events/color=light blue&%24.mid=m1&%24.ct=application/json&%24.ce=utf-8", "m1"),
        // .NET: a slash after the bag, null as a key alone.
        (
            DEVICE,
            "devices/dev1/messages/events/%24.mid=m1&%24.uid&color=light%20blue&%24.ct=application%2Fjson&%24.ce=utf-8/",
            "m1",
        ),
        // Java: raw dollar sign, and it says who it is.
        (
            DEVICE,
            "devices/dev1/messages/events/$.mid=m1&$.cdid=dev1&$.ce=utf-8&$.ct=application%2Fjson&color=light%20blue",
            "m1",
        ),
        // Java module: a slash after the bag.
        (
            MODULE,
            "devices/dev1/modules/mod1/messages/events/$.mid=m1&$.on=out&$.cdid=dev1&$.cmid=mod1&$.ce=utf-8&$.ct=application%2Fjson&color=light%20blue/",
            "m1",
        ),
        // Node module
        (
            MODULE,
            "devices/dev1/modules/mod1/messages/events/%24.on=out&%24.mid=m1&%24.ct=application%2Fjson&%24.ce=utf-8&color=light%20blue/",
            "m1",
        ),
    ];
    let mut session = accepted(&connect("dev1", "h/dev1", None, false, 60), |_, _, _, _| {});
    for (client, topic, message_id) in rows {
        let mut events = 0;
        session
            .receive(&publish(topic, Some(7), b"{}"), 0, |event| {
                let Event::Publish { topic, payload: b"{}", ack, dup: false, retain: false } = event else {
                    panic!("{event:?}");
                };
                assert_eq!(ack, PacketId::new(7));
                let Ok(HubPublish::Telemetry { bag }) = hub_publish(client, topic) else { panic!("{topic}") };
                let bag = Bag::decode(bag).unwrap();
                assert_eq!(bag.system.get(SystemProperty::MessageId), Some(message_id), "{topic}");
                assert_eq!(bag.system.get(SystemProperty::ContentType), Some("application/json"), "{topic}");
                assert_eq!(bag.system.get(SystemProperty::ContentEncoding), Some("utf-8"), "{topic}");
                assert_eq!(bag.system.get(SystemProperty::OutputName), client.module.map(|_| "out"), "{topic}");
                assert_eq!(bag.system.get(SystemProperty::ConnectionDeviceId), None);
                assert_eq!(bag.property("color"), Some(Some("light blue")), "{topic}");
                assert_eq!(bag.application.len(), 1, "{topic}");
                events += 1;
                Flow::Continue
            })
            .unwrap();
        assert_eq!(events, 1);
    }
}

#[test]
fn c_subscribes_to_everything_at_once_without_waiting_for_connack() {
    let filters = [
        ("devices/dev1/messages/devicebound/#", 1),
        ("$iothub/twin/res/#", 0),
        ("$iothub/twin/PATCH/properties/desired/#", 0),
        ("$iothub/methods/POST/#", 0),
        ("unknown/#", 1),
    ];
    let bytes = [
        connect("dev1", "h/dev1/?api-version=2020-09-30", Some("t"), false, 240),
        subscribe(2, &filters),
        // Its request ids are packet ids; QoS 0; no body.
        publish("$iothub/twin/GET/?$rid=3", None, b""),
        publish("$iothub/twin/PATCH/properties/reported/?$rid=4", None, b"{\"a\":1}"),
    ]
    .concat();
    let mut session = accepted(&bytes, |_, _, _, _| {});
    let mut out = Vec::new();
    let mut topics = Vec::new();
    session
        .resume(0, |event| {
            match event {
                Event::Subscribe { packet_id, filters } => {
                    let codes: Vec<_> = filters
                        .map(|wanted| match hub_filter(DEVICE, wanted.filter) {
                            Ok(feature) => {
                                topics.push(format!("{feature:?}"));
                                SubAckCode::Granted(wanted.qos.min(QoS::AtLeastOnce))
                            }
                            Err(_) => SubAckCode::Refused,
                        })
                        .collect();
                    encode::sub_ack(&mut out, packet_id, &codes).unwrap();
                }
                Event::Publish { topic, payload, ack: None, .. } => {
                    topics.push(format!("{:?} {}", hub_publish(DEVICE, topic).unwrap(), payload.len()));
                }
                event => panic!("{event:?}"),
            }
            Flow::Continue
        })
        .unwrap();
    assert_eq!(out, [0x90, 7, 0, 2, 1, 0, 0, 0, 0x80]);
    assert_eq!(
        topics,
        [
            "CloudToDevice",
            "TwinResponses",
            "TwinDesired",
            "Methods",
            "TwinGet { rid: \"3\", since: None } 0",
            "TwinPatch { rid: Some(\"4\"), version: None } 7"
        ]
    );
}

#[test]
fn modules_subscribe_to_inputs_in_three_ways() {
    for (filter, feature) in [
        ("devices/dev1/modules/mod1/inputs/#", Feature::ModuleInputs),
        ("devices/dev1/modules/mod1/#", Feature::ModuleInputs),
        ("devices/dev1/modules/mod1/messages/devicebound/#", Feature::ModuleDeviceBound),
    ] {
        assert_eq!(hub_filter(MODULE, filter), Ok(feature));
    }
}

#[test]
fn request_ids_come_back_untouched() {
    // Python and Java: uuid; Node: uuid; C: decimal; .NET: a GUID with a suffix.
    for rid in ["7f9c24e8-3b12-4fef-91e0-56a2d5a8a3a1", "65535", "7F9C24E8-3b12-4fef-91e0-56a2d5a8a3a1_2%2f"] {
        let topic = format!("$iothub/twin/GET/?$rid={rid}");
        assert_eq!(hub_publish(DEVICE, &topic), Ok(HubPublish::TwinGet { rid, since: None }));
        let mut out = Vec::new();
        let answer = ToClient::TwinResponse { status: 200, rid, version: None };
        encode::publish(&mut out, &answer, b"{}", Delivery::AtMostOnce, false).unwrap();
        assert_eq!(out, publish(&format!("$iothub/twin/res/200/?$rid={rid}"), None, b"{}"));
    }
}

#[test]
fn dotnet_gets_its_puback_before_the_answer_and_answers_with_qos_1() {
    let bytes = [
        connect("reg-1", "0ne1/registrations/reg-1/api-version=2019-03-31&ClientVersion=x", Some("t"), true, 0),
        subscribe(1, &[("$dps/registrations/res/#", 1)]),
        publish("$dps/registrations/PUT/iotdps-register/?$rid=1", Some(2), b""),
    ]
    .concat();
    let mut session = accepted(&bytes, |_, _, _, _| {});
    let mut out = Vec::new();
    session
        .resume(0, |event| {
            match event {
                Event::Subscribe { packet_id, mut filters } => {
                    assert!(filters.all(|wanted| dps_filter(wanted.filter).is_ok()));
                    encode::sub_ack(&mut out, packet_id, &[SubAckCode::Granted(QoS::AtLeastOnce)]).unwrap();
                }
                Event::Publish { topic, ack: Some(id), .. } => {
                    let Ok(DpsPublish::Register { rid }) = dps_publish(topic) else { panic!("{topic}") };
                    encode::pub_ack(&mut out, id);
                    let answer = ToClient::DpsResponse { status: 202, rid, retry_after: Some(3) };
                    let delivery = Delivery::AtLeastOnce { packet_id: PacketId::FIRST, dup: false };
                    encode::publish(&mut out, &answer, b"{}", delivery, false).unwrap();
                }
                event => panic!("{event:?}"),
            }
            Flow::Continue
        })
        .unwrap();
    let answer = publish("$dps/registrations/res/202/?$rid=1&retry-after=3", Some(1), b"{}");
    assert_eq!(out, [&[0x90, 3, 0, 1, 1][..], &[0x40, 2, 0, 2], &answer].concat());
    // Its acknowledgement of our packet.
    let mut acknowledged = None;
    let take = |event: Event<'_>| {
        if let Event::PubAck(id) = event {
            acknowledged = Some(id.get());
        }
        Flow::Continue
    };
    session.receive(&[0x40, 2, 0, 1], 0, take).unwrap();
    assert_eq!(acknowledged, Some(1));
}

#[test]
fn old_and_new_protocol_versions_get_the_answer_of_their_version() {
    let mqtt_5 = packet(0x10, &[&b"\0\x04MQTT\x05\x02\0\x3c\0"[..], &text("dev1")].concat());
    let mqtt_31 = packet(0x10, &[&b"\0\x06MQIsdp\x03\x02\0\x3c"[..], &text("dev1")].concat());
    for (bytes, farewell) in [(mqtt_5, &[0x20, 3, 0, 0x84, 0][..]), (mqtt_31, &[0x20, 2, 0, 1])] {
        let mut session = ServerSession::new(SessionLimits::default(), 0);
        let violation = session.receive(&bytes, 0, |event| panic!("{event:?}")).unwrap_err();
        assert_eq!(violation.farewell(), farewell);
    }
}
