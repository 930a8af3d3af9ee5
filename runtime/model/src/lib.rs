//! The words of the domain: identifiers, entity tags, timestamps, and the records that the store keeps.
//!
//! This crate is pure data: it compiles to WebAssembly, so that every host of the functions reads and writes the same
//! state.

mod time;

pub use time::Timestamp;
