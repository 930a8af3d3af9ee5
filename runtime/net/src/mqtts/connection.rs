//! The driver of one device connection: a state machine over a socket, a TLS session and a protocol.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use nave_session::protocol::{CloseReason, Disconnect, PeerFacts, Protocol};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::time::Sleep;

use super::{Context, scratch};
use crate::limits::{CLOSE_FLUSH, DRAIN, LINGER, LINGER_BYTES, OUTPUT_BATCH, READ_BUFFER, READS_PER_TURN};
use crate::tls::{Session, Step};
use crate::worker::Unproved;

/// A timer that is due is not set to a time before this much later, so that a deadline in the past cannot spin.
const TIMER_STEP: Duration = Duration::from_millis(5);

/// One connection.
///
/// Memory while idle: this struct, the TLS session and the protocol. `unsent` and what the session keeps of an incomplete
/// record are empty vectors then.
pub(super) struct Connection {
    /// `None` once the transport is gone and only the protocol still has work in flight.
    stream: Option<TcpStream>,
    address: SocketAddr,
    session: Session,
    context: Arc<Context>,
    /// Held until the protocol says that the peer proved who it is.
    unproved: Option<Unproved>,
    phase: Phase,
    /// Encrypted output that the socket did not take.
    unsent: Vec<u8>,
    /// How much of `unsent` has been written since.
    sent: usize,
    /// The end of the handshake, of flushing, of lingering or of draining, depending on the phase.
    until: Option<Instant>,
    /// When the peer must have taken something of `unsent`.
    stalled_at: Option<Instant>,
    /// What the timer is set to. It is never moved to a later time, only set again when it fires: telemetry moves the
    /// keep-alive deadline all the time.
    armed: Instant,
    /// The timer and the notice of the end know our waker.
    registered: bool,
    stopping: bool,
}

enum Phase {
    Handshake,
    Open(Box<dyn Protocol>),
    /// Everything is written and our direction is closed; what still arrives is thrown away.
    Linger {
        protocol: Option<Box<dyn Protocol>>,
        budget: usize,
    },
    /// The transport is gone.
    Drain(Box<dyn Protocol>),
    Done,
}

/// What a step led to.
enum Flow {
    /// Something changed: look again.
    Again,
    /// A waker is registered for whatever is awaited.
    Wait,
}

impl Connection {
    /// A connection whose handshake has to be over at `until`, for which the timer is set already.
    pub(super) fn new(
        stream: TcpStream,
        address: SocketAddr,
        session: Session,
        context: Arc<Context>,
        unproved: Unproved,
        until: Instant,
    ) -> Self {
        Self {
            stream: Some(stream),
            address,
            session,
            context,
            unproved: Some(unproved),
            phase: Phase::Handshake,
            unsent: Vec::new(),
            sent: 0,
            until: Some(until),
            stalled_at: None,
            armed: until,
            registered: false,
            stopping: false,
        }
    }

    /// Does what can be done now. Ready when the connection is over.
    pub(super) fn poll(
        &mut self,
        cx: &mut TaskContext<'_>,
        mut timer: Pin<&mut Sleep>,
        stop: Pin<&mut Notified<'_>>,
    ) -> Poll<()> {
        // Registered once; a task's waker stays the same.
        let rung = if self.registered { timer.is_elapsed() } else { timer.as_mut().poll(cx).is_ready() };
        let stop = !self.registered && stop.poll(cx).is_ready();
        self.registered = true;
        if !self.stopping && (stop || self.context.shared.stopping()) {
            self.begin_stop();
        }
        if rung {
            self.expire(Instant::now());
        }
        for _ in 0..READS_PER_TURN {
            let flow = match self.phase {
                Phase::Handshake => self.handshake(cx),
                Phase::Open(_) => self.exchange(cx),
                Phase::Linger { .. } => self.linger(cx),
                Phase::Drain(_) => self.drain(cx),
                Phase::Done => return Poll::Ready(()),
            };
            match flow {
                Flow::Again => {}
                Flow::Wait => {
                    self.arm(cx, timer);
                    return Poll::Pending;
                }
            }
        }
        // The others of this thread have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn handshake(&mut self, cx: &mut TaskContext<'_>) -> Flow {
        if let Err(disconnect) = self.write_unsent(cx) {
            return self.fail(disconnect);
        }
        let mut early = Vec::new();
        match self.read(cx, |bytes| early.extend_from_slice(bytes)) {
            Ok(Step::Handshaking) => Flow::Again,
            Ok(Step::Open) => {
                let mut protocol = self.context.factory.accept(PeerFacts {
                    address: self.address,
                    server_name: self.session.server_name(),
                    certificates: self.session.certificates(),
                    tls: self.session.version(),
                });
                if !early.is_empty() {
                    protocol.receive(&early);
                }
                self.phase = Phase::Open(protocol);
                self.until = None;
                Flow::Again
            }
            Ok(Step::PeerClosed) => self.fail_handshake("closed by the peer"),
            Err(ReadEnd::Pending) => Flow::Wait,
            Err(ReadEnd::Closed) => self.fail_handshake("closed by the peer"),
            Err(ReadEnd::Io(kind)) => self.fail_handshake(kind),
            Err(ReadEnd::Overflow) => self.fail_handshake("the peer does not read"),
            Err(ReadEnd::Tls(error)) => {
                // The alert tells the peer why, if it waits for that.
                let flow = self.fail_handshake(error);
                self.phase = Phase::Linger { protocol: None, budget: LINGER_BYTES };
                self.until = Some(Instant::now() + LINGER);
                let _unwritten_alert = self.write_unsent(cx);
                self.close_writing(cx);
                flow
            }
        }
    }

    fn exchange(&mut self, cx: &mut TaskContext<'_>) -> Flow {
        let Phase::Open(protocol) = &mut self.phase else { return Flow::Again };
        protocol.poll(cx);
        if self.unproved.is_some() && protocol.authenticated() {
            self.unproved = None;
        }
        let written = match self.write(cx) {
            Ok(written) => written,
            Err(disconnect) => return self.fail(disconnect),
        };
        let Phase::Open(protocol) = &mut self.phase else { return Flow::Again };
        if let Some(reason) = protocol.closing() {
            return match written {
                Written::All => self.close(cx, Disconnect::Closed(reason), LINGER_BYTES),
                Written::Some => Flow::Again,
                Written::Blocked => {
                    let limit = Instant::now() + CLOSE_FLUSH;
                    self.until = Some(self.until.map_or(limit, |until| until.min(limit)));
                    Flow::Wait
                }
            };
        }
        if matches!(written, Written::Some) {
            return Flow::Again;
        }
        if self.stopping || !protocol.wants_input() {
            return Flow::Wait;
        }
        // Taken out while the session calls it, put back at once.
        let Phase::Open(mut protocol) = std::mem::replace(&mut self.phase, Phase::Done) else { return Flow::Again };
        let read = self.read(cx, |bytes| protocol.receive(bytes));
        self.phase = Phase::Open(protocol);
        match read {
            Ok(Step::PeerClosed) => {
                // What came before the end still counts.
                if let Phase::Open(protocol) = &mut self.phase {
                    protocol.poll(cx);
                }
                match self.write(cx) {
                    Ok(_) => self.close(cx, Disconnect::PeerClosed, 0),
                    Err(disconnect) => self.fail(disconnect),
                }
            }
            Ok(_) => Flow::Again,
            Err(ReadEnd::Pending) => Flow::Wait,
            Err(ReadEnd::Closed) => self.fail(Disconnect::PeerClosed),
            Err(ReadEnd::Io(kind)) => self.fail(Disconnect::Io(kind)),
            Err(ReadEnd::Overflow) => self.fail(Disconnect::OutputOverflow),
            Err(ReadEnd::Tls(error)) => {
                let _unwritten_alert = self.write_unsent(cx);
                self.fail(Disconnect::Tls(error.to_string()))
            }
        }
    }

    fn linger(&mut self, cx: &mut TaskContext<'_>) -> Flow {
        let over = self.throw_away(cx).is_ready();
        let Phase::Linger { protocol, .. } = &mut self.phase else { return Flow::Again };
        if !over {
            if let Some(waiting) = protocol {
                waiting.poll(cx);
            }
            return Flow::Wait;
        }
        match protocol.take() {
            Some(protocol) => self.begin_drain(protocol),
            None => self.phase = Phase::Done,
        }
        Flow::Again
    }

    fn drain(&mut self, cx: &mut TaskContext<'_>) -> Flow {
        let Phase::Drain(protocol) = &mut self.phase else { return Flow::Again };
        protocol.poll(cx);
        if !protocol.drained() {
            return Flow::Wait;
        }
        self.phase = Phase::Done;
        Flow::Again
    }

    /// The server stops.
    fn begin_stop(&mut self) {
        self.stopping = true;
        let stop_by = self.context.shared.stop_by();
        self.until = Some(self.until.map_or(stop_by, |until| until.min(stop_by)));
        match &mut self.phase {
            Phase::Handshake => self.phase = Phase::Done,
            Phase::Open(protocol) => protocol.shutdown(),
            Phase::Linger { .. } | Phase::Drain(_) | Phase::Done => {}
        }
    }

    /// The timer fired: ends what has taken too long. A deadline of the protocol is its own business; it is polled.
    fn expire(&mut self, now: Instant) {
        let over = self.until.is_some_and(|until| until <= now);
        match &mut self.phase {
            Phase::Handshake if over => {
                self.fail_handshake("timeout");
            }
            Phase::Open(protocol) if over => {
                let disconnect = match protocol.closing() {
                    Some(reason) if reason != CloseReason::Shutdown => Disconnect::ClosedUnflushed(reason),
                    _ => Disconnect::Shutdown,
                };
                self.fail(disconnect);
            }
            Phase::Open(_) | Phase::Handshake if self.stalled_at.is_some_and(|stalled| stalled <= now) => {
                self.fail(Disconnect::Stalled);
            }
            Phase::Linger { budget, .. } if over => *budget = 0,
            Phase::Drain(_) if over => {
                tracing::warn!(address = %self.address, "work of a closed connection did not end in time; dropped");
                self.phase = Phase::Done;
            }
            _ => {}
        }
    }

    /// Sets the timer if something ends before it fires, or if it has just fired.
    fn arm(&mut self, cx: &mut TaskContext<'_>, mut timer: Pin<&mut Sleep>) {
        let own = [self.until, self.stalled_at].into_iter().flatten().min();
        let protocol = match &self.phase {
            Phase::Open(protocol) => protocol.deadline().map(|moment| self.context.env.instant(moment)),
            _ => None,
        };
        let Some(next) = own.into_iter().chain(protocol).min() else {
            return;
        };
        let rung = timer.is_elapsed();
        if next >= self.armed && !rung {
            return;
        }
        let next = if rung { next.max(Instant::now() + TIMER_STEP) } else { next };
        self.armed = next;
        timer.as_mut().reset(next.into());
        if timer.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads once and lets the session work on it.
    fn read(&mut self, cx: &mut TaskContext<'_>, plaintext: impl FnMut(&[u8])) -> Result<Step, ReadEnd> {
        let Self { stream: Some(stream), session, unsent, sent, context, .. } = self else {
            return Err(ReadEnd::Closed);
        };
        scratch::with(|scratch| {
            let kept = session.kept();
            let room = scratch.read.get_mut(kept..kept + READ_BUFFER).unwrap_or_default();
            let mut room = ReadBuf::new(room);
            let arrived = match Pin::new(&mut *stream).poll_read(cx, &mut room) {
                Poll::Pending => return Err(ReadEnd::Pending),
                Poll::Ready(Err(error)) => return Err(ReadEnd::Io(error.kind())),
                Poll::Ready(Ok(())) => room.filled().len(),
            };
            if arrived == 0 {
                return Err(ReadEnd::Closed);
            }
            let step = session.process(&mut scratch.read, arrived, &mut scratch.sealed, plaintext);
            if !scratch.sealed.is_empty() {
                let mut rest = &scratch.sealed[..];
                if unsent.is_empty()
                    && let Poll::Ready(Ok(written)) = Pin::new(stream).poll_write(cx, rest)
                {
                    rest = rest.get(written..).unwrap_or_default();
                }
                // A peer that asks for key updates and never reads the answers ends here as well.
                if unsent.len() - *sent + rest.len() > context.shared.limits.pending_output {
                    return Err(ReadEnd::Overflow);
                }
                unsent.extend_from_slice(rest);
            }
            step.map_err(ReadEnd::Tls)
        })
    }

    /// Writes what is pending and what the protocol gives, one write per batch.
    fn write(&mut self, cx: &mut TaskContext<'_>) -> Result<Written, Disconnect> {
        if !self.write_unsent(cx)? {
            return Ok(Written::Blocked);
        }
        let Self { stream: Some(stream), phase: Phase::Open(protocol), session, unsent, sent, context, .. } = self
        else {
            return Ok(Written::All);
        };
        let more = scratch::with(|scratch| {
            let mut more = true;
            while more && scratch.plain.len() < OUTPUT_BATCH {
                let before = scratch.plain.len();
                more = protocol.transmit(&mut scratch.plain);
                if more && scratch.plain.len() == before {
                    // A protocol that announces output and gives none would spin here; it has to wake.
                    more = false;
                }
            }
            if scratch.plain.is_empty() {
                return Ok(more);
            }
            session.seal(&scratch.plain, &mut scratch.sealed).map_err(|error| Disconnect::Tls(error.to_string()))?;
            let written = match Pin::new(stream).poll_write(cx, &scratch.sealed) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Err(Disconnect::Io(error.kind())),
                Poll::Pending => 0,
            };
            let rest = scratch.sealed.get(written..).unwrap_or_default();
            if rest.len() > context.shared.limits.pending_output {
                return Err(Disconnect::OutputOverflow);
            }
            *unsent = rest.to_vec();
            *sent = 0;
            Ok(more)
        })?;
        if !self.write_unsent(cx)? {
            return Ok(Written::Blocked);
        }
        Ok(if more { Written::Some } else { Written::All })
    }

    /// True once nothing is unsent. Otherwise a waker is registered.
    fn write_unsent(&mut self, cx: &mut TaskContext<'_>) -> Result<bool, Disconnect> {
        let Self { stream: Some(stream), unsent, sent, stalled_at, context, .. } = self else { return Ok(true) };
        while let Some(rest) = unsent.get(*sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) => {
                    *sent += written;
                    *stalled_at = None;
                }
                Poll::Ready(Err(error)) => return Err(Disconnect::Io(error.kind())),
                Poll::Pending => {
                    stalled_at.get_or_insert_with(|| Instant::now() + context.shared.limits.write_stall);
                    return Ok(false);
                }
            }
        }
        *unsent = Vec::new();
        *sent = 0;
        *stalled_at = None;
        Ok(true)
    }

    /// Reads and forgets. Ready once the peer closed, or sent more than is waited for.
    fn throw_away(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Self { stream: Some(stream), phase: Phase::Linger { budget, .. }, .. } = self else {
            return Poll::Ready(());
        };
        scratch::with(|scratch| {
            while *budget > 0 {
                let mut room = ReadBuf::new(&mut scratch.read);
                let arrived = match ready!(Pin::new(&mut *stream).poll_read(cx, &mut room)) {
                    Ok(()) => room.filled().len(),
                    Err(_) => 0,
                };
                *budget = if arrived == 0 { 0 } else { budget.saturating_sub(arrived) };
            }
            Poll::Ready(())
        })
    }

    /// Ends the connection in order: announces it, closes our direction, and lets the peer take the last words.
    fn close(&mut self, cx: &mut TaskContext<'_>, disconnect: Disconnect, budget: usize) -> Flow {
        let Self { stream: Some(stream), session, .. } = self else { return self.fail(disconnect) };
        scratch::with(|scratch| {
            if session.close(&mut scratch.sealed).is_ok() {
                // A courtesy: a peer whose window is full does without.
                let _ = Pin::new(stream).poll_write(cx, &scratch.sealed);
            }
        });
        self.close_writing(cx);
        let Phase::Open(mut protocol) = std::mem::replace(&mut self.phase, Phase::Done) else { return Flow::Again };
        self.announce(&disconnect);
        protocol.disconnected(disconnect);
        self.unproved = None;
        self.phase = Phase::Linger { protocol: Some(protocol), budget };
        self.until = Some(self.no_later_than_stop(LINGER));
        self.stalled_at = None;
        Flow::Again
    }

    /// Ends the connection at once.
    fn fail(&mut self, disconnect: Disconnect) -> Flow {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Open(mut protocol) => {
                self.announce(&disconnect);
                protocol.disconnected(disconnect);
                self.begin_drain(protocol);
            }
            Phase::Handshake => {
                self.phase = Phase::Handshake;
                return self.fail_handshake(disconnect);
            }
            other => self.phase = other,
        }
        Flow::Again
    }

    fn fail_handshake(&mut self, why: impl std::fmt::Display) -> Flow {
        self.context.shared.handshake_failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(address = %self.address, %why, "TLS handshake failed");
        self.phase = Phase::Done;
        Flow::Again
    }

    fn begin_drain(&mut self, protocol: Box<dyn Protocol>) {
        self.stream = None;
        self.unproved = None;
        self.unsent = Vec::new();
        self.stalled_at = None;
        self.phase = Phase::Drain(protocol);
        self.until = Some(self.no_later_than_stop(DRAIN));
    }

    fn no_later_than_stop(&self, delay: Duration) -> Instant {
        let until = Instant::now() + delay;
        if self.stopping { until.min(self.context.shared.stop_by()) } else { until }
    }

    fn close_writing(&mut self, cx: &mut TaskContext<'_>) {
        if let Some(stream) = &mut self.stream {
            // Ready at once for TCP; an error means that the peer is gone, which reading shows next.
            let _ = Pin::new(stream).poll_shutdown(cx);
        }
    }

    fn announce(&self, disconnect: &Disconnect) {
        tracing::debug!(address = %self.address, reason = %disconnect, "connection closed");
    }
}

impl Drop for Connection {
    /// The worker ends and drops its tasks: the protocol learns it all the same. Not after a panic, which may have been
    /// its own.
    fn drop(&mut self) {
        if let Phase::Open(protocol) = &mut self.phase
            && !std::thread::panicking()
        {
            protocol.disconnected(Disconnect::Shutdown);
        }
    }
}

/// How far [`Connection::write`] came.
enum Written {
    /// Everything; the protocol has nothing more.
    All,
    /// A batch; the protocol has more.
    Some,
    /// The peer has to take something first; a waker is registered.
    Blocked,
}

/// Why [`Connection::read`] brought nothing.
enum ReadEnd {
    /// A waker is registered.
    Pending,
    Closed,
    Io(io::ErrorKind),
    Overflow,
    Tls(rustls::Error),
}
