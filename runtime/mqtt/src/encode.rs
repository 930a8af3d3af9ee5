//! Packets to bytes, appended to a buffer of the caller.

use std::fmt::{self, Display, Write as _};

use crate::decode::{MAX_REMAINING_LENGTH, check_topic_name};
use crate::packet::{
    ConnAck, Connect, Delivery, MAX_FILTERS_PER_PACKET, PacketId, PacketKind, Publish, SubAckCode, Subscription,
};

/// Why something cannot be written as a packet. The fault is the caller's, except where the caller only passes on a text
/// that it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A text or a binary field has more than 65,535 bytes (MQTT §1.5.3).
    #[error("a field of {0} is longer than 65535 bytes")]
    FieldTooLong(PacketKind),
    /// The packet is larger than a packet can be (MQTT §2.2.3).
    #[error("{0} is longer than a packet can be")]
    PacketTooLong(PacketKind),
    /// A topic is empty or contains a wildcard, or a text contains U+0000.
    #[error("{0} contains a text that MQTT does not allow")]
    InvalidText(PacketKind),
    /// There must be 1 to [`MAX_FILTERS_PER_PACKET`] filters.
    #[error("{0} has no topic filter, or more than {MAX_FILTERS_PER_PACKET}")]
    FilterCount(PacketKind),
}

/// Appends a CONNECT.
///
/// # Errors
///
/// [`EncodeError`]; `out` is as before then.
pub fn connect(out: &mut Vec<u8>, packet: &Connect<'_>) -> Result<(), EncodeError> {
    const KIND: PacketKind = PacketKind::Connect;
    let mut flags = u8::from(packet.clean_session) << 1;
    if let Some(will) = &packet.will {
        flags |= 0x04 | will.qos.bits() << 3 | u8::from(will.retain) << 5;
        check_topic_name(will.topic).map_err(|_| EncodeError::InvalidText(KIND))?;
    }
    if let Some(login) = &packet.login {
        flags |= 0x80 | u8::from(login.password.is_some()) << 6;
    }
    sized(out, KIND, |out| {
        out.extend_from_slice(b"\0\x04MQTT\x04");
        out.push(flags);
        out.extend_from_slice(&packet.keep_alive.to_be_bytes());
        text(out, KIND, packet.client_id)?;
        if let Some(will) = &packet.will {
            text(out, KIND, will.topic)?;
            binary(out, KIND, will.payload)?;
        }
        if let Some(login) = &packet.login {
            text(out, KIND, login.username)?;
            if let Some(password) = login.password {
                binary(out, KIND, password)?;
            }
        }
        Ok(())
    })
}

/// Appends a CONNACK.
pub fn conn_ack(out: &mut Vec<u8>, packet: ConnAck) {
    let (flags, code) = match packet {
        ConnAck::Accepted { session_present } => (u8::from(session_present), 0),
        ConnAck::Refused(refusal) => (0, refusal.code()),
    };
    out.extend_from_slice(&[0x20, 2, flags, code]);
}

/// Appends a PUBLISH. The topic is anything that can be displayed: a text, or one of the topics of [`crate::topic`],
/// which are written without an allocation in between.
///
/// # Errors
///
/// [`EncodeError`]; `out` is as before then.
pub fn publish<T: Display + ?Sized>(
    out: &mut Vec<u8>,
    topic: &T,
    payload: &[u8],
    delivery: Delivery,
    retain: bool,
) -> Result<(), EncodeError> {
    let start = out.len();
    let result = publish_from(out, start, topic, payload, delivery, retain);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends a PUBLISH as it was decoded, or could have been.
///
/// # Errors
///
/// [`EncodeError`]; `out` is as before then.
pub fn publish_packet(out: &mut Vec<u8>, packet: &Publish<'_>) -> Result<(), EncodeError> {
    publish(out, packet.topic, packet.payload, packet.delivery, packet.retain)
}

/// Appends a PUBACK.
pub fn pub_ack(out: &mut Vec<u8>, packet_id: PacketId) {
    acknowledgement(out, 0x40, packet_id);
}

/// Appends a PUBACK for each identifier, in order.
pub fn pub_acks(out: &mut Vec<u8>, packet_ids: impl IntoIterator<Item = PacketId>) {
    let packet_ids = packet_ids.into_iter();
    out.reserve(packet_ids.size_hint().0 * 4);
    packet_ids.for_each(|packet_id| pub_ack(out, packet_id));
}

/// Appends a PUBREC. No Azure peer answers it.
pub fn pub_rec(out: &mut Vec<u8>, packet_id: PacketId) {
    acknowledgement(out, 0x50, packet_id);
}

/// Appends a PUBREL. No Azure peer answers it.
pub fn pub_rel(out: &mut Vec<u8>, packet_id: PacketId) {
    acknowledgement(out, 0x62, packet_id);
}

/// Appends a PUBCOMP.
pub fn pub_comp(out: &mut Vec<u8>, packet_id: PacketId) {
    acknowledgement(out, 0x70, packet_id);
}

/// Appends a SUBSCRIBE.
///
/// # Errors
///
/// [`EncodeError`]; `out` is as before then.
pub fn subscribe(out: &mut Vec<u8>, packet_id: PacketId, filters: &[Subscription<'_>]) -> Result<(), EncodeError> {
    const KIND: PacketKind = PacketKind::Subscribe;
    check_count(KIND, filters.len())?;
    sized(out, KIND, |out| {
        out.extend_from_slice(&packet_id.get().to_be_bytes());
        filters.iter().try_for_each(|subscription| {
            filter(out, KIND, subscription.filter)?;
            out.push(subscription.qos.bits());
            Ok(())
        })
    })
}

/// Appends a SUBACK.
///
/// # Errors
///
/// [`EncodeError::FilterCount`], if there is no code or more than a SUBSCRIBE can have filters; `out` is as before then.
pub fn sub_ack(out: &mut Vec<u8>, packet_id: PacketId, codes: &[SubAckCode]) -> Result<(), EncodeError> {
    const KIND: PacketKind = PacketKind::SubAck;
    check_count(KIND, codes.len())?;
    sized(out, KIND, |out| {
        out.extend_from_slice(&packet_id.get().to_be_bytes());
        out.extend(codes.iter().map(|code| code.code()));
        Ok(())
    })
}

/// Appends an UNSUBSCRIBE.
///
/// # Errors
///
/// [`EncodeError`]; `out` is as before then.
pub fn unsubscribe(out: &mut Vec<u8>, packet_id: PacketId, filters: &[&str]) -> Result<(), EncodeError> {
    const KIND: PacketKind = PacketKind::Unsubscribe;
    check_count(KIND, filters.len())?;
    sized(out, KIND, |out| {
        out.extend_from_slice(&packet_id.get().to_be_bytes());
        filters.iter().try_for_each(|text| filter(out, KIND, text))
    })
}

/// Appends an UNSUBACK.
pub fn unsub_ack(out: &mut Vec<u8>, packet_id: PacketId) {
    acknowledgement(out, 0xb0, packet_id);
}

/// Appends a PINGREQ.
pub fn ping_req(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends a PINGRESP.
pub fn ping_resp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends a DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

fn acknowledgement(out: &mut Vec<u8>, first: u8, packet_id: PacketId) {
    let [high, low] = packet_id.get().to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// Room that is left for the fixed header until the length is known.
const HEADER_ROOM: usize = 5;

fn publish_from<T: Display + ?Sized>(
    out: &mut Vec<u8>,
    start: usize,
    topic: &T,
    payload: &[u8],
    delivery: Delivery,
    retain: bool,
) -> Result<(), EncodeError> {
    const KIND: PacketKind = PacketKind::Publish;
    out.extend_from_slice(&[0; HEADER_ROOM + 2]);
    let topic_start = out.len();
    write!(Text(out), "{topic}").map_err(|_| EncodeError::InvalidText(KIND))?;
    let topic = out.get(topic_start..).unwrap_or_default();
    let length = u16::try_from(topic.len()).map_err(|_| EncodeError::FieldTooLong(KIND))?;
    match std::str::from_utf8(topic).map(check_topic_name) {
        Ok(Ok(())) => {}
        _ => return Err(EncodeError::InvalidText(KIND)),
    }
    if let Some(field) = out.get_mut(topic_start - 2..topic_start) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    if let Some(packet_id) = delivery.packet_id() {
        out.extend_from_slice(&packet_id.get().to_be_bytes());
    }
    let flags = u8::from(delivery.dup()) << 3 | delivery.qos().bits() << 1 | u8::from(retain);
    close_header(out, start, KIND, flags, payload.len())?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Writes a packet whose body `write` appends.
fn sized(
    out: &mut Vec<u8>,
    kind: PacketKind,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_ROOM]);
    let flags = kind.fixed_flags().unwrap_or(0);
    let result = write(out).and_then(|()| close_header(out, start, kind, flags, 0));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Puts the fixed header in front of the body that begins [`HEADER_ROOM`] after `start`; `more` bytes will follow.
fn close_header(out: &mut Vec<u8>, start: usize, kind: PacketKind, flags: u8, more: usize) -> Result<(), EncodeError> {
    let body = start + HEADER_ROOM;
    let mut length = (out.len() - body).saturating_add(more);
    if length > MAX_REMAINING_LENGTH {
        return Err(EncodeError::PacketTooLong(kind));
    }
    let mut header = [0; HEADER_ROOM];
    let mut used = 0;
    for (index, byte) in header.iter_mut().enumerate() {
        used = index + 1;
        if index == 0 {
            *byte = (kind as u8) << 4 | flags;
            continue;
        }
        // Seven bits: no loss.
        *byte = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            break;
        }
        *byte |= 0x80;
    }
    // The body moves by at most three bytes, the payload of a PUBLISH is not there yet.
    out.copy_within(body.., start + used);
    out.truncate(out.len() - (HEADER_ROOM - used));
    for (to, from) in out.iter_mut().skip(start).zip(header.iter().take(used)) {
        *to = *from;
    }
    Ok(())
}

fn check_count(kind: PacketKind, count: usize) -> Result<(), EncodeError> {
    if (1..=MAX_FILTERS_PER_PACKET).contains(&count) { Ok(()) } else { Err(EncodeError::FilterCount(kind)) }
}

fn filter(out: &mut Vec<u8>, kind: PacketKind, filter: &str) -> Result<(), EncodeError> {
    if filter.is_empty() {
        return Err(EncodeError::InvalidText(kind));
    }
    text(out, kind, filter)
}

fn text(out: &mut Vec<u8>, kind: PacketKind, text: &str) -> Result<(), EncodeError> {
    if text.contains('\0') {
        return Err(EncodeError::InvalidText(kind));
    }
    binary(out, kind, text.as_bytes())
}

fn binary(out: &mut Vec<u8>, kind: PacketKind, bytes: &[u8]) -> Result<(), EncodeError> {
    let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong(kind))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends text to bytes; U+0000 is an error.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.contains('\0') {
            return Err(fmt::Error);
        }
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{QoS, Will};
    use crate::topic::ToClient;

    const ID: PacketId = PacketId::FIRST;

    #[test]
    fn bytes_are_those_of_the_standard() {
        let mut out = b"before".to_vec();
        conn_ack(&mut out, ConnAck::Accepted { session_present: true });
        pub_acks(&mut out, [ID, PacketId::new(0x7fff).unwrap()]);
        sub_ack(&mut out, ID, &[SubAckCode::Granted(QoS::AtLeastOnce), SubAckCode::Refused]).unwrap();
        unsub_ack(&mut out, ID);
        ping_resp(&mut out);
        let topic = ToClient::TwinResponse { status: 204, rid: "r", version: Some(5) };
        publish(&mut out, &topic, b"{}", Delivery::AtMostOnce, false).unwrap();
        publish(&mut out, "t", b"", Delivery::AtLeastOnce { packet_id: ID, dup: true }, true).unwrap();
        let expected = [
            &b"before"[..],
            b"\x20\x02\x01\x00",
            b"\x40\x02\x00\x01\x40\x02\x7f\xff",
            b"\x90\x04\x00\x01\x01\x80",
            b"\xb0\x02\x00\x01",
            b"\xd0\x00",
            b"\x30\x2b\x00\x27$iothub/twin/res/204/?$rid=r&$version=5{}",
            b"\x3b\x05\x00\x01t\x00\x01",
        ];
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected.concat()));
    }

    #[test]
    fn every_length_of_the_header_is_written_in_place() {
        for size in [0, 124, 125, 16_380, 16_381, 2_097_148, 2_097_149] {
            let mut out = vec![7];
            let payload = vec![b'x'; size];
            publish(&mut out, "t", &payload, Delivery::AtMostOnce, false).unwrap();
            let decoded = crate::decode::decode(&out[1..], usize::MAX).unwrap();
            let crate::decode::Decoded::Packet { packet: crate::packet::Packet::Publish(read), consumed } = decoded
            else {
                panic!("{decoded:?}");
            };
            assert_eq!((read.topic, read.payload == payload, consumed), ("t", true, out.len() - 1), "{size}");
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_no_trace() {
        let mut out = b"x".to_vec();
        let long = "a".repeat(65_536);
        let at_most_once = Delivery::AtMostOnce;
        let mut failed =
            |topic: &str| publish(&mut out, topic, b"p", at_most_once, false).expect_err("must be refused");
        assert_eq!(failed(&long), EncodeError::FieldTooLong(PacketKind::Publish));
        for topic in ["", "a/#", "+", "a\0b"] {
            assert_eq!(failed(topic), EncodeError::InvalidText(PacketKind::Publish));
        }
        let filter = Subscription { filter: "", qos: QoS::AtMostOnce };
        assert!(subscribe(&mut out, ID, &[filter]).is_err());
        assert!(subscribe(&mut out, ID, &[]).is_err());
        assert!(sub_ack(&mut out, ID, &[]).is_err());
        assert!(unsubscribe(&mut out, ID, &["a"; MAX_FILTERS_PER_PACKET + 1]).is_err());
        let will = Will { topic: "#", payload: b"", qos: QoS::AtMostOnce, retain: false };
        let mut packet = Connect { client_id: "c", clean_session: true, keep_alive: 0, will: Some(will), login: None };
        assert_eq!(connect(&mut out, &packet), Err(EncodeError::InvalidText(PacketKind::Connect)));
        packet.will = None;
        packet.client_id = &long;
        assert_eq!(connect(&mut out, &packet), Err(EncodeError::FieldTooLong(PacketKind::Connect)));
        assert_eq!(out, b"x");
    }
}
