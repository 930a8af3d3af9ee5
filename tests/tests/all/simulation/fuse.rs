//! A store that stops taking commits after a chosen number of them, so that a test can crash a host between any two.

use std::sync::Arc;

use nave_store::sim::SimStore;
use nave_store::{BoxFuture, CommitError, Entry, Guard, Put, Revision, Store, StoreError};
use parking_lot::Mutex;

/// Passes everything on to the simulated store until the fuse burns through.
pub(crate) struct FusedStore {
    inner: Arc<SimStore>,
    remaining: Mutex<Option<u32>>,
}

impl FusedStore {
    pub(crate) fn new(inner: Arc<SimStore>) -> Self {
        Self { inner, remaining: Mutex::new(None) }
    }

    /// Lets `commits` more commits through; those after them never resolve. `None` is no fuse.
    pub(crate) fn set(&self, commits: Option<u32>) {
        *self.remaining.lock() = commits;
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
