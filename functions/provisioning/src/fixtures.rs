//! Requests for the tests: an individual, symmetric-key enrollment of `dev-1` and two linked hubs.

use crate::*;

pub(crate) const HUB1: &str = "hub1.example";
pub(crate) const HUB2: &str = "hub2.example";
pub(crate) const OFF: &str = "off.example";

pub(crate) const MIGRATE: ReprovisionPolicy =
    ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: true };
pub(crate) const RESET: ReprovisionPolicy =
    ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: false };
pub(crate) const NEVER: ReprovisionPolicy =
    ReprovisionPolicy { update_hub_assignment: false, migrate_device_data: false };

/// The enrollment's initial twin.
pub(crate) const TWIN: &str = r#"{"tags":{"from":"enrollment"}}"#;

pub(crate) fn enrollment() -> Enrollment {
    Enrollment {
        kind: EnrollmentKind::Individual,
        id: "dev-1".into(),
        enabled: true,
        attestation: AttestationKind::SymmetricKey,
        device_id: None,
        allocation_policy: None,
        hubs: Vec::new(),
        legacy_hub: None,
        webhook: None,
        reprovision: Some(MIGRATE),
        initial_twin_json: Some(TWIN.into()),
        iot_edge: false,
    }
}

pub(crate) fn linked(name: &str, allocation_weight: Option<u32>, apply_allocation_policy: bool) -> LinkedHub {
    LinkedHub { name: name.into(), allocation_weight, apply_allocation_policy }
}

pub(crate) fn webhook() -> Webhook {
    Webhook { url: "https://policy.example/".into(), api_version: Some("2021-10-01".into()) }
}

/// A first registration, as the closure changes it.
pub(crate) fn request(change: impl FnOnce(&mut Request, &mut Enrollment)) -> Request {
    let mut enrollment = enrollment();
    let mut request = Request {
        registration_id: "dev-1".into(),
        evidence: Evidence { kind: AttestationKind::SymmetricKey, verdict: Verdict::Verified },
        enrollment: None,
        current: None,
        linked_hubs: vec![linked(HUB1, None, true), linked(HUB2, Some(7), true), linked(OFF, Some(3), false)],
        service_policy: "hashed".into(),
        force: false,
        api_version: Some("2019-03-31".into()),
    };
    change(&mut request, &mut enrollment);
    request.enrollment = Some(enrollment);
    request
}

/// The same with a custom policy.
pub(crate) fn custom(change: impl FnOnce(&mut Request, &mut Enrollment)) -> Request {
    request(|request, enrollment| {
        enrollment.allocation_policy = Some("custom".into());
        enrollment.webhook = Some(webhook());
        change(request, enrollment);
    })
}

pub(crate) fn address(hub: &str, device_id: &str) -> DeviceAddress {
    DeviceAddress { hub: hub.into(), device_id: device_id.into() }
}

/// On record: `dev-1` in [`HUB1`], with a payload.
pub(crate) fn current() -> Registration {
    Registration {
        device: address(HUB1, "dev-1"),
        substatus: Substatus::InitialAssignment,
        payload_json: Some("{\"old\":1}".into()),
    }
}

pub(crate) fn choice(hub: &str) -> Choice {
    Choice { hub: hub.into(), device_id: None, initial_twin_json: None, payload_json: None }
}

pub(crate) fn allocation(request: &Request) -> Allocation {
    match begin(request) {
        Step::Allocate(allocation) => allocation,
        Step::Done(decision) => panic!("decided: {decision:?}"),
    }
}

/// The final decision of `begin`, which `complete` must share.
pub(crate) fn done(request: &Request) -> Decision {
    let Step::Done(decision) = begin(request) else { panic!("wants an allocation") };
    assert_eq!(complete(request, Outcome::Assigned(choice(HUB1))), decision);
    decision
}

pub(crate) fn assigned(request: &Request, choice: Choice) -> Assignment {
    allocation(request);
    match complete(request, Outcome::Assigned(choice)) {
        Decision::Assigned(assignment) => assignment,
        other => panic!("not assigned: {other:?}"),
    }
}

/// The code and texts of a failed registration.
pub(crate) fn failed(decision: Decision) -> (u32, String, String) {
    match decision {
        Decision::Failed(error) => (error.code, error.message, error.log),
        other => panic!("not failed: {other:?}"),
    }
}
