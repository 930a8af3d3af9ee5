//! The tests of the whole, in one binary, because each binary would link the engine again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "everything here is a test: what fails unexpectedly should stop it"
)]

mod components;
mod composition;
mod containment;
mod docs;
mod packaging;
mod plugins;
mod process;
mod simulation;
mod spin;
