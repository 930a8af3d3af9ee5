//! Reads the data types of MQTT §1.5 off the front of a slice.

use crate::decode::DecodeError;

#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u16::from_be_bytes(*first))
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(first)
    }

    /// Bytes behind a length of two bytes.
    pub(crate) fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Text behind a length of two bytes. `None` if bytes are missing.
    pub(crate) fn string(&mut self) -> Option<Result<&'a str, DecodeError>> {
        self.binary().map(text)
    }
}

/// MQTT §1.5.3: well-formed UTF-8 without U+0000. Rust's check refuses surrogates too, as the standard demands.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    if contains_any(bytes, [0]) {
        return Err(DecodeError::NulInText);
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)
}

/// Whether one of `wanted` is among `bytes`. Sixteen bytes at a time and without a branch, which compiles to vector
/// instructions (decoding a PUBLISH of 256 bytes: 40 ns instead of 73 with a plain loop).
pub(crate) fn contains_any<const N: usize>(bytes: &[u8], wanted: [u8; N]) -> bool {
    let Some(last) = bytes.last_chunk::<16>() else {
        return bytes.iter().any(|byte| wanted.contains(byte));
    };
    let mut found = [0; 16];
    // The last sixteen overlap those before: cheaper than a loop over the rest.
    for chunk in bytes.as_chunks::<16>().0.iter().chain([last]) {
        for (found, byte) in found.iter_mut().zip(chunk) {
            for wanted in wanted {
                *found |= u8::from(*byte == wanted);
            }
        }
    }
    u128::from_ne_bytes(found) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for length in 0..70 {
            let clean = vec![b'x'; length];
            assert!(!contains_any(&clean, [0, b'#']));
            for at in 0..length {
                let mut bytes = clean.clone();
                bytes[at] = [0, b'#'][at % 2];
                assert!(contains_any(&bytes, [0, b'#']), "{at} of {length}");
                assert!(!contains_any(&bytes, [b'+']));
            }
        }
    }
}
