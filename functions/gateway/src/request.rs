//! One request, from its bytes to those of its answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use nave_http::Surface;
use nave_http::service::{Body, HttpService as _, Peer, ResponseBody};
use nave_hub::Platform;
use serde_json::json;

use crate::env::RequestEnv;

/// Longest body of a request: that of ten enrollments, the longest that any resource takes. More is not read.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Seconds after which a client that lost against others shall try again, where the protocol names none.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// Answers a request. Its body is there already: Spin gives a component no more than one request.
pub fn answer(env: &RequestEnv, platform: &Arc<Platform>, request: Request<Bytes>) -> Response<Bytes> {
    let surface = Surface::new(Arc::clone(platform));
    // Who is behind the connection is known to the host alone, and what a header says of it nobody vouches for.
    let peer = Peer { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), tls: None };
    let call = surface.call(peer, request.map(Body::from_bytes));
    let Some(response) = env.run(call) else { return would_wait() };
    let (mut parts, body) = response.into_parts();
    // The connection is the host's.
    parts.headers.remove(CONNECTION);
    if parts.status == StatusCode::TOO_MANY_REQUESTS {
        parts.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    match body {
        ResponseBody::Bytes(body) => Response::from_parts(parts, body),
        ResponseBody::Stream(mut chunks) => {
            let mut whole = BytesMut::new();
            // What comes at once: a stream that would wait for more ends.
            while let Some(Some(Ok(chunk))) = env.run(chunks.next()) {
                whole.extend_from_slice(&chunk);
            }
            Response::from_parts(parts, whole.freeze())
        }
        _ => would_wait(),
    }
}

/// The operation waits for a connection of a device, or for time to pass.
fn would_wait() -> Response<Bytes> {
    let body = json!({
        "Message": "ErrorCode:GatewayTimeout;The request would have to wait for a device, and no device is connected to \
                    this host.",
        "ExceptionMessage": "",
    });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert("iothub-errorcode", HeaderValue::from_static("GatewayTimeout"));
    response
}
