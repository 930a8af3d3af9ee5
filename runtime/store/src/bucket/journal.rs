//! The last commit of an owner. See `FORMAT.md`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{CommitError, Revision, StoreError};

/// What a journal begins with; the digit is the version of the format.
const MAGIC: &[u8; 4] = b"NVJ1";

/// Commits that a journal remembers by their marks: see [`Journal::holds`].
const REMEMBERED: usize = 64;

/// The length of a value that says: deleted.
const DELETED: u32 = u32::MAX;

/// A commit: its revision, and the keys that it changes. An owner without commits is at revision 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) revision: u64,
    /// Random marks of this commit and those before it, the oldest first.
    pub(super) marks: Vec<u64>,
    pub(super) changes: BTreeMap<String, Option<Bytes>>,
}

impl Journal {
    /// The commit that follows, with its mark.
    pub(super) fn next(&self, mark: u64, changes: BTreeMap<String, Option<Bytes>>) -> Result<Self, CommitError> {
        let revision = self.revision.checked_add(1).ok_or(CommitError::Full)?;
        let old = self.marks.iter().rev().take(REMEMBERED - 1).rev();
        Ok(Self { revision, marks: old.copied().chain([mark]).collect(), changes })
    }

    /// Whether the commit with that mark and revision is this one or one before it. Of what is too long ago only its writer
    /// knows, who was told that it succeeded.
    pub(super) fn holds(&self, mark: u64, revision: u64) -> bool {
        let is_forgotten = self.revision.saturating_sub(revision) >= REMEMBERED as u64;
        self.marks.contains(&mark) || is_forgotten
    }

    /// What it changes `key` to, if it is about that key.
    pub(super) fn change(&self, key: &str) -> Option<Option<Bytes>> {
        self.changes.get(key).cloned()
    }

    /// The revision as commits return it; the least for an owner without commits.
    pub(super) fn newest(&self) -> Result<Revision, CommitError> {
        Revision::new(self.revision.max(1)).ok_or(CommitError::Full)
    }

    pub(super) fn decode(key: &str, bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        read(bytes).ok_or_else(|| StoreError::Corrupt(key.to_owned()))
    }

    /// Magic, revision, the number of marks in four bytes, the marks, then for each key: two lengths of four bytes, the key,
    /// the value. Numbers are little-endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.marks.len()).unwrap_or(0).to_le_bytes());
        self.marks.iter().for_each(|mark| bytes.extend_from_slice(&mark.to_le_bytes()));
        for (key, value) in &self.changes {
            // Keys and values are bounded far below.
            bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(DELETED).to_le_bytes());
            let length = value.as_ref().map_or(DELETED, |value| u32::try_from(value.len()).unwrap_or(DELETED));
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        bytes
    }
}

fn read(bytes: &[u8]) -> Option<Journal> {
    let (revision, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut marks = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (mark, after) = rest.split_first_chunk::<8>()?;
        marks.push(u64::from_le_bytes(*mark));
        rest = after;
    }
    let mut changes = BTreeMap::new();
    while !rest.is_empty() {
        let (key_length, after) = rest.split_first_chunk::<4>()?;
        let (value_length, after) = after.split_first_chunk::<4>()?;
        let (key, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*key_length)).ok()?)?;
        let value_length = u32::from_le_bytes(*value_length);
        let (value, after) = match value_length {
            DELETED => (None, after),
            length => {
                let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(Bytes::copy_from_slice(value)), after)
            }
        };
        changes.insert(std::str::from_utf8(key).ok()?.to_owned(), value);
        rest = after;
    }
    Some(Journal { revision: u64::from_le_bytes(*revision), marks, changes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            revision in any::<u64>(),
            marks in proptest::collection::vec(any::<u64>(), 0..5),
            changes in proptest::collection::btree_map(".{0,10}", proptest::option::of(".{0,20}"), 0..6),
        ) {
            let changes = changes.into_iter().map(|(key, value)| (key, value.map(Bytes::from))).collect();
            let journal = Journal { revision, marks, changes };
            let bytes = journal.encode();
            prop_assert_eq!(Journal::decode("j", Some(&bytes)).unwrap(), journal);
        }

        #[test]
        fn other_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), magic in any::<bool>()) {
            let bytes = if magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            if let Ok(journal) = Journal::decode("j", Some(&bytes)) {
                prop_assert!(journal.encode().len() <= bytes.len());
            }
        }
    }
}
