//! The log on real files: against a model, across reopening, and yesterday's files.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use nave_env::{Env, Moment, Task};
use nave_log::{
    FileLog, Log, LogError, MAX_APPEND_BYTES, MAX_APPEND_RECORDS, MessageKey, NewRecord, Offset, OpenError, Options,
    PartitionId, Record, Source, partition_of,
};
use nave_model::Timestamp;
use proptest::prelude::*;

/// A clock that is set by hand.
#[derive(Default)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, seconds: u64) {
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
        buffer.fill(0xC3);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn partition(number: u32) -> PartitionId {
    PartitionId::new(number).unwrap()
}

fn message(number: u32, bytes: usize) -> NewRecord {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.to_le_bytes());
    NewRecord {
        key: MessageKey(key),
        source: Source::DeviceMessages,
        device_id: format!("device-{number}"),
        module_id: None,
        endpoints: vec!["events".into()],
        system: vec![("contentType".into(), "application/json".into())],
        properties: vec![("level".into(), "storage".into())],
        body: vec![number as u8; bytes].into(),
    }
}

fn open(dir: &Path, options: Options, clock: &Arc<Clock>) -> FileLog {
    let clock: Arc<Clock> = Arc::clone(clock);
    FileLog::open(dir, options, clock).unwrap()
}

fn small() -> Options {
    Options { segment_bytes: 4_000, retention_age: Duration::from_secs(100), ..Options::default() }
}

fn read(log: &FileLog, number: u32, from: u64) -> Vec<Record> {
    block_on(log.read(partition(number), from, usize::MAX, usize::MAX)).unwrap().records
}

#[test]
fn devices_stay_in_their_partition() {
    // Part of the format: these must never change. XXH3-64 of nothing is 0x2D06800538D394C2 by its specification.
    let found: Vec<u32> = ["", "device-1", "device-2", "ünïcode"].iter().map(|id| partition_of(id, 4).get()).collect();
    assert_eq!(found, [2, 1, 2, 3]);
    assert_eq!(partition_of("device-1", 32).get() % 4, 1);
    assert_eq!(partition_of("device-1", 0).get(), 0);
}

#[test]
fn an_offset_is_a_text_that_leads_back() {
    assert_eq!(Offset::of(17).to_string().parse(), Ok(Offset::of(17)));
    for text in ["", "+1", "-1", "x", "99999999999999999999"] {
        assert!(text.parse::<Offset>().is_err(), "{text}");
    }
}

#[test]
fn reads_are_bounded_and_say_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    let log = open(dir.path(), small(), &clock);
    for number in 0..60 {
        clock.set(u64::from(number) * 10);
        let appended = block_on(log.append(partition(0), vec![message(number, 300)])).unwrap();
        assert_eq!(appended.first_sequence, u64::from(number));
    }
    block_on(log.enforce_retention());
    let bounds = log.bounds(partition(0)).unwrap();
    assert_eq!(bounds.next_sequence, 60);
    assert!((40..50).contains(&bounds.first_sequence), "{bounds:?}");
    let batch = block_on(log.read(partition(0), 0, 3, usize::MAX)).unwrap();
    assert_eq!(batch.skipped, bounds.first_sequence);
    assert_eq!(batch.records.len(), 3);
    assert_eq!(batch.records[0].sequence, bounds.first_sequence);
    assert_eq!(batch.records[0].content, message(u32::try_from(bounds.first_sequence).unwrap(), 300));
    assert_eq!(block_on(log.read(partition(0), 50, 99, 1)).unwrap().records.len(), 1);
    assert_eq!(block_on(log.read(partition(0), 50, 99, 1_000)).unwrap().records.len(), 2);
    assert!(read(&log, 0, 60).is_empty() && read(&log, 0, u64::MAX).is_empty());
    assert_eq!(block_on(log.sequence_at(partition(0), Timestamp::from_unix_seconds(555))), Ok(56));
    assert_eq!(block_on(log.sequence_at(partition(0), Timestamp::from_unix_seconds(560))), Ok(56));
    assert_eq!(block_on(log.sequence_at(partition(0), Timestamp::from_unix_seconds(1))), Ok(bounds.first_sequence));
    assert_eq!(block_on(log.sequence_at(partition(0), Timestamp::from_unix_seconds(9_999))), Ok(60));
    let unknown = partition(4);
    assert_eq!(log.bounds(unknown), Err(LogError::UnknownPartition));
    assert_eq!(block_on(log.read(unknown, 0, 1, 1)), Err(LogError::UnknownPartition));
    assert_eq!(block_on(log.append(unknown, vec![message(1, 1)])), Err(LogError::UnknownPartition));
    // The numbers and the time go on after all records of a partition are gone, and the clock may have been put back.
    drop(log);
    clock.set(5);
    let log = open(dir.path(), small(), &clock);
    assert_eq!(log.bounds(partition(0)).unwrap(), bounds);
    let next = block_on(log.append(partition(0), vec![message(60, 1)])).unwrap();
    assert_eq!((next.first_sequence, next.enqueued), (60, Timestamp::from_unix_seconds(590)));
}

#[test]
fn a_hold_defers_retention_by_age_but_not_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    let options = Options { retention_bytes: 20_000, ..small() };
    let log = open(dir.path(), options, &clock);
    log.retain_from(partition(0), 5);
    for number in 0..30 {
        block_on(log.append(partition(0), vec![message(number, 300)])).unwrap();
    }
    clock.set(1_000);
    block_on(log.enforce_retention());
    assert!(log.bounds(partition(0)).unwrap().first_sequence <= 5);
    log.retain_from(partition(0), 20);
    block_on(log.enforce_retention());
    assert!((10..=20).contains(&log.bounds(partition(0)).unwrap().first_sequence));
    for number in 30..120 {
        block_on(log.append(partition(0), vec![message(number, 300)])).unwrap();
    }
    assert!(log.bounds(partition(0)).unwrap().first_sequence > 20, "the bound on the size wins");
}

#[test]
fn waiters_learn_of_records() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    let log = open(dir.path(), small(), &clock);
    let mut second = log.changed(partition(1), 1);
    let first = log.changed(partition(1), 0);
    block_on(log.append(partition(0), vec![message(0, 1)])).unwrap();
    block_on(log.append(partition(1), vec![message(1, 1)])).unwrap();
    block_on(first);
    assert!((&mut second).now_or_never().is_none());
    assert!(log.changed(partition(1), 0).now_or_never().is_some());
    block_on(log.append(partition(1), vec![message(2, 1)])).unwrap();
    block_on(second);
    let never = log.changed(partition(1), 99);
    log.close();
    block_on(never);
    block_on(log.changed(partition(1), 99));
    assert_eq!(block_on(log.append(partition(0), vec![message(3, 1)])), Err(LogError::Stopped));
    assert_eq!(read(&log, 1, 0).len(), 2, "what is durable can still be read");
}

#[test]
fn limits_are_enforced() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    let log = open(dir.path(), Options { queue_bytes: 1_000, ..small() }, &clock);
    for records in [vec![], vec![message(0, 0); MAX_APPEND_RECORDS + 1], vec![message(0, MAX_APPEND_BYTES / 5); 5]] {
        assert!(matches!(block_on(log.append(partition(0), records)), Err(LogError::TooLarge(_))));
    }
    let pending: Vec<_> = (0..2_000).map(|number| log.append(partition(0), vec![message(number, 300)])).collect();
    let results: Vec<_> = pending.into_iter().map(block_on).collect();
    assert!(results.contains(&Err(LogError::Busy)), "the queue is not bounded");
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(read(&log, 0, 0).len(), accepted);
}

#[test]
fn who_waits_for_room_is_never_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    let log = open(dir.path(), Options { queue_bytes: 8_000, ..small() }, &clock);
    let mut waited = 0;
    let pending: Vec<_> = (0..2_000)
        .map(|number| {
            while let Some(room) = log.room() {
                block_on(room);
                waited += 1;
            }
            log.append(partition(0), vec![message(number, 300)])
        })
        .collect();
    assert!(pending.into_iter().map(block_on).all(|result| result.is_ok()));
    assert!(waited > 0, "the queue was never half full");
    log.close();
    assert!(log.room().is_none(), "nobody waits for a closed log");
}

#[test]
fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    let log = open(dir.path(), small(), &clock);
    let env: Arc<Clock> = Arc::clone(&clock);
    assert!(matches!(FileLog::open(dir.path(), small(), env), Err(OpenError::Locked(_))));
    drop(log);
    let log = open(dir.path(), Options { partitions: 9, ..small() }, &clock);
    assert_eq!(log.partitions(), 4, "the partitions of a log are fixed");
    let env: Arc<Clock> = Arc::clone(&clock);
    let none = FileLog::open(&dir.path().join("other"), Options { partitions: 33, ..small() }, env);
    assert!(matches!(none, Err(OpenError::Partitions(33))));
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn write_fixture_records(log: &FileLog, clock: &Clock) {
    for number in 0..10_u32 {
        clock.set(1_790_000_000 + u64::from(number));
        let mut records = vec![message(number, 20)];
        if number % 3 == 0 {
            records.push(NewRecord {
                module_id: Some("modül".into()),
                source: Source::TwinChangeEvents,
                endpoints: vec!["events".into(), "cold-storage".into()],
                ..message(100 + number, 0)
            });
        }
        block_on(log.append(partition(number % 4), records)).unwrap();
    }
}

/// Run by hand when a new format is introduced, with the new name in [`fixture`]; files of old formats are never changed.
#[test]
#[ignore = "writes the files that the next test reads"]
fn write_the_fixture() {
    let clock = Arc::new(Clock::default());
    let log = open(&fixture(), Options { segment_bytes: 1_000, ..small() }, &clock);
    write_fixture_records(&log, &clock);
    drop(log);
    fs::remove_file(fixture().join("lock")).unwrap();
}

#[test]
fn yesterdays_files_open_today() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let clock = Arc::new(Clock::default());
    clock.set(1_790_000_010);
    let old = open(dir.path(), small(), &clock);
    let other = tempfile::tempdir().unwrap();
    let new = open(other.path(), small(), &clock);
    write_fixture_records(&new, &clock);
    for number in 0..4 {
        let records = read(&old, number, 0);
        assert!(records.len() >= 2);
        assert_eq!(records, read(&new, number, 0));
    }
    // And it goes on from there.
    let appended = block_on(old.append(partition(0), vec![message(1, 1)])).unwrap();
    assert_eq!(appended.first_sequence, new.bounds(partition(0)).unwrap().next_sequence);
}

#[derive(Clone, Debug)]
enum Step {
    Append { partition: u32, sizes: Vec<usize> },
    Read { partition: u32, from: u64, max_records: usize, max_bytes: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_u32, proptest::collection::vec(0..400_usize, 1..5))
            .prop_map(|(partition, sizes)| Step::Append { partition, sizes }),
        6 => (0..4_u32, 0..30_u64, 0..20_usize, 0..4_000_usize)
            .prop_map(|(partition, from, max_records, max_bytes)| Step::Read { partition, from, max_records, max_bytes }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_list_per_partition(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Clock::default());
        let options = Options { segment_bytes: 3_000, ..Options::default() };
        let mut log = open(dir.path(), options.clone(), &clock);
        let mut model: Vec<Vec<NewRecord>> = vec![Vec::new(); 4];
        let mut number = 0;
        let mut pending = Vec::new();
        for step in steps {
            match step {
                Step::Append { partition: to, sizes } => {
                    let records: Vec<_> = sizes.into_iter().map(|size| { number += 1; message(number, size) }).collect();
                    let list = &mut model[to as usize];
                    pending.push((list.len() as u64, log.append(partition(to), records.clone())));
                    list.extend(records);
                    continue;
                }
                Step::Reopen => {
                    drop(log);
                    log = open(dir.path(), options.clone(), &clock);
                }
                Step::Read { .. } => {}
            }
            for (first, append) in pending.drain(..) {
                prop_assert_eq!(block_on(append).unwrap().first_sequence, first);
            }
            if let Step::Read { partition: of, from, max_records, max_bytes } = step {
                let batch = block_on(log.read(partition(of), from, max_records, max_bytes)).unwrap();
                let expected = model[of as usize].get(usize::try_from(from).unwrap()..).unwrap_or_default();
                prop_assert_eq!(batch.skipped, 0);
                prop_assert_eq!(batch.records.is_empty(), expected.is_empty() || max_records == 0);
                prop_assert!(batch.records.len() <= max_records.min(expected.len()));
                for (at, record) in batch.records.iter().enumerate() {
                    prop_assert_eq!(record.sequence, from + at as u64);
                    prop_assert_eq!(&record.content, &expected[at]);
                }
            }
        }
        drop(log);
        let log = open(dir.path(), options, &clock);
        for (number, list) in (0..).zip(&model) {
            let found: Vec<_> = read(&log, number, 0).into_iter().map(|record| record.content).collect();
            prop_assert_eq!(&found, list);
        }
    }

    /// Whatever is in the files: an error or a log, never a panic.
    #[test]
    fn any_files_open_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..2_000_usize) {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture()).unwrap() {
            let entry = entry.unwrap();
            let mut content = fs::read(entry.path()).unwrap();
            let at = at.min(content.len());
            content.splice(at..(at + bytes.len()).min(content.len()), bytes.iter().copied());
            fs::write(dir.path().join(entry.file_name()), content).unwrap();
        }
        let env: Arc<Clock> = Arc::default();
        if let Ok(log) = FileLog::open(dir.path(), small(), env) {
            for number in 0..4 {
                block_on(log.read(partition(number), 0, 100, 10_000)).ok();
            }
        }
    }
}

/// Copies a snapshot into a directory, in pieces that do not fit its files.
fn copy(snapshot: &nave_log::LogSnapshot, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for file in snapshot.files() {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < file.len() {
            let mut piece = vec![0; 700.min(usize::try_from(file.len()).unwrap() - bytes.len())];
            file.read_at(&mut piece, bytes.len() as u64).unwrap();
            bytes.extend(piece);
        }
        assert!(file.read_at(&mut [0], file.len()).is_err(), "nothing lies behind the end");
        fs::write(dir.join(file.name()), bytes).unwrap();
    }
}

#[test]
fn a_snapshot_is_the_log_of_its_moment_whatever_happens_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::default());
    clock.set(1_000);
    let log = open(dir.path(), small(), &clock);
    for number in 0..20 {
        block_on(log.append(partition(number % 4), vec![message(number, 500)])).unwrap();
    }
    let snapshot = log.snapshot();
    assert!(snapshot.files().len() > 2, "there are several segments");
    let before: Vec<_> = (0..4).map(|number| block_on(log.read(partition(number), 0, 100, 1 << 20)).unwrap()).collect();
    // What is written and removed afterwards is not in the copy.
    clock.set(2_000);
    for number in 20..40 {
        block_on(log.append(partition(number % 4), vec![message(number, 500)])).unwrap();
    }
    log.set_retention(Duration::from_secs(1), 1);
    block_on(log.enforce_retention());
    assert!(log.bounds(partition(0)).unwrap().first_sequence > 0, "retention goes by what was set last");
    let other = dir.path().join("copy");
    copy(&snapshot, &other);
    let copied = open(&other, small(), &clock);
    for (number, before) in (0..4).zip(before) {
        assert_eq!(block_on(copied.read(partition(number), 0, 100, 1 << 20)).unwrap(), before);
        assert_eq!(copied.bounds(partition(number)).unwrap().next_sequence, 5);
    }
    block_on(copied.append(partition(1), vec![message(99, 10)])).unwrap();
}
