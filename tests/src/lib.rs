//! What the tests of the whole share. The tests themselves are one binary, `tests/all`.

pub mod fuzz;
pub mod http;
pub mod leaks;
pub mod numbers;
pub mod paths;
