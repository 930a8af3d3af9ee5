//! Which policy decides, and among which hubs. Source: protocol notes, Provisioning (service) §3.1 and §5.

use crate::{Candidate, Enrollment, Error, LinkedHub, PolicyChoice, Request, errors};

/// The policy that asks somebody else.
const CUSTOM: &str = "custom";
/// The policy of an enrollment that names its one hub.
const STATIC: &str = "static";
/// The weight of a hub without a configured one.
const DEFAULT_WEIGHT: u32 = 1;

/// The policy that decides, and the candidates. An error is the configuration's fault.
pub(crate) fn choose(request: &Request, enrollment: &Enrollment) -> Result<(PolicyChoice, Vec<Candidate>), Error> {
    let policy = policy(request, enrollment)?;
    let hubs = hubs(request, enrollment, &policy)?;
    Ok((policy, hubs))
}

/// The policy that decides: the enrollment's, else the service's; an enrollment that names its hub in the older way
/// (`iotHubHostName`) and no policy is static. Names are passed on unchecked, because the allocation function knows its own.
fn policy(request: &Request, enrollment: &Enrollment) -> Result<PolicyChoice, Error> {
    let own = enrollment.allocation_policy.as_deref().filter(|name| !name.is_empty());
    let Some(name) = own else {
        return match (enrollment.hubs.as_slice(), legacy_hub(enrollment)) {
            ([], Some(_)) => Ok(PolicyChoice::Builtin(STATIC.to_owned())),
            _ if request.service_policy.eq_ignore_ascii_case(CUSTOM) => {
                Err(errors::no_hub("the service's own allocation policy cannot be custom"))
            }
            _ => Ok(PolicyChoice::Builtin(request.service_policy.clone())),
        };
    };
    if !name.eq_ignore_ascii_case(CUSTOM) {
        return Ok(PolicyChoice::Builtin(name.to_owned()));
    }
    match &enrollment.webhook {
        Some(webhook) if !webhook.url.is_empty() => Ok(PolicyChoice::Custom(webhook.clone())),
        _ => Err(errors::error(
            errors::CUSTOM_ALLOCATION_FAILED,
            "Custom allocation failed: it is not configured.",
            &format!("enrollment {:?} wants custom allocation but names no web hook", enrollment.id),
        )),
    }
}

/// The candidates, at least one and none twice: the hubs that the enrollment names, else the linked hubs that take part in
/// allocation. A hub that the enrollment names takes part whatever its `applyAllocationPolicy`, but it must be linked.
fn hubs(request: &Request, enrollment: &Enrollment, policy: &PolicyChoice) -> Result<Vec<Candidate>, Error> {
    let named: Vec<&str> = match enrollment.hubs.as_slice() {
        [] => legacy_hub(enrollment).into_iter().collect(),
        hubs => hubs.iter().map(String::as_str).collect(),
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut add = |hub: &LinkedHub| {
        if !candidates.iter().any(|other| other.name.eq_ignore_ascii_case(&hub.name)) {
            let weight = hub.allocation_weight.unwrap_or(DEFAULT_WEIGHT);
            candidates.push(Candidate { name: hub.name.clone(), weight });
        }
    };
    if named.is_empty() {
        request.linked_hubs.iter().filter(|hub| hub.apply_allocation_policy).for_each(&mut add);
    }
    for name in &named {
        match request.linked_hubs.iter().find(|hub| hub.name.eq_ignore_ascii_case(name)) {
            Some(hub) => add(hub),
            None => {
                let log = format!("enrollment {:?} names hub {name:?}, which is not linked", enrollment.id);
                return Err(errors::no_hub(&log));
            }
        }
    }
    let is_static = matches!(policy, PolicyChoice::Builtin(name) if name.eq_ignore_ascii_case(STATIC));
    if is_static && (named.is_empty() || candidates.len() != 1) {
        let log = format!(
            "static allocation needs exactly one hub in the enrollment; {:?} names {}",
            enrollment.id,
            if named.is_empty() { 0 } else { candidates.len() }
        );
        return Err(errors::no_hub(&log));
    }
    if candidates.is_empty() {
        return Err(errors::no_hub("no linked hub takes part in allocation"));
    }
    Ok(candidates)
}

fn legacy_hub(enrollment: &Enrollment) -> Option<&str> {
    enrollment.legacy_hub.as_deref().filter(|hub| !hub.is_empty())
}
