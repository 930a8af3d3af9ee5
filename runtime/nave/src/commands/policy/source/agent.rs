//! The HTTP client for registries and web servers: TLS unless the server is on this machine, bounded time and size.

use std::net::IpAddr;
use std::time::Duration;

use nave_hub::policy::MAX_COMPONENT_BYTES;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::RegistryArgs;
use crate::failure::Failure;
use crate::https;

/// Time to connect, to be answered, and to read or send a body.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const BODY_TIMEOUT: Duration = Duration::from_secs(600);

/// Redirects that are followed: registries send for content to where it is stored. Authorisation does not go along.
const MAX_REDIRECTS: u32 = 5;

/// Whether a server is spoken to without TLS.
pub(super) fn is_plain(host: &str, args: &RegistryArgs) -> bool {
    args.plain_http || (is_loopback(host) && args.registry_ca.is_none())
}

/// A client; with `plain` one that also speaks HTTP without TLS.
pub(super) fn agent(plain: bool, args: &RegistryArgs) -> Result<ureq::Agent, Failure> {
    // Looked for only where they are needed.
    let authorities = if plain { Vec::new() } else { https::roots("--registry-ca", args.registry_ca.as_deref())? };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&authorities))
        .build();
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .https_only(!plain)
        .max_redirects(MAX_REDIRECTS)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_send_body(Some(BODY_TIMEOUT))
        .timeout_recv_body(Some(BODY_TIMEOUT))
        .user_agent(concat!("nave/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls);
    if plain {
        // A server on this machine is not asked for by way of another one.
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// The component at an address.
pub(super) fn download(url: &str, args: &RegistryArgs) -> Result<Vec<u8>, Failure> {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let plain = scheme == "http";
    if plain && !is_plain(host, args) {
        return Err(Failure::usage(format_args!("{shown}: HTTP without TLS needs --plain-http")));
    }
    let response = agent(plain, args)?.get(url).call().map_err(|error| failed(shown, &error))?;
    match response.status().as_u16() {
        200 => body(response, MAX_COMPONENT_BYTES, shown),
        404 => Err(Failure::NotFound(format!("{shown}: there is no such file"))),
        status => Err(Failure::runtime(format_args!("{shown}: the server answered with status {status}"))),
    }
}

/// A body that is no longer than that.
pub(super) fn body(response: ureq::http::Response<ureq::Body>, most: usize, what: &str) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    response.into_body().with_config().limit(limit).read_to_vec().map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => Failure::runtime(format_args!("{what} has more than {most} bytes")),
        error => failed(what, &error),
    })
}

/// Why there is no answer. `what` is without secrets; the errors quote no address.
pub(super) fn failed(what: &str, error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::BadUri(_) => Failure::usage(format_args!("{what}: no valid address")),
        error => Failure::Unreachable(format!("{what}: {error}")),
    }
}

/// Whether a host, with or without a port, is this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        let usual = RegistryArgs::default();
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "[::1]:5000", "LOCALHOST"] {
            assert!(is_plain(host, &usual), "{host}");
        }
        for host in ["ghcr.io", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1", ""] {
            assert!(!is_plain(host, &usual), "{host}");
        }
        assert!(is_plain("10.0.0.1", &RegistryArgs { plain_http: true, ..RegistryArgs::default() }));
        let ca = RegistryArgs { registry_ca: Some("ca.pem".into()), ..RegistryArgs::default() };
        assert!(!is_plain("localhost", &ca));
    }
}
