//! What holds for every request.

use proptest::prelude::*;

use crate::fixtures::*;
use crate::*;

/// Names that collide, differ in case, or are not linked.
fn hub_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a.example", "A.Example", "b.example", "c.example", "gone.example", ""])
        .prop_map(str::to_owned)
}

prop_compose! {
    fn any_enrollment()(
        group: bool, enabled: bool, x509: bool, edge: bool,
        id in prop::sample::select(vec!["dev-1", "DEV-1", "other"]),
        device_id in prop::option::of("[A-Za-z]{0,6}"),
        allocation_policy in prop::option::of(prop::sample::select(vec!["hashed", "STATIC", "custom", "geoLatency", "new"])),
        hubs in prop::collection::vec(hub_name(), 0..4),
        legacy_hub in prop::option::of(hub_name()),
        hook: bool,
        reprovision in prop::option::of((any::<bool>(), any::<bool>())),
    ) -> Enrollment {
        Enrollment {
            kind: if group { EnrollmentKind::Group } else { EnrollmentKind::Individual },
            id: id.into(),
            enabled,
            attestation: if x509 { AttestationKind::X509 } else { AttestationKind::SymmetricKey },
            device_id,
            allocation_policy: allocation_policy.map(str::to_owned),
            hubs,
            legacy_hub,
            webhook: hook.then(webhook),
            reprovision: reprovision.map(|(update_hub_assignment, migrate_device_data)| {
                ReprovisionPolicy { update_hub_assignment, migrate_device_data }
            }),
            initial_twin_json: None,
            iot_edge: edge,
        }
    }
}

prop_compose! {
    fn any_request()(
        enrollment in prop::option::weighted(0.9, any_enrollment()),
        x509: bool, verified in prop::bool::weighted(0.9), force: bool,
        current in prop::option::of((hub_name(), "[a-z]{1,3}|dev-1")),
        linked_hubs in prop::collection::vec((hub_name(), prop::option::of(0_u32..1_001), any::<bool>()), 0..4),
        service_policy in prop::sample::select(vec!["hashed", "static", "custom"]),
        api_version in prop::option::of("\\PC{0,12}|2018-0[1-9]-01"),
    ) -> Request {
        Request {
            registration_id: "dev-1".into(),
            evidence: Evidence {
                kind: if x509 { AttestationKind::X509 } else { AttestationKind::SymmetricKey },
                verdict: if verified { Verdict::Verified } else { Verdict::Rejected("no".into()) },
            },
            enrollment,
            current: current.map(|(hub, device_id)| Registration {
                device: DeviceAddress { hub, device_id },
                substatus: Substatus::DeviceDataReset,
                payload_json: None,
            }),
            linked_hubs: linked_hubs.into_iter().map(|(name, weight, apply)| linked(&name, weight, apply)).collect(),
            service_policy: service_policy.into(),
            force,
            api_version,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nobody_gets_in_unproven_or_disabled(request in any_request()) {
        let let_in = matches!(begin(&request), Step::Allocate(_) | Step::Done(Decision::Assigned(_) | Decision::Failed(_)));
        if let_in {
            prop_assert_eq!(&request.evidence.verdict, &Verdict::Verified);
            let enrollment = request.enrollment.as_ref().unwrap();
            prop_assert!(enrollment.enabled);
            prop_assert_eq!(enrollment.attestation, request.evidence.kind);
        }
    }

    #[test]
    fn candidates_are_linked_and_distinct_and_assignments_are_sound(request in any_request(), hub in hub_name()) {
        let decision = complete(&request, Outcome::Assigned(choice(&hub)));
        let allocation = match begin(&request) {
            Step::Done(decided) => {
                prop_assert_eq!(decision, decided);
                return Ok(());
            }
            Step::Allocate(allocation) => allocation,
        };
        prop_assert!(!allocation.hubs.is_empty());
        for (n, hub) in allocation.hubs.iter().enumerate() {
            prop_assert!(request.linked_hubs.iter().any(|linked| linked.name == hub.name));
            prop_assert!(!allocation.hubs[..n].iter().any(|other| other.name.eq_ignore_ascii_case(&hub.name)));
        }
        let candidate = allocation.hubs.iter().find(|candidate| candidate.name.eq_ignore_ascii_case(&hub));
        match (decision, candidate) {
            (Decision::Assigned(assignment), Some(candidate)) => {
                prop_assert_eq!(&assignment.device.hub, &candidate.name);
                prop_assert!(!assignment.device.device_id.is_empty());
                if let Some(removed) = &assignment.remove {
                    prop_assert_eq!(removed, &request.current.as_ref().unwrap().device);
                    let same_hub = removed.hub.eq_ignore_ascii_case(&assignment.device.hub);
                    prop_assert!(!(same_hub && removed.device_id == assignment.device.device_id));
                }
                prop_assert_eq!(assignment.substatus == Substatus::InitialAssignment, request.current.is_none());
            }
            (Decision::Failed(_), None) => {}
            (decision, _) => prop_assert!(false, "{:?}", decision),
        }
    }
}
