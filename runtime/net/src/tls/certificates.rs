//! The server's certificates: one by default, others by name, replaceable while connections are served.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::provider;

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads a chain (leaf first) and a private key (PKCS #8, PKCS #1 or SEC 1) from PEM, and checks that the key belongs
    /// to the leaf.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| IdentityError::Chain(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Key(error.to_string()))?;
        Self::new(chain, key)
    }

    /// The same from DER; `key` in PKCS #8.
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, IdentityError> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::try_from(key).map_err(|error| IdentityError::Key(error.to_owned()))?;
        Self::new(chain, key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        if chain.is_empty() {
            return Err(IdentityError::Chain("it holds no certificate".to_owned()));
        }
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError::Mismatch,
            rustls::Error::InvalidCertificate(error) => IdentityError::Chain(format!("{error:?}")),
            other => IdentityError::Key(other.to_string()),
        })?;
        Ok(Self(Arc::new(key)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("certificates", &self.0.cert.len()).finish_non_exhaustive()
    }
}

/// Why a certificate chain and a key cannot be served. The fault is the operator's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The chain cannot be read.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(String),
    /// The private key cannot be read, or is of a kind that is not supported.
    #[error("the private key cannot be used (ECDSA P-256 and P-384, Ed25519 and RSA from 2048 bits can): {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatch,
}

/// Which certificate is served to whom. Names match exactly, without case; a client that names none of them, or nothing
/// (JSSE leaves out names without a dot, proton-j all names), gets the default.
#[derive(Debug)]
pub struct Certificates(RwLock<Arc<Table>>);

#[derive(Debug)]
struct Table {
    default: Identity,
    by_name: HashMap<String, Identity>,
}

impl Table {
    fn new(default: Identity, by_name: impl IntoIterator<Item = (String, Identity)>) -> Arc<Self> {
        let by_name = by_name.into_iter().map(|(name, identity)| (name.to_ascii_lowercase(), identity)).collect();
        Arc::new(Self { default, by_name })
    }
}

impl Certificates {
    /// A set of certificates.
    pub fn new(default: Identity, by_name: impl IntoIterator<Item = (String, Identity)>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Table::new(default, by_name))))
    }

    /// Replaces all of them at once. Connections that exist keep theirs.
    pub fn replace(&self, default: Identity, by_name: impl IntoIterator<Item = (String, Identity)>) {
        *self.0.write() = Table::new(default, by_name);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let table = Arc::clone(&self.0.read());
        let identity = name.as_ref().and_then(|name| table.by_name.get(name)).unwrap_or(&table.default);
        NAME.set(name);
        Some(Arc::clone(&identity.0))
    }
}

thread_local! {
    /// What the client hello that this thread handled last asked for. rustls' unbuffered connection knows the name and has
    /// no accessor for it; it calls the resolver on the thread that feeds it.
    static NAME: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes the name that was asked for in the client hello that this thread handled since the last call.
pub(super) fn take_server_name() -> Option<String> {
    NAME.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn reads_what_belongs_together_and_hides_the_key() {
        let (chain, key) = make();
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
        assert_eq!(format!("{identity:?}"), "Identity { certificates: 1, .. }");
    }

    #[test]
    fn says_what_is_wrong() {
        let ((chain, key), (_, other)) = (make(), make());
        assert!(matches!(Identity::from_pem(chain.as_bytes(), other.as_bytes()), Err(IdentityError::Mismatch)));
        assert!(matches!(Identity::from_pem(b"", key.as_bytes()), Err(IdentityError::Chain(_))));
        assert!(matches!(Identity::from_pem(key.as_bytes(), key.as_bytes()), Err(IdentityError::Chain(_))));
        assert!(matches!(Identity::from_pem(chain.as_bytes(), chain.as_bytes()), Err(IdentityError::Key(_))));
        assert!(matches!(Identity::from_der(vec![vec![0x30, 0]], vec![1]), Err(IdentityError::Key(_))));
    }
}
