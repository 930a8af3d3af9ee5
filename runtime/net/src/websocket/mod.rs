//! A device protocol in WebSocket frames: a [`Protocol`] around another one.

mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod offer;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use nave_env::Moment;
use nave_session::protocol::{CloseReason, Disconnect, Protocol};

pub use offer::WebSocketEndpoint;
pub(crate) use offer::{Verdict, judge};

use crate::limits::OUTPUT_BATCH;
use crate::worker::Shared;
use frame::{CloseCode, Decoder, Event, Opcode, Violation};

thread_local! {
    /// Payloads on their way into frames and out of them, for all connections of a thread.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Capacity above which the room is given back after an unusually large packet.
const KEPT_CAPACITY: usize = 4 * OUTPUT_BATCH;

fn with_room<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    ROOM.with_borrow_mut(|room| {
        room.clear();
        let result = work(room);
        room.shrink_to(KEPT_CAPACITY);
        result
    })
}

/// A protocol whose bytes travel in binary frames.
///
/// The inner protocol's rules are the connection's: its deadlines (pings of WebSocket keep nobody alive), its bounds, its
/// end. An idle connection holds no buffer.
pub(crate) struct WebSocket {
    inner: Box<dyn Protocol>,
    shared: Arc<Shared>,
    decoder: Decoder,
    /// The payload of the last ping that has not been answered; older ones need no answer (RFC 6455 §5.5.3).
    pong: Option<Vec<u8>>,
    end: Option<End>,
    close_sent: bool,
}

/// How the framing ended.
enum End {
    PeerClosed,
    Broken(Violation),
}

impl WebSocket {
    pub(crate) fn new(inner: Box<dyn Protocol>, shared: Arc<Shared>) -> Self {
        shared.websockets.fetch_add(1, Ordering::Relaxed);
        Self { inner, shared, decoder: Decoder::default(), pong: None, end: None, close_sent: false }
    }

    /// The code for a close frame, once the connection ends.
    fn close_code(&self) -> Option<CloseCode> {
        match &self.end {
            Some(End::PeerClosed) => Some(CloseCode::Normal),
            Some(End::Broken(violation)) => Some(violation.code),
            None => self.inner.closing().map(|reason| code_of(&reason)),
        }
    }
}

/// What the peer is told about the end of the inner protocol.
const fn code_of(reason: &CloseReason) -> CloseCode {
    match reason {
        CloseReason::Finished => CloseCode::Normal,
        CloseReason::Shutdown => CloseCode::GoingAway,
        CloseReason::Violation(_) => CloseCode::ProtocolError,
        CloseReason::Overload(_) => CloseCode::TryAgainLater,
        CloseReason::Internal(_) => CloseCode::Internal,
        CloseReason::Refused(_)
        | CloseReason::Expired
        | CloseReason::Superseded
        | CloseReason::Revoked
        | CloseReason::Timeout(_) => CloseCode::Policy,
    }
}

impl Protocol for WebSocket {
    fn receive(&mut self, bytes: &[u8]) {
        let Self { inner, decoder, pong, end, .. } = self;
        let result = with_room(|room| {
            decoder.decode(bytes, room, |event| match event {
                Event::Data(data) => inner.receive(data),
                Event::Ping(payload) => *pong = Some(payload.to_vec()),
                Event::Close => *end = Some(End::PeerClosed),
            })
        });
        let Err(violation) = result else { return };
        self.end = Some(End::Broken(violation));
        self.shared.websocket_violations.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.shared.websocket_complaints.pass() {
            tracing::warn!(
                rule = violation.rule,
                suppressed,
                "WebSocket connection ended: its client broke the framing"
            );
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        self.inner.poll(context);
    }

    fn transmit(&mut self, out: &mut Vec<u8>) -> bool {
        if self.close_sent {
            return false;
        }
        if let Some(payload) = self.pong.take() {
            frame::encode(Opcode::Pong, &payload, out);
        }
        let more = with_room(|payload| {
            let more = self.inner.transmit(payload);
            if payload.is_empty() {
                return false;
            }
            frame::encode(Opcode::Binary, payload, out);
            more
        });
        if !more && let Some(code) = self.close_code() {
            frame::encode_close(code, out);
            self.close_sent = true;
        }
        more
    }

    fn wants_input(&self) -> bool {
        self.end.is_none() && self.inner.wants_input()
    }

    fn deadline(&self) -> Option<Moment> {
        self.inner.deadline()
    }

    fn closing(&self) -> Option<CloseReason> {
        match &self.end {
            Some(End::PeerClosed) => Some(CloseReason::Finished),
            Some(End::Broken(violation)) => Some(CloseReason::Violation(violation.rule.into())),
            None => self.inner.closing(),
        }
    }

    fn authenticated(&self) -> bool {
        self.inner.authenticated()
    }

    fn shutdown(&mut self) {
        self.inner.shutdown();
    }

    fn disconnected(&mut self, reason: Disconnect) {
        let by_peer = matches!(self.end, Some(End::PeerClosed));
        let reason = match reason {
            // The peer's close frame is the end of its stream; what the inner protocol makes of that is its business.
            Disconnect::Closed(_) | Disconnect::ClosedUnflushed(_) if by_peer => Disconnect::PeerClosed,
            reason => reason,
        };
        self.inner.disconnected(reason);
    }

    fn drained(&self) -> bool {
        self.inner.drained()
    }
}
