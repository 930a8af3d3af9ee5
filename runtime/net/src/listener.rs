//! Listening sockets, and the loop that hands their connections to the workers.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::error::ListenError;
use crate::limits::{ACCEPT_PAUSE, BACKLOG, TCP_PROBE_AFTER, TCP_PROBE_INTERVAL, TCP_PROBES};
use crate::worker::{Place, Shared, Unproved, Worker, Workers};

/// Opens a listening socket.
///
/// The port is not shared (`SO_REUSEPORT`): a second server on the same port must learn that it is taken, not silently get
/// half of the connections. An IPv6 socket takes IPv6 only, whatever the machine's default is.
pub(crate) fn open(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let listener = open_socket(address).map_err(|error| ListenError::from_io(address, error))?;
    let bound = listener.local_addr().map_err(|error| ListenError::from_io(address, error))?;
    Ok((listener, bound))
}

fn open_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted server must not wait for the old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit what follows. Without TCP_NODELAY an answer waits for the acknowledgement of the one before,
    // some 40 ms.
    socket.set_tcp_nodelay(true)?;
    let probes =
        TcpKeepalive::new().with_time(TCP_PROBE_AFTER).with_interval(TCP_PROBE_INTERVAL).with_retries(TCP_PROBES);
    socket.set_tcp_keepalive(&probes)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// An accepted connection with its places.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) place: Place,
    pub(crate) unproved: Unproved,
}

/// Accepts until the server stops; `serve` starts a connection on a worker.
pub(crate) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    workers: Workers,
    serve: impl Fn(&Worker, Accepted) + Send + Sync,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch a listening socket");
            return;
        }
    };
    let accepting = async {
        loop {
            shared.until_room().await;
            // Off this thread's event loop again: its worker has its own.
            match listener.accept().await.and_then(|(stream, address)| Ok((stream.into_std()?, address))) {
                Ok((stream, address)) => admit(stream, address, &shared, &workers, &serve),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    // The machine is short of something; trying again at once would only burn time.
                    if let Some(suppressed) = shared.accept_errors.pass() {
                        tracing::error!(%error, suppressed, "cannot accept connections for the moment");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shared.until_stop() => {}
        () = accepting => {}
    }
}

fn admit(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Arc<Shared>,
    workers: &Workers,
    serve: &impl Fn(&Worker, Accepted),
) {
    let Some(worker) = workers.idlest() else { return };
    let Some(place) = Place::take(shared, worker) else {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = shared.refusals.pass() {
            let limit = shared.limits.connections;
            tracing::warn!(limit, suppressed, "connection refused: all places are taken");
        }
        return;
    };
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    serve(worker, Accepted { stream, address, place, unproved: Unproved::take(shared) });
}

/// accept(2): network errors of the new connection are reported by accept as well and are to be treated like a retry.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::Interrupted
            | K::TimedOut
            | K::NetworkDown
            | K::NetworkUnreachable
            | K::HostUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_reported_as_such() {
        let (_first, address) = open("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        assert!(matches!(open(address), Err(ListenError::PortInUse { .. })));
    }

    #[test]
    fn a_foreign_address_is_reported_as_such() {
        // TEST-NET-1, RFC 5737: no machine has it.
        let address = "192.0.2.1:0".parse().expect("an address");
        assert!(matches!(open(address), Err(ListenError::AddressNotAvailable { .. })));
    }

    #[test]
    fn accepted_connections_answer_at_once() {
        let (listener, address) = open("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        listener.set_nonblocking(false).expect("it can wait");
        let _client = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.accept().expect("a connection");
        assert!(accepted.nodelay().expect("an option"));
    }

    #[test]
    fn pauses_only_when_the_machine_is_short_of_something() {
        const NO_DESCRIPTORS: i32 = 24;
        assert!(!concerns_one_connection(&io::Error::from_raw_os_error(NO_DESCRIPTORS)));
        assert!(concerns_one_connection(&io::ErrorKind::ConnectionAborted.into()));
    }
}
