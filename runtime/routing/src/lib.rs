//! Decides where a message goes.
//!
//! A route condition is compiled by the `routing` function component into a program, which is data. This crate checks
//! such a program ([`ProgramParts::validate`]), runs it over a message ([`evaluate`]) and combines the routes of a hub,
//! its fallback route and its message enrichments into one [`Decision`] ([`RouteTable::decide`]).
//!
//! Nothing here knows of WebAssembly, storage or sockets. The decision is stored with the message when it is accepted,
//! so a later change of routes or twins does not rewrite the past.
//!
//! Rules: protocol notes, routing §1, §3, §4 and query language §3, §4.

mod endpoints;
mod enrichment;
mod evaluate;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod json;
mod matcher;
mod message;
mod names;
mod placed;
mod program;
mod source;
mod table;
mod trace;
mod value;

pub use enrichment::{Enrichment, EnrichmentValue, InvalidEnrichment, MAX_ENRICHMENT_VALUE_BYTES};
pub use evaluate::{Verdict, evaluate, evaluate_observed};
pub use functions::{MAX_TEXT_BYTES, MAX_TEXT_WORK_BYTES};
pub use json::Json;
pub use message::{MessageView, NoProperties, Properties, SystemProperties, TwinSections, TwinText};
pub use names::{EndpointName, EnrichmentKey, InvalidName, MAX_NAME_CHARACTERS, RouteName, same_name};
pub use program::{
    ArithmeticOperator, ComparisonOperator, Function, MAX_DEPTH, MAX_NODES, MAX_PROGRAM_TEXT_BYTES, Node, NodeIndex,
    PROGRAM_VERSION, Program, ProgramError, ProgramParts, Span, Step, SystemProperty, TwinPath, TwinSection,
};
pub use source::{Source, UnknownSource};
pub use table::{
    AppliedEnrichment, Decision, MAX_ENDPOINTS, MAX_ENRICHED_MESSAGE_BYTES, MAX_ENRICHMENTS, MAX_ROUTES, Outcome,
    Route, RouteTable, TableError, TableParts,
};
pub use trace::{MAX_SHOWN_CHARACTERS, PartResult, Trace, TracedPart, trace};
pub use value::Value;
