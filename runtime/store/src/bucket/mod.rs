//! The store over a key-value store that can do no more than compare and swap one key: what Spin offers to components.
//!
//! [`BucketStore`] keeps the promises of [`Store`] with that. Every commit of one owner (the first three parts of its
//! keys: a hub, or the provisioning service) goes through the owner's *journal*, one key that holds the last commit:
//!
//! 1. The journal is read, and what it says is carried out, in case whoever wrote it did not get that far.
//! 2. The guards are checked.
//! 3. The journal is swapped for the new commit with the next revision. **This one swap is the commit**: when somebody else
//!    was faster, it fails, and everything is done again. Whether it succeeded the journal itself says: each commit has a
//!    random mark there, which the next 63 repeat. A bucket that calls a lost swap a success, as a Redis client may do with
//!    the empty answer to a transaction, so loses nothing.
//! 4. The new values are written to their keys, each by compare-and-swap and only over an older revision. So it does not
//!    matter how often, by whom or how late that is done. A deletion is a tombstone, which remembers its revision.
//!
//! A reader looks into the journal first, so it sees a commit at the moment of step 3 and all of it. Lists are made from
//! *index* keys, one per kind of key, which are part of the commits that create and delete: no such store can list keys in
//! their order, and some not at all.
//!
//! The price: a commit of one owner waits for the others of that owner, and a deleted key leaves its tombstone.

mod journal;
mod memory;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::fold::check_limits;
use crate::{BoxFuture, CommitError, Entry, Expect, Guard, MAX_SCAN_LIMIT, Put, Revision, Store, StoreError};
use journal::Journal;
use value::Value;

pub use memory::MemoryBucket;

/// Attempts at a commit that others forestall, before its caller is told to come back ([`CommitError::Busy`]). Each failed
/// attempt of one means that another one succeeded.
pub const MAX_SWAPS: u32 = 64;

/// Most bytes of an index: of all the ids of one kind of key of one owner, 50,000 device ids of 20 characters. It is
/// written with every creation and deletion, so a larger one would cost too much; what does not fit is refused as
/// [`CommitError::Full`].
pub const MAX_INDEX_BYTES: usize = 1 << 20;

/// Readings of a list during which something changed, before the list is given up.
const MAX_READINGS: u32 = 64;

/// Key-value storage with compare-and-swap on one key.
///
/// What is answered must be the newest value: a bucket whose reads may be stale cannot carry a hub. An error is a text for
/// the log.
pub trait Bucket: Send + Sync + 'static {
    /// The value as it was read, for the swap that follows.
    type Handle;

    /// The value of `key`. A guard is checked with it, so a host that answers plain reads from a cache must not be asked for
    /// one.
    ///
    /// # Errors
    ///
    /// The bucket failed.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.read(key).map(|(value, _)| value)
    }

    /// The value of `key`, and what [`Bucket::swap`] needs.
    ///
    /// # Errors
    ///
    /// The bucket failed.
    fn read(&self, key: &str) -> Result<(Option<Vec<u8>>, Self::Handle), String>;

    /// Writes `value` if the key still has the value that was read; whether it did.
    ///
    /// # Errors
    ///
    /// The bucket failed; it may have written.
    fn swap(&self, handle: Self::Handle, value: Vec<u8>) -> Result<bool, String>;
}

/// The [`Store`] over a [`Bucket`].
pub struct BucketStore<B> {
    bucket: B,
    /// The mark of the next commit.
    mark: AtomicU64,
}

impl<B: Bucket> BucketStore<B> {
    /// The store that is in `bucket`. `seed` is a random number: writers that have the same one cannot tell their commits
    /// apart.
    pub const fn new(bucket: B, seed: u64) -> Self {
        Self { bucket, mark: AtomicU64::new(seed) }
    }

    fn get_now(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let place = Place::of(key);
        let journal = self.journal(&place)?;
        match journal.change(key) {
            Some(change) => Ok(entry(journal.revision, change)),
            None => self.stored(key).map(Value::into_entry),
        }
    }

    fn scan_now(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Entry)>, StoreError> {
        if limit > MAX_SCAN_LIMIT {
            return Err(StoreError::LimitTooLarge(limit));
        }
        let place = Place::of(prefix);
        if place.kind.is_empty() && !place.owner.is_empty() {
            return Err(StoreError::Engine("a bucket lists the keys of one kind only".to_owned()));
        }
        for _ in 0..MAX_READINGS {
            let journal = self.journal(&place)?;
            let index = match journal.change(&place.index) {
                Some(change) => change.unwrap_or_default(),
                None => self.stored(&place.index)?.value.unwrap_or_default(),
            };
            let index = text(&place.index, &index)?;
            let names = index.lines().map(|name| format!("{}{name}", place.kind));
            let wanted = names.filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
            let mut found = Vec::new();
            for key in wanted.take(limit) {
                let entry = match journal.change(&key) {
                    Some(change) => entry(journal.revision, change),
                    None => self.stored(&key)?.into_entry(),
                };
                found.extend(entry.map(|entry| (key, entry)));
            }
            // One consistent state, if nothing was committed meanwhile.
            if self.journal(&place)?.revision == journal.revision {
                return Ok(found);
            }
        }
        Err(StoreError::Unavailable)
    }

    fn commit_now(&self, guards: &[Guard], puts: Vec<Put>) -> Result<Revision, CommitError> {
        check_limits(guards, &puts)?;
        let keys = || guards.iter().map(|guard| guard.key.as_str()).chain(puts.iter().map(|put| put.key.as_str()));
        let Some(place) = keys().next().map(Place::of) else {
            return Err(CommitError::TooLarge("a commit without guards and puts has no owner"));
        };
        if keys().any(|key| Place::of(key).owner != place.owner) {
            return Err(CommitError::TooLarge("a commit is about one owner"));
        }
        if keys().any(|key| key.contains('\n')) {
            return Err(CommitError::TooLarge("a key has one line"));
        }
        // Of two puts to one key the later one counts.
        let puts: BTreeMap<String, Option<Bytes>> = puts.into_iter().map(|put| (put.key, put.value)).collect();
        for _ in 0..MAX_SWAPS {
            let (bytes, handle) = self.bucket.read(&place.journal).map_err(CommitError::Failed)?;
            let journal = Journal::decode(&place.journal, bytes.as_deref())?;
            self.carry_out(&journal)?;
            for guard in guards {
                self.check(guard)?;
            }
            if puts.is_empty() {
                match Journal::decode(&place.journal, self.raw(&place.journal)?.as_deref())? {
                    now if now.revision == journal.revision => return journal.newest(),
                    _ => continue,
                }
            }
            let mut changes = puts.clone();
            self.index(&puts, &mut changes)?;
            // An odd step: no two of the 2^64 marks of a writer are the same.
            let mark = self.mark.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            let next = journal.next(mark, changes)?;
            if self.bucket.swap(handle, next.encode()).map_err(CommitError::Failed)?
                && self.journal(&place)?.holds(mark, next.revision)
            {
                // Decided. Whoever comes next does what fails here.
                drop(self.carry_out(&next));
                return next.newest();
            }
        }
        Err(CommitError::Busy)
    }

    fn check(&self, guard: &Guard) -> Result<(), CommitError> {
        let current = self.stored(&guard.key)?.into_entry();
        let holds = match (guard.expect, &current) {
            (Expect::Absent, None) => true,
            (Expect::At(revision), Some(entry)) => entry.revision == revision,
            _ => false,
        };
        if holds { Ok(()) } else { Err(CommitError::Conflict { key: guard.key.clone(), current }) }
    }

    /// Adds what creations and deletions change in the indexes.
    fn index(
        &self,
        puts: &BTreeMap<String, Option<Bytes>>,
        changes: &mut BTreeMap<String, Option<Bytes>>,
    ) -> Result<(), CommitError> {
        for (key, value) in puts {
            let is_there = self.stored(key)?.value.is_some();
            if is_there == value.is_some() {
                continue;
            }
            let place = Place::of(key);
            let index = match changes.get(&place.index) {
                Some(change) => change.clone().unwrap_or_default(),
                None => self.stored(&place.index)?.value.unwrap_or_default(),
            };
            let name = key.get(place.kind.len()..).unwrap_or_default();
            let index = with_name(text(&place.index, &index)?, name, value.is_some());
            if index.len() > MAX_INDEX_BYTES && value.is_some() {
                return Err(CommitError::Full);
            }
            changes.insert(place.index, Some(index.into()));
        }
        Ok(())
    }

    /// Writes what the journal says to its keys, unless they are as new already.
    fn carry_out(&self, journal: &Journal) -> Result<(), StoreError> {
        for (key, change) in &journal.changes {
            loop {
                let (bytes, handle) = self.bucket.read(key).map_err(StoreError::Engine)?;
                let current = Value::decode(key, bytes.as_deref())?;
                if current.revision >= journal.revision {
                    break;
                }
                let value = Value { revision: journal.revision, value: change.clone() };
                // When it fails, somebody else wrote: the same, or something newer.
                if self.bucket.swap(handle, value.encode()).map_err(StoreError::Engine)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn journal(&self, place: &Place) -> Result<Journal, StoreError> {
        let bytes = self.bucket.get(&place.journal).map_err(StoreError::Engine)?;
        Journal::decode(&place.journal, bytes.as_deref())
    }

    fn stored(&self, key: &str) -> Result<Value, StoreError> {
        Value::decode(key, self.bucket.get(key).map_err(StoreError::Engine)?.as_deref())
    }

    fn raw(&self, key: &str) -> Result<Option<Vec<u8>>, CommitError> {
        self.bucket.get(key).map_err(CommitError::Failed)
    }
}

impl<B: Bucket> Store for BucketStore<B> {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(ready(self.get_now(key)))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>> {
        Box::pin(ready(self.scan_now(prefix, after, limit)))
    }

    fn commit(&self, guards: Vec<Guard>, puts: Vec<Put>) -> BoxFuture<'static, Result<Revision, CommitError>> {
        Box::pin(ready(self.commit_now(&guards, puts)))
    }
}

/// Where a key, or the keys with a prefix, belong: `v1/{tenant}/{owner}/{kind}/…`.
struct Place {
    /// `v1/{tenant}/{owner}/`, or nothing for keys of another form.
    owner: String,
    /// `v1/{tenant}/{owner}/{kind}/`: what is listed together.
    kind: String,
    journal: String,
    index: String,
}

impl Place {
    fn of(key: &str) -> Self {
        let ends: Vec<usize> = key.match_indices('/').map(|(at, _)| at + 1).take(4).collect();
        let part = |count: usize| ends.get(count).and_then(|end| key.get(..*end)).unwrap_or_default().to_owned();
        let (owner, kind) = (part(2), part(3));
        let name = kind.strip_prefix(&owner).unwrap_or_default();
        // No kind has such a name.
        Self { journal: format!("{owner}$journal"), index: format!("{owner}$index/{name}"), owner, kind }
    }
}

/// The index with that name in it, or without it. Its lines are in order.
fn with_name(index: &str, name: &str, is_there: bool) -> String {
    let before = index.lines().filter(|line| *line < name);
    let after = index.lines().filter(|line| *line > name);
    let lines: Vec<&str> = before.chain(is_there.then_some(name)).chain(after).collect();
    lines.join("\n")
}

fn entry(revision: u64, value: Option<Bytes>) -> Option<Entry> {
    Some(Entry { revision: Revision::new(revision)?, value: value? })
}

fn text<'a>(key: &str, bytes: &'a [u8]) -> Result<&'a str, StoreError> {
    std::str::from_utf8(bytes).map_err(|_| StoreError::Corrupt(key.to_owned()))
}
