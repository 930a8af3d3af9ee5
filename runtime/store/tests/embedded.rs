//! The embedded store on real files.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nave_env::SharedEnv;
use nave_env::sim::Simulation;
use nave_model::Timestamp;
use nave_store::{CommitError, Expect, FjallStore, Guard, OpenError, Options, Put, Revision, Store};
use proptest::prelude::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn env() -> SharedEnv {
    Simulation::new(1, Timestamp::from_unix_seconds(1)).host()
}

fn options() -> Options {
    Options { cache_bytes: 1 << 20, reserve_bytes: 0 }
}

fn open(dir: &Path) -> FjallStore {
    FjallStore::open(dir, options(), env()).unwrap()
}

fn put(key: &str, value: &[u8]) -> Put {
    Put { key: key.into(), value: Some(Bytes::copy_from_slice(value)) }
}

fn dump(store: &FjallStore) -> BTreeMap<String, (u64, Bytes)> {
    block_on(store.scan("", None, 10_000))
        .unwrap()
        .into_iter()
        .map(|(key, entry)| (key, (entry.revision.get(), entry.value)))
        .collect()
}

#[test]
fn revisions_never_repeat_even_across_deletion_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    let first = {
        let store = open(&dir);
        let first = block_on(store.commit(vec![], vec![put("k", b"1")])).unwrap();
        block_on(store.commit(vec![], vec![Put { key: "k".into(), value: None }])).unwrap();
        assert_eq!(block_on(store.get("k")), Ok(None));
        first
    };
    let store = open(&dir);
    assert!(dump(&store).is_empty());
    let second = block_on(store.commit(vec![], vec![put("k", b"1")])).unwrap();
    assert!(second.get() > first.get() + 1, "the deletion has a revision too");
    let stale = vec![Guard { key: "k".into(), expect: Expect::At(first) }];
    assert!(matches!(block_on(store.commit(stale, vec![put("k", b"2")])), Err(CommitError::Conflict { .. })));
}

#[test]
fn a_scan_is_ordered_bounded_and_continues_after_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let puts = ["a/1", "a/2", "a/3", "a0", "b/1"].map(|key| put(key, b"v")).to_vec();
    block_on(store.commit(vec![], puts)).unwrap();
    let keys = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        block_on(store.scan(prefix, after, limit)).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys("a/", None, 10), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys("a/", None, 2), ["a/1", "a/2"]);
    assert_eq!(keys("a/", Some("a/2"), 10), ["a/3"]);
    assert_eq!(keys("b", Some("a/2"), 10), ["b/1"]);
    assert!(keys("a/", Some("a/3"), 10).is_empty());
    assert!(keys("", None, 0).is_empty());
    assert!(block_on(store.scan("", None, 10_001)).is_err());
}

#[test]
fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(FjallStore::open(dir.path(), options(), env()), Err(OpenError::Locked(_))));
    drop(store);
    open(dir.path());
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    {
        let database = fjall::Database::builder(dir.path()).open().unwrap();
        let about = database.keyspace("about", fjall::KeyspaceCreateOptions::default).unwrap();
        about.insert("format", 2_u32.to_le_bytes()).unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let Err(OpenError::NewerFormat { found: 2, known: 1, .. }) = FjallStore::open(dir.path(), options(), env()) else {
        panic!("opened a store of the future")
    };
}

#[test]
fn a_value_is_stored_as_the_format_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    block_on(store.commit(vec![], vec![put("x", b"")])).unwrap();
    block_on(store.commit(vec![], vec![put("k", b"value")])).unwrap();
    drop(store);
    let database = fjall::Database::builder(dir.path()).open().unwrap();
    let state = database.keyspace("state", fjall::KeyspaceCreateOptions::default).unwrap();
    assert_eq!(&*state.get("k").unwrap().unwrap(), b"\x02\0\0\0\0\0\0\0value");
    let about = database.keyspace("about", fjall::KeyspaceCreateOptions::default).unwrap();
    assert_eq!(&*about.get("revision").unwrap().unwrap(), 2_u64.to_le_bytes());
    assert_eq!(&*about.get("format").unwrap().unwrap(), 1_u32.to_le_bytes());
}

#[test]
fn the_reserve_keeps_the_store_readable() {
    let dir = tempfile::tempdir().unwrap();
    block_on(open(dir.path()).commit(vec![], vec![put("k", b"1")])).unwrap();
    let full = Options { reserve_bytes: u64::MAX, ..options() };
    let store = FjallStore::open(dir.path(), full, env()).unwrap();
    assert_eq!(block_on(store.commit(vec![], vec![put("k", b"2")])), Err(CommitError::Full));
    assert_eq!(block_on(store.get("k")).unwrap().unwrap().value, "1");
}

/// A directory for the many images: in memory where that exists, because each opening syncs.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Everything but the journal is copied; the journal gets the given bytes.
fn image(from: &Path, to: &Path, journal: &[u8]) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            image(&entry.path(), &target, journal);
        } else if entry.path().extension().is_some_and(|extension| extension == "jnl") {
            fs::write(&target, journal).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The bytes of the only journal, without the zeros that the engine put there in advance.
fn journal(dir: &Path) -> Vec<u8> {
    let journals: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    assert_eq!(journals.len(), 1, "this test is about one journal");
    let mut bytes = fs::read(&journals[0]).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

/// Cuts the real journal at every byte after an acknowledged commit, followed by nothing, by zeros or by rubbish: what was acknowledged must be there, and of what came after it all or nothing.
///
/// This covers how the engine reads a torn journal. Which bytes `fdatasync` has forced to the medium cannot be seen from
/// here; that the committer asks for it is proved in the committer's own tests.
#[test]
fn a_journal_torn_anywhere_after_an_acknowledgement_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    block_on(store.commit(vec![], vec![put("a", b"1"), put("b", b"1")])).unwrap();
    block_on(store.commit(vec![], vec![Put { key: "b".into(), value: None }, put("c", b"2")])).unwrap();
    let acknowledged = (journal(dir.path()), dump(&store));
    block_on(store.commit(vec![], vec![put("a", b"3"), put("d", b"3"), Put { key: "c".into(), value: None }])).unwrap();
    let next = (journal(dir.path()), dump(&store));
    drop(store);
    assert!(next.0.starts_with(&acknowledged.0) && next.0.len() > acknowledged.0.len());
    for cut in acknowledged.0.len()..=next.0.len() {
        for tail in [&b""[..], &[0; 64], &[0xA5; 64]] {
            let mut torn = next.0[..cut].to_vec();
            torn.extend_from_slice(tail);
            let copy = memory_dir();
            image(dir.path(), copy.path(), &torn);
            let store = open(copy.path());
            let expected = if cut == next.0.len() { &next.1 } else { &acknowledged.1 };
            assert_eq!(&dump(&store), expected, "cut at {cut}, tail {tail:?}");
            if cut % 16 == 0 {
                // It must also go on from there.
                let revision = block_on(store.commit(vec![], vec![put("z", b"9")])).unwrap();
                drop(store);
                assert_eq!(dump(&open(copy.path())).get("z").unwrap().0, revision.get());
            }
        }
    }
}

/// Pages reach the disk in any order: every mixture of written and lost sectors behind the acknowledged end.
#[test]
fn a_journal_with_holes_after_an_acknowledgement_keeps_what_was_acknowledged() {
    const SECTOR: usize = 512;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    block_on(store.commit(vec![], vec![put("a", &[1; 700])])).unwrap();
    let acknowledged = (journal(dir.path()), dump(&store));
    let puts = (0..6).map(|i| put(&format!("k{i}"), &[i; 500])).collect();
    block_on(store.commit(vec![], puts)).unwrap();
    let next = (journal(dir.path()), dump(&store));
    drop(store);
    let start = acknowledged.0.len();
    let sectors = next.0.len() / SECTOR - start / SECTOR + 1;
    assert!(sectors >= 6);
    for lost in 0..1_u32 << sectors {
        let mut torn = next.0.clone();
        for (at, byte) in torn.iter_mut().enumerate().skip(start) {
            if lost >> (at / SECTOR - start / SECTOR) & 1 == 1 {
                *byte = 0;
            }
        }
        let copy = memory_dir();
        image(dir.path(), copy.path(), &torn);
        let expected = if lost == 0 { &next.1 } else { &acknowledged.1 };
        assert_eq!(&dump(&open(copy.path())), expected, "lost sectors {lost:b}");
    }
}

#[test]
fn damage_before_an_intact_batch_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    block_on(store.commit(vec![], vec![put("a", &[1; 100])])).unwrap();
    let first = journal(dir.path()).len();
    block_on(store.commit(vec![], vec![put("b", &[1; 100])])).unwrap();
    let mut bytes = journal(dir.path());
    drop(store);
    bytes[first - 40] ^= 1;
    let copy = memory_dir();
    image(dir.path(), copy.path(), &bytes);
    assert!(matches!(FjallStore::open(copy.path(), options(), env()), Err(OpenError::Corrupt { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Commit { guard: Option<(u8, bool)>, puts: Vec<(u8, Option<u8>)> },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let commit = (
        proptest::option::of((0..6_u8, any::<bool>())),
        proptest::collection::vec((0..6_u8, any::<Option<u8>>()), 0..4),
    )
        .prop_map(|(guard, puts)| Step::Commit { guard, puts });
    proptest::collection::vec(prop_oneof![20 => commit, 1 => Just(Step::Reopen)], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Commits in flight together behave as if each had been decided alone, in the order of the calls.
    #[test]
    fn behaves_like_a_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Arc::new(open(dir.path()));
        let mut model: BTreeMap<String, (u64, Bytes)> = BTreeMap::new();
        let mut newest = 0;
        for batch in steps.chunks(5) {
            let mut pending = Vec::new();
            for step in batch {
                match step {
                    Step::Reopen => {
                        drop(store);
                        store = Arc::new(open(dir.path()));
                    }
                    Step::Commit { guard, puts } => {
                        let guards = guard.iter().map(|(key, right)| {
                            let key = key.to_string();
                            let found = model.get(&key).and_then(|entry| Revision::new(entry.0));
                            let expect = match (found, right) {
                                (Some(revision), true) => Expect::At(revision),
                                (None, true) | (Some(_), false) => Expect::Absent,
                                (None, false) => Expect::At(Revision::new(1).unwrap()),
                            };
                            Guard { key, expect }
                        }).collect();
                        let ok = guard.is_none_or(|(_, right)| right);
                        if ok && !puts.is_empty() {
                            newest += 1;
                            for (key, value) in puts {
                                match value {
                                    Some(value) => model.insert(key.to_string(), (newest, Bytes::copy_from_slice(&[*value]))),
                                    None => model.remove(&key.to_string()),
                                };
                            }
                        }
                        let puts = puts.iter().map(|(key, value)| Put {
                            key: key.to_string(),
                            value: value.map(|value| Bytes::copy_from_slice(&[value])),
                        }).collect();
                        pending.push((ok, store.commit(guards, puts)));
                    }
                }
            }
            for (ok, commit) in pending {
                prop_assert_eq!(block_on(commit).is_ok(), ok);
            }
            prop_assert_eq!(&dump(&store), &model);
        }
    }
}

#[test]
fn a_snapshot_fills_another_store_which_goes_on_with_new_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("one"));
    let puts = (0..50).map(|number| put(&format!("k{number:03}"), &[number; 200])).collect();
    let revision = block_on(store.commit(vec![], puts)).unwrap();
    let mut snapshot = store.snapshot().unwrap();
    let before = dump(&store);
    block_on(store.commit(vec![], vec![put("k000", b"later"), put("new", b"")])).unwrap();
    let mut restorer = nave_store::Restorer::create(&dir.path().join("two")).unwrap();
    let mut after: Option<String> = None;
    loop {
        let entries = snapshot.entries(after.as_deref(), 7).unwrap();
        entries.iter().for_each(|(key, entry)| restorer.put(key, entry).unwrap());
        if entries.len() < 7 {
            break;
        }
        after = entries.last().map(|(key, _)| key.clone());
    }
    restorer.finish(1 << 32).unwrap();
    let two = open(&dir.path().join("two"));
    assert_eq!(dump(&two), before);
    let next = block_on(two.commit(vec![], vec![put("x", b"")])).unwrap();
    assert!(next.get() > revision.get() + (1 << 32), "{next:?} may have been given out by the first store");
    let too_large = vec![0; nave_store::MAX_VALUE_BYTES + 1];
    let entry = nave_store::Entry { revision, value: too_large.into() };
    assert!(nave_store::Restorer::create(&dir.path().join("three")).unwrap().put("k", &entry).is_err());
}

#[test]
fn a_snapshot_ends_with_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    block_on(store.commit(vec![], vec![put("a", b"1")])).unwrap();
    let mut snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.entries(None, 10).unwrap().len(), 1);
    store.close();
    assert!(snapshot.entries(None, 10).is_err());
    assert!(store.snapshot().is_err());
}
