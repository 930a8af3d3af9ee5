//! Filling a data directory from a backup.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nave_model::{DeviceRecord, QueueRecord, Record as _, RegistrationRecord, SessionRecord};
use nave_store::{Entry, Restorer};

use super::read::{Piece, Reader};
use super::{BackupError, Summary, check};
use crate::files;

/// How far revisions and session epochs jump. The hub that was copied went on after the copy, and what it gave out then must
/// not be given out again: entity tags would match other contents, and message keys other messages. No hub makes four
/// thousand million changes between a backup and its loss.
const SKIP: u64 = 1 << 32;

/// How far `$version` of both sections of a twin jumps, for the same reason: a device or service that remembers a larger one
/// takes what comes for old. Clients keep it in 32 bits, so the jump is smaller: no twin changes a million times between a
/// backup and its loss, and two thousand restores have room.
const SKIP_VERSIONS: u64 = 1 << 20;

/// Where a directory is filled before everything moves to its place: within it, because it may be a mount point, beside which
/// nothing can be renamed into it.
const RESTORING: &str = ".restoring";

/// The names that move, one a line. It is there before the first of them does.
const MOVING: &str = "moving";

/// What may be in a directory that is empty otherwise: what file systems keep in their root, and what a hub that refused to
/// start leaves.
const OF_NO_MATTER: [&str; 2] = ["lost+found", "nave.lock"];

/// Whether a restore into `dir` was interrupted: what is there is not a whole hub.
pub(crate) fn was_interrupted(dir: &Path) -> bool {
    dir.join(RESTORING).exists()
}

/// Restores the backup in `file` as the data directory `dir`, which must not exist or be empty. As long as it is not there as a
/// whole, no hub starts with it; a repeated attempt begins anew. `progress` is told how many bytes have been read, twice over:
/// the backup is checked before it is used.
///
/// Everything belongs to the owner of `dir` afterwards, also if that is not who restores.
///
/// # Errors
///
/// [`BackupError`].
pub(crate) fn restore(file: &Path, dir: &Path, mut progress: impl FnMut(u64)) -> Result<Summary, BackupError> {
    let dir = std::path::absolute(dir).map_err(BackupError::io(dir.display()))?;
    let open = || File::open(file).map(BufReader::new).map_err(BackupError::io(file.display()));
    check(open()?, &mut progress)?;
    let is_there = dir.is_dir();
    if is_there {
        clean(&dir)?;
        if !names(&dir)?.is_empty() {
            return Err(BackupError::Content(format!(
                "{} is not empty: name a directory that does not exist yet, or move what is in it away",
                dir.display()
            )));
        }
    }
    files::private_dir(&dir).map_err(BackupError::io(dir.display()))?;
    let temporary = dir.join(RESTORING);
    let filled = fill(open()?, &temporary, &mut progress);
    let done = filled.and_then(|summary| {
        files::give_to_owner_of(&dir, &temporary).map_err(BackupError::io(dir.display()))?;
        move_in(&temporary, &dir)?;
        Ok(summary)
    });
    if done.is_err() {
        // What is left of a failed attempt is of no use; that it cannot be removed changes nothing.
        let _ = clean(&dir);
        if !is_there {
            let _ = fs::remove_dir(&dir);
        }
    }
    done
}

/// The names in a directory that count.
fn names(dir: &Path) -> Result<Vec<OsString>, BackupError> {
    let failed = |error| BackupError::io(dir.display())(error);
    let names = fs::read_dir(dir).map_err(failed)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<OsString> = names.collect::<Result<_, _>>().map_err(failed)?;
    Ok(names.into_iter().filter(|name| OF_NO_MATTER.iter().all(|other| name != other)).collect())
}

/// Removes what an interrupted attempt left: what it had moved, which its list names, and then the rest.
fn clean(dir: &Path) -> Result<(), BackupError> {
    let temporary = dir.join(RESTORING);
    if !temporary.exists() {
        return Ok(());
    }
    let moved = fs::read_to_string(temporary.join(MOVING)).unwrap_or_default();
    for name in moved.lines() {
        let path = dir.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::io(path.display())(error));
            }
            _ => {}
        }
    }
    fs::remove_dir_all(&temporary).map_err(BackupError::io(temporary.display()))
}

/// Moves everything out of `temporary`, which is complete and on the disk, into `dir`.
fn move_in(temporary: &Path, dir: &Path) -> Result<(), BackupError> {
    let moving = names(temporary)?;
    // Names of a backup are text, and none of them is that of a directory that was not made here.
    let list: String = moving.iter().filter_map(|name| name.to_str()).map(|name| format!("{name}\n")).collect();
    let list_file = temporary.join(MOVING);
    files::replace(&list_file, list.as_bytes(), files::OWNER_ONLY).map_err(BackupError::io(list_file.display()))?;
    sync_dir(dir)?;
    for name in &moving {
        fs::rename(temporary.join(name), dir.join(name)).map_err(BackupError::io(dir.display()))?;
    }
    sync_dir(dir)?;
    sync_dir(temporary)?;
    // From here on it is whole: the list goes first, so that nothing that moved is removed again.
    fs::remove_file(&list_file).map_err(BackupError::io(list_file.display()))?;
    fs::remove_dir(temporary).map_err(BackupError::io(temporary.display()))?;
    sync_dir(dir)?;
    sync_dir(dir.parent().unwrap_or(dir))
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
        for section in [&mut record.twin.desired, &mut record.twin.reported] {
            section.version = section.version.saturating_add(SKIP_VERSIONS);
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
