//! The embedded store: fjall 3 below, our committer above.
//!
//! fjall's write batch with [`PersistMode::SyncData`] appends to the journal, syncs it, applies the batch to memory and
//! publishes it, all under one lock. We do not lean on that order for what readers see: they read through the snapshot
//! that the committer took after the last sync.

use std::collections::HashMap;
use std::error::Error as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot};
use nave_env::SharedEnv;
use nave_metrics::{Collect, Page};

use crate::commit::Committer;
use crate::engine::{Engine, EngineError, View};
use crate::journal::cut_torn_tail;
use crate::{
    BoxFuture, CommitError, Entry, Guard, MAX_SCAN_LIMIT, OpenError, Put, Revision, Step, StepError, Store, StoreError,
};

/// The format that this program writes and the newest that it reads. See `FORMAT.md`.
pub const FORMAT: u32 = 1;

/// The keyspace of the entries.
const STATE: &str = "state";
/// The keyspace of what the store knows about itself.
const ABOUT: &str = "about";
const ABOUT_FORMAT: &str = "format";
const ABOUT_REVISION: &str = "revision";

/// The file that is locked while a store is open. The engine has a lock of its own, but takes it only after it has begun.
const LOCK_NAME: &str = "nave.lock";

/// Bytes of the revision in front of every value.
const REVISION_BYTES: usize = 8;

/// Threads with which the engine flushes and compacts: one of each at a time.
const ENGINE_THREADS: usize = 2;

/// Entries that the engine keeps in memory before it writes them to a table, in bytes. It gives the memory of one such
/// table back when the next one is full, so a hub that writes takes twice this. With the engine's usual 64 MiB that was 150
/// MB; and a start replays the journal of what is in no table yet.
const TABLE_IN_MEMORY: u64 = 16 << 20;

/// How the embedded store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of memory for the engine's block cache.
    pub cache_bytes: u64,
    /// Commits answer [`CommitError::Full`] while the file system has less free bytes than this. The engine needs room
    /// to flush its memory and to compact: one that ran out of space in the middle has to be reopened.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024, reserve_bytes: 256 * 1024 * 1024 }
    }
}

/// A [`Store`] in a directory of the local file system.
///
/// Reads run on the caller's thread: from memory in about a microsecond, else one read of the disk.
/// Dropping it finishes the queued commits and closes the directory.
pub struct FjallStore {
    committer: Committer,
}

impl FjallStore {
    /// Opens the store in `dir`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(dir: &Path, options: Options, env: SharedEnv) -> Result<Self, OpenError> {
        let engine = FjallEngine::open(dir, options)?;
        let committer =
            Committer::start(engine, env).map_err(|source| OpenError::Io { dir: dir.to_owned(), source })?;
        Ok(Self { committer })
    }

    /// Whether changes are taken: false after one that the disk had no space for or failed at, until one succeeds, and once the
    /// store is closed.
    pub fn is_writable(&self) -> bool {
        self.committer.is_writable()
    }

    /// The last durable state, for a copy: everything that was answered before this call. Commits go on; the snapshot does
    /// not change.
    ///
    /// # Errors
    ///
    /// [`StoreError`] while the store is closed or being reopened.
    pub fn snapshot(&self) -> Result<StoreSnapshot<'_>, StoreError> {
        Ok(StoreSnapshot { committer: &self.committer, view: Some(self.committer.view()?) })
    }

    /// Finishes the queued commits and closes the directory; blocks for as long as that takes. Later calls of the store
    /// answer that it is closed. Dropping the store does the same.
    pub fn close(&self) {
        self.committer.close();
    }
}

impl Collect for FjallStore {
    fn collect(&self, page: &mut Page) {
        self.committer.collect(page);
    }
}

impl Store for FjallStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(std::future::ready(self.committer.view().and_then(|view| view.get(key))))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>> {
        if limit > MAX_SCAN_LIMIT {
            return Box::pin(std::future::ready(Err(StoreError::LimitTooLarge(limit))));
        }
        Box::pin(std::future::ready(self.committer.view().and_then(|view| view.scan(prefix, after, limit))))
    }

    fn commit(&self, guards: Vec<Guard>, puts: Vec<Put>) -> BoxFuture<'static, Result<Revision, CommitError>> {
        self.committer.commit(guards, puts)
    }

    fn commit_steps(&self, steps: Vec<Step>) -> BoxFuture<'_, Result<Revision, StepError>> {
        self.committer.commit_steps(steps)
    }
}

/// A state of a store that no longer changes.
pub struct StoreSnapshot<'a> {
    committer: &'a Committer,
    /// `None` after an error.
    view: Option<Arc<dyn View>>,
}

impl StoreSnapshot<'_> {
    /// Up to `limit` entries in the order of their keys, strictly after `after`; fewer mean that there are no more.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a store that has to be reopened, because its engine failed, ends its snapshots. There are no more
    /// entries after an error.
    pub fn entries(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Entry)>, StoreError> {
        // The engine can be reopened only when nobody holds a view of it.
        let entries = self.committer.view().and_then(|_| match &self.view {
            Some(view) => view.scan("", after, limit),
            None => Err(StoreError::Unavailable),
        });
        if entries.is_err() {
            self.view = None;
        }
        entries
    }
}

/// A store that is filled from a copy. Nothing of it is durable before [`finish`](Self::finish).
pub struct Restorer {
    open: Open,
    dir: PathBuf,
    batch: OwnedWriteBatch,
    batched: usize,
    newest: u64,
    _lock: File,
}

/// Bytes that a [`Restorer`] hands to the engine at once.
const RESTORE_BATCH_BYTES: usize = 4 * 1024 * 1024;

impl Restorer {
    /// Creates an empty store in `dir`, which must not hold one.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn create(dir: &Path) -> Result<Self, OpenError> {
        create_dir_durably(dir).map_err(|source| OpenError::Io { dir: dir.to_owned(), source })?;
        let lock = lock(dir)?;
        let (open, newest) = open_database(dir, &Options::default())?;
        let batch = OwnedWriteBatch::with_capacity(open.database.clone(), 0);
        Ok(Self { open, dir: dir.to_owned(), batch, batched: 0, newest, _lock: lock })
    }

    /// Adds an entry with the revision that it had.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a key or value that no store can hold is reported as corrupt.
    pub fn put(&mut self, key: &str, entry: &Entry) -> Result<(), OpenError> {
        if key.is_empty() || key.len() > crate::MAX_KEY_BYTES || entry.value.len() > crate::MAX_VALUE_BYTES {
            return Err(OpenError::Corrupt { dir: self.dir.clone(), what: "an entry is too large".to_owned() });
        }
        self.batch.insert(&self.open.state, key.as_bytes(), encode_value(entry));
        self.batched += key.len() + entry.value.len();
        self.newest = self.newest.max(entry.revision.get());
        if self.batched >= RESTORE_BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        let next = OwnedWriteBatch::with_capacity(self.open.database.clone(), 0);
        self.batched = 0;
        std::mem::replace(&mut self.batch, next).commit().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &fjall::Error) -> OpenError {
        OpenError::Engine { dir: self.dir.clone(), what: error.to_string() }
    }

    /// Makes everything durable and closes the store. Its next revision is more than `skip` above every one that was put:
    /// a copy is older than what it was made of, and revisions must not be given out twice.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn finish(mut self, skip: u64) -> Result<(), OpenError> {
        self.flush()?;
        let newest = self.newest.saturating_add(skip);
        let open = &self.open;
        open.about.insert(ABOUT_REVISION, newest.to_le_bytes()).map_err(|error| self.failed(&error))?;
        open.database.persist(PersistMode::SyncAll).map_err(|error| self.failed(&error))
    }
}

/// The open engine.
struct Open {
    database: Database,
    state: Keyspace,
    about: Keyspace,
}

struct FjallEngine {
    dir: PathBuf,
    options: Options,
    /// `None` only if reopening failed.
    open: Option<Open>,
    staged: Option<OwnedWriteBatch>,
    staged_newest: u64,
    newest: u64,
    /// Held as long as the store is open.
    _lock: File,
}

impl FjallEngine {
    fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        create_dir_durably(dir).map_err(|source| OpenError::Io { dir: dir.to_owned(), source })?;
        let lock = lock(dir)?;
        let (open, newest) = open_database(dir, &options)?;
        Ok(Self {
            dir: dir.to_owned(),
            options,
            open: Some(open),
            staged: None,
            staged_newest: newest,
            newest,
            _lock: lock,
        })
    }

    fn classify(error: &fjall::Error) -> EngineError {
        match io_error(error).map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => EngineError::Full,
            // A background thread failed before: our batch was refused before anything was written.
            None if matches!(error, fjall::Error::Poisoned) => EngineError::NeedsReopen(error.to_string()),
            // After a failed sync the kernel may report the lost pages as clean. Only a restart may go on, from what it
            // then finds.
            _ => EngineError::Broken(error.to_string()),
        }
    }
}

impl Engine for FjallEngine {
    fn view(&self) -> Option<Arc<dyn View>> {
        let open = self.open.as_ref()?;
        Some(Arc::new(FjallView { snapshot: open.database.snapshot(), state: open.state.clone() }))
    }

    fn newest(&self) -> u64 {
        self.newest
    }

    fn has_space(&self) -> bool {
        // A file system that cannot tell is trusted.
        rustix::fs::statvfs(&self.dir)
            .map_or(true, |stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= self.options.reserve_bytes)
    }

    fn write(&mut self, changes: HashMap<String, Option<Entry>>, newest: u64) -> Result<(), EngineError> {
        let Some(open) = &self.open else { return Err(EngineError::NeedsReopen("the engine is closed".into())) };
        let mut batch = OwnedWriteBatch::with_capacity(open.database.clone(), changes.len() + 1)
            .durability(Some(PersistMode::SyncData));
        for (key, change) in changes {
            match change {
                Some(entry) => batch.insert(&open.state, key.as_bytes(), encode_value(&entry)),
                None => batch.remove(&open.state, key.as_bytes()),
            }
        }
        batch.insert(&open.about, ABOUT_REVISION, newest.to_le_bytes());
        self.staged = Some(batch);
        self.staged_newest = newest;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        // Appends, then syncs, in one critical section of the engine: its background threads sync the same file, and an
        // error that they were given would not be reported to us again.
        if let Some(batch) = self.staged.take() {
            batch.commit().map_err(|error| Self::classify(&error))?;
        }
        self.newest = self.staged_newest;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        self.staged = None;
        self.open = None;
        let (open, newest) =
            open_database(&self.dir, &self.options).map_err(|error| EngineError::NeedsReopen(error.to_string()))?;
        if newest > self.newest {
            // The batch that we reported as failed is in the journal after all: written, but its sync failed.
            // What was lost of it cannot be known here.
            self.newest = newest;
            self.open = Some(open);
            return Err(EngineError::Broken("a failed commit was found in the journal; restart".into()));
        }
        self.open = Some(open);
        self.staged_newest = self.newest;
        Ok(())
    }
}

struct FjallView {
    snapshot: Snapshot,
    state: Keyspace,
}

impl View for FjallView {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.snapshot.get(&self.state, key) {
            Ok(Some(stored)) => decode_value(key, &stored).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(StoreError::Engine(error.to_string())),
        }
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Entry)>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok(entries);
        }
        for item in self.snapshot.range::<&[u8], _>(&self.state, (start, Bound::Unbounded)) {
            let (key, stored) = item.into_inner().map_err(|error| StoreError::Engine(error.to_string()))?;
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let key = String::from_utf8(key.to_vec())
                .map_err(|error| StoreError::Corrupt(String::from_utf8_lossy(error.as_bytes()).into_owned()))?;
            let entry = decode_value(&key, &stored)?;
            entries.push((key, entry));
            if entries.len() == limit {
                break;
            }
        }
        Ok(entries)
    }
}

fn encode_value(entry: &Entry) -> Vec<u8> {
    let mut stored = Vec::with_capacity(REVISION_BYTES + entry.value.len());
    stored.extend_from_slice(&entry.revision.get().to_le_bytes());
    stored.extend_from_slice(&entry.value);
    stored
}

fn decode_value(key: &str, stored: &[u8]) -> Result<Entry, StoreError> {
    let corrupt = || StoreError::Corrupt(key.to_owned());
    let (revision, value) = stored.split_first_chunk::<REVISION_BYTES>().ok_or_else(corrupt)?;
    let revision = Revision::new(u64::from_le_bytes(*revision)).ok_or_else(corrupt)?;
    Ok(Entry { revision, value: Bytes::copy_from_slice(value) })
}

/// Opens the engine and returns it with the newest revision in it.
fn open_database(dir: &Path, options: &Options) -> Result<(Open, u64), OpenError> {
    let failed = |error: fjall::Error| match error {
        fjall::Error::Locked => OpenError::Locked(dir.to_owned()),
        error => match io_error(&error).map(io::Error::kind) {
            // What the operator can do something about keeps its kind.
            Some(
                kind @ (io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem),
            ) => OpenError::Io { dir: dir.to_owned(), source: io::Error::new(kind, error.to_string()) },
            _ => OpenError::Engine { dir: dir.to_owned(), what: error.to_string() },
        },
    };
    cut_torn_tail(dir)?;
    let database =
        Database::builder(dir).cache_size(options.cache_bytes).worker_threads(ENGINE_THREADS).open().map_err(failed)?;
    let about = database.keyspace(ABOUT, KeyspaceCreateOptions::default).map_err(failed)?;
    let corrupt = |what: &str| OpenError::Corrupt { dir: dir.to_owned(), what: what.to_owned() };
    match about.get(ABOUT_FORMAT).map_err(failed)? {
        Some(bytes) => {
            let bytes = <[u8; 4]>::try_from(&*bytes).map_err(|_| corrupt("its format version is unreadable"))?;
            let found = u32::from_le_bytes(bytes);
            if found > FORMAT {
                return Err(OpenError::NewerFormat { dir: dir.to_owned(), found, known: FORMAT });
            }
            if found == 0 {
                return Err(corrupt("its format version is 0"));
            }
        }
        None => {
            about.insert(ABOUT_FORMAT, FORMAT.to_le_bytes()).map_err(failed)?;
            database.persist(PersistMode::SyncAll).map_err(failed)?;
        }
    }
    let newest = match about.get(ABOUT_REVISION).map_err(failed)? {
        Some(bytes) => {
            u64::from_le_bytes(<[u8; 8]>::try_from(&*bytes).map_err(|_| corrupt("its newest revision is unreadable"))?)
        }
        None => 0,
    };
    let state = database.keyspace(STATE, state_options).map_err(failed)?;
    Ok((Open { database, state, about }, newest))
}

/// They are kept with the keyspace: a store that exists stays as it was made.
fn state_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(TABLE_IN_MEMORY)
}

/// Takes the lock of the directory.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(dir.join(LOCK_NAME)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Creates `dir` so that a power cut does not take its name back.
fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// The answer of the operating system inside an engine error.
fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}
