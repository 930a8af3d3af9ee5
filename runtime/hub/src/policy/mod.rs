//! Custom allocation policies: their components in the store, which version decides, and asking it.
//!
//! * A policy is an [`AllocationPolicyRecord`]; its components are stored by their content, in pieces (`pieces.rs`).
//! * [`Policies::push`] verifies and compiles a component before anything is stored (`push.rs`).
//! * [`Policies::activate`], [`Policies::roll_back`] and the trials of new versions are in `lifecycle.rs`.
//! * `loaded.rs` has the compiled policies, `decide.rs` asks them, `counters.rs` counts what came of it, `recording.rs` keeps
//!   cases for tests when somebody asks for them.
//!
//! Nothing is compiled where a registration waits: a version that is not loaded is loaded in the background, and the
//! registration is told to come back. Every host reads the records from the store, so all of them agree on what is active.

mod case;
mod counters;
mod decide;
mod lifecycle;
mod loaded;
mod pieces;
mod pool;
mod push;
mod recording;
mod signature;
mod users;

use std::sync::Arc;

use hashbrown::HashMap;
use nave_engine::plugin::PluginEngine;
use nave_env::SharedEnv;
use nave_model::{AllocationPolicyName, AllocationPolicyRecord, AllocationPolicyVersion, DpsEtag, IfMatch, Keys};
use nave_store::{CommitError, Expect, Guard, Put, Revision, Store};
use parking_lot::Mutex;

use crate::error::{ErrorCode, HubError};
use crate::hub::{decode, put};

pub use case::{outcome_json, request_json};
pub use counters::VersionCounters;
pub use lifecycle::{Activation, DEFAULT_MAX_ERROR_PERCENT, PolicySettings, Trial};
pub use pool::{Bounds, NotDone, Pool};
pub use push::{MAX_COMPONENT_BYTES, MAX_SOURCE_BYTES, Upload, UploadSlot};
pub use recording::{MAX_RECORDED, MAX_RECORDING_TIME, Recording};
pub use signature::{SIGNATURE_LENGTH, TrustedKey, statement};

pub(crate) use counters::Counted;
pub(crate) use decide::{Answer, Ticket};

/// Most policies.
pub const MAX_POLICIES: usize = 100;

/// Most versions of one policy; older ones have to be deleted first, so that a store does not fill unnoticed.
pub const MAX_POLICY_VERSIONS: usize = 20;

/// What the policies of a provisioning service are made of.
pub struct PoliciesParts {
    /// Compiles and calls components.
    pub engine: Arc<PluginEngine>,
    /// Where policies are called.
    pub calls: Arc<Pool>,
    /// Where components are compiled: apart, because it takes seconds.
    pub loads: Arc<Pool>,
    /// Keys that sign policies. If there are any, a policy must be signed by one of them.
    pub trusted_keys: Vec<TrustedKey>,
}

/// The custom allocation policies of a provisioning service.
pub struct Policies {
    env: SharedEnv,
    store: Arc<dyn Store>,
    keys: Keys,
    engine: Arc<PluginEngine>,
    calls: Arc<Pool>,
    loads: Arc<Pool>,
    trusted_keys: Vec<TrustedKey>,
    /// Records as they were read last; one whose revision is unchanged is not decoded again.
    records: Mutex<HashMap<AllocationPolicyName, (Revision, Arc<AllocationPolicyRecord>)>>,
    loaded: Mutex<loaded::Loaded>,
    counters: Mutex<counters::Counters>,
    /// Held during an upload, from before its component is read: what it needs in memory is needed once.
    uploading: Arc<tokio::sync::Mutex<()>>,
    /// Held while pieces are written and referred to, or found unused and removed. Not for as long as an upload takes to
    /// arrive, so that no slow sender holds up a deletion.
    pieces: tokio::sync::Mutex<()>,
    /// How much output of policies went into the log lately.
    output: Mutex<decide::OutputGate>,
    recordings: Mutex<recording::Recordings>,
}

impl Policies {
    pub(crate) fn new(env: SharedEnv, store: Arc<dyn Store>, keys: Keys, parts: PoliciesParts) -> Self {
        Self {
            env,
            store,
            keys,
            engine: parts.engine,
            calls: parts.calls,
            loads: parts.loads,
            trusted_keys: parts.trusted_keys,
            records: Mutex::default(),
            loaded: Mutex::default(),
            counters: Mutex::default(),
            uploading: Arc::default(),
            pieces: tokio::sync::Mutex::default(),
            output: Mutex::default(),
            recordings: Mutex::default(),
        }
    }

    /// All policies in the order of their names.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<AllocationPolicyRecord>, HubError> {
        let entries = self.store.scan(&self.keys.policies(), None, MAX_POLICIES).await?;
        entries.iter().map(|(_, entry)| Ok(decode::<AllocationPolicyRecord>(entry)?.0)).collect()
    }

    /// A policy.
    ///
    /// # Errors
    ///
    /// 404.
    pub async fn get(&self, name: &AllocationPolicyName) -> Result<Arc<AllocationPolicyRecord>, HubError> {
        Ok(self.load(name).await?.ok_or_else(|| not_found(name))?.1)
    }

    /// The component of a version, as it was pushed.
    ///
    /// # Errors
    ///
    /// 404.
    pub async fn component(
        &self,
        name: &AllocationPolicyName,
        version: &AllocationPolicyVersion,
    ) -> Result<Vec<u8>, HubError> {
        let record = self.get(name).await?;
        let version = version_of(&record, version)?;
        self.read_pieces(&version.digest, version.size).await
    }

    /// What each version of a policy decided since this host started, in the order of its versions.
    pub fn counters(&self, record: &AllocationPolicyRecord) -> Vec<VersionCounters> {
        let counters = self.counters.lock();
        record.versions.iter().map(|version| counters.of(&record.name, &version.version)).collect()
    }

    /// What every version decided that has decided anything since this host started.
    pub fn all_counters(&self) -> Vec<(AllocationPolicyName, AllocationPolicyVersion, VersionCounters)> {
        self.counters.lock().all()
    }

    /// Does what a start has to do: components that nothing refers to are removed, and those that decide are loaded in the
    /// background.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), HubError> {
        let records = self.list().await?;
        self.sweep(&records).await?;
        self.prune_cache().await;
        for record in &records {
            for version in [&record.active, &record.canary.as_ref().map(|canary| canary.version.clone())] {
                let found = version.as_ref().and_then(|version| find(record, version));
                if let Some(found) = found {
                    drop(self.loaded_policy(record, found));
                }
            }
        }
        Ok(())
    }

    async fn load(
        &self,
        name: &AllocationPolicyName,
    ) -> Result<Option<(Revision, Arc<AllocationPolicyRecord>)>, HubError> {
        let Some(entry) = self.store.get(&self.keys.policy(name.as_str())).await? else {
            self.records.lock().remove(name);
            return Ok(None);
        };
        let known = self.records.lock().get(name).filter(|(revision, _)| *revision == entry.revision).cloned();
        if let Some(known) = known {
            return Ok(Some(known));
        }
        let (record, revision) = decode::<AllocationPolicyRecord>(&entry)?;
        let record = Arc::new(record);
        // Bounded by the number of policies: only names that have a record get here.
        self.records.lock().insert(name.clone(), (revision, Arc::clone(&record)));
        Ok(Some((revision, record)))
    }

    /// Changes a policy under the precondition of the caller.
    async fn change(
        &self,
        name: &AllocationPolicyName,
        condition: &IfMatch,
        change: impl FnOnce(&mut AllocationPolicyRecord) -> Result<(), HubError>,
    ) -> Result<AllocationPolicyRecord, HubError> {
        let (revision, record) = self.load(name).await?.ok_or_else(|| not_found(name))?;
        if !condition.holds_for(&record.etag) {
            return Err(HubError::precondition_failed());
        }
        let mut record = AllocationPolicyRecord::clone(&record);
        change(&mut record)?;
        self.save(&mut record, Expect::At(revision), Vec::new()).await?;
        Ok(record)
    }

    async fn save(
        &self,
        record: &mut AllocationPolicyRecord,
        expect: Expect,
        mut guards: Vec<Guard>,
    ) -> Result<(), HubError> {
        record.etag = self.new_etag();
        record.updated = self.env.now();
        let key = self.keys.policy(record.name.as_str());
        guards.push(Guard { key: key.clone(), expect });
        match self.store.commit(guards, vec![put(key, record)?]).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(HubError::precondition_failed()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a policy with all its versions. With `force` also one that enrollments use; their devices cannot register
    /// from then on.
    ///
    /// # Errors
    ///
    /// 404; 409 if enrollments use it; 412 for a stale tag.
    pub async fn delete(&self, name: &AllocationPolicyName, force: bool, condition: &IfMatch) -> Result<(), HubError> {
        let (revision, record) = self.load(name).await?.ok_or_else(|| not_found(name))?;
        if !condition.holds_for(&record.etag) {
            return Err(HubError::precondition_failed());
        }
        if !force {
            self.ensure_unused(name, None).await?;
        }
        let key = self.keys.policy(name.as_str());
        let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
        match self.store.commit(guards, vec![Put { key, value: None }]).await {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => return Err(HubError::precondition_failed()),
            Err(error) => return Err(error.into()),
        }
        self.records.lock().remove(name);
        self.loaded.lock().forget(name);
        self.counters.lock().forget(name);
        for version in &record.versions {
            self.remove_pieces_if_unused(&version.digest).await?;
        }
        tracing::info!(policy = %name, "allocation policy deleted");
        Ok(())
    }

    fn new_etag(&self) -> String {
        let text = DpsEtag::from_u128(u128::from_be_bytes(self.random())).to_string();
        nave_model::bare_etag(&text).to_owned()
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.fill_random(&mut bytes);
        bytes
    }
}

fn find<'a>(
    record: &'a AllocationPolicyRecord,
    version: &AllocationPolicyVersion,
) -> Option<&'a nave_model::PolicyVersionRecord> {
    record.versions.iter().find(|known| known.version == *version)
}

fn version_of<'a>(
    record: &'a AllocationPolicyRecord,
    version: &AllocationPolicyVersion,
) -> Result<&'a nave_model::PolicyVersionRecord, HubError> {
    find(record, version).ok_or_else(|| {
        HubError::new(
            ErrorCode::GenericNotFound,
            format!("The allocation policy '{}' has no version '{version}'.", record.name),
        )
    })
}

fn not_found(name: &AllocationPolicyName) -> HubError {
    HubError::new(ErrorCode::GenericNotFound, format!("No allocation policy '{name}'."))
}
