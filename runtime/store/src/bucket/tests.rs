//! The promises of the store, over a bucket that can do nothing but compare and swap one key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::{BucketStore, MemoryBucket};
use crate::{CommitError, Entry, Expect, Guard, Put, Revision, StoreError};

const OWNER: &str = "v1/default/hub1/";

fn key(kind: &str, id: &str) -> String {
    format!("{OWNER}{kind}/{id}")
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.to_owned(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn delete(key: &str) -> Put {
    Put { key: key.to_owned(), value: None }
}

fn absent(key: &str) -> Guard {
    Guard { key: key.to_owned(), expect: Expect::Absent }
}

fn at(key: &str, revision: Revision) -> Guard {
    Guard { key: key.to_owned(), expect: Expect::At(revision) }
}

/// A store that nobody else has.
fn open(bucket: MemoryBucket) -> BucketStore<MemoryBucket> {
    static SEED: AtomicU64 = AtomicU64::new(0);
    BucketStore::new(bucket, SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0xD134_2543_DE82_EF95))
}

fn names(store: &BucketStore<MemoryBucket>, prefix: &str) -> Vec<String> {
    store.scan_now(prefix, None, 1_000).unwrap().into_iter().map(|(key, _)| key).collect()
}

fn value(entry: Option<Entry>) -> Option<String> {
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

#[test]
fn commits_are_guarded_and_lists_are_in_order() {
    let store = open(MemoryBucket::default());
    let (a, b) = (key("device", "a"), key("device", "b"));
    let first = store.commit_now(&[absent(&a), absent(&b)], vec![put(&b, "1"), put(&a, "1")]).unwrap();
    assert_eq!(names(&store, &key("device", "")), [a.clone(), b.clone()]);
    assert_eq!(names(&store, &b), std::slice::from_ref(&b));
    assert_eq!(names(&store, &key("module", "")), [""; 0]);
    assert!(
        matches!(store.commit_now(&[absent(&a)], vec![put(&a, "2")]), Err(CommitError::Conflict { key, current: Some(entry) }) if key == a && entry.revision == first)
    );
    let second = store.commit_now(&[at(&a, first)], vec![put(&a, "2")]).unwrap();
    assert!(second > first);
    assert!(store.commit_now(&[at(&a, first)], vec![delete(&a)]).is_err());
    let third = store.commit_now(&[at(&a, second)], vec![put(&a, "x"), delete(&a)]).unwrap();
    assert_eq!((store.get_now(&a).unwrap(), names(&store, &key("device", ""))), (None, vec![b]));
    let again = store.commit_now(&[absent(&a)], vec![put(&a, "4")]).unwrap();
    assert!(again > third, "a key that is created again has another revision");
    assert_eq!(store.scan_now(&key("device", ""), Some(&a), 10).unwrap().len(), 1);
    assert_eq!(store.commit_now(&[at(&a, again)], vec![]).unwrap(), again);
    assert!(store.commit_now(&[absent(&a)], vec![]).is_err());
}

#[test]
fn what_it_cannot_do_is_refused() {
    let store = open(MemoryBucket::default());
    let (a, other) = (key("device", "a"), "v1/default/hub2/device/a".to_owned());
    assert!(matches!(store.commit_now(&[], vec![put(&a, "1"), put(&other, "1")]), Err(CommitError::TooLarge(_))));
    assert!(matches!(store.commit_now(&[], vec![]), Err(CommitError::TooLarge(_))));
    assert!(matches!(store.scan_now(OWNER, None, 1), Err(StoreError::Engine(_))));
    let long = "x".repeat(900);
    let mut number = 0;
    let full = loop {
        let puts = (0..500).map(|part| put(&key("device", &format!("{number:04}{part:04}{long}")), "1")).collect();
        match store.commit_now(&[], puts) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, CommitError::Full);
    let kept = key("device", &format!("{:04}{:04}{long}", 0, 0));
    store.commit_now(&[], vec![delete(&kept)]).expect("a full index can shrink");
}

#[test]
fn a_damaged_value_is_found() {
    let bucket = MemoryBucket::default();
    let store = open(bucket.clone());
    let a = key("device", "a");
    use super::Bucket as _;
    let (_, handle) = bucket.read(&a).unwrap();
    assert!(bucket.swap(handle, b"junk".to_vec()).unwrap());
    assert_eq!(store.get_now(&a), Err(StoreError::Corrupt(a.clone())));
    assert!(matches!(store.commit_now(&[absent(&a)], vec![put(&a, "1")]), Err(CommitError::Failed(_))));
}

/// Whoever dies in a commit leaves all of it or nothing, to readers and to whoever commits next.
#[test]
fn a_commit_that_ends_half_way_is_whole_or_nothing() {
    let (a, b, c) = (key("device", "a"), key("outbox", "a"), key("device", "c"));
    let mut outcomes = Vec::new();
    for operations in 0..60 {
        let bucket = MemoryBucket::default();
        let before = open(bucket.clone());
        before.commit_now(&[], vec![put(&a, "old"), put(&c, "old")]).unwrap();
        let dying = open(bucket.dying_after(operations));
        let answer = dying.commit_now(&[], vec![put(&a, "new"), put(&b, "new"), delete(&c)]);
        let seen = |store: &BucketStore<MemoryBucket>| {
            let values = [&a, &b, &c].map(|key| value(store.get_now(key).unwrap()).unwrap_or_default());
            (values.join(","), names(store, &key("device", "")).len(), names(store, &key("outbox", "")).len())
        };
        let store = open(bucket);
        let first = seen(&store);
        let whole = match first.0.as_str() {
            "new,new," => true,
            "old,,old" => false,
            other => panic!("{other} after {operations} operations"),
        };
        assert_eq!((first.1, first.2), if whole { (1, 1) } else { (2, 0) });
        assert!(whole || answer.is_err(), "what was acknowledged is there");
        store.commit_now(&[], vec![put(&key("session", "s"), "1")]).unwrap();
        assert_eq!(seen(&store), first, "and it stays as it was seen");
        outcomes.push(whole);
    }
    assert!(outcomes.first() == Some(&false) && outcomes.last() == Some(&true));
}

/// Somebody who wakes up late with an old commit changes nothing.
#[test]
fn an_old_commit_is_not_carried_out_again() {
    let bucket = MemoryBucket::default();
    let store = open(bucket.clone());
    let a = key("device", "a");
    store.commit_now(&[], vec![put(&a, "1")]).unwrap();
    let old = store.journal(&super::Place::of(&a)).unwrap();
    store.commit_now(&[], vec![delete(&a)]).unwrap();
    let entries = bucket.entries();
    store.carry_out(&old).unwrap();
    assert_eq!(bucket.entries(), entries);
}

#[test]
fn many_writers_lose_nothing() {
    write_together(&MemoryBucket::default(), 8, 40);
}

/// Also where every swap is called a success, as long as a journal remembers: fewer commits than that.
#[test]
fn many_writers_lose_nothing_to_a_bucket_that_lies() {
    write_together(&MemoryBucket::default().lying(), 4, 15);
}

fn write_together(bucket: &MemoryBucket, writers: usize, commits: usize) {
    let counter = key("device", "counter");
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let store = open(bucket.clone());
            let counter = counter.clone();
            scope.spawn(move || {
                let mut done = 0;
                while done < commits {
                    let before = store.get_now(&counter).unwrap();
                    let guard = before.as_ref().map_or_else(|| absent(&counter), |entry| at(&counter, entry.revision));
                    let number: usize = value(before).map_or(0, |text| text.parse().unwrap());
                    let own = key("module", &format!("{writer}.{done}"));
                    let puts = vec![put(&counter, &(number + 1).to_string()), put(&own, "1")];
                    match store.commit_now(&[guard], puts) {
                        Ok(_) => done += 1,
                        Err(CommitError::Conflict { .. } | CommitError::Busy) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let store = open(bucket.clone());
    assert_eq!(value(store.get_now(&counter).unwrap()), Some((writers * commits).to_string()));
    assert_eq!(names(&store, &key("module", "")).len(), writers * commits);
}

proptest! {
    /// Any sequence of commits by anybody, some of whom die, ends as in a map.
    #[test]
    fn it_is_a_map(
        commits in proptest::collection::vec(
            (proptest::collection::vec(("[a-d]", proptest::option::of("[x-z]")), 1..4), proptest::option::of(0usize..40)),
            0..20,
        )
    ) {
        let bucket = MemoryBucket::default();
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for (changes, life) in commits {
            let bucket = life.map_or_else(|| bucket.clone(), |operations| bucket.dying_after(operations));
            let puts = changes.iter().map(|(id, value)| match value {
                Some(value) => put(&key("device", id), value),
                None => delete(&key("device", id)),
            });
            let answer = open(bucket.clone()).commit_now(&[], puts.collect());
            let mut next = model.clone();
            for (id, value) in changes {
                match value {
                    Some(value) => drop(next.insert(key("device", &id), value)),
                    None => drop(next.remove(&key("device", &id))),
                }
            }
            let store = open(bucket.revived());
            let found: BTreeMap<String, String> = store
                .scan_now(&key("device", ""), None, 100)
                .unwrap()
                .into_iter()
                .map(|(key, entry)| (key, value(Some(entry)).unwrap()))
                .collect();
            prop_assert!(found == next || (answer.is_err() && found == model), "{:?} {:?} {:?}", found, next, model);
            model = found;
        }
    }
}
