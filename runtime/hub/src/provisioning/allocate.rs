//! Asking an allocation policy for a hub: a built-in one, a component of the operator's, or a web hook.

use std::collections::BTreeMap;
use std::sync::Arc;

use nave_engine::allocation::{Assignment, Fact, Hub as PolicyHub, Outcome as PolicyOutcome, Request as PolicyRequest};
use nave_engine::provisioning::{
    Allocation, AllocationFailure, Choice, Decision, FailureCause, LinkedHub as WitLinkedHub, Outcome, PolicyChoice,
    Webhook as WitWebhook,
};
use nave_model::{AllocationPolicyReference, EnrollmentKind, EnrollmentRecord, RegistrationRecord};
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::attest::{Attested, DeviceCredentials};
use super::register::Attempt;
use super::{Provisioning, hook, view};
use crate::error::HubError;
use crate::hub::Hub;
use crate::policy::{Answer, Counted, Ticket};

/// The policies that the built-in component has.
const BUILT_IN: [&str; 3] = ["hashed", "geoLatency", "static"];

/// What a policy of the operator's is called in its request.
const CUSTOM: &str = "custom";

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
    /// What policies are told about it besides.
    pub details: HubDetails,
}

/// What the operator says about a hub, for allocation policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubDetails {
    /// Devices that it shall hold at most.
    pub capacity: Option<u64>,
    /// Where it is.
    pub location: Option<String>,
    /// Anything else.
    pub labels: BTreeMap<String, String>,
}

impl LinkedHub {
    /// A hub of which the operator says nothing.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            allocation_weight: None,
            apply_allocation_policy: true,
            latency_ms: None,
            details: HubDetails::default(),
        }
    }

    pub(crate) fn for_function(&self) -> WitLinkedHub {
        WitLinkedHub {
            name: self.hub.host_name().as_str().to_owned(),
            allocation_weight: self.allocation_weight,
            apply_allocation_policy: self.apply_allocation_policy,
        }
    }

    /// By the names that `nave:allocation` documents.
    fn facts(&self, devices: Option<u64>) -> Vec<Fact> {
        let details = &self.details;
        let labels = Some(&details.labels).filter(|labels| !labels.is_empty());
        let facts = [
            ("latency-ms", self.latency_ms.map(|latency| json!(latency))),
            ("device-count", devices.map(|devices| json!(devices))),
            ("capacity", details.capacity.map(|capacity| json!(capacity))),
            ("location", details.location.as_ref().map(|location| json!(location))),
            ("labels", labels.map(|labels| json!(labels))),
        ];
        facts.into_iter().filter_map(|(name, value)| Some(fact(name, &value?))).collect()
    }
}

/// What came of asking, and which policy of the operator's was asked.
pub(super) struct Allocated {
    pub(super) outcome: Outcome,
    pub(super) decider: Option<(Ticket, Counted)>,
}

impl From<Outcome> for Allocated {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, decider: None }
    }
}

impl Provisioning {
    /// Obtains the outcome of `allocation`.
    pub(super) async fn allocate(
        &self,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
        registration: Option<&RegistrationRecord>,
    ) -> Result<Allocated, HubError> {
        match &allocation.policy {
            PolicyChoice::Builtin(name) => {
                let request = self.policy_request(name, allocation, attempt, attested, registration);
                Ok(self.ask_builtin(&request)?.into())
            }
            PolicyChoice::Custom(webhook) => {
                self.ask_custom(webhook, allocation, attempt, attested, registration).await
            }
        }
    }

    /// Counts what became of a decision, and says who took it.
    pub(super) fn settle(&self, decider: Option<(Ticket, Counted)>, decision: &Decision) -> Option<String> {
        let (ticket, counted) = decider?;
        let counted = match (counted, decision) {
            // The choice was not usable: an unknown hub, a twin that is too large, what is not JSON.
            (Counted::Assigned, Decision::Failed(_)) => Counted::Failed("unusable"),
            (counted, _) => counted,
        };
        if let Some(policies) = self.allocation_policies() {
            policies.settle(&ticket, counted);
        }
        Some(ticket.to_string())
    }

    async fn ask_custom(
        &self,
        webhook: &WitWebhook,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
        registration: Option<&RegistrationRecord>,
    ) -> Result<Allocated, HubError> {
        let Some(enrollment) = &attested.enrollment else {
            return Err(HubError::internal("an allocation without an enrollment"));
        };
        if let Some(policy) = &self.deployed {
            let request = self.custom_request(enrollment, allocation, attempt, attested, registration)?;
            return Ok(self.ask_deployed(&**policy, &webhook.url, request)?.into());
        }
        let Some((policies, hooks)) = self.allocation_policies().zip(self.hooks()) else {
            return Ok(failed(FailureCause::Unavailable, "this service has no custom allocation".to_owned()).into());
        };
        if !AllocationPolicyReference::is_meant(&webhook.url) {
            // It was allowed when the enrollment was written; the setting may have been taken back since.
            if let Err(why) = hooks.allows(&webhook.url) {
                return Ok(failed(FailureCause::Unavailable, why).into());
            }
            let document = enrollment_document(enrollment, registration)?;
            let body = self.hook_document(allocation, attempt, attested, enrollment.kind, document);
            return Ok(self.ask_hook(hooks, &webhook.url, &body).await.into());
        }
        let reference = match AllocationPolicyReference::parse(&webhook.url) {
            Ok(reference) => reference,
            Err(error) => return Ok(failed(FailureCause::UnknownPolicy, error.to_string()).into()),
        };
        let request = self.custom_request(enrollment, allocation, attempt, attested, registration)?;
        let asked = policies.ask(&reference, request.clone()).instrument(nave_trace::policy(reference.name.as_str()));
        match asked.await? {
            Answer::Later(seconds) => Ok(Outcome::RetryAfter(seconds).into()),
            Answer::Failed(failure) => Ok(Outcome::Failed(failure).into()),
            Answer::Decided(outcome, ticket) => {
                let (outcome, counted) = self.meaning(&ticket, *outcome, request)?;
                Ok(Allocated { outcome, decider: Some((ticket, counted)) })
            }
        }
    }

    /// What a policy of the operator's is asked.
    fn custom_request(
        &self,
        enrollment: &EnrollmentRecord,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
        registration: Option<&RegistrationRecord>,
    ) -> Result<PolicyRequest, HubError> {
        let member = match enrollment.kind {
            EnrollmentKind::Individual => "individualEnrollment",
            EnrollmentKind::Group => "enrollmentGroup",
        };
        let mut request = self.policy_request(CUSTOM, allocation, attempt, attested, registration);
        request.enrollment_json = json!({ member: enrollment_document(enrollment, registration)? }).to_string();
        let configuration = enrollment.webhook.as_ref().and_then(|webhook| webhook.configuration.as_ref());
        request.config_json = configuration.map(|document| document.text().to_owned());
        Ok(request)
    }

    /// What the outcome of the operator's policy `who` means, and what it is counted as.
    pub(super) fn meaning(
        &self,
        who: &dyn std::fmt::Display,
        outcome: PolicyOutcome,
        mut request: PolicyRequest,
    ) -> Result<(Outcome, Counted), HubError> {
        let bad = |log: String| {
            (failed(FailureCause::BadAnswer, format!("policy {who}: {log}")), Counted::Failed("unusable"))
        };
        Ok(match outcome {
            PolicyOutcome::Assign(assignment) => (Outcome::Assigned(choice(assignment)), Counted::Assigned),
            PolicyOutcome::Refuse(reason) => (Outcome::Refused(reason), Counted::Refused),
            PolicyOutcome::RetryAfter(seconds) => (Outcome::RetryAfter(seconds), Counted::Postponed),
            PolicyOutcome::UsePolicy(name) => match BUILT_IN.iter().find(|known| known.eq_ignore_ascii_case(&name)) {
                None => bad(format!("it left the decision to `{name}`, which is no built-in policy")),
                Some(known) => {
                    (*known).clone_into(&mut request.policy);
                    // A built-in policy refuses only what is configured wrongly, which is not for the device to read.
                    match self.ask_builtin(&request)? {
                        Outcome::Refused(reason) => {
                            bad(format!("it left the decision to `{known}`, which says: {reason}"))
                        }
                        outcome => (outcome, Counted::Delegated),
                    }
                }
            },
            PolicyOutcome::Other(fact) => bad(format!("it answered with the unknown outcome `{}`", fact.name)),
        })
    }

    fn ask_builtin(&self, request: &PolicyRequest) -> Result<Outcome, HubError> {
        let bad =
            |log: String| failed(FailureCause::BadAnswer, format!("the built-in policy `{}` {log}", request.policy));
        Ok(match self.functions.allocate(request)? {
            PolicyOutcome::Assign(assignment) => Outcome::Assigned(choice(assignment)),
            PolicyOutcome::Refuse(reason) => Outcome::Refused(reason),
            PolicyOutcome::RetryAfter(seconds) => Outcome::RetryAfter(seconds),
            PolicyOutcome::UsePolicy(other) => bad(format!("answered with another policy, `{other}`")),
            PolicyOutcome::Other(fact) => bad(format!("answered with the unknown outcome `{}`", fact.name)),
        })
    }

    /// Everything that a policy is told but the enrollment and its configuration, which built-in policies do not read.
    fn policy_request(
        &self,
        policy: &str,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
        registration: Option<&RegistrationRecord>,
    ) -> PolicyRequest {
        let hubs = allocation.hubs.iter().map(|candidate| {
            let linked = self.hubs().iter().find(|linked| linked.hub.host_name().as_str() == candidate.name);
            // Built-in policies do not read it, and it is not free.
            let devices =
                linked.filter(|_| policy == CUSTOM).and_then(|linked| self.population.of(&self.env, &linked.hub));
            let facts = linked.map(|linked| linked.facts(devices)).unwrap_or_default();
            PolicyHub { name: candidate.name.clone(), weight: candidate.weight, facts }
        });
        let payload = registration.and_then(|record| record.payload.as_ref());
        PolicyRequest {
            registration_id: allocation.registration_id.clone(),
            policy: policy.to_owned(),
            enrollment_json: "{}".to_owned(),
            payload_json: attempt.payload.clone(),
            config_json: None,
            current: allocation.current.as_ref().map(|current| Assignment {
                hub: current.hub.clone(),
                device_id: Some(current.device_id.clone()),
                initial_twin_json: None,
                payload_json: payload.map(|payload| payload.text().to_owned()),
            }),
            hubs: hubs.collect(),
            unix_nanos: self.env.now().unix_nanos(),
            seed: u64::from_be_bytes(self.random()),
            facts: self.facts(attempt, attested),
        }
    }

    fn hook_document(
        &self,
        allocation: &Allocation,
        attempt: &Attempt,
        attested: &Attested,
        kind: EnrollmentKind,
        enrollment: Value,
    ) -> Value {
        let proof = match &attested.verdict {
            Ok(DeviceCredentials { certificate: Some(certificate), .. }) => {
                let info = view::certificate_info(certificate);
                ("x509", info.map_or_else(|| json!({}), |info| json!({ "clientCertificate": info })))
            }
            _ => ("symmetricKey", json!({})),
        };
        let current = allocation.current.as_ref().map(|current| (current.hub.as_str(), current.device_id.as_str()));
        let payload = attempt.payload.as_deref().and_then(|payload| serde_json::from_str(payload).ok());
        let hubs: Vec<&str> = allocation.hubs.iter().map(|hub| hub.name.as_str()).collect();
        hook::document(kind, enrollment, &allocation.registration_id, current, proof, payload, &hubs)
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
        facts.into_iter().flatten().map(|(name, value)| fact(name, &value)).collect()
    }
}

fn enrollment_document(
    enrollment: &EnrollmentRecord,
    registration: Option<&RegistrationRecord>,
) -> Result<Value, HubError> {
    let state = registration.map(view::registration_json);
    super::enrollment_json(enrollment, state.filter(|_| enrollment.kind == EnrollmentKind::Individual))
}

fn fact(name: &str, value: &Value) -> Fact {
    Fact { name: name.to_owned(), json: value.to_string() }
}

fn choice(assignment: Assignment) -> Choice {
    Choice {
        hub: assignment.hub,
        device_id: assignment.device_id,
        initial_twin_json: assignment.initial_twin_json,
        payload_json: assignment.payload_json,
    }
}

pub(super) fn failed(cause: FailureCause, log: String) -> Outcome {
    Outcome::Failed(AllocationFailure { cause, log })
}
