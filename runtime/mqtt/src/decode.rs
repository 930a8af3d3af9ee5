//! Bytes to packets, strictly by MQTT 3.1.1. Nothing is copied: a packet borrows from the bytes.

use crate::packet::{
    ConnAck, Connect, ConnectRefusal, Delivery, Filters, Login, MAX_FILTERS_PER_PACKET, Packet, PacketId, PacketKind,
    Publish, QoS, SubAck, SubAckCode, Subscribe, Subscriptions, Unsubscribe, Will,
};
use crate::reader::{Reader, contains_any, text};

/// Longest fixed header: one byte of type and flags, four of remaining length (MQTT §2.2).
pub const MAX_FIXED_HEADER: usize = 5;

/// Largest remaining length that four bytes can state (MQTT §2.2.3).
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// What the bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole packet.
    Packet {
        /// The packet.
        packet: Packet<'a>,
        /// Its bytes, from the first one.
        consumed: usize,
    },
    /// The beginning of a packet.
    Incomplete {
        /// Bytes from the packet's first one without which it is certainly not complete; more than there are. Exact as
        /// soon as the fixed header is there.
        needed: usize,
    },
}

/// Which rule the bytes break. The fault is always the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say")]
pub enum DecodeError {
    /// MQTT §2.2.1.
    #[error("packet type {0} is reserved")]
    ReservedType(u8),
    /// MQTT §2.2.2.
    #[error("{kind} has the flags {flags:#06b}")]
    FixedHeaderFlags { kind: PacketKind, flags: u8 },
    /// MQTT §2.2.3.
    #[error("the remaining length of {0} has more than four bytes")]
    RemainingLength(PacketKind),
    /// More bytes than the receiver takes. Known from the fixed header, before the rest arrives.
    #[error("{kind} has {size} bytes, more than the {limit} that are accepted")]
    TooLarge { kind: PacketKind, size: usize, limit: usize },
    /// A field reaches beyond the packet's end.
    #[error("{0} is shorter than its fields")]
    Truncated(PacketKind),
    /// Bytes follow the last field.
    #[error("{0} is longer than its fields")]
    TrailingBytes(PacketKind),
    /// MQTT §1.5.3.
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// MQTT §1.5.3.
    #[error("text contains U+0000")]
    NulInText,
    /// MQTT §2.3.1.
    #[error("{0} has the packet identifier 0")]
    PacketIdZero(PacketKind),
    /// MQTT §4.7.3.
    #[error("a topic is empty")]
    EmptyTopic,
    /// MQTT §3.3.2.1.
    #[error("a topic name contains a wildcard")]
    WildcardInTopic,
    /// MQTT §3.3.1.2, §3.1.2.6, §3.8.3.
    #[error("{0} asks for QoS 3")]
    QoS(PacketKind),
    /// MQTT §3.3.1.1.
    #[error("PUBLISH with QoS 0 has the DUP flag")]
    DupWithoutQoS,
    /// MQTT §3.1.2.1.
    #[error("CONNECT is of another protocol than MQTT")]
    ProtocolName,
    /// MQTT §3.1.2.2: a protocol level other than 4. [`crate::session::Violation::farewell`] is the answer.
    #[error("CONNECT has protocol level {0}")]
    ProtocolLevel(u8),
    /// MQTT §3.1.2.3 to §3.1.2.9: the reserved flag, or flags that contradict each other.
    #[error("CONNECT has the flags {0:#010b}")]
    ConnectFlags(u8),
    /// MQTT §3.8.3, §3.10.3.
    #[error("{0} has no topic filter")]
    NoFilter(PacketKind),
    /// [`MAX_FILTERS_PER_PACKET`].
    #[error("{0} has more than {MAX_FILTERS_PER_PACKET} topic filters, or answers more")]
    TooManyFilters(PacketKind),
    /// MQTT §3.8.3.
    #[error("SUBSCRIBE has the options {0:#010b}")]
    SubscribeOptions(u8),
    /// MQTT §3.2.2.
    #[error("CONNACK has the flags {flags} and the code {code}")]
    ConnAck { flags: u8, code: u8 },
    /// MQTT §3.9.3.
    #[error("SUBACK has the code {0}")]
    SubAckCode(u8),
}

/// Decodes the first packet in `bytes`, if all of it is there. A packet of more than `limit` bytes, header included, is
/// refused as soon as its fixed header says so.
///
/// # Errors
///
/// [`DecodeError`]; there is no way to find the next packet then.
pub fn decode(bytes: &[u8], limit: usize) -> Result<Decoded<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let Some(first) = reader.u8() else { return Ok(Decoded::Incomplete { needed: 2 }) };
    let (kind, flags) = kind(first)?;
    let mut length = 0;
    let mut shift = 0;
    loop {
        let Some(byte) = reader.u8() else { return Ok(Decoded::Incomplete { needed: bytes.len() + 1 }) };
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(DecodeError::RemainingLength(kind));
        }
    }
    let header = bytes.len() - reader.rest().len();
    let size = header + length;
    if size > limit {
        return Err(DecodeError::TooLarge { kind, size, limit });
    }
    let Some(body) = reader.take(length) else { return Ok(Decoded::Incomplete { needed: size }) };
    let packet = if let PacketKind::Publish = kind { publish(flags, body)? } else { other(kind, body)? };
    Ok(Decoded::Packet { packet, consumed: size })
}

fn kind(first: u8) -> Result<(PacketKind, u8), DecodeError> {
    let kind = PacketKind::from_bits(first >> 4).ok_or(DecodeError::ReservedType(first >> 4))?;
    let flags = first & 0x0f;
    match kind.fixed_flags() {
        Some(fixed) if fixed != flags => Err(DecodeError::FixedHeaderFlags { kind, flags }),
        None if flags & 0b0110 == 0b0110 => Err(DecodeError::QoS(kind)),
        None if flags & 0b1110 == 0b1000 => Err(DecodeError::DupWithoutQoS),
        _ => Ok((kind, flags)),
    }
}

fn publish(flags: u8, body: &[u8]) -> Result<Packet<'_>, DecodeError> {
    const KIND: PacketKind = PacketKind::Publish;
    let mut reader = Reader::new(body);
    let topic = topic_name(&mut reader, KIND)?;
    let dup = flags & 0b1000 != 0;
    let delivery = match QoS::from_bits(flags >> 1 & 0b11).ok_or(DecodeError::QoS(KIND))? {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id: packet_id(&mut reader, KIND)?, dup },
        QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id: packet_id(&mut reader, KIND)?, dup },
    };
    Ok(Packet::Publish(Publish { topic, payload: reader.rest(), delivery, retain: flags & 1 != 0 }))
}

fn other(kind: PacketKind, body: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let packet = match kind {
        PacketKind::Publish => return publish(0, body),
        PacketKind::Connect => Packet::Connect(connect(&mut reader)?),
        PacketKind::ConnAck => Packet::ConnAck(conn_ack(&mut reader)?),
        PacketKind::PubAck => Packet::PubAck(packet_id(&mut reader, kind)?),
        PacketKind::PubRec => Packet::PubRec(packet_id(&mut reader, kind)?),
        PacketKind::PubRel => Packet::PubRel(packet_id(&mut reader, kind)?),
        PacketKind::PubComp => Packet::PubComp(packet_id(&mut reader, kind)?),
        PacketKind::UnsubAck => Packet::UnsubAck(packet_id(&mut reader, kind)?),
        PacketKind::Subscribe => Packet::Subscribe(subscribe(&mut reader)?),
        PacketKind::SubAck => Packet::SubAck(sub_ack(&mut reader)?),
        PacketKind::Unsubscribe => Packet::Unsubscribe(unsubscribe(&mut reader)?),
        PacketKind::PingReq => Packet::PingReq,
        PacketKind::PingResp => Packet::PingResp,
        PacketKind::Disconnect => Packet::Disconnect,
    };
    if reader.is_empty() { Ok(packet) } else { Err(DecodeError::TrailingBytes(kind)) }
}

fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
    const KIND: PacketKind = PacketKind::Connect;
    const TRUNCATED: DecodeError = DecodeError::Truncated(KIND);
    let name = reader.binary().ok_or(TRUNCATED)?;
    let level = reader.u8().ok_or(TRUNCATED)?;
    match (name, level) {
        (b"MQTT", 4) => {}
        (b"MQTT" | b"MQIsdp", _) => return Err(DecodeError::ProtocolLevel(level)),
        _ => return Err(DecodeError::ProtocolName),
    }
    let flags = reader.u8().ok_or(TRUNCATED)?;
    let [has_username, has_password, will_retain, has_will] = [0x80, 0x40, 0x20, 0x04].map(|bit| flags & bit != 0);
    let will_qos = QoS::from_bits(flags >> 3 & 0b11).ok_or(DecodeError::QoS(KIND))?;
    let will_details = will_retain || will_qos != QoS::AtMostOnce;
    if flags & 1 != 0 || (will_details && !has_will) || (has_password && !has_username) {
        return Err(DecodeError::ConnectFlags(flags));
    }
    let keep_alive = reader.u16().ok_or(TRUNCATED)?;
    let client_id = reader.string().ok_or(TRUNCATED)??;
    let will = match has_will {
        false => None,
        true => {
            let topic = topic_name(reader, KIND)?;
            let payload = reader.binary().ok_or(TRUNCATED)?;
            Some(Will { topic, payload, qos: will_qos, retain: will_retain })
        }
    };
    let login = match has_username {
        false => None,
        true => {
            let username = reader.string().ok_or(TRUNCATED)??;
            let password = if has_password { Some(reader.binary().ok_or(TRUNCATED)?) } else { None };
            Some(Login { username, password })
        }
    };
    Ok(Connect { client_id, clean_session: flags & 0x02 != 0, keep_alive, will, login })
}

fn conn_ack(reader: &mut Reader<'_>) -> Result<ConnAck, DecodeError> {
    const TRUNCATED: DecodeError = DecodeError::Truncated(PacketKind::ConnAck);
    let flags = reader.u8().ok_or(TRUNCATED)?;
    let code = reader.u8().ok_or(TRUNCATED)?;
    match (flags, code, ConnectRefusal::from_code(code)) {
        (0 | 1, 0, _) => Ok(ConnAck::Accepted { session_present: flags == 1 }),
        (0, _, Some(refusal)) => Ok(ConnAck::Refused(refusal)),
        _ => Err(DecodeError::ConnAck { flags, code }),
    }
}

fn subscribe<'a>(reader: &mut Reader<'a>) -> Result<Subscribe<'a>, DecodeError> {
    const KIND: PacketKind = PacketKind::Subscribe;
    let packet_id = packet_id(reader, KIND)?;
    let raw = filters(reader, KIND, |reader| {
        let options = reader.u8().ok_or(DecodeError::Truncated(KIND))?;
        match options {
            0..=2 => Ok(()),
            3 => Err(DecodeError::QoS(KIND)),
            _ => Err(DecodeError::SubscribeOptions(options)),
        }
    })?;
    Ok(Subscribe { packet_id, filters: Subscriptions { raw } })
}

fn unsubscribe<'a>(reader: &mut Reader<'a>) -> Result<Unsubscribe<'a>, DecodeError> {
    const KIND: PacketKind = PacketKind::Unsubscribe;
    let packet_id = packet_id(reader, KIND)?;
    let raw = filters(reader, KIND, |_| Ok(()))?;
    Ok(Unsubscribe { packet_id, filters: Filters { raw } })
}

/// Checks the list of filters that fills the rest of the packet; `options` reads what follows each filter.
fn filters<'a>(
    reader: &mut Reader<'a>,
    kind: PacketKind,
    options: impl Fn(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    let raw = reader.rest();
    let mut count = 0;
    while !reader.is_empty() {
        if reader.string().ok_or(DecodeError::Truncated(kind))??.is_empty() {
            return Err(DecodeError::EmptyTopic);
        }
        options(reader)?;
        count += 1;
        if count > MAX_FILTERS_PER_PACKET {
            return Err(DecodeError::TooManyFilters(kind));
        }
    }
    if count == 0 { Err(DecodeError::NoFilter(kind)) } else { Ok(raw) }
}

fn sub_ack<'a>(reader: &mut Reader<'a>) -> Result<SubAck<'a>, DecodeError> {
    const KIND: PacketKind = PacketKind::SubAck;
    let packet_id = packet_id(reader, KIND)?;
    let codes = reader.rest();
    reader.take(codes.len());
    if codes.is_empty() {
        return Err(DecodeError::Truncated(KIND));
    }
    // There is one for each filter of a SUBSCRIBE.
    if codes.len() > MAX_FILTERS_PER_PACKET {
        return Err(DecodeError::TooManyFilters(KIND));
    }
    match codes.iter().find(|code| SubAckCode::from_code(**code).is_none()) {
        Some(code) => Err(DecodeError::SubAckCode(*code)),
        None => Ok(SubAck { packet_id, codes }),
    }
}

fn packet_id(reader: &mut Reader<'_>, kind: PacketKind) -> Result<PacketId, DecodeError> {
    let id = reader.u16().ok_or(DecodeError::Truncated(kind))?;
    PacketId::new(id).ok_or(DecodeError::PacketIdZero(kind))
}

fn topic_name<'a>(reader: &mut Reader<'a>, kind: PacketKind) -> Result<&'a str, DecodeError> {
    let bytes = reader.binary().ok_or(DecodeError::Truncated(kind))?;
    // Every message goes through here: one quick look, and the rules one by one only if it finds something.
    if bytes.is_empty() || contains_any(bytes, [0, b'#', b'+']) {
        check_topic_name(text(bytes)?)?;
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)
}

/// Whether a text that has no U+0000 may be the topic of a PUBLISH.
pub(crate) fn check_topic_name(topic: &str) -> Result<(), DecodeError> {
    if topic.is_empty() {
        return Err(DecodeError::EmptyTopic);
    }
    if topic.contains(['#', '+']) {
        return Err(DecodeError::WildcardInTopic);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_SIZE: usize = usize::MAX;

    fn error(bytes: &[u8]) -> DecodeError {
        decode(bytes, ANY_SIZE).expect_err("must be refused")
    }

    fn packet(bytes: &[u8]) -> Packet<'_> {
        match decode(bytes, ANY_SIZE) {
            Ok(Decoded::Packet { packet, consumed }) if consumed == bytes.len() => packet,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_byte_is_strict() {
        assert_eq!(error(&[0x00]), DecodeError::ReservedType(0));
        assert_eq!(error(&[0xf0]), DecodeError::ReservedType(15));
        for first in 0x10..0xf0_u8 {
            let kind = PacketKind::from_bits(first >> 4).unwrap();
            let flags = first & 0x0f;
            let allowed = match kind {
                PacketKind::Publish => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
                PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe => flags == 2,
                _ => flags == 0,
            };
            assert_eq!(decode(&[first], ANY_SIZE).is_ok(), allowed, "{first:#x}");
        }
    }

    #[test]
    fn the_remaining_length_has_at_most_four_bytes() {
        assert_eq!(decode(&[], ANY_SIZE), Ok(Decoded::Incomplete { needed: 2 }));
        assert_eq!(decode(&[0x30, 0xff], ANY_SIZE), Ok(Decoded::Incomplete { needed: 3 }));
        let longest = [0x30, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(decode(&longest, ANY_SIZE), Ok(Decoded::Incomplete { needed: MAX_REMAINING_LENGTH + 5 }));
        assert_eq!(error(&[0x30, 0xff, 0xff, 0xff, 0xff]), DecodeError::RemainingLength(PacketKind::Publish));
        // The examples of the standard, table 2.4.
        for (bytes, length) in [
            (&[0x7f][..], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0x7f], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xff, 0xff, 0x7f], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
        ] {
            let header = [&[0x30], bytes].concat();
            assert_eq!(decode(&header, ANY_SIZE), Ok(Decoded::Incomplete { needed: header.len() + length }));
        }
    }

    #[test]
    fn the_size_is_checked_before_the_body_arrives() {
        let kind = PacketKind::Publish;
        assert_eq!(decode(&[0x30, 0x64], 101), Err(DecodeError::TooLarge { kind, size: 102, limit: 101 }));
        assert_eq!(decode(&[0x30, 0x64], 102), Ok(Decoded::Incomplete { needed: 102 }));
    }

    #[test]
    fn publish_is_strict() {
        assert_eq!(
            packet(b"\x3b\x06\0\x01a\x12\x34!"),
            Packet::Publish(Publish {
                topic: "a",
                payload: b"!",
                delivery: Delivery::AtLeastOnce { packet_id: PacketId::new(0x1234).unwrap(), dup: true },
                retain: true,
            })
        );
        assert_eq!(error(b"\x30\x02\0\0"), DecodeError::EmptyTopic);
        assert_eq!(error(b"\x30\x05\0\x03a/#"), DecodeError::WildcardInTopic);
        assert_eq!(error(b"\x30\x05\0\x03+/a"), DecodeError::WildcardInTopic);
        assert_eq!(error(b"\x30\x04\0\x02a\0"), DecodeError::NulInText);
        assert_eq!(error(b"\x30\x03\0\x01\xff"), DecodeError::InvalidUtf8);
        assert_eq!(error(b"\x30\x05\0\x03\xed\xa0\x80"), DecodeError::InvalidUtf8, "a surrogate");
        assert_eq!(error(b"\x30\x03\0\x02a"), DecodeError::Truncated(PacketKind::Publish));
        assert_eq!(error(b"\x30\x00"), DecodeError::Truncated(PacketKind::Publish));
        assert_eq!(error(b"\x32\x03\0\x01a"), DecodeError::Truncated(PacketKind::Publish));
        assert_eq!(error(b"\x32\x05\0\x01a\0\0"), DecodeError::PacketIdZero(PacketKind::Publish));
    }

    fn connect_with(flags: u8, rest: &[u8]) -> Vec<u8> {
        let body = [b"\0\x04MQTT\x04", &[flags, 0, 60][..], rest].concat();
        [&[0x10, body.len() as u8], &*body].concat()
    }

    #[test]
    fn connect_is_strict() {
        let bytes = connect_with(0xee, b"\0\x01c\0\x01w\0\x02hi\0\x01u\0\x01\xff");
        assert_eq!(
            packet(&bytes),
            Packet::Connect(Connect {
                client_id: "c",
                clean_session: true,
                keep_alive: 60,
                will: Some(Will { topic: "w", payload: b"hi", qos: QoS::AtLeastOnce, retain: true }),
                login: Some(Login { username: "u", password: Some(b"\xff") }),
            })
        );
        assert!(matches!(packet(&connect_with(0, b"\0\0")), Packet::Connect(Connect { client_id: "", .. })));
        for flags in [0x01, 0x40, 0x20, 0x08, 0x10] {
            assert_eq!(error(&connect_with(flags, b"\0\0")), DecodeError::ConnectFlags(flags));
        }
        assert_eq!(error(&connect_with(0x1c, b"\0\0")), DecodeError::QoS(PacketKind::Connect));
        assert_eq!(error(&connect_with(0x80, b"\0\0")), DecodeError::Truncated(PacketKind::Connect));
        assert_eq!(error(&connect_with(0, b"\0\0x")), DecodeError::TrailingBytes(PacketKind::Connect));
        assert_eq!(error(&connect_with(0x04, b"\0\0\0\x01#\0\0")), DecodeError::WildcardInTopic);
        assert_eq!(error(b"\x10\x0c\0\x04MQTT\x03\x02\0\x3c\0\0"), DecodeError::ProtocolLevel(3));
        assert_eq!(error(b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\0"), DecodeError::ProtocolLevel(5));
        assert_eq!(error(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0"), DecodeError::ProtocolLevel(3));
        assert_eq!(error(b"\x10\x0c\0\x04mqtt\x04\x02\0\x3c\0\0"), DecodeError::ProtocolName);
    }

    #[test]
    fn lists_are_strict() {
        assert_eq!(error(b"\x82\x02\0\x01"), DecodeError::NoFilter(PacketKind::Subscribe));
        assert_eq!(error(b"\xa2\x02\0\x01"), DecodeError::NoFilter(PacketKind::Unsubscribe));
        assert_eq!(error(b"\x82\x06\0\x01\0\x01a\x03"), DecodeError::QoS(PacketKind::Subscribe));
        assert_eq!(error(b"\x82\x06\0\x01\0\x01a\x04"), DecodeError::SubscribeOptions(4));
        assert_eq!(error(b"\x82\x05\0\x01\0\0\0"), DecodeError::EmptyTopic);
        assert_eq!(error(b"\x82\x05\0\x01\0\x01a"), DecodeError::Truncated(PacketKind::Subscribe));
        assert_eq!(error(b"\x82\x06\0\0\0\x01a\0"), DecodeError::PacketIdZero(PacketKind::Subscribe));
        assert_eq!(error(b"\x90\x03\0\x01\x03"), DecodeError::SubAckCode(3));
        assert_eq!(error(b"\x90\x02\0\x01"), DecodeError::Truncated(PacketKind::SubAck));
        let codes = |count: usize| [&[0x90, 2 + count as u8, 0, 1][..], &vec![0; count]].concat();
        packet(&codes(MAX_FILTERS_PER_PACKET));
        assert_eq!(error(&codes(MAX_FILTERS_PER_PACKET + 1)), DecodeError::TooManyFilters(PacketKind::SubAck));
        let filters = |count: usize| [b"\0\x01", &b"\0\x01a".repeat(count)[..]].concat();
        let unsubscribe = |body: &[u8]| [&[0xa2, body.len() as u8 | 0x80, (body.len() >> 7) as u8], body].concat();
        packet(&unsubscribe(&filters(MAX_FILTERS_PER_PACKET)));
        assert_eq!(
            error(&unsubscribe(&filters(MAX_FILTERS_PER_PACKET + 1))),
            DecodeError::TooManyFilters(PacketKind::Unsubscribe)
        );
    }

    #[test]
    fn short_packets_are_strict() {
        assert_eq!(error(b"\x40\x02\0\0"), DecodeError::PacketIdZero(PacketKind::PubAck));
        assert_eq!(error(b"\x40\x01\0"), DecodeError::Truncated(PacketKind::PubAck));
        assert_eq!(error(b"\x40\x03\0\x01\0"), DecodeError::TrailingBytes(PacketKind::PubAck));
        assert_eq!(error(b"\xc0\x01\0"), DecodeError::TrailingBytes(PacketKind::PingReq));
        assert_eq!(error(b"\xe0\x01\0"), DecodeError::TrailingBytes(PacketKind::Disconnect));
        assert_eq!(error(b"\x20\x02\x01\x05"), DecodeError::ConnAck { flags: 1, code: 5 });
        assert_eq!(error(b"\x20\x02\x00\x06"), DecodeError::ConnAck { flags: 0, code: 6 });
        assert_eq!(error(b"\x20\x02\x02\x00"), DecodeError::ConnAck { flags: 2, code: 0 });
    }
}
