//! The server's half of one MQTT connection: which packets may come when, keep-alive, back-pressure. It knows nothing of
//! hubs, topics or storage.
//!
//! # Use
//!
//! Bytes go into [`receive`](ServerSession::receive), which calls a sink for each packet. Until the CONNECT is answered
//! by [`accept`](ServerSession::accept) or [`refuse`](ServerSession::refuse) nothing else is delivered: what arrives is
//! held and delivered by [`resume`](ServerSession::resume) after the answer (the protocol does not oblige a client to wait for CONNACK;
//! protocol notes: MQTT §2.1). A sink that cannot take more answers [`Flow::Pause`]; `resume` continues as well.
//!
//! What the session sends is appended to a buffer of the caller, by it or by the functions of [`crate::encode`].

use std::mem;

use crate::decode::{DecodeError, Decoded, decode};
use crate::encode;
use crate::packet::{
    ConnAck, Connect, ConnectRefusal, Delivery, Filters, Packet, PacketId, PacketKind, Publish, Subscriptions,
};

/// Largest packet from a connected client, in bytes: a message of 256 KiB, the longest topic, and the headers. A larger
/// one closes the connection before it is buffered. Whether the *message* is within 262,144 bytes (body and properties)
/// is for the hub to say (Azure IoT Hub documentation, quotas; protocol notes: MQTT §3).
pub const MAX_PACKET_SIZE: u32 = 262_144 + 65_535 + 9;

/// Largest CONNECT, in bytes: a will of 64 KiB and 8 KiB for names and token. It bounds what a client can occupy before
/// it has said who it is.
pub const MAX_CONNECT_SIZE: u32 = 72 * 1024;

/// Bytes held for a session that does not deliver (CONNECT unanswered, or paused) from which on
/// [`ServerSession::wants_input`] is false.
pub const HELD_BYTES_BEFORE_STALL: u32 = 16 * 1024;

/// Bytes held at most for a session that does not deliver: what makes it stall, and two reads of 64 KiB that may be
/// under way then. More is [`Violation::HeldOverflow`], which a driver that heeds `wants_input` never meets.
pub const MAX_HELD_BYTES: u32 = HELD_BYTES_BEFORE_STALL + 2 * 64 * 1024;

/// Longest time until the CONNECT is complete, in milliseconds (protocol notes: MQTT §2.1).
pub const CONNECT_TIMEOUT_MS: u32 = 60_000;

/// Longest silence of a client, in milliseconds, whatever keep-alive it asked for: 29.45 minutes (Azure IoT Hub
/// documentation, MQTT keep-alive).
pub const MAX_SILENCE_MS: u32 = 1_767_000;

/// Largest packet identifier that the server chooses; the .NET SDK keeps the upper half to itself (protocol notes:
/// MQTT §3).
pub const MAX_SERVER_PACKET_ID: u16 = 0x7fff;

/// The bounds of a session. The default is the constants above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// [`MAX_PACKET_SIZE`].
    pub max_packet: u32,
    /// [`MAX_CONNECT_SIZE`].
    pub max_connect: u32,
    /// [`CONNECT_TIMEOUT_MS`].
    pub connect_timeout_ms: u32,
    /// [`MAX_SILENCE_MS`].
    pub max_silence_ms: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max_packet: MAX_PACKET_SIZE,
            max_connect: MAX_CONNECT_SIZE,
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            max_silence_ms: MAX_SILENCE_MS,
        }
    }
}

/// What the client did. The borrowed parts live as long as the call of the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The first packet, with a client id that is not empty. Nothing else comes before the answer.
    Connect(Connect<'a>),
    /// A message, with QoS 0 or 1.
    Publish {
        /// A topic name.
        topic: &'a str,
        /// The message.
        payload: &'a [u8],
        /// To be acknowledged with this identifier: QoS 1. `None` is QoS 0.
        ack: Option<PacketId>,
        /// DUP, only with QoS 1.
        dup: bool,
        /// RETAIN.
        retain: bool,
    },
    /// To be answered by [`encode::sub_ack`] with one code for each filter.
    Subscribe {
        /// To be repeated.
        packet_id: PacketId,
        /// At least one.
        filters: Subscriptions<'a>,
    },
    /// To be answered by [`encode::unsub_ack`].
    Unsubscribe {
        /// To be repeated.
        packet_id: PacketId,
        /// At least one.
        filters: Filters<'a>,
    },
    /// The client took a message of QoS 1; whether one with this identifier was sent is not checked.
    PubAck(PacketId),
    /// The client leaves; its will is void. Nothing follows.
    Disconnect,
}

/// What the sink wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next packet.
    Continue,
    /// No more packets until [`ServerSession::resume`].
    Pause,
    /// No more packets ever: the connection is going to be closed.
    Stop,
}

/// What the client did wrong. The connection must be closed, after writing [`farewell`](Self::farewell).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The bytes are not a packet, or one that is too large.
    #[error("malformed packet: {0}")]
    Malformed(#[from] DecodeError),
    /// The first packet is not CONNECT (MQTT §3.1).
    #[error("the first packet is {0} and not CONNECT")]
    ConnectExpected(PacketKind),
    /// MQTT §3.1.
    #[error("a second CONNECT")]
    SecondConnect,
    /// MQTT §3.1.3.1 lets a server insist on a client id; the Azure protocols always have one.
    #[error("CONNECT without a client id")]
    EmptyClientId,
    /// The Azure protocols have no QoS 2 (protocol notes: MQTT §3).
    #[error("PUBLISH with QoS 2")]
    ExactlyOnce,
    /// A packet that only a server sends, or one of QoS 2.
    #[error("{0} is not for a client to send")]
    Unexpected(PacketKind),
    /// [`MAX_HELD_BYTES`].
    #[error("too much sent without waiting for an answer")]
    HeldOverflow,
    /// [`SessionLimits::connect_timeout_ms`].
    #[error("no CONNECT in time")]
    ConnectTimeout,
    /// One and a half times the keep-alive passed without a sign of life (MQTT §3.1.2.10).
    #[error("keep-alive ran out")]
    KeepAliveTimeout,
}

impl Violation {
    /// What to send before closing; mostly nothing. An unsupported protocol version gets the CONNACK of that version:
    /// return code 1, for MQTT 5 reason code 0x84 (MQTT §3.1.2.2; MQTT 5.0 §3.1.2.2).
    pub const fn farewell(&self) -> &'static [u8] {
        match self {
            Self::Malformed(DecodeError::ProtocolLevel(5)) => &[0x20, 3, 0, 0x84, 0],
            Self::Malformed(DecodeError::ProtocolLevel(_)) => &[0x20, 2, 0, 1],
            Self::EmptyClientId => &[0x20, 2, 0, 2],
            _ => &[],
        }
    }

    /// Whether the client did nothing, rather than something.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::KeepAliveTimeout)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// CONNECT has not arrived.
    Fresh,
    /// CONNECT was delivered and is not answered.
    Connecting,
    Open,
    Closed,
}

/// The server's half of one connection. An idle one owns no memory beyond itself.
#[derive(Debug)]
pub struct ServerSession {
    limits: SessionLimits,
    /// While delivering: the beginning of one packet. Otherwise: all that arrived since.
    held: Vec<u8>,
    /// When the silence began that is limited now.
    silent_since: u64,
    max_silence_ms: u32,
    pings: u16,
    last_packet_id: u16,
    phase: Phase,
    paused: bool,
}

impl ServerSession {
    /// A session whose connection was made at `now`, in milliseconds of a monotonic clock, as all times here.
    pub const fn new(limits: SessionLimits, now: u64) -> Self {
        Self {
            limits,
            held: Vec::new(),
            silent_since: now,
            max_silence_ms: limits.connect_timeout_ms,
            pings: 0,
            last_packet_id: 0,
            phase: Phase::Fresh,
            paused: false,
        }
    }

    /// Takes bytes from the transport, all of them, and calls `sink` for each packet that they complete, in order.
    /// After DISCONNECT, a violation or [`Flow::Stop`] bytes are ignored.
    ///
    /// # Errors
    ///
    /// [`Violation`], after the packets before it were delivered. The session is closed then.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: u64,
        mut sink: impl FnMut(Event<'_>) -> Flow,
    ) -> Result<(), Violation> {
        if self.phase == Phase::Open && !bytes.is_empty() {
            self.silent_since = now;
        }
        let result = self.receive_all(bytes, &mut sink);
        self.settle(result)
    }

    /// Delivers what was held while the session was paused or its CONNECT unanswered. Does nothing before the answer.
    /// It must be called after [`accept`](Self::accept).
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn resume(&mut self, now: u64, mut sink: impl FnMut(Event<'_>) -> Flow) -> Result<(), Violation> {
        self.paused = false;
        if self.phase == Phase::Open {
            // The client may have been silent because we did not read.
            self.silent_since = now;
        }
        let result = self.drain(&mut sink).map(drop);
        self.settle(result)
    }

    /// Delivers nothing until [`resume`](Self::resume), like [`Flow::Pause`].
    pub const fn pause(&mut self) {
        self.paused = true;
    }

    /// Whether a sink, or [`pause`](Self::pause), has stopped the delivery: [`resume`](Self::resume) continues it.
    pub const fn is_paused(&self) -> bool {
        self.paused && matches!(self.phase, Phase::Open)
    }

    /// Answers the CONNECT with CONNACK 0. Does nothing if there is none to answer. Then call [`resume`](Self::resume).
    pub fn accept(&mut self, session_present: bool, now: u64, out: &mut Vec<u8>) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Open;
            self.silent_since = now;
            encode::conn_ack(out, ConnAck::Accepted { session_present });
        }
    }

    /// Answers the CONNECT with a refusal and closes the session. Does nothing if there is none to answer.
    pub fn refuse(&mut self, refusal: ConnectRefusal, out: &mut Vec<u8>) {
        if self.phase == Phase::Connecting {
            encode::conn_ack(out, ConnAck::Refused(refusal));
            self.close();
        }
    }

    /// Delivers nothing any more and forgets what is held.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
        self.held = Vec::new();
    }

    /// Appends the PINGRESPs that are due. To be called after [`receive`](Self::receive) and [`resume`](Self::resume).
    pub fn write_pongs(&mut self, out: &mut Vec<u8>) {
        for _ in 0..mem::take(&mut self.pings) {
            encode::ping_resp(out);
        }
    }

    /// Whether [`write_pongs`](Self::write_pongs) has something to write.
    pub const fn has_pongs(&self) -> bool {
        self.pings > 0
    }

    /// The next identifier for a PUBLISH with QoS 1: 1 to [`MAX_SERVER_PACKET_ID`], then from 1 again. Whoever keeps
    /// messages in flight asks again if the identifier is still in use.
    pub const fn next_packet_id(&mut self) -> PacketId {
        self.last_packet_id = if self.last_packet_id >= MAX_SERVER_PACKET_ID { 1 } else { self.last_packet_id + 1 };
        match PacketId::new(self.last_packet_id) {
            Some(id) => id,
            // Not reached: the number is at least 1.
            None => PacketId::FIRST,
        }
    }

    /// False while nothing is delivered and [`HELD_BYTES_BEFORE_STALL`] are held, and when the session is closed.
    pub const fn wants_input(&self) -> bool {
        match self.phase {
            Phase::Closed => false,
            _ => self.delivers() || self.held.len() < HELD_BYTES_BEFORE_STALL as usize,
        }
    }

    /// Whether CONNECT was accepted and the session is not closed.
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether nothing more is delivered: DISCONNECT, refusal, violation or [`Flow::Stop`].
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether a CONNECT waits for its answer.
    pub const fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting)
    }

    /// When [`check_timeout`](Self::check_timeout) closes the session unless something arrives before. `None` while it
    /// is the server that is waited for: CONNECT unanswered, or paused.
    pub const fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Fresh => Some(self.silent_since.saturating_add(self.max_silence_ms as u64)),
            Phase::Open if !self.paused => Some(self.silent_since.saturating_add(self.max_silence_ms as u64)),
            _ => None,
        }
    }

    /// Closes the session if its deadline has come.
    pub fn check_timeout(&mut self, now: u64) -> Option<Violation> {
        if now < self.deadline()? {
            return None;
        }
        let violation =
            if self.phase == Phase::Fresh { Violation::ConnectTimeout } else { Violation::KeepAliveTimeout };
        self.close();
        Some(violation)
    }

    const fn delivers(&self) -> bool {
        !self.paused && matches!(self.phase, Phase::Fresh | Phase::Open)
    }

    const fn packet_limit(&self) -> usize {
        match self.phase {
            Phase::Fresh => self.limits.max_connect as usize,
            _ => self.limits.max_packet as usize,
        }
    }

    fn settle(&mut self, result: Result<(), Violation>) -> Result<(), Violation> {
        if result.is_err() {
            self.close();
        }
        result
    }

    fn receive_all(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Event<'_>) -> Flow) -> Result<(), Violation> {
        // First complete the packet whose beginning is held: only it is copied.
        while self.delivers() && !self.held.is_empty() && !bytes.is_empty() {
            let missing = self.drain(sink)?;
            if self.delivers() && !self.held.is_empty() {
                let (now, later) = bytes.split_at(missing.min(bytes.len()));
                self.held.extend_from_slice(now);
                bytes = later;
                self.drain(sink)?;
            }
        }
        while self.delivers() && !bytes.is_empty() {
            match decode(bytes, self.packet_limit())? {
                Decoded::Packet { packet, consumed } => {
                    bytes = bytes.get(consumed..).unwrap_or_default();
                    self.take(packet, sink)?;
                }
                Decoded::Incomplete { .. } => break,
            }
        }
        self.hold(bytes)
    }

    /// Delivers the complete packets that are held. Returns how many bytes the next one certainly lacks, 0 if nothing is
    /// held or nothing may be delivered.
    fn drain(&mut self, sink: &mut impl FnMut(Event<'_>) -> Flow) -> Result<usize, Violation> {
        let mut held = mem::take(&mut self.held);
        let mut done = 0;
        let mut missing = 0;
        while self.delivers() {
            let rest = held.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match decode(rest, self.packet_limit())? {
                Decoded::Packet { packet, consumed } => {
                    done += consumed;
                    self.take(packet, sink)?;
                }
                Decoded::Incomplete { needed } => {
                    missing = needed.saturating_sub(rest.len());
                    break;
                }
            }
        }
        // A closed session, and one that holds nothing, owns no buffer.
        if done < held.len() && self.phase != Phase::Closed {
            held.drain(..done);
            self.held = held;
        }
        Ok(missing)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if bytes.is_empty() || self.phase == Phase::Closed {
            return Ok(());
        }
        // While delivering, the size of a packet is the bound.
        if !self.delivers() && self.held.len() + bytes.len() > MAX_HELD_BYTES as usize {
            return Err(Violation::HeldOverflow);
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn take(&mut self, packet: Packet<'_>, sink: &mut impl FnMut(Event<'_>) -> Flow) -> Result<(), Violation> {
        let event = match (packet, self.phase) {
            (Packet::Connect(connect), Phase::Fresh) => {
                if connect.client_id.is_empty() {
                    return Err(Violation::EmptyClientId);
                }
                self.phase = Phase::Connecting;
                self.max_silence_ms = max_silence_ms(connect.keep_alive, self.limits.max_silence_ms);
                Event::Connect(connect)
            }
            (packet, Phase::Fresh) => return Err(Violation::ConnectExpected(packet.kind())),
            (Packet::Publish(publish), _) => published(publish)?,
            (Packet::PubAck(packet_id), _) => Event::PubAck(packet_id),
            (Packet::PingReq, _) => {
                self.pings = self.pings.saturating_add(1);
                return Ok(());
            }
            (Packet::Subscribe(packet), _) => Event::Subscribe { packet_id: packet.packet_id, filters: packet.filters },
            (Packet::Unsubscribe(packet), _) => {
                Event::Unsubscribe { packet_id: packet.packet_id, filters: packet.filters }
            }
            (Packet::Disconnect, _) => {
                self.phase = Phase::Closed;
                Event::Disconnect
            }
            (Packet::Connect(_), _) => return Err(Violation::SecondConnect),
            (packet, _) => return Err(Violation::Unexpected(packet.kind())),
        };
        match sink(event) {
            Flow::Continue => {}
            Flow::Pause => self.paused = true,
            Flow::Stop => self.close(),
        }
        Ok(())
    }
}

fn published(publish: Publish<'_>) -> Result<Event<'_>, Violation> {
    let (ack, dup) = match publish.delivery {
        Delivery::AtMostOnce => (None, false),
        Delivery::AtLeastOnce { packet_id, dup } => (Some(packet_id), dup),
        Delivery::ExactlyOnce { .. } => return Err(Violation::ExactlyOnce),
    };
    Ok(Event::Publish { topic: publish.topic, payload: publish.payload, ack, dup, retain: publish.retain })
}

/// One and a half times the keep-alive, or the bound if that is less or there is no keep-alive.
fn max_silence_ms(keep_alive_seconds: u16, bound: u32) -> u32 {
    match keep_alive_seconds {
        0 => bound,
        seconds => (u32::from(seconds) * 1500).min(bound),
    }
}

#[cfg(test)]
mod tests;
