//! Registration of devices over HTTPS (protocol notes: provisioning devices §4).

use std::sync::Arc;

use http::StatusCode;
use http::header::{LOCATION, RETRY_AFTER};
use nave_auth::percent_encode;
use nave_hub::provisioning::{
    Attempt, Credentials, MAX_REGISTRATION_BYTES, Operation as Running, RETRY_AFTER_SECONDS, operation_json,
    registration_json,
};
use nave_hub::{ErrorCode, HubError, Provisioning};
use nave_model::{IdScope, RegistrationStatus, SecretText};
use serde_json::{Map, Value};

use crate::call::{Call, parse_json, read_text};
use crate::reply::{self, Reply};
use crate::service::Body;
use crate::work::to_its_end;

/// What a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `PUT /{idScope}/registrations/{id}/register`
    Register,
    /// `GET /{idScope}/registrations/{id}/operations/{operationId}`
    Status,
    /// `POST /{idScope}/registrations/{id}`
    LookUp,
}

/// Answers a device.
pub(crate) async fn answer(operation: Operation, call: &Call, body: Body) -> Result<Reply, HubError> {
    let service = service(call)?;
    let credentials = credentials(call)?;
    match operation {
        Operation::Register => register(&service, call, body, credentials).await,
        Operation::Status => status(&service, call, &credentials).await,
        Operation::LookUp => look_up(&service, call, body, credentials).await,
    }
}

/// The first answer is "assigning", as the cloud service's is (protocol notes: provisioning devices §3.3), unless outcomes
/// are to be told at once and there is one.
async fn register(
    service: &Arc<Provisioning>,
    call: &Call,
    body: Body,
    credentials: Credentials,
) -> Result<Reply, HubError> {
    let attempt = attempt(call, body, credentials).await?;
    let id = attempt.registration_id.clone();
    let registering = Arc::clone(service);
    let work = async move { registering.register(attempt).await };
    let running = to_its_end(&**call.platform.env(), work).await?;
    let assigning = running.state.status == RegistrationStatus::Assigning;
    if !assigning && !service.answers_later() {
        return Ok(reply::json(StatusCode::OK, operation_json(&running, false).to_string()));
    }
    let location = format!(
        "https://{}/{}/registrations/{}/operations/{}?api-version={}",
        host(call),
        service.id_scope(),
        percent_encode(&id),
        running.id,
        call.target.parameter("api-version").map(percent_encode).unwrap_or_default(),
    );
    let reply = reply::json(StatusCode::ACCEPTED, operation_json(&running, true).to_string());
    Ok(with_retry_after(reply::with_header(reply, LOCATION, &location), &running))
}

/// The Node SDK sends a body with this `GET`: it is not read.
async fn status(service: &Provisioning, call: &Call, credentials: &Credentials) -> Result<Reply, HubError> {
    let running = service.operation(call.target.segment(2), call.target.segment(4), credentials).await?;
    let body = operation_json(&running, false).to_string();
    if running.state.status == RegistrationStatus::Assigning {
        return Ok(with_retry_after(reply::json(StatusCode::ACCEPTED, body), &running));
    }
    Ok(reply::json(StatusCode::OK, body))
}

async fn look_up(service: &Provisioning, call: &Call, body: Body, credentials: Credentials) -> Result<Reply, HubError> {
    let attempt = attempt(call, body, credentials).await?;
    let record = service.own_registration(&attempt.registration_id, &attempt.credentials).await?;
    Ok(reply::ok(&registration_json(&record)))
}

/// The service that the id scope of the path names.
fn service(call: &Call) -> Result<Arc<Provisioning>, HubError> {
    let scope = IdScope::parse(call.target.segment(0)).ok();
    let service = scope.and_then(|scope| call.platform.provisioning_of(&scope).cloned());
    service.ok_or_else(|| unauthorized("Unauthorized").with_detail("the id scope is not this service's"))
}

/// What the device presented. Without anything it is refused before its body is read; that is also the first step of a TPM,
/// which needs a body and an answer with `authenticationKey`.
fn credentials(call: &Call) -> Result<Credentials, HubError> {
    let credentials = Credentials {
        token: call.token().map(|token| SecretText::new(token.to_owned())),
        certificates: call.peer.certificates().to_vec(),
        peer: Some(call.peer.address.ip()),
    };
    if credentials.token.is_none() && credentials.certificates.is_empty() {
        return Err(unauthorized(
            "Unauthorized: neither an Authorization header nor a client certificate. TPM attestation is not available \
             in this release of the provisioning service.",
        ));
    }
    Ok(credentials)
}

async fn attempt(call: &Call, body: Body, credentials: Credentials) -> Result<Attempt, HubError> {
    let text = read_text(body, MAX_REGISTRATION_BYTES).await?;
    let document = if text.trim().is_empty() { Value::Object(Map::new()) } else { parse_json(&text)? };
    let id = call.target.segment(2).to_owned();
    let force = call.target.parameter("forceRegistration").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let version = call.target.parameter("api-version").map(str::to_owned);
    Attempt::from_document(&id, &document, credentials, force, version)
}

/// The host as the client wrote it, port included.
fn host(call: &Call) -> String {
    let host = call.header(http::header::HOST).map(str::to_owned);
    host.unwrap_or_else(|| {
        let names = call.platform.provisioning().host_names();
        names.first().map(|name| name.as_str().to_owned()).unwrap_or_default()
    })
}

fn with_retry_after(reply: Reply, running: &Running) -> Reply {
    let seconds = running.retry_after.unwrap_or(RETRY_AFTER_SECONDS);
    reply::with_header(reply, RETRY_AFTER, &seconds.to_string())
}

fn unauthorized(message: &str) -> HubError {
    HubError::new(ErrorCode::IotHubUnauthorizedAccess, message)
}
