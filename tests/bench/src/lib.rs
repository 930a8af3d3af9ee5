//! A whole hub on real threads, real sockets and a real disk, for benchmarks: what `nave serve` puts together, without the
//! command line. The benchmarks are in `benches/`.

#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails stops")]

pub mod client;
pub mod platform;
