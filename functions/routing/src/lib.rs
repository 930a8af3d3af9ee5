//! The compiler of route conditions.
//!
//! [`compile`] parses a condition such as `level = 'storage' AND $body.temperature > 30`, checks what can be checked before
//! a message arrives, and gives a program that the host runs, or says what is wrong, where, and what was probably meant.
//! The types are those of `wit/routing`, generated; on `wasm32` the crate is the component itself. It imports nothing.
//!
//! Language: protocol notes, query language §1, §3, §4 and routing §3.

mod bindings;
mod check;
mod diagnose;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod lexer;
mod names;
mod parser;
#[cfg(test)]
mod tests;

pub use bindings::exports::nave::routing::routing::{
    Arithmetic, ArithmeticOperator, Call, Comparison, ComparisonOperator, Compiled, Diagnostic, Function, Membership,
    Node, NodeIndex, Position, Program, Severity, Source, Span, Step, SystemProperty, TwinPath, TwinSection,
};
pub use parser::{MAX_DEPTH, MAX_NESTING};

use diagnose::{Problem, count};

/// The version of the program format that this compiler writes.
pub const PROGRAM_VERSION: u32 = 1;

/// The longest condition, in characters (protocol notes: query language §1). A longer one is refused.
pub const MAX_CONDITION_CHARACTERS: usize = 8192;

/// The most diagnostics of one condition; further ones are left out, so that an answer stays readable.
pub const MAX_DIAGNOSTICS: usize = 64;

/// Compiles the condition of a route with the given source.
///
/// # Errors
/// What is wrong with the condition: at least one diagnostic of severity error. A condition that cannot be parsed has
/// exactly one, for what follows the first error could not be trusted; type errors are reported together.
pub fn compile(condition: &str, source: Source) -> Result<Compiled, Vec<Diagnostic>> {
    let refuse = |problem: Problem| vec![problem.report(condition, Severity::Error)];
    if let Some((end, _)) = condition.char_indices().nth(MAX_CONDITION_CHARACTERS) {
        let message = format!("a condition has at most {MAX_CONDITION_CHARACTERS} characters");
        return Err(refuse(Problem::new(end, condition.len(), message)));
    }
    let parsed = parser::parse(condition).map_err(|problem| refuse(with_context(*problem, condition)))?;
    let findings = check::check(condition, &parsed, source);
    let report = |problems: Vec<Problem>, severity| {
        problems.into_iter().take(MAX_DIAGNOSTICS).map(move |problem| problem.report(condition, severity))
    };
    let warnings = || report([&parsed.warnings[..], &findings.warnings[..]].concat(), Severity::Warning);
    if !findings.errors.is_empty() {
        let errors = report(findings.errors, Severity::Error);
        return Err(errors.chain(warnings()).take(MAX_DIAGNOSTICS).collect());
    }
    let warnings = warnings().collect();
    let spans = parsed.spans.iter().map(|&(start, end)| Span { start: count(start), end: count(end) }).collect();
    Ok(Compiled {
        program: Program {
            version: PROGRAM_VERSION,
            root: count(parsed.nodes.len().saturating_sub(1)),
            needs_body: parsed.nodes.iter().any(|node| matches!(node, Node::Body(_))),
            needs_twin: parsed.nodes.iter().any(|node| matches!(node, Node::Twin(_))),
            nodes: parsed.nodes,
            spans,
        },
        warnings,
    })
}

/// A whole query instead of a condition is a common mistake, which the first error would not explain.
fn with_context(problem: Problem, condition: &str) -> Problem {
    let first = condition.split_whitespace().next().unwrap_or("");
    let start = condition.find(first).unwrap_or(0);
    let rest = condition.get(start + first.len()..).unwrap_or("").trim_start();
    // A property may be called `where`; it is a query if what follows cannot follow a property.
    let at_second = problem.start == condition.len() - rest.len();
    let is_query = (first.eq_ignore_ascii_case("where") && at_second)
        || (first.eq_ignore_ascii_case("select") && (at_second || rest.starts_with('*')));
    if !is_query {
        return problem;
    }
    let message = "a route condition is only what follows WHERE in a query";
    Problem::new(start, start + first.len(), message).expected("a condition such as level = 'storage'")
}
