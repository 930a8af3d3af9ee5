//! The provisioning service: enrollments, attestation, and the registration of devices with one of the linked hubs.

mod allocate;
mod apply;
mod attest;
#[cfg_attr(target_arch = "wasm32", path = "configuration/absent.rs")]
mod configuration;
mod deployed;
mod document;
mod enrollment;
mod hook;
mod migrate;
mod population;
mod postponed;
mod register;
mod view;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use nave_auth::{AccessPolicy, DpsRights};
use nave_engine::Functions;
use nave_env::SharedEnv;
use nave_model::{EnrollmentRecord, HostName, IdScope, Keys, RegistrationId, Tenant};
use nave_store::{Revision, Store};
use parking_lot::Mutex;

use self::register::unauthorized;
use crate::authority::Authorities;
use crate::error::HubError;
use crate::hub::Hub;
use crate::lane::Lanes;
use crate::metrics::ProvisioningMetrics;
use crate::policy::{Policies, PoliciesParts};
use crate::throttle::{Limits, Operation as Limited, Throttle};

pub use allocate::{HubDetails, LinkedHub};
pub use configuration::MAX_POLICY_CONFIGURATION_BYTES;
pub use deployed::DeployedPolicy;
pub use document::{Secrets, attestation_json, enrollment_json, id_member};
pub use enrollment::{AttestationInput, EnrollmentInput, EnrollmentPage, MAX_ENROLLMENT_GROUPS, MAX_ENROLLMENT_PAGE};
pub use hook::{HOOK_TIME_LIMIT, HookAnswer, HookClient, HookError, HookRequest, Hooks, MAX_HOOK_ANSWER_BYTES};
pub use register::{Attempt, Credentials, MAX_REGISTRATION_BYTES, Operation, RETRY_AFTER_SECONDS};
pub use view::{info_json, operation_json, registration_json};

pub(crate) use configuration::schema_of;

/// The provisioning service's id in keys: no hub can have it, because hub ids do not begin with `$`.
pub(crate) const OWNER: &str = "$dps";

/// What enrollments call the policy of [`Provisioning::with_deployed_policy`]: `nave:policy/deployed`.
pub(crate) const DEPLOYED_POLICY: &str = "deployed";

/// What a provisioning service is made of.
pub struct ProvisioningParts {
    /// Time, randomness, tasks.
    pub env: SharedEnv,
    /// State; shared with the hubs.
    pub store: Arc<dyn Store>,
    /// Decisions.
    pub functions: Arc<Functions>,
    /// The owner.
    pub tenant: Tenant,
    /// What devices name it by.
    pub id_scope: IdScope,
    /// The host names under which its APIs answer.
    pub host_names: Vec<HostName>,
    /// Shared access policies.
    pub policies: Vec<AccessPolicy<DpsRights>>,
    /// Policy of enrollments that name none: `hashed`, `geoLatency` or `static`.
    pub default_policy: String,
    /// The hubs that devices may be assigned to.
    pub hubs: Vec<LinkedHub>,
}

/// What custom allocation is made of.
pub struct CustomAllocation {
    /// Components that run here.
    pub policies: PoliciesParts,
    /// Web hooks elsewhere.
    pub hooks: Hooks,
}

/// The provisioning service.
pub struct Provisioning {
    pub(crate) env: SharedEnv,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) functions: Arc<Functions>,
    pub(crate) keys: Keys,
    pub(crate) lanes: Lanes<RegistrationId>,
    pub(crate) authorities: Authorities,
    id_scope: IdScope,
    host_names: Vec<HostName>,
    policies: Vec<AccessPolicy<DpsRights>>,
    default_policy: String,
    hubs: Vec<LinkedHub>,
    /// Custom allocation, if this service has it.
    custom: Option<(Arc<Policies>, Hooks)>,
    /// The one custom policy of a service that has no others.
    deployed: Option<Arc<dyn DeployedPolicy>>,
    population: Arc<population::Population>,
    /// Groups as they were read last; a group whose revision is unchanged is not decoded again.
    groups: Mutex<HashMap<String, (Revision, Arc<EnrollmentRecord>)>>,
    postponed: postponed::Postponed,
    metrics: ProvisioningMetrics,
    pub(crate) throttle: Throttle,
    answers_at_once: AtomicBool,
}

impl Provisioning {
    /// Puts a provisioning service together.
    pub fn new(parts: ProvisioningParts) -> Self {
        let keys = Keys::new(&parts.tenant, OWNER);
        let authorities = Authorities::new(Arc::clone(&parts.env), Arc::clone(&parts.store), keys.clone());
        Self {
            env: parts.env,
            store: parts.store,
            functions: parts.functions,
            keys,
            lanes: Lanes::new(),
            authorities,
            id_scope: parts.id_scope,
            host_names: parts.host_names,
            policies: parts.policies,
            default_policy: parts.default_policy,
            hubs: parts.hubs,
            custom: None,
            deployed: None,
            population: Arc::default(),
            groups: Mutex::default(),
            postponed: postponed::Postponed::default(),
            metrics: ProvisioningMetrics::default(),
            throttle: Throttle::default(),
            answers_at_once: AtomicBool::new(false),
        }
    }

    /// The same service with custom allocation. Without it, enrollments cannot name a custom policy.
    #[must_use]
    pub fn with_custom_allocation(mut self, custom: CustomAllocation) -> Self {
        let (env, store) = (Arc::clone(&self.env), Arc::clone(&self.store));
        let policies = Policies::new(env, store, self.keys.clone(), custom.policies);
        self.custom = Some((Arc::new(policies), custom.hooks));
        self
    }

    /// The same service with one custom policy, which its deployment put in, in the place of those that can be pushed and of
    /// web hooks: for a host that runs no policies itself.
    #[must_use]
    pub fn with_deployed_policy(mut self, policy: Arc<dyn DeployedPolicy>) -> Self {
        self.deployed = Some(policy);
        self
    }

    /// The custom allocation policies, if this service has custom allocation.
    pub fn allocation_policies(&self) -> Option<&Arc<Policies>> {
        self.custom.as_ref().map(|(policies, _)| policies)
    }

    /// How web hooks are called, if this service has custom allocation.
    pub(crate) fn hooks(&self) -> Option<&Hooks> {
        self.custom.as_ref().map(|(_, hooks)| hooks)
    }

    /// What devices name the service by.
    pub const fn id_scope(&self) -> &IdScope {
        &self.id_scope
    }

    /// Whether the service API answers to `name`.
    pub fn answers_to(&self, name: &HostName) -> bool {
        self.host_names.contains(name)
    }

    /// The host names, the one that is shown first.
    pub fn host_names(&self) -> &[HostName] {
        &self.host_names
    }

    /// The shared access policy of that name.
    pub fn policy(&self, name: &str) -> Option<&AccessPolicy<DpsRights>> {
        self.policies.iter().find(|policy| policy.name.as_str() == name)
    }

    /// All shared access policies.
    pub fn policies(&self) -> &[AccessPolicy<DpsRights>] {
        &self.policies
    }

    /// The certificate authorities that enrollments may refer to.
    pub const fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// The linked hubs, in the operator's order.
    pub fn hubs(&self) -> &[LinkedHub] {
        &self.hubs
    }

    /// Puts limits in force; what was used of the ones before is forgotten.
    pub fn set_limits(&self, limits: Limits) {
        self.throttle.set(limits);
    }

    /// Whether a device is told the outcome in the answer to its registration, and not when it asks for it afterwards.
    pub fn set_answers_at_once(&self, on: bool) {
        self.answers_at_once.store(on, Ordering::Relaxed);
    }

    /// Whether the answer to a registration is "assigning", with an operation to ask for, whatever the outcome: what the
    /// cloud service does. By then the outcome is on record, so the first poll gets it.
    pub fn answers_later(&self) -> bool {
        !self.answers_at_once.load(Ordering::Relaxed)
    }

    /// Lets a request to the service's own API through, perhaps later; one for several enrollments counts as several.
    ///
    /// # Errors
    ///
    /// 429001 when it would have to wait for too long.
    pub async fn pass(&self, operations: u64) -> Result<(), HubError> {
        self.throttle.pass(&self.env, Limited::Provisioning, operations).await
    }

    /// Whether somebody may try to prove what they are.
    pub(crate) fn admit(&self, credentials: &Credentials) -> Result<(), HubError> {
        credentials.peer.map_or(Ok(()), |peer| self.throttle.admit(&self.env, Limited::FailedRegistrations, peer))
    }

    /// Notes that somebody could not prove what they are; the error to tell them.
    pub(crate) fn refuse(&self, credentials: &Credentials, reason: impl fmt::Display) -> HubError {
        if let Some(peer) = credentials.peer {
            self.throttle.note_failure(&self.env, Limited::FailedRegistrations, peer);
        }
        unauthorized().with_detail(reason)
    }

    pub(crate) const fn metrics(&self) -> &ProvisioningMetrics {
        &self.metrics
    }

    pub(crate) fn hub(&self, name: &str) -> Option<&Arc<Hub>> {
        self.hubs.iter().map(|linked| &linked.hub).find(|hub| hub.host_name().as_str().eq_ignore_ascii_case(name))
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.fill_random(&mut bytes);
        bytes
    }
}
