//! The templates of `nave policy new`, and the commands that work with policies, with components in four languages.
//!
//! `cargo xtask policies` makes the components. Everything here uses the built program, nothing links the engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "everything here is a test: what fails unexpectedly should stop it"
)]

mod cases;
mod check;
mod compatibility;
mod nave;
mod page;
mod simulate;
mod templates;
