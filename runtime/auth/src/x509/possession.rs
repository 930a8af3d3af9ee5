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

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::*;
    use crate::x509::fixtures::{Authority, NOW, fixture, self_signed, years};

    #[test]
    fn codes_are_as_random_as_they_are_asked_to_be() {
        let mut next = 0xa0u8;
        let code = verification_code(|buffer| {
            buffer.iter_mut().for_each(|byte| {
                *byte = next;
                next += 1;
            });
        });
        assert_eq!(code, "A0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7");
    }

    #[test]
    fn only_the_holder_of_the_key_passes() {
        let ca = Authority::root("root");
        let code = verification_code(|buffer| buffer.fill(7));
        let check = |proof: &CertificateDer<'_>| verify_possession(&ca.ca(), proof, &code, NOW);
        assert_eq!(check(&ca.leaf(&code)), Ok(()));
        assert_eq!(check(&ca.leaf(&code.to_lowercase())), Ok(()));
        assert_eq!(check(&ca.intermediate(&code).der), Ok(()), "any extensions will do");
        assert_eq!(check(&ca.leaf("other")), Err(PossessionError::WrongCode));
        assert_eq!(check(&ca.leaf(&code[1..])), Err(PossessionError::WrongCode));
        assert_eq!(check(&Authority::root("root").leaf(&code)), Err(PossessionError::BadSignature));
        assert_eq!(check(&Authority::root("other").leaf(&code)), Err(PossessionError::WrongIssuer));
        assert_eq!(check(&ca.intermediate("sub").leaf(&code)), Err(PossessionError::WrongIssuer));
        assert_eq!(check(&self_signed(&code, |_| ())), Err(PossessionError::WrongIssuer));
        assert_eq!(check(&ca.leaf_with(&code, |params| years(params, 2020, 2021))), Err(PossessionError::NotValidNow));
        assert_eq!(check(&ca.leaf_with(&code, |params| years(params, 2030, 2031))), Err(PossessionError::NotValidNow));
        assert!(matches!(check(&CertificateDer::from(&b"x"[..])), Err(PossessionError::Certificate(_))));
        let nameless = ca.leaf_with("x", |params| {
            params.distinguished_name.remove(DnType::CommonName);
        });
        assert_eq!(verify_possession(&ca.ca(), &nameless, "", NOW), Err(PossessionError::WrongCode));
    }

    #[test]
    fn version_1_proofs_count_and_sha_1_does_not() {
        let ca = CaCertificate::parse(&fixture("rsa-root")).unwrap();
        assert_eq!(verify_possession(&ca, &fixture("rsa-leaf-v1"), "dev-1", NOW), Ok(()));
        let sha1 = verify_possession(&ca, &fixture("rsa-leaf-v1-sha1"), "dev-1", NOW);
        assert_eq!(sha1, Err(PossessionError::BadSignature));
    }

    #[test]
    fn a_proof_may_begin_within_the_skew() {
        let ca = Authority::root("root");
        let proof = ca.leaf_with("code", |params| years(params, 2030, 2031));
        let begin = timestamp(parse_der(&proof).unwrap().validity().not_before);
        let at = |nanos| verify_possession(&ca.ca(), &proof, "code", Timestamp::from_unix_nanos(nanos));
        let skew = u64::try_from(CLOCK_SKEW.as_nanos()).unwrap();
        assert_eq!(at(begin.unix_nanos() - skew), Ok(()));
        assert_eq!(at(begin.unix_nanos() - skew - 1), Err(PossessionError::NotValidNow));
    }
}
