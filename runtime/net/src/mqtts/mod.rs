//! Device connections: a sans-I/O protocol over TLS, one task each, without a buffer while nothing happens.

mod connection;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use nave_session::protocol::{Protocol, ProtocolFactory};

use crate::channel::Channel;
use crate::env::RealEnv;
use crate::handshake::{Opened, handshake};
use crate::listener::Accepted;
use crate::tls::ServerTls;
use crate::worker::{Shared, Unproved};
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
    let Some(Opened { channel, early }) = handshake(stream, address, &context.tls, &context.shared).await else {
        return;
    };
    let mut protocol = context.factory.accept(channel.peer(address));
    if !early.is_empty() {
        protocol.receive(&early);
    }
    let parts = (Arc::clone(&context.env), Arc::clone(&context.shared));
    drop(context);
    drive(channel, address, protocol, unproved, parts).await;
    drop(place);
}

/// Drives a protocol over an open channel to its end.
pub(crate) async fn drive(
    channel: Channel,
    address: SocketAddr,
    protocol: Box<dyn Protocol>,
    unproved: Unproved,
    (env, shared): (Arc<RealEnv>, Arc<Shared>),
) {
    let armed = Instant::now() + shared.limits.handshake;
    let parts = (env, Arc::clone(&shared));
    let mut connection = Connection::new(channel, address, protocol, unproved, parts, armed);
    let mut timer = pin!(tokio::time::sleep_until(armed.into()));
    let mut stop = pin!(shared.stop_notice());
    stop.as_mut().enable();
    poll_fn(|cx| connection.poll(cx, timer.as_mut(), stop.as_mut())).await;
}
