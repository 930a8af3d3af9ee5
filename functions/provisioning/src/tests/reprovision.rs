//! First and later assignments: the table of re-provisioning, row by row.

use crate::fixtures::*;
use crate::*;

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
