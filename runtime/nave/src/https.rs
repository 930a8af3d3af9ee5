//! A client for HTTPS servers that the operator names: web hooks, collectors.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::failure::Failure;

/// A client that trusts the certificates in the PEM file `ca`, or those of the system. `key` is where the configuration names
/// the file.
///
/// It gives every status to its caller, a redirect like any other, and no proxy of the environment decides where keys go.
pub(crate) fn agent(key: &str, ca: Option<&Path>) -> Result<ureq::Agent, Failure> {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots(key, ca)?))
        .build();
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("nave/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    Ok(config.into())
}

/// The certificates in the PEM file `ca`, which `key` named, or those that the system trusts.
pub(crate) fn roots(key: &str, ca: Option<&Path>) -> Result<Vec<Certificate<'static>>, Failure> {
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            tracing::debug!("the system has no certificate authorities: `{key}` has to name some");
        }
        return Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect());
    };
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{key}, {}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|der| Certificate::from_der(&der).to_owned()).map_err(|error| wrong(&error)))
        .collect()
}
