//! The threads that serve connections, and what all connections of a server share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};

use crate::error::StartError;
use crate::limits::Limits;
use crate::log_gate::LogGate;
use crate::wakeups::Wakeups;

/// What all connections of a server share: bounds, counters and the end.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) connections: AtomicUsize,
    pub(crate) unauthenticated: AtomicUsize,
    /// Wakes acceptors that wait for the number of unauthenticated connections to fall.
    pub(crate) room: Notify,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) handshake_failures: AtomicU64,
    pub(crate) websockets: AtomicU64,
    pub(crate) websocket_violations: AtomicU64,
    pub(crate) accept_errors: LogGate,
    pub(crate) refusals: LogGate,
    pub(crate) websocket_complaints: LogGate,
    stopping: AtomicBool,
    stop_by: Mutex<Option<Instant>>,
    stop: Notify,
}

impl Shared {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            connections: AtomicUsize::new(0),
            unauthenticated: AtomicUsize::new(0),
            room: Notify::new(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            handshake_failures: AtomicU64::new(0),
            websockets: AtomicU64::new(0),
            websocket_violations: AtomicU64::new(0),
            accept_errors: LogGate::default(),
            refusals: LogGate::default(),
            websocket_complaints: LogGate::default(),
            stopping: AtomicBool::new(false),
            stop_by: Mutex::new(None),
            stop: Notify::new(),
        })
    }

    /// Tells acceptors and connections that they have to end by `deadline`.
    pub(crate) fn begin_stop(&self, deadline: Instant) {
        *self.stop_by.lock() = Some(deadline);
        self.stopping.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// By when everything has to end; known once [`stopping`](Self::stopping).
    pub(crate) fn stop_by(&self) -> Instant {
        self.stop_by.lock().unwrap_or_else(Instant::now)
    }

    /// Wakes once at the beginning of the end. Look at [`stopping`](Self::stopping) after it has been enabled or polled.
    pub(crate) fn stop_notice(&self) -> tokio::sync::futures::Notified<'_> {
        self.stop.notified()
    }

    /// Resolves at the beginning of the end.
    pub(crate) async fn until_stop(&self) {
        let mut notice = std::pin::pin!(self.stop_notice());
        notice.as_mut().enable();
        if !self.stopping() {
            notice.await;
        }
    }

    /// Resolves when a connection that must still prove who it is may be accepted.
    pub(crate) async fn until_room(&self) {
        loop {
            let mut notice = std::pin::pin!(self.room.notified());
            notice.as_mut().enable();
            if self.has_room() {
                return;
            }
            notice.await;
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.unauthenticated.load(Ordering::Relaxed) < self.limits.unauthenticated
    }
}

/// A place among all connections, given back when dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    load: Arc<AtomicUsize>,
}

impl Place {
    /// Takes a place on a worker; `None` if all places of the server are taken.
    pub(crate) fn take(shared: &Arc<Shared>, worker: &Worker) -> Option<Self> {
        let place = Self { shared: Arc::clone(shared), load: Arc::clone(&worker.load) };
        place.load.fetch_add(1, Ordering::Relaxed);
        let taken = shared.connections.fetch_add(1, Ordering::Relaxed);
        (taken < shared.limits.connections).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Release);
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the connections that have not proved who they are, given back when dropped.
pub(crate) struct Unproved(Arc<Shared>);

impl Unproved {
    pub(crate) fn take(shared: &Arc<Shared>) -> Self {
        shared.unauthenticated.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Unproved {
    fn drop(&mut self) {
        let before = self.0.unauthenticated.fetch_sub(1, Ordering::Relaxed);
        if before >= self.0.limits.unauthenticated {
            self.0.room.notify_waiters();
        }
    }
}

/// Where connections run: an event loop on a thread of its own. A connection stays on its worker from the first byte to the
/// last, so nothing of it is ever contended.
pub(crate) struct Worker {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

impl Worker {
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(connection);
    }
}

/// All workers of a server; cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers(Arc<[Worker]>);

impl Workers {
    /// Starts as many; they run until the [`Threads`] are dropped.
    pub(crate) fn start(count: usize) -> Result<(Self, Threads), StartError> {
        let (mut workers, mut threads) = (Vec::new(), Threads(Vec::new()));
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(1).build()?;
            workers.push(Worker { handle: runtime.handle().clone(), load: Arc::default() });
            let (sender, receiver) = oneshot::channel();
            let wakeups = Arc::new(Wakeups::default());
            runtime.spawn(Arc::clone(&wakeups).serve());
            let thread = std::thread::Builder::new().name(format!("nave-io-{index}")).spawn(move || {
                wakeups.settle();
                // Both mean the end: a word and a lost sender.
                let _: Result<(), _> = runtime.block_on(receiver);
            })?;
            threads.0.push((sender, thread));
        }
        Ok((Self(workers.into()), threads))
    }

    /// The one with the fewest connections.
    pub(crate) fn idlest(&self) -> Option<&Worker> {
        self.0.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed))
    }
}

/// The threads of the workers. Dropping them ends all connections and waits for the threads.
pub(crate) struct Threads(Vec<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Drop for Threads {
    fn drop(&mut self) {
        let threads: Vec<_> = self.0.drain(..).map(|(sender, thread)| (sender.send(()), thread)).collect();
        for (_, thread) in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread had panicked");
            }
        }
    }
}

/// Waits, on a thread of its own, until `done` or `deadline`.
pub(crate) fn wait_until(deadline: Instant, done: impl Fn() -> bool) -> bool {
    const STEP: Duration = Duration::from_millis(2);
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}
