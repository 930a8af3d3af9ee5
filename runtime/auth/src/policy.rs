//! Shared access policies and the sets that every new hub and provisioning service begins with.

use nave_model::{InvalidId, PolicyName};

use crate::key::{DEVICE_KEY_LENGTH, KeyPair};
use crate::rights::{DpsRights, Rights};

/// Most access policies of one hub (protocol notes: authorization §2); a search through them is short.
pub const MAX_POLICIES: usize = 16;

/// A named pair of keys and what they allow. `R` is [`Rights`] for a hub and [`DpsRights`] for a provisioning service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy<R> {
    /// The name that a token carries in `skn`, case-sensitive.
    pub name: PolicyName,
    /// What a token of this policy allows.
    pub rights: R,
    /// The keys that sign tokens.
    pub keys: KeyPair,
}

/// The five policies of a new hub, with new keys: `iothubowner`, `service`, `device`, `registryRead`,
/// `registryReadWrite` (protocol notes: authorization §2). `fill_random`: see [`KeyPair::generate`].
///
/// # Errors
/// None in practice: the names are valid.
pub fn default_hub_policies(mut fill_random: impl FnMut(&mut [u8])) -> Result<Vec<AccessPolicy<Rights>>, InvalidId> {
    [
        ("iothubowner", Rights::ALL),
        ("service", Rights::SERVICE_CONNECT),
        ("device", Rights::DEVICE_CONNECT),
        ("registryRead", Rights::REGISTRY_READ),
        ("registryReadWrite", Rights::REGISTRY_WRITE),
    ]
    .into_iter()
    .map(|(name, rights)| policy(name, rights, &mut fill_random))
    .collect()
}

/// The policy of a new provisioning service, with new keys: `provisioningserviceowner` (protocol notes: authorization
/// §4).
///
/// # Errors
/// None in practice: the name is valid.
pub fn default_dps_policies(mut fill_random: impl FnMut(&mut [u8])) -> Result<Vec<AccessPolicy<DpsRights>>, InvalidId> {
    Ok(vec![policy("provisioningserviceowner", DpsRights::ALL, &mut fill_random)?])
}

fn policy<R>(name: &str, rights: R, fill_random: &mut impl FnMut(&mut [u8])) -> Result<AccessPolicy<R>, InvalidId> {
    Ok(AccessPolicy { name: PolicyName::parse(name)?, rights, keys: KeyPair::generate(DEVICE_KEY_LENGTH, fill_random) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_hub_has_the_documented_policies() {
        let mut next = 0u8;
        let policies = default_hub_policies(|buffer| {
            next += 1;
            buffer.fill(next);
        })
        .unwrap();
        let table: Vec<_> = policies.iter().map(|policy| (policy.name.as_str(), policy.rights.to_string())).collect();
        assert_eq!(
            table,
            [
                ("iothubowner", "RegistryWrite, ServiceConnect, DeviceConnect".to_owned()),
                ("service", "ServiceConnect".to_owned()),
                ("device", "DeviceConnect".to_owned()),
                ("registryRead", "RegistryRead".to_owned()),
                ("registryReadWrite", "RegistryRead, RegistryWrite".to_owned()),
            ]
        );
        assert_eq!(next, 10, "every key is new");
        assert!(policies.len() <= MAX_POLICIES);
    }

    #[test]
    fn a_new_provisioning_service_has_its_owner() {
        let policies = default_dps_policies(|buffer| buffer.fill(1)).unwrap();
        assert_eq!(policies[0].name.as_str(), "provisioningserviceowner");
        assert_eq!(
            policies[0].rights.to_string(),
            "ServiceConfig, EnrollmentRead, EnrollmentWrite, DeviceConnect, RegistrationStatusRead, RegistrationStatusWrite"
        );
    }
}
