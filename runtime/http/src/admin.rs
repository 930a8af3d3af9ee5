//! What the operator's tools need and no protocol has: certificate authorities, and how the process does.
//!
//! The listener is on the loopback device and plain; every request carries `Authorization: Bearer TOKEN`. Requests and
//! responses are JSON. `{owner}` is `hubs/{hub}` (a hub's id or one of its host names) or `provisioning`.
//!
//! | Request | Body | Answer |
//! |---|---|---|
//! | `GET /admin/status` | | 200 `{"version":"0.1.0","hubs":[{"id":…,"hostName":…,"aliases":[…],"connectedDevices":0}],"provisioning":{"idScope":…,"hostNames":[…]}}` |
//! | `GET /admin/configuration` | | 200, what is in force, see [`Operator::configuration`] |
//! | `POST /admin/reload` | | 200, what changed, see [`Operator::reload`]; 400 if anything cannot: then nothing changed |
//! | `GET /admin/backup` | | 200, a copy of everything that is kept, see [`Operator::backup`] |
//! | `GET /admin/{owner}/authorities` | | 200, an array of authorities |
//! | `POST /admin/{owner}/authorities` | `{"name":…,"certificate":PEM or base64,"verified":true}` | 200, the authority |
//! | `POST /admin/{owner}/authorities/{name}/verify` | `{"certificate":PEM or base64}` | 200, the authority |
//! | `DELETE /admin/{owner}/authorities/{name}` | | 204 |
//!
//! Beside these there are `/metrics`, `/healthz` and `/readyz`: see `monitoring.rs`.
//! The status also has what [`Operator::status`] says.
//!
//! An authority: `{"name":…,"certificate":base64,"verified":true,"verificationCode":… (until it is verified),
//! "created":…,"updated":…,"info":{…}}`. With `"verified": true` the operator vouches for it; else it is trusted only after
//! `verify` with a certificate that has the verification code as its common name and is signed by the authority.
//!
//! Errors have the form of the provisioning service: `{"errorCode":…,"trackingId":…,"message":…,"timestampUtc":…}`.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response};
use nave_auth::{CertificateInfo, SharedKey};
use nave_env::BoxFuture;
use nave_hub::audit::Actor;
use nave_hub::provisioning::info_json;
use nave_hub::{Authorities, ErrorCode, Hub, HubError, Platform};
use nave_model::{CaRecord, HostName};
use serde::Deserialize;
use serde_json::Value;

use crate::call::{Call, read_document};
use crate::monitoring::Monitoring;
use crate::operator::{self, Operator};
use crate::reply::{self, Reply, Style};
use crate::route::{self, Target, not_allowed};
use crate::service::{Body, HttpService, Peer, ResponseBody};
use crate::table::{Access, Answer, Content, EMPTY, Found, Route, Verb, find, json, ok, route};
use crate::work::perhaps_to_its_end;

/// Longest body of a request, in bytes; a longer one is refused unread. A certificate has at most 64 KB of text.
const MAX_ADMIN_BODY_BYTES: usize = 128 << 10;

/// Bytes of the key that tokens are compared under.
const COMPARISON_KEY_BYTES: usize = 32;

/// The administration surface. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    platform: Arc<Platform>,
    token: Arc<Token>,
    metrics_token: Option<Arc<Token>>,
    monitoring: Arc<Monitoring>,
    operator: Option<Arc<dyn Operator>>,
}

/// The bearer token, kept as a signature under a key of this process: comparing signatures takes the same time for every
/// wrong token, and the token itself cannot be shown by mistake.
struct Token {
    key: SharedKey,
    signature: [u8; 32],
}

impl Token {
    fn new(token: &str, platform: &Platform) -> Self {
        let key = SharedKey::generate(COMPARISON_KEY_BYTES, |buffer| platform.env().fill_random(buffer));
        let signature = key.sign(token.as_bytes());
        Self { key, signature }
    }

    fn is(&self, presented: &str) -> bool {
        self.key.verifies(presented.as_bytes(), &self.signature)
    }
}

impl Admin {
    /// The surface of `platform` for who knows `token`. An empty token lets nobody in.
    pub fn new(platform: Arc<Platform>, token: &str) -> Self {
        let token = Arc::new(Token::new(token, &platform));
        Self { platform, token, metrics_token: None, monitoring: Arc::default(), operator: None }
    }

    /// The same, with something to tell to those that watch.
    #[must_use]
    pub fn with_monitoring(mut self, monitoring: Monitoring) -> Self {
        let token = monitoring.metrics_token.as_deref().filter(|token| !token.is_empty());
        self.metrics_token = token.map(|token| Arc::new(Token::new(token, &self.platform)));
        self.monitoring = Arc::new(monitoring);
        self
    }

    fn knows(&self, presented: Option<&str>, metrics: bool) -> bool {
        let Some(presented) = presented.filter(|presented| !presented.is_empty()) else { return false };
        let for_metrics = || metrics && self.metrics_token.as_ref().is_some_and(|token| token.is(presented));
        self.token.is(presented) || for_metrics()
    }

    /// The same surface with what the process itself says and does.
    pub fn with_operator(mut self, operator: Arc<dyn Operator>) -> Self {
        self.operator = Some(operator);
        self
    }
}

impl HttpService for Admin {
    fn call(&self, peer: Peer, request: Request<Body>) -> BoxFuture<Response<ResponseBody>> {
        let admin = self.clone();
        Box::pin(async move {
            let what = format!("{} {}", request.method(), request.uri().path());
            let (parts, body) = request.into_parts();
            let result = match Target::parse(&parts.uri) {
                Ok(target) => {
                    let platform = Arc::clone(&admin.platform);
                    let (method, headers) = (parts.method, parts.headers);
                    let call = Call { platform, method, target, headers, peer, changes_as: OnceLock::new() };
                    let (changes, asked) = (call.method != Method::GET, admin.clone());
                    let work = async move { call.recorded("", Box::pin(answer(&asked, &call, body))).await };
                    perhaps_to_its_end(&**admin.platform.env(), changes, work).await
                }
                Err(error) => Err(error),
            };
            let reply = match result {
                Ok(reply) => reply,
                Err(error) => reply::failure(Style::Dps, &error, &what, &admin.platform),
            };
            reply::with_request_id(reply, &**admin.platform.env())
        })
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    Healthy,
    Ready,
    Metrics,
    Status,
    Operator(operator::Operation),
    ListAuthorities,
    AddAuthority,
    VerifyAuthority,
    DeleteAuthority,
}

const PLAIN: Content = Content("text/plain", None);

/// Everything that the administration serves.
pub(crate) const ROUTES: &[Route<Do>] = &[
    route(
        Verb::Get,
        "/healthz",
        Do::Healthy,
        Access::Anyone,
        ("healthz", "Whether requests are answered at all."),
        &[Answer(200, Some(PLAIN))],
    ),
    route(
        Verb::Get,
        "/readyz",
        Do::Ready,
        Access::Anyone,
        ("readyz", "Whether devices and services are served; else why not."),
        &[Answer(200, Some(PLAIN)), Answer(503, Some(PLAIN))],
    ),
    route(
        Verb::Get,
        "/metrics",
        Do::Metrics,
        Access::Metrics,
        ("metrics", "Metrics for Prometheus."),
        &[Answer(200, Some(PLAIN))],
    ),
    route(
        Verb::Get,
        "/admin/status",
        Do::Status,
        Access::Admin,
        ("status", "What is served, and how the process does."),
        &[ok("Status")],
    ),
    route(
        Verb::Get,
        "/admin/configuration",
        Do::Operator(operator::Operation::Configuration),
        Access::Admin,
        ("configuration", "The configuration in force, and where each value came from."),
        &[ok("Configuration")],
    ),
    route(
        Verb::Post,
        "/admin/reload",
        Do::Operator(operator::Operation::Reload),
        Access::Admin,
        ("reload", "Takes up a changed configuration: all of it or nothing."),
        &[ok("Reloaded")],
    ),
    route(
        Verb::Get,
        "/admin/backup",
        Do::Operator(operator::Operation::Backup),
        Access::Admin,
        ("backup", "A copy of everything that is kept."),
        &[Answer(200, Some(Content("application/octet-stream", None)))],
    ),
    route(
        Verb::Get,
        "/admin/hubs/{hub}/authorities",
        Do::ListAuthorities,
        Access::Admin,
        ("listHubAuthorities", "Lists the certificate authorities of a hub."),
        &[ok("Authorities")],
    ),
    Route {
        body: Some(json("NewAuthority")),
        ..route(
            Verb::Post,
            "/admin/hubs/{hub}/authorities",
            Do::AddAuthority,
            Access::Admin,
            ("addHubAuthority", "Adds a certificate authority to a hub."),
            &[ok("Authority")],
        )
    },
    Route {
        body: Some(json("Proof")),
        ..route(
            Verb::Post,
            "/admin/hubs/{hub}/authorities/{authorityName}/verify",
            Do::VerifyAuthority,
            Access::Admin,
            ("verifyHubAuthority", "Proves the possession of an authority's key to a hub."),
            &[ok("Authority")],
        )
    },
    route(
        Verb::Delete,
        "/admin/hubs/{hub}/authorities/{authorityName}",
        Do::DeleteAuthority,
        Access::Admin,
        ("deleteHubAuthority", "Takes a certificate authority from a hub."),
        &[EMPTY],
    ),
    route(
        Verb::Get,
        "/admin/provisioning/authorities",
        Do::ListAuthorities,
        Access::Admin,
        ("listProvisioningAuthorities", "Lists the certificate authorities of the provisioning service."),
        &[ok("Authorities")],
    ),
    Route {
        body: Some(json("NewAuthority")),
        ..route(
            Verb::Post,
            "/admin/provisioning/authorities",
            Do::AddAuthority,
            Access::Admin,
            ("addProvisioningAuthority", "Adds a certificate authority to the provisioning service."),
            &[ok("Authority")],
        )
    },
    Route {
        body: Some(json("Proof")),
        ..route(
            Verb::Post,
            "/admin/provisioning/authorities/{authorityName}/verify",
            Do::VerifyAuthority,
            Access::Admin,
            ("verifyProvisioningAuthority", "Proves the possession of an authority's key to the provisioning service."),
            &[ok("Authority")],
        )
    },
    route(
        Verb::Delete,
        "/admin/provisioning/authorities/{authorityName}",
        Do::DeleteAuthority,
        Access::Admin,
        ("deleteProvisioningAuthority", "Takes a certificate authority from the provisioning service."),
        &[EMPTY],
    ),
];

async fn answer(admin: &Admin, call: &Call, body: Body) -> Result<Reply, HubError> {
    let words = call.target.segments();
    // Probes may ask for the head alone.
    let meant = if call.method == Method::HEAD { &Method::GET } else { &call.method };
    let found = find(ROUTES, &words, meant);
    let access = match &found {
        Found::Operation(route) => route.access,
        _ => Access::Admin,
    };
    if access != Access::Anyone {
        let presented = call.token().and_then(|text| text.split_once(' '));
        let presented =
            presented.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer")).map(|(_, token)| token.trim());
        if !admin.knows(presented, access == Access::Metrics) {
            return Err(unauthorized());
        }
    }
    let route = match found {
        Found::Operation(route) if call.method != Method::HEAD || route.access == Access::Anyone => route,
        Found::Nothing => return Err(route::not_found()),
        _ => return Err(not_allowed(&call.method)),
    };
    if call.method != Method::GET && call.method != Method::HEAD {
        call.changes_as(Actor::Admin);
    }
    match route.does {
        Do::Healthy => Ok(Monitoring::healthy()),
        Do::Ready => Ok(admin.monitoring.ready()),
        Do::Metrics => Ok(admin.monitoring.metrics()),
        Do::Status => {
            let mut status = status_json(&call.platform);
            if let (Some(members), Some(operator)) = (status.as_object_mut(), &admin.operator) {
                members.extend(operator.status());
            }
            Ok(reply::ok(&status))
        }
        Do::Operator(operation) => operator::answer(admin.operator.as_deref(), operation).await,
        Do::ListAuthorities | Do::AddAuthority | Do::VerifyAuthority | Do::DeleteAuthority => {
            if words.get(1).is_some_and(|word| word.eq_ignore_ascii_case("hubs")) {
                let hub = hub_named(&call.platform, call.target.segment(2))?;
                return authorities(hub.authorities(), route.does, call.target.segment(4), body).await;
            }
            let service = Arc::clone(call.platform.provisioning());
            authorities(service.authorities(), route.does, call.target.segment(3), body).await
        }
    }
}

async fn authorities(authorities: &Authorities, does: Do, name: &str, body: Body) -> Result<Reply, HubError> {
    match does {
        Do::AddAuthority => {
            let new: NewAuthority = read_document(body, MAX_ADMIN_BODY_BYTES).await?;
            let record = authorities.add(&new.name, &new.certificate, new.verified).await?;
            Ok(reply::ok(&authority_json(&record)))
        }
        Do::VerifyAuthority => {
            let proof: Proof = read_document(body, MAX_ADMIN_BODY_BYTES).await?;
            Ok(reply::ok(&authority_json(&authorities.verify(name, &proof.certificate).await?)))
        }
        Do::DeleteAuthority => {
            authorities.delete(name).await?;
            Ok(reply::no_content())
        }
        _ => {
            let records = authorities.list().await?;
            Ok(reply::ok(&Value::Array(records.iter().map(authority_json).collect())))
        }
    }
}

#[derive(Deserialize)]
struct NewAuthority {
    name: String,
    certificate: String,
    #[serde(default)]
    verified: bool,
}

#[derive(Deserialize)]
struct Proof {
    certificate: String,
}

fn hub_named(platform: &Platform, name: &str) -> Result<Arc<Hub>, HubError> {
    let by_id = platform.hubs().iter().find(|hub| hub.id().as_str() == name);
    let by_name = || HostName::parse(name).ok().and_then(|name| platform.hub(&name));
    by_id.or_else(by_name).cloned().ok_or_else(|| HubError::new(ErrorCode::GenericNotFound, "No such hub."))
}

fn status_json(platform: &Platform) -> Value {
    let hubs: Vec<Value> = platform
        .hubs()
        .iter()
        .map(|hub| {
            serde_json::json!({
                "id": hub.id().as_str(),
                "hostName": hub.host_name().as_str(),
                "aliases": hub.aliases().iter().map(HostName::as_str).collect::<Vec<_>>(),
                "connectedDevices": hub.connected(),
                "damagedRecords": hub.metrics().damaged_records(),
            })
        })
        .collect();
    let service = platform.provisioning();
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "hubs": hubs,
        "provisioning": {
            "idScope": service.id_scope().as_str(),
            "hostNames": service.host_names().iter().map(HostName::as_str).collect::<Vec<_>>(),
        },
    })
}

fn authority_json(record: &CaRecord) -> Value {
    let mut authority = serde_json::json!({
        "name": record.name,
        "certificate": record.certificate.0,
        "verified": record.verified,
    });
    if let Some(members) = authority.as_object_mut() {
        if let Some(code) = &record.verification_code {
            members.insert("verificationCode".to_owned(), serde_json::json!(code));
        }
        members.insert("created".to_owned(), serde_json::json!(record.created.iso()));
        members.insert("updated".to_owned(), serde_json::json!(record.updated.iso()));
        let der = STANDARD.decode(&record.certificate.0).ok();
        if let Some(info) = der.and_then(|der| CertificateInfo::parse(&der).ok()) {
            members.insert("info".to_owned(), info_json(&info));
        }
    }
    authority
}

fn unauthorized() -> HubError {
    HubError::new(ErrorCode::IotHubUnauthorizedAccess, "Unauthorized: the admin token is in connection.json.")
}
