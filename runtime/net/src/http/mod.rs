//! HTTP/1.1, with and without TLS, in front of an [`HttpService`].
//!
//! hyper does the framing; this module adds the bounds that hyper leaves to its user, and keeps its types from getting any
//! further.

mod body;
mod stall;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nave_http::service::{HttpService, Peer, PeerTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::limits::{HTTP_HEAD_BYTES, HTTP_HEADERS};
use crate::listener::Accepted;
use crate::tls::ServerTls;
use crate::worker::Shared;
use stall::StallGuard;

/// What the connections of one listener share.
pub(crate) struct Context {
    pub(crate) service: Arc<dyn HttpService>,
    pub(crate) shared: Arc<Shared>,
}

/// Serves one connection over TLS to its end.
pub(crate) async fn serve_tls(accepted: Accepted, tls: ServerTls, context: Arc<Context>) {
    let Accepted { stream, address, place, unproved } = accepted;
    let Some(stream) = watch(stream) else { return };
    let shared = &context.shared;
    let handshake = TlsAcceptor::from(Arc::clone(tls.config())).accept(stream);
    let handshake = tokio::time::timeout(shared.limits.handshake, handshake);
    let outcome = tokio::select! {
        biased;
        outcome = handshake => outcome,
        () = shared.until_stop() => return,
    };
    let why = match outcome {
        Ok(Ok(stream)) => {
            drop(unproved);
            let (_, session) = stream.get_ref();
            let peer_tls = PeerTls {
                server_name: session.server_name().map(str::to_ascii_lowercase),
                certificates: session
                    .peer_certificates()
                    .unwrap_or_default()
                    .iter()
                    .map(|certificate| certificate.to_vec())
                    .collect(),
            };
            serve(stream, Peer { address, tls: Some(Arc::new(peer_tls)) }, &context).await;
            return drop(place);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "timeout".to_owned(),
    };
    shared.handshake_failures.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(%address, %why, "TLS handshake failed");
    drop(place);
}

/// Serves one connection without TLS to its end.
pub(crate) async fn serve_plain(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, address, place, unproved } = accepted;
    drop(unproved);
    let Some(stream) = watch(stream) else { return };
    serve(stream, Peer { address, tls: None }, &context).await;
    drop(place);
}

fn watch(stream: std::net::TcpStream) -> Option<TcpStream> {
    TcpStream::from_std(stream).inspect_err(|error| tracing::warn!(%error, "cannot watch a connection")).ok()
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send, peer: Peer, context: &Context) {
    let shared = &context.shared;
    let limits = shared.limits;
    let address: SocketAddr = peer.address;
    let answer = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let call = context.service.call(peer.clone(), request.map(|incoming| body::from_peer(incoming, &limits)));
        async move { Ok::<_, Infallible>(call.await.map(body::to_peer)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.http_header)
        .max_headers(HTTP_HEADERS)
        .max_header_size(HTTP_HEAD_BYTES)
        .max_buf_size(HTTP_HEAD_BYTES)
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.write_stall)), answer);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        biased;
        () = shared.until_stop() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout_at(shared.stop_by().into(), connection).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => return,
            }
        }
        outcome = connection.as_mut() => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%address, %error, "HTTP connection ended");
    }
}
