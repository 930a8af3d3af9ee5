//! The units that users pay for. Each group has a rival in the same run: the same function natively, the bare disk, the bare
//! handshake. Ratios say more than times: machines are noisy.
//!
//! `cargo xtask components && cargo bench -p nave-bench` (a part: `-- twin`).

#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark that fails stops"
)]

mod connections;
mod disk;
mod functions;
mod policies;
mod routing;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, functions::all, policies::all, routing::all, disk::all, connections::all);
criterion_main!(benches);
