//! What a hub generates once and keeps: the keys of the access policies and the id scope.
//!
//! They are in `settings.json` in the data directory, readable by its owner only. It is a file and not part of the store so
//! that the commands of this program can show connection strings without asking the server for keys.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use nave_auth::{AccessPolicy, DpsRights, KeyPair, Rights, default_dps_policies, default_hub_policies};
use nave_env::Env;
use nave_model::{HubId, IdScope, PolicyName, SecretText};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files;

const FILE_NAME: &str = "settings.json";
const VERSION: u32 = 1;

/// The settings. No `Debug`: they are keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    version: u32,
    id_scope: String,
    provisioning_policies: Vec<Policy>,
    hub_policies: BTreeMap<String, Vec<Policy>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    name: String,
    rights: String,
    primary_key: SecretText,
    secondary_key: SecretText,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The operating system refused.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// The content is not what this program wrote.
    #[error("{} is damaged: {}. Restore it from a backup; without it every key of this hub is new", .0.display(), .1)]
    Damaged(PathBuf, String),
    /// The platform gave a name that is not one; never in practice.
    #[error("cannot generate access policies: {0}")]
    Generate(#[from] nave_model::InvalidId),
}

impl Settings {
    /// Reads the settings in `data_dir`, adds what `hubs` lack, and writes them back if they changed.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub(crate) fn open(data_dir: &Path, hubs: &[HubId], env: &dyn Env) -> Result<Self, SettingsError> {
        let random = |buffer: &mut [u8]| env.fill_random(buffer);
        let existing = Self::read(data_dir)?;
        let mut changed = existing.is_none();
        let mut settings = match existing {
            Some(settings) => settings,
            None => Self {
                version: VERSION,
                id_scope: generate_id_scope(random),
                provisioning_policies: default_dps_policies(random)?.iter().map(Policy::of).collect(),
                hub_policies: BTreeMap::new(),
            },
        };
        for hub in hubs {
            if !settings.hub_policies.contains_key(hub.as_str()) {
                let policies = default_hub_policies(random)?.iter().map(Policy::of).collect();
                settings.hub_policies.insert(hub.as_str().to_owned(), policies);
                changed = true;
            }
        }
        if changed {
            let path = data_dir.join(FILE_NAME);
            let write = || {
                let text = Zeroizing::new(serde_json::to_vec_pretty(&settings)?);
                files::replace(&path, &text, files::OWNER_ONLY)
            };
            write().map_err(|error| SettingsError::Io(path.clone(), error))?;
        }
        Ok(settings)
    }

    /// Reads the settings in `data_dir`, if there are any.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>, SettingsError> {
        let path = data_dir.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SettingsError::Io(path, error)),
        };
        // Everything in it is checked now, so that damage is reported with its file.
        Self::of_bytes(&text).map(Some).map_err(|why| SettingsError::Damaged(path, why))
    }

    /// Reads the file's content; an error says why that is not possible.
    pub(crate) fn of_bytes(text: &[u8]) -> Result<Self, String> {
        let settings: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if settings.version != VERSION {
            return Err(format!("it has version {}, this program knows {VERSION}", settings.version));
        }
        settings.provisioning_policies()?;
        for hub in settings.hub_policies.keys() {
            settings.hub_policies(hub)?;
        }
        settings.id_scope()?;
        Ok(settings)
    }

    /// The id scope that was generated for this data directory.
    pub(crate) fn id_scope(&self) -> Result<IdScope, String> {
        IdScope::parse(&self.id_scope).map_err(|error| error.to_string())
    }

    /// The policies of a hub; none for a hub that is not known.
    pub(crate) fn hub_policies(&self, hub: &str) -> Result<Vec<AccessPolicy<Rights>>, String> {
        self.hub_policies.get(hub).into_iter().flatten().map(Policy::read).collect()
    }

    /// The policies of the provisioning service.
    pub(crate) fn provisioning_policies(&self) -> Result<Vec<AccessPolicy<DpsRights>>, String> {
        self.provisioning_policies.iter().map(Policy::read).collect()
    }
}

impl Policy {
    fn of<R: std::fmt::Display>(policy: &AccessPolicy<R>) -> Self {
        Self {
            name: policy.name.as_str().to_owned(),
            rights: policy.rights.to_string(),
            primary_key: SecretText::new(policy.keys.primary.expose_base64()),
            secondary_key: SecretText::new(policy.keys.secondary.expose_base64()),
        }
    }

    fn read<R: std::str::FromStr<Err: std::fmt::Display>>(&self) -> Result<AccessPolicy<R>, String> {
        Ok(AccessPolicy {
            name: PolicyName::parse(&self.name).map_err(|error| error.to_string())?,
            rights: self.rights.parse().map_err(|error: R::Err| error.to_string())?,
            keys: KeyPair::from_base64(self.primary_key.reveal(), self.secondary_key.reveal())
                .map_err(|error| error.to_string())?,
        })
    }
}

/// `0ne` and eight hexadecimal digits, as long as the cloud's.
fn generate_id_scope(mut random: impl FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 4];
    random(&mut bytes);
    format!("0ne{:08x}", u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nave_env::sim::Simulation;

    use super::*;

    #[test]
    fn keys_are_generated_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (HubId::parse("hub1").unwrap(), HubId::parse("hub2").unwrap());
        assert!(Settings::read(dir.path()).unwrap().is_none());
        let env = Simulation::new(1, nave_model::Timestamp::from_unix_seconds(1)).host();
        let first = Settings::open(dir.path(), std::slice::from_ref(&one), &*env).unwrap();
        let again = Settings::open(dir.path(), &[one, two], &*env).unwrap();
        assert_eq!(first.id_scope(), again.id_scope());
        assert_eq!(first.provisioning_policies(), again.provisioning_policies());
        let policies = first.hub_policies("hub1").unwrap();
        assert_eq!(policies, again.hub_policies("hub1").unwrap());
        assert_eq!(policies.len(), 5);
        assert_eq!(policies[0].rights, Rights::ALL);
        assert_eq!(policies[4].rights, Rights::REGISTRY_WRITE);
        assert_ne!(policies, again.hub_policies("hub2").unwrap());
        assert!(first.hub_policies("hub2").unwrap().is_empty());
        let mode = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damage_is_reported_and_never_repaired_by_new_keys() {
        let dir = tempfile::tempdir().unwrap();
        let env = Simulation::new(1, nave_model::Timestamp::from_unix_seconds(1)).host();
        Settings::open(dir.path(), &[], &*env).unwrap();
        let path = dir.path().join(FILE_NAME);
        let text = std::fs::read_to_string(&path).unwrap().replace("ServiceConfig", "ServiceConfug");
        for damaged in [&*text, "{", ""] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(Settings::open(dir.path(), &[], &*env), Err(SettingsError::Damaged(..))), "{damaged}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        }
    }
}
