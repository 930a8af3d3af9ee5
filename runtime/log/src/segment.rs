//! The head of a segment file. See `FORMAT.md`, "Segment".

use nave_model::Timestamp;

use crate::frame::{take_u32, take_u64};

/// The format that this program writes and the newest that it reads.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"NAVE-LOG";
const SUFFIX: &str = ".segment";

/// What a segment starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Segments are numbered from 0 without a gap.
    pub(crate) id: u64,
    /// Where the segment before ends. Bytes behind that place were never acknowledged.
    pub(crate) previous_end: u64,
    /// For each partition the sequence number of its next record and the enqueued time of its last one.
    pub(crate) partitions: Vec<(u64, Timestamp)>,
}

/// Why bytes are not a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    Newer(u32),
    Damaged,
}

/// Bytes of the head of a log with so many partitions.
pub(crate) const fn head_len(partitions: usize) -> usize {
    36 + 16 * partitions
}

/// The seed of the checksums in a segment: neither bytes from another log or segment nor what a device puts into a message
/// pass for a frame.
pub(crate) const fn seed(salt: u32, id: u64) -> u32 {
    // The low half tells neighbours apart.
    salt ^ (id as u32)
}

pub(crate) fn file_name(id: u64) -> String {
    format!("{id:020}{SUFFIX}")
}

/// The id in a file name, if it is one of a segment.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    let id = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (file_name(id) == name).then_some(id)
}

impl Head {
    pub(crate) fn encode(&self, salt: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(head_len(self.partitions.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        // At most 32.
        bytes.extend_from_slice(&(self.partitions.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        for (next, last) in &self.partitions {
            bytes.extend_from_slice(&next.to_le_bytes());
            bytes.extend_from_slice(&last.unix_nanos().to_le_bytes());
        }
        let checksum = crc32c::crc32c_append(seed(salt, self.id), &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the head of segment `id` in a log with so many partitions.
    pub(crate) fn decode(bytes: &[u8], id: u64, partitions: usize, salt: u32) -> Result<Self, HeadError> {
        if let Some((MAGIC, rest)) = bytes.split_first_chunk::<8>()
            && let Some(format) = take_u32(&mut &*rest)
            && format > FORMAT
        {
            return Err(HeadError::Newer(format));
        }
        Self::decode_current(bytes, id, partitions, salt).ok_or(HeadError::Damaged)
    }

    fn decode_current(bytes: &[u8], id: u64, partitions: usize, salt: u32) -> Option<Self> {
        let (content, checksum) = bytes.get(..head_len(partitions))?.split_last_chunk::<4>()?;
        if crc32c::crc32c_append(seed(salt, id), content) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (magic, mut rest) = content.split_first_chunk::<8>()?;
        let rest = &mut rest;
        let sound = magic == MAGIC
            && take_u32(rest)? == FORMAT
            && take_u32(rest)? as usize == partitions
            && take_u64(rest)? == id;
        if !sound {
            return None;
        }
        let previous_end = take_u64(rest)?;
        let partitions = (0..partitions)
            .map(|_| Some((take_u64(rest)?, Timestamp::from_unix_nanos(take_u64(rest)?))))
            .collect::<Option<_>>()?;
        Some(Self { id, previous_end, partitions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_is_read_as_written_and_damage_is_noticed(
            id: u64, previous_end: u64, salt: u32,
            partitions in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..33),
            at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let count = partitions.len();
            let partitions = partitions.into_iter().map(|(next, last)| (next, Timestamp::from_unix_nanos(last))).collect();
            let head = Head { id, previous_end, partitions };
            let mut bytes = head.encode(salt);
            prop_assert_eq!(bytes.len(), head_len(count));
            prop_assert_eq!(Head::decode(&bytes, id, count, salt), Ok(head));
            prop_assert!(Head::decode(&bytes, id.wrapping_add(1), count, salt).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Head::decode(&bytes, id, count, salt).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), partitions in 1..33_usize) {
            prop_assert!(Head::decode(&bytes, 0, partitions, 0).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let head = Head { id: 0, previous_end: 0, partitions: vec![(0, Timestamp::default())] };
        let mut bytes = head.encode(1);
        bytes[8] = 2;
        assert_eq!(Head::decode(&bytes, 0, 1, 1), Err(HeadError::Newer(2)));
    }

    #[test]
    fn only_names_that_we_would_give_are_segments() {
        assert_eq!(id_of(&file_name(7)), Some(7));
        for name in ["7.segment", "+0000000000000000007.segment", "00000000000000000007.segment.old", "manifest"] {
            assert_eq!(id_of(name), None, "{name}");
        }
    }
}
