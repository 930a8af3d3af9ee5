//! Asking an allocation policy for a hub.

use std::sync::Arc;

use nave_engine::allocation::{Assignment, Fact, Hub as PolicyHub, Outcome as PolicyOutcome, Request as PolicyRequest};
use nave_engine::provisioning::{
    Allocation, AllocationFailure, Choice, FailureCause, LinkedHub as WitLinkedHub, Outcome, PolicyChoice,
};
use nave_model::EnrollmentKind;
use serde_json::{Value, json};

use super::attest::{Attested, DeviceCredentials};
use super::register::Attempt;
use super::{Provisioning, view};
use crate::error::HubError;
use crate::hub::Hub;

/// A hub that devices may be assigned to.
#[derive(Clone)]
pub struct LinkedHub {
    /// The hub.
    pub hub: Arc<Hub>,
    /// Its share among evenly weighted hubs, 1 to 1000; `None` counts as 1.
    pub allocation_weight: Option<u32>,
    /// False takes it out of allocation unless an enrollment names it.
    pub apply_allocation_policy: bool,
    /// Round-trip time between the devices of this installation and the hub, in milliseconds, for `geoLatency`.
    pub latency_ms: Option<f64>,
}

impl LinkedHub {
    pub(crate) fn for_function(&self) -> WitLinkedHub {
        WitLinkedHub {
            name: self.hub.host_name().as_str().to_owned(),
            allocation_weight: self.allocation_weight,
            apply_allocation_policy: self.apply_allocation_policy,
        }
    }
}

impl Provisioning {
    /// Obtains the outcome of `allocation`.
    pub(crate) fn allocate(
        &self,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
    ) -> Result<Outcome, HubError> {
        match &allocation.policy {
            PolicyChoice::Builtin(name) => self.ask_builtin(name, allocation, attempt, attested),
            PolicyChoice::Custom(webhook) => Ok(Outcome::Failed(AllocationFailure {
                cause: FailureCause::Unavailable,
                // Not the whole address: its query is where the key of the web hook is.
                log: format!(
                    "custom allocation policies are not available in this release ({})",
                    webhook.url.split('?').next().unwrap_or_default()
                ),
            })),
        }
    }

    fn ask_builtin(
        &self,
        name: &str,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
    ) -> Result<Outcome, HubError> {
        let hubs = allocation.hubs.iter().map(|candidate| {
            let linked = self.hubs().iter().find(|linked| linked.hub.host_name().as_str() == candidate.name);
            let latency = linked.and_then(|linked| linked.latency_ms);
            let facts = latency.map(|latency| Fact { name: "latency-ms".to_owned(), json: format!("{latency}") });
            PolicyHub { name: candidate.name.clone(), weight: candidate.weight, facts: facts.into_iter().collect() }
        });
        let request = PolicyRequest {
            registration_id: allocation.registration_id.clone(),
            policy: name.to_owned(),
            enrollment_json: "{}".to_owned(),
            payload_json: attempt.payload.clone(),
            config_json: None,
            current: allocation.current.as_ref().map(|current| Assignment {
                hub: current.hub.clone(),
                device_id: Some(current.device_id.clone()),
                initial_twin_json: None,
                payload_json: None,
            }),
            hubs: hubs.collect(),
            unix_nanos: self.env.now().unix_nanos(),
            seed: u64::from_be_bytes(self.random()),
            facts: self.facts(attempt, attested),
        };
        Ok(match self.functions.allocate(&request)? {
            PolicyOutcome::Assign(assignment) => Outcome::Assigned(Choice {
                hub: assignment.hub,
                device_id: assignment.device_id,
                initial_twin_json: assignment.initial_twin_json,
                payload_json: assignment.payload_json,
            }),
            PolicyOutcome::Refuse(reason) => Outcome::Refused(reason),
            PolicyOutcome::RetryAfter(seconds) => Outcome::RetryAfter(seconds),
            PolicyOutcome::UsePolicy(other) => Outcome::Failed(AllocationFailure {
                cause: FailureCause::BadAnswer,
                log: format!("the built-in policy `{name}` answered with another policy, `{other}`"),
            }),
            PolicyOutcome::Other(fact) => Outcome::Failed(AllocationFailure {
                cause: FailureCause::BadAnswer,
                log: format!("the built-in policy `{name}` answered with the unknown outcome `{}`", fact.name),
            }),
        })
    }
    /// What a policy is told besides, by the names that `nave:allocation` documents: how the device proved who it is, and
    /// what it asked for.
    fn facts(&self, attempt: &Attempt, attested: &Attested) -> Vec<Fact> {
        let proof = match (&attested.verdict, &attested.enrollment) {
            (Ok(DeviceCredentials { certificate: Some(certificate), .. }), _) => {
                view::certificate_info(certificate).map(|info| ("x509", info))
            }
            (Ok(_), Some(enrollment)) => {
                let kind = match enrollment.kind {
                    EnrollmentKind::Individual => "individual",
                    EnrollmentKind::Group => "group",
                };
                Some(("symmetric-key", json!({ "kind": kind })))
            }
            _ => None,
        };
        let linked: Vec<_> = self.hubs().iter().map(|linked| linked.hub.host_name().as_str()).collect();
        let version = attempt.api_version.as_deref().map(|version| ("api-version", json!(version)));
        let facts = [proof, Some(("linked-hubs", json!(linked))), Some(("force", json!(attempt.force))), version];
        let named = |(name, value): (&str, Value)| Fact { name: name.to_owned(), json: value.to_string() };
        facts.into_iter().flatten().map(named).collect()
    }
}
