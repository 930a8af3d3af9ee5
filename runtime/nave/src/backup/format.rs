//! The bytes of a backup. See `BACKUP.md`.

/// What a backup begins with.
pub(super) const MAGIC: &[u8; 8] = b"NAVE-BAK";

/// The version that this program writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;

/// Length of what comes before the first block.
pub(super) const HEAD_BYTES: usize = 28;

/// Length of what comes before the payload of a block.
pub(super) const BLOCK_HEAD_BYTES: usize = 12;

/// Longest payload that is written or read: the largest entry of the store (4 MiB) with room for its key.
pub(super) const MAX_PAYLOAD: usize = 5 * 1024 * 1024;

/// What comes before key and value of an entry: two lengths and the revision.
pub(super) const ENTRY_HEAD_BYTES: usize = 16;

/// Longest path of a file in a backup.
pub(super) const MAX_PATH_BYTES: usize = 512;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file begins: its mode and its path.
    File,
    /// Bytes of the file that began last.
    Data,
    /// Entries of the store.
    Entries,
    /// The end: counts, and the hash of everything before.
    End,
}

impl Kind {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Data => 2,
            Self::Entries => 3,
            Self::End => 4,
        }
    }

    pub(super) const fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::File,
            2 => Self::Data,
            3 => Self::Entries,
            4 => Self::End,
            _ => return None,
        })
    }
}

/// The head of a block.
pub(super) fn block_head(kind: Kind, payload: &[u8]) -> [u8; BLOCK_HEAD_BYTES] {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = [0; BLOCK_HEAD_BYTES];
    head[0] = kind.byte();
    head[4..8].copy_from_slice(&length);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..8]), payload);
    head[8..].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// Takes four bytes off the front of `bytes`.
pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*first))
}

/// Takes eight bytes off the front of `bytes`.
pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*first))
}
