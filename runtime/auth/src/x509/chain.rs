//! Chains from a client's certificate to a trusted CA.

use std::time::Duration;

use nave_model::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, VerifiedPath};
use x509_parser::x509::X509Version;

use super::authority::{CaCertificate, TrustAnchors};
use super::certificate::{ClientCertificates, parse_der, timestamp};
use super::signature::{ALGORITHMS, is_signed_by};

/// Why no chain leads from the presented certificate to a trusted CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A certificate of the path, or the CA itself, is no longer valid.
    #[error("a certificate of the chain has expired")]
    Expired,
    /// A certificate of the path, or the CA itself, is not yet valid.
    #[error("a certificate of the chain is not valid yet")]
    NotYetValid,
    /// No path: the CA is not registered, or the client did not send its intermediates.
    #[error("no registered certificate authority has issued the chain, or an intermediate certificate is missing")]
    UnknownIssuer,
    /// A name fits and the signature does not.
    #[error("a signature in the chain is wrong")]
    BadSignature,
    /// An extended key usage that allows neither client authentication nor everything.
    #[error("a certificate of the chain is not meant for client authentication")]
    NotForClients,
    /// A CA has issued more levels than its path length allows, or the path is longer than six intermediates.
    #[error("the chain is longer than a certificate authority in it allows")]
    PathTooLong,
    /// An issuer in the path is not a CA, or may not sign certificates.
    #[error("a certificate of the chain was issued by one that is not of a certificate authority")]
    NotACa,
    /// The presented certificate says that it is a CA.
    #[error("the presented certificate is one of a certificate authority, not of a device")]
    CaAsLeaf,
    /// A name constraint of a CA excludes the certificate.
    #[error("a name constraint in the chain excludes the certificate")]
    NameConstraint,
    /// Something that is not supported; the text says what, for the log.
    #[error("the chain cannot be verified: {0}")]
    Unsupported(String),
}

/// A chain that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedChain {
    /// Which of the trust anchors it ends at: the nearest one to the leaf (protocol notes: provisioning §7).
    pub anchor_index: usize,
    /// The intermediates between the leaf and the anchor, from the leaf upwards; neither leaf nor anchor is in it.
    pub path: Vec<CertificateDer<'static>>,
}

/// Verifies that the presented leaf leads to one of `anchors`, through the presented certificates.
///
/// Checked at `now`: the validity of every certificate including the anchor's, signatures, basic constraints, path
/// lengths (the anchor's too), key usage of issuers, extended key usage as a client (none at all is fine, as device
/// certificates often have none), name constraints. Subject alternative names are not needed. Anchors may be roots or
/// intermediates; what the client presents beyond the anchor is ignored. Revocation lists are not looked at: a device
/// is revoked by disabling it.
///
/// Certificates of version 1, which `openssl x509 -req` makes without an extension file, are accepted as leaf directly
/// under an anchor and as anchor, not in between.
///
/// # Errors
/// [`ChainError`], of the path that came nearest to an anchor.
pub fn verify_chain(
    certificates: &ClientCertificates,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedChain, ChainError> {
    let Some((leaf, intermediates)) = certificates.chain().split_first() else {
        return Err(ChainError::UnknownIssuer);
    };
    if certificates.leaf().version == 1 {
        return verify_version_1(leaf, anchors, now);
    }
    let entity = EndEntityCert::try_from(leaf).map_err(chain_error)?;
    let accept = |path: &VerifiedPath<'_>| match anchor_index(path, anchors) {
        Some((_, authority)) => check_anchor(authority, path, now),
        None => Err(Error::UnknownIssuer),
    };
    let time = UnixTime::since_unix_epoch(Duration::from_nanos(now.unix_nanos()));
    let path = entity
        .verify_for_usage(ALGORITHMS, anchors.anchors(), intermediates, time, ForClients, None, Some(&accept))
        .map_err(chain_error)?;
    let (anchor_index, _) = anchor_index(&path, anchors).ok_or(ChainError::UnknownIssuer)?;
    let path = path.intermediate_certificates().map(|certificate| certificate.der().into_owned()).collect();
    Ok(VerifiedChain { anchor_index, path })
}

fn anchor_index<'a>(path: &VerifiedPath<'_>, anchors: &'a TrustAnchors) -> Option<(usize, &'a CaCertificate)> {
    // By address: two certificates of one CA (a renewed root) are equal as anchors and differ in their validity.
    let index = anchors.anchors().iter().position(|anchor| std::ptr::eq(anchor, path.anchor()))?;
    Some((index, anchors.authorities().get(index)?))
}

/// What path building takes for granted of an anchor, and what it does not look at in intermediates.
fn check_anchor(authority: &CaCertificate, path: &VerifiedPath<'_>, now: Timestamp) -> Result<(), Error> {
    check_validity(authority, now)?;
    let mut between = 0u32;
    for intermediate in path.intermediate_certificates() {
        let der = intermediate.der();
        let certificate = parse_der(&der).map_err(|_| Error::BadDer)?;
        let usage = certificate.key_usage().map_err(|_| Error::ExtensionValueInvalid)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(Error::EndEntityUsedAsCa);
        }
        // Self-issued certificates do not count (RFC 5280, section 4.2.1.9).
        if certificate.subject().as_raw() != certificate.issuer().as_raw() {
            between += 1;
        }
    }
    match authority.path_length() {
        Some(allowed) if between > allowed => Err(Error::PathLenConstraintViolated),
        _ => Ok(()),
    }
}

fn check_validity(authority: &CaCertificate, now: Timestamp) -> Result<(), Error> {
    let time = |timestamp: Timestamp| UnixTime::since_unix_epoch(Duration::from_nanos(timestamp.unix_nanos()));
    let (not_before, not_after) = (authority.info().not_before, authority.info().not_after);
    if now > not_after {
        return Err(Error::CertExpired { time: time(now), not_after: time(not_after) });
    }
    if now < not_before {
        return Err(Error::CertNotValidYet { time: time(now), not_before: time(not_before) });
    }
    Ok(())
}

/// A version 1 certificate has no extensions, so that names, validity and signature are all there is to check.
fn verify_version_1(
    leaf: &CertificateDer<'_>,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedChain, ChainError> {
    let certificate = parse_der(leaf).map_err(|error| ChainError::Unsupported(error.to_string()))?;
    if certificate.version() != X509Version::V1 {
        return Err(ChainError::Unsupported("the certificate's version is unclear".to_owned()));
    }
    if now > timestamp(certificate.validity().not_after) {
        return Err(ChainError::Expired);
    }
    if now < timestamp(certificate.validity().not_before) {
        return Err(ChainError::NotYetValid);
    }
    let mut error = ChainError::UnknownIssuer;
    for (anchor_index, authority) in anchors.authorities().iter().enumerate() {
        if certificate.issuer().as_raw() != authority.subject() {
            continue;
        }
        if !is_signed_by(&certificate, authority.key()) {
            error = ChainError::BadSignature;
        } else if let Err(invalid) = check_validity(authority, now) {
            error = chain_error(invalid);
        } else {
            return Ok(VerifiedChain { anchor_index, path: Vec::new() });
        }
    }
    Err(error)
}

/// Accepts certificates without extended key usage, for client authentication, or for any purpose.
#[derive(Clone, Copy)]
struct ForClients;

impl ExtendedKeyUsageValidator for ForClients {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        // id-kp-clientAuth 1.3.6.1.5.5.7.3.2 and anyExtendedKeyUsage 2.5.29.37.0, as encoded.
        let accepted = [KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]), KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0])];
        let mut is_empty = true;
        for purpose in purposes {
            if accepted.contains(&purpose?) {
                return Ok(());
            }
            is_empty = false;
        }
        if is_empty { Ok(()) } else { Err(Error::RequiredEkuNotFound) }
    }
}

fn chain_error(error: Error) -> ChainError {
    match error {
        Error::CertExpired { .. } => ChainError::Expired,
        Error::CertNotValidYet { .. } => ChainError::NotYetValid,
        Error::UnknownIssuer => ChainError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => ChainError::BadSignature,
        Error::RequiredEkuNotFoundContext(_) | Error::RequiredEkuNotFound => ChainError::NotForClients,
        Error::PathLenConstraintViolated | Error::MaximumPathDepthExceeded => ChainError::PathTooLong,
        Error::EndEntityUsedAsCa => ChainError::NotACa,
        Error::CaUsedAsEndEntity => ChainError::CaAsLeaf,
        Error::NameConstraintViolation => ChainError::NameConstraint,
        other => ChainError::Unsupported(other.to_string()),
    }
}
