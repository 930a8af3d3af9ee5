//! Which policy decides, and among which hubs.

use crate::fixtures::*;
use crate::*;

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
