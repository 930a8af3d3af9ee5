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
    // Without a branch in the loop it compiles to vector instructions.
    if bytes.iter().fold(false, |found, byte| found | (*byte == 0)) {
        return Err(DecodeError::NulInText);
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)
}
