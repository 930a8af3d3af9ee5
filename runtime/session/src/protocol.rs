//! What a device protocol looks like to the code that moves its bytes: a sans-I/O state machine.
//!
//! A [`Protocol`] never sees a socket. A driver (in production `nave-net`, in tests a few lines) decrypts what arrives,
//! hands it over with [`Protocol::receive`], lets it work with [`Protocol::poll`] and writes what
//! [`Protocol::transmit`] gives. So an idle connection holds no I/O buffer, many acknowledgements share one write, and a
//! whole session is tested without a network.
//!
//! # Order of the calls
//!
//! 1. Whenever bytes arrive: `receive` once per decrypted record, then `poll` once.
//! 2. Whenever the registered waker fires or the [`deadline`](Protocol::deadline) passes: `poll`.
//! 3. After every `poll`: `transmit` until it says that there is no more, unless earlier output is still unwritten; then
//!    [`closing`](Protocol::closing), [`wants_input`](Protocol::wants_input) and `deadline` are looked at.
//! 4. [`shutdown`](Protocol::shutdown) at most once, when the server stops. Nothing is received after it.
//! 5. [`disconnected`](Protocol::disconnected) exactly once, unless the protocol panicked. After it only `poll` and
//!    [`drained`](Protocol::drained) are called, so that work in flight can end; the object is dropped as soon as it is
//!    drained, or after a bounded time.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::Context;

use nave_env::Moment;

/// One connection's state machine. See the [module](self) for the order of the calls.
pub trait Protocol: Send {
    /// Bytes that arrived, decrypted. All of them are consumed: an incomplete packet is kept by the protocol itself.
    ///
    /// One read of the driver can hand over more after [`wants_input`](Self::wants_input) turned false (at most one read
    /// buffer, 64 KiB).
    fn receive(&mut self, bytes: &[u8]);

    /// Drives work in flight and timers, and registers the waker of `cx` for both.
    ///
    /// A protocol that has more to do than is fair in one call wakes itself.
    fn poll(&mut self, cx: &mut Context<'_>);

    /// Appends pending output to `out`; true if there is more.
    ///
    /// One call appends a bounded amount (some 64 KiB, or one packet if that is larger). It is not called while earlier
    /// output waits for the peer, so what the protocol holds back grows then: it has to be part of the bounds behind
    /// [`wants_input`](Self::wants_input) and [`closing`](Self::closing).
    fn transmit(&mut self, out: &mut Vec<u8>) -> bool;

    /// False while a bound of unacknowledged or unwritten bytes is reached: the driver stops reading, and the peer's
    /// writes stall. It is looked at after [`poll`](Self::poll), so whatever turns it true must wake.
    fn wants_input(&self) -> bool;

    /// When [`poll`](Self::poll) is to be called at the latest (keep-alive, connect timeout, end of a token), in the time
    /// of the [`nave_env::Env`] that the protocol was made with.
    fn deadline(&self) -> Option<Moment>;

    /// The reason once the connection must be closed. What [`transmit`](Self::transmit) still gives is written first,
    /// within a bounded time. Once given, a reason stays.
    fn closing(&self) -> Option<CloseReason>;

    /// True once the peer has proved who it is. Until then the connection counts against the bound of unauthenticated
    /// connections, which is much lower than that of all connections.
    fn authenticated(&self) -> bool;

    /// The server stops: finish what is in flight, then give [`CloseReason::Shutdown`] from [`closing`](Self::closing).
    /// The driver waits for that for a bounded time.
    fn shutdown(&mut self);

    /// The transport is gone; nothing can be sent or received any more. The driver keeps polling for a bounded time so
    /// that accepted work can end.
    fn disconnected(&mut self, reason: Disconnect);

    /// After [`disconnected`](Self::disconnected): true once no accepted work is in flight.
    fn drained(&self) -> bool;
}

/// Makes the [`Protocol`] of each new connection of a listener.
pub trait ProtocolFactory: Send + Sync {
    /// A connection whose TLS handshake succeeded.
    fn accept(&self, peer: PeerFacts) -> Box<dyn Protocol>;
}

/// What the transport knows for certain about the other end.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerFacts {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The name that the client asked for (SNI), lower case. It selected the certificate; it does not select the hub.
    pub server_name: Option<String>,
    /// The chain that the client presented, DER, leaf first; empty without a client certificate. That the client holds
    /// the leaf's private key is proved. That anybody vouches for the chain is **not**.
    pub certificates: Vec<Vec<u8>>,
    /// The negotiated version of TLS.
    pub tls: TlsVersion,
}

impl fmt::Debug for PeerFacts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PeerFacts")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .field("certificates", &self.certificates.len())
            .field("tls", &self.tls)
            .finish()
    }
}

/// A version of TLS that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Why a protocol closes its connection. It is for the log; the peer sees only what the protocol sent before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said goodbye (MQTT DISCONNECT).
    Finished,
    /// The peer broke the protocol; the text says which rule.
    Violation(Cow<'static, str>),
    /// The peer did not prove who it is, or may not do what it asked for.
    Refused(Cow<'static, str>),
    /// The token or certificate of the peer reached its end.
    Expired,
    /// A newer connection of the same device took over.
    Superseded,
    /// The device was disabled or deleted, or its keys changed.
    Revoked,
    /// The peer was silent for too long; the text says what was awaited.
    Timeout(&'static str),
    /// A bound was reached, for example of messages that the peer does not take; the text names it.
    Overload(&'static str),
    /// The server stops.
    Shutdown,
    /// The server failed; the text says at what. The fault is ours.
    Internal(Cow<'static, str>),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => formatter.write_str("finished"),
            Self::Violation(rule) => write!(formatter, "protocol violation: {rule}"),
            Self::Refused(why) => write!(formatter, "refused: {why}"),
            Self::Expired => formatter.write_str("credentials expired"),
            Self::Superseded => formatter.write_str("superseded by a newer connection"),
            Self::Revoked => formatter.write_str("identity disabled, deleted or changed"),
            Self::Timeout(what) => write!(formatter, "timeout: {what}"),
            Self::Overload(bound) => write!(formatter, "overload: {bound}"),
            Self::Shutdown => formatter.write_str("server shutdown"),
            Self::Internal(what) => write!(formatter, "internal error: {what}"),
        }
    }
}

/// Why the transport went away, as [`Protocol::disconnected`] learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The protocol asked for it, and everything was written.
    Closed(CloseReason),
    /// The protocol asked for it, but its last output could not be written.
    ClosedUnflushed(CloseReason),
    /// The peer closed its direction in order.
    PeerClosed,
    /// Reading or writing failed, mostly a connection reset by the peer.
    Io(io::ErrorKind),
    /// The peer broke TLS after the handshake; the text names the rule.
    Tls(String),
    /// The peer took nothing of what was sent to it for too long.
    Stalled,
    /// More output was pending at once than the driver keeps for a connection.
    OutputOverflow,
    /// The server stopped before the protocol was done.
    Shutdown,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => write!(formatter, "{reason}"),
            Self::ClosedUnflushed(reason) => write!(formatter, "{reason} (last output not delivered)"),
            Self::PeerClosed => formatter.write_str("closed by the peer"),
            Self::Io(kind) => write!(formatter, "transport failed: {kind}"),
            Self::Tls(rule) => write!(formatter, "TLS violation: {rule}"),
            Self::Stalled => formatter.write_str("the peer does not read"),
            Self::OutputOverflow => formatter.write_str("too much output pending"),
            Self::Shutdown => formatter.write_str("server shutdown"),
        }
    }
}
