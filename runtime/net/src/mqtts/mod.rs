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
    // In a box, which is gone when the handshake is over: the connection may live for months.
    let opened = Box::pin(handshake(stream, address, &context.tls, &context.shared)).await;
    let Some(Opened { channel, early }) = opened else { return };
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
    channel: Box<Channel>,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Most bytes of the task of a connection, beside the channel and the protocol, which are boxes. A future is as large as
    /// the largest of its states, and a value that is handed on is in it twice: before the channel and the handshake were
    /// boxes, it had several KB, in every idle connection.
    const MAX_TASK_BYTES: usize = 768;

    /// Most bytes of a channel; almost all of it is the state of the TLS library.
    const MAX_CHANNEL_BYTES: usize = 1_536;

    fn task_bytes<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let (task, channel) = (task_bytes(serve), size_of::<Channel>());
        println!("task {task}, channel {channel}");
        assert!(task <= MAX_TASK_BYTES, "the task has {task} bytes");
        assert!(channel <= MAX_CHANNEL_BYTES, "the channel has {channel} bytes");
    }
}
