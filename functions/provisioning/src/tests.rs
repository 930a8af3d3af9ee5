//! The tables of the protocol notes, row by row.

use proptest::prelude::*;

use crate::fixtures::*;
use crate::*;

// --- admission -----------------------------------------------------------------------------------------------------------

fn refused(decision: Decision) -> (u32, String) {
    match decision {
        Decision::Refused(error) => (error.code, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn without_an_enrollment_the_answer_depends_on_the_attestation() {
    for (kind, code, message) in [
        (AttestationKind::SymmetricKey, 401_002, "Unauthorized"),
        (AttestationKind::X509, 401_002, "Invalid certificate."),
        (AttestationKind::Tpm, 404_201, "There is no enrollment for this registration id."),
    ] {
        for verdict in [Verdict::Rejected("nothing to verify against".into()), Verdict::Verified] {
            let mut request = request(|_, _| ());
            request.enrollment = None;
            request.evidence = Evidence { kind, verdict };
            assert_eq!(refused(done(&request)), (code, message.to_owned()));
        }
    }
}

#[test]
fn a_rejected_proof_is_unauthorized_and_the_reason_is_for_the_log() {
    let request = request(|request, _| request.evidence.verdict = Verdict::Rejected("signature differs".into()));
    let Decision::Refused(error) = done(&request) else { panic!() };
    assert_eq!((error.code, error.message.as_str()), (401_002, "Unauthorized"));
    assert!(error.log.contains("signature differs"), "{}", error.log);
}

#[test]
fn another_attestation_than_the_enrollments_is_unauthorized() {
    let kinds = [AttestationKind::SymmetricKey, AttestationKind::X509, AttestationKind::Tpm];
    for wanted in kinds {
        for presented in kinds {
            let request = request(|request, enrollment| {
                enrollment.attestation = wanted;
                request.evidence.kind = presented;
            });
            if wanted == presented {
                allocation(&request);
            } else {
                assert_eq!(refused(done(&request)).0, 401_002);
            }
        }
    }
}

#[test]
fn an_individual_enrollment_is_for_its_own_device() {
    let with_id = |id: &str| request(|_, enrollment| enrollment.id = id.into());
    assert_eq!(refused(done(&with_id("dev-2"))).0, 401_002);
    allocation(&with_id("DEV-1"));
}

#[test]
fn a_disabled_enrollment_ends_the_registration_of_new_and_old_devices() {
    for current in [None, Some(current())] {
        for kind in [EnrollmentKind::Individual, EnrollmentKind::Group] {
            let request = request(|request, enrollment| {
                enrollment.enabled = false;
                enrollment.kind = kind;
                request.current = current.clone();
            });
            assert_eq!(done(&request), Decision::Disabled);
        }
    }
}

#[test]
fn who_cannot_prove_anything_does_not_learn_that_the_enrollment_is_disabled() {
    let request = request(|request, enrollment| {
        enrollment.enabled = false;
        request.evidence.verdict = Verdict::Rejected("no".into());
    });
    assert_eq!(refused(done(&request)).0, 401_002);
}

// --- policy and candidates -----------------------------------------------------------------------------------------------

fn names(allocation: &Allocation) -> Vec<(&str, u32)> {
    allocation.hubs.iter().map(|hub| (hub.name.as_str(), hub.weight)).collect()
}

#[test]
fn the_enrollments_policy_comes_before_the_services() {
    for (own, expected) in [(None, "geoLatency"), (Some(""), "geoLatency"), (Some("Hashed"), "Hashed")] {
        let request = request(|request, enrollment| {
            enrollment.allocation_policy = own.map(str::to_owned);
            request.service_policy = "geoLatency".into();
        });
        assert_eq!(allocation(&request).policy, PolicyChoice::Builtin(expected.into()));
    }
}

#[test]
fn all_linked_hubs_that_take_part_are_candidates() {
    let request = request(|_, _| ());
    assert_eq!(names(&allocation(&request)), [(HUB1, 1), (HUB2, 7)]);
}

#[test]
fn the_enrollments_hubs_replace_the_linked_ones_even_those_without_allocation() {
    let request = request(|_, enrollment| {
        enrollment.hubs = vec!["OFF.Example".into(), HUB1.into(), OFF.into()];
        enrollment.legacy_hub = Some(HUB2.into());
    });
    assert_eq!(names(&allocation(&request)), [(OFF, 3), (HUB1, 1)]);
}

#[test]
fn a_hub_that_is_not_linked_fails_the_registration() {
    for legacy in [false, true] {
        let request = request(|_, enrollment| {
            if legacy {
                enrollment.legacy_hub = Some("gone.example".into());
            } else {
                enrollment.hubs = vec![HUB1.into(), "gone.example".into()];
            }
        });
        let (code, message, log) = failed(done(&request));
        assert_eq!(code, 400_208);
        assert!(!message.contains("gone") && log.contains("gone.example"), "{message} / {log}");
    }
}

#[test]
fn without_any_hub_there_is_nothing_to_assign() {
    let request = request(|request, _| request.linked_hubs.retain(|hub| hub.name == OFF));
    assert_eq!(failed(done(&request)).0, 400_208);
}

#[test]
fn static_needs_exactly_one_hub_in_the_enrollment() {
    for (hubs, good) in [(vec![], false), (vec![HUB2], true), (vec![HUB1, HUB2], false), (vec![HUB1, HUB1], true)] {
        for service in [false, true] {
            let request = request(|request, enrollment| {
                enrollment.hubs = hubs.iter().map(|hub| (*hub).to_owned()).collect();
                match service {
                    true => request.service_policy = "Static".into(),
                    false => enrollment.allocation_policy = Some("static".into()),
                }
            });
            if good {
                assert_eq!(allocation(&request).hubs.len(), 1);
            } else {
                assert_eq!(failed(done(&request)).0, 400_208, "{hubs:?}");
            }
        }
    }
}

#[test]
fn one_linked_hub_is_not_a_static_hub() {
    let request = request(|request, _| {
        request.service_policy = "static".into();
        request.linked_hubs.truncate(1);
    });
    assert_eq!(failed(done(&request)).0, 400_208);
}

#[test]
fn a_legacy_hub_is_static_allocation() {
    let request = request(|_, enrollment| enrollment.legacy_hub = Some("HUB2.example".into()));
    let allocation = allocation(&request);
    assert_eq!(allocation.policy, PolicyChoice::Builtin("static".into()));
    assert_eq!(names(&allocation), [(HUB2, 7)]);
}

#[test]
fn custom_needs_a_web_hook_of_the_enrollment() {
    let request = custom(|_, enrollment| enrollment.allocation_policy = Some("Custom".into()));
    assert_eq!(allocation(&request).policy, PolicyChoice::Custom(webhook()));
    for webhook in [None, Some(Webhook { url: String::new(), api_version: None })] {
        let request = custom(|_, enrollment| enrollment.webhook = webhook);
        assert_eq!(failed(done(&request)).0, 400_207);
    }
}

#[test]
fn the_service_cannot_be_custom() {
    let request = request(|request, enrollment| {
        request.service_policy = "custom".into();
        enrollment.webhook = Some(webhook());
    });
    assert_eq!(failed(done(&request)).0, 400_208);
}

#[test]
fn the_policy_learns_the_present_place_unless_registration_is_forced() {
    for force in [false, true] {
        let request = request(|request, _| {
            request.registration_id = "DEV-1".into();
            request.current = Some(current());
            request.force = force;
        });
        let allocation = allocation(&request);
        assert_eq!(allocation.current, (!force).then(|| address(HUB1, "dev-1")));
        assert_eq!(allocation.registration_id, "dev-1");
    }
}

// --- assignment ----------------------------------------------------------------------------------------------------------

#[test]
fn the_first_assignment_creates_the_device() {
    let request = request(|_, enrollment| enrollment.iot_edge = true);
    let expected = Assignment {
        device: address(HUB2, "dev-1"),
        substatus: Substatus::InitialAssignment,
        data: DeviceData::Create,
        initial_twin_json: Some(TWIN.into()),
        iot_edge: true,
        remove: None,
        payload_json: None,
    };
    assert_eq!(assigned(&request, choice("HUB2.EXAMPLE")), expected);
}

#[test]
fn the_device_id_is_the_enrollments_or_the_registration_id() {
    for (kind, wanted, expected) in [
        (EnrollmentKind::Individual, None, "dev-1"),
        (EnrollmentKind::Individual, Some(""), "dev-1"),
        (EnrollmentKind::Individual, Some("Pump"), "Pump"),
        (EnrollmentKind::Group, None, "dev-1"),
        (EnrollmentKind::Group, Some("Pump"), "dev-1"),
    ] {
        let request = request(|request, enrollment| {
            request.registration_id = "Dev-1".into();
            enrollment.kind = kind;
            enrollment.device_id = wanted.map(str::to_owned);
        });
        assert_eq!(assigned(&request, choice(HUB1)).device, address(HUB1, expected));
    }
}

/// Policy, chosen hub, and what must follow for a device in [`HUB1`].
#[test]
fn every_row_of_the_reprovisioning_table() {
    let migrated = DeviceData::Migrate(Migration { source: address(HUB1, "dev-1"), initial_twin_wins: false });
    for (policy, hub, substatus, data, removed) in [
        (Some(MIGRATE), "Hub1.example", Substatus::ReprovisionedToInitialAssignment, DeviceData::Keep, false),
        (Some(MIGRATE), HUB2, Substatus::DeviceDataMigrated, migrated.clone(), true),
        (Some(RESET), "Hub1.example", Substatus::DeviceDataReset, DeviceData::Reset, false),
        (Some(RESET), HUB2, Substatus::DeviceDataReset, DeviceData::Reset, true),
        (None, HUB1, Substatus::ReprovisionedToInitialAssignment, DeviceData::Keep, false),
        (None, HUB2, Substatus::DeviceDataMigrated, migrated, true),
    ] {
        let request = request(|request, enrollment| {
            request.current = Some(current());
            enrollment.reprovision = policy;
        });
        let assignment = assigned(&request, choice(hub));
        assert_eq!(assignment.device, address(&hub.to_lowercase(), "dev-1"));
        assert_eq!((assignment.substatus, assignment.data), (substatus, data), "{policy:?} {hub}");
        assert_eq!(assignment.remove, removed.then(|| address(HUB1, "dev-1")));
        assert_eq!(assignment.initial_twin_json.as_deref(), Some(TWIN));
        assert_eq!(assignment.payload_json, None, "the old payload belongs to the old decision");
    }
}

#[test]
fn a_hub_on_record_in_another_case_is_the_same_hub() {
    let request = request(|request, _| {
        request.current = Some(Registration { device: address("HUB1.Example", "dev-1"), ..current() });
    });
    let assignment = assigned(&request, choice(HUB1));
    assert_eq!((assignment.data, assignment.remove), (DeviceData::Keep, None));
}

fn stays(request: &Request) {
    let expected = Assignment {
        device: address(HUB1, "dev-1"),
        substatus: Substatus::InitialAssignment,
        data: DeviceData::Keep,
        initial_twin_json: Some(TWIN.into()),
        iot_edge: false,
        remove: None,
        payload_json: current().payload_json,
    };
    assert_eq!(done(request), Decision::Assigned(expected));
}

#[test]
fn never_means_that_the_existing_assignment_is_returned() {
    for migrate_device_data in [false, true] {
        stays(&custom(|request, enrollment| {
            request.current = Some(current());
            // The policy would not even be asked, so nothing about it can be wrong.
            request.linked_hubs.clear();
            enrollment.webhook = None;
            enrollment.device_id = Some("renamed".into());
            enrollment.reprovision = Some(ReprovisionPolicy { migrate_device_data, ..NEVER });
        }));
    }
}

#[test]
fn never_does_not_stop_the_first_assignment() {
    let request = request(|_, enrollment| enrollment.reprovision = Some(NEVER));
    assert_eq!(assigned(&request, choice(HUB1)).substatus, Substatus::InitialAssignment);
}

#[test]
fn only_old_devices_without_a_policy_keep_their_hub_for_ever() {
    let with = |version: Option<&str>, policy| {
        request(|request, enrollment| {
            request.current = Some(current());
            request.api_version = version.map(str::to_owned);
            enrollment.reprovision = policy;
        })
    };
    for version in ["2018-04-01", "2017-11-15", "2018-04-01-preview"] {
        stays(&with(Some(version), None));
        allocation(&with(Some(version), Some(MIGRATE)));
    }
    for version in [None, Some(""), Some("2018-09-01-preview"), Some("2019-03-31"), Some("next"), Some("next-version")]
    {
        allocation(&with(version, None));
    }
}

#[test]
fn force_chooses_again_and_keeps_the_data_unless_the_policy_resets() {
    for (policy, hub, substatus) in [
        (NEVER, HUB2, Substatus::DeviceDataMigrated),
        (NEVER, HUB1, Substatus::ReprovisionedToInitialAssignment),
        (MIGRATE, HUB2, Substatus::DeviceDataMigrated),
        (RESET, HUB1, Substatus::DeviceDataReset),
    ] {
        let request = request(|request, enrollment| {
            request.current = Some(current());
            request.force = true;
            enrollment.reprovision = Some(policy);
        });
        assert_eq!(assigned(&request, choice(hub)).substatus, substatus, "{policy:?} {hub}");
    }
}

#[test]
fn a_new_device_id_in_the_same_hub_is_a_move() {
    for (policy, substatus) in [(MIGRATE, Substatus::DeviceDataMigrated), (RESET, Substatus::DeviceDataReset)] {
        let request = request(|request, enrollment| {
            request.current = Some(current());
            enrollment.device_id = Some("DEV-1".into());
            enrollment.reprovision = Some(policy);
        });
        let assignment = assigned(&request, choice(HUB1));
        assert_eq!(assignment.device, address(HUB1, "DEV-1"));
        assert_eq!(assignment.remove, Some(address(HUB1, "dev-1")));
        assert_eq!(assignment.substatus, substatus);
    }
}

// --- custom policies -----------------------------------------------------------------------------------------------------

const OTHER_TWIN: &str = r#"{"tags":{"from":"policy"}}"#;

#[test]
fn a_policys_twin_wins_over_the_enrollments_and_over_what_migrates() {
    let chosen = |hub| Choice { initial_twin_json: Some(OTHER_TWIN.into()), ..choice(hub) };
    for (current_hub, policy, hub, data) in [
        (None, MIGRATE, HUB1, DeviceData::Create),
        (Some(HUB1), RESET, HUB1, DeviceData::Reset),
        (Some(HUB1), RESET, HUB2, DeviceData::Reset),
        (Some(HUB1), MIGRATE, HUB1, DeviceData::Keep),
        (
            Some(HUB1),
            MIGRATE,
            HUB2,
            DeviceData::Migrate(Migration { source: address(HUB1, "dev-1"), initial_twin_wins: true }),
        ),
    ] {
        let request = custom(|request, enrollment| {
            request.current = current_hub.map(|_| current());
            enrollment.reprovision = Some(policy);
        });
        let assignment = assigned(&request, chosen(hub));
        assert_eq!(assignment.data, data);
        assert_eq!(assignment.initial_twin_json.as_deref(), Some(OTHER_TWIN));
    }
}

#[test]
fn a_policy_may_choose_the_device_id_and_give_the_device_a_payload() {
    for kind in [EnrollmentKind::Individual, EnrollmentKind::Group] {
        let request = custom(|_, enrollment| enrollment.kind = kind);
        let mut choice = choice(HUB2);
        choice.device_id = Some("Line-3".into());
        choice.payload_json = Some("{\"welcome\":true}".into());
        let assignment = assigned(&request, choice);
        assert_eq!(assignment.device, address(HUB2, "Line-3"));
        assert_eq!(assignment.payload_json.as_deref(), Some("{\"welcome\":true}"));
    }
}

#[test]
fn what_a_custom_policy_returns_is_checked() {
    let base = || choice(HUB1);
    for (choice, code, hint) in [
        (choice(""), 400_208, "names no hub"),
        (choice("elsewhere.example"), 400_207, "elsewhere.example"),
        (choice(OFF), 400_207, OFF),
        (Choice { device_id: Some("a b".into()), ..base() }, 400_207, "device id"),
        (Choice { device_id: Some(String::new()), ..base() }, 400_207, "device id"),
        (Choice { initial_twin_json: Some("{".into()), ..base() }, 400_207, "initial twin"),
        (Choice { initial_twin_json: Some(r#"{"tags":{"a.b":1}}"#.into()), ..base() }, 400_207, "initial twin"),
        (Choice { payload_json: Some("{\"a\":".into()), ..base() }, 400_207, "payload"),
        (Choice { payload_json: Some(" ".repeat(65_537)), ..base() }, 400_207, "payload"),
    ] {
        let (got, message, log) = failed(complete(&custom(|_, _| ()), Outcome::Assigned(choice)));
        assert_eq!(got, code, "{log}");
        assert!(log.contains(hint), "{log}");
        assert!(message.starts_with("Custom allocation") && !message.contains(OFF), "{message}");
    }
}

#[test]
fn a_built_in_policy_that_misbehaves_is_our_fault() {
    let outcome = Outcome::Assigned(choice("elsewhere.example"));
    assert_eq!(failed(complete(&request(|_, _| ()), outcome)).0, 500_001);
}

#[test]
fn a_custom_refusal_reaches_the_device_and_a_built_in_one_the_log() {
    let outcome = || Outcome::Refused("not in this region".into());
    let (code, message, _) = failed(complete(&custom(|_, _| ()), outcome()));
    assert_eq!((code, message.as_str()), (400_207, "not in this region"));
    let (code, message, log) = failed(complete(&request(|_, _| ()), outcome()));
    assert_eq!(code, 400_208);
    assert!(!message.contains("region") && log.contains("region"), "{message} / {log}");
    let (_, message, _) = failed(complete(&custom(|_, _| ()), Outcome::Refused(String::new())));
    assert_eq!(message, "Custom allocation refused the device.");
}

#[test]
fn a_wait_is_bounded() {
    for (asked, told) in [(0, 1), (5, 5), (3_600, 3_600), (u32::MAX, 3_600)] {
        assert_eq!(complete(&custom(|_, _| ()), Outcome::RetryAfter(asked)), Decision::RetryAfter(told));
    }
}

#[test]
fn every_way_not_to_answer() {
    for (cause, code, message) in [
        (FailureCause::Status(400), 400_207, "Custom allocation failed with status code: 400"),
        (FailureCause::Status(500), 400_207, "Custom allocation failed with status code: 500"),
        (FailureCause::Status(401), 400_209, "Custom allocation failed with status code: 401"),
        (FailureCause::Status(403), 400_209, "Custom allocation failed with status code: 403"),
        (FailureCause::BadAnswer, 400_207, "Custom allocation failed: its answer is not valid."),
        (FailureCause::TimedOut, 400_207, "Custom allocation failed: it did not answer in time."),
        (FailureCause::Unavailable, 400_207, "Custom allocation failed: it cannot be reached."),
        (FailureCause::UnknownPolicy, 400_207, "Custom allocation failed: there is no such policy."),
    ] {
        let outcome = || Outcome::Failed(AllocationFailure { cause, log: "policy p@3: secret".into() });
        let custom = failed(complete(&custom(|_, _| ()), outcome()));
        assert_eq!(custom, (code, message.to_owned(), "policy p@3: secret".to_owned()));
        let builtin = failed(complete(&request(|_, _| ()), outcome()));
        assert_eq!(builtin, (500_001, "Allocation failed.".to_owned(), "policy p@3: secret".to_owned()));
    }
}

// --- what holds for every request ----------------------------------------------------------------------------------------

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
