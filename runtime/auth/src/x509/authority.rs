//! Certificate authorities that somebody decided to trust.

use nave_model::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use x509_parser::x509::X509Version;

use super::certificate::{CertificateError, CertificateInfo, parse_der};
use super::signature::is_signed_by;

/// Why a certificate cannot be a trust anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// It is not a certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// It is of version 3 and its basic constraints do not say that it is a CA.
    #[error("the certificate is not one of a certificate authority: its basic constraints do not say CA")]
    NotACa,
    /// Its key usage forbids to sign certificates.
    #[error("the certificate's key usage does not allow to sign certificates")]
    KeyUsage,
    /// Its structure is beyond what path building supports (for example version 2, or malformed name constraints).
    #[error("the certificate has an unsupported structure")]
    Unsupported,
}

/// A root or intermediate certificate that is fit to be a trust anchor. Being one says nothing about trust: that is
/// proof of possession ([`verify_possession`](super::verify_possession)) or an operator's word.
#[derive(Clone, Debug)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    info: CertificateInfo,
    anchor: TrustAnchor<'static>,
    /// The whole `Name` of the subject in DER, as the issuer field of what it signs repeats it.
    subject: Vec<u8>,
    key: Vec<u8>,
    path_length: Option<u32>,
    is_self_signed: bool,
}

impl CaCertificate {
    /// Reads a CA certificate: version 3 with CA basic constraints, or a version 1 root. Its validity is not checked
    /// here but at every use.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        let certificate = parse_der(der)?;
        let mut path_length = None;
        if certificate.version() != X509Version::V1 {
            let constraints = certificate.basic_constraints().map_err(|_| CaError::Unsupported)?;
            let constraints = constraints.filter(|found| found.value.ca).ok_or(CaError::NotACa)?;
            path_length = constraints.value.path_len_constraint;
            let usage = certificate.key_usage().map_err(|_| CaError::Unsupported)?;
            if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
                return Err(CaError::KeyUsage);
            }
        }
        let owned = CertificateDer::from(der.to_vec());
        let anchor = webpki::anchor_from_trusted_cert(&owned).map_err(|_| CaError::Unsupported)?.to_owned();
        let (subject, key) = (certificate.subject().as_raw().to_vec(), certificate.public_key().raw.to_vec());
        let is_self_signed = certificate.issuer().as_raw() == subject && is_signed_by(&certificate, &key);
        let info = CertificateInfo::of(&certificate, der);
        Ok(Self { der: owned, info, anchor, subject, key, path_length, is_self_signed })
    }

    /// The certificate itself.
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// What it says.
    pub const fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// Whether it is a root: issuer and subject are the same and the signature is its own.
    pub const fn is_self_signed(&self) -> bool {
        self.is_self_signed
    }

    /// Whether it is within its validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.info.not_before <= now && now <= self.info.not_after
    }

    /// The subject's `Name` in DER.
    pub(super) fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The `SubjectPublicKeyInfo` in DER.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// How many intermediates may lie between it and a leaf; `None` is any number.
    pub(super) const fn path_length(&self) -> Option<u32> {
        self.path_length
    }
}

/// A set of CAs, prepared for verifying many chains: build it when the set changes, not per connection.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchors {
    authorities: Vec<CaCertificate>,
    /// In the order of `authorities`; path building wants them in one piece.
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustAnchors {
    /// Prepares the set; [`VerifiedChain::anchor_index`](super::VerifiedChain::anchor_index) counts in this order.
    pub fn new(authorities: impl IntoIterator<Item = CaCertificate>) -> Self {
        let authorities: Vec<_> = authorities.into_iter().collect();
        let anchors = authorities.iter().map(|authority| authority.anchor.clone()).collect();
        Self { authorities, anchors }
    }

    /// The CAs in the order in which they were given.
    pub fn authorities(&self) -> &[CaCertificate] {
        &self.authorities
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{IsCa, KeyUsagePurpose};

    use super::*;
    use crate::x509::fixtures::{Authority, NOW, fixture, years};

    #[test]
    fn roots_and_intermediates_are_fit() {
        let root = Authority::root("root");
        assert!(root.ca().is_self_signed());
        let intermediate = root.intermediate("intermediate").ca();
        assert!(!intermediate.is_self_signed());
        assert_eq!(intermediate.info().issuer_name, "CN=root");
        let impostor = Authority::root("other").intermediate("other");
        assert!(!impostor.ca().is_self_signed(), "same name, other key");
        for name in ["rsa-root", "rsa-root-v1"] {
            assert!(CaCertificate::parse(&fixture(name)).unwrap().is_self_signed(), "{name}");
        }
    }

    #[test]
    fn others_are_not() {
        let root = Authority::root("root");
        let refused = |der: &[u8]| CaCertificate::parse(der).unwrap_err();
        assert_eq!(refused(&root.leaf("dev-1")), CaError::NotACa);
        assert_eq!(refused(&root.leaf_with("dev-1", |params| params.is_ca = IsCa::ExplicitNoCa)), CaError::NotACa);
        let no_signing = Authority::root_with("r", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
        assert_eq!(refused(&no_signing.der), CaError::KeyUsage);
        assert_eq!(refused(b"junk"), CaError::Certificate(CertificateError::Der));
    }

    #[test]
    fn validity_includes_both_ends() {
        let ca = Authority::root_with("r", |params| years(params, 2027, 2028)).ca();
        let (from, to) = (ca.info().not_before, ca.info().not_after);
        assert!(ca.is_valid_at(NOW) && ca.is_valid_at(from) && ca.is_valid_at(to));
        assert!(!ca.is_valid_at(Timestamp::from_unix_nanos(from.unix_nanos() - 1)));
        assert!(!ca.is_valid_at(Timestamp::from_unix_nanos(to.unix_nanos() + 1)));
    }
}
