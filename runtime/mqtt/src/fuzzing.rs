//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

#![expect(clippy::unwrap_used, reason = "a panic is how a fuzz target reports")]

use crate::bag::Bag;
use crate::connect::{DpsUsername, HubUsername};
use crate::decode::{Decoded, decode};
use crate::encode;
use crate::packet::{Packet, Subscription};
use crate::session::{Event, Flow, ServerSession, SessionLimits, Violation};
use crate::topic::{Client, dps_filter, dps_publish, hub_filter, hub_publish, parse_from_server};

/// Decoding stays within the bytes, is stable under what follows, and what is decoded is encoded to the same packet.
pub fn fuzz_decode(data: &[u8]) {
    let limit = 4096;
    match decode(data, limit) {
        Err(_) => {}
        Ok(Decoded::Incomplete { needed }) => assert!(needed > data.len() && needed <= limit),
        Ok(Decoded::Packet { packet, consumed }) => {
            assert!((2..=data.len().min(limit)).contains(&consumed));
            let alone = decode(data.get(..consumed).unwrap(), limit).unwrap();
            assert_eq!(alone, Decoded::Packet { packet, consumed }, "what follows does not matter");
            for shorter in 0..consumed {
                let part = decode(data.get(..shorter).unwrap(), limit).unwrap();
                assert!(matches!(part, Decoded::Incomplete { needed } if (shorter + 1..=consumed).contains(&needed)));
            }
            let bytes = encode(&packet);
            // Equal but for a length that was not written in the shortest form.
            let again = Decoded::Packet { packet, consumed: bytes.len() };
            assert_eq!(decode(&bytes, limit).unwrap(), again);
        }
    }
}

/// A session gives the same events however the bytes are cut, and whether or not it is paused after each event. The
/// first byte chooses where to cut.
pub fn fuzz_session(data: &[u8]) {
    let Some((seed, bytes)) = data.split_first() else { return };
    let whole = trace([bytes], false);
    let size = usize::from(seed % 32) + 1;
    assert_eq!(trace(bytes.chunks(size), false), whole, "in pieces of {size}");
    assert_eq!(trace(bytes.chunks(size), true), whole, "in pieces of {size}, paused after each packet");
    assert_eq!(trace([bytes], true), whole, "paused after each packet");
}

/// Nothing that reads text panics.
pub fn fuzz_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(bag) = Bag::decode(text) {
        assert!(bag.application.iter().all(|property| !property.name.is_empty()));
    }
    let _ = (HubUsername::parse(text), DpsUsername::parse(text));
    for client in [Client::device("d"), Client::module("d", "m")] {
        let _ = (hub_publish(client, text), hub_filter(client, text));
    }
    let _ = (dps_publish(text), dps_filter(text), parse_from_server(text));
}

/// The bytes of any packet that was decoded.
pub(crate) fn encode(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match packet {
        Packet::Connect(connect) => encode::connect(&mut out, connect).unwrap(),
        Packet::ConnAck(conn_ack) => encode::conn_ack(&mut out, *conn_ack),
        Packet::Publish(publish) => encode::publish_packet(&mut out, publish).unwrap(),
        Packet::PubAck(id) => encode::pub_ack(&mut out, *id),
        Packet::PubRec(id) => encode::pub_rec(&mut out, *id),
        Packet::PubRel(id) => encode::pub_rel(&mut out, *id),
        Packet::PubComp(id) => encode::pub_comp(&mut out, *id),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<Subscription<'_>> = subscribe.filters.collect();
            encode::subscribe(&mut out, subscribe.packet_id, &filters).unwrap();
        }
        Packet::SubAck(sub_ack) => {
            let codes: Vec<_> = sub_ack.codes().collect();
            encode::sub_ack(&mut out, sub_ack.packet_id, &codes).unwrap();
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<&str> = unsubscribe.filters.collect();
            encode::unsubscribe(&mut out, unsubscribe.packet_id, &filters).unwrap();
        }
        Packet::UnsubAck(id) => encode::unsub_ack(&mut out, *id),
        Packet::PingReq => encode::ping_req(&mut out),
        Packet::PingResp => encode::ping_resp(&mut out),
        Packet::Disconnect => encode::disconnect(&mut out),
    }
    out
}

/// What a session makes of `pieces`: its events, its output and the violation, if any. CONNECT is accepted.
pub(crate) fn trace<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    pausing: bool,
) -> (Vec<String>, Vec<u8>, Option<Violation>) {
    let mut session = ServerSession::new(SessionLimits::default(), 0);
    let mut events = Vec::new();
    let mut out = Vec::new();
    for piece in pieces {
        let mut result = session.receive(piece, 0, |event| record(&mut events, event, pausing));
        while result.is_ok() {
            if session.is_connecting() {
                session.accept(false, 0, &mut out);
            }
            let before = events.len();
            result = session.resume(0, |event| record(&mut events, event, pausing));
            if events.len() == before && !session.is_connecting() {
                break;
            }
        }
        session.write_pongs(&mut out);
        if let Err(violation) = result {
            assert!(session.is_closed() && !session.wants_input() && session.deadline().is_none());
            return (events, out, Some(violation));
        }
    }
    (events, out, None)
}

fn record(events: &mut Vec<String>, event: Event<'_>, pausing: bool) -> Flow {
    events.push(format!("{event:?}"));
    if pausing { Flow::Pause } else { Flow::Continue }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::decode::DecodeError;
    use crate::packet::{ConnAck, Connect, ConnectRefusal, Delivery, Login, PacketId, Publish, QoS, SubAckCode, Will};

    fn qos() -> impl Strategy<Value = QoS> {
        (0..3u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
    }

    fn id() -> impl Strategy<Value = PacketId> {
        (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
    }

    fn text() -> impl Strategy<Value = String> {
        "[^\0]{0,40}"
    }

    fn topic() -> impl Strategy<Value = String> {
        "[^\0+#]{1,60}|[a-z/$?=&%.]{1,200}"
    }

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..max)
    }

    /// One packet as bytes, of any type, and its text.
    fn packet() -> impl Strategy<Value = (Vec<u8>, String)> {
        let encoded = |packet: Packet<'_>| (encode(&packet), format!("{packet:?}"));
        let will = (topic(), bytes(300), qos(), any::<bool>());
        let login = (text(), proptest::option::of(bytes(200)));
        let options = (proptest::option::of(will), proptest::option::of(login));
        prop_oneof![
            (text(), any::<bool>(), any::<u16>(), options).prop_map(move |(client_id, clean, alive, (will, login))| {
                encoded(Packet::Connect(Connect {
                    client_id: &client_id,
                    clean_session: clean,
                    keep_alive: alive,
                    will: will.as_ref().map(|(topic, payload, qos, retain)| Will {
                        topic,
                        payload,
                        qos: *qos,
                        retain: *retain,
                    }),
                    login: login.as_ref().map(|(username, password)| Login { username, password: password.as_deref() }),
                }))
            }),
            any::<bool>()
                .prop_map(move |session_present| encoded(Packet::ConnAck(ConnAck::Accepted { session_present }))),
            (1..=5u8).prop_map(move |code| {
                encoded(Packet::ConnAck(ConnAck::Refused(ConnectRefusal::from_code(code).unwrap())))
            }),
            publish().prop_map(move |(bytes, text)| (bytes, text)),
            (id(), 0..5usize).prop_map(move |(id, which)| {
                let kinds = [
                    Packet::PubAck(id),
                    Packet::PubRec(id),
                    Packet::PubRel(id),
                    Packet::PubComp(id),
                    Packet::UnsubAck(id),
                ];
                encoded(kinds[which])
            }),
            (0..3usize).prop_map(move |which| encoded([Packet::PingReq, Packet::PingResp, Packet::Disconnect][which])),
            (id(), vec(("[^\0]{1,30}", qos()), 1..6)).prop_map(|(id, filters)| {
                let filters: Vec<_> = filters.iter().map(|(filter, qos)| Subscription { filter, qos: *qos }).collect();
                let mut out = Vec::new();
                encode::subscribe(&mut out, id, &filters).unwrap();
                (out, format!("{filters:?}"))
            }),
            (id(), vec("[^\0]{1,30}", 1..6)).prop_map(|(id, filters)| {
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                let mut out = Vec::new();
                encode::unsubscribe(&mut out, id, &filters).unwrap();
                (out, format!("{filters:?}"))
            }),
            (id(), vec(proptest::option::of(qos()), 1..6)).prop_map(|(id, codes)| {
                let codes: Vec<_> =
                    codes.iter().map(|code| code.map_or(SubAckCode::Refused, SubAckCode::Granted)).collect();
                let mut out = Vec::new();
                encode::sub_ack(&mut out, id, &codes).unwrap();
                (out, format!("{codes:?}"))
            }),
        ]
    }

    fn publish() -> impl Strategy<Value = (Vec<u8>, String)> {
        (topic(), bytes(400), qos(), id(), any::<[bool; 2]>()).prop_map(
            |(topic, payload, qos, packet_id, [dup, retain])| {
                let delivery = match qos {
                    QoS::AtMostOnce => Delivery::AtMostOnce,
                    QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
                    QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
                };
                let packet = Packet::Publish(Publish { topic: &topic, payload: &payload, delivery, retain });
                (encode(&packet), format!("{packet:?}"))
            },
        )
    }

    fn describe(packet: &Packet<'_>) -> String {
        match packet {
            Packet::Subscribe(packet) => format!("{:?}", packet.filters.collect::<Vec<_>>()),
            Packet::Unsubscribe(packet) => format!("{:?}", packet.filters.collect::<Vec<_>>()),
            Packet::SubAck(packet) => format!("{:?}", packet.codes().collect::<Vec<_>>()),
            packet => format!("{packet:?}"),
        }
    }

    fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            9 => "[a-z]{1,8}".prop_map(|client_id| {
                encode(&Packet::Connect(Connect {
                    client_id: &client_id,
                    clean_session: true,
                    keep_alive: 60,
                    will: None,
                    login: None,
                }))
            }),
            1 => bytes(4),
        ];
        let then = prop_oneof![
            5 => publish().prop_map(|(bytes, _)| bytes),
            5 => packet().prop_map(|(bytes, _)| bytes),
            1 => bytes(4),
        ];
        (first, vec(then, 0..12)).prop_map(|(first, then)| [first, then.concat()].concat())
    }

    proptest! {
        #[test]
        fn every_packet_is_read_as_it_was_written((bytes, text) in packet(), tail in bytes(4)) {
            let mut data = bytes.clone();
            data.extend_from_slice(&tail);
            let Ok(Decoded::Packet { packet, consumed }) = decode(&data, usize::MAX) else {
                return Err(TestCaseError::fail("not decoded"));
            };
            prop_assert_eq!(consumed, bytes.len());
            prop_assert_eq!(describe(&packet), text);
            prop_assert_eq!(&encode(&packet), &bytes);
            // The bound is of the whole packet, and it is checked before the packet is there.
            prop_assert!(decode(&bytes, bytes.len()).is_ok());
            let header = if bytes.len() < 130 { 2 } else { 3 };
            let early = decode(&data[..header], bytes.len() - 1);
            let too_large = matches!(early, Err(DecodeError::TooLarge { size, .. }) if size == bytes.len());
            prop_assert!(too_large, "{early:?}");
        }

        #[test]
        fn any_bytes_are_decoded_safely(data in bytes(64)) {
            fuzz_decode(&data);
        }

        #[test]
        fn damaged_packets_are_decoded_safely((mut data, _) in packet(), at in any::<prop::sample::Index>(), byte: u8) {
            let at = at.index(data.len());
            data[at] = byte;
            fuzz_decode(&data);
        }

        #[test]
        fn cuts_and_pauses_change_nothing(bytes in client_bytes(), seed: u8) {
            fuzz_session(&[&[seed], &*bytes].concat());
        }

        #[test]
        fn any_text_is_read_safely(text in any::<String>()) {
            fuzz_text(text.as_bytes());
        }
    }

    #[test]
    fn corpora_and_mutations() {
        nave_tests::fuzz::exercise("mqtt_decode", fuzz_decode);
        nave_tests::fuzz::exercise("mqtt_session", fuzz_session);
        nave_tests::fuzz::exercise("mqtt_text", fuzz_text);
    }
}
