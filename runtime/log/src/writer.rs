//! The writer: one thread that turns waiting appends into one write and one sync.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use nave_env::SharedEnv;
use nave_model::Timestamp;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::oneshot;

use crate::disk::{Disk, DiskFile, SyncPoint};
use crate::file_log::Options;
use crate::frame::{HEADER_BYTES, Header};
use crate::index::{Index, Segment};
use crate::metrics::LogMetrics;
use crate::recover::Recovered;
use crate::segment::{Head, file_name, seed};
use crate::{Appended, LogError, PartitionId};

/// Bytes after which a group is closed: bounds how long its first append waits for the others.
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;

/// How often retention looks at the clock when nothing is written.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Waiters of one partition from which on those that nobody polls any more are looked for.
const PRUNE_WAITERS: usize = 1_024;

type Answer = Result<Appended, LogError>;

/// Who waits for the record of a sequence number.
type Waiter = (u64, oneshot::Sender<()>);

/// An encoded append that waits for its group.
pub(crate) struct Pending {
    pub(crate) partition: PartitionId,
    pub(crate) count: u32,
    pub(crate) payload_crc: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

impl Pending {
    pub(crate) fn frame_len(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Pending>,
    pub(crate) bytes: usize,
    /// Who waits until half of the queue's bytes are free.
    pub(crate) room: Vec<oneshot::Sender<()>>,
    /// Who waits for a run of retention.
    pub(crate) retain: Vec<oneshot::Sender<()>>,
    /// The writer sleeps and must be woken.
    pub(crate) idle: bool,
    pub(crate) stopping: bool,
}

/// What the log's handle and its writer share.
pub(crate) struct Shared {
    pub(crate) queue: Mutex<Queue>,
    pub(crate) wake: Condvar,
    pub(crate) index: RwLock<Index>,
    /// For each partition who waits for the record of a sequence number.
    waiters: Mutex<Vec<Vec<Waiter>>>,
    /// For each partition the first record that retention must keep.
    pub(crate) holds: Mutex<Vec<u64>>,
    pub(crate) metrics: LogMetrics,
    /// What retention goes by; it may change while the log is open.
    pub(crate) retention: Mutex<Retention>,
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) age: Duration,
    pub(crate) bytes: u64,
}

impl Shared {
    pub(crate) fn new(index: Index, retention: Retention) -> Self {
        let partitions = index.next.len();
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            index: RwLock::new(index),
            waiters: Mutex::new((0..partitions).map(|_| Vec::new()).collect()),
            holds: Mutex::new(vec![u64::MAX; partitions]),
            metrics: LogMetrics::default(),
            retention: Mutex::new(retention),
        }
    }

    /// A receiver that resolves once the record can be read; `None` if it can already, or never will.
    pub(crate) fn wait_for(&self, partition: PartitionId, sequence: u64) -> Option<oneshot::Receiver<()>> {
        // Stopping drops the senders under this lock, and publishing looks at them after the index was changed.
        let mut waiters = self.waiters.lock();
        let list = waiters.get_mut(partition.index())?;
        if self.index.read().next.get(partition.index()).is_none_or(|next| *next > sequence) {
            return None;
        }
        if self.queue.lock().stopping {
            return None;
        }
        if list.len() >= PRUNE_WAITERS && list.len().is_power_of_two() {
            list.retain(|(_, waiter)| !waiter.is_closed());
        }
        let (sender, receiver) = oneshot::channel();
        list.push((sequence, sender));
        Some(receiver)
    }

    fn wake_readers(&self) {
        let mut waiters = self.waiters.lock();
        let index = self.index.read();
        for (list, next) in waiters.iter_mut().zip(&index.next) {
            for (_, waiter) in list.extract_if(.., |(sequence, _)| *sequence < *next) {
                // A receiver that is gone does not want to know.
                let _ = waiter.send(());
            }
        }
    }
}

/// Stops the log when the writer ends, however it ends: nobody may wait for a thread that is gone.
struct StopGuard(Arc<Shared>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        let abandoned = {
            let mut queue = self.0.queue.lock();
            queue.stopping = true;
            queue.bytes = 0;
            (mem::take(&mut queue.waiting), mem::take(&mut queue.retain), mem::take(&mut queue.room))
        };
        // Dropping the senders answers.
        drop(abandoned);
        self.0.waiters.lock().iter_mut().for_each(Vec::clear);
    }
}

/// The segment that is written to.
struct Active {
    id: u64,
    file: Arc<dyn DiskFile>,
    /// The durable and acknowledged length.
    end: u64,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    env: SharedEnv,
    options: Options,
    salt: u32,
    /// For each partition the number of the next record and the enqueued time of the last one.
    tails: Vec<(u64, Timestamp)>,
    active: Option<Active>,
    /// The active segment must not be written to again: a sync of it failed, or a new segment may lie behind it on disk that
    /// says where it ends.
    sealed: bool,
    /// There may be bytes behind the end of the active segment.
    dirty: bool,
    buffer: Vec<u8>,
}

/// Where the frames of a group lie.
struct Placed {
    header: Header,
    position: u64,
}

/// A group could not be written.
enum Failure {
    /// There is no space, and nothing of the group is left.
    Full,
    Failed(io::Error),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        env: SharedEnv,
        options: Options,
        recovered: RecoveredTails,
    ) -> Self {
        let active = {
            let index = shared.index.read();
            index.segments.back().zip(recovered.active).map(|(segment, file)| Active {
                id: segment.head.id,
                file,
                end: segment.end,
            })
        };
        Self {
            shared,
            disk,
            env,
            options,
            salt: recovered.salt,
            tails: recovered.tails,
            active,
            sealed: false,
            dirty: false,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        let _stop = StopGuard(Arc::clone(&self.shared));
        self.retain();
        while let Some((group, retain)) = self.next_group() {
            if !group.is_empty() {
                self.write(group);
            }
            if !retain.is_empty() {
                self.retain();
                for waiter in retain {
                    let _ = waiter.send(());
                }
            }
        }
    }

    /// Waits for work; `None` once the log is closed and nothing is left to do.
    fn next_group(&mut self) -> Option<(Vec<Pending>, Vec<oneshot::Sender<()>>)> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        while queue.waiting.is_empty() && queue.retain.is_empty() {
            if queue.stopping {
                return None;
            }
            queue.idle = true;
            if shared.wake.wait_for(&mut queue, RETENTION_INTERVAL).timed_out() {
                drop(queue);
                self.retain();
                queue = shared.queue.lock();
            }
        }
        queue.idle = false;
        let mut group = Vec::with_capacity(queue.waiting.len());
        let mut bytes = 0;
        while bytes < MAX_GROUP_BYTES {
            let Some(pending) = queue.waiting.pop_front() else { break };
            bytes += pending.frame_len();
            group.push(pending);
        }
        queue.bytes -= bytes;
        let room = if queue.bytes <= self.options.queue_bytes / 2 { mem::take(&mut queue.room) } else { Vec::new() };
        let retain = mem::take(&mut queue.retain);
        drop(queue);
        for waiter in room {
            // A receiver that is gone does not want to know.
            let _ = waiter.send(());
        }
        Some((group, retain))
    }

    fn write(&mut self, group: Vec<Pending>) {
        let total: u64 = group.iter().map(|pending| pending.frame_len() as u64).sum();
        let new_segment = match &self.active {
            None => Some((0, 0)),
            Some(active) if self.sealed || active.end + total > self.options.segment_bytes => {
                Some((active.id + 1, active.end))
            }
            Some(_) => None,
        };
        let head = new_segment.map(|(id, previous_end)| Head { id, previous_end, partitions: self.tails.clone() });
        let mut tails = self.tails.clone();
        let placed = self.encode(&group, head.as_ref(), &mut tails);
        let began = self.env.monotonic();
        let written = match &head {
            Some(head) => self.write_new_segment(head),
            None => self.write_active(),
        };
        let metrics = &self.shared.metrics;
        metrics.sync.observe(self.env.monotonic().since(began));
        let appends = group.len() as u64;
        metrics.batch.count(appends);
        match &written {
            Ok(_) => {
                metrics.appended.add(appends);
                metrics.records.add(group.iter().map(|pending| u64::from(pending.count)).sum());
                metrics.bytes.add(total);
            }
            Err(Failure::Full) => metrics.full.add(appends),
            Err(Failure::Failed(_)) => metrics.failed.add(appends),
        }
        match written {
            Ok(new_file) => {
                self.tails = tails;
                self.publish(head.zip(new_file), &placed);
                for (pending, placed) in group.into_iter().zip(&placed) {
                    let Header { base_sequence, enqueued, .. } = placed.header;
                    // A receiver that is gone does not want the answer.
                    let _ = pending.answer.send(Ok(Appended { first_sequence: base_sequence, enqueued }));
                }
                self.shared.wake_readers();
                if new_segment.is_some() {
                    self.retain();
                }
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Full => LogError::Full,
                    Failure::Failed(error) => {
                        tracing::error!(%error, "the log cannot be written");
                        LogError::Failed(error.to_string())
                    }
                };
                for pending in group {
                    let _ = pending.answer.send(Err(error.clone()));
                }
            }
        }
        if self.buffer.capacity() > MAX_GROUP_BYTES / 4 {
            self.buffer = Vec::new();
        }
    }

    /// Numbers the records of a group and puts its frames into the buffer, behind the head of a new segment.
    fn encode(&mut self, group: &[Pending], head: Option<&Head>, tails: &mut [(u64, Timestamp)]) -> Vec<Placed> {
        let now = self.env.now();
        self.buffer.clear();
        let (id, start) = match (head, &self.active) {
            (Some(head), _) => {
                self.buffer.extend_from_slice(&head.encode(self.salt));
                (head.id, 0)
            }
            (None, Some(active)) => (active.id, active.end),
            (None, None) => (0, 0),
        };
        let seed = seed(self.salt, id);
        let mut placed = Vec::with_capacity(group.len());
        for pending in group {
            let Some((next, last)) = tails.get_mut(pending.partition.index()) else { continue };
            let header = Header {
                // Bounded by MAX_APPEND_BYTES.
                payload_len: pending.payload.len() as u32,
                payload_crc: pending.payload_crc,
                partition: pending.partition,
                count: pending.count,
                // Segments are smaller than 4 GiB: MAX_SEGMENT_BYTES and one group.
                durable_before: start as u32,
                base_sequence: *next,
                enqueued: now.max(*last),
            };
            *next = header.next_sequence();
            *last = header.enqueued;
            placed.push(Placed { header, position: start + self.buffer.len() as u64 });
            self.buffer.extend_from_slice(&header.encode(seed));
            self.buffer.extend_from_slice(&pending.payload);
        }
        placed
    }

    /// Appends the buffer to the active segment.
    fn write_active(&mut self) -> Result<Option<Arc<dyn DiskFile>>, Failure> {
        let Some(active) = &mut self.active else {
            return Err(Failure::Failed(io::Error::other("there is no segment")));
        };
        if self.dirty {
            active.file.truncate(active.end).map_err(Failure::Failed)?;
        }
        self.dirty = true;
        if let Err(error) = active.file.write_at(&self.buffer, active.end) {
            // Nothing of the group may turn up later if we say that there was no space.
            let undone = active.file.truncate(active.end).and_then(|()| active.file.sync(SyncPoint::Undone));
            return Err(match undone {
                Ok(()) if is_full(&error) => {
                    self.dirty = false;
                    Failure::Full
                }
                Ok(()) => {
                    self.dirty = false;
                    Failure::Failed(error)
                }
                Err(undo_error) => {
                    self.sealed = true;
                    Failure::Failed(undo_error)
                }
            });
        }
        if let Err(error) = active.file.sync(SyncPoint::Group) {
            // The kernel reports the loss of pages once and may then call them clean: this file is not written to again.
            // The next segment records where it ends.
            self.sealed = true;
            return Err(Failure::Failed(error));
        }
        self.dirty = false;
        active.end += self.buffer.len() as u64;
        Ok(None)
    }

    /// Writes the buffer as a new segment.
    fn write_new_segment(&mut self, head: &Head) -> Result<Option<Arc<dyn DiskFile>>, Failure> {
        // From here on the file may exist and say where the active segment ends.
        self.sealed = true;
        let name = file_name(head.id);
        let written = self.disk.create(&name).and_then(|file| {
            file.write_at(&self.buffer, 0)?;
            file.sync(SyncPoint::NewSegment)?;
            self.disk.sync_names(SyncPoint::NewSegmentName)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                let end = self.buffer.len() as u64;
                self.active = Some(Active { id: head.id, file: Arc::clone(&file), end });
                self.sealed = false;
                self.dirty = false;
                Ok(Some(file))
            }
            Err(error) => {
                let removed = self.disk.remove(&name).and_then(|()| self.disk.sync_names(SyncPoint::UndoneName));
                Err(if is_full(&error) && removed.is_ok() { Failure::Full } else { Failure::Failed(error) })
            }
        }
    }

    /// Shows a durable group to the readers.
    fn publish(&self, new_segment: Option<(Head, Arc<dyn DiskFile>)>, placed: &[Placed]) {
        let Some(active) = &self.active else { return };
        let mut index = self.shared.index.write();
        if let Some((head, file)) = new_segment {
            index.segments.push_back(Segment::new(head, file, self.salt, active.end));
        }
        if let Some(segment) = index.segments.back_mut() {
            segment.end = active.end;
            for Placed { header, position } in placed {
                segment.note(header, *position);
            }
        }
        for (next, (tail, _)) in index.next.iter_mut().zip(&self.tails) {
            *next = *tail;
        }
    }

    /// Removes the oldest segments that are too old or too many; never the last one.
    fn retain(&self) {
        while let Some(id) = self.expired() {
            // One after the other, and durably: a segment that came back behind a missing one would look like damage.
            let removed = self.disk.remove(&file_name(id)).and_then(|()| self.disk.sync_names(SyncPoint::Removed));
            if let Err(error) = removed {
                tracing::error!(%error, segment = id, "retention cannot remove a segment");
                return;
            }
            self.shared.index.write().segments.pop_front();
            tracing::info!(segment = id, "retention removed a segment");
        }
    }

    /// The first segment, if it may go.
    fn expired(&self) -> Option<u64> {
        let index = self.shared.index.read();
        let (first, second) = (index.segments.front()?, index.segments.get(1)?);
        let total: u64 = index.segments.iter().map(|segment| segment.end).sum();
        let retention = *self.shared.retention.lock();
        let too_many = total > retention.bytes;
        let too_old = first.newest().after(retention.age) < self.env.now();
        let held =
            self.shared.holds.lock().iter().enumerate().any(|(partition, hold)| {
                second.base(partition) > first.base(partition) && second.base(partition) > *hold
            });
        (too_many || (too_old && !held)).then_some(first.head.id)
    }
}

/// What the writer takes over from recovery.
pub(crate) struct RecoveredTails {
    salt: u32,
    tails: Vec<(u64, Timestamp)>,
    active: Option<Arc<dyn DiskFile>>,
}

impl RecoveredTails {
    /// Splits what was recovered into the readers' and the writer's part.
    pub(crate) fn split(recovered: Recovered) -> (Index, Self) {
        let tails = recovered.index.next.iter().copied().zip(recovered.last).collect();
        (recovered.index, Self { salt: recovered.manifest.salt, tails, active: recovered.active })
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
