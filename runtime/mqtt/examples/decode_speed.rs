//! How long the codec and the session need for a PUBLISH of 256 bytes with a topic as the SDKs write it.
//!
//! `cargo run --release -p nave-mqtt --example decode_speed`

#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::hint::black_box;
use std::time::Instant;

use nave_mqtt::bag::Bag;
use nave_mqtt::decode::{Decoded, decode};
use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Delivery, PacketId};
use nave_mqtt::session::{Event, Flow, ServerSession, SessionLimits};
use nave_mqtt::topic::{Client, HubPublish, hub_publish};

const TOPIC: &str =
    "devices/device-0001/messages/events/%24.mid=4f1c9a2e&%24.ct=application%2Fjson&%24.ce=utf-8&color=red";
const PACKET_SIZE: usize = 256;
/// One read of the transport.
const READ_SIZE: usize = 64 * 1024;
const READS: usize = 4_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut one = Vec::new();
    let delivery = Delivery::AtLeastOnce { packet_id: PacketId::FIRST, dup: false };
    let payload = vec![b'x'; PACKET_SIZE - 3 - 2 - TOPIC.len() - 2];
    encode::publish(&mut one, TOPIC, &payload, delivery, false)?;
    assert_eq!(one.len(), PACKET_SIZE);
    let packets = READ_SIZE / one.len();
    let read = one.repeat(packets);
    let report = |what: &str, start: Instant| {
        let nanos = start.elapsed().as_nanos() as f64 / (READS * packets) as f64;
        println!("{what:<44} {nanos:7.1} ns a packet");
    };

    let start = Instant::now();
    for _ in 0..READS {
        let mut rest = black_box(&read[..]);
        while let Decoded::Packet { packet, consumed } = decode(rest, PACKET_SIZE)? {
            black_box(&packet);
            rest = &rest[consumed..];
        }
    }
    report("decode", start);

    let mut session = ServerSession::new(SessionLimits::default(), 0);
    let mut out = Vec::new();
    let login = Connect { client_id: "device-0001", clean_session: true, keep_alive: 60, will: None, login: None };
    encode::connect(&mut out, &login)?;
    session.receive(&out, 0, |_| Flow::Continue)?;
    session.accept(false, 0, &mut out);
    session.resume(0, |_| Flow::Continue)?;

    let start = Instant::now();
    for _ in 0..READS {
        session.receive(black_box(&read), 0, |event| {
            black_box(&event);
            Flow::Continue
        })?;
    }
    report("session", start);

    // A read that ends within a packet, as TLS records do.
    let start = Instant::now();
    for _ in 0..READS {
        let (first, second) = black_box(&read[..]).split_at(READ_SIZE / 2 + 100);
        for part in [first, second] {
            session.receive(part, 0, |event| {
                black_box(&event);
                Flow::Continue
            })?;
        }
    }
    report("session, cut within a packet", start);

    let start = Instant::now();
    for _ in 0..READS {
        session.receive(black_box(&read), 0, |event| {
            if let Event::Publish { topic, .. } = event {
                black_box(hub_publish(Client::device("device-0001"), topic)).ok();
            }
            Flow::Continue
        })?;
    }
    report("session, topic", start);

    let start = Instant::now();
    for _ in 0..READS {
        out.clear();
        session.receive(black_box(&read), 0, |event| {
            if let Event::Publish { topic, ack: Some(id), .. } = event
                && let Ok(HubPublish::Telemetry { bag }) = hub_publish(Client::device("device-0001"), topic)
            {
                black_box(Bag::decode(bag)).ok();
                encode::pub_ack(&mut out, id);
            }
            Flow::Continue
        })?;
        black_box(&out);
    }
    report("session, topic, bag of four, PUBACK", start);
    Ok(())
}
