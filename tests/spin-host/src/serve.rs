//! HTTPS in front of the component: a new instance for every request.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use wasmtime::Store;
use wasmtime_wasi_http::p3::Request as WasiRequest;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::connection::Deployment;
use crate::imports::{NoNetwork, Request, Shared};

/// Serves until a signal says to stop.
pub(crate) async fn until_stopped(service: ServicePre<Request>, deployment: &Deployment) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", deployment.port)).await.context("the port of HTTPS")?;
    let acceptor = TlsAcceptor::from(Arc::clone(&deployment.tls));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    deployment.announce()?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                let (service, acceptor) = (service.clone(), acceptor.clone());
                let shared = Arc::clone(&deployment.shared);
                // A client that goes away is not the host's business.
                tokio::spawn(async move { drop(connection(service, acceptor, shared, socket).await) });
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    deployment.withdraw();
    Ok(())
}

async fn connection(
    service: ServicePre<Request>,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    socket: TcpStream,
) -> Result<()> {
    let stream = TokioIo::new(acceptor.accept(socket).await?);
    let answer = service_fn(move |request| {
        let (service, shared) = (service.clone(), Arc::clone(&shared));
        async move {
            Ok::<_, Infallible>(call(&service, shared, request).await.unwrap_or_else(|error| {
                eprintln!("the component failed: {error:#}");
                let mut response = Response::new(Full::new(Bytes::from_static(b"the component failed")));
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                response
            }))
        }
    });
    Ok(hyper::server::conn::http1::Builder::new().serve_connection(stream, answer).await?)
}

async fn call(
    service: &ServicePre<Request>,
    shared: Arc<Shared>,
    request: http::Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // A component gets the host as the authority of the URI; the header of that name is the host's.
    let host = parts.headers.remove(http::header::HOST).context("a request without a host")?;
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(Authority::try_from(host.as_bytes())?);
    parts.uri = Uri::from_parts(uri)?;
    for name in [http::header::CONNECTION, http::header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let mut store = Store::new(service.engine(), Request::new(shared));
    let instance = service.instantiate_async(&mut store).await.map_err(crate::plain)?;
    let request = http::Request::from_parts(parts, Full::new(body));
    let (request, sent) = WasiRequest::from_http(&mut NoNetwork, request);
    let response = store
        .run_concurrent(async |accessor| {
            let answer = async {
                let response = instance.handle(accessor, request).await?;
                let response = response.map_err(|code| wasmtime::format_err!("{code:?}"))?;
                let response = accessor.with(|access| response.into_http(access, async { Ok(()) }))?;
                let (parts, body) = response.into_parts();
                let body = body.collect().await.map_err(|error| wasmtime::format_err!("{error:?}"))?.to_bytes();
                wasmtime::error::Ok(Response::from_parts(parts, Full::new(body)))
            };
            let (answer, _) = tokio::join!(answer, sent);
            answer
        })
        .await
        .flatten();
    response.map_err(crate::plain)
}
