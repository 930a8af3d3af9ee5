//! What the process says about itself to the admin surface, and does when that asks.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Instant;

use bytes::Bytes;
use nave_env::BoxFuture;

use nave_http::{Operator, OperatorError};
use nave_log::{Log as _, PartitionId};
use nave_model::Timestamp;
use nave_net::Counters;
use parking_lot::RwLock;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc as chunks, oneshot};

use super::Event;
use super::certificates::ServerIdentity;
use crate::backup::{self, LogOf, Source};
use crate::config::explain::Entry;
use crate::inspect::{self, CertificateFacts};

/// Files of one directory that are counted; the log has one for each 64 MiB, the store dozens.
const MAX_COUNTED_FILES: usize = 100_000;

/// What does not change while the hub runs, and what a reload replaces.
pub(super) struct Process {
    started: Instant,
    started_at: Timestamp,
    source: Source,
    control: mpsc::Sender<Event>,
    copying: Arc<AtomicBool>,
    counters: OnceLock<Counters>,
    entries: RwLock<Vec<Entry>>,
    certificate: RwLock<Served>,
}

/// The certificate that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// What it says; `None` if it cannot be read, which a hub that serves it never sees.
    pub(crate) facts: Option<CertificateFacts>,
    /// Whether it comes from the development CA.
    pub(crate) is_development: bool,
}

impl Served {
    /// What is served of `identity`.
    pub(super) fn of(identity: &ServerIdentity) -> Self {
        Self { facts: identity.facts.clone(), is_development: identity.is_development }
    }
}

impl Process {
    /// The process that started at `started` and keeps `source`; `control` is how it is asked for things.
    pub(super) fn new(
        started: Instant,
        source: Source,
        control: mpsc::Sender<Event>,
        entries: Vec<Entry>,
        certificate: Served,
    ) -> Self {
        Self {
            started,
            started_at: super::now(),
            source,
            control,
            copying: Arc::default(),
            counters: OnceLock::new(),
            entries: RwLock::new(entries),
            certificate: RwLock::new(certificate),
        }
    }

    /// What is in force from now on.
    pub(super) fn goes_by(&self, entries: Vec<Entry>) {
        *self.entries.write() = entries;
    }

    /// Where connections are counted, from now on.
    pub(super) fn count_by(&self, counters: Counters) {
        // It is said once, by the start.
        let _ = self.counters.set(counters);
    }

    /// What is served from now on.
    /// Says whether it is another certificate.
    pub(super) fn serves(&self, certificate: Served) -> bool {
        let mut served = self.certificate.write();
        let is_other = served.facts != certificate.facts;
        *served = certificate;
        is_other
    }

    fn log_json(log: &LogOf) -> (String, Value) {
        let mut records: u64 = 0;
        for number in 0..log.log.partitions() {
            let bounds = PartitionId::new(number).and_then(|partition| log.log.bounds(partition).ok());
            records = records.saturating_add(bounds.map_or(0, |bounds| bounds.next_sequence - bounds.first_sequence));
        }
        let value = json!({ "bytes": directory_bytes(&log.dir), "records": records });
        (log.hub.clone(), value)
    }
}

impl Operator for Process {
    fn status(&self) -> Map<String, Value> {
        let mut status = Map::new();
        let uptime = self.started.elapsed().as_secs();
        status.insert(
            "process".to_owned(),
            json!({
                "pid": std::process::id(),
                "started": self.started_at.iso(),
                "uptimeSeconds": uptime,
                "residentBytes": inspect::resident_bytes(),
                "openDescriptors": inspect::open_descriptors(),
                "descriptorLimit": inspect::descriptor_limit(),
            }),
        );
        if let Some(counters) = self.counters.get() {
            let counted = counters.statistics();
            status.insert(
                "connections".to_owned(),
                json!({
                    "open": counted.connections,
                    "unauthenticated": counted.unauthenticated,
                    "accepted": counted.accepted,
                    "refused": counted.refused,
                    "handshakeFailures": counted.handshake_failures,
                }),
            );
        }
        let logs: Map<String, Value> = self.source.logs.iter().map(Self::log_json).collect();
        status.insert(
            "storage".to_owned(),
            json!({
                "dataDir": self.source.data_dir,
                "freeBytes": inspect::free_bytes(&self.source.data_dir),
                "storeBytes": directory_bytes(&self.source.data_dir.join("store")),
                "logs": logs,
            }),
        );
        let served = self.certificate.read().clone();
        let mut certificate = served.facts.map_or_else(|| json!({}), |facts| facts.json(super::now()));
        if let Some(members) = certificate.as_object_mut() {
            members.insert("development".to_owned(), json!(served.is_development));
        }
        status.insert("certificate".to_owned(), certificate);
        status
    }

    fn configuration(&self) -> Value {
        self.entries.read().iter().map(Entry::json).collect()
    }

    fn reload(&self) -> BoxFuture<Result<Value, OperatorError>> {
        let (answer, answered) = oneshot::channel();
        // The main thread does it, one after the other; it has gone when the hub stops.
        let sent = self.control.send(Event::Reload(Some(answer)));
        Box::pin(async move {
            let stopping = || OperatorError::Busy("The hub is stopping.".to_owned());
            sent.map_err(|_| stopping())?;
            answered.await.map_err(|_| stopping())?
        })
    }

    fn backup(&self) -> Result<chunks::Receiver<io::Result<Bytes>>, OperatorError> {
        if self.copying.swap(true, Ordering::AcqRel) {
            return Err(OperatorError::Busy("A backup is being made already: wait until it is finished.".to_owned()));
        }
        let busy = Busy(Arc::clone(&self.copying));
        let (sender, receiver) = chunks::channel(WAITING_CHUNKS);
        let source = self.source.clone();
        let copy = move || {
            let _busy = busy;
            copy(&source, Chunks { sender, buffer: Vec::with_capacity(CHUNK_BYTES), whole: false });
        };
        let started = std::thread::Builder::new().name("nave-backup".into()).spawn(copy);
        started.map(|_| receiver).map_err(|error| OperatorError::Failed(error.to_string()))
    }
}

/// Bytes that are handed over at once, and how many such pieces wait for a slow reader: a backup takes 2 MiB of memory.
const CHUNK_BYTES: usize = 256 * 1024;
const WAITING_CHUNKS: usize = 4;

/// A backup is being made until this is dropped.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn copy(source: &Source, mut out: Chunks) {
    match backup::write(source, super::now(), &mut out) {
        Ok(summary) => {
            out.whole = true;
            tracing::info!(bytes = summary.bytes, entries = summary.entries, "made a backup");
        }
        Err(error) => tracing::warn!(%error, "a backup was broken off"),
    }
}

/// Hands pieces over to the connection, and waits while that is slow.
struct Chunks {
    sender: chunks::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    whole: bool,
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if !self.whole {
            // Cuts the connection, so that nobody takes it for a whole backup, also if the thread panics. Whoever is gone need
            // not be told.
            let _ = self.sender.blocking_send(Err(io::Error::other("the backup was broken off")));
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK_BYTES {
            self.flush()?;
        }
        if bytes.len() >= CHUNK_BYTES {
            self.send(Bytes::copy_from_slice(bytes))?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.send(full.into())
    }
}

impl Chunks {
    fn send(&self, bytes: Bytes) -> io::Result<()> {
        self.sender.blocking_send(Ok(bytes)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Bytes of all files below `dir`; of no more than [`MAX_COUNTED_FILES`].
pub(crate) fn directory_bytes(dir: &Path) -> u64 {
    let (mut total, mut left) = (0_u64, MAX_COUNTED_FILES);
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if left == 0 {
                return total;
            }
            left -= 1;
            // A file may be removed between the two looks.
            match entry.metadata() {
                Ok(about) if about.is_dir() => waiting.push(entry.path()),
                Ok(about) => total = total.saturating_add(about.len()),
                Err(_) => {}
            }
        }
    }
    total
}
