//! The service's error codes, and what device and operator read. Source: protocol notes, Provisioning (device) §2.3 and
//! Provisioning (service) §9; the numbers of custom allocation also Azure DPS documentation, "Sending additional data".

use crate::{Candidate, Decision, Error, FailureCause, PolicyChoice};

/// `CustomAllocationFailed`: the custom policy answered nothing usable, or refused.
pub(crate) const CUSTOM_ALLOCATION_FAILED: u32 = 400_207;
/// `CustomAllocationIotHubNotSpecified`, and every other case of there being no hub to assign.
pub(crate) const NO_HUB: u32 = 400_208;
/// `CustomAllocationUnauthorizedAccess`: the web hook does not accept the service.
pub(crate) const CUSTOM_ALLOCATION_UNAUTHORIZED: u32 = 400_209;
/// `Unauthorized`: the device's proof does not hold, or there is no enrollment to hold it against.
pub(crate) const UNAUTHORIZED: u32 = 401_002;
/// `EnrollmentNotFound`.
pub(crate) const ENROLLMENT_NOT_FOUND: u32 = 404_201;
/// `ServerError`: a built-in policy did not answer, which is nobody's fault but ours.
pub(crate) const INTERNAL: u32 = 500_001;

/// Longest message for a device, in bytes. A policy's reason is cut to this: an answer must fit into the small buffers of
/// constrained clients.
pub(crate) const MAX_MESSAGE_BYTES: usize = 512;
/// Longest text for the log, in bytes; cut as well, so that a policy cannot flood it.
pub(crate) const MAX_LOG_BYTES: usize = 2_048;

/// An error whose two texts are within their bounds.
pub(crate) fn error(code: u32, message: &str, log: &str) -> Error {
    Error { code, message: cut(message, MAX_MESSAGE_BYTES).to_owned(), log: cut(log, MAX_LOG_BYTES).to_owned() }
}

/// The registration has no hub, by fault of the configuration that `log` describes.
pub(crate) fn no_hub(log: &str) -> Error {
    error(NO_HUB, "There is no IoT hub to assign the device to.", log)
}

/// The policy's choice cannot be used, for the reason in `log`.
pub(crate) fn unusable_choice(policy: &PolicyChoice, log: &str) -> Error {
    match policy {
        PolicyChoice::Custom(_) => {
            error(CUSTOM_ALLOCATION_FAILED, "Custom allocation failed: its answer is not valid.", log)
        }
        PolicyChoice::Builtin(_) => error(INTERNAL, "Allocation failed.", log),
    }
}

/// The policy chose `hub`, which is not a candidate.
pub(crate) fn foreign_hub(policy: &PolicyChoice, hub: &str, hubs: &[Candidate]) -> Error {
    if hub.is_empty() {
        return error(NO_HUB, "Custom allocation did not name an IoT hub.", "the policy's answer names no hub");
    }
    let names: Vec<_> = hubs.iter().map(|hub| hub.name.as_str()).collect();
    unusable_choice(policy, &format!("the policy chose {hub:?}, which is none of {names:?}"))
}

/// The policy refuses the device.
pub(crate) fn refused(policy: &PolicyChoice, reason: &str) -> Error {
    match policy {
        PolicyChoice::Custom(_) if reason.is_empty() => {
            error(CUSTOM_ALLOCATION_FAILED, "Custom allocation refused the device.", "refused without a reason")
        }
        // The reason was written for the device: that is the contract of `refuse`.
        PolicyChoice::Custom(_) => error(CUSTOM_ALLOCATION_FAILED, reason, &format!("the policy refused: {reason}")),
        // A built-in policy refuses only what is configured wrongly, which is the operator's to know.
        PolicyChoice::Builtin(name) => no_hub(&format!("allocation policy {name:?}: {reason}")),
    }
}

/// The policy did not answer.
pub(crate) fn no_answer(policy: &PolicyChoice, cause: FailureCause, log: &str) -> Decision {
    let (code, message) = match (policy, cause) {
        (PolicyChoice::Builtin(_), _) => (INTERNAL, "Allocation failed.".to_owned()),
        (_, FailureCause::Status(status)) => {
            let denied = matches!(status, 401 | 403);
            let code = if denied { CUSTOM_ALLOCATION_UNAUTHORIZED } else { CUSTOM_ALLOCATION_FAILED };
            (code, format!("Custom allocation failed with status code: {status}"))
        }
        (_, FailureCause::BadAnswer) => {
            (CUSTOM_ALLOCATION_FAILED, "Custom allocation failed: its answer is not valid.".to_owned())
        }
        (_, FailureCause::TimedOut) => {
            (CUSTOM_ALLOCATION_FAILED, "Custom allocation failed: it did not answer in time.".to_owned())
        }
        (_, FailureCause::Unavailable) => {
            (CUSTOM_ALLOCATION_FAILED, "Custom allocation failed: it cannot be reached.".to_owned())
        }
        (_, FailureCause::UnknownPolicy) => {
            (CUSTOM_ALLOCATION_FAILED, "Custom allocation failed: there is no such policy.".to_owned())
        }
    };
    Decision::Failed(error(code, &message, log))
}

/// The longest prefix of whole characters within `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("aäb", 2), "a");
        assert_eq!(cut("", 0), "");
        let long = error(1, &"ü".repeat(MAX_LOG_BYTES), &"ü".repeat(MAX_LOG_BYTES));
        assert_eq!((long.message.len(), long.log.len()), (MAX_MESSAGE_BYTES, MAX_LOG_BYTES));
    }
}
