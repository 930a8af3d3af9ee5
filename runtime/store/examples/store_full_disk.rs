//! Fills a small file system, and shows that the store stays readable and goes on when there is space.
//!
//! `cargo run -p nave-store --example store_full_disk DIRECTORY [RESERVE]`, DIRECTORY on a file system of some 40 MB that may be
//! filled; RESERVE is the number of bytes that the store leaves free (0: the engine itself runs out of space).

#![expect(clippy::unwrap_used, reason = "a demonstration that fails may stop")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nave_env::{BoxFuture, Env, Moment, Task};
use nave_model::Timestamp;
use nave_store::{CommitError, FjallStore, Options, Put, Store};

/// Two seconds pass with every look at the clock.
#[derive(Default)]
struct Clock(AtomicU64);

impl Env for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }
    fn monotonic(&self) -> Moment {
        Moment::from_start(Duration::from_secs(self.0.fetch_add(2, Ordering::Relaxed)))
    }
    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, _: Task) {}
    fn fill_random(&self, _: &mut [u8]) {}
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap());
    let reserve_bytes = arguments.next().map_or(0, |bytes| bytes.parse().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    let filler = dir.join("filler");
    std::fs::write(&filler, vec![1; 20_000_000]).unwrap();
    let options = Options { reserve_bytes, ..Options::default() };
    let store = FjallStore::open(&dir.join("store"), options.clone(), Arc::new(Clock::default())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let put = |number: usize| {
        let put = Put { key: format!("k{number}"), value: Some(Bytes::from(vec![number as u8; 100_000])) };
        runtime.block_on(store.commit(vec![], vec![put]))
    };
    let get = |number: usize| runtime.block_on(store.get(&format!("k{number}"))).unwrap().is_some();
    let mut accepted = 0;
    let error = loop {
        match put(accepted) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    println!("{accepted} commits, then: {error}");
    for _ in 0..3 {
        println!("again: {:?}", put(accepted));
    }
    assert!((0..accepted).all(get) && !get(accepted), "the store is not readable");
    std::fs::remove_file(&filler).unwrap();
    let after: Vec<_> = (accepted..accepted + 10).map(put).collect();
    println!("after making space: {after:?}");
    assert!(!after.contains(&Err(CommitError::Full)));
    assert!((0..accepted + 10).all(get));
    store.close();
    let store = FjallStore::open(&dir.join("store"), options, Arc::new(Clock::default())).unwrap();
    let found = runtime.block_on(store.scan("", None, 10_000)).unwrap().len();
    println!("reopened: {found} entries");
    assert_eq!(found, accepted + 10);
}
