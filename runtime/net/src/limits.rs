//! Every bound of the transports, as a named constant, and the few that an operator may change, as [`Limits`].

use std::time::Duration;

/// The bounds that depend on the machine. The others are constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all listeners together. A further one is accepted and closed at once, so that its client learns
    /// it. Default [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// Connections that have not proved who they are: in the TLS handshake, or not yet
    /// [`authenticated`](nave_session::protocol::Protocol::authenticated). When it is reached, further clients wait in
    /// the listener's backlog. Default [`MAX_UNAUTHENTICATED`].
    pub unauthenticated: usize,
    /// Time for the TLS handshake. Default [`HANDSHAKE_TIMEOUT`].
    pub handshake: Duration,
    /// Time in which a peer has to take at least one byte of what is pending for it. Default [`WRITE_STALL`].
    pub write_stall: Duration,
    /// Encrypted output that is kept for a peer. More closes the connection. Default [`MAX_PENDING_OUTPUT`].
    pub pending_output: usize,
    /// Time for the head of an HTTP request, from the moment the connection is ready for it; so it is also how long a
    /// kept-alive connection may be idle. Default [`HTTP_HEADER_TIMEOUT`].
    pub http_header: Duration,
    /// Longest pause within the body of an HTTP request. Default [`HTTP_BODY_PAUSE`].
    pub http_body_pause: Duration,
    /// Longest time from the first to the last byte of the body of an HTTP request. Default [`HTTP_BODY_TIMEOUT`].
    pub http_body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            unauthenticated: MAX_UNAUTHENTICATED,
            handshake: HANDSHAKE_TIMEOUT,
            write_stall: WRITE_STALL,
            pending_output: MAX_PENDING_OUTPUT,
            http_header: HTTP_HEADER_TIMEOUT,
            http_body_pause: HTTP_BODY_PAUSE,
            http_body: HTTP_BODY_TIMEOUT,
        }
    }
}

/// Default of [`Limits::connections`]: with less than 10 KB each, 1 GB. The descriptors of the process often end before.
pub const MAX_CONNECTIONS: usize = 100_000;

/// Default of [`Limits::unauthenticated`]: at 5,000 handshakes per second and core, less than half a second of work, so
/// that a client that waits its turn does not time out; and at most some 140 MB if all of them send large handshakes.
pub const MAX_UNAUTHENTICATED: usize = 2_000;

/// Default of [`Limits::handshake`]. Slow links and small devices need seconds; a peer that sends nothing holds a place
/// for this long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Default of [`Limits::write_stall`]. Long enough for a mobile network that is gone for a moment.
pub const WRITE_STALL: Duration = Duration::from_secs(60);

/// Default of [`Limits::pending_output`]: the largest packet (256 KB) after a full batch, with room to spare.
pub const MAX_PENDING_OUTPUT: usize = 1024 * 1024;

/// Connections that the kernel completes and keeps for us until we accept them (it may cap this: `net.core.somaxconn`).
pub const BACKLOG: i32 = 4_096;

/// Pause of the acceptor after an error of the machine, such as no free descriptors. Clients wait in the backlog.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which the kernel probes whether the peer still exists; a device may have switched keep-alive off.
pub const TCP_PROBE_AFTER: Duration = Duration::from_secs(120);

/// Time between probes, of which [`TCP_PROBES`] may remain unanswered.
pub const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// Unanswered probes after which the kernel gives the connection up.
pub const TCP_PROBES: u32 = 4;

/// One read at most, in the buffer that all connections of a thread share.
pub const READ_BUFFER: usize = 64 * 1024;

/// Bytes of incomplete TLS records kept for a connection: a handshake message of 64 KiB (the most that rustls takes) in
/// records, or one application record of 16 KiB. More ends the connection.
pub const MAX_INCOMPLETE: usize = 72 * 1024;

/// Plaintext after which a batch of output is encrypted and written.
pub const OUTPUT_BATCH: usize = 64 * 1024;

/// Reads of one connection in a row before the other connections of the thread have their turn.
pub const READS_PER_TURN: usize = 8;

/// How long the last output of a closing connection may take.
pub const CLOSE_FLUSH: Duration = Duration::from_secs(5);

/// How long a closed connection is read on, and what arrives is thrown away: a socket that is closed with unread bytes
/// resets the connection, and the reset can overtake the last words (a refusal, a TLS alert).
pub const LINGER: Duration = Duration::from_secs(2);

/// Bytes thrown away while lingering; a peer that sends more is reset.
pub const LINGER_BYTES: usize = 1024 * 1024;

/// How long a protocol may take to end its work in flight once its transport is gone.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Certificates in the chain of a client. Real chains have two to four.
pub const MAX_CLIENT_CHAIN: usize = 10;

/// Bytes of the chain of a client. rustls ends a handshake message at 64 KiB; a chain is kept as long as its connection.
pub const MAX_CLIENT_CHAIN_BYTES: usize = 32 * 1024;

/// Default of [`Limits::http_header`].
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Default of [`Limits::http_body_pause`].
pub const HTTP_BODY_PAUSE: Duration = Duration::from_secs(30);

/// Default of [`Limits::http_body`].
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Header fields of an HTTP request; more is answered with 431.
pub const HTTP_HEADERS: usize = 100;

/// Bytes of the request line and header of an HTTP request, and of the read and write buffers of its connection; a
/// longer head is answered with 431. Device tokens and queries stay below 8 KiB.
pub const HTTP_HEAD_BYTES: usize = 64 * 1024;

/// The usual bound of a request body, for [`Body::collect`](nave_http::service::Body::collect); a resource may have its
/// own.
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;

/// Bytes of a WebSocket message in all its fragments. An MQTT packet has 256 KB at most, and clients that put several into a
/// message put what they have buffered. A longer one ends the connection (close code 1009). It is a bound of good manners:
/// what a message holds is handed on as it arrives.
pub const WEBSOCKET_MESSAGE_BYTES: u64 = 1024 * 1024;

/// Fragments of a WebSocket message: the largest MQTT packet in fragments of 64 bytes. One more ends the connection (close
/// code 1008).
pub const WEBSOCKET_FRAGMENTS: u32 = 4_096;

/// Most worker threads; more serve nothing.
pub const MAX_WORKERS: usize = 256;

/// Threads for work that belongs to no connection ([`nave_env::Env::spawn`]).
pub const BACKGROUND_THREADS: usize = 2;

const _: () = assert!(MAX_INCOMPLETE >= 65_535 + 64 * 22, "a whole handshake message and its record headers fit");
const _: () = assert!(OUTPUT_BATCH < MAX_PENDING_OUTPUT, "a full batch may wait for its peer");
