//! A connection: the TLS handshake alone, and with a CONNECT whose token is checked and whose session is on disk before it is
//! answered. Client and server share the machine, so the times are those of both.

use criterion::Criterion;
use nave_bench::client::Dialer;
use nave_bench::platform::Bench;
use tokio::runtime::Builder;

const DEVICE: &str = "device-000";

pub(crate) fn all(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bench = Bench::start(dir.path());
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    runtime.block_on(bench.create_device(DEVICE));
    let token = bench.token(DEVICE);
    let (server, address) = bench.serve();
    let dialer = Dialer::new(address);

    let mut group = criterion.benchmark_group("connection, TLS 1.3");
    group.bench_function("handshake", |bencher| {
        bencher.iter(|| runtime.block_on(dialer.handshake()));
    });
    group.bench_function("handshake and CONNECT", |bencher| {
        bencher.iter(|| runtime.block_on(dialer.connect(DEVICE, &token)));
    });
    group.finish();
    server.shutdown(std::time::Duration::from_secs(1));
}
