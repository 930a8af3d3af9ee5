//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken. Not for production.

#![expect(clippy::unwrap_used, reason = "a panic is how a fuzz target reports")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use nave_env::Env as _;
use nave_env::sim::Simulation;
use nave_model::Timestamp;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, SyncPoint};
use crate::frame::{HEADER_BYTES, Header};
use crate::manifest::{self, Manifest};
use crate::recover::recover;
use crate::segment::{Head, file_name, head_len, seed};
use crate::{Encoded, PartitionId, record};

/// Partitions and salt of the log that segments are opened in.
const MANIFEST: Manifest = Manifest { partitions: 2, salt: 7 };

/// A record that is read is written as the same bytes, or as others that mean the same.
pub fn fuzz_record(data: &[u8]) {
    if let Some(record) = record::decode(data)
        && let Ok(encoded) = Encoded::of(std::slice::from_ref(&record))
    {
        assert_eq!(encoded.decoded(), [record]);
    }
    let mut rest = data;
    while let Some(part) = record::split(&mut rest) {
        let _ = record::decode(part);
    }
}

/// A frame's head with a right checksum is read and written as the same bytes.
pub fn fuzz_frame(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<HEADER_BYTES>() else { return };
    let mut bytes = *bytes;
    let checksum = crc32c::crc32c_append(7, &bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    if let Some(header) = Header::decode(&bytes, 7) {
        assert_eq!(header.encode(7), bytes);
        assert!(header.frame_len() >= HEADER_BYTES as u64 && header.next_sequence() > header.base_sequence);
    }
}

/// Whatever lies in a log's directory, opening it ends, with a log that can be read from one end to the other or with an
/// error; and a log that was opened is opened again as the same. The data are the frames of the only segment, whose head is
/// right, and each frame's checksums are made right as long as its length leads to the next.
pub fn fuzz_segment(data: &[u8]) {
    let head = Head { id: 0, previous_end: 0, partitions: vec![(0, Timestamp::default()); 2] };
    let mut bytes = head.encode(MANIFEST.salt);
    assert_eq!(bytes.len(), head_len(2));
    bytes.extend_from_slice(data);
    repair(bytes.get_mut(head_len(2)..).unwrap());
    let disk = Memory::default();
    disk.put(manifest::NAME, MANIFEST.encode());
    disk.put(&file_name(0), bytes);
    let env = Simulation::new(1, Timestamp::from_unix_seconds(1)).host();
    assert!(env.now() > Timestamp::default());
    let Ok(recovered) = recover(&disk, 2, &*env) else { return };
    for number in 0..2 {
        let partition = PartitionId::new(number).unwrap();
        let bounds = recovered.index.bounds(partition).unwrap();
        assert!(bounds.first_sequence <= bounds.next_sequence);
        if bounds.first_sequence < bounds.next_sequence {
            assert!(recovered.index.place_of(partition, bounds.first_sequence).is_some());
            assert!(recovered.index.place_of(partition, bounds.next_sequence - 1).is_some());
        }
    }
    // What was opened once opens again.
    let again = recover(&disk, 2, &*env).unwrap();
    assert_eq!(again.index.next, recovered.index.next);
}

/// Makes the checksums of frames right, from the first on.
fn repair(mut frames: &mut [u8]) {
    while frames.len() > HEADER_BYTES {
        let length = u32::from_le_bytes(*frames.get(4..8).and_then(<[u8]>::first_chunk).unwrap()) as usize;
        let Some((header, rest)) = frames.split_at_mut_checked(HEADER_BYTES) else { return };
        let Some((payload, next)) = rest.split_at_mut_checked(length) else { return };
        header[8..12].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        let checksum = crc32c::crc32c_append(seed(MANIFEST.salt, 0), &header[4..]);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        frames = next;
    }
}

/// A directory in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Arc<MemoryFile>>>);

#[derive(Default)]
struct MemoryFile(Mutex<Vec<u8>>);

impl Memory {
    fn put(&self, name: &str, bytes: Vec<u8>) {
        self.0.lock().insert(name.to_owned(), Arc::new(MemoryFile(Mutex::new(bytes))));
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.lock().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.put(name, Vec::new());
        self.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_names(&self, _: SyncPoint) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock();
        let part = bytes.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self, _: SyncPoint) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("log_record", super::fuzz_record);
        exercise("log_frame", super::fuzz_frame);
        exercise("log_segment", super::fuzz_segment);
    }
}
