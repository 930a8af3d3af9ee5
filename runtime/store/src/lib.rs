//! The state of the hub: an ordered map from text keys to bytes, changed only by guarded, atomic, durable commits.
//!
//! [`Store`] is what the rest of the hub sees: [`get`](Store::get), [`scan`](Store::scan) and
//! [`commit`](Store::commit). It is small so that other back ends can stand behind it and so that a test can crash it.
//! There are three implementations: [`FjallStore`] on an embedded engine, [`BucketStore`] on key-value storage of somebody
//! else's that can compare and swap one key, and [`sim::SimStore`] in memory, in virtual time.
//!
//! # What an implementation promises
//!
//! * **Atomic**: all puts of a commit become visible together, or none does.
//! * **Guarded**: a commit is applied only if every guard holds at that moment. Commits are decided one after the other, in
//!   the order in which [`Store::commit`] was called, and a commit sees every one that was accepted before it.
//! * **Durable before visible**: a reader, and the caller of `commit`, see a value only after it has been forced to disk.
//!   Reads may be a moment stale. A commit that was answered is seen by every read that starts afterwards.
//! * **No ABA**: revisions grow over the whole life of the store; a key that was deleted and created again has another one.
//!
//! What lies on disk is described in `FORMAT.md` next to this crate.

mod bucket;
#[cfg(not(target_arch = "wasm32"))]
mod commit;
#[cfg(not(target_arch = "wasm32"))]
mod engine;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod fjall_store;
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "the committer uses all of it, which is not there"))]
mod fold;
#[cfg(not(target_arch = "wasm32"))]
mod journal;
#[cfg(not(target_arch = "wasm32"))]
mod metrics;
pub mod sim;

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;

use bytes::Bytes;

pub use bucket::{Bucket, BucketStore, MAX_INDEX_BYTES, MAX_SWAPS, MemoryBucket};
#[cfg(not(target_arch = "wasm32"))]
pub use error::OpenError;
pub use error::{CommitError, StoreError};
#[cfg(not(target_arch = "wasm32"))]
pub use fjall_store::{FORMAT, FjallStore, Options, Restorer, StoreSnapshot};

/// Longest key in bytes of UTF-8. Keys are built from tenant, hub, kind and escaped ids; the engine's own bound is 65,535.
pub const MAX_KEY_BYTES: usize = 1_024;

/// Longest value in bytes. A twin whose sections are full of tiny properties, each with its metadata, stays below it.
pub const MAX_VALUE_BYTES: usize = 4 * 1024 * 1024;

/// Most guards and puts together in one commit. A larger piece of work must be a sequence of steps.
pub const MAX_COMMIT_OPERATIONS: usize = 1_024;

/// Most bytes of keys and values in one commit.
pub const MAX_COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// Largest `limit` of a [`Store::scan`]: what one answer may hold in memory is bounded by the caller's choice below this.
pub const MAX_SCAN_LIMIT: usize = 10_000;

/// A future that may borrow the store.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The version of a value: opaque, and larger for every later commit over the whole life of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(NonZeroU64);

impl Revision {
    /// The revision that [`Revision::get`] returned, as it was written into a record or an ETag; `None` for zero.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number behind the revision, never zero.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// A value with the revision of the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which commit wrote the value. All puts of one commit share it.
    pub revision: Revision,
    /// The value as it was put.
    pub value: Bytes,
}

/// What a [`Guard`] demands of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key has no value.
    Absent,
    /// The key has the value of exactly this revision.
    At(Revision),
}

/// A condition without which a commit is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key that is looked at. It need not be among the puts.
    pub key: String,
    /// What it must hold.
    pub expect: Expect,
}

/// One change of a commit. Of two puts to one key in one commit the later one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key to change.
    pub key: String,
    /// The new value; `None` deletes the key (which may be absent already).
    pub value: Option<Bytes>,
}

/// One of several commits that follow each other: see [`Store::commit_steps`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What has to hold.
    pub guards: Vec<Guard>,
    /// What is changed then.
    pub puts: Vec<Put>,
}

/// Why not all steps were applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// The steps before it, which were applied and stay.
    pub done: usize,
    /// What became of the next one; those after it were not looked at.
    pub error: CommitError,
}

/// The state of the hub. See the [crate documentation](crate) for what an implementation promises.
pub trait Store: Send + Sync + 'static {
    /// The value of `key`, or `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a key that could never be stored is simply absent.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// Up to `limit` entries whose key starts with `prefix`, ordered by the bytes of the key, strictly after `after`.
    ///
    /// The entries of one call are one consistent state. Fewer than `limit` of them means that there are no more.
    ///
    /// # Errors
    ///
    /// [`StoreError`], among them [`StoreError::LimitTooLarge`] above [`MAX_SCAN_LIMIT`].
    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>>;

    /// Applies `puts` if every one of `guards` holds; resolves with their revision once they are durable.
    ///
    /// The commit is queued during the call, not at the first poll: the order of calls is the order of decisions. Dropping
    /// the future does not take the commit back. A commit without puts checks its guards and returns the newest revision.
    ///
    /// # Errors
    ///
    /// [`CommitError`], which says in each case whether anything can have been written.
    fn commit(&self, guards: Vec<Guard>, puts: Vec<Put>) -> BoxFuture<'static, Result<Revision, CommitError>>;

    /// Applies steps one after the other, each as [`commit`](Self::commit) does, and ends at the first that is refused.
    /// Resolves with the revision of the last one.
    ///
    /// A crash may leave any number of the first steps behind, so each must be correct by itself: this is no transaction, and
    /// a store that guards one key at a time can offer it. One that folds commits makes steps durable together, for the price
    /// of one; by default they wait for each other.
    ///
    /// # Errors
    ///
    /// [`StepError`].
    fn commit_steps(&self, steps: Vec<Step>) -> BoxFuture<'_, Result<Revision, StepError>> {
        Box::pin(async move {
            let mut steps = steps.into_iter().enumerate();
            let (_, first) = steps.next().unwrap_or((0, Step { guards: Vec::new(), puts: Vec::new() }));
            let commit = async |done, step: Step| {
                self.commit(step.guards, step.puts).await.map_err(|error| StepError { done, error })
            };
            let mut newest = commit(0, first).await?;
            for (done, step) in steps {
                newest = commit(done, step).await?;
            }
            Ok(newest)
        })
    }
}
