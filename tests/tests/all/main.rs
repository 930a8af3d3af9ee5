//! The tests of the whole, in one binary, because each binary would link the engine again.

mod components;
mod composition;
mod containment;
mod process;
mod simulation;
