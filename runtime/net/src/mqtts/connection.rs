//! The driver of one device connection: a state machine over a channel and a protocol.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use nave_session::protocol::{CloseReason, Disconnect, Protocol};
use tokio::sync::futures::Notified;
use tokio::time::Sleep;

use crate::channel::{Channel, ReadEnd, Written};
use crate::env::RealEnv;
use crate::limits::{CLOSE_FLUSH, DRAIN, LINGER, LINGER_BYTES, READS_PER_TURN};
use crate::tls::Step;
use crate::wakeups;
use crate::worker::{Shared, Unproved};

/// A timer that is due is not set to a time before this much later, so that a deadline in the past cannot spin.
const TIMER_STEP: Duration = Duration::from_millis(5);

/// One connection.
///
/// Memory while idle: this struct, the TLS session and the protocol; the vectors of the channel are empty then.
pub(super) struct Connection {
    /// `None` once the transport is gone and only the protocol still has work in flight.
    channel: Option<Box<Channel>>,
    address: SocketAddr,
    env: Arc<RealEnv>,
    shared: Arc<Shared>,
    /// Held until the protocol says that the peer proved who it is.
    unproved: Option<Unproved>,
    phase: Phase,
    /// The end of flushing, of lingering or of draining, depending on the phase.
    until: Option<Instant>,
    /// What the timer is set to. It is never moved to a later time, only set again when it fires: telemetry moves the
    /// keep-alive deadline all the time.
    armed: Instant,
    /// What the protocol is woken by, once the timer and the notice of the end know the task's own waker.
    waker: Option<Waker>,
    stopping: bool,
}

enum Phase {
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
    /// A connection whose handshake is over. The timer is set to `armed`.
    pub(super) fn new(
        channel: Box<Channel>,
        address: SocketAddr,
        protocol: Box<dyn Protocol>,
        unproved: Unproved,
        (env, shared): (Arc<RealEnv>, Arc<Shared>),
        armed: Instant,
    ) -> Self {
        Self {
            channel: Some(channel),
            address,
            env,
            shared,
            unproved: Some(unproved),
            phase: Phase::Open(protocol),
            until: None,
            armed,
            waker: None,
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
        let registered = self.waker.is_some();
        let rung = if registered { timer.is_elapsed() } else { timer.as_mut().poll(cx).is_ready() };
        let stop = !registered && stop.poll(cx).is_ready();
        let waker = self.waker.take().unwrap_or_else(|| wakeups::waker(cx.waker()));
        let polled = self.advance(cx, &mut TaskContext::from_waker(&waker), rung, stop, timer);
        self.waker = Some(waker);
        polled
    }

    /// `work` wakes for what the protocol has under way, `cx` for the transport and the timer.
    fn advance(
        &mut self,
        cx: &mut TaskContext<'_>,
        work: &mut TaskContext<'_>,
        rung: bool,
        stop: bool,
        timer: Pin<&mut Sleep>,
    ) -> Poll<()> {
        if !self.stopping && (stop || self.shared.stopping()) {
            self.begin_stop();
        }
        if rung {
            self.expire(Instant::now());
        }
        for _ in 0..READS_PER_TURN {
            let flow = match self.phase {
                Phase::Open(_) => self.exchange(cx, work),
                Phase::Linger { .. } => self.linger(cx, work),
                Phase::Drain(_) => self.drain(work),
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

    fn exchange(&mut self, cx: &mut TaskContext<'_>, work: &mut TaskContext<'_>) -> Flow {
        let Self { phase: Phase::Open(protocol), channel: Some(channel), shared, .. } = self else {
            return self.fail(Disconnect::PeerClosed);
        };
        let limits = &shared.limits;
        protocol.poll(work);
        if self.unproved.is_some() && protocol.authenticated() {
            self.unproved = None;
        }
        let written = match channel.write(cx, limits, &mut **protocol) {
            Ok(written) => written,
            Err(disconnect) => return self.fail(disconnect),
        };
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
        match channel.read(cx, limits, |bytes| protocol.receive(bytes)) {
            Ok(Step::PeerClosed) => {
                // What came before the end still counts.
                protocol.poll(work);
                match channel.write(cx, limits, &mut **protocol) {
                    Ok(_) => self.close(cx, Disconnect::PeerClosed, 0),
                    Err(disconnect) => self.fail(disconnect),
                }
            }
            Ok(_) => Flow::Again,
            Err(ReadEnd::Pending) => Flow::Wait,
            Err(ReadEnd::Over(disconnect)) => {
                let _unwritten_alert = channel.write_unsent(cx, limits);
                self.fail(disconnect)
            }
        }
    }

    fn linger(&mut self, cx: &mut TaskContext<'_>, work: &mut TaskContext<'_>) -> Flow {
        let Phase::Linger { protocol, budget } = &mut self.phase else { return Flow::Again };
        let over = self.channel.as_mut().is_none_or(|channel| channel.throw_away(cx, budget).is_ready());
        if !over {
            if let Some(waiting) = protocol {
                waiting.poll(work);
            }
            return Flow::Wait;
        }
        match protocol.take() {
            Some(protocol) => self.begin_drain(protocol),
            None => self.phase = Phase::Done,
        }
        Flow::Again
    }

    fn drain(&mut self, work: &mut TaskContext<'_>) -> Flow {
        let Phase::Drain(protocol) = &mut self.phase else { return Flow::Again };
        protocol.poll(work);
        if !protocol.drained() {
            return Flow::Wait;
        }
        self.phase = Phase::Done;
        Flow::Again
    }

    /// The server stops.
    fn begin_stop(&mut self) {
        self.stopping = true;
        let stop_by = self.shared.stop_by();
        self.until = Some(self.until.map_or(stop_by, |until| until.min(stop_by)));
        match &mut self.phase {
            Phase::Open(protocol) => protocol.shutdown(),
            Phase::Linger { .. } | Phase::Drain(_) | Phase::Done => {}
        }
    }

    /// The timer fired: ends what has taken too long. A deadline of the protocol is its own business; it is polled.
    fn expire(&mut self, now: Instant) {
        let over = self.until.is_some_and(|until| until <= now);
        let stalled = self.stalled_at().is_some_and(|stalled| stalled <= now);
        match &mut self.phase {
            Phase::Open(protocol) if over => {
                let disconnect = match protocol.closing() {
                    Some(reason) if reason != CloseReason::Shutdown => Disconnect::ClosedUnflushed(reason),
                    _ => Disconnect::Shutdown,
                };
                self.fail(disconnect);
            }
            Phase::Open(_) if stalled => {
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
        let own = [self.until, self.stalled_at()].into_iter().flatten().min();
        let protocol = match &self.phase {
            Phase::Open(protocol) => protocol.deadline().map(|moment| self.env.instant(moment)),
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

    /// Ends the connection in order: announces it, closes our direction, and lets the peer take the last words.
    fn close(&mut self, cx: &mut TaskContext<'_>, disconnect: Disconnect, budget: usize) -> Flow {
        if let Some(channel) = &mut self.channel {
            channel.announce_end(cx);
            channel.close_writing(cx);
        }
        let Phase::Open(mut protocol) = std::mem::replace(&mut self.phase, Phase::Done) else { return Flow::Again };
        self.announce(&disconnect);
        protocol.disconnected(disconnect);
        self.unproved = None;
        self.phase = Phase::Linger { protocol: Some(protocol), budget };
        self.until = Some(self.no_later_than_stop(LINGER));
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
            other => self.phase = other,
        }
        Flow::Again
    }

    fn begin_drain(&mut self, protocol: Box<dyn Protocol>) {
        self.channel = None;
        self.unproved = None;
        self.phase = Phase::Drain(protocol);
        self.until = Some(self.no_later_than_stop(DRAIN));
    }

    fn stalled_at(&self) -> Option<Instant> {
        self.channel.as_deref().and_then(Channel::stalled_at)
    }

    fn no_later_than_stop(&self, delay: Duration) -> Instant {
        let until = Instant::now() + delay;
        if self.stopping { until.min(self.shared.stop_by()) } else { until }
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
