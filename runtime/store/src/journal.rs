//! Cutting what a power cut tore off the engine's journal, before the engine opens it.
//!
//! fjall 3.1 stops quietly at a batch that ends too early, but a batch with a hole (pages reach the disk in any order, and
//! those that did not are zeros) makes it refuse to open, and one with torn lengths trips an assertion of its debug builds.
//! Every batch of ours is synced before the next one is written, so only the last one can be torn, and nobody was told of it:
//! it is cut off here. A broken batch *before* an intact one was synced; that is damage, and an error.
//!
//! The journal's format belongs to the engine. This module reads version 3 of it and keeps its hands off any other; a test
//! checks that it understands every batch that the engine writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use crate::OpenError;

/// What the engine's version file and the end of every batch contain.
const MAGIC: &[u8] = b"FJL\x03";

/// How far ahead of the last intact batch the sequence number of a later one can be. Keeps bytes in somebody's value that look
/// like a batch from passing for one.
const MAX_AHEAD: u64 = 1 << 20;

/// Repairs the last journal in `dir`, which nobody else has open.
pub(crate) fn cut_torn_tail(dir: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    let Some(path) = last_journal(dir).map_err(failed)? else { return Ok(()) };
    let bytes = read_without_padding(&path).map_err(failed)?;
    let version = fs::read(dir.join("version")).unwrap_or_default();
    if version.len() < MAGIC.len() && bytes.is_empty() {
        // The engine writes its version last when it creates its files, and does not go on from a half-made start.
        fs::remove_file(&path).map_err(failed)?;
        match fs::remove_file(dir.join("version")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => return Ok(()),
        }
    }
    if version != MAGIC {
        return Ok(());
    }
    let (end, last) = intact(&bytes);
    if end == bytes.len() {
        return Ok(());
    }
    let later = (end + 1..bytes.len()).find(|at| {
        let tail = bytes.get(*at..).unwrap_or_default();
        batch(tail).is_some_and(|(_, sequence)| sequence > last && sequence - last < MAX_AHEAD)
    });
    if later.is_some() {
        let what = format!("{} is damaged at byte {end}, before intact batches", path.display());
        return Err(OpenError::Corrupt { dir: dir.to_owned(), what });
    }
    tracing::info!(journal = %path.display(), position = end, "cutting off an unfinished write");
    let cut = || {
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(end as u64)?;
        file.sync_all()
    };
    cut().map_err(failed)
}

fn last_journal(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut last: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        if let Some(id) = id
            && last.as_ref().is_none_or(|(newest, _)| id > *newest)
        {
            last = Some((id, path));
        }
    }
    Ok(last.map(|(_, path)| path))
}

/// The file without the zeros at its end: the engine makes journals 64 MiB long in advance. What was never written is not
/// read: reading it would take most of the time of a start.
fn read_without_padding(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let end = end_of_data(&file)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(end).read_to_end(&mut bytes)?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(bytes)
}

/// Where the last written block of a file ends; its length where the file system does not tell.
fn end_of_data(file: &File) -> io::Result<u64> {
    let mut end = 0;
    loop {
        let data = match rustix::fs::seek(file, SeekFrom::Data(end)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => return Ok(end),
            Err(_) => return Ok(file.metadata()?.len()),
        };
        end = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => hole,
            _ => return Ok(file.metadata()?.len()),
        };
    }
}

/// Where the intact batches at the start end, and the sequence number of the last one.
fn intact(bytes: &[u8]) -> (usize, u64) {
    let (mut end, mut last) = (0, 0);
    while let Some((len, sequence)) = bytes.get(end..).and_then(batch) {
        end += len;
        last = sequence;
    }
    (end, last)
}

/// The length and the sequence number of the batch at the start of `bytes`, if there is an intact one: a start (tag 1, count,
/// sequence number), that many items (tag 2) or clears (tag 4), an end (tag 3, checksum of what is between, magic).
fn batch(bytes: &[u8]) -> Option<(usize, u64)> {
    let rest = &mut &*bytes;
    if take::<1>(rest)? != [1] {
        return None;
    }
    let count = u32::from_le_bytes(take(rest)?);
    let sequence = u64::from_le_bytes(take(rest)?);
    let content = *rest;
    for _ in 0..count {
        match take::<1>(rest)? {
            [2] => {
                let [_type, compression] = take(rest)?;
                let _keyspace: [u8; 8] = take(rest)?;
                let key = u16::from_le_bytes(take(rest)?);
                let value = u32::from_le_bytes(take(rest)?);
                let stored = u32::from_le_bytes(take(rest)?);
                if compression != 0 || value != stored {
                    return None;
                }
                *rest = rest.get(usize::from(key)..)?.get(stored as usize..)?;
            }
            [4] => {
                let _keyspace: [u8; 8] = take(rest)?;
            }
            _ => return None,
        }
    }
    let content = content.get(..content.len() - rest.len())?;
    if take::<1>(rest)? != [3] || u64::from_le_bytes(take(rest)?) != xxh3_64(content) || take::<4>(rest)? != *MAGIC {
        return None;
    }
    Some((bytes.len() - rest.len(), sequence))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn holes_are_read_as_zeros_and_padding_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.jnl");
        let file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        assert!(read_without_padding(&path).unwrap().is_empty());
        let mut expected = vec![0; 3 << 20];
        for (at, what) in [(0, &b"begin"[..]), (1 << 20, &b"middle"[..]), ((3 << 20) - 3, &b"end"[..])] {
            std::os::unix::fs::FileExt::write_all_at(&file, what, at as u64).unwrap();
            expected[at..at + what.len()].copy_from_slice(what);
        }
        assert_eq!(read_without_padding(&path).unwrap(), expected);
        assert!(end_of_data(&file).unwrap() >= expected.len() as u64);
    }

    #[test]
    fn every_batch_of_the_engine_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).open().unwrap();
        let keyspace = database.keyspace("k", KeyspaceCreateOptions::default).unwrap();
        let mut ends = Vec::new();
        for round in 0..20_usize {
            let mut batch = database.batch().durability(Some(PersistMode::SyncData));
            for item in 0..=round {
                batch.insert(&keyspace, format!("key-{item}"), vec![7; round * 100]);
            }
            batch.remove(&keyspace, "key-0");
            batch.commit().unwrap();
            keyspace.insert("single", "value").unwrap();
            database.persist(PersistMode::SyncAll).unwrap();
            let bytes = read_without_padding(&last_journal(dir.path()).unwrap().unwrap()).unwrap();
            ends.push((bytes.len(), intact(&bytes)));
        }
        keyspace.clear().unwrap();
        database.persist(PersistMode::SyncAll).unwrap();
        let bytes = read_without_padding(&last_journal(dir.path()).unwrap().unwrap()).unwrap();
        ends.push((bytes.len(), intact(&bytes)));
        for (len, (end, _)) in &ends {
            assert_eq!(len, end);
        }
        assert!(ends.windows(2).all(|pair| pair[0].1.1 < pair[1].1.1), "sequence numbers grow");
        assert_eq!(fs::read(dir.path().join("version")).unwrap(), MAGIC);
    }

    #[test]
    fn a_half_made_start_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("0.jnl")).unwrap().set_len(4_096).unwrap();
        File::create(dir.path().join("version")).unwrap();
        cut_torn_tail(dir.path()).unwrap();
        Database::builder(dir.path()).open().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            batch(&bytes);
            let mut bytes = bytes;
            bytes.splice(0..0, [1, 1, 0, 0, 0]);
            batch(&bytes);
        }
    }
}
