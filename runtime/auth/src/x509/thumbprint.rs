//! Thumbprints: the SHA-1 or SHA-256 of a certificate's DER.

use std::fmt;
use std::str::FromStr;

use crate::crypto;

/// A text that is not 40 or 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits")]
pub struct InvalidThumbprint;

/// The digest of a certificate. SHA-1 is here because registries in use hold such thumbprints; a second certificate
/// with a given SHA-1 is still out of reach, unlike two with the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thumbprint {
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl Thumbprint {
    /// The SHA-1 thumbprint of a certificate in DER.
    pub fn sha1(der: &[u8]) -> Self {
        Self::Sha1(crypto::sha1(der))
    }

    /// The SHA-256 thumbprint of a certificate in DER.
    pub fn sha256(der: &[u8]) -> Self {
        Self::Sha256(crypto::sha256(der))
    }

    /// Reads a thumbprint in any case; separators as tools print them (`:`, `-`, blanks) and the invisible mark that
    /// the Windows certificate dialog puts in front are skipped.
    ///
    /// # Errors
    /// [`InvalidThumbprint`].
    pub fn parse(text: &str) -> Result<Self, InvalidThumbprint> {
        let mut bytes = [0; 32];
        let mut length = 0;
        let digits = text.chars().filter(|character| !matches!(character, ':' | '-' | ' ' | '\t' | '\u{200e}'));
        for character in digits {
            let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(InvalidThumbprint)?;
            let byte = bytes.get_mut(length / 2).ok_or(InvalidThumbprint)?;
            *byte = *byte << 4 | digit;
            length += 1;
        }
        match (length, bytes.first_chunk::<20>()) {
            (40, Some(sha1)) => Ok(Self::Sha1(*sha1)),
            (64, _) => Ok(Self::Sha256(bytes)),
            _ => Err(InvalidThumbprint),
        }
    }

    /// Reads a thumbprint as the registry accepts it: digits only, no separators (protocol notes: REST §2.3).
    ///
    /// # Errors
    /// [`InvalidThumbprint`].
    pub fn parse_plain(text: &str) -> Result<Self, InvalidThumbprint> {
        if text.bytes().all(|byte| byte.is_ascii_hexdigit()) { Self::parse(text) } else { Err(InvalidThumbprint) }
    }

    /// Whether this is the thumbprint of the certificate with this DER.
    pub fn matches(&self, der: &[u8]) -> bool {
        match self {
            Self::Sha1(_) => *self == Self::sha1(der),
            Self::Sha256(_) => *self == Self::sha256(der),
        }
    }
}

impl fmt::Display for Thumbprint {
    /// Upper-case digits without separators, as .NET writes thumbprints.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02X}"))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Thumbprint({self})")
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidThumbprint;

    fn from_str(text: &str) -> Result<Self, InvalidThumbprint> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SHA-1 and SHA-256 of `abc` (FIPS 180 examples).
    const SHA1: &str = "A9993E364706816ABA3E25717850C26C9CD0D89D";
    const SHA256: &str = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";

    #[test]
    fn matches_in_every_writing() {
        for text in [SHA1, SHA256, &SHA1.to_lowercase(), &format!("\u{200e}{SHA256}")] {
            assert!(Thumbprint::parse(text).unwrap().matches(b"abc"), "{text}");
            assert!(!Thumbprint::parse(text).unwrap().matches(b"abd"), "{text}");
        }
        for separator in [":", " ", "-"] {
            let pairs: Vec<_> = SHA1.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
            let text = pairs.join(separator);
            assert_eq!(Thumbprint::parse(&text), Ok(Thumbprint::sha1(b"abc")), "{text}");
            assert_eq!(Thumbprint::parse_plain(&text), Err(InvalidThumbprint), "{text}");
        }
        assert_eq!(Thumbprint::sha256(b"abc").to_string(), SHA256);
        assert_eq!(Thumbprint::parse_plain(SHA256), Ok(Thumbprint::sha256(b"abc")));
    }

    #[test]
    fn refuses_other_lengths_and_letters() {
        for bad in ["", "A9", &SHA1[1..], &SHA256[1..], &format!("{SHA256}0"), &SHA1.replace('A', "G")] {
            assert_eq!(Thumbprint::parse(bad), Err(InvalidThumbprint), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(der in proptest::collection::vec(any::<u8>(), 0..50)) {
            for thumbprint in [Thumbprint::sha1(&der), Thumbprint::sha256(&der)] {
                prop_assert_eq!(Thumbprint::parse(&thumbprint.to_string()), Ok(thumbprint));
            }
        }

        #[test]
        fn parsing_never_panics(text in "[0-9a-fA-F: ]{0,140}|.{0,70}") {
            let _ = Thumbprint::parse(&text);
        }
    }
}
