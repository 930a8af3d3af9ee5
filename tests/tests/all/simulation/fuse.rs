//! A store that stops taking commits after a chosen number of them, so that a test can crash a host between any two, and
//! that can lose track of what became of a commit, as a disk that reports an error does.

use std::sync::Arc;

use nave_env::sim::Simulation;
use nave_store::sim::SimStore;
use nave_store::{BoxFuture, CommitError, Entry, Guard, Put, Revision, Store, StoreError};
use parking_lot::Mutex;

/// Passes everything on to the simulated store until the fuse burns through.
pub(crate) struct FusedStore {
    inner: Arc<SimStore>,
    remaining: Mutex<Option<u32>>,
    /// Decides which commits fail, while the disk reports errors.
    errors: Mutex<Option<Simulation>>,
    /// Decides which commits are forgotten.
    forgets: Mutex<Option<Simulation>>,
}

impl FusedStore {
    pub(crate) fn new(inner: Arc<SimStore>) -> Self {
        Self { inner, remaining: Mutex::new(None), errors: Mutex::new(None), forgets: Mutex::new(None) }
    }

    /// Lets `commits` more commits through; those after them never resolve. `None` is no fuse.
    pub(crate) fn set(&self, commits: Option<u32>) {
        *self.remaining.lock() = commits;
    }

    /// From now on the disk reports an error for one commit in three, some of which it has carried out; `None` ends that.
    pub(crate) fn report_errors(&self, random: Option<Simulation>) {
        *self.errors.lock() = random;
    }

    /// From now on one change of a device in fifty is acknowledged and not made: what no store may do, and what a test that is
    /// worth something finds.
    pub(crate) fn forget(&self, random: Simulation) {
        *self.forgets.lock() = Some(random);
    }
}

impl Store for FusedStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        self.inner.get(key)
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>> {
        self.inner.scan(prefix, after, limit)
    }

    fn commit(&self, guards: Vec<Guard>, puts: Vec<Put>) -> BoxFuture<'static, Result<Revision, CommitError>> {
        if let Some(random) = &*self.errors.lock()
            && random.below(3) == 0
        {
            let failed = CommitError::Failed("the disk reported an error".to_owned());
            if random.below(2) == 0 {
                return Box::pin(std::future::ready(Err(failed)));
            }
            let done = self.inner.commit(guards, puts);
            return Box::pin(async move { done.await.and(Err(failed)) });
        }
        if let Some(random) = &*self.forgets.lock()
            && puts.iter().any(|put| put.key.contains("/device/"))
            && random.below(50) == 0
        {
            return self.inner.commit(guards, Vec::new());
        }
        match &mut *self.remaining.lock() {
            Some(0) => Box::pin(std::future::pending()),
            Some(remaining) => {
                *remaining -= 1;
                self.inner.commit(guards, puts)
            }
            None => self.inner.commit(guards, puts),
        }
    }
}
