//! The file that says what kind of log this is. See `FORMAT.md`, "Manifest".

use crate::disk::{Disk, SyncPoint};
use crate::frame::take_u32;
use crate::{FORMAT, MAX_PARTITIONS, OpenError};

pub(crate) const NAME: &str = "manifest";
const NEW_NAME: &str = "manifest.new";
const MAGIC: &[u8; 8] = b"NAVE-MAN";
const BYTES: usize = 24;

/// What is fixed when a log is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) partitions: u32,
    /// Random; part of the seed of all checksums.
    pub(crate) salt: u32,
}

impl Manifest {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        for number in [FORMAT, self.partitions, self.salt] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Writes the manifest of a new log; it is complete and durable, or not there.
    pub(crate) fn create(self, disk: &dyn Disk) -> Result<(), OpenError> {
        let file = disk.create(NEW_NAME)?;
        file.write_at(&self.encode(), 0)?;
        file.sync(SyncPoint::Manifest)?;
        disk.rename(NEW_NAME, NAME)?;
        disk.sync_names(SyncPoint::ManifestName)?;
        Ok(())
    }

    /// Reads the manifest of an existing log.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, OpenError> {
        let file = disk.open(NAME)?;
        let mut bytes = vec![0; BYTES.min(usize::try_from(file.len()?).unwrap_or(BYTES))];
        file.read_at(&mut bytes, 0)?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let damaged = |what| OpenError::Corrupt { file: NAME.into(), position: 0, what };
        let (magic, mut rest) = bytes.split_first_chunk::<8>().ok_or(damaged("too short"))?;
        if magic != MAGIC {
            return Err(damaged("not a manifest"));
        }
        let rest = &mut rest;
        let format = take_u32(rest).ok_or(damaged("too short"))?;
        if format > FORMAT {
            return Err(OpenError::NewerFormat { file: NAME.into(), found: format, known: FORMAT });
        }
        let (Some(partitions), Some(salt), Some(checksum)) = (take_u32(rest), take_u32(rest), take_u32(rest)) else {
            return Err(damaged("too short"));
        };
        let content = bytes.get(..BYTES - 4).unwrap_or_default();
        if crc32c::crc32c(content) != checksum || format != FORMAT || !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(damaged("checksum"));
        }
        Ok(Self { partitions, salt })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_manifest_is_read_as_written_and_damage_is_noticed(
            partitions in 1..=MAX_PARTITIONS, salt: u32, at in 0..BYTES, flip in 1..=255_u8,
        ) {
            let manifest = Manifest { partitions, salt };
            let mut bytes = manifest.encode();
            prop_assert_eq!(bytes.len(), BYTES);
            prop_assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
            prop_assert!(Manifest::decode(&bytes[..at]).is_err());
            bytes[at] ^= flip;
            prop_assert!(Manifest::decode(&bytes).is_err());
        }
    }
}
