//! The packets of MQTT 3.1.1, borrowed from the bytes they were decoded from. A value of these types is valid by the
//! rules of the standard.

use std::fmt;
use std::num::NonZeroU16;

use crate::reader::Reader;

/// Most topic filters in one SUBSCRIBE or UNSUBSCRIBE; a packet with more is malformed to us. The SDKs send at most
/// five, and without a bound one packet could ask for a SUBACK of 80,000 codes.
pub const MAX_FILTERS_PER_PACKET: usize = 64;

/// A packet identifier: not zero (MQTT §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The smallest identifier.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// The identifier `id`, unless it is zero.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// As on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Quality of service (MQTT §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0: not acknowledged.
    AtMostOnce,
    /// 1: acknowledged by PUBACK.
    AtLeastOnce,
    /// 2: the four-way exchange, which the Azure protocols do not have.
    ExactlyOnce,
}

impl QoS {
    /// From the wire; 3 is reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// As on the wire.
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// The type of a packet, for messages (MQTT §2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum PacketKind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
}

impl PacketKind {
    /// From the upper half of a packet's first byte; 0 and 15 are reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            _ => return None,
        })
    }

    /// The flags that the lower half of the first byte must hold; none for PUBLISH, whose flags vary (MQTT §2.2.2).
    pub const fn fixed_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }

    /// The standard's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
        }
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck),
    Publish(Publish<'a>),
    PubAck(PacketId),
    PubRec(PacketId),
    PubRel(PacketId),
    PubComp(PacketId),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(PacketId),
    PingReq,
    PingResp,
    Disconnect,
}

impl Packet<'_> {
    /// The packet's type.
    pub const fn kind(&self) -> PacketKind {
        match self {
            Self::Connect(_) => PacketKind::Connect,
            Self::ConnAck(_) => PacketKind::ConnAck,
            Self::Publish(_) => PacketKind::Publish,
            Self::PubAck(_) => PacketKind::PubAck,
            Self::PubRec(_) => PacketKind::PubRec,
            Self::PubRel(_) => PacketKind::PubRel,
            Self::PubComp(_) => PacketKind::PubComp,
            Self::Subscribe(_) => PacketKind::Subscribe,
            Self::SubAck(_) => PacketKind::SubAck,
            Self::Unsubscribe(_) => PacketKind::Unsubscribe,
            Self::UnsubAck(_) => PacketKind::UnsubAck,
            Self::PingReq => PacketKind::PingReq,
            Self::PingResp => PacketKind::PingResp,
            Self::Disconnect => PacketKind::Disconnect,
        }
    }
}

/// CONNECT of protocol level 4 (MQTT §3.1). `Debug` shows neither the password nor the will's payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The client identifier; may be empty.
    pub client_id: &'a str,
    /// Whether the client wants no stored state.
    pub clean_session: bool,
    /// Seconds; 0 is "none".
    pub keep_alive: u16,
    /// What to publish when the connection ends without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User name and password.
    pub login: Option<Login<'a>>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("clean_session", &self.clean_session)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will)
            .field("login", &self.login)
            .finish()
    }
}

/// User name and password of CONNECT: there is no password without a user name (MQTT §3.1.2.9). `Debug` hides the
/// password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// User name.
    pub username: &'a str,
    /// Password: any bytes. A secret.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Login")
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "(hidden)"))
            .finish()
    }
}

/// The will of CONNECT (MQTT §3.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// A topic name.
    pub topic: &'a str,
    /// At most 65,535 bytes.
    pub payload: &'a [u8],
    /// As asked for.
    pub qos: QoS,
    /// As asked for.
    pub retain: bool,
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload", &format_args!("({} bytes)", self.payload.len()))
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}

/// CONNACK (MQTT §3.2). A refusal has no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnAck {
    /// Return code 0.
    Accepted {
        /// Whether the server has stored state of the client.
        session_present: bool,
    },
    /// Return codes 1 to 5.
    Refused(ConnectRefusal),
}

/// Why a CONNECT is refused: the return codes of MQTT §3.2.2.3. For what the SDKs make of each see the protocol notes,
/// MQTT §2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectRefusal {
    /// The protocol level is not supported.
    ProtocolVersion = 1,
    /// The client identifier is not allowed.
    Identifier = 2,
    /// The server cannot serve now; SDKs try again.
    ServerUnavailable = 3,
    /// User name or password malformed. The C SDK gives up for good; prefer [`Self::NotAuthorized`].
    BadCredentials = 4,
    /// Not authorised.
    NotAuthorized = 5,
}

impl ConnectRefusal {
    /// From the wire.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::ProtocolVersion,
            2 => Self::Identifier,
            3 => Self::ServerUnavailable,
            4 => Self::BadCredentials,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// As on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// How a PUBLISH is delivered. DUP and the packet identifier exist only above QoS 0 (MQTT §2.3.1, §3.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// To be acknowledged.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// To be acknowledged.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
}

impl Delivery {
    /// The quality of service.
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce { .. } => QoS::AtLeastOnce,
            Self::ExactlyOnce { .. } => QoS::ExactlyOnce,
        }
    }

    /// The packet identifier, above QoS 0.
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { packet_id, .. } | Self::ExactlyOnce { packet_id, .. } => Some(packet_id),
        }
    }

    /// Whether DUP is set.
    pub const fn dup(self) -> bool {
        match self {
            Self::AtMostOnce => false,
            Self::AtLeastOnce { dup, .. } | Self::ExactlyOnce { dup, .. } => dup,
        }
    }
}

/// PUBLISH (MQTT §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// A topic name: not empty, without wildcards.
    pub topic: &'a str,
    /// The application message.
    pub payload: &'a [u8],
    /// QoS, packet identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
}

/// SUBSCRIBE (MQTT §3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be repeated in SUBACK.
    pub packet_id: PacketId,
    /// What is subscribed to.
    pub filters: Subscriptions<'a>,
}

/// UNSUBSCRIBE (MQTT §3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be repeated in UNSUBACK.
    pub packet_id: PacketId,
    /// What is no longer subscribed to.
    pub filters: Filters<'a>,
}

/// A topic filter with the wanted quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The topic filter, not empty. Where its wildcards stand is not checked.
    pub filter: &'a str,
    /// The highest quality of service that the client wants.
    pub qos: QoS,
}

/// The filters of a SUBSCRIBE in order: 1 to [`MAX_FILTERS_PER_PACKET`]. Iterating consumes; the value is `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriptions<'a> {
    // Checked when decoded.
    pub(crate) raw: &'a [u8],
}

impl<'a> Iterator for Subscriptions<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Subscription<'a>> {
        let mut reader = Reader::new(self.raw);
        let filter = reader.string()?.ok()?;
        let qos = QoS::from_bits(reader.u8()?)?;
        self.raw = reader.rest();
        Some(Subscription { filter, qos })
    }
}

/// The filters of an UNSUBSCRIBE in order: 1 to [`MAX_FILTERS_PER_PACKET`]. Iterating consumes; the value is `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters<'a> {
    // Checked when decoded.
    pub(crate) raw: &'a [u8],
}

impl<'a> Iterator for Filters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut reader = Reader::new(self.raw);
        let filter = reader.string()?.ok()?;
        self.raw = reader.rest();
        Some(filter)
    }
}

/// SUBACK (MQTT §3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    pub(crate) codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    /// One code for each filter, in the order of the SUBSCRIBE.
    pub fn codes(&self) -> impl Iterator<Item = SubAckCode> + use<'a> {
        self.codes.iter().filter_map(|code| SubAckCode::from_code(*code))
    }
}

/// The answer to one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubAckCode {
    /// Granted with this highest quality of service.
    Granted(QoS),
    /// 0x80.
    Refused,
}

impl SubAckCode {
    /// From the wire.
    pub const fn from_code(code: u8) -> Option<Self> {
        match (code, QoS::from_bits(code)) {
            (0x80, _) => Some(Self::Refused),
            (_, Some(qos)) => Some(Self::Granted(qos)),
            _ => None,
        }
    }

    /// As on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Granted(qos) => qos.bits(),
            Self::Refused => 0x80,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_secret() {
        let connect = Connect {
            client_id: "dev",
            clean_session: false,
            keep_alive: 60,
            will: Some(Will { topic: "t", payload: b"will-body", qos: QoS::AtMostOnce, retain: false }),
            login: Some(Login { username: "hub/dev", password: Some(b"SharedAccessSignature sig=abc") }),
        };
        let text = format!("{connect:?}");
        assert!(text.contains("hub/dev") && text.contains("(hidden)") && text.contains("9 bytes"), "{text}");
        assert!(!text.contains("sig") && !text.contains("83, 104"), "{text}");
    }

    #[test]
    fn kinds_and_codes_are_those_of_the_standard() {
        for bits in 0..=15 {
            assert_eq!(PacketKind::from_bits(bits).map(|kind| kind as u8), (1..=14).contains(&bits).then_some(bits));
        }
        for code in 0..=255 {
            assert_eq!(
                SubAckCode::from_code(code).map(SubAckCode::code),
                [0, 1, 2, 0x80].contains(&code).then_some(code)
            );
            assert_eq!(
                ConnectRefusal::from_code(code).map(ConnectRefusal::code),
                (1..=5).contains(&code).then_some(code)
            );
        }
    }
}
