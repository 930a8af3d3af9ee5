//! A log in memory, in virtual time, that can be crashed.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use nave_env::SharedEnv;
use nave_model::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    Appended, Batch, Bounds, BoxFuture, Encoded, Log, LogError, MAX_PARTITIONS, MAX_READ_BYTES, NewRecord, PartitionId,
    Record, record,
};

type Answer = Result<Appended, LogError>;

type Answers = Vec<(oneshot::Sender<Answer>, Answer)>;

struct Pending {
    partition: PartitionId,
    records: Vec<NewRecord>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Partition {
    first: u64,
    records: VecDeque<Record>,
    last: Timestamp,
    waiters: Vec<(u64, oneshot::Sender<()>)>,
    hold: Option<u64>,
}

impl Partition {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

struct Inner {
    partitions: Vec<Partition>,
    pending: VecDeque<Pending>,
    /// A task will apply what is pending.
    flushing: bool,
    /// Counts crashes, so that a task from before one does nothing after it.
    life: u64,
    full: bool,
}

/// The simulated [`Log`]. It plays the disk too: keep the `Arc` while hosts that use it crash and start again.
///
/// The environment is the log's own: one of a host that crashes would take the pending appends with it unanswered.
pub struct SimLog {
    env: SharedEnv,
    delay: Duration,
    partitions: u32,
    inner: Arc<Mutex<Inner>>,
}

impl SimLog {
    /// An empty log of 1 to [`MAX_PARTITIONS`] partitions that needs `delay` of virtual time to make appends durable.
    pub fn new(env: SharedEnv, partitions: u32, delay: Duration) -> Self {
        let partitions = partitions.clamp(1, MAX_PARTITIONS);
        let inner = Inner {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            pending: VecDeque::new(),
            flushing: false,
            life: 0,
            full: false,
        };
        Self { env, delay, partitions, inner: Arc::new(Mutex::new(inner)) }
    }

    /// What a power cut does: everything that is not durable is gone, and who waits for it learns [`LogError::Stopped`].
    /// The log can be used again at once, as after a restart.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.life += 1;
        inner.flushing = false;
        let pending = std::mem::take(&mut inner.pending);
        let waiters: Vec<_> = inner.partitions.iter_mut().map(|each| std::mem::take(&mut each.waiters)).collect();
        drop(inner);
        // Dropping the senders answers.
        drop((pending, waiters));
    }

    /// Whether appends find the disk full from now on.
    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    /// What retention does: forgets the records before `sequence`, except those that are held.
    pub fn forget_before(&self, partition: PartitionId, sequence: u64) {
        if let Some(partition) = self.inner.lock().partitions.get_mut(partition.index()) {
            let until = sequence.min(partition.hold.unwrap_or(u64::MAX));
            while partition.first < until && partition.records.pop_front().is_some() {
                partition.first += 1;
            }
        }
    }

    async fn flush(env: SharedEnv, delay: Duration, inner: Arc<Mutex<Inner>>, life: u64) {
        env.sleep(delay).await;
        let now = env.now();
        let (answers, woken) = {
            let mut inner = inner.lock();
            if inner.life != life {
                return;
            }
            inner.flushing = false;
            inner.apply(now)
        };
        for (answer, result) in answers {
            // A receiver that is gone does not want the answer.
            let _ = answer.send(result);
        }
        for waiter in woken {
            let _ = waiter.send(());
        }
    }
}

impl Inner {
    fn apply(&mut self, now: Timestamp) -> (Answers, Vec<oneshot::Sender<()>>) {
        let mut answers = Vec::new();
        let mut woken = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let Some(partition) = self.partitions.get_mut(pending.partition.index()) else { continue };
            if self.full {
                answers.push((pending.answer, Err(LogError::Full)));
                continue;
            }
            let enqueued = now.max(partition.last);
            partition.last = enqueued;
            let first_sequence = partition.next();
            for (sequence, content) in (first_sequence..).zip(pending.records) {
                partition.records.push_back(Record { partition: pending.partition, sequence, enqueued, content });
            }
            answers.push((pending.answer, Ok(Appended { first_sequence, enqueued })));
        }
        for partition in &mut self.partitions {
            let next = partition.next();
            woken.extend(partition.waiters.extract_if(.., |(sequence, _)| *sequence < next).map(|(_, waiter)| waiter));
        }
        (answers, woken)
    }
}

impl Log for SimLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn append_encoded(
        &self,
        partition: PartitionId,
        records: Encoded,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        if partition.get() >= self.partitions {
            return Box::pin(ready(Err(LogError::UnknownPartition)));
        }
        if records.is_empty() {
            return Box::pin(ready(Err(LogError::TooLarge("there is no record"))));
        }
        let records = records.decoded();
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.lock();
        inner.pending.push_back(Pending { partition, records, answer: sender });
        if !std::mem::replace(&mut inner.flushing, true) {
            let life = inner.life;
            drop(inner);
            let task = Self::flush(Arc::clone(&self.env), self.delay, Arc::clone(&self.inner), life);
            self.env.spawn(Box::pin(task));
        }
        Box::pin(async move { receiver.await.unwrap_or(Err(LogError::Stopped)) })
    }

    /// The simulated queue has no bound.
    fn room(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }

    fn read(
        &self,
        partition: PartitionId,
        from_sequence: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(async move {
            let inner = self.inner.lock();
            let partition = inner.partitions.get(partition.index()).ok_or(LogError::UnknownPartition)?;
            let mut batch = Batch { records: Vec::new(), skipped: partition.first.saturating_sub(from_sequence) };
            let start = usize::try_from(from_sequence.saturating_sub(partition.first)).unwrap_or(usize::MAX);
            let mut budget = max_bytes.min(MAX_READ_BYTES);
            for record in partition.records.iter().skip(start).take(max_records) {
                let encoded = Encoded::of(std::slice::from_ref(&record.content))?;
                let len = encoded.into_payload().len() - record::LENGTH_BYTES;
                if len > budget && !batch.records.is_empty() {
                    break;
                }
                budget = budget.saturating_sub(len);
                batch.records.push(record.clone());
            }
            Ok(batch)
        })
    }

    fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        let inner = self.inner.lock();
        let partition = inner.partitions.get(partition.index()).ok_or(LogError::UnknownPartition)?;
        Ok(Bounds { first_sequence: partition.first, next_sequence: partition.next() })
    }

    fn sequence_at(&self, partition: PartitionId, time: Timestamp) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move {
            let inner = self.inner.lock();
            let partition = inner.partitions.get(partition.index()).ok_or(LogError::UnknownPartition)?;
            Ok(partition.first + partition.records.partition_point(|record| record.enqueued < time) as u64)
        })
    }

    fn changed(&self, partition: PartitionId, sequence: u64) -> BoxFuture<'static, ()> {
        let mut inner = self.inner.lock();
        let Some(partition) = inner.partitions.get_mut(partition.index()).filter(|each| each.next() <= sequence) else {
            return Box::pin(ready(()));
        };
        let (sender, receiver) = oneshot::channel();
        partition.waiters.retain(|(_, waiter)| !waiter.is_closed());
        partition.waiters.push((sequence, sender));
        Box::pin(async move {
            // An error means that the log crashed; the next read shows what is there.
            let _ = receiver.await;
        })
    }

    fn retain_from(&self, partition: PartitionId, sequence: u64) {
        if let Some(partition) = self.inner.lock().partitions.get_mut(partition.index()) {
            partition.hold = Some(partition.hold.map_or(sequence, |hold| hold.max(sequence)));
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_env::sim::Simulation;

    use super::*;
    use crate::{MessageKey, Source};

    fn record(number: u8) -> NewRecord {
        NewRecord {
            key: MessageKey([number; 16]),
            source: Source::DeviceMessages,
            device_id: "d".into(),
            module_id: None,
            endpoints: vec!["events".into()],
            system: vec![],
            properties: vec![],
            body: vec![number].into(),
        }
    }

    #[test]
    fn appends_take_virtual_time_and_a_crash_takes_what_was_pending() {
        let world = Simulation::new(1, Timestamp::from_unix_seconds(1));
        let env = world.host();
        let log = Arc::new(SimLog::new(env, 2, Duration::from_millis(2)));
        let partition = PartitionId::new(1).unwrap();
        let test = Arc::clone(&log);
        world
            .run(async move {
                let first = test.append(partition, vec![record(1), record(2)]);
                let second = test.append(partition, vec![record(3)]);
                assert!(test.read(partition, 0, 9, 9999).await.unwrap().records.is_empty());
                test.changed(partition, 2).await;
                assert_eq!(first.await.unwrap().first_sequence, 0);
                let second = second.await.unwrap();
                assert_eq!(second.first_sequence, 2);
                let lost = test.append(partition, vec![record(4)]);
                test.crash();
                assert_eq!(lost.await, Err(LogError::Stopped));
                let next = test.append(partition, vec![record(5)]).await.unwrap();
                assert_eq!(next.first_sequence, 3);
                assert!(next.enqueued > second.enqueued);
                assert_eq!(test.sequence_at(partition, next.enqueued).await, Ok(3));
                test.retain_from(partition, 2);
                test.forget_before(partition, 9);
                let batch = test.read(partition, 0, 9, 9999).await.unwrap();
                assert_eq!((batch.skipped, batch.records.len(), batch.records[0].sequence), (2, 2, 2));
                assert_eq!(test.read(partition, 0, 9, 1).await.unwrap().records.len(), 1);
                test.set_full(true);
                assert_eq!(test.append(partition, vec![record(6)]).await, Err(LogError::Full));
                let unknown = PartitionId::new(2).unwrap();
                assert_eq!(test.append(unknown, vec![record(6)]).await, Err(LogError::UnknownPartition));
            })
            .unwrap();
    }
}
