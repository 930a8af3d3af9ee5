//! The server: workers, listeners, and their orderly end.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nave_http::service::HttpService;
use nave_metrics::Collect;
use nave_session::protocol::ProtocolFactory;

use crate::env::RealEnv;
use crate::error::{ListenError, StartError};
use crate::limits::{Limits, MAX_WORKERS};
use crate::listener::{Accepted, accept, open};
use crate::tls::ServerTls;
use crate::websocket::WebSocketEndpoint;
use crate::worker::{Shared, Threads, Worker, Workers, wait_until};
use crate::{http, mqtts};

/// Time that the workers get, after the grace of [`Server::shutdown`], to drop what did not end in time.
const LAST_TURN: Duration = Duration::from_millis(200);

/// How a server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerOptions {
    /// Threads that serve connections; `None` for one per core.
    pub workers: Option<NonZeroUsize>,
    /// Bounds.
    pub limits: Limits,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections that exist now.
    pub connections: usize,
    /// Those of them that have not proved who they are.
    pub unauthenticated: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections closed at once because all places were taken.
    pub refused: u64,
    /// TLS handshakes that failed or timed out.
    pub handshake_failures: u64,
    /// Connections that became WebSockets.
    pub websockets: u64,
    /// WebSockets that ended because their client broke the framing.
    pub websocket_violations: u64,
}

/// A view of a server's counters that neither keeps it running nor ends with it.
#[derive(Clone)]
pub struct Counters(Arc<Shared>);

impl Counters {
    /// What happened so far.
    pub fn statistics(&self) -> Statistics {
        let shared = &self.0;
        Statistics {
            connections: shared.connections.load(Ordering::Relaxed),
            unauthenticated: shared.unauthenticated.load(Ordering::Relaxed),
            accepted: shared.accepted.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            handshake_failures: shared.handshake_failures.load(Ordering::Relaxed),
            websockets: shared.websockets.load(Ordering::Relaxed),
            websocket_violations: shared.websocket_violations.load(Ordering::Relaxed),
        }
    }
}

/// Worker threads and listeners. Dropping it cuts every connection; [`shutdown`](Self::shutdown) ends them in order.
pub struct Server {
    env: Arc<RealEnv>,
    shared: Arc<Shared>,
    workers: Workers,
    _threads: Threads,
}

impl Server {
    /// Starts the workers. Nothing is served before a listener is opened.
    pub fn start(options: &ServerOptions, env: Arc<RealEnv>) -> Result<Self, StartError> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let count = options.workers.unwrap_or(cores).get().min(MAX_WORKERS);
        let (workers, threads) = Workers::start(count)?;
        Ok(Self { env, shared: Shared::new(options.limits), workers, _threads: threads })
    }

    /// Serves a device protocol over TLS. The result is the bound address: with port 0, the system chose one.
    pub fn listen_mqtts(
        &self,
        address: SocketAddr,
        tls: &ServerTls,
        factory: Arc<dyn ProtocolFactory>,
    ) -> Result<SocketAddr, ListenError> {
        let context = Arc::new(mqtts::Context {
            tls: tls.clone(),
            factory,
            env: Arc::clone(&self.env),
            shared: Arc::clone(&self.shared),
        });
        self.listen(address, move |worker, accepted| worker.spawn(mqtts::serve(accepted, Arc::clone(&context))))
    }

    /// Serves HTTP/1.1 over TLS, and device protocols over WebSocket on the same port.
    pub fn listen_https(
        &self,
        address: SocketAddr,
        tls: &ServerTls,
        service: Arc<dyn HttpService>,
        endpoints: Vec<WebSocketEndpoint>,
    ) -> Result<SocketAddr, ListenError> {
        let context = self.http_context(service, endpoints);
        let tls = tls.clone();
        self.listen(address, move |worker, accepted| {
            worker.spawn(http::serve_tls(accepted, tls.clone(), Arc::clone(&context)));
        })
    }

    /// Serves HTTP/1.1 without TLS, on a loopback address only.
    pub fn listen_http(&self, address: SocketAddr, service: Arc<dyn HttpService>) -> Result<SocketAddr, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback { address });
        }
        let context = self.http_context(service, Vec::new());
        self.listen(address, move |worker, accepted| {
            worker.spawn(http::serve_plain(accepted, Arc::clone(&context)));
        })
    }

    fn http_context(&self, service: Arc<dyn HttpService>, endpoints: Vec<WebSocketEndpoint>) -> Arc<http::Context> {
        Arc::new(http::Context { service, endpoints, env: Arc::clone(&self.env), shared: Arc::clone(&self.shared) })
    }

    fn listen(
        &self,
        address: SocketAddr,
        serve: impl Fn(&Worker, Accepted) + Send + Sync + 'static,
    ) -> Result<SocketAddr, ListenError> {
        let (listener, bound) = open(address)?;
        let worker = self.workers.idlest().ok_or(ListenError::Stopped)?;
        worker.spawn(accept(listener, Arc::clone(&self.shared), self.workers.clone(), serve));
        Ok(bound)
    }

    /// What happened so far.
    pub fn statistics(&self) -> Statistics {
        Counters(Arc::clone(&self.shared)).statistics()
    }

    /// The same for somebody who does not hold the server.
    pub fn counters(&self) -> Counters {
        Counters(Arc::clone(&self.shared))
    }

    /// What the transports count, for whoever answers a scrape.
    pub fn metrics(&self) -> Arc<dyn Collect> {
        self.shared.clone()
    }

    /// Stops accepting, lets every connection finish what is in flight, and waits up to `grace` for that. True if all of
    /// them ended in time; the others are cut. Blocks the calling thread, which must not be one of the server's.
    pub fn shutdown(self, grace: Duration) -> bool {
        let deadline = Instant::now().checked_add(grace).unwrap_or_else(Instant::now);
        self.shared.begin_stop(deadline);
        let connections = &self.shared.connections;
        let in_time = wait_until(deadline, || connections.load(Ordering::Acquire) == 0);
        if !in_time {
            wait_until(deadline + LAST_TURN, || connections.load(Ordering::Acquire) == 0);
            tracing::warn!(left = connections.load(Ordering::Acquire), "connections did not end in time");
        }
        in_time
    }
}
