//! Who is calling: shared access signatures, X.509 chains, access policies.
//!
//! This crate turns what a client presented into verified facts ([`SasFacts`], [`PolicyFacts`], [`X509Facts`]) or into a
//! [`Rejection`]. It decides nothing else: whether a device may connect, or what an endpoint asks for, is decided
//! elsewhere with these facts. It is pure: the time, randomness, keys and certificates are arguments.

mod connection_string;
mod crypto;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod key;
mod percent;
mod policy;
mod rejection;
mod resource;
mod rights;
mod sas;
mod verify;
mod x509;

pub use connection_string::{ConnectionString, ConnectionStringError, Credential, MAX_CONNECTION_STRING_LENGTH};
pub use crypto::sha256;
pub use facts::{
    AuthScope, AuthType, ConnectionAuthMethod, PolicyFacts, RegistrationFacts, SasFacts, SasSigner, X509Facts,
    X509Trust,
};
pub use key::{
    DEVICE_KEY_LENGTH, ENROLLMENT_KEY_LENGTH, KeyError, KeyPair, MAX_KEY_LENGTH, MIN_KEY_LENGTH, SharedKey,
    derive_device_key,
};
pub use percent::{percent_decode, percent_encode};
pub use policy::{AccessPolicy, MAX_POLICIES, default_dps_policies, default_hub_policies};
pub use rejection::Rejection;
pub use resource::Resource;
pub use rights::{DpsRights, Rights, UnknownRight};
pub use sas::{CLOCK_SKEW, KeyName, MAX_TOKEN_LENGTH, REGISTRATION_KEY_NAME, SasError, SasToken};
pub use verify::{
    match_certificate, verify_ca_signed, verify_device_token, verify_policy_token, verify_registration_token,
};
pub use x509::{
    CaCertificate, CaError, CertificateError, CertificateInfo, ChainError, ClientCertificates, InvalidThumbprint,
    MAX_CERTIFICATE_LENGTH, MAX_CERTIFICATE_TEXT_LENGTH, MAX_CHAIN_LENGTH, PossessionError, Thumbprint, TrustAnchors,
    VerifiedChain, is_handshake_signed, parse_certificate_text, subject_public_key_info, verification_code,
    verify_chain, verify_possession,
};
