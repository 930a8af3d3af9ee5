//! The header in front of the records of one append. See `FORMAT.md`, "Frame".

use nave_model::Timestamp;

use crate::{MAX_APPEND_BYTES, MAX_APPEND_RECORDS, PartitionId};

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 40;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) partition: PartitionId,
    pub(crate) count: u32,
    /// Bytes of the segment that were durable when this frame was written. A broken frame before that place was not torn
    /// by a crash.
    pub(crate) durable_before: u32,
    pub(crate) base_sequence: u64,
    pub(crate) enqueued: Timestamp,
}

impl Header {
    /// Its bytes. `seed` belongs to the segment.
    pub(crate) fn encode(&self, seed: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 7] = [
            &self.payload_len.to_le_bytes(),
            &self.payload_crc.to_le_bytes(),
            &self.partition.get().to_le_bytes(),
            &self.count.to_le_bytes(),
            &self.durable_before.to_le_bytes(),
            &self.base_sequence.to_le_bytes(),
            &self.enqueued.unix_nanos().to_le_bytes(),
        ];
        let (_, mut rest) = bytes.split_at_mut(4);
        for field in fields {
            let (place, tail) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = tail;
        }
        let checksum = crc32c::crc32c_append(seed, bytes.get(4..).unwrap_or_default());
        crc_place(&mut bytes, checksum);
        bytes
    }

    /// Reads a header; `None` if these bytes are not one of this segment.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], seed: u32) -> Option<Self> {
        let (checksum, rest) = bytes.split_first_chunk::<4>()?;
        if crc32c::crc32c_append(seed, rest) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let rest = &mut &*rest;
        let header = Self {
            payload_len: take_u32(rest)?,
            payload_crc: take_u32(rest)?,
            partition: PartitionId::new(take_u32(rest)?)?,
            count: take_u32(rest)?,
            durable_before: take_u32(rest)?,
            base_sequence: take_u64(rest)?,
            enqueued: Timestamp::from_unix_nanos(take_u64(rest)?),
        };
        let sound = header.count > 0
            && header.count as usize <= MAX_APPEND_RECORDS
            && header.payload_len as usize <= MAX_APPEND_BYTES
            && header.base_sequence.checked_add(u64::from(header.count)).is_some();
        sound.then_some(header)
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_len)
    }

    /// The sequence number after its last record.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.base_sequence.saturating_add(u64::from(self.count))
    }
}

fn crc_place(bytes: &mut [u8; HEADER_BYTES], checksum: u32) {
    if let Some(place) = bytes.first_chunk_mut::<4>() {
        *place = checksum.to_le_bytes();
    }
}

pub(crate) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*bytes))
}

pub(crate) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_header() -> impl Strategy<Value = Header> {
        (
            0..=MAX_APPEND_BYTES as u32,
            any::<u32>(),
            0..32_u32,
            1..=MAX_APPEND_RECORDS as u32,
            any::<u32>(),
            0..u64::MAX / 2,
            any::<u64>(),
        )
            .prop_map(
                |(payload_len, payload_crc, partition, count, durable_before, base_sequence, enqueued)| Header {
                    payload_len,
                    payload_crc,
                    partition: PartitionId::new(partition).unwrap(),
                    count,
                    durable_before,
                    base_sequence,
                    enqueued: Timestamp::from_unix_nanos(enqueued),
                },
            )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(header in any_header(), seed: u32) {
            prop_assert_eq!(Header::decode(&header.encode(seed), seed), Some(header));
        }

        #[test]
        fn one_changed_byte_or_another_seed_is_noticed(header in any_header(), seed: u32, at in 0..HEADER_BYTES, flip in 1..=255_u8) {
            let mut bytes = header.encode(seed);
            prop_assert_eq!(Header::decode(&bytes, seed ^ u32::from(flip)), None);
            bytes[at] ^= flip;
            prop_assert_eq!(Header::decode(&bytes, seed), None);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: [u8; HEADER_BYTES], seed: u32) {
            Header::decode(&bytes, seed);
            // Past the checksum too.
            let mut valid = bytes;
            let checksum = crc32c::crc32c_append(seed, &bytes[4..]);
            valid[..4].copy_from_slice(&checksum.to_le_bytes());
            Header::decode(&valid, seed);
        }
    }
}
