//! Device connections: TLS around a sans-I/O protocol, one task each, without a buffer while nothing happens.

mod channel;
mod connection;
mod scratch;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use nave_session::protocol::ProtocolFactory;
use tokio::net::TcpStream;

use crate::env::RealEnv;
use crate::listener::Accepted;
use crate::tls::{ServerTls, Session};
use crate::worker::Shared;
use channel::Channel;
use connection::Connection;

/// What the connections of one listener share.
pub(crate) struct Context {
    pub(crate) tls: ServerTls,
    pub(crate) factory: Arc<dyn ProtocolFactory>,
    pub(crate) env: Arc<RealEnv>,
    pub(crate) shared: Arc<Shared>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, address, place, unproved } = accepted;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "cannot watch a connection");
            return;
        }
    };
    let session = match Session::new(&context.tls) {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "cannot begin a TLS session");
            return;
        }
    };
    let shared = Arc::clone(&context.shared);
    let until = Instant::now() + shared.limits.handshake;
    let mut connection = Connection::new(Channel::new(stream, session), address, context, unproved, until);
    let mut timer = pin!(tokio::time::sleep_until(until.into()));
    let mut stop = pin!(shared.stop_notice());
    stop.as_mut().enable();
    poll_fn(|cx| connection.poll(cx, timer.as_mut(), stop.as_mut())).await;
    drop(connection);
    drop(place);
}
