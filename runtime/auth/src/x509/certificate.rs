//! One certificate's contents, and the certificates that a client presented.

use std::fmt::Write as _;

use nave_model::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::signature::is_signature_of;
use super::thumbprint::Thumbprint;

/// Most certificates in a presented chain: the leaf, six intermediates (as many as a path may have), the root, and
/// some that lead nowhere. A longer chain is refused unread.
pub const MAX_CHAIN_LENGTH: usize = 10;

/// Longest certificate in DER, in bytes. An RSA-4096 certificate with many extensions is 3 KB.
pub const MAX_CERTIFICATE_LENGTH: usize = 16 * 1024;

/// Why something is not a usable certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The client presented none.
    #[error("there is no certificate")]
    None,
    /// There are more than [`MAX_CHAIN_LENGTH`].
    #[error("the chain has more than {MAX_CHAIN_LENGTH} certificates")]
    ChainTooLong,
    /// It is longer than [`MAX_CERTIFICATE_LENGTH`], or its text is longer than
    /// [`MAX_CERTIFICATE_TEXT_LENGTH`](super::MAX_CERTIFICATE_TEXT_LENGTH).
    #[error("the certificate is longer than {MAX_CERTIFICATE_LENGTH} bytes")]
    TooLong,
    /// The text is neither PEM nor base64.
    #[error("the text is not a certificate in PEM or base64")]
    Text,
    /// The PEM text has several certificates where one is expected.
    #[error("the text has more than one certificate")]
    Several,
    /// The DER is not an X.509 certificate.
    #[error("the data are not an X.509 certificate")]
    Der,
}

/// The fields of the provisioning service's certificate `info` object, in its text forms, and what else is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// `subjectName`: `CN=device, O=Example`, most specific part first.
    pub subject_name: String,
    /// `issuerName`.
    pub issuer_name: String,
    /// The subject's common name; `None` if it has none **or several**, because then nobody can say which one counts.
    pub common_name: Option<String>,
    /// `serialNumber`: upper-case hexadecimal digits as encoded.
    pub serial_number: String,
    /// `version`: 3 for nearly all.
    pub version: u32,
    /// The beginning of the validity, brought into the years 1970 to 2554.
    pub not_before: Timestamp,
    /// The end of the validity (inclusive), brought into the years 1970 to 2554.
    pub not_after: Timestamp,
    /// `notBeforeUtc`: seven fractional digits and `Z`; any year.
    pub not_before_utc: String,
    /// `notAfterUtc`: as above. `9999-12-31T23:59:59.0000000Z` is RFC 5280's "no expiry".
    pub not_after_utc: String,
    /// `sha1Thumbprint`, of kind [`Thumbprint::Sha1`].
    pub sha1_thumbprint: Thumbprint,
    /// `sha256Thumbprint`, of kind [`Thumbprint::Sha256`].
    pub sha256_thumbprint: Thumbprint,
}

impl CertificateInfo {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`CertificateError::TooLong`], [`CertificateError::Der`].
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self::of(&parse_der(der)?, der))
    }

    /// The same for a certificate that is parsed already.
    pub(super) fn of(certificate: &X509Certificate<'_>, der: &[u8]) -> Self {
        let validity = certificate.validity();
        Self {
            subject_name: name_text(certificate.subject()),
            issuer_name: name_text(certificate.issuer()),
            common_name: common_name_of(certificate).map(str::to_owned),
            serial_number: certificate.raw_serial().iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02X}");
                text
            }),
            version: certificate.version().0.saturating_add(1),
            not_before: timestamp(validity.not_before),
            not_after: timestamp(validity.not_after),
            not_before_utc: time_text(validity.not_before),
            not_after_utc: time_text(validity.not_after),
            sha1_thumbprint: Thumbprint::sha1(der),
            sha256_thumbprint: Thumbprint::sha256(der),
        }
    }

    /// Whether the certificate has either of the thumbprints' digest.
    pub fn has_thumbprint(&self, thumbprint: &Thumbprint) -> bool {
        *thumbprint == self.sha1_thumbprint || *thumbprint == self.sha256_thumbprint
    }
}

/// What a client presented in the TLS handshake, the leaf first. The handshake has proved that the client holds the
/// leaf's key, and nothing else.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    chain: Vec<CertificateDer<'static>>,
    leaf: CertificateInfo,
}

impl ClientCertificates {
    /// Takes the chain in the order of the handshake.
    ///
    /// # Errors
    /// [`CertificateError`], if there is none, too much, or the leaf is not a certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Result<Self, CertificateError> {
        if chain.len() > MAX_CHAIN_LENGTH {
            return Err(CertificateError::ChainTooLong);
        }
        if chain.iter().any(|certificate| certificate.len() > MAX_CERTIFICATE_LENGTH) {
            return Err(CertificateError::TooLong);
        }
        let leaf = CertificateInfo::parse(chain.first().ok_or(CertificateError::None)?)?;
        Ok(Self { chain, leaf })
    }

    /// The leaf's contents.
    pub const fn leaf(&self) -> &CertificateInfo {
        &self.leaf
    }

    /// All certificates, the leaf first; never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// The public key of a certificate (of any version) in DER.
///
/// # Errors
/// [`CertificateError::TooLong`], [`CertificateError::Der`].
pub fn subject_public_key_info(der: &[u8]) -> Result<SubjectPublicKeyInfoDer<'static>, CertificateError> {
    Ok(SubjectPublicKeyInfoDer::from(parse_der(der)?.public_key().raw.to_vec()))
}

/// Whether the holder of the certificate's key signed `message`, by one of `algorithms`: those that the TLS library
/// maps the handshake's signature scheme to.
///
/// For client certificates of version 1: `rustls` and `webpki` verify a handshake signature only after reading the
/// whole certificate, and they read version 3 only. This needs no more of the certificate than its key.
///
/// # Errors
/// [`CertificateError::TooLong`], [`CertificateError::Der`].
pub fn is_handshake_signed(
    der: &[u8],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, CertificateError> {
    Ok(is_signature_of(parse_der(der)?.public_key().raw, algorithms, message, signature))
}

pub(super) fn parse_der(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > MAX_CERTIFICATE_LENGTH {
        return Err(CertificateError::TooLong);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Der),
    }
}

pub(super) fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix_seconds(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn time_text(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.0000000Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The subject's only common name.
pub(super) fn common_name_of<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(only), None) => only.as_str().ok(),
        _ => None,
    }
}

/// The name as .NET prints it: the parts from the most specific to the least, `, ` between them, values with special
/// characters in quotes.
fn name_text(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes: Vec<String> = part
                .iter()
                .map(|attribute| {
                    let oid = attribute.attr_type().to_id_string();
                    let value = attribute.as_str().map_or_else(|_| hex_value(attribute.as_slice()), quote);
                    match short_name(&oid) {
                        Some(name) => format!("{name}={value}"),
                        None => format!("OID.{oid}={value}"),
                    }
                })
                .collect();
            attributes.join(" + ")
        })
        .collect();
    parts.iter().rev().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn hex_value(bytes: &[u8]) -> String {
    bytes.iter().fold("#".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

fn quote(value: &str) -> String {
    let special = value.is_empty()
        || value.starts_with(' ')
        || value.ends_with(' ')
        || value.contains([',', '+', '=', '"', '\n', '<', '>', '#', ';']);
    if special { format!("\"{}\"", value.replace('"', "\"\"")) } else { value.to_owned() }
}

/// The key words of RFC 4514 and the few more that .NET knows.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "S",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "T",
        "2.5.4.42" => "G",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "E",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{DnType, SerialNumber, date_time_ymd};

    use super::*;
    use crate::x509::fixtures::{Authority, fixture, self_signed};

    #[test]
    fn says_what_openssl_says() {
        let info = CertificateInfo::parse(&fixture("rsa-leaf-v1")).unwrap();
        assert_eq!(info.subject_name, "CN=dev-1");
        assert_eq!(info.issuer_name, "CN=RSA root, O=Nave tests, C=DE");
        assert_eq!(info.common_name.as_deref(), Some("dev-1"));
        assert_eq!((info.serial_number.as_str(), info.version), ("00C0FFEE", 1));
        assert_eq!(info.not_before_utc, "2026-11-21T07:10:51.0000000Z");
        assert_eq!(info.not_after_utc, "2126-07-20T07:10:51.0000000Z");
        assert_eq!(info.not_before.iso(), info.not_before_utc);
        assert_eq!(info.not_after.iso(), info.not_after_utc);
        assert_eq!(info.sha1_thumbprint.to_string(), "3BCD26B62F2D2191F2E3C6A157088FECF943055E");
        assert_eq!(
            info.sha256_thumbprint.to_string(),
            "3E479D717BD70DD3B324EF5BB277F43474322AB2C15D35E78189515A12CC0C26"
        );
        assert_eq!(CertificateInfo::parse(&fixture("rsa-leaf-v3")).unwrap().version, 3);
    }

    #[test]
    fn odd_names_and_times() {
        let der = self_signed("a, \"b\"", |params| {
            params.distinguished_name.push(DnType::OrganizationName, "x=y");
            params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3]), "z");
            params.serial_number = Some(SerialNumber::from_slice(&[0x81, 0x02]));
            params.not_before = date_time_ymd(1960, 1, 1);
            params.not_after = date_time_ymd(9999, 12, 31);
        });
        let info = CertificateInfo::parse(&der).unwrap();
        assert_eq!(info.subject_name, r#"OID.1.2.3=z, O="x=y", CN="a, ""b""""#);
        assert_eq!(info.serial_number, "008102");
        assert_eq!(info.not_before_utc, "1960-01-01T00:00:00.0000000Z");
        assert_eq!(info.not_after_utc, "9999-12-31T00:00:00.0000000Z");
        assert_eq!(info.not_before, Timestamp::from_unix_seconds(0));
        assert_eq!(info.not_after, Timestamp::from_unix_nanos(u64::MAX));
        assert!(info.has_thumbprint(&Thumbprint::sha1(&der)) && info.has_thumbprint(&Thumbprint::sha256(&der)));
        assert!(!info.has_thumbprint(&Thumbprint::sha1(b"")));
    }

    #[test]
    fn chains_are_bounded() {
        let leaf = Authority::root("r").leaf("dev-1");
        assert_eq!(ClientCertificates::new(Vec::new()).unwrap_err(), CertificateError::None);
        assert_eq!(
            ClientCertificates::new(vec![leaf.clone(); MAX_CHAIN_LENGTH + 1]).unwrap_err(),
            CertificateError::ChainTooLong
        );
        let long = CertificateDer::from(vec![0; MAX_CERTIFICATE_LENGTH + 1]);
        assert_eq!(ClientCertificates::new(vec![leaf.clone(), long]).unwrap_err(), CertificateError::TooLong);
        let junk = CertificateDer::from(vec![0x30, 0]);
        assert_eq!(ClientCertificates::new(vec![junk]).unwrap_err(), CertificateError::Der);
        let mut trailing = leaf.to_vec();
        trailing.push(0);
        assert_eq!(CertificateInfo::parse(&trailing), Err(CertificateError::Der));
        let chain = ClientCertificates::new(vec![leaf.clone()]).unwrap();
        assert_eq!((chain.chain(), chain.leaf().common_name.as_deref()), (&[leaf][..], Some("dev-1")));
    }

    #[test]
    fn the_raw_key_verifies_what_the_certificate_signed() {
        // The root signed itself, so its own raw key has to verify it, whatever its version.
        for root in ["rsa-root", "rsa-root-v1"] {
            let root = fixture(root);
            let key = subject_public_key_info(&root).unwrap();
            let parsed = parse_der(&root).unwrap();
            let (message, signature) = (parsed.tbs_certificate.as_ref(), parsed.signature_value.data.as_ref());
            type Algorithms<'a> = &'a [&'a dyn SignatureVerificationAlgorithm];
            let check =
                |algorithms: Algorithms<'_>, message: &[u8]| is_handshake_signed(&root, algorithms, message, signature);
            assert_eq!(check(&[webpki::ring::RSA_PKCS1_2048_8192_SHA256], message), Ok(true));
            assert_eq!(check(&[webpki::ring::RSA_PKCS1_2048_8192_SHA256], b"other"), Ok(false));
            assert_eq!(check(&[webpki::ring::RSA_PKCS1_2048_8192_SHA384, webpki::ring::ED25519], message), Ok(false));
            assert_eq!(check(&[], message), Ok(false));
            assert_eq!(key.as_ref(), parsed.public_key().raw);
        }
        assert!(is_handshake_signed(b"x", &[], b"", b"").is_err());
        assert_eq!(subject_public_key_info(b"x").unwrap_err(), CertificateError::Der);
    }

    proptest! {
        #[test]
        fn damaged_certificates_never_panic(position in 0usize..900, value: u8) {
            let mut der = fixture("rsa-leaf-v3").to_vec();
            if let Some(byte) = der.get_mut(position) {
                *byte = value;
            }
            let _ = CertificateInfo::parse(&der);
            let _ = subject_public_key_info(&der);
        }
    }
}
