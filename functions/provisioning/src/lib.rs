//! Registering devices: who may come in, which hubs are candidates, and what becomes of a device's identity and twin.
//!
//! Two pure functions, [`begin`] and [`complete`], exported as a component with the world
//! `nave:provisioning/provisioning-function`. The types are those that wit-bindgen makes from `wit/provisioning`; on wasm32
//! the crate is the component, elsewhere an ordinary library, so that the tests run the very code that is deployed.

mod admission;
mod answer;
mod candidates;
mod errors;
mod reprovision;

#[cfg(target_arch = "wasm32")]
mod component;

#[allow(missing_docs, reason = "generated; the documentation is in wit/provisioning")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/provisioning",
        world: "provisioning-function",
        additional_derives: [PartialEq],
    });
}

pub use bindings::exports::nave::provisioning::provisioning::{
    Allocation, AllocationFailure, Assignment, AttestationKind, Candidate, Choice, Decision, DeviceAddress, DeviceData,
    Enrollment, EnrollmentKind, Error, Evidence, FailureCause, LinkedHub, Migration, Outcome, PolicyChoice,
    Registration, ReprovisionPolicy, Request, Step, Substatus, Verdict, Webhook,
};

use std::ops::ControlFlow::{self, Break, Continue};

use reprovision::Mode;

/// Judges a registration request: a final decision, or the allocation that the host has to obtain first.
pub fn begin(request: &Request) -> Step {
    match judge(request) {
        Break(decision) => Step::Done(decision),
        Continue(plan) => Step::Allocate(Allocation {
            policy: plan.policy,
            hubs: plan.hubs,
            registration_id: request.registration_id.to_ascii_lowercase(),
            current: if request.force { None } else { request.current.as_ref().map(|current| current.device.clone()) },
        }),
    }
}

/// Decides a registration for which [`begin`] asked for an allocation, from what came of it.
pub fn complete(request: &Request, outcome: Outcome) -> Decision {
    match judge(request) {
        Break(decision) => decision,
        Continue(plan) => answer::decide(request, &plan, outcome),
    }
}

/// A registration that needs a hub.
struct Plan<'a> {
    enrollment: &'a Enrollment,
    mode: Mode<'a>,
    policy: PolicyChoice,
    hubs: Vec<Candidate>,
}

/// What both calls have in common: they agree because they compute the same, not because one remembers the other.
fn judge(request: &Request) -> ControlFlow<Decision, Plan<'_>> {
    let enrollment = admission::admit(request)?;
    let mode = reprovision::mode(request, enrollment)?;
    match candidates::choose(request, enrollment) {
        Ok((policy, hubs)) => Continue(Plan { enrollment, mode, policy, hubs }),
        Err(error) => Break(Decision::Failed(error)),
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
