//! One HTTP client for all commands: TLS with the hub's CA, a fresh token for each request, errors as people need them.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use nave_auth::{Credential, SasToken};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::target::{Endpoint, addresses};
use crate::failure::Failure;
use crate::ready::ReadyAdmin;

/// How long a token lasts: as long as the longest stream that a command opens should be trusted to have started.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Time to connect. The hub is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest response that is read as one document. A list of 1,000 devices stays below it.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

/// A successful response.
pub(crate) struct Reply {
    /// The document; null for an empty body.
    pub(crate) body: Value,
    /// `x-ms-continuation`.
    pub(crate) continuation: Option<String>,
    /// `ETag`.
    pub(crate) etag: Option<String>,
}

/// A client of one hub, provisioning service or admin API.
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
    api_version: Option<&'static str>,
    authorization: Authorization,
    whom: String,
}

enum Authorization {
    Shared { resource: String, credential: Credential, policy: Option<String> },
    Bearer(String),
}

impl Http {
    /// A client of a hub or provisioning service.
    pub(super) fn new(endpoint: &Endpoint, api_version: &'static str) -> Result<Self, Failure> {
        let roots: Vec<Certificate<'static>> = CertificateDer::pem_slice_iter(&endpoint.ca)
            .map(|certificate| certificate.map(|der| Certificate::from_der(&der).to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::usage(format_args!("the CA certificate cannot be read: {error}")))?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        let config = config().tls_config(tls).build();
        let resolver = Nearby { is_local: endpoint.is_local };
        let host = endpoint.host_name();
        Ok(Self {
            agent: ureq::Agent::with_parts(config, DefaultConnector::default(), resolver),
            base: format!("https://{host}:{}", endpoint.https_port),
            api_version: Some(api_version),
            authorization: Authorization::Shared {
                resource: host.as_str().to_owned(),
                credential: endpoint.connection.credential.clone(),
                policy: endpoint.connection.policy.as_ref().map(|policy| policy.as_str().to_owned()),
            },
            whom: format!("{host}:{}", endpoint.https_port),
        })
    }

    /// A client of the admin API.
    pub(crate) fn admin(admin: &ReadyAdmin) -> Self {
        Self {
            agent: config().build().into(),
            base: admin.url.clone(),
            api_version: None,
            authorization: Authorization::Bearer(format!("Bearer {}", admin.token)),
            whom: admin.url.clone(),
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let body = body.map(|body| ("application/json; charset=utf-8", body.to_string().into_bytes()));
        let mut response = self.exchange(method, path, headers, body)?;
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let (continuation, etag) = (header("x-ms-continuation"), header("etag"));
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_RESPONSE_BYTES)
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        if text.trim().is_empty() {
            return Ok(Reply { body: Value::Null, continuation, etag });
        }
        let body = serde_json::from_str(&text)
            .map_err(|error| Failure::runtime(format_args!("{} did not answer in JSON: {error}", self.whom)))?;
        Ok(Reply { body, continuation, etag })
    }

    /// Sends bytes as they are; the answer is one of its headers.
    pub(crate) fn post_bytes(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        answer: &str,
    ) -> Result<Option<String>, Failure> {
        let response = self.exchange(Method::Post, path, headers, Some(("application/octet-stream", body)))?;
        Ok(response.headers().get(answer).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// Puts bytes, which are no JSON, and reads the answer.
    pub(crate) fn upload(&self, path: &str, headers: &[(&str, &str)], bytes: Vec<u8>) -> Result<Value, Failure> {
        let request = self.request("PUT", path, headers)?.body(bytes).map_err(Failure::usage)?;
        let mut response = self.answered(self.agent.run(request))?;
        let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::runtime(format_args!("{} did not answer in JSON: {error}", self.whom)))
    }

    /// Sends a GET request and leaves the answer to be read as it comes.
    pub(crate) fn stream(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        Ok(self.exchange(Method::Get, path, &[], None)?.into_body().into_reader())
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let method = match method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        };
        let request = self.request(method, path, headers)?;
        let result = match body {
            Some((kind, bytes)) => {
                let request = request.header("content-type", kind).body(bytes);
                self.agent.run(request.map_err(Failure::usage)?)
            }
            None => self.agent.run(request.body(()).map_err(Failure::usage)?),
        };
        self.answered(result)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<ureq::http::request::Builder, Failure> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let version = self.api_version.map_or_else(String::new, |version| format!("{separator}api-version={version}"));
        let url = format!("{}{path}{version}", self.base);
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("authorization", self.authorization.header()?);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request)
    }

    fn answered(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut response = result.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string().unwrap_or_default();
        Err(refusal(status, &text))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let remedy = match error {
            ureq::Error::HostNotFound => ". Is the name right, and known to this machine (`nave hosts --write`)?",
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => ". Does the hub run?",
            error if error.to_string().contains("certificate") => ". Name the right CA certificate with --ca",
            _ => "",
        };
        Failure::Unreachable(format!("{}: {error}{remedy}", self.whom))
    }
}

impl Authorization {
    fn header(&self) -> Result<String, Failure> {
        Ok(match self {
            Self::Bearer(text) => text.clone(),
            Self::Shared { credential: Credential::Token(token), .. } => token.clone(),
            Self::Shared { credential: Credential::Key(key), resource, policy } => {
                SasToken::create(resource, key, crate::serve::now().after(TOKEN_LIFE), policy.as_deref())
            }
            Self::Shared { credential: Credential::X509, .. } => {
                return Err(Failure::usage("a back end proves itself by a key or token, not by a certificate"));
            }
        })
    }
}

fn config() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    // The status is looked at here; a proxy of the environment is not for a hub that is next door.
    ureq::Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT_TIMEOUT)).proxy(None)
}

/// What the hub said, in the words that it said it.
fn refusal(status: u16, text: &str) -> Failure {
    let message = message(text).unwrap_or_else(|| format!("status {status}"));
    match status {
        404 => Failure::NotFound(message),
        401 | 403 => Failure::runtime(format_args!("not allowed: {message}")),
        409 => Failure::runtime(format_args!("conflict: {message}")),
        412 => Failure::runtime(format_args!("somebody else changed it meanwhile, repeat the command: {message}")),
        429 | 503 => Failure::runtime(format_args!("the hub is busy, try again later: {message}")),
        _ => Failure::runtime(message),
    }
}

/// The message of an error body in any of its three forms (protocol notes: limits and errors §1).
fn message(text: &str) -> Option<String> {
    let body: Value = serde_json::from_str(text).ok()?;
    let text = body.get("Message").or_else(|| body.get("message"))?.as_str()?;
    if text.starts_with('{')
        && let Some(inner) = message(text)
    {
        return Some(inner);
    }
    let words = text
        .strip_prefix("ErrorCode:")
        .and_then(|rest| rest.split_once(';'))
        .map_or(text, |(name, rest)| if rest.trim().is_empty() { name } else { rest });
    Some(crate::output::printable(words.trim()))
}

/// Finds the hub on this machine without asking a name server.
#[derive(Debug)]
struct Nearby {
    is_local: bool,
}

impl Resolver for Nearby {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(443);
        let found = addresses(self.is_local, host, port).map_err(|_| ureq::Error::HostNotFound)?;
        let mut result = self.empty();
        found.into_iter().take(16).for_each(|address| result.push(address));
        if result.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(result) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_in_every_form_of_error() {
        for (text, expected) in [
            (
                r#"{"Message":"ErrorCode:DeviceNotFound;No such device.","ExceptionMessage":"Tracking ID:x"}"#,
                "No such device.",
            ),
            (r#"{"Message":"ErrorCode:DeviceNotFound;"}"#, "DeviceNotFound"),
            (r#"{"errorCode":404201,"message":"No enrollment.","info":{}}"#, "No enrollment."),
            (
                r#"{"Message":"{\"errorCode\":404103,\"message\":\"Not\\u001b online.\"}","ExceptionMessage":""}"#,
                "Not\\u{1b} online.",
            ),
        ] {
            assert_eq!(message(text).as_deref(), Some(expected));
        }
        assert_eq!(message("<html>"), None);
        assert!(matches!(refusal(404, "<html>"), Failure::NotFound(text) if text == "status 404"));
    }
}
