//! Proof that whoever registers a CA holds its key.

use nave_model::Timestamp;
use rustls_pki_types::CertificateDer;

use super::authority::CaCertificate;
use super::certificate::{CertificateError, common_name_of, parse_der, timestamp};
use super::signature::is_signed_by;
use crate::sas::CLOCK_SKEW;

/// Random bytes in a verification code, twice as many characters: as long as the cloud's.
const CODE_BYTES: usize = 24;

/// Why a certificate does not prove that its presenter holds the CA's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PossessionError {
    /// It is not a certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its common name is not the verification code.
    #[error("the certificate's common name is not the verification code")]
    WrongCode,
    /// It names another issuer.
    #[error("the certificate was issued by another certificate authority")]
    WrongIssuer,
    /// The CA's key did not sign it (or with an algorithm that does not count).
    #[error("the certificate was not signed with the certificate authority's key")]
    BadSignature,
    /// It is not valid now.
    #[error("the certificate is not valid now")]
    NotValidNow,
}

/// A new verification code: 48 upper-case hexadecimal digits. `fill_random` has to fill its argument with bytes that
/// nobody can guess.
pub fn verification_code(mut fill_random: impl FnMut(&mut [u8])) -> String {
    let mut bytes = [0; CODE_BYTES];
    fill_random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Checks a proof of possession: a certificate whose common name is `code` (compared ignoring case) and that `ca`
/// signed (Azure IoT Hub documentation, X.509 certificate authorities; protocol notes: provisioning service §7).
///
/// Any version and any extensions will do: the certificate is used for this once. Its validity may begin within the
/// usual clock skew, because it was made a moment ago.
///
/// # Errors
/// [`PossessionError`].
pub fn verify_possession(
    ca: &CaCertificate,
    proof: &CertificateDer<'_>,
    code: &str,
    now: Timestamp,
) -> Result<(), PossessionError> {
    let certificate = parse_der(proof)?;
    let name = common_name_of(&certificate);
    if code.is_empty() || !name.is_some_and(|name| name.eq_ignore_ascii_case(code)) {
        return Err(PossessionError::WrongCode);
    }
    if certificate.issuer().as_raw() != ca.subject() {
        return Err(PossessionError::WrongIssuer);
    }
    if !is_signed_by(&certificate, ca.key()) {
        return Err(PossessionError::BadSignature);
    }
    let validity = certificate.validity();
    if now > timestamp(validity.not_after) || now.after(CLOCK_SKEW) < timestamp(validity.not_before) {
        return Err(PossessionError::NotValidNow);
    }
    Ok(())
}
