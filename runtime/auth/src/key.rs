//! Shared keys: kept secret in memory, compared in constant time.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use zeroize::Zeroizing;

use crate::crypto::{hmac_sha256, verify_hmac_sha256};

/// Shortest shared key, in decoded bytes (Azure IoT Hub documentation, identity registry).
pub const MIN_KEY_LENGTH: usize = 16;

/// Longest shared key, in decoded bytes (Azure IoT Hub documentation, identity registry); also the block of SHA-256,
/// beyond which HMAC would hash the key first.
pub const MAX_KEY_LENGTH: usize = 64;

/// Length of the keys that are generated for devices, modules and access policies, in bytes.
pub const DEVICE_KEY_LENGTH: usize = 32;

/// Length of the keys that are generated for enrollments, in bytes.
pub const ENROLLMENT_KEY_LENGTH: usize = 64;

/// The .NET and Python decoders ignore left-over bits in the last character, so keys with such bits are in use.
const KEY_BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Why a text is not a shared key. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not padded standard base64.
    #[error("the key is not base64")]
    NotBase64,
    /// The key is too short or too long.
    #[error("the key has {bytes} bytes instead of {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH}")]
    Length {
        /// Its decoded length.
        bytes: usize,
    },
}

/// A symmetric key of 16 to 64 bytes. It is overwritten when dropped, has no `Display`, and its `Debug` output shows
/// nothing of it.
#[derive(Clone)]
pub struct SharedKey(Zeroizing<Vec<u8>>);

impl SharedKey {
    /// Reads a key in base64.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        // A longer text cannot be a key; it is not worth decoding.
        if text.len() > 4 * MAX_KEY_LENGTH {
            return Err(KeyError::Length { bytes: text.len() / 4 * 3 });
        }
        let bytes = Zeroizing::new(KEY_BASE64.decode(text).map_err(|_| KeyError::NotBase64)?);
        Self::from_bytes(&bytes)
    }

    /// Takes the bytes of a key.
    ///
    /// # Errors
    /// [`KeyError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if !(MIN_KEY_LENGTH..=MAX_KEY_LENGTH).contains(&bytes.len()) {
            return Err(KeyError::Length { bytes: bytes.len() });
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// A new key of `length` bytes (brought into 16 to 64) from `fill_random`, which has to fill its argument with
    /// bytes fit for keys (`nave_env::Env::fill_random`).
    pub fn generate(length: usize, mut fill_random: impl FnMut(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new(vec![0; length.clamp(MIN_KEY_LENGTH, MAX_KEY_LENGTH)]);
        fill_random(&mut bytes);
        Self(bytes)
    }

    /// The key itself, in base64: for the registry's answers, connection strings and the store, never for a log.
    pub fn expose_base64(&self) -> String {
        STANDARD.encode(&*self.0)
    }

    /// HMAC-SHA256 of `message` under this key.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0, message)
    }

    /// Whether `signature` is the HMAC-SHA256 of `message` under this key; in constant time.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        verify_hmac_sha256(&self.0, message, signature)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedKey(..)")
    }
}

impl PartialEq for SharedKey {
    /// Compares in time that does not depend on the bytes: the tags of one message under both keys are compared, and
    /// the lengths, which are not secret.
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.verifies(b"equal", &other.sign(b"equal"))
    }
}

impl Eq for SharedKey {}

/// A primary and a secondary key: either one is valid, so that keys can be rolled over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The first key, the one that connection strings are made from.
    pub primary: SharedKey,
    /// The second key.
    pub secondary: SharedKey,
}

impl KeyPair {
    /// Two new keys; see [`SharedKey::generate`].
    pub fn generate(length: usize, mut fill_random: impl FnMut(&mut [u8])) -> Self {
        Self {
            primary: SharedKey::generate(length, &mut fill_random),
            secondary: SharedKey::generate(length, &mut fill_random),
        }
    }

    /// Reads two keys in base64.
    ///
    /// # Errors
    /// [`KeyError`] of the first that is wrong.
    pub fn from_base64(primary: &str, secondary: &str) -> Result<Self, KeyError> {
        Ok(Self { primary: SharedKey::from_base64(primary)?, secondary: SharedKey::from_base64(secondary)? })
    }

    /// Both keys, the primary first.
    pub const fn both(&self) -> [&SharedKey; 2] {
        [&self.primary, &self.secondary]
    }

    /// The keys of one device of the enrollment group whose keys these are: primary from primary, secondary from
    /// secondary. They are also the device's keys in its hub. See [`derive_device_key`].
    #[must_use]
    pub fn derive(&self, registration_id: &str) -> Self {
        Self {
            primary: derive_device_key(&self.primary, registration_id),
            secondary: derive_device_key(&self.secondary, registration_id),
        }
    }
}

/// The key of one device of an enrollment group: HMAC-SHA256 of the registration id, **as the device writes it** (case
/// included), under the group's key (Azure DPS documentation, symmetric key attestation; protocol notes:
/// authentication §3.1).
pub fn derive_device_key(group_key: &SharedKey, registration_id: &str) -> SharedKey {
    SharedKey(Zeroizing::new(group_key.sign(registration_id.as_bytes()).to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn derives_the_published_test_vector() {
        let group = SharedKey::from_base64(
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
        )
        .unwrap();
        let device = derive_device_key(&group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");
        assert_eq!(device.expose_base64(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
        assert_ne!(derive_device_key(&group, "SN-007-888-abc-mac-a1-b2-c3-d4-e5-f6"), device, "case counts");
        let pair = KeyPair { primary: group.clone(), secondary: device.clone() }.derive("d");
        assert_eq!(pair.primary, derive_device_key(&group, "d"));
        assert_eq!(pair.secondary, derive_device_key(&device, "d"));
    }

    #[test]
    fn lengths_are_bounded() {
        for (bytes, good) in [(0, false), (15, false), (16, true), (32, true), (64, true), (65, false), (1000, false)] {
            let text = STANDARD.encode(vec![7; bytes]);
            assert_eq!(SharedKey::from_base64(&text).is_ok(), good, "{bytes}");
        }
        assert_eq!(SharedKey::from_bytes(&[0; 15]), Err(KeyError::Length { bytes: 15 }));
        for bad in ["not base64!", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA==\n"] {
            assert_eq!(SharedKey::from_base64(bad), Err(KeyError::NotBase64), "{bad}");
        }
        assert_eq!(
            SharedKey::from_base64("AAAAAAAAAAAAAAAAAAAAAB=="),
            SharedKey::from_base64("AAAAAAAAAAAAAAAAAAAAAA=="),
            "left-over bits do not count"
        );
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let pair = KeyPair::from_base64("c2VjcmV0c2VjcmV0c2VjcmV0", "c2VjcmV0c2VjcmV0c2VjcmV1").unwrap();
        assert_eq!(format!("{pair:?}"), "KeyPair { primary: SharedKey(..), secondary: SharedKey(..) }");
        assert_ne!(pair.primary, pair.secondary);
    }

    #[test]
    fn keys_are_generated_from_the_given_randomness() {
        let mut next = 0u8;
        let pair = KeyPair::generate(DEVICE_KEY_LENGTH, |buffer| {
            next += 1;
            buffer.fill(next);
        });
        assert_eq!(pair.primary, SharedKey::from_bytes(&[1; 32]).unwrap());
        assert_eq!(pair.secondary, SharedKey::from_bytes(&[2; 32]).unwrap());
        assert_eq!(SharedKey::generate(ENROLLMENT_KEY_LENGTH, |_| ()).0.len(), 64);
        assert_eq!(SharedKey::generate(1, |_| ()).0.len(), MIN_KEY_LENGTH);
    }

    proptest! {
        #[test]
        fn text_round_trip(bytes in proptest::collection::vec(any::<u8>(), MIN_KEY_LENGTH..=MAX_KEY_LENGTH)) {
            let key = SharedKey::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&SharedKey::from_base64(&key.expose_base64()).unwrap(), &key);
            let mut other = bytes;
            other[0] ^= 1;
            prop_assert_ne!(SharedKey::from_bytes(&other).unwrap(), key);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,300}") {
            let _ = SharedKey::from_base64(&text);
        }
    }
}
