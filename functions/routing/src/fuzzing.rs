//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

use crate::{Severity, Source, compile};

/// A condition compiles or is refused with reasons that point into it; the same condition always with the same outcome.
pub fn fuzz_condition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for source in [Source::DeviceMessages, Source::TwinChangeEvents, Source::DeviceLifecycleEvents] {
        let outcome = compile(text, source);
        match &outcome {
            Ok(compiled) => {
                let nodes = compiled.program.nodes.len();
                assert!((compiled.program.root as usize) < nodes, "the root is a node");
                assert_eq!(compiled.program.spans.len(), nodes, "each node knows its place");
                assert!(compiled.warnings.iter().all(|warning| warning.severity == Severity::Warning));
            }
            Err(reasons) => {
                assert!(reasons.iter().any(|reason| reason.severity == Severity::Error));
                let lines = text.split('\n').count();
                assert!(reasons.iter().all(|reason| (reason.start.line as usize) <= lines + 1));
            }
        }
        assert_eq!(format!("{outcome:?}"), format!("{:?}", compile(text, source)));
    }
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("condition", super::fuzz_condition);
    }
}
