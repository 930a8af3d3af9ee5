//! The HTTP surface of a build without one: it says so.

use http::{Request, Response, StatusCode};
use nave_env::BoxFuture;
use nave_http::service::{Body, HttpService, Peer, ResponseBody};

/// Answers every request with status 503.
pub(super) struct Unavailable;

impl HttpService for Unavailable {
    fn call(&self, _peer: Peer, _request: Request<Body>) -> BoxFuture<Response<ResponseBody>> {
        Box::pin(async {
            let mut response = Response::new(ResponseBody::from("The HTTP interface of this hub is not built in yet.\n"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        })
    }
}
