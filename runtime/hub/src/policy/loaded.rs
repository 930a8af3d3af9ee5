//! The compiled policies of this host.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use nave_engine::plugin::{Policy, PolicyLimits};
use nave_env::Moment;
use nave_model::{
    AllocationPolicyName, AllocationPolicyRecord, AllocationPolicyVersion, PolicyLimitsRecord, PolicyVersionRecord,
};

use super::Policies;
use crate::error::HubError;

/// Most compiled policies; the one that was not used for longest gives way. Compiled, an interpreter has some 50 MB.
const MAX_LOADED: usize = 64;

/// How long a policy that could not be loaded is not tried again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The limits that a policy has.
pub(super) fn limits(settings: PolicyLimitsRecord) -> PolicyLimits {
    let usual = PolicyLimits::default();
    let bytes = |setting: Option<u32>, usual| setting.and_then(|value| usize::try_from(value).ok()).unwrap_or(usual);
    PolicyLimits {
        deadline: settings.deadline_ms.map_or(usual.deadline, |value| Duration::from_millis(value.into())),
        memory_bytes: bytes(settings.memory_bytes, usual.memory_bytes),
        table_elements: bytes(settings.table_elements, usual.table_elements),
        stack_bytes: bytes(settings.stack_bytes, usual.stack_bytes),
        result_bytes: bytes(settings.result_bytes, usual.result_bytes),
        concurrency: settings.concurrency.unwrap_or(usual.concurrency),
    }
}

type Key = (AllocationPolicyName, AllocationPolicyVersion);

/// Compiled policies by name and version.
#[derive(Default)]
pub(super) struct Loaded {
    slots: HashMap<Key, Slot>,
    uses: u64,
}

struct Slot {
    digest: String,
    settings: PolicyLimitsRecord,
    policy: Option<Policy>,
    state: State,
    last_use: u64,
}

enum State {
    New,
    Ready,
    Loading,
    Failed { at: Moment, why: Arc<str> },
}

/// What there is of a policy.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// It can be called.
    Ready(Policy),
    /// It is being loaded.
    Loading,
    /// It could not be loaded.
    Failed(Arc<str>),
}

impl Loaded {
    pub(super) fn put(
        &mut self,
        name: &AllocationPolicyName,
        version: &AllocationPolicyVersion,
        digest: &str,
        settings: PolicyLimitsRecord,
        policy: Policy,
    ) {
        self.make_room();
        self.uses += 1;
        let slot = Slot {
            digest: digest.to_owned(),
            settings,
            policy: Some(policy),
            state: State::Ready,
            last_use: self.uses,
        };
        self.slots.insert((name.clone(), version.clone()), slot);
    }

    pub(super) fn forget(&mut self, name: &AllocationPolicyName) {
        self.slots.retain(|(known, _), _| known != name);
    }

    pub(super) fn forget_version(&mut self, name: &AllocationPolicyName, version: &AllocationPolicyVersion) {
        self.slots.remove(&(name.clone(), version.clone()));
    }

    fn make_room(&mut self) {
        while self.slots.len() >= MAX_LOADED {
            let idle = self.slots.iter().min_by_key(|(_, slot)| slot.last_use).map(|(key, _)| key.clone());
            let Some(key) = idle else { return };
            self.slots.remove(&key);
        }
    }

    /// What there is, and whether loading has to be begun.
    fn find(
        &mut self,
        key: &Key,
        version: &PolicyVersionRecord,
        settings: PolicyLimitsRecord,
        now: Moment,
    ) -> (Found, bool) {
        self.uses += 1;
        let uses = self.uses;
        if !self.slots.contains_key(key) {
            self.make_room();
        }
        let slot = self.slots.entry(key.clone()).or_insert_with(|| Slot {
            digest: version.digest.clone(),
            settings,
            policy: None,
            state: State::New,
            last_use: uses,
        });
        slot.last_use = uses;
        if slot.digest != version.digest {
            // Deleted and pushed again: what is loaded is something else.
            slot.digest.clone_from(&version.digest);
            slot.policy = None;
            slot.state = State::New;
        }
        let is_current = slot.policy.is_some() && slot.settings == settings;
        let (found, begin) = match &slot.state {
            _ if is_current => (None, false),
            State::Loading => (Some(Found::Loading), false),
            State::Failed { at, why } if now.since(*at) < PAUSE_AFTER_FAILURE => {
                (Some(Found::Failed(Arc::clone(why))), false)
            }
            State::New | State::Ready | State::Failed { .. } => (Some(Found::Loading), true),
        };
        if begin {
            slot.state = State::Loading;
        }
        // With other limits than it shall have from now on, the old one decides until the new one is there.
        let found = match (&slot.policy, found) {
            (Some(policy), _) => Found::Ready(policy.clone()),
            (None, Some(found)) => found,
            (None, None) => Found::Loading,
        };
        (found, begin)
    }

    fn failed(&mut self, key: &Key, at: Moment, why: &str) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.state = State::Failed { at, why: why.into() };
        }
    }
}

impl Policies {
    /// The compiled form of a version. If there is none, loading it begins, in the background.
    pub(super) fn loaded_policy(
        self: &Arc<Self>,
        record: &AllocationPolicyRecord,
        version: &PolicyVersionRecord,
    ) -> Found {
        let key = (record.name.clone(), version.version.clone());
        let (found, begin) = self.loaded.lock().find(&key, version, record.limits, self.env.monotonic());
        if begin {
            let (policies, version, settings) = (Arc::clone(self), version.clone(), record.limits);
            self.env.spawn(Box::pin(async move {
                if let Err(error) = policies.load_version(&key, &version, settings).await {
                    tracing::error!(policy = %key.0, version = %key.1, %error, "allocation policy cannot be loaded");
                    let now = policies.env.monotonic();
                    policies.loaded.lock().failed(&key, now, &error.to_string());
                }
            }));
        }
        found
    }

    /// Loads a version now, unless it is loaded already.
    pub(super) async fn ensure_loaded(
        self: &Arc<Self>,
        record: &AllocationPolicyRecord,
        version: &PolicyVersionRecord,
    ) -> Result<(), HubError> {
        let key = (record.name.clone(), version.version.clone());
        let is_loaded = self.loaded.lock().slots.get(&key).is_some_and(|slot| {
            slot.policy.is_some() && slot.digest == version.digest && slot.settings == record.limits
        });
        if is_loaded { Ok(()) } else { self.load_version(&key, version, record.limits).await }
    }

    async fn load_version(
        &self,
        key: &Key,
        version: &PolicyVersionRecord,
        settings: PolicyLimitsRecord,
    ) -> Result<(), HubError> {
        self.signer(&key.0, &key.1, &version.digest, version.signature.as_deref())?;
        let component = self.read_pieces(&version.digest, version.size).await?;
        let policy = self.compile(&key.0, &key.1, component.into(), settings).await?;
        self.loaded.lock().put(&key.0, &key.1, &version.digest, settings, policy);
        tracing::info!(policy = %key.0, version = %key.1, "allocation policy loaded");
        Ok(())
    }
}
