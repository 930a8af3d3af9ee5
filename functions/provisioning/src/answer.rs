//! From a policy's outcome to the decision.

mod twin;

use crate::{Choice, Decision, DeviceAddress, EnrollmentKind, Error, Outcome, Plan, Request, errors, reprovision};

/// Longest wait that a policy may impose, in seconds. A longer one is cut: an hour later the operator may have changed the
/// configuration, and the device should find out.
const MAX_RETRY_AFTER_SECONDS: u32 = 3_600;
/// Longest payload that a policy may hand to the device, in bytes of JSON. It is stored with the registration and sent in
/// one MQTT message together with it; the size is our choice, the service's is not published.
const MAX_PAYLOAD_BYTES: usize = 65_536;
/// Longest device id, in characters (Azure IoT Hub documentation, identity registry).
const MAX_DEVICE_ID_CHARS: usize = 128;

/// The decision that follows from the outcome.
pub(crate) fn decide(request: &Request, plan: &Plan<'_>, outcome: Outcome) -> Decision {
    match outcome {
        Outcome::Assigned(choice) => match place(request, plan, choice) {
            Ok(placement) => Decision::Assigned(reprovision::assign(plan.mode, plan.enrollment, placement)),
            Err(error) => Decision::Failed(error),
        },
        Outcome::Refused(reason) => Decision::Failed(errors::refused(&plan.policy, &reason)),
        Outcome::RetryAfter(seconds) => Decision::RetryAfter(seconds.clamp(1, MAX_RETRY_AFTER_SECONDS)),
        Outcome::Failed(failure) => errors::no_answer(&plan.policy, failure.cause, &failure.log),
    }
}

/// Checks what the policy returned. Policies are other people's code: nothing of it is believed.
fn place(request: &Request, plan: &Plan<'_>, choice: Choice) -> Result<reprovision::Placement, Error> {
    let hub = plan
        .hubs
        .iter()
        .find(|hub| hub.name.eq_ignore_ascii_case(&choice.hub))
        .ok_or_else(|| errors::foreign_hub(&plan.policy, &choice.hub, &plan.hubs))?;
    let unusable = |log: String| errors::unusable_choice(&plan.policy, &log);
    let device_id = match choice.device_id {
        Some(id) if is_device_id(&id) => id,
        Some(id) => return Err(unusable(format!("the policy chose {id:?}, which is no device id"))),
        None => default_device_id(request, plan),
    };
    if let Some(json) = &choice.initial_twin_json {
        twin::check(json).map_err(|flaw| unusable(format!("the policy's initial twin: {flaw}")))?;
    }
    if let Some(json) = &choice.payload_json {
        if json.len() > MAX_PAYLOAD_BYTES {
            return Err(unusable(format!("the policy's payload is longer than {MAX_PAYLOAD_BYTES} bytes")));
        }
        // Read, not only skipped: what is nested too deeply could be stored but not shown to the device.
        serde_json::from_str::<serde_json::Value>(json)
            .map_err(|error| unusable(format!("the policy's payload is not JSON: {error}")))?;
    }
    Ok(reprovision::Placement {
        device: DeviceAddress { hub: hub.name.clone(), device_id },
        policy_twin_json: choice.initial_twin_json,
        payload_json: choice.payload_json,
    })
}

/// An individual enrollment's device id, else the registration id, which is the same device in any case and is therefore
/// written in one (protocol notes: Provisioning (device) §1 and §7).
fn default_device_id(request: &Request, plan: &Plan<'_>) -> String {
    let own = match plan.enrollment.kind {
        EnrollmentKind::Individual => plan.enrollment.device_id.as_deref().filter(|id| !id.is_empty()),
        EnrollmentKind::Group => None,
    };
    own.map_or_else(|| request.registration_id.to_ascii_lowercase(), str::to_owned)
}

fn is_device_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&byte);
    (1..=MAX_DEVICE_ID_CHARS).contains(&id.len()) && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_have_a_length_and_an_alphabet() {
        for good in ["a", "A-z:0.9+%_#*?!(),=@;$'", &"x".repeat(MAX_DEVICE_ID_CHARS)] {
            assert!(is_device_id(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", "a\"", &"x".repeat(MAX_DEVICE_ID_CHARS + 1)] {
            assert!(!is_device_id(bad), "{bad}");
        }
    }
}
