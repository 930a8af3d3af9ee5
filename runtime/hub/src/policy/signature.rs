//! Who may provide policies: Ed25519 signatures by keys that the operator configured.
//!
//! What is signed is not the component but a statement about it that names policy and version, so that nobody can put an
//! old version in the place of a new one by replaying its signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_model::{AllocationPolicyName, AllocationPolicyVersion};
#[cfg(not(target_arch = "wasm32"))]
use ring::signature::{ED25519, UnparsedPublicKey};

use super::Policies;
use crate::error::HubError;
use crate::registry::argument;

/// Bytes of a signature (RFC 8032).
pub const SIGNATURE_LENGTH: usize = 64;

/// Bytes of a public key (RFC 8032).
const PUBLIC_KEY_LENGTH: usize = 32;

/// What every DER form of an Ed25519 public key begins with (RFC 8410, section 4): 12 bytes, then the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key whose signatures are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// What the operator calls it.
    pub name: String,
    key: [u8; PUBLIC_KEY_LENGTH],
}

/// The text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no Ed25519 public key: give PEM, or base64 of its {PUBLIC_KEY_LENGTH} bytes or of its DER form")]
pub struct InvalidKey;

impl TrustedKey {
    /// Reads a public key: PEM (`BEGIN PUBLIC KEY`), or base64 of its DER form or of its bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`].
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidKey> {
        let base64: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
        let bytes = STANDARD.decode(base64).map_err(|_| InvalidKey)?;
        let raw = bytes.strip_prefix(SPKI_PREFIX.as_slice()).unwrap_or(&bytes);
        Ok(Self { name: name.to_owned(), key: raw.try_into().map_err(|_| InvalidKey)? })
    }

    /// The key's bytes, base64.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.key)
    }

    /// Whether this key made `signature` for that statement.
    pub(super) fn verifies(&self, statement: &str, signature: &[u8]) -> bool {
        verifies(&self.key, statement.as_bytes(), signature)
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn verifies(key: &[u8], statement: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(statement, signature).is_ok()
}

/// In a component nobody pushes policies, so no signature counts.
#[cfg(target_arch = "wasm32")]
fn verifies(_: &[u8], _: &[u8], _: &[u8]) -> bool {
    false
}

/// What the signer of a version states, byte for byte: four lines, each ended by a line feed.
pub fn statement(name: &AllocationPolicyName, version: &AllocationPolicyVersion, digest: &str) -> String {
    format!("nave allocation policy\n{name}\n{version}\nsha256:{digest}\n")
}

impl Policies {
    /// Whose signature a version carries. Without configured keys, signatures mean nothing and nobody's is recorded.
    ///
    /// It is asked when a version is pushed and again whenever one is loaded, so before each activation, roll-back or
    /// decision that names it: a key that was taken out of the configuration lets nothing through any more.
    ///
    /// # Errors
    ///
    /// 400 if it must be signed and is not, or not by a key that is trusted.
    pub(super) fn signer(
        &self,
        name: &AllocationPolicyName,
        version: &AllocationPolicyVersion,
        digest: &str,
        signature: Option<&str>,
    ) -> Result<Option<String>, HubError> {
        if self.trusted_keys.is_empty() {
            return Ok(None);
        }
        let Some(signature) = signature else {
            return Err(argument(format!(
                "This service takes signed policies only, and version '{version}' of '{name}' is not signed."
            )));
        };
        let statement = statement(name, version, digest);
        let signature = STANDARD.decode(signature).unwrap_or_default();
        match self.trusted_keys.iter().find(|key| key.verifies(&statement, &signature)) {
            Some(key) => Ok(Some(key.name.clone())),
            None => Err(argument(format!(
                "The signature of version '{version}' of '{name}' is not one of a key that this service trusts, for these \
                 very bytes."
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn a_signature_is_for_one_version_of_one_policy_with_one_content() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let trusted = TrustedKey::parse("release", &STANDARD.encode(pair.public_key().as_ref())).unwrap();
        let der = [SPKI_PREFIX.as_slice(), pair.public_key().as_ref()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        assert_eq!(TrustedKey::parse("release", &pem), Ok(trusted.clone()));
        let said = |name: &str, version: &str, digest: &str| {
            statement(
                &AllocationPolicyName::parse(name).unwrap(),
                &AllocationPolicyVersion::parse(version).unwrap(),
                digest,
            )
        };
        let signature = pair.sign(said("a", "1", "00").as_bytes());
        assert_eq!(signature.as_ref().len(), SIGNATURE_LENGTH);
        assert!(trusted.verifies(&said("a", "1", "00"), signature.as_ref()));
        for (name, version, digest) in [("b", "1", "00"), ("a", "2", "00"), ("a", "1", "01")] {
            assert!(!trusted.verifies(&said(name, version, digest), signature.as_ref()));
        }
        assert!(!trusted.verifies(&said("a", "1", "00"), b"short"));
        assert_eq!(TrustedKey::parse("x", "AAAA"), Err(InvalidKey));
        assert_eq!(TrustedKey::parse("x", "no base64"), Err(InvalidKey));
    }
}
