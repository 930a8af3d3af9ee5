//! Measures durable appends of one record with a body of 256 bytes.
//!
//! `cargo run --release -p nave-log --example appends [directory]`: with 1, 50 and 1,000 appends in flight (1,000: 50
//! connections with a window of 20) the records per second, and the CPU microseconds per record in the log's thread and in
//! those of the callers, who build the record, encode it, queue it and wake up again.

#![expect(clippy::disallowed_methods, reason = "a measurement needs the real clock")]
#![expect(clippy::unwrap_used, reason = "a measurement that fails may stop")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use nave_env::{BoxFuture, Env, Moment, Task};
use nave_log::{FileLog, Log, MessageKey, NewRecord, Options, Source, partition_of};
use nave_model::Timestamp;

/// The log asks the environment for the wall clock and a salt only.
struct Clock;

impl Env for Clock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Timestamp::default().after(since)
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

/// CPU microseconds of the log's thread, and of all others of this process.
fn cpu_micros() -> (u64, u64) {
    let (mut own, mut others) = (0, 0);
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let nanos: u64 = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        *if read("comm").trim() == "nave-log" { &mut own } else { &mut others } += nanos / 1_000;
    }
    (own, others)
}

fn main() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = std::env::args().nth(1).map_or_else(|| temporary.path().to_owned(), Into::into);
    let log = Rc::new(FileLog::open(&dir, Options::default(), Arc::new(Clock)).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for in_flight in [1, 50, 1_000] {
        let done = Rc::new(Cell::new(0_u64));
        let (start, cpu) = (Instant::now(), cpu_micros());
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let tasks: Vec<_> = (0..in_flight)
                .map(|task| {
                    let (log, done) = (Rc::clone(&log), Rc::clone(&done));
                    tokio::task::spawn_local(async move {
                        let device_id = format!("device-{task}");
                        let partition = partition_of(&device_id, log.partitions());
                        let body = Bytes::from(vec![b'x'; 256]);
                        while start.elapsed() < Duration::from_secs(4) {
                            let record = NewRecord {
                                key: MessageKey([7; 16]),
                                source: Source::DeviceMessages,
                                device_id: device_id.clone(),
                                module_id: None,
                                endpoints: vec!["events".into()],
                                system: vec![("contentType".into(), "application/json".into())],
                                properties: vec![("level".into(), "storage".into())],
                                body: body.clone(),
                            };
                            log.append(partition, vec![record]).await.unwrap();
                            done.set(done.get() + 1);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let rate = done.get() as f64 / start.elapsed().as_secs_f64();
        let end = cpu_micros();
        let own = (end.0 - cpu.0) as f64 / done.get() as f64;
        let others = (end.1 - cpu.1) as f64 / done.get() as f64;
        println!(
            "{in_flight:>5} in flight: {rate:>9.0} records/s, CPU µs per record: log {own:.2}, callers {others:.2}"
        );
    }
}
