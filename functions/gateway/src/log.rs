//! Telemetry in the key-value store: the newest of it.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use nave_env::SharedEnv;
use nave_log::{Appended, Batch, Bounds, BoxFuture, Encoded, Log, LogError, PartitionId, Record, decode_all};
use nave_model::{Keys, Timestamp};
use nave_store::{CommitError, Expect, Guard, Put, Revision, Store};

/// Appends that are kept per partition: as many requests that sent telemetry. Older ones are overwritten; somebody has to
/// fetch them before.
pub const KEPT_APPENDS: u64 = 1_000;

/// Attempts at an append that others forestall.
const MAX_ATTEMPTS: u32 = 10;

/// The version of the format of heads.
const FORMAT: u64 = 1;

/// Partitions: one, because the appends of a hub wait for each other in such a store anyway.
const PARTITIONS: u32 = 1;

/// The [`Log`] of one hub in a [`Store`] whose futures are ready at once.
///
/// Each append is one value in one of [`KEPT_APPENDS`] places, which are used in turn, so that no key is ever deleted: a
/// bucket keeps a tombstone for each that is. A head beside them counts.
pub struct BucketLog {
    env: SharedEnv,
    store: Arc<dyn Store>,
    keys: Keys,
}

/// How far the log is. Four numbers of eight bytes, little-endian, the first of which is the version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    appends: u64,
    next_sequence: u64,
    last: Timestamp,
}

/// One append: sequence number of its first record and time, eight bytes each, then the records.
struct Append {
    first_sequence: u64,
    enqueued: Timestamp,
    payload: Bytes,
}

impl BucketLog {
    /// The log of the hub with these keys.
    pub fn new(env: SharedEnv, store: Arc<dyn Store>, keys: Keys) -> Self {
        Self { env, store, keys }
    }

    fn head_key(&self) -> String {
        self.keys.single("telemetry")
    }

    fn place(&self, append: u64) -> String {
        self.keys.telemetry(0, append % KEPT_APPENDS)
    }

    fn value(&self, key: &str) -> Result<Option<(Bytes, Revision)>, LogError> {
        match self.store.get(key).now_or_never() {
            Some(Ok(entry)) => Ok(entry.map(|entry| (entry.value, entry.revision))),
            Some(Err(error)) => Err(LogError::Unreadable(error.to_string())),
            None => Err(LogError::Unreadable("the store does not answer at once".to_owned())),
        }
    }

    fn head(&self) -> Result<(Head, Expect), LogError> {
        let key = self.head_key();
        let Some((value, revision)) = self.value(&key)? else { return Ok((Head::default(), Expect::Absent)) };
        let head = Head::decode(&value).ok_or_else(|| LogError::Unreadable(format!("{key} is damaged")))?;
        Ok((head, Expect::At(revision)))
    }

    fn append_at(&self, append: u64) -> Result<Append, LogError> {
        let key = self.place(append);
        let value = self.value(&key)?;
        value
            .and_then(|(value, _)| Append::decode(&value))
            .ok_or_else(|| LogError::Unreadable(format!("{key} is missing or damaged")))
    }

    /// The first append that is kept whose records end after what `before` says of them.
    fn find(&self, head: &Head, before: impl Fn(&Append) -> bool) -> Result<u64, LogError> {
        let (mut low, mut high) = (head.first_append(), head.appends);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(&self.append_at(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn append_now(&self, records: &Encoded) -> Result<Appended, LogError> {
        let key = self.head_key();
        for _ in 0..MAX_ATTEMPTS {
            let (head, expect) = self.head()?;
            let enqueued = self.env.now().max(head.last);
            let append =
                Append { first_sequence: head.next_sequence, enqueued, payload: records.clone().into_payload().into() };
            let next = Head {
                appends: head.appends + 1,
                next_sequence: head.next_sequence + u64::from(records.count()),
                last: enqueued,
            };
            let puts = vec![
                Put { key: self.place(head.appends), value: Some(append.encode()) },
                Put { key: key.clone(), value: Some(next.encode()) },
            ];
            let commit = self.store.commit(vec![Guard { key: key.clone(), expect }], puts);
            match commit.now_or_never() {
                Some(Ok(_)) => return Ok(Appended { first_sequence: head.next_sequence, enqueued }),
                Some(Err(CommitError::Conflict { .. })) => {}
                Some(Err(CommitError::Busy)) => return Err(LogError::Busy),
                Some(Err(CommitError::Full)) => return Err(LogError::Full),
                Some(Err(error)) => return Err(LogError::Failed(error.to_string())),
                None => return Err(LogError::Failed("the store does not answer at once".to_owned())),
            }
        }
        Err(LogError::Busy)
    }

    fn read_now(&self, from: u64, max_records: usize, max_bytes: usize) -> Result<Batch, LogError> {
        let (head, _) = self.head()?;
        let first = self.first_sequence(&head)?;
        let mut batch = Batch { records: Vec::new(), skipped: first.saturating_sub(from) };
        let from = from.max(first);
        // The append that `from` is in, or the one after it.
        let start = self.find(&head, |append| append.first_sequence <= from)?.saturating_sub(1);
        let mut budget = max_bytes;
        for number in start.max(head.first_append())..head.appends {
            let append = self.append_at(number)?;
            for (sequence, content) in (append.first_sequence..).zip(decode_all(&append.payload)) {
                if sequence < from {
                    continue;
                }
                let length = content.body.len();
                if batch.records.len() >= max_records || (length > budget && !batch.records.is_empty()) {
                    return Ok(batch);
                }
                budget = budget.saturating_sub(length);
                let partition = PARTITION.ok_or(LogError::UnknownPartition)?;
                batch.records.push(Record { partition, sequence, enqueued: append.enqueued, content });
            }
        }
        Ok(batch)
    }

    fn first_sequence(&self, head: &Head) -> Result<u64, LogError> {
        match head.first_append() {
            0 => Ok(0),
            first => Ok(self.append_at(first)?.first_sequence),
        }
    }
}

const PARTITION: Option<PartitionId> = PartitionId::new(0);

impl Head {
    /// The oldest append that is kept.
    const fn first_append(&self) -> u64 {
        self.appends.saturating_sub(KEPT_APPENDS)
    }

    fn encode(&self) -> Bytes {
        let numbers = [FORMAT, self.appends, self.next_sequence, self.last.unix_nanos()];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (FORMAT, rest) = number(bytes)? else { return None };
        let (appends, rest) = number(rest)?;
        let (next_sequence, rest) = number(rest)?;
        let (last, rest) = number(rest)?;
        rest.is_empty().then_some(Self { appends, next_sequence, last: Timestamp::from_unix_nanos(last) })
    }
}

impl Append {
    fn encode(&self) -> Bytes {
        let mut bytes = self.first_sequence.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.enqueued.unix_nanos().to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes.into()
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        let (first_sequence, rest) = number(bytes)?;
        let (enqueued, rest) = number(rest)?;
        let enqueued = Timestamp::from_unix_nanos(enqueued);
        Some(Self { first_sequence, enqueued, payload: bytes.slice_ref(rest) })
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

impl Log for BucketLog {
    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn append_encoded(
        &self,
        partition: PartitionId,
        records: Encoded,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        let result = match (partition.get(), records.is_empty()) {
            (PARTITIONS.., _) => Err(LogError::UnknownPartition),
            (_, true) => Err(LogError::TooLarge("there is no record")),
            (_, false) => self.append_now(&records),
        };
        Box::pin(ready(result))
    }

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
        Box::pin(ready(match partition.get() {
            PARTITIONS.. => Err(LogError::UnknownPartition),
            _ => self.read_now(from_sequence, max_records, max_bytes),
        }))
    }

    fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        if partition.get() >= PARTITIONS {
            return Err(LogError::UnknownPartition);
        }
        let (head, _) = self.head()?;
        Ok(Bounds { first_sequence: self.first_sequence(&head)?, next_sequence: head.next_sequence })
    }

    fn sequence_at(&self, partition: PartitionId, time: Timestamp) -> BoxFuture<'_, Result<u64, LogError>> {
        if partition.get() >= PARTITIONS {
            return Box::pin(ready(Err(LogError::UnknownPartition)));
        }
        let found = self.head().and_then(|(head, _)| {
            let append = self.find(&head, |append| append.enqueued < time)?;
            if append < head.appends { Ok(self.append_at(append)?.first_sequence) } else { Ok(head.next_sequence) }
        });
        Box::pin(ready(found))
    }

    /// Nobody waits here for what another request appends.
    fn changed(&self, partition: PartitionId, sequence: u64) -> BoxFuture<'static, ()> {
        match self.bounds(partition) {
            Ok(bounds) if bounds.next_sequence <= sequence => Box::pin(std::future::pending()),
            _ => Box::pin(ready(())),
        }
    }

    /// What is kept is a number of appends, whoever still needs them.
    fn retain_from(&self, _: PartitionId, _: u64) {}
}

#[cfg(test)]
mod tests {
    use nave_log::{MessageKey, NewRecord, Source};
    use nave_model::Tenant;
    use nave_store::{BucketStore, MemoryBucket};

    use super::*;
    use crate::env::RequestEnv;
    use crate::env::tests::Fixed;

    fn log() -> BucketLog {
        let store = Arc::new(BucketStore::new(MemoryBucket::default(), 0));
        BucketLog::new(RequestEnv::new(Box::new(Fixed::default())), store, Keys::new(&Tenant::default_tenant(), "hub1"))
    }

    fn record(number: u64) -> NewRecord {
        NewRecord {
            key: MessageKey([0; 16]),
            source: Source::DeviceMessages,
            device_id: "d".into(),
            module_id: None,
            endpoints: Vec::new(),
            system: Vec::new(),
            properties: Vec::new(),
            body: number.to_string().into(),
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }

    #[test]
    fn what_is_appended_is_read_from_anywhere() {
        let (log, partition) = (log(), PARTITION.unwrap());
        assert_eq!(log.bounds(partition), Ok(Bounds { first_sequence: 0, next_sequence: 0 }));
        for (count, first) in [(2, 0), (1, 2), (3, 3)] {
            let appended = now(log.append(partition, (first..first + count).map(record).collect())).unwrap();
            assert_eq!(appended.first_sequence, first);
        }
        for from in 0..=7 {
            let batch = now(log.read(partition, from, 100, 1_000)).unwrap();
            let bodies: Vec<u64> = batch
                .records
                .iter()
                .map(|record| std::str::from_utf8(&record.content.body).unwrap().parse().unwrap())
                .collect();
            assert_eq!(bodies, (from..6).collect::<Vec<_>>());
            assert!(batch.records.iter().zip(from..).all(|(record, sequence)| record.sequence == sequence));
        }
        assert_eq!(now(log.read(partition, 0, 2, 1_000)).unwrap().records.len(), 2);
        assert_eq!(now(log.read(partition, 0, 9, 0)).unwrap().records.len(), 1);
        let time = Timestamp::from_unix_seconds(1_790_000_000);
        assert_eq!(now(log.sequence_at(partition, time)), Ok(0));
        assert_eq!(now(log.sequence_at(partition, time.after(std::time::Duration::from_secs(1)))), Ok(6));
        assert!(log.changed(partition, 5).now_or_never().is_some());
        assert!(log.changed(partition, 6).now_or_never().is_none());
        let other = PartitionId::new(1).unwrap();
        assert_eq!(now(log.append(other, vec![record(1)])), Err(LogError::UnknownPartition));
        assert_eq!(now(log.append(partition, Vec::new())), Err(LogError::TooLarge("there is no record")));
    }

    #[test]
    fn the_oldest_make_place() {
        let (log, partition) = (log(), PARTITION.unwrap());
        for number in 0..KEPT_APPENDS + 3 {
            now(log.append(partition, vec![record(number)])).unwrap();
        }
        assert_eq!(log.bounds(partition).unwrap().first_sequence, 3);
        let batch = now(log.read(partition, 0, 1, 1_000)).unwrap();
        assert_eq!((batch.skipped, batch.records[0].sequence), (3, 3));
        let last = now(log.read(partition, KEPT_APPENDS + 2, 10, 1_000)).unwrap();
        assert_eq!(last.records.len(), 1);
    }
}
