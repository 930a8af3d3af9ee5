//! Certificates as people and SDKs write them into enrollments.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::certificate::{CertificateError, MAX_CERTIFICATE_LENGTH, parse_der};

/// Longest text of a certificate, in bytes: the longest certificate in PEM, in base64 once more.
pub const MAX_CERTIFICATE_TEXT_LENGTH: usize = 2 * MAX_CERTIFICATE_LENGTH;

const PEM_BEGIN: &str = "-----BEGIN ";

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads one certificate: base64 of its DER (with or without line breaks), PEM, or base64 of PEM, as the portal, the
/// CLI and the SDKs send it (protocol notes: provisioning service §3.3 and §7).
///
/// # Errors
/// [`CertificateError::Text`], [`CertificateError::Der`], [`CertificateError::Several`], [`CertificateError::TooLong`].
pub fn parse_certificate_text(text: &str) -> Result<CertificateDer<'static>, CertificateError> {
    if text.len() > MAX_CERTIFICATE_TEXT_LENGTH {
        return Err(CertificateError::TooLong);
    }
    let certificate = if text.contains(PEM_BEGIN) {
        pem(text.as_bytes())?
    } else {
        let compact: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
        // Whoever pastes a PEM file may paste its private key with it.
        let decoded = Zeroizing::new(LENIENT.decode(compact).map_err(|_| CertificateError::Text)?);
        if decoded.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN.as_bytes()) {
            pem(&decoded)?
        } else {
            CertificateDer::from(decoded.to_vec())
        }
    };
    parse_der(&certificate)?;
    Ok(certificate)
}

fn pem(text: &[u8]) -> Result<CertificateDer<'static>, CertificateError> {
    let mut certificates = CertificateDer::pem_slice_iter(text);
    let first = certificates.next().ok_or(CertificateError::Text)?.map_err(|_| CertificateError::Text)?;
    if certificates.next().is_some() { Err(CertificateError::Several) } else { Ok(first) }
}
