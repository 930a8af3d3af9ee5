//! Edge devices as far as identities go: the modules that they are born with, and the scopes of parents and children
//! (protocol notes: REST §2.3 and §2.4).

use nave_model::{Authentication, DeviceRecord, Identity, ModuleId};

use crate::error::HubError;
use crate::hub::Hub;
use crate::registry::argument;

/// The modules of every edge device. They come and go with `capabilities.iotEdge`.
const SYSTEM_MODULES: [&str; 2] = ["$edgeAgent", "$edgeHub"];

/// `managedBy` of the system modules.
const MANAGED_BY_EDGE: &str = "iotEdge";

/// How every scope begins.
const SCOPE_PREFIX: &str = "ms-azure-iot-edge://";

/// Longest scope: the prefix, a device id and the ticks, with room. A longer one is refused.
const MAX_SCOPE_LENGTH: usize = 256;

/// Most parents of a device; the cloud service has one. More are refused.
const MAX_PARENTS: usize = 1;

/// Scopes as a service sends them; empty text counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeInput {
    /// `deviceScope`.
    pub device_scope: Option<String>,
    /// `parentScopes`.
    pub parent_scopes: Vec<String>,
}

impl ScopeInput {
    fn scope(&self) -> Option<&str> {
        self.device_scope.as_deref().filter(|scope| !scope.is_empty())
    }

    fn check(&self) -> Result<(), HubError> {
        if self.parent_scopes.len() > MAX_PARENTS {
            return Err(argument(format!("parentScopes has more than {MAX_PARENTS} element.")));
        }
        let bad = |scope: &str| scope.len() > MAX_SCOPE_LENGTH || !scope.starts_with(SCOPE_PREFIX);
        if self.scope().into_iter().chain(self.parent_scopes.iter().map(String::as_str)).any(bad) {
            return Err(argument(format!(
                "InvalidDeviceScope: a scope begins with {SCOPE_PREFIX} and has at most {MAX_SCOPE_LENGTH} characters."
            )));
        }
        Ok(())
    }
}

/// Gives a new device its scopes. An edge device gets one of its own whatever was sent; any other device becomes the child
/// of the edge device whose scope was sent.
///
/// # Errors
///
/// 400 for what is no scope.
pub(crate) fn first_scopes(record: &mut DeviceRecord, input: &ScopeInput) -> Result<(), HubError> {
    input.check()?;
    if record.iot_edge {
        record.device_scope = Some(format!("{SCOPE_PREFIX}{}-{}", record.device_id, record.generation_id));
        record.parent_scopes.clone_from(&input.parent_scopes);
    } else {
        attach(record, input);
    }
    Ok(())
}

/// Changes the scopes of a device that becomes (or stays) an edge device, or not.
///
/// # Errors
///
/// 400 for what is no scope, and for another scope than its own from an edge device.
pub(crate) fn next_scopes(record: &mut DeviceRecord, iot_edge: bool, input: &ScopeInput) -> Result<(), HubError> {
    input.check()?;
    match (record.iot_edge, iot_edge) {
        (true, true) => {
            // One that the provisioning service made an edge device has none until its first update.
            if record.device_scope.is_some() && input.scope() != record.device_scope.as_deref() {
                return Err(argument(
                    "Device scope is immutable: an edge device is updated with the deviceScope that it has.",
                ));
            }
            record.device_scope.get_or_insert_with(|| format!("{SCOPE_PREFIX}{}-", record.device_id));
            record.parent_scopes.clone_from(&input.parent_scopes);
        }
        (false, true) if input.scope().is_some() => {
            return Err(argument(
                "InvalidDeviceScope: a device becomes an edge device with an empty deviceScope; it keeps its parent.",
            ));
        }
        (false, true) => record.device_scope = Some(format!("{SCOPE_PREFIX}{}-", record.device_id)),
        (true, false) => {
            record.device_scope = None;
            record.parent_scopes.clear();
        }
        (false, false) => attach(record, input),
    }
    record.iot_edge = iot_edge;
    Ok(())
}

fn attach(record: &mut DeviceRecord, input: &ScopeInput) {
    record.device_scope = input.scope().map(str::to_owned);
    record.parent_scopes = record.device_scope.clone().into_iter().collect();
}

impl Hub {
    /// The records of the system modules of an edge device. Nothing is stored yet.
    pub(crate) fn system_modules(&self, device: &Identity) -> Result<Vec<DeviceRecord>, HubError> {
        let records = SYSTEM_MODULES.iter().map(|name| {
            let module = ModuleId::parse(name).map_err(HubError::internal)?;
            let identity = Identity::module(device.device_id().clone(), module);
            let mut record = self.new_record(&identity, Authentication::None, None)?;
            record.managed_by = Some(MANAGED_BY_EDGE.to_owned());
            Ok(record)
        });
        records.collect()
    }
}

#[cfg(test)]
mod tests {
    use nave_model::{Timestamp, TwinRecord};

    use super::*;

    fn device(iot_edge: bool, input: &ScopeInput) -> Result<DeviceRecord, HubError> {
        let identity = Identity::parse("d").unwrap();
        let twin = TwinRecord::default();
        let now = Timestamp::default();
        let mut record = DeviceRecord::new(&identity, "7".into(), Authentication::CertificateAuthority, twin, now);
        record.iot_edge = iot_edge;
        first_scopes(&mut record, input).map(|()| record)
    }

    fn input(scope: &str, parents: &[&str]) -> ScopeInput {
        let parent_scopes = parents.iter().map(|&scope| scope.to_owned()).collect();
        ScopeInput { device_scope: Some(scope.to_owned()), parent_scopes }
    }

    const PARENT: &str = "ms-azure-iot-edge://p-1";

    #[test]
    fn a_leaf_is_attached_by_its_parents_scope_and_by_nothing_else() {
        let mut leaf = device(false, &input(PARENT, &[])).unwrap();
        assert_eq!((leaf.device_scope.as_deref(), leaf.parent_scopes.as_slice()), (Some(PARENT), &[PARENT.into()][..]));
        next_scopes(&mut leaf, false, &input("", &[PARENT])).unwrap();
        assert_eq!((leaf.device_scope, leaf.parent_scopes), (None, Vec::new()));
    }

    #[test]
    fn an_edge_device_has_a_scope_of_its_own() {
        let mut edge = device(true, &input(PARENT, &[PARENT])).unwrap();
        assert_eq!(edge.device_scope.as_deref(), Some("ms-azure-iot-edge://d-7"));
        assert_eq!(edge.parent_scopes, [PARENT]);
        for other in ["", PARENT] {
            assert!(next_scopes(&mut edge, true, &input(other, &[])).is_err(), "{other}");
        }
        next_scopes(&mut edge, true, &input("ms-azure-iot-edge://d-7", &[])).unwrap();
        assert!(edge.parent_scopes.is_empty());
    }

    #[test]
    fn devices_become_edge_devices_and_back() {
        let mut leaf = device(false, &input(PARENT, &[])).unwrap();
        assert!(next_scopes(&mut leaf, true, &input(PARENT, &[])).is_err());
        next_scopes(&mut leaf, true, &input("", &[])).unwrap();
        assert_eq!(leaf.device_scope.as_deref(), Some("ms-azure-iot-edge://d-"));
        assert_eq!(leaf.parent_scopes, [PARENT]);
        next_scopes(&mut leaf, false, &input(PARENT, &[])).unwrap();
        assert_eq!((leaf.iot_edge, leaf.device_scope, leaf.parent_scopes.len()), (false, None, 0));
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for bad in [input("https://x", &[]), input("", &["x"]), input("", &[PARENT, PARENT])] {
            assert!(device(true, &bad).is_err(), "{bad:?}");
            assert!(device(false, &bad).is_err(), "{bad:?}");
        }
    }
}
