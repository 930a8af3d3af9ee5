//! Which API a request is for.

use std::sync::{Arc, OnceLock};

use http::{Method, Request, Response};
use nave_env::BoxFuture;
use nave_hub::{ErrorCode, Hub, HubError, Platform};
use nave_metrics::{Collect, Page};
use tracing::Instrument as _;

use crate::call::Call;
use crate::events::Streams;
use crate::metrics::{RequestMetrics, Surface as Side};
use crate::reply::{self, Reply, Style};
use crate::route::{self, Target};
use crate::service::{Body, HttpService, Peer, ResponseBody};
use crate::work::perhaps_to_its_end;
use crate::{dps, hub, openapi};

/// Everything that clients reach over TLS.
///
/// The `Host` header chooses: a hub's name its service API, a name of the provisioning service that one's APIs. Where both
/// answer to a name (`localhost`), the path decides: it says by its first word, or by an id scope, when it is for the
/// provisioning service.
pub struct Surface {
    platform: Arc<Platform>,
    streams: Streams,
    requests: Arc<RequestMetrics>,
}

impl Surface {
    /// The surfaces of `platform`.
    pub fn new(platform: Arc<Platform>) -> Self {
        Self { platform, streams: Streams::default(), requests: Arc::default() }
    }
}

impl HttpService for Surface {
    fn call(&self, peer: Peer, request: Request<Body>) -> BoxFuture<Response<ResponseBody>> {
        let (platform, streams) = (Arc::clone(&self.platform), self.streams.clone());
        let requests = Arc::clone(&self.requests);
        Box::pin(async move {
            let env = Arc::clone(platform.env());
            let began = env.monotonic();
            let span = nave_trace::http(request.method().as_str());
            let (surface, reply) = answer(platform, streams, peer, request).instrument(span.clone()).await;
            nave_trace::answered(&span, reply.status().as_u16());
            requests.count(surface, reply.status(), env.monotonic().since(began));
            reply::with_request_id(reply, &*env)
        })
    }
}

impl Collect for Surface {
    fn collect(&self, page: &mut Page) {
        self.requests.collect(page);
    }
}

/// The provisioning service in audit records.
const PROVISIONING: &str = "$dps";

/// Who answers.
enum Owner {
    Hub(Arc<Hub>),
    Provisioning,
}

async fn answer(platform: Arc<Platform>, streams: Streams, peer: Peer, request: Request<Body>) -> (Side, Reply) {
    let (parts, body) = request.into_parts();
    let what = format!("{} {}", parts.method, parts.uri.path());
    let target = match Target::parse(&parts.uri) {
        Ok(target) => target,
        Err(error) => return (Side::Unknown, reply::failure(Style::Hub, &error, &what, &platform)),
    };
    let owner = match owner(&platform, &parts, &target) {
        Ok(owner) => owner,
        Err(error) => return (Side::Unknown, reply::failure(Style::Hub, &error, &what, &platform)),
    };
    if parts.uri.path() == openapi::PATH && parts.method == Method::GET {
        return (if matches!(owner, Owner::Hub(_)) { Side::Hub } else { Side::Provisioning }, openapi::answer());
    }
    let method = route::method(&parts);
    let call = Call {
        platform: Arc::clone(&platform),
        method,
        target,
        headers: parts.headers,
        peer,
        changes_as: OnceLock::new(),
    };
    let (side, style, result) = match owner {
        Owner::Hub(hub) => {
            let (style, changes) = (hub::style(&call), hub::changes(&call));
            let work = async move {
                call.recorded(hub.id().as_str(), Box::pin(hub::answer(&hub, &call, body, &streams))).await
            };
            (Side::Hub, style, perhaps_to_its_end(&**platform.env(), changes, work).await)
        }
        Owner::Provisioning => {
            let changes = dps::changes(&call);
            let work = async move { call.recorded(PROVISIONING, Box::pin(dps::answer(&call, body))).await };
            (Side::Provisioning, Style::Dps, perhaps_to_its_end(&**platform.env(), changes, work).await)
        }
    };
    (side, result.unwrap_or_else(|error| reply::failure(style, &error, &what, &platform)))
}

fn owner(platform: &Platform, parts: &http::request::Parts, target: &Target) -> Result<Owner, HubError> {
    let unknown = || HubError::new(ErrorCode::IotHubNotFound, "No hub or provisioning service has this host name.");
    let host = route::host(parts).ok_or_else(unknown)?;
    let hub = platform.hub(&host).cloned();
    match (hub, platform.provisioning().answers_to(&host)) {
        (Some(_), true) if dps::is_path(target) => Ok(Owner::Provisioning),
        (Some(hub), _) => Ok(Owner::Hub(hub)),
        (None, true) => Ok(Owner::Provisioning),
        (None, false) => Err(unknown()),
    }
}
