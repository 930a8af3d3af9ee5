//! The rules of the protocol notes, seen from outside.

mod admission;
mod answer;
mod candidates;
mod properties;
mod reprovision;
