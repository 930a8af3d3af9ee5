//! TODO

pub mod protocol;
