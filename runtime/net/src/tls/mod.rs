//! TLS: which versions, which certificate, and what a client's certificate proves.

mod certificates;
mod session;
mod verifier;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, SupportedCipherSuite};

pub use certificates::{Certificates, Identity, IdentityError};
pub(crate) use session::{Session, Step};
use verifier::AnyIssuer;

/// The TLS settings of a listener. Cheap to clone; all clones share the certificates.
///
/// - TLS 1.2 and 1.3: the Python and Java SDKs never offer 1.3.
/// - Every client is asked for a certificate and none has to have one. The list of acceptable issuers is empty: JSSE sends
///   a self-signed certificate only then. Any issuer passes, because trust is the decision of `nave-auth`; but the
///   handshake's signature is always verified, so whoever presents a certificate holds its key.
/// - No session resumption. Measured (TLS 1.3, ECDSA P-256, 5,000 connections): a resumed handshake saves a tenth of the
///   server's time, and issuing the tickets costs every full one as much; memory is the same. Without it a client's chain
///   never has to travel in a ticket, and every connection proves its key anew.
/// - The server chooses the cipher suite, AES-128 with SHA-256 before the others: see `provider`.
/// - No ALPN: rustls refuses a client that offers only names that the server does not have, and clients that offer `h2` next
///   to `http/1.1` fall back to the latter when the server is silent.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Settings that serve `certificates`; replacing those takes effect for the next connection.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let provider = provider();
        let verifier = AnyIssuer::new(provider.signature_verification_algorithms);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(certificates);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.ignore_client_order = true;
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

/// The cryptography that everything here uses.
///
/// Of the suites that a client offers, the first of these is taken: those with SHA-256 before those with SHA-384. Current
/// processors have instructions for SHA-256, so that the key schedule of a handshake costs a sixth.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let place = |suite: &SupportedCipherSuite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    };
    // Stable: TLS 1.3 stays before 1.2, and ECDSA before RSA.
    provider.cipher_suites.sort_by_key(|suite| (suite.version().version != ProtocolVersion::TLSv1_3, place(suite)));
    Arc::new(provider)
}
