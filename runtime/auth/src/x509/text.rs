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

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::x509::fixtures::fixture;

    const PEM: &str = include_str!("fixtures/rsa-root.pem");

    #[test]
    fn reads_every_form_that_clients_send() {
        let der = fixture("rsa-root");
        let base64 = STANDARD.encode(&der);
        let lines = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap());
        for text in [
            PEM.to_owned(),
            PEM.replace('\n', "\r\n"),
            format!("Bag Attributes\n  x: y\n{PEM}"),
            base64.clone(),
            base64.trim_end_matches('=').to_owned(),
            lines.collect::<Vec<_>>().join("\r\n"),
            STANDARD.encode(PEM),
        ] {
            assert_eq!(parse_certificate_text(&text).as_deref(), Ok(&*der), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (text, error) in [
            (String::new(), CertificateError::Der),
            ("no certificate!".to_owned(), CertificateError::Text),
            ("AAAA".to_owned(), CertificateError::Der),
            (format!("{PEM}{PEM}"), CertificateError::Several),
            (STANDARD.encode(format!("{PEM}{PEM}")), CertificateError::Several),
            (key.to_owned(), CertificateError::Text),
            (PEM.replace("-----END CERTIFICATE-----", ""), CertificateError::Text),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), CertificateError::Der),
            ("A".repeat(MAX_CERTIFICATE_TEXT_LENGTH + 1), CertificateError::TooLong),
        ] {
            assert_eq!(parse_certificate_text(&text).unwrap_err(), error, "{text:.60}");
        }
        assert!(parse_certificate_text(&format!("{key}{PEM}")).is_ok(), "the key beside it is not read");
    }

    proptest! {
        #[test]
        fn never_panics(text in "(-----BEGIN CERTIFICATE-----\n)?[A-Za-z0-9+/=\n]{0,80}(-----END CERTIFICATE-----)?|.{0,80}") {
            let _ = parse_certificate_text(&text);
        }
    }
}
