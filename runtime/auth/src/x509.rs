//! X.509: what a client presented, what it says, and whether a certificate authority stands behind it.

mod authority;
mod certificate;
mod chain;
mod possession;
mod signature;
mod text;
mod thumbprint;

#[cfg(test)]
pub(crate) mod fixtures;

pub use authority::{CaCertificate, CaError, TrustAnchors};
pub use certificate::{
    CertificateError, CertificateInfo, ClientCertificates, MAX_CERTIFICATE_LENGTH, MAX_CHAIN_LENGTH,
    is_handshake_signed, subject_public_key_info,
};
pub use chain::{ChainError, VerifiedChain, verify_chain};
pub use possession::{PossessionError, verification_code, verify_possession};
pub use text::{MAX_CERTIFICATE_TEXT_LENGTH, parse_certificate_text};
pub use thumbprint::{InvalidThumbprint, Thumbprint};
