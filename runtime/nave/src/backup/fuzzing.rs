//! An entry point for a fuzzer.

#![expect(clippy::unwrap_used, reason = "a panic is how a fuzz target reports")]

use std::io::Cursor;

use ring::digest::{SHA256, digest};

use super::format::{HEAD_BYTES, Kind, MAGIC, VERSION, block_head};
use super::read::{Piece, Reader, check};

/// Anything as a backup, and as the blocks of one whose checksums and end are right: each a byte for its kind, two for the
/// length, the payload. What is read is what was put in, and of a good backup no part and no changed byte passes.
pub fn fuzz_backup(data: &[u8]) {
    let _ = check(Cursor::new(data), |_| {}).is_ok();
    let (backup, blocks, files) = sealed(data);
    let Ok(summary) = check(Cursor::new(&backup), |_| {}) else { return };
    assert_eq!((summary.files, summary.bytes), (files, backup.len() as u64));
    let mut reader = Reader::begin(Cursor::new(&backup)).unwrap();
    let mut pieces = 0;
    loop {
        match reader.next().unwrap() {
            Piece::End(_) => break,
            Piece::File { path, mode } => {
                assert!(mode <= 0o777 && !path.starts_with('/') && path.split('/').all(|part| part != ".."));
            }
            Piece::Data(_) | Piece::Entries(_) => {}
        }
        pieces += 1;
    }
    assert_eq!(pieces, blocks);
    let place = data.iter().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())) % backup.len();
    assert!(check(Cursor::new(backup.get(..place).unwrap()), |_| {}).is_err(), "the first {place} bytes pass");
    let mut changed = backup;
    *changed.get_mut(place).unwrap() ^= 1 << (place % 8);
    assert!(check(Cursor::new(changed), |_| {}).is_err(), "a change of byte {place} passes");
}

/// A backup of these blocks; how many blocks and files it has. It has as many entries as can be counted.
fn sealed(mut data: &[u8]) -> (Vec<u8>, u64, u64) {
    let mut backup = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[0; 4], &1_u64.to_le_bytes()].concat();
    let checksum = crc32c::crc32c(&backup);
    backup.extend_from_slice(&checksum.to_le_bytes());
    assert_eq!(backup.len(), HEAD_BYTES);
    let (mut blocks, mut files, mut entries) = (0_u64, 0_u64, 0_u64);
    while let Some(([kind, low, high], rest)) = data.split_first_chunk() {
        let kind = [Kind::File, Kind::Data, Kind::Entries][usize::from(kind % 3)];
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        data = rest;
        backup.extend_from_slice(&block_head(kind, payload));
        backup.extend_from_slice(payload);
        blocks += 1;
        files += u64::from(kind == Kind::File);
        if kind == Kind::Entries {
            entries += super::read::entries(payload).map_or(0, |entries| entries.len() as u64);
        }
    }
    let hash = digest(&SHA256, &backup);
    let counts: Vec<u8> = [blocks, files, entries].iter().flat_map(|count| count.to_le_bytes()).collect();
    let end = [&counts, hash.as_ref()].concat();
    backup.extend_from_slice(&block_head(Kind::End, &end));
    backup.extend_from_slice(&end);
    (backup, blocks, files)
}
