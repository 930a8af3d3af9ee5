//! Client certificates: anybody may have issued them, but whoever presents one must hold its key.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

use crate::limits::{MAX_CLIENT_CHAIN, MAX_CLIENT_CHAIN_BYTES};

/// Asks for a certificate, requires none, accepts any issuer, and verifies the handshake's signature with the key in the
/// certificate.
///
/// The key is taken out of the certificate by position (RFC 5280 §4.1) instead of by a full parser: devices have
/// certificates of version 1, with private critical extensions or with odd dates, and what those mean for trust is decided
/// elsewhere. A thumbprint or an issuer's signature covers all bytes, so both readers see the same key.
#[derive(Debug)]
pub(super) struct AnyIssuer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyIssuer {
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { algorithms }
    }
}

impl ClientCertVerifier for AnyIssuer {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes: usize = leaf.len() + rest.iter().map(|certificate| certificate.len()).sum::<usize>();
        if rest.len() >= MAX_CLIENT_CHAIN || bytes > MAX_CLIENT_CHAIN_BYTES {
            return Err(Error::General(format!(
                "the client's chain has {} certificates of {bytes} bytes; {MAX_CLIENT_CHAIN} of {MAX_CLIENT_CHAIN_BYTES} are the limit",
                rest.len() + 1
            )));
        }
        let key = public_key(leaf)?;
        RawPublicKeyEntity::try_from(&key).map_err(|_| BAD_ENCODING)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, leaf, signed, usize::MAX)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // RFC 8446 §4.2.3: no PKCS #1 v1.5 and no SHA-1 in handshakes, and an ECDSA scheme names its curve, which is the first
        // algorithm that rustls maps the scheme to.
        if matches!(
            signed.scheme,
            SignatureScheme::RSA_PKCS1_SHA256 | SignatureScheme::RSA_PKCS1_SHA384 | SignatureScheme::RSA_PKCS1_SHA512
        ) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.verify(message, leaf, signed, 1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl AnyIssuer {
    /// Tries the first `candidates` algorithms of the scheme: TLS 1.2 does not say which curve an ECDSA signature is on.
    fn verify(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        candidates: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (_, algorithms) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let key = public_key(leaf)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| BAD_ENCODING)?;
        for algorithm in algorithms.iter().take(candidates) {
            match key.verify_signature(*algorithm, message, signed.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                // The key is of another kind than this algorithm: only the next one can tell.
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => return Err(CertificateError::BadSignature.into()),
            }
        }
        Err(CertificateError::BadSignature.into())
    }
}

const BAD_ENCODING: Error = Error::InvalidCertificate(CertificateError::BadEncoding);

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

/// The SubjectPublicKeyInfo of a certificate, with its header.
///
/// `Certificate = SEQUENCE { TBSCertificate = SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer, validity,
/// subject, subjectPublicKeyInfo, … }, … }` (RFC 5280 §4.1).
fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'a>, Error> {
    find_public_key(certificate).map(SubjectPublicKeyInfoDer::from).ok_or(BAD_ENCODING)
}

fn find_public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, after) = element(certificate)?;
    let (to_be_signed, _) = element(certificate.of(SEQUENCE)?)?;
    let mut fields = to_be_signed.of(SEQUENCE)?;
    if !after.is_empty() {
        return None;
    }
    if fields.first() == Some(&EXPLICIT_VERSION) {
        fields = element(fields)?.1;
    }
    for _ in ["serialNumber", "signature", "issuer", "validity", "subject"] {
        fields = element(fields)?.1;
    }
    let (key, _) = element(fields)?;
    key.of(SEQUENCE)?;
    Some(key.whole)
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

impl<'a> Element<'a> {
    fn of(&self, tag: u8) -> Option<&'a [u8]> {
        (self.whole.first() == Some(&tag)).then_some(self.content)
    }
}

/// Splits the first DER element off: a one-byte tag and a definite length in its shortest form (X.690 §10.1), as far as a
/// chain within [`MAX_CLIENT_CHAIN_BYTES`] needs it.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (Some(usize::from(length)).filter(|length| *length > 0x7f)?, rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (Some(usize::from(u16::from_be_bytes(*length))).filter(|length| *length > 0xff)?, rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len() - after.len())?;
    Some((Element { whole, content }, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::PublicKeyData as _;

    use super::*;

    #[test]
    fn finds_the_key_of_every_kind() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let certificate = rcgen::CertificateParams::new(vec!["device".to_owned()])
                .and_then(|parameters| parameters.self_signed(&key))
                .expect("a certificate");
            assert_eq!(find_public_key(certificate.der()), Some(key.subject_public_key_info().as_slice()));
        }
    }

    #[test]
    fn reads_a_certificate_of_version_1() {
        // SEQUENCE { SEQUENCE { INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE { NULL } } }: no version.
        let fields = [2, 1, 7, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 2, 5, 0];
        let mut certificate = vec![0x30, 17, 0x30, 15];
        certificate.extend(fields);
        assert_eq!(find_public_key(&certificate), Some(&[0x30, 2, 5, 0][..]));
    }

    #[test]
    fn refuses_lengths_that_are_not_der() {
        assert!(element(&[0x30, 0x80, 0, 0]).is_none(), "indefinite");
        assert!(element(&[0x30, 0x81, 1, 0]).is_none(), "longer than needed");
        assert!(element(&[0x30, 0x82, 0, 1, 0]).is_none(), "longer than needed");
        assert!(element(&[0x30, 2, 0]).is_none(), "cut");
        assert!(element(&[0x1f, 1, 0]).is_none(), "long tag");
    }

    #[test]
    fn finds_nothing_in_a_cut_certificate() {
        let certificate = rcgen::generate_simple_self_signed(["device".to_owned()]).expect("a certificate").cert;
        let der = certificate.der();
        for length in 0..der.len() {
            assert_eq!(find_public_key(&der[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = find_public_key(&bytes);
        }
    }
}
