//! Power cuts and killed processes at every moment of a history, and with every single sync left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use nave_env::{Env, Moment, Task};
use nave_model::Timestamp;

use crate::disk::SyncPoint;
use crate::recording::{Image, Op, RecordingDisk};
use crate::{Appended, FileLog, Log, LogError, MessageKey, NewRecord, OpenError, Options, PartitionId, Record, Source};

const PARTITIONS: u32 = 2;

const SYNC_POINTS: [SyncPoint; 10] = [
    SyncPoint::Manifest,
    SyncPoint::ManifestName,
    SyncPoint::Group,
    SyncPoint::NewSegment,
    SyncPoint::NewSegmentName,
    SyncPoint::Opened,
    SyncPoint::OpenedNames,
    SyncPoint::Removed,
    SyncPoint::Undone,
    SyncPoint::UndoneName,
];

/// A clock that is set by hand.
#[derive(Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Env for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.0.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Moment {
        Moment::from_start(Duration::ZERO)
    }
    fn sleep(&self, _: Duration) -> nave_env::BoxFuture<()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, _: Task) {}
    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(0x5A);
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(crate) fn partition(number: u32) -> PartitionId {
    PartitionId::new(number).unwrap()
}

pub(crate) fn message(number: u32, bytes: usize) -> NewRecord {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.to_le_bytes());
    NewRecord {
        key: MessageKey(key),
        source: Source::DeviceMessages,
        device_id: "d".into(),
        module_id: None,
        endpoints: vec!["events".into()],
        system: vec![],
        properties: vec![("n".into(), number.to_string())],
        body: vec![number as u8; bytes].into(),
    }
}

/// Small segments; retention by age only.
pub(crate) fn options() -> Options {
    Options {
        partitions: PARTITIONS,
        segment_bytes: 700,
        retention_age: Duration::from_secs(1_000),
        retention_bytes: u64::MAX,
        ..Options::default()
    }
}

fn open(disk: &RecordingDisk, clock: &Arc<Clock>) -> Result<FileLog, OpenError> {
    let clock: Arc<Clock> = Arc::clone(clock);
    FileLog::open_on(Arc::new(disk.clone()), options(), clock)
}

/// Everything that a log shows.
type Dump = Vec<BTreeMap<u64, Record>>;

pub(crate) fn dump(log: &FileLog) -> Result<Dump, LogError> {
    (0..log.partitions())
        .map(|number| {
            let bounds = log.bounds(partition(number))?;
            let batch = block_on(log.read(partition(number), bounds.first_sequence, usize::MAX, usize::MAX))?;
            let records: BTreeMap<_, _> = batch.records.into_iter().map(|record| (record.sequence, record)).collect();
            let next = bounds.first_sequence + records.len() as u64;
            assert!(records.keys().copied().eq(bounds.first_sequence..next), "not contiguous");
            assert!(next >= bounds.next_sequence, "less than the bounds say");
            Ok(records)
        })
        .collect()
}

/// What somebody was told at a moment of the history.
#[derive(Clone, Default)]
struct Promise {
    /// What the log showed: it must stay, except for what retention removed.
    shown: Dump,
    /// The keys of messages that were refused for lack of space: they must never turn up.
    refused: BTreeSet<MessageKey>,
    /// For each partition the first sequence number that retention has left at the end of the history.
    retained: Vec<u64>,
}

#[derive(Default)]
struct History {
    disk: RecordingDisk,
    promises: Vec<Promise>,
    refused: BTreeSet<MessageKey>,
    submitted: BTreeMap<MessageKey, NewRecord>,
}

impl History {
    fn promise(&mut self, log: &FileLog) {
        let promise = Promise { shown: dump(log).unwrap(), refused: self.refused.clone(), retained: Vec::new() };
        self.disk.promise(self.promises.len());
        self.promises.push(promise);
    }

    fn append(
        &mut self,
        log: &FileLog,
        to: u32,
        records: &[NewRecord],
    ) -> crate::BoxFuture<'static, Result<Appended, LogError>> {
        self.submitted.extend(records.iter().map(|record| (record.key, record.clone())));
        log.append(partition(to), records.to_vec())
    }

    fn refuse(&mut self, records: &[NewRecord]) {
        self.refused.extend(records.iter().map(|record| record.key));
    }
}

/// A life of a log: groups, rolls, lack of space in both kinds of write, retention of several segments at once.
fn history(broken: Option<SyncPoint>) -> History {
    let mut history = History::default();
    let disk = history.disk.clone();
    disk.break_sync(broken);
    let clock = Arc::new(Clock::default());
    clock.set(10);
    let log = open(&disk, &clock).unwrap();
    let mut number = 0;
    let mut next = |bytes: usize| {
        number += 1;
        message(number, bytes)
    };
    for round in 0..6 {
        let pending: Vec<_> = (0..3)
            .map(|i| {
                let records: Vec<_> = (0..=i % 2).map(|_| next(40)).collect();
                history.append(&log, (round + i) % PARTITIONS, &records)
            })
            .collect();
        for append in pending {
            block_on(append).unwrap();
            history.promise(&log);
        }
    }
    // No space: of a group of two the first frame reaches the file whole. Once in the active segment, once in a new one.
    for roll in [false, true] {
        // A new segment to start from, with a known amount of room.
        let first = next(500);
        block_on(history.append(&log, 0, &[first])).unwrap();
        let gate = disk.hold_syncs();
        let blocked = next(if roll { 80 } else { 1 });
        let blocked = history.append(&log, 0, &[blocked]);
        while !last_op_is_write(&disk) {
            std::thread::yield_now();
        }
        let group = if roll { [next(200), next(200)] } else { [next(1), next(1)] };
        let appends = [0, 1].map(|to| history.append(&log, to, &group[to as usize..=to as usize]));
        disk.set_space(Some(if roll { 100 + 300 } else { 150 }));
        drop(gate);
        block_on(blocked).unwrap();
        for append in appends {
            assert_eq!(block_on(append), Err(LogError::Full));
        }
        history.refuse(&group);
        history.promise(&log);
        disk.set_space(None);
        let after = next(10);
        block_on(history.append(&log, 1, &[after])).unwrap();
        history.promise(&log);
    }
    // Everything but the last segment is too old.
    clock.set(5_000);
    block_on(log.enforce_retention());
    history.promise(&log);
    let last = next(30);
    block_on(history.append(&log, 0, &[last])).unwrap();
    history.promise(&log);
    drop(log);
    let retained: Vec<u64> =
        history.promises.last().unwrap().shown.iter().map(|records| *records.keys().next().unwrap()).collect();
    for promise in &mut history.promises {
        promise.retained.clone_from(&retained);
    }
    history
}

fn last_op_is_write(disk: &RecordingDisk) -> bool {
    matches!(disk.ops().last(), Some(Op::Write { .. }))
}

/// How what was not synced fares: all lost, all kept, torn in several ways, without what was undone, and mixtures.
const FATES: u64 = 12;

fn image(disk: &RecordingDisk, cut: usize, fate: u64) -> Image {
    let mut random = fate.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (cut as u64) << 32;
    disk.cut(cut, |op| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let len = match op {
            Op::Write { bytes, .. } => bytes.len(),
            _ => 0,
        };
        match (fate, random % 3) {
            (0, _) => None,
            (1, _) => Some((0, usize::MAX)),
            (2, _) => Some((0, len / 2)),
            (3, _) => Some((len / 2, usize::MAX)),
            (4, _) => Some((0, len.saturating_sub(1))),
            (5, _) => (!matches!(op, Op::Remove { .. })).then_some((0, usize::MAX)),
            (6, _) => (!matches!(op, Op::Truncate { .. })).then_some((0, usize::MAX)),
            (_, 0) => None,
            (_, 1) => Some((0, usize::MAX)),
            (_, _) => Some((0, (random >> 20) as usize % (len + 1))),
        }
    })
}

/// Opens an image and compares it with what was promised.
fn check(image: &Image, promise: &Promise, history: &History) -> Result<(), String> {
    let clock = Arc::new(Clock::default());
    let log = open(&RecordingDisk::with(image), &clock).map_err(|error| error.to_string())?;
    let found = dump(&log).map_err(|error| error.to_string())?;
    compare(&found, promise, history)
}

fn compare(found: &Dump, promise: &Promise, history: &History) -> Result<(), String> {
    for (number, records) in promise.shown.iter().enumerate() {
        for (sequence, record) in records.range(promise.retained.get(number).copied().unwrap_or(0)..) {
            if found[number].get(sequence) != Some(record) {
                return Err(format!("record {sequence} of partition {number} is lost or changed"));
            }
        }
    }
    for record in found.iter().flat_map(BTreeMap::values) {
        if history.submitted.get(&record.content.key) != Some(&record.content) {
            return Err(format!("record {} is invented", record.sequence));
        }
        if promise.refused.contains(&record.content.key) {
            return Err(format!("record {} had been refused", record.sequence));
        }
    }
    Ok(())
}

/// Cuts a history everywhere, by a power cut and by killing the process and a power cut later.
fn check_everywhere(history: &History, broken: Option<SyncPoint>) -> Result<(), String> {
    let ops = history.disk.ops();
    let mut promise = Promise::default();
    for cut in 0..=ops.len() {
        if let Some(Op::Promise(number)) = cut.checked_sub(1).map(|last| &ops[last]) {
            promise = history.promises[*number].clone();
        }
        for fate in 0..FATES {
            check(&image(&history.disk, cut, fate), &promise, history)
                .map_err(|error| format!("power cut at {cut} of {}, fate {fate}: {error}", ops.len()))?;
        }
        let killed = history.disk.killed(cut);
        killed.break_sync(broken);
        let log = open(&killed, &Arc::new(Clock::default())).map_err(|error| format!("killed at {cut}: {error}"))?;
        let shown = dump(&log).map_err(|error| format!("killed at {cut}: {error}"))?;
        drop(log);
        compare(&shown, &promise, history).map_err(|error| format!("killed at {cut}: {error}"))?;
        let promise = Promise { shown, ..promise.clone() };
        for fate in 0..FATES {
            check(&image(&killed, killed.ops().len(), fate), &promise, history)
                .map_err(|error| format!("killed at {cut}, then power cut, fate {fate}: {error}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_cut_keeps_what_was_promised() {
    check_everywhere(&history(None), None).unwrap();
}

#[test]
fn without_any_one_of_the_syncs_a_promise_is_broken() {
    for point in SYNC_POINTS {
        assert!(
            check_everywhere(&history(Some(point)), Some(point)).is_err(),
            "{point:?} is not needed, or not tested"
        );
    }
}

#[test]
fn after_a_failed_sync_the_log_goes_on_in_a_new_segment() {
    let disk = RecordingDisk::default();
    let clock = Arc::new(Clock::default());
    let log = open(&disk, &clock).unwrap();
    let kept = block_on(log.append(partition(0), vec![message(1, 10)])).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(block_on(log.append(partition(0), vec![message(2, 10)])), Err(LogError::Failed(_))));
    assert_eq!(log.bounds(partition(0)).unwrap().next_sequence, 1);
    let next = block_on(log.append(partition(0), vec![message(3, 10)])).unwrap();
    assert_eq!((kept.first_sequence, next.first_sequence), (0, 1));
    drop(log);
    // Whatever became of the write whose sync failed, it lies behind the end that the second segment records.
    for fate in 0..FATES {
        let log = open(&RecordingDisk::with(&image(&disk, disk.ops().len(), fate)), &clock).unwrap();
        let keys: Vec<_> = dump(&log).unwrap()[0].values().map(|record| record.content.key.0[0]).collect();
        assert_eq!(keys, [1, 3]);
    }
}

#[test]
fn damage_that_no_crash_can_do_is_an_error_that_names_the_place() {
    let clock = Arc::new(Clock::default());
    let disk = RecordingDisk::default();
    let log = open(&disk, &clock).unwrap();
    for number in 0..12 {
        block_on(log.append(partition(number % 2), vec![message(number, 40)])).unwrap();
    }
    drop(log);
    let whole = disk.image();
    let segments: Vec<_> = whole.keys().filter(|name| name.ends_with(".segment")).cloned().collect();
    assert!(segments.len() >= 3);
    let last = segments.last().unwrap();
    for name in &segments {
        let content = &whole[name];
        for at in 0..content.len() {
            let mut image = whole.clone();
            image.get_mut(name).unwrap()[at] ^= 0x10;
            match open(&RecordingDisk::with(&image), &clock) {
                Err(OpenError::Corrupt { file, position, .. }) => {
                    assert_eq!(&file, name);
                    assert!(position <= at as u64);
                }
                Err(OpenError::NewerFormat { file, .. }) => assert!(&file == name && (8..12).contains(&at)),
                Err(error) => panic!("{error}"),
                // Only the very last write cannot be told from a torn one.
                Ok(log) => {
                    assert_eq!(name, last);
                    let found: usize = dump(&log).unwrap().iter().map(BTreeMap::len).sum();
                    assert_eq!(found, 11, "more than the last write was dropped: byte {at} of {}", content.len());
                }
            }
        }
    }
    let mut image = whole.clone();
    image.remove(&segments[1]);
    assert!(matches!(open(&RecordingDisk::with(&image), &clock), Err(OpenError::Corrupt { .. })));
    let mut image = whole;
    image.remove("manifest");
    assert!(matches!(open(&RecordingDisk::with(&image), &clock), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_message_that_looks_like_a_frame_does_not_pass_for_one() {
    let clock = Arc::new(Clock::default());
    let disk = RecordingDisk::default();
    let log = open(&disk, &clock).unwrap();
    block_on(log.append(partition(0), vec![message(1, 10)])).unwrap();
    // A frame as a device would forge it: without the salt of the log.
    let header = crate::frame::Header {
        payload_len: 0,
        payload_crc: crc32c::crc32c(&[]),
        partition: partition(0),
        count: 1,
        durable_before: u32::MAX,
        base_sequence: 1,
        enqueued: Timestamp::default(),
    };
    let forged = NewRecord { body: header.encode(0).to_vec().into(), ..message(2, 0) };
    let gate = disk.hold_syncs();
    let append = log.append(partition(0), vec![forged]);
    while !last_op_is_write(&disk) {
        std::thread::yield_now();
    }
    assert!(append.now_or_never().is_none(), "answered before the sync");
    assert_eq!(log.bounds(partition(0)).unwrap().next_sequence, 1, "visible before the sync");
    // Torn in front of the forged frame.
    let image = disk.cut(disk.ops().len(), |_| Some((1, usize::MAX)));
    drop(gate);
    let log = open(&RecordingDisk::with(&image), &clock).unwrap();
    assert_eq!(log.bounds(partition(0)).unwrap().next_sequence, 1);
}
