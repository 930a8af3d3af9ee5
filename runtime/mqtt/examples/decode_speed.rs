//! How long the codec and the session need for a PUBLISH of 256 bytes with a topic as the SDKs write it: the best of many
//! rounds, since other programs can only slow a round down.
//!
//! `cargo run --release -p nave-mqtt --example decode_speed`

#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::error::Error;
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
const CLIENT: Client<'_> = Client::device("device-0001");
const PACKET_SIZE: usize = 256;
/// One read of the transport.
const READ_SIZE: usize = 64 * 1024;
const ROUNDS: usize = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut one = Vec::new();
    let delivery = Delivery::AtLeastOnce { packet_id: PacketId::FIRST, dup: false };
    let payload = vec![b'x'; PACKET_SIZE - 3 - 2 - TOPIC.len() - 2];
    encode::publish(&mut one, TOPIC, &payload, delivery, false)?;
    assert_eq!(one.len(), PACKET_SIZE);
    let read = one.repeat(READ_SIZE / PACKET_SIZE);

    let mut session = ServerSession::new(SessionLimits::default(), 0);
    let mut out = Vec::new();
    let login = Connect { client_id: CLIENT.device, clean_session: true, keep_alive: 60, will: None, login: None };
    encode::connect(&mut out, &login)?;
    session.receive(&out, 0, |_| Flow::Continue)?;
    session.accept(false, 0, &mut out);
    session.resume(0, |_| Flow::Continue)?;

    measure("decode", || {
        let mut rest = black_box(&read[..]);
        while let Decoded::Packet { packet, consumed } = decode(rest, PACKET_SIZE)? {
            black_box(&packet);
            rest = &rest[consumed..];
        }
        Ok(())
    })?;
    let ignore = |event: Event<'_>| {
        black_box(&event);
        Flow::Continue
    };
    measure("session", || Ok(session.receive(black_box(&read), 0, ignore)?))?;
    measure("session, cut within a packet", || {
        let (first, second) = black_box(&read[..]).split_at(READ_SIZE / 2 + 100);
        session.receive(first, 0, ignore)?;
        Ok(session.receive(second, 0, ignore)?)
    })?;
    measure("session, topic", || {
        Ok(session.receive(black_box(&read), 0, |event| {
            if let Event::Publish { topic, .. } = event {
                black_box(hub_publish(CLIENT, topic)).ok();
            }
            Flow::Continue
        })?)
    })?;
    measure("session, topic, bag of four, PUBACK", || {
        out.clear();
        session.receive(black_box(&read), 0, |event| {
            if let Event::Publish { topic, ack: Some(id), .. } = event
                && let Ok(HubPublish::Telemetry { bag }) = hub_publish(CLIENT, topic)
            {
                black_box(Bag::decode(bag)).ok();
                encode::pub_ack(&mut out, id);
            }
            Flow::Continue
        })?;
        black_box(&out);
        Ok(())
    })
}

/// Runs `round`, which handles one read, many times and prints the best.
fn measure(what: &str, mut round: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    println!("{what:<40} {:7.1} ns a packet", best / (READ_SIZE / PACKET_SIZE) as f64);
    Ok(())
}
