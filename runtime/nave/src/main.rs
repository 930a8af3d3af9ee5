//! The `nave` program. See the library part for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    nave::run()
}
