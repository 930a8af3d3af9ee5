//! Measures durable commits of 300-byte values, each guarded by the revision that its key had.
//!
//! `cargo run --release -p nave-store --example commits [directory]`: commits per second, commits per sync as the clients
//! see it, and CPU microseconds of the whole process per commit, with 1, 50 and 200 commits in flight.

#![expect(clippy::disallowed_methods, reason = "a measurement needs the real clock")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement that fails may stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nave_env::{BoxFuture, Env, Moment, SharedEnv, Task};
use nave_model::Timestamp;
use nave_store::{Expect, FjallStore, Guard, Options, Put, Store};

/// The store asks the environment for the monotonic clock only.
struct Clock(Instant);

impl Env for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_nanos(0)
    }
    fn monotonic(&self) -> Moment {
        Moment::from_start(self.0.elapsed())
    }
    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, _: Task) {}
    fn fill_random(&self, _: &mut [u8]) {}
}

/// User and system time of this process in microseconds.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // Clock ticks of 10 ms.
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000
}

fn main() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = std::env::args().nth(1).map_or_else(|| temporary.path().to_owned(), Into::into);
    let env: SharedEnv = Arc::new(Clock(Instant::now()));
    let store = Arc::new(FjallStore::open(&dir, Options::default(), env).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for in_flight in [1, 50, 200] {
        let done = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (start, cpu) = (Instant::now(), cpu_micros());
        runtime.block_on(async {
            let tasks: Vec<_> = (0..in_flight)
                .map(|task| {
                    let (store, done, stop) = (Arc::clone(&store), Arc::clone(&done), Arc::clone(&stop));
                    tokio::spawn(async move {
                        let mut at = 0;
                        let mut revisions = vec![None; 64];
                        while !stop.load(Ordering::Relaxed) {
                            let key = format!("v1/default/hub1/device/{task}-{at}");
                            let expect = revisions[at].map_or(Expect::Absent, Expect::At);
                            let guard = Guard { key: key.clone(), expect };
                            if done.load(Ordering::Relaxed) == 0 && revisions[at].is_none() {
                                // The directory may have been used before.
                                revisions[at] = store.get(&key).await.unwrap().map(|entry| entry.revision);
                            }
                            let expect = revisions[at].map_or(Expect::Absent, Expect::At);
                            let guard = Guard { expect, ..guard };
                            let put = Put { key, value: Some(Bytes::from(vec![b'x'; 300])) };
                            match store.commit(vec![guard], vec![put]).await {
                                Ok(revision) => revisions[at] = Some(revision),
                                Err(nave_store::CommitError::Conflict { current, .. }) => {
                                    revisions[at] = current.map(|entry| entry.revision);
                                    continue;
                                }
                                Err(error) => panic!("{error}"),
                            }
                            at = (at + 1) % revisions.len();
                            if done.fetch_add(1, Ordering::Relaxed) % 64 == 0
                                && start.elapsed() > Duration::from_secs(4)
                            {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let commits = done.load(Ordering::Relaxed);
        let rate = commits as f64 / start.elapsed().as_secs_f64();
        let cpu = (cpu_micros() - cpu) as f64 / commits as f64;
        println!("{in_flight:>4} in flight: {rate:>9.0} commits/s, {cpu:>6.2} µs CPU per commit");
    }
}
