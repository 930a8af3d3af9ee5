//! Chains from a client's certificate to a trusted CA.

use std::time::Duration;

use nave_model::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext, VerifiedPath,
};
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
        if is_empty {
            return Ok(());
        }
        let (required, present) = (KeyUsage::client_auth(), Vec::new());
        Err(Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}

fn chain_error(error: Error) -> ChainError {
    match error {
        Error::CertExpired { .. } => ChainError::Expired,
        Error::CertNotValidYet { .. } => ChainError::NotYetValid,
        Error::UnknownIssuer => ChainError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => ChainError::BadSignature,
        Error::RequiredEkuNotFoundContext(_) => ChainError::NotForClients,
        Error::PathLenConstraintViolated | Error::MaximumPathDepthExceeded => ChainError::PathTooLong,
        Error::EndEntityUsedAsCa => ChainError::NotACa,
        Error::CaUsedAsEndEntity => ChainError::CaAsLeaf,
        Error::NameConstraintViolation => ChainError::NameConstraint,
        other => ChainError::Unsupported(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
        NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
    };

    use super::*;
    use crate::x509::fixtures::{Authority, NOW, anchors, fixture, presented, self_signed, years};

    fn verify(chain: &[&CertificateDer<'static>], authorities: &[&Authority]) -> Result<VerifiedChain, ChainError> {
        verify_chain(&presented(chain), &anchors(authorities), NOW)
    }

    #[test]
    fn leads_through_two_intermediates_in_any_order() {
        let root = Authority::root("root");
        let upper = root.intermediate("upper");
        let lower = upper.intermediate("lower");
        let leaf = lower.leaf("dev-1");
        let other = Authority::root("other");
        let expected = VerifiedChain { anchor_index: 1, path: vec![lower.der.clone(), upper.der.clone()] };
        for chain in [
            &[&leaf, &lower.der, &upper.der][..],
            &[&leaf, &upper.der, &lower.der],
            &[&leaf, &lower.der, &upper.der, &root.der],
            &[&leaf, &other.der, &root.der, &upper.der, &lower.der],
        ] {
            assert_eq!(verify(chain, &[&other, &root]), Ok(expected.clone()));
        }
        assert_eq!(verify(&[&leaf, &lower.der], &[&root]), Err(ChainError::UnknownIssuer), "upper is missing");
        assert_eq!(verify(&[&leaf], &[&root]), Err(ChainError::UnknownIssuer));
        assert_eq!(verify(&[&leaf, &lower.der, &upper.der], &[&other]), Err(ChainError::UnknownIssuer));
        assert_eq!(verify(&[&leaf, &lower.der, &upper.der], &[]), Err(ChainError::UnknownIssuer));
    }

    #[test]
    fn intermediates_may_be_anchors_and_the_nearest_decides() {
        let root = Authority::root("root");
        let upper = root.intermediate("upper");
        let lower = upper.intermediate("lower");
        let leaf = lower.leaf("dev-1");
        let chain = [&leaf, &lower.der, &upper.der, &root.der];
        let index = |authorities: &[&Authority]| verify(&chain, authorities).map(|found| found.anchor_index);
        assert_eq!(index(&[&upper]), Ok(0));
        assert_eq!(index(&[&root, &upper, &lower]), Ok(2));
        assert_eq!(index(&[&root, &upper]), Ok(1));
        assert_eq!(verify(&[&leaf], &[&lower]), Ok(VerifiedChain { anchor_index: 0, path: Vec::new() }));
    }

    #[test]
    fn a_wrong_key_under_the_right_name_is_no_issuer() {
        let (root, impostor) = (Authority::root("root"), Authority::root("root"));
        assert_eq!(verify(&[&impostor.leaf("dev-1")], &[&root]), Err(ChainError::BadSignature));
        let (right, wrong) = (root.intermediate("sub"), impostor.intermediate("sub"));
        assert_eq!(verify(&[&wrong.leaf("dev-1"), &wrong.der], &[&root]), Err(ChainError::BadSignature));
        assert_eq!(verify(&[&wrong.leaf("dev-1"), &right.der], &[&root]), Err(ChainError::BadSignature));
        // Two authorities of one name: the right one is found.
        assert_eq!(verify(&[&impostor.leaf("dev-1")], &[&root, &impostor]).unwrap().anchor_index, 1);
        assert_eq!(verify(&[&self_signed("dev-1", |_| ())], &[&root]), Err(ChainError::UnknownIssuer));
    }

    #[test]
    fn every_certificate_has_to_be_valid_now() {
        let root = Authority::root("root");
        let sub = root.intermediate("sub");
        for (from, to, error) in [(2020, 2021, ChainError::Expired), (2030, 2031, ChainError::NotYetValid)] {
            let leaf = sub.leaf_with("dev-1", |params| years(params, from, to));
            assert_eq!(verify(&[&leaf, &sub.der], &[&root]), Err(error.clone()), "leaf");
            let old = root.intermediate_with("old", |params| years(params, from, to));
            assert_eq!(verify(&[&old.leaf("dev-1"), &old.der], &[&root]), Err(error.clone()), "intermediate");
            let old = Authority::root_with("old", |params| years(params, from, to));
            assert_eq!(verify(&[&old.leaf("dev-1")], &[&old]), Err(error.clone()), "anchor");
            assert_eq!(verify_chain(&presented(&[&sub.leaf("d")]), &anchors(&[&sub]), NOW).unwrap().anchor_index, 0);
            // A renewed root has the same name and key; the valid one of the two is found.
            let renewed = old.renewed(|params| years(params, 2020, 2050));
            assert_eq!(verify(&[&old.leaf("dev-1")], &[&old, &renewed]).unwrap().anchor_index, 1);
        }
        let eternal = root.leaf_with("dev-1", |params| years(params, 1970, 9999));
        assert!(verify(&[&eternal], &[&root]).is_ok(), "RFC 5280's certificate without expiry");
    }

    #[test]
    fn issuers_have_to_be_authorities() {
        let root = Authority::root("root");
        for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
            let device = root.intermediate_with("dev-1", |params| params.is_ca = is_ca);
            assert_eq!(verify(&[&device.leaf("dev-2"), &device.der], &[&root]), Err(ChainError::NotACa));
        }
        let no_signing =
            root.intermediate_with("sub", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        assert_eq!(verify(&[&no_signing.leaf("dev-1"), &no_signing.der], &[&root]), Err(ChainError::NotACa));
        let no_usage = root.intermediate_with("sub2", |params| params.key_usages.clear());
        assert!(verify(&[&no_usage.leaf("dev-1"), &no_usage.der], &[&root]).is_ok());
        assert_eq!(verify(&[&no_usage.der], &[&root]), Err(ChainError::CaAsLeaf));
    }

    #[test]
    fn path_lengths_bind_anchors_and_intermediates() {
        let limited = |length| {
            move |params: &mut rcgen::CertificateParams| {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
            }
        };
        for (length, depth, good) in [(0, 0, true), (0, 1, false), (1, 1, true), (1, 2, false), (2, 2, true)] {
            let expected = if good { Ok(()) } else { Err(ChainError::PathTooLong) };
            let root = Authority::root("root");
            for anchor in
                [Authority::root_with("limited", limited(length)), root.intermediate_with("limited", limited(length))]
            {
                let mut subs: Vec<Authority> = Vec::new();
                for number in 0..depth {
                    let sub = subs.last().unwrap_or(&anchor).intermediate(&format!("sub{number}"));
                    subs.push(sub);
                }
                let leaf = subs.last().unwrap_or(&anchor).leaf("dev-1");
                let mut chain = vec![&leaf];
                chain.extend(subs.iter().map(|sub| &sub.der));
                assert_eq!(verify(&chain, &[&anchor]).map(drop), expected, "anchor {length} {depth}");
                chain.push(&anchor.der);
                let under_root = verify(&chain, &[&root]).map(drop);
                if anchor.ca().is_self_signed() {
                    assert!(under_root.is_err(), "the limited one is another root");
                    continue;
                }
                assert_eq!(under_root, expected, "intermediate {length} {depth}");
            }
        }
    }

    #[test]
    fn purposes() {
        use ExtendedKeyUsagePurpose as Purpose;
        let root = Authority::root("root");
        for (purposes, good) in [
            (vec![], true),
            (vec![Purpose::ClientAuth], true),
            (vec![Purpose::ServerAuth, Purpose::ClientAuth], true),
            (vec![Purpose::Any], true),
            (vec![Purpose::Other(vec![1, 2, 3]), Purpose::Any], true),
            (vec![Purpose::ServerAuth], false),
            (vec![Purpose::Other(vec![1, 2, 3])], false),
        ] {
            let expected = if good { Ok(()) } else { Err(ChainError::NotForClients) };
            let leaf = root.leaf_with("dev-1", |params| params.extended_key_usages = purposes.clone());
            assert_eq!(verify(&[&leaf], &[&root]).map(drop), expected, "leaf {purposes:?}");
            let sub = root.intermediate_with("sub", |params| params.extended_key_usages = purposes.clone());
            assert_eq!(verify(&[&sub.leaf("d"), &sub.der], &[&root]).map(drop), expected, "issuer {purposes:?}");
        }
    }

    #[test]
    fn name_constraints_and_unknown_critical_extensions() {
        let constrained = Authority::root_with("root", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
                excluded_subtrees: Vec::new(),
            });
        });
        let named = |name: &str| {
            constrained.leaf_with("dev-1", |params| {
                params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
            })
        };
        assert!(verify(&[&named("a.example.org")], &[&constrained]).is_ok());
        assert_eq!(verify(&[&named("a.example.com")], &[&constrained]), Err(ChainError::NameConstraint));
        let root = Authority::root("root");
        for (critical, good) in [(false, true), (true, false)] {
            let leaf = root.leaf_with("dev-1", |params| {
                let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
                extension.set_criticality(critical);
                params.custom_extensions.push(extension);
            });
            let result = verify(&[&leaf], &[&root]);
            assert_eq!(result.is_ok(), good);
            assert!(good || matches!(result, Err(ChainError::Unsupported(_))));
        }
    }

    #[test]
    fn algorithms() {
        let root = Authority::root("root");
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let leaf = root.leaf_for(&key, "dev-1", |_| ());
            assert!(verify(&[&leaf], &[&root]).is_ok());
        }
        let rsa = TrustAnchors::new([CaCertificate::parse(&fixture("rsa-root")).unwrap()]);
        let under = |leaf: &str| verify_chain(&presented(&[&fixture(leaf)]), &rsa, NOW);
        assert_eq!(under("rsa-leaf-v3"), Ok(VerifiedChain { anchor_index: 0, path: Vec::new() }));
    }

    #[test]
    fn version_1_certificates() {
        let other = Authority::root("other");
        let (root, leaf) = (CaCertificate::parse(&fixture("rsa-root")).unwrap(), fixture("rsa-leaf-v1"));
        let set = TrustAnchors::new([other.ca(), root]);
        let leaf = presented(&[&leaf]);
        let (from, to) = (leaf.leaf().not_before, leaf.leaf().not_after);
        assert_eq!(verify_chain(&leaf, &set, NOW), Ok(VerifiedChain { anchor_index: 1, path: Vec::new() }));
        assert_eq!(
            verify_chain(&leaf, &set, Timestamp::from_unix_nanos(from.unix_nanos() - 1)),
            Err(ChainError::NotYetValid)
        );
        assert_eq!(
            verify_chain(&leaf, &set, Timestamp::from_unix_nanos(to.unix_nanos() + 1)),
            Err(ChainError::Expired)
        );
        assert_eq!(verify_chain(&leaf, &anchors(&[&other]), NOW), Err(ChainError::UnknownIssuer));
        let expired = TrustAnchors::new([CaCertificate::parse(&fixture("rsa-root-expired")).unwrap()]);
        assert_eq!(verify_chain(&leaf, &expired, NOW), Err(ChainError::Expired), "the anchor");
        let sha1 = presented(&[&fixture("rsa-leaf-v1-sha1")]);
        assert_eq!(verify_chain(&sha1, &set, NOW), Err(ChainError::BadSignature), "SHA-1 does not count");
        let v1_root = TrustAnchors::new([CaCertificate::parse(&fixture("rsa-root-v1")).unwrap()]);
        assert!(verify_chain(&presented(&[&fixture("rsa-leaf-v3-under-v1")]), &v1_root, NOW).is_ok());
        assert_eq!(verify_chain(&leaf, &v1_root, NOW), Err(ChainError::UnknownIssuer), "same key, other name");
    }

    #[test]
    fn a_flood_of_useless_intermediates_ends() {
        let root = Authority::root("root");
        let subs: Vec<_> = (0..9).map(|_| Authority::root("sub")).collect();
        let leaf = subs[0].leaf("dev-1");
        let mut chain = vec![&leaf];
        chain.extend(subs.iter().map(|sub| &sub.der));
        assert!(verify(&chain, &[&root]).is_err());
    }
}
