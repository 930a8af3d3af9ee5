//! The `nave` program. See the library part for what it does.

use std::process::ExitCode;

/// A hub allocates for every message and every connection, on threads that never share what they allocate for long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nave::run()
}
