//! The log on the local file system.

use std::fs::{File, OpenOptions, TryLockError};
use std::future::ready;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nave_env::SharedEnv;
use nave_metrics::Page;
use nave_model::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::disk::{Disk, RealDisk};
use crate::manifest::Manifest;
use crate::recover::recover;
use crate::snapshot::LogSnapshot;
use crate::writer::{Pending, RecoveredTails, Retention, Shared, Writer};
use crate::{Appended, Batch, Bounds, BoxFuture, DEFAULT_PARTITIONS, Encoded, Log, LogError, OpenError, PartitionId};

/// Largest segment that can be asked for. Places in a segment are 32-bit numbers.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// The file that is locked while a log is open.
const LOCK_NAME: &str = "lock";

/// How a [`FileLog`] is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Partitions of a new log, 1 to [`crate::MAX_PARTITIONS`]. An existing log keeps what it was created with.
    pub partitions: u32,
    /// Bytes after which a new segment is begun. Retention removes whole segments. At most [`MAX_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Segments whose youngest record is older than this are removed.
    pub retention_age: Duration,
    /// The oldest segments are removed while all together have more bytes than this.
    pub retention_bytes: u64,
    /// Bytes that may wait for the disk; beyond, appends answer [`LogError::Busy`]. From half of it on, [`Log::room`] asks to
    /// wait.
    pub queue_bytes: usize,
}

impl Default for Options {
    /// 4 partitions, segments of 64 MiB, retention of a day (as Azure IoT Hub's built-in endpoint has it) and 8 GiB, 32 MiB
    /// in the queue.
    fn default() -> Self {
        Self {
            partitions: DEFAULT_PARTITIONS,
            segment_bytes: 64 * 1024 * 1024,
            retention_age: Duration::from_secs(24 * 60 * 60),
            retention_bytes: 8 * 1024 * 1024 * 1024,
            queue_bytes: 32 * 1024 * 1024,
        }
    }
}

/// A [`Log`] in a directory of the local file system.
///
/// Appends are encoded on the caller's thread and written by one thread of the log: one write and one sync for all that
/// arrived while the sync before was in progress. Reads run on the caller's thread; what was written lately comes from the
/// page cache. Dropping the log finishes the queued appends and closes the directory.
pub struct FileLog {
    shared: Arc<Shared>,
    manifest: Manifest,
    queue_bytes: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the log is open.
    lock: Mutex<Option<File>>,
}

impl FileLog {
    /// Opens the log in `dir`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(dir: &Path, options: Options, env: SharedEnv) -> Result<Self, OpenError> {
        let disk = RealDisk::new(dir)?;
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(dir.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let log = Self::open_on(Arc::new(disk), options, env)?;
        *log.lock.lock() = Some(lock);
        Ok(log)
    }

    /// Opens the log on any disk.
    pub(crate) fn open_on(disk: Arc<dyn Disk>, mut options: Options, env: SharedEnv) -> Result<Self, OpenError> {
        options.segment_bytes = options.segment_bytes.min(MAX_SEGMENT_BYTES);
        let recovered = recover(&*disk, options.partitions, &*env)?;
        let manifest = recovered.manifest;
        let queue_bytes = options.queue_bytes;
        let retention = Retention { age: options.retention_age, bytes: options.retention_bytes };
        let (index, tails) = RecoveredTails::split(recovered);
        let shared = Arc::new(Shared::new(index, retention));
        let writer = Writer::new(Arc::clone(&shared), disk, env, options, tails);
        let thread = std::thread::Builder::new().name("nave-log".into()).spawn(move || writer.run())?;
        Ok(Self { shared, manifest, queue_bytes, thread: Mutex::new(Some(thread)), lock: Mutex::new(None) })
    }

    /// Finishes the queued appends and closes the directory; blocks for as long as that takes. Later appends answer that
    /// the log is closed; what is durable can still be read. Dropping the log does the same.
    pub fn close(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
        *self.lock.lock() = None;
    }

    /// Puts what was counted on the page, as that of `hub`.
    pub fn collect(&self, hub: &str, page: &mut Page) {
        let queued = self.shared.queue.lock().bytes;
        let size = {
            let index = self.shared.index.read();
            (index.segments.len(), index.segments.iter().map(|segment| segment.end).sum())
        };
        self.shared.metrics.collect(page, hub, queued, size);
    }

    /// Keeps records so long and so much of them from now on. What that allows to remove goes at the next roll of a segment
    /// or within a minute.
    pub fn set_retention(&self, age: Duration, bytes: u64) {
        *self.shared.retention.lock() = Retention { age, bytes };
    }

    /// The log as it is now, for a copy: everything that was acknowledged before this call, and nothing that is not durable.
    /// Appends and retention go on; the snapshot does not change.
    pub fn snapshot(&self) -> LogSnapshot {
        LogSnapshot::of(self.manifest, &self.shared.index.read())
    }

    /// Removes what retention allows to remove now, instead of at the next roll of a segment or within a minute.
    pub fn enforce_retention(&self) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if !queue.stopping {
            queue.retain.push(sender);
            queue.idle = false;
            drop(queue);
            self.shared.wake.notify_one();
        }
        Box::pin(async move {
            // An error means that the log was closed.
            let _ = receiver.await;
        })
    }

    fn enqueue(
        &self,
        partition: PartitionId,
        records: Encoded,
    ) -> Result<oneshot::Receiver<Result<Appended, LogError>>, LogError> {
        if partition.get() >= self.manifest.partitions {
            return Err(LogError::UnknownPartition);
        }
        if records.is_empty() {
            return Err(LogError::TooLarge("there is no record"));
        }
        let count = records.count();
        let payload = records.into_payload();
        let (answer, receiver) = oneshot::channel();
        let pending = Pending { partition, count, payload_crc: crc32c::crc32c(&payload), payload, answer };
        let mut queue = self.shared.queue.lock();
        if queue.stopping {
            return Err(LogError::Stopped);
        }
        let bytes = queue.bytes + pending.frame_len();
        // An append that is larger than the whole queue gets its turn when nothing else waits.
        if bytes > self.queue_bytes && !queue.waiting.is_empty() {
            self.shared.metrics.busy.increment();
            return Err(LogError::Busy);
        }
        queue.bytes = bytes;
        queue.waiting.push_back(pending);
        if mem::take(&mut queue.idle) {
            drop(queue);
            self.shared.wake.notify_one();
        }
        Ok(receiver)
    }

    fn read_now(
        &self,
        partition: PartitionId,
        from_sequence: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, LogError> {
        let mut batch = Batch::default();
        let mut budget = max_bytes.min(crate::MAX_READ_BYTES);
        let mut sequence = from_sequence;
        while budget > 0 || batch.records.is_empty() {
            let place = {
                let index = self.shared.index.read();
                let bounds = index.bounds(partition).ok_or(LogError::UnknownPartition)?;
                if sequence < bounds.first_sequence {
                    // Retention may also overtake a read between two segments; what was read then stands alone.
                    if !batch.records.is_empty() {
                        return Ok(batch);
                    }
                    batch.skipped = bounds.first_sequence - sequence;
                    sequence = bounds.first_sequence;
                }
                if sequence >= bounds.next_sequence || batch.records.len() >= max_records {
                    return Ok(batch);
                }
                index.place_of(partition, sequence)
            };
            let before = sequence;
            if let Some(place) = place {
                sequence = place.read(partition, sequence, max_records, &mut budget, &mut batch)?;
            }
            if sequence == before {
                return if batch.records.is_empty() {
                    Err(LogError::Unreadable(format!("record {sequence} of partition {partition} is not there")))
                } else {
                    Ok(batch)
                };
            }
        }
        Ok(batch)
    }

    fn sequence_at_now(&self, partition: PartitionId, time: Timestamp) -> Result<u64, LogError> {
        let (bounds, place) = {
            let index = self.shared.index.read();
            let bounds = index.bounds(partition).ok_or(LogError::UnknownPartition)?;
            (bounds, index.place_at(partition, time))
        };
        let found = place.map_or(Ok(None), |place| place.find(partition, time))?;
        Ok(found.unwrap_or(bounds.next_sequence))
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Log for FileLog {
    fn partitions(&self) -> u32 {
        self.manifest.partitions
    }

    fn append_encoded(
        &self,
        partition: PartitionId,
        records: Encoded,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        let span = nave_trace::append();
        match self.enqueue(partition, records) {
            Ok(answer) => {
                nave_trace::within(span, Box::pin(async move { answer.await.unwrap_or(Err(LogError::Stopped)) }))
            }
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn room(&self) -> Option<BoxFuture<'static, ()>> {
        let receiver = {
            let mut queue = self.shared.queue.lock();
            if queue.stopping || queue.bytes <= self.queue_bytes / 2 {
                return None;
            }
            let (sender, receiver) = oneshot::channel();
            queue.room.push(sender);
            receiver
        };
        Some(Box::pin(async move {
            // An error means that the log was closed; the next append says so.
            let _ = receiver.await;
        }))
    }

    fn read(
        &self,
        partition: PartitionId,
        from_sequence: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(ready(self.read_now(partition, from_sequence, max_records, max_bytes)))
    }

    fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        self.shared.index.read().bounds(partition).ok_or(LogError::UnknownPartition)
    }

    fn sequence_at(&self, partition: PartitionId, time: Timestamp) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(ready(self.sequence_at_now(partition, time)))
    }

    fn changed(&self, partition: PartitionId, sequence: u64) -> BoxFuture<'static, ()> {
        let receiver = self.shared.wait_for(partition, sequence);
        Box::pin(async move {
            if let Some(receiver) = receiver {
                // An error means that the log was closed; the next read says so.
                let _ = receiver.await;
            }
        })
    }

    fn retain_from(&self, partition: PartitionId, sequence: u64) {
        if let Some(hold) = self.shared.holds.lock().get_mut(partition.index()) {
            *hold = if *hold == u64::MAX { sequence } else { sequence.max(*hold) };
        }
    }
}
