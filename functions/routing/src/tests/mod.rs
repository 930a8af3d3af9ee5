mod diagnostics;
mod grammar;
mod roundtrip;

use crate::{Compiled, Diagnostic, Node, Severity, Source, compile};

fn compiled(condition: &str) -> Compiled {
    compile(condition, Source::DeviceMessages).unwrap_or_else(|errors| panic!("{condition}: {errors:?}"))
}

/// The nodes of a condition that gives no warning.
fn nodes(condition: &str) -> Vec<Node> {
    let Compiled { program, warnings } = compiled(condition);
    assert!(warnings.is_empty(), "{condition}: {warnings:?}");
    program.nodes
}

/// The only error of a condition.
fn error(condition: &str) -> Diagnostic {
    let mut errors = compile(condition, Source::DeviceMessages).expect_err(condition);
    assert_eq!(errors.len(), 1, "{condition}: {errors:?}");
    assert_eq!(errors[0].severity, Severity::Error);
    errors.remove(0)
}

/// The only warning of a condition.
fn warning(condition: &str) -> Diagnostic {
    let mut warnings = compiled(condition).warnings;
    assert_eq!(warnings.len(), 1, "{condition}: {warnings:?}");
    assert_eq!(warnings[0].severity, Severity::Warning);
    warnings.remove(0)
}

/// The part of the condition that a diagnostic is about.
fn place<'a>(condition: &'a str, diagnostic: &Diagnostic) -> &'a str {
    &condition[diagnostic.start.offset as usize..diagnostic.end.offset as usize]
}

/// The condition with the suggestion in place.
fn corrected(condition: &str, diagnostic: &Diagnostic) -> String {
    let suggestion = diagnostic.suggestion.as_deref().unwrap_or_else(|| panic!("{condition}: {diagnostic:?}"));
    let (start, end) = (diagnostic.start.offset as usize, diagnostic.end.offset as usize);
    [&condition[..start], suggestion, &condition[end..]].concat()
}
