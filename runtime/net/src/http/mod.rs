//! HTTP/1.1, with and without TLS, in front of an [`HttpService`]; and the way out of it, to WebSocket.
//!
//! hyper does the framing; this module adds the bounds that hyper leaves to its user, and keeps its types from getting any
//! further.

mod body;
mod secure;
mod stall;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::{TokioIo, TokioTimer};
use nave_http::service::{HttpService, Peer, PeerTls, ResponseBody};
use nave_session::protocol::{Protocol as _, ProtocolFactory};
use nave_trace::Parent;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::Span;

use crate::env::RealEnv;
use crate::handshake::{Opened, handshake};
use crate::limits::{HTTP_HEAD_BYTES, HTTP_HEADERS};
use crate::listener::Accepted;
use crate::mqtts::drive;
use crate::tls::ServerTls;
use crate::websocket::{Verdict, WebSocket, WebSocketEndpoint, judge};
use crate::worker::{Shared, Unproved};
use secure::SecureStream;
use stall::StallGuard;

/// What the connections of one listener share.
pub(crate) struct Context {
    pub(crate) service: Arc<dyn HttpService>,
    pub(crate) endpoints: Vec<WebSocketEndpoint>,
    pub(crate) env: Arc<RealEnv>,
    pub(crate) shared: Arc<Shared>,
}

/// A connection that stopped speaking HTTP: its stream, what was read ahead, and who makes its protocol.
struct Upgraded<S> {
    stream: S,
    ahead: Bytes,
    factory: Arc<dyn ProtocolFactory>,
}

/// Serves one connection over TLS to its end.
pub(crate) async fn serve_tls(accepted: Accepted, tls: ServerTls, context: Arc<Context>) {
    let Accepted { stream, address, place, unproved } = accepted;
    let Some(Opened { channel, early }) = handshake(stream, address, &tls, &context.shared).await else { return };
    drop(unproved);
    let facts = channel.peer(address);
    let peer_tls = PeerTls { server_name: facts.server_name, certificates: facts.certificates };
    let peer = Peer { address, tls: Some(Arc::new(peer_tls)) };
    let stream = SecureStream::new(channel, early, context.shared.limits);
    // In a box, which is gone when the connection becomes a WebSocket and may live for months.
    let Some(Upgraded { stream, ahead, factory }) = Box::pin(serve(stream, peer, &context)).await else {
        return drop(place);
    };
    let (channel, surplus) = stream.into_parts();
    // The requests before are forgotten: whoever speaks now has to prove who it is.
    let unproved = Unproved::take(&context.shared);
    let mut protocol = Box::new(WebSocket::new(factory.accept(channel.peer(address)), Arc::clone(&context.shared)));
    for bytes in [&ahead[..], &surplus] {
        if !bytes.is_empty() {
            protocol.receive(bytes);
        }
    }
    let parts = (Arc::clone(&context.env), Arc::clone(&context.shared));
    drop((ahead, surplus, factory, context, tls));
    drive(channel, address, protocol, unproved, parts).await;
    drop(place);
}

/// Serves one connection without TLS to its end.
pub(crate) async fn serve_plain(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, address, place, unproved } = accepted;
    drop(unproved);
    let Some(stream) = watch(stream) else { return };
    // Without endpoints nothing is upgraded.
    let _never = serve(stream, Peer { address, tls: None }, &context).await;
    drop(place);
}

fn watch(stream: std::net::TcpStream) -> Option<TcpStream> {
    TcpStream::from_std(stream).inspect_err(|error| tracing::warn!(%error, "cannot watch a connection")).ok()
}

/// The begin of a request's trace. The operator's own requests, which come without TLS, have none.
fn listener<B>(peer: &Peer, request: &hyper::Request<B>) -> Span {
    if peer.tls.is_none() {
        return Span::none();
    }
    let parent = request.headers().get("traceparent").and_then(|value| Parent::parse(value.to_str().ok()?));
    nave_trace::listener("http", parent.as_ref())
}

async fn serve<S>(stream: S, peer: Peer, context: &Context) -> Option<Upgraded<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = &context.shared;
    let limits = shared.limits;
    let address: SocketAddr = peer.address;
    let upgrade: Mutex<Option<(OnUpgrade, Arc<dyn ProtocolFactory>)>> = Mutex::new(None);
    let answer = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        let has_body = !hyper::body::Body::is_end_stream(request.body());
        let call = match judge(&request, has_body, &context.endpoints) {
            Verdict::NotAsked => {
                let listener = listener(&peer, &request);
                let request = request.map(|incoming| body::from_peer(incoming, &limits));
                let call = listener.in_scope(|| context.service.call(peer.clone(), request));
                Ok(nave_trace::within(listener, call))
            }
            Verdict::Refused(response) => Err(response),
            Verdict::Accepted(response, factory) => {
                *upgrade.lock() = Some((hyper::upgrade::on(&mut request), Arc::clone(factory)));
                Err(response)
            }
        };
        async move {
            Ok::<_, Infallible>(match call {
                Ok(call) => call.await.map(body::to_peer),
                Err(response) => response.map(|text| body::to_peer(ResponseBody::from(text))),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.http_header)
        .max_headers(HTTP_HEADERS)
        .max_header_size(HTTP_HEAD_BYTES)
        .max_buf_size(HTTP_HEAD_BYTES)
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.write_stall)), answer)
        .with_upgrades();
    let mut connection = Box::pin(connection);
    let outcome = tokio::select! {
        biased;
        () = shared.until_stop() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout_at(shared.stop_by().into(), connection).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => return None,
            }
        }
        outcome = connection.as_mut() => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%address, %error, "HTTP connection ended");
        return None;
    }
    let (upgraded, factory) = upgrade.lock().take()?;
    let upgraded = upgraded.await.inspect_err(|error| tracing::debug!(%address, %error, "not upgraded")).ok()?;
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<StallGuard<S>>>().ok()?;
    Some(Upgraded { stream: io.into_inner().into_inner(), ahead: read_buf, factory })
}
