//! What lies under a key: eight bytes of revision, little-endian, one byte that says whether there is a value, and the
//! value. See `FORMAT.md`.

use bytes::Bytes;

use crate::{Entry, Revision, StoreError};

const TOMBSTONE: u8 = 0;
const PRESENT: u8 = 1;
const REVISION_BYTES: usize = 8;

/// The newest value of a key, or that it was deleted. A key that never had one is revision 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) revision: u64,
    pub(super) value: Option<Bytes>,
}

impl Value {
    pub(super) fn decode(key: &str, bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let damaged = || StoreError::Corrupt(key.to_owned());
        let (revision, rest) = bytes.split_first_chunk::<REVISION_BYTES>().ok_or_else(damaged)?;
        let revision = u64::from_le_bytes(*revision);
        match rest.split_first() {
            Some((&PRESENT, value)) if revision > 0 => {
                Ok(Self { revision, value: Some(Bytes::copy_from_slice(value)) })
            }
            Some((&TOMBSTONE, [])) if revision > 0 => Ok(Self { revision, value: None }),
            _ => Err(damaged()),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let value = self.value.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(REVISION_BYTES + 1 + value.len());
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.push(if self.value.is_some() { PRESENT } else { TOMBSTONE });
        bytes.extend_from_slice(value);
        bytes
    }

    pub(super) fn into_entry(self) -> Option<Entry> {
        Some(Entry { revision: Revision::new(self.revision)?, value: self.value? })
    }
}
