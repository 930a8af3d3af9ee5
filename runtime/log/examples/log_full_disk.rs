//! Fills a small file system, and shows that the log stays readable and goes on when there is space.
//!
//! `cargo run -p nave-log --example log_full_disk DIRECTORY`, DIRECTORY on a file system of some 40 MB that may be filled.

#![expect(clippy::unwrap_used, reason = "a demonstration that fails may stop")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nave_env::{BoxFuture, Env, Moment, Task};
use nave_log::{FileLog, Log, MessageKey, NewRecord, Options, PartitionId, Source};
use nave_model::Timestamp;

struct Clock;

impl Env for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }
    fn monotonic(&self) -> Moment {
        Moment::from_start(Duration::ZERO)
    }
    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, _: Task) {}
    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(1);
    }
}

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    let filler = dir.join("filler");
    std::fs::write(&filler, vec![1; 20_000_000]).unwrap();
    for segment_bytes in [1_000_000, 64_000_000] {
        std::fs::write(&filler, vec![1; 20_000_000]).unwrap();
        let dir = dir.join(segment_bytes.to_string());
        let options = Options { segment_bytes, retention_age: Duration::from_secs(u64::MAX), ..Options::default() };
        let log = FileLog::open(&dir, options.clone(), Arc::new(Clock)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let partition = PartitionId::new(0).unwrap();
        let append = |log: &FileLog| {
            let record = NewRecord {
                key: MessageKey([7; 16]),
                source: Source::DeviceMessages,
                device_id: "d".into(),
                module_id: None,
                endpoints: vec![],
                system: vec![],
                properties: vec![],
                body: vec![1; 100_000].into(),
            };
            runtime.block_on(log.append(partition, vec![record]))
        };
        let count = |log: &FileLog| {
            let mut found = 0;
            loop {
                let batch = runtime.block_on(log.read(partition, found, 50, usize::MAX)).unwrap();
                if batch.records.is_empty() {
                    return found;
                }
                found += batch.records.len() as u64;
            }
        };
        let mut accepted = 0;
        let error = loop {
            match append(&log) {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        println!("{accepted} appends, then: {error}; again: {:?}; readable: {}", append(&log), count(&log));
        std::fs::remove_file(&filler).unwrap();
        println!("after making space: {:?}", append(&log));
        drop(log);
        let log = FileLog::open(&dir, options, Arc::new(Clock)).unwrap();
        println!("reopened: {}", count(&log));
        assert_eq!(count(&log), accepted + 1);
        drop(log);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
