//! What is acknowledged only when it is on disk: a twin patch, an append, telemetry. The rival is the bare disk: one append and
//! one sync of as many bytes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use futures_util::future::join_all;
use nave_bench::platform::Bench;
use nave_hub::{Message, Session};
use nave_log::{FileLog, Log as _, MessageKey, NewRecord, Options, Source, partition_of};
use tokio::runtime::{Builder, Runtime};

use super::functions::{PATCH, reported};

const DEVICES: usize = 50;

/// Messages that one connection has under way: the window of the load tool.
const WINDOW: usize = 20;

pub(crate) fn all(criterion: &mut Criterion) {
    // Below the working directory: a file system in memory would measure something else.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    bare(criterion, dir.path());
    through_hub(criterion, &runtime, &dir.path().join("hub"));
    append(criterion, &runtime, &dir.path().join("bare-log"));
}

fn bare(criterion: &mut Criterion, dir: &Path) {
    let mut group = criterion.benchmark_group("append and fdatasync without anything else");
    for bytes in [512, 8_192] {
        let mut file = File::create(dir.join(bytes.to_string())).unwrap();
        let block = vec![b'x'; bytes];
        group.bench_function(format!("{bytes} B"), |bencher| {
            bencher.iter(|| {
                file.write_all(&block).unwrap();
                file.sync_data().unwrap();
            });
        });
    }
}

fn through_hub(criterion: &mut Criterion, runtime: &Runtime, dir: &Path) {
    let bench = Bench::start(dir);
    let sessions: Vec<Arc<Session>> = runtime.block_on(join_all((0..DEVICES).map(|number| {
        let bench = &bench;
        async move {
            let id = format!("device-{number:03}");
            bench.create_device(&id).await;
            let session = bench.connect(&id).await;
            bench.hub.report(&session, &reported(), None).await.unwrap();
            session
        }
    })));

    let mut group = criterion.benchmark_group("durable twin patch, 2 KB");
    group.throughput(Throughput::Elements(1));
    for devices in [1, DEVICES] {
        let sessions = &sessions[..devices];
        group.bench_function(format!("{devices} at once"), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(spread(iterations, sessions, async |session| {
                    bench.hub.report(session, PATCH, None).await.unwrap();
                }))
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("durable telemetry, 256 B");
    group.throughput(Throughput::Elements(WINDOW as u64));
    for devices in [1, DEVICES] {
        let sessions = &sessions[..devices];
        group.bench_function(format!("{devices} devices, batches of {WINDOW}"), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(spread(iterations, sessions, async |session| {
                    let message = Message { body: Bytes::from_static(&[b'x'; 256]), ..Message::default() };
                    bench.hub.send_telemetry(session, vec![message; WINDOW]).await.unwrap();
                }))
            });
        });
    }
    group.finish();

    criterion.bench_function("twin read, 2 KB", |bencher| {
        bencher.iter_batched(
            || Arc::clone(&sessions[0]),
            |session| runtime.block_on(bench.hub.device_twin(&session, None)).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

fn append(criterion: &mut Criterion, runtime: &Runtime, dir: &Path) {
    let env = nave_net::RealEnv::start().unwrap();
    let log = FileLog::open(dir, Options::default(), env).unwrap();
    let mut group = criterion.benchmark_group("durable append to the log, 256 B");
    group.throughput(Throughput::Elements(1));
    for appenders in [1, DEVICES] {
        let ids: Vec<String> = (0..appenders).map(|number| format!("device-{number:03}")).collect();
        group.bench_function(format!("{appenders} at once"), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(spread(iterations, &ids, async |id: &String| {
                    log.append(partition_of(id, log.partitions()), vec![record(id)]).await.unwrap();
                }))
            });
        });
    }
}

fn record(id: &str) -> NewRecord {
    NewRecord {
        key: MessageKey([7; 16]),
        source: Source::DeviceMessages,
        device_id: id.to_owned(),
        module_id: None,
        endpoints: vec!["events".to_owned()],
        system: vec![("contentType".to_owned(), "application/json".to_owned())],
        properties: vec![("level".to_owned(), "storage".to_owned())],
        body: Bytes::from_static(&[b'x'; 256]),
    }
}

/// The time for `iterations` calls of `work`, each lane doing its share one after the other, the lanes at the same time.
async fn spread<L>(iterations: u64, lanes: &[L], work: impl AsyncFn(&L)) -> Duration {
    let work = &work;
    let each = iterations / lanes.len() as u64;
    let more = iterations % lanes.len() as u64;
    let start = Instant::now();
    join_all(lanes.iter().zip(0..).map(|(lane, number)| async move {
        for _ in 0..each + u64::from(number < more) {
            work(lane).await;
        }
    }))
    .await;
    start.elapsed()
}
