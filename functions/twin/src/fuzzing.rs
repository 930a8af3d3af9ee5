//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

use crate::{Condition, ReportRequest, UpdateKind, UpdateRequest, catch_up, create, report, update};

/// Any time.
const NOW: u64 = 1_800_000_000_000_000_000;

/// Any body creates, patches and reports, or is refused; what is accepted is accepted again as the start of the next change.
pub fn fuzz_twin(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(empty) = create(None, NOW) else { return };
    let _ = create(Some(text), NOW);
    for kind in [UpdateKind::Patch, UpdateKind::Replace] {
        let mut request = UpdateRequest {
            tags: empty.tags.clone(),
            desired: empty.desired.clone(),
            version: empty.version,
            etag: empty.etag,
            kind,
            body_json: text.to_owned(),
            condition: Condition::Unconditional,
            unix_nanos: NOW,
            emit_event: true,
        };
        // Twice, so that what was stored is read as well.
        for _ in 0..2 {
            let Ok(outcome) = update(&request) else { break };
            if let Some(tags) = outcome.tags {
                request.tags = tags;
            }
            if let Some(desired) = outcome.desired {
                assert!(desired.version > request.desired.version, "a change of a section is counted");
                assert!(catch_up(&desired, request.desired.version).is_ok(), "what was stored can be read");
                request.desired = desired;
            }
            request.version = outcome.version;
            request.etag = outcome.etag;
        }
    }
    let mut request = ReportRequest {
        reported: empty.reported.clone(),
        version: empty.version,
        patch_json: text.to_owned(),
        if_version: None,
        unix_nanos: NOW,
        emit_event: true,
    };
    for _ in 0..2 {
        let Ok(outcome) = report(&request) else { break };
        assert!(outcome.reported.version > request.reported.version);
        request.reported = outcome.reported;
        request.version = outcome.version;
    }
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("twin", super::fuzz_twin);
    }
}
