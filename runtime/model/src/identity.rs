//! Devices and modules as one kind of thing.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::id::{DeviceId, InvalidId, ModuleId, serde_as_text};

/// Who is talking or being talked to: a device, or a module on a device.
///
/// The text form is `device` or `device/module`; ids cannot contain `/`, so it is unambiguous. Identities sort by
/// device, the device itself before its modules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    device: DeviceId,
    module: Option<ModuleId>,
}

impl Identity {
    /// The identity of a device itself.
    pub const fn device(device: DeviceId) -> Self {
        Self { device, module: None }
    }

    /// The identity of a module on a device.
    pub const fn module(device: DeviceId, module: ModuleId) -> Self {
        Self { device, module: Some(module) }
    }

    /// The identity of `device`, or of the module on it if there is one.
    pub const fn new(device: DeviceId, module: Option<ModuleId>) -> Self {
        Self { device, module }
    }

    /// Reads `device` or `device/module`.
    ///
    /// # Errors
    /// [`InvalidId`] of the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Ok(match text.split_once('/') {
            None => Self::device(DeviceId::parse(text)?),
            Some((device, module)) => Self::module(DeviceId::parse(device)?, ModuleId::parse(module)?),
        })
    }

    /// The device, also for a module.
    pub const fn device_id(&self) -> &DeviceId {
        &self.device
    }

    /// The module, if it is one.
    pub const fn module_id(&self) -> Option<&ModuleId> {
        self.module.as_ref()
    }

    /// Whether this is a module.
    pub const fn is_module(&self) -> bool {
        self.module.is_some()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.device.as_str())?;
        match &self.module {
            None => Ok(()),
            Some(module) => write!(formatter, "/{module}"),
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<DeviceId> for Identity {
    fn from(device: DeviceId) -> Self {
        Self::device(device)
    }
}

serde_as_text!(Identity, "device id or device/module pair");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identities_are_written_as_paths_and_sort_by_device() {
        let module = Identity::parse("dev/mod").unwrap();
        assert_eq!(module.device_id().as_str(), "dev");
        assert_eq!(module.module_id().map(ModuleId::as_str), Some("mod"));
        assert_eq!(module.to_string(), "dev/mod");
        let device = Identity::parse("dev").unwrap();
        assert!(!device.is_module() && device < module && module < Identity::parse("dev1").unwrap());
        for bad in ["", "/", "dev/", "/mod", "a/b/c"] {
            assert!(Identity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_is_the_text() {
        let identity: Identity = serde_json::from_str(r#""dev/mod""#).unwrap();
        assert_eq!(serde_json::to_string(&identity).unwrap(), r#""dev/mod""#);
        assert!(serde_json::from_str::<Identity>(r#""dev/""#).is_err());
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back(text in "[a-z:$]{0,4}/?[a-z:$]{0,4}|.{0,140}") {
            if let Ok(identity) = Identity::parse(&text) {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
