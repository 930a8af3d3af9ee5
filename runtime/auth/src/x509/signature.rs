//! One signature of one certificate, without path building: for certificates of version 1 and for proofs of
//! possession.

use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;

/// The signature algorithms that count: ECDSA with P-256 and P-384, Ed25519, RSA (PKCS #1 and PSS) with at least 2048
/// bits, each with SHA-256 or better. SHA-1, RSA below 2048 bits and P-521 do not.
pub(super) use crate::crypto::ALGORITHMS;

/// Whether the key `issuer_key` (a `SubjectPublicKeyInfo` in DER) signed `certificate`.
///
/// Every algorithm that fits the key is tried; the one that the certificate states is not looked at. That is as strong
/// as the weakest of [`ALGORITHMS`], since a signature that one of them accepts was made with the key.
pub(super) fn is_signed_by(certificate: &X509Certificate<'_>, issuer_key: &[u8]) -> bool {
    let (message, signature) = (certificate.tbs_certificate.as_ref(), certificate.signature_value.data.as_ref());
    is_signature_of(issuer_key, ALGORITHMS, message, signature)
}

/// Whether `signature` is one of `message` by the holder of `key` (a `SubjectPublicKeyInfo` in DER).
pub(super) fn is_signature_of(
    key: &[u8],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = SubjectPublicKeyInfoDer::from(key);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
    algorithms.iter().any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
}
