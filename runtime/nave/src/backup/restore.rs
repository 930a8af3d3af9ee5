//! Filling a data directory from a backup.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nave_model::{DeviceRecord, QueueRecord, Record as _, RegistrationRecord, SessionRecord};
use nave_store::{Entry, Restorer};

use super::read::{Piece, Reader};
use super::{BackupError, Summary, check};

/// How far revisions and session epochs jump. The hub that was copied went on after the copy, and what it gave out then must
/// not be given out again: entity tags would match other contents, and message keys other messages. No hub makes four
/// thousand million changes between a backup and its loss.
const SKIP: u64 = 1 << 32;

/// Restores the backup in `file` as the data directory `dir`, which must not exist or be empty. It is there whole or not at
/// all. `progress` is told how many bytes have been read, twice over: the backup is checked before it is used.
///
/// # Errors
///
/// [`BackupError`].
pub(crate) fn restore(file: &Path, dir: &Path, mut progress: impl FnMut(u64)) -> Result<Summary, BackupError> {
    let dir = std::path::absolute(dir).map_err(BackupError::io(dir.display()))?;
    let is_there = dir.is_dir();
    if is_there && fs::read_dir(&dir).map_err(BackupError::io(dir.display()))?.next().is_some() {
        return Err(BackupError::Content(format!(
            "{} is not empty: name a directory that does not exist yet, or move this one away",
            dir.display()
        )));
    }
    let open = || File::open(file).map(BufReader::new).map_err(BackupError::io(file.display()));
    check(open()?, &mut progress)?;
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".restoring.{}", std::process::id()));
    let temporary = dir.with_file_name(name);
    let filled = fill(open()?, &temporary, &mut progress);
    let done = filled.and_then(|summary| {
        if is_there {
            fs::remove_dir(&dir).map_err(BackupError::io(dir.display()))?;
        }
        fs::rename(&temporary, &dir).map_err(BackupError::io(dir.display()))?;
        sync_dir(dir.parent().unwrap_or(&dir))?;
        Ok(summary)
    });
    if done.is_err() {
        // What is left of a failed attempt is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_dir_all(&temporary);
    }
    done
}

fn fill(input: BufReader<File>, dir: &Path, progress: &mut impl FnMut(u64)) -> Result<Summary, BackupError> {
    let content = |error: nave_store::OpenError| BackupError::Content(error.to_string());
    make_dir(dir)?;
    let mut store = Restorer::create(&dir.join("store")).map_err(content)?;
    let mut reader = Reader::begin(input)?;
    let mut current: Option<(PathBuf, File)> = None;
    let mut dirs = vec![dir.to_owned()];
    loop {
        match reader.next()? {
            Piece::File { path, mode } => {
                close(current.take())?;
                let path = dir.join(path);
                for parent in
                    path.ancestors().skip(1).take_while(|parent| *parent != dir).collect::<Vec<_>>().iter().rev()
                {
                    if !parent.is_dir() {
                        make_dir(parent)?;
                        dirs.push((*parent).to_owned());
                    }
                }
                let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
                current = Some((path.clone(), file.map_err(BackupError::io(path.display()))?));
            }
            Piece::Data(bytes) => {
                if let Some((path, file)) = &mut current {
                    file.write_all(&bytes).map_err(BackupError::io(path.display()))?;
                }
            }
            Piece::Entries(entries) => {
                for (key, entry) in &entries {
                    for (key, entry) in beyond(key, entry)? {
                        store.put(&key, &entry).map_err(content)?;
                    }
                }
            }
            Piece::End(summary) => {
                close(current.take())?;
                store.finish(SKIP).map_err(content)?;
                dirs.iter().try_for_each(|dir| sync_dir(dir))?;
                return Ok(summary);
            }
        }
        progress(reader.position());
    }
}

/// What becomes of an entry: all that is counted and given out jumps. A device or module that had never connected gets a
/// session that has ended, because it may have connected after the copy. Keys come in order and `session` is behind the
/// others, so a session that was copied replaces the one that is made here.
fn beyond(key: &str, entry: &Entry) -> Result<Vec<(String, Entry)>, BackupError> {
    let parts: Vec<&str> = key.split('/').collect();
    let damaged = |_| BackupError::Content(format!("the record {key} in the backup cannot be read"));
    let with = |value: Vec<u8>| Entry { revision: entry.revision, value: value.into() };
    let identity = |owner: [&str; 3], id: &str| -> Result<Vec<(String, Entry)>, BackupError> {
        let mut record = DeviceRecord::decode(&entry.value).map_err(damaged)?;
        for counter in [&mut record.etag, &mut record.twin.etag, &mut record.outbox_count] {
            *counter = counter.saturating_add(SKIP);
        }
        let session = format!(r#"{{"v":1,"epoch":{SKIP},"host":"restored"}}"#);
        let session =
            SessionRecord::decode(session.as_bytes()).and_then(|session| session.encode()).map_err(damaged)?;
        let [version, tenant, hub] = owner;
        Ok(vec![
            (key.to_owned(), with(record.encode().map_err(damaged)?)),
            (format!("{version}/{tenant}/{hub}/session/{id}"), with(session)),
        ])
    };
    match *parts {
        [_, _, _, "session", _] => {
            let mut session = SessionRecord::decode(&entry.value).map_err(damaged)?;
            session.epoch = session.epoch.saturating_add(SKIP);
            Ok(vec![(key.to_owned(), with(session.encode().map_err(damaged)?))])
        }
        [version, tenant, hub, "device", id] => identity([version, tenant, hub], id),
        // A module's session is kept under `device/module`, as one escaped part.
        [version, tenant, hub, "module", device, module] => {
            identity([version, tenant, hub], &format!("{device}%2F{module}"))
        }
        // Devices may drop a message whose number they have seen.
        [_, _, _, "queue", _] => {
            let mut queue = QueueRecord::decode(&entry.value).map_err(damaged)?;
            queue.last_sequence = queue.last_sequence.saturating_add(SKIP);
            Ok(vec![(key.to_owned(), with(queue.encode().map_err(damaged)?))])
        }
        // A move that is not finished compares these with the tags of the device that it copied.
        [_, _, _, "registration", _] => {
            let mut record = RegistrationRecord::decode(&entry.value).map_err(damaged)?;
            if let Some(copied) = record.removal.as_mut().and_then(|removal| removal.copied.as_mut()) {
                copied.identity_etag = copied.identity_etag.saturating_add(SKIP);
                copied.twin_etag = copied.twin_etag.saturating_add(SKIP);
            }
            Ok(vec![(key.to_owned(), with(record.encode().map_err(damaged)?))])
        }
        _ => Ok(vec![(key.to_owned(), entry.clone())]),
    }
}

fn make_dir(dir: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(BackupError::io(dir.display()))
}

fn close(file: Option<(PathBuf, File)>) -> Result<(), BackupError> {
    file.map_or(Ok(()), |(path, file)| file.sync_all().map_err(BackupError::io(path.display())))
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(BackupError::io(dir.display()))
}
