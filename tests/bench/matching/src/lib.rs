//! Only benchmarks: see `benches/matching.rs`.
