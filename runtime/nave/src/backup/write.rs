//! Making a backup, in bounded memory.

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nave_env::SharedEnv;
use nave_log::FileLog;
use nave_model::Timestamp;
use nave_store::{Entry, FjallStore};
use ring::digest::{Context, SHA256};

use super::format::{ENTRY_HEAD_BYTES, HEAD_BYTES, Kind, MAGIC, MAX_PATH_BYTES, MAX_PAYLOAD, VERSION, block_head};
use super::{BackupError, Summary};

/// Bytes of a file in one block.
const CHUNK_BYTES: usize = 256 * 1024;

/// Entries of the store that are read at once. Most have a kilobyte; a piece of a policy has 1 MiB, and 4 MiB fill a block.
const SCANNED_ENTRIES: usize = 4;

/// Files in the data directory that are not copied: they belong to a process, or are made again.
const LEFT_OUT: [&str; 6] = ["nave.lock", "connection.json", "store", "log", "cache", "lost+found"];

/// Directories in directories: what a hub keeps is not deeper.
const MAX_DEPTH: usize = 8;

/// Longer than any log is kept: opening a log for a copy must not remove anything.
const KEEP_EVERYTHING: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A hub's log.
#[derive(Clone)]
pub(crate) struct LogOf {
    /// The hub's id.
    pub(crate) hub: String,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// The log.
    pub(crate) log: Arc<FileLog>,
}

/// What is copied.
#[derive(Clone)]
pub(crate) struct Source {
    /// The data directory: settings, certificates.
    pub(crate) data_dir: PathBuf,
    /// State.
    pub(crate) store: Arc<FjallStore>,
    /// Telemetry of each hub.
    pub(crate) logs: Vec<LogOf>,
}

/// Opens what is copied in a data directory that no hub uses; the caller has locked it.
///
/// # Errors
///
/// [`BackupError`].
pub(crate) fn offline(data_dir: &Path, env: &SharedEnv) -> Result<Source, BackupError> {
    let content = |error: &dyn std::fmt::Display| BackupError::Content(error.to_string());
    let dir = data_dir.join("store");
    if !dir.is_dir() {
        return Err(BackupError::Content(format!("{} is no data directory of a hub", data_dir.display())));
    }
    let options = nave_store::Options::default();
    let store = FjallStore::open(&dir, options, Arc::clone(env)).map_err(|error| content(&error))?;
    let mut logs = Vec::new();
    for dir in subdirectories(&data_dir.join("log"))? {
        let options = nave_log::Options {
            retention_age: KEEP_EVERYTHING,
            retention_bytes: u64::MAX,
            ..nave_log::Options::default()
        };
        let log = FileLog::open(&dir, options, Arc::clone(env)).map_err(|error| content(&error))?;
        let hub = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        logs.push(LogOf { hub, dir, log: Arc::new(log) });
    }
    Ok(Source { data_dir: data_dir.to_owned(), store: Arc::new(store), logs })
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::io(dir.display())(error)),
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort_unstable();
    Ok(found)
}

/// Writes a backup of `source` to `out`.
///
/// # Errors
///
/// [`BackupError`]; what was written is not a backup then, and says so when it is read.
pub(crate) fn write(source: &Source, created: Timestamp, out: impl Write) -> Result<Summary, BackupError> {
    // Both snapshots at once: what the store has handed over to a log before, the log has.
    let mut state = source.store.snapshot().map_err(|error| BackupError::Content(error.to_string()))?;
    let logs: Vec<_> = source.logs.iter().map(|log| (log.hub.clone(), log.log.snapshot())).collect();
    let mut writer = Writer::begin(out, created)?;
    let mut after: Option<String> = None;
    loop {
        let entries = state
            .entries(after.as_deref(), SCANNED_ENTRIES)
            .map_err(|error| BackupError::Content(error.to_string()))?;
        writer.entries(&entries)?;
        match entries.into_iter().last() {
            Some((key, _)) => after = Some(key),
            None => break,
        }
    }
    drop(state);
    for (hub, log) in &logs {
        for file in log.files() {
            let path = format!("log/{hub}/{}", file.name());
            writer.file(&path, crate::files::OWNER_ONLY)?;
            let mut position = 0;
            while position < file.len() {
                let left = usize::try_from(file.len() - position).unwrap_or(usize::MAX);
                let mut chunk = vec![0; left.min(CHUNK_BYTES)];
                file.read_at(&mut chunk, position).map_err(BackupError::io(&path))?;
                writer.block(Kind::Data, &chunk)?;
                position += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            }
        }
    }
    other_files(&mut writer, &source.data_dir, "", 0)?;
    writer.finish()
}

/// Settings, certificates, and whatever else is kept beside the store and the logs.
fn other_files<W: Write>(writer: &mut Writer<W>, dir: &Path, prefix: &str, depth: usize) -> Result<(), BackupError> {
    let failed = |error| BackupError::io(dir.display())(error);
    let mut names: Vec<_> = std::fs::read_dir(dir).map_err(failed)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    for name in names {
        // A name that is not UTF-8 is none of ours, and neither is a file that is being written.
        let Some(name) = name.to_str().filter(|name| !name.ends_with(".new")) else { continue };
        if prefix.is_empty() && LEFT_OUT.contains(&name) {
            continue;
        }
        let (path, place) = (dir.join(name), format!("{prefix}{name}"));
        let about = match std::fs::symlink_metadata(&path) {
            Ok(about) => about,
            // It was removed between the two looks.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(BackupError::io(path.display())(error)),
        };
        if about.is_dir() && depth < MAX_DEPTH {
            other_files(writer, &path, &format!("{place}/"), depth + 1)?;
        } else if about.is_file() {
            let mut file = File::open(&path).map_err(BackupError::io(path.display()))?;
            writer.file(&place, about.permissions().mode() & 0o777)?;
            let mut chunk = vec![0; CHUNK_BYTES];
            // As long as it is now: somebody may be writing to it.
            let mut left = about.len();
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                let buffer = chunk.get_mut(..wanted).unwrap_or_default();
                let read = file.read(buffer).map_err(BackupError::io(path.display()))?;
                if read == 0 {
                    break;
                }
                writer.block(Kind::Data, buffer.get(..read).unwrap_or_default())?;
                left -= u64::try_from(read).unwrap_or(left);
            }
        }
    }
    Ok(())
}

struct Writer<W: Write> {
    out: W,
    digest: Context,
    summary: Summary,
    blocks: u64,
}

impl<W: Write> Writer<W> {
    fn begin(out: W, created: Timestamp) -> Result<Self, BackupError> {
        let mut writer =
            Self { out, digest: Context::new(&SHA256), summary: Summary { created, ..Summary::default() }, blocks: 0 };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&0_u32.to_le_bytes());
        head.extend_from_slice(&created.unix_nanos().to_le_bytes());
        let checksum = crc32c::crc32c(&head);
        head.extend_from_slice(&checksum.to_le_bytes());
        writer.put(&head)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.digest.update(bytes);
        self.summary.bytes += u64::try_from(bytes.len()).unwrap_or_default();
        self.out.write_all(bytes).map_err(BackupError::io("the backup cannot be written"))
    }

    fn block(&mut self, kind: Kind, payload: &[u8]) -> Result<(), BackupError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(BackupError::Content("an entry of the store is larger than any that it accepts".to_owned()));
        }
        self.blocks += 1;
        self.put(&block_head(kind, payload))?;
        self.put(payload)
    }

    fn file(&mut self, path: &str, mode: u32) -> Result<(), BackupError> {
        if path.len() > MAX_PATH_BYTES {
            return Err(BackupError::Content(format!("the path {path} is too long for a backup")));
        }
        self.summary.files += 1;
        let mut payload = mode.to_le_bytes().to_vec();
        payload.extend_from_slice(path.as_bytes());
        self.block(Kind::File, &payload)
    }

    fn entries(&mut self, entries: &[(String, Entry)]) -> Result<(), BackupError> {
        let mut payload: Vec<u8> = Vec::new();
        for (key, entry) in entries {
            let length = ENTRY_HEAD_BYTES + key.len() + entry.value.len();
            if !payload.is_empty() && payload.len() + length > CHUNK_BYTES {
                self.block(Kind::Entries, &payload)?;
                payload.clear();
            }
            for length in [key.len(), entry.value.len()] {
                payload.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
            payload.extend_from_slice(&entry.revision.get().to_le_bytes());
            payload.extend_from_slice(key.as_bytes());
            payload.extend_from_slice(&entry.value);
            self.summary.entries += 1;
        }
        if payload.is_empty() { Ok(()) } else { self.block(Kind::Entries, &payload) }
    }

    fn finish(mut self) -> Result<Summary, BackupError> {
        let mut payload = Vec::with_capacity(56);
        for count in [self.blocks, self.summary.files, self.summary.entries] {
            payload.extend_from_slice(&count.to_le_bytes());
        }
        payload.extend_from_slice(self.digest.clone().finish().as_ref());
        self.block(Kind::End, &payload)?;
        self.out.flush().map_err(BackupError::io("the backup cannot be written"))?;
        Ok(self.summary)
    }
}
