//! What happens to a device that registers again.
//!
//! Source: protocol notes, Provisioning (service) §6; for enrollments without a policy also Azure DPS documentation, "Device
//! reprovisioning concepts", "Managing backwards compatibility".

use std::ops::ControlFlow::{self, Break, Continue};

use crate::{
    Assignment, Decision, DeviceAddress, DeviceData, Enrollment, Migration, Registration, ReprovisionPolicy, Request,
    Substatus,
};

/// The last protocol version of devices that expect to keep their hub for ever. Versions are dates, so they compare as text.
const LAST_STICKY_API_VERSION: &str = "2018-04-01";

/// Whether and how a hub is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode<'a> {
    /// The device is not assigned.
    First,
    /// It is, and its twin follows it to where it goes.
    Migrate(&'a Registration),
    /// It is, and starts again with its initial twin wherever it goes.
    Reset(&'a Registration),
}

/// How to go on, or the final decision that the existing assignment stays.
pub(crate) fn mode<'a>(request: &'a Request, enrollment: &Enrollment) -> ControlFlow<Decision, Mode<'a>> {
    let Some(current) = &request.current else {
        return Continue(Mode::First);
    };
    match effective(request, enrollment) {
        ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: true } => {
            Continue(Mode::Migrate(current))
        }
        ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: false } => Continue(Mode::Reset(current)),
        // Force overrides the stay, but nobody asked to throw the twin away.
        ReprovisionPolicy { update_hub_assignment: false, .. } if request.force => Continue(Mode::Migrate(current)),
        ReprovisionPolicy { update_hub_assignment: false, .. } => Break(Decision::Assigned(Assignment {
            device: current.device.clone(),
            substatus: current.substatus,
            data: DeviceData::Keep,
            initial_twin_json: enrollment.initial_twin_json.clone(),
            iot_edge: enrollment.iot_edge,
            remove: None,
            payload_json: current.payload_json.clone(),
        })),
    }
}

fn effective(request: &Request, enrollment: &Enrollment) -> ReprovisionPolicy {
    enrollment.reprovision.unwrap_or_else(|| {
        let version = request.api_version.as_deref().and_then(|version| version.get(..LAST_STICKY_API_VERSION.len()));
        let sticky = version.is_some_and(|version| version <= LAST_STICKY_API_VERSION);
        ReprovisionPolicy { update_hub_assignment: !sticky, migrate_device_data: true }
    })
}

/// Where a device goes, and with what.
pub(crate) struct Placement {
    pub(crate) device: DeviceAddress,
    /// The twin that the policy returned. It outranks the enrollment's, and what would migrate.
    pub(crate) policy_twin_json: Option<String>,
    pub(crate) payload_json: Option<String>,
}

/// What has to be done so that the device is where the policy placed it.
pub(crate) fn assign(mode: Mode<'_>, enrollment: &Enrollment, placement: Placement) -> Assignment {
    let Placement { device, policy_twin_json, payload_json } = placement;
    let moved_from = |current: &Registration| (!same(&current.device, &device)).then(|| current.device.clone());
    let (substatus, data, remove) = match mode {
        Mode::First => (Substatus::InitialAssignment, DeviceData::Create, None),
        Mode::Reset(current) => (Substatus::DeviceDataReset, DeviceData::Reset, moved_from(current)),
        Mode::Migrate(current) => match moved_from(current) {
            // Without a move nothing migrates, so there is nothing for the policy's twin to win over: applying it would undo
            // the back end's changes at every restart of the device.
            None => (Substatus::ReprovisionedToInitialAssignment, DeviceData::Keep, None),
            Some(source) => {
                let migration = Migration { source: source.clone(), initial_twin_wins: policy_twin_json.is_some() };
                (Substatus::DeviceDataMigrated, DeviceData::Migrate(migration), Some(source))
            }
        },
    };
    Assignment {
        device,
        substatus,
        data,
        initial_twin_json: policy_twin_json.or_else(|| enrollment.initial_twin_json.clone()),
        iot_edge: enrollment.iot_edge,
        remove,
        payload_json,
    }
}

/// Host names ignore case, device ids do not.
fn same(a: &DeviceAddress, b: &DeviceAddress) -> bool {
    a.hub.eq_ignore_ascii_case(&b.hub) && a.device_id == b.device_id
}
