//! The hubs and the provisioning service of a deployment, made for one request.

use std::sync::Arc;

use nave_engine::Functions;
use nave_env::SharedEnv;
use nave_hub::provisioning::{DeployedPolicy, LinkedHub, ProvisioningParts};
use nave_hub::{HostId, Hub, HubParts, NoPeers, Platform, Provisioning};
use nave_model::{Keys, Tenant};
use nave_store::Store;

use crate::log::BucketLog;
use crate::settings::{InvalidSetting, Settings};

/// What a platform is made of besides its settings.
pub struct Parts {
    /// Time, randomness, tasks.
    pub env: SharedEnv,
    /// State; its futures are ready at once.
    pub store: Arc<dyn Store>,
    /// Decisions.
    pub functions: Arc<Functions>,
    /// The custom allocation policy.
    pub policy: Arc<dyn DeployedPolicy>,
}

/// Puts a platform together. Nothing is read for that, and nothing that an interrupted request left behind is looked for:
/// the next change of the same object finishes it.
///
/// # Errors
///
/// A route that does not compile, by the name of its variable.
pub fn platform(settings: &Settings, parts: &Parts) -> Result<Arc<Platform>, InvalidSetting> {
    let tenant = Tenant::default_tenant();
    let hubs: Vec<Arc<Hub>> = settings
        .hubs
        .iter()
        .enumerate()
        .map(|(position, (id, host_name))| {
            let keys = Keys::new(&tenant, id.as_str());
            Arc::new(Hub::new(HubParts {
                env: Arc::clone(&parts.env),
                store: Arc::clone(&parts.store),
                log: Arc::new(BucketLog::new(Arc::clone(&parts.env), Arc::clone(&parts.store), keys)),
                functions: Arc::clone(&parts.functions),
                bus: Arc::new(NoPeers),
                host: HostId::new("spin"),
                tenant: tenant.clone(),
                id: id.clone(),
                host_name: host_name.clone(),
                aliases: if position == 0 { settings.aliases.clone() } else { Vec::new() },
                policies: settings.hub_policies.clone(),
            }))
        })
        .collect();
    if !settings.routing.routes.is_empty() {
        for hub in &hubs {
            hub.set_routing(settings.routing.clone())
                .map_err(|error| InvalidSetting { name: "routes", what: error.to_string() })?;
        }
    }
    let linked = hubs.iter().map(|hub| LinkedHub::new(Arc::clone(hub)));
    let provisioning = Provisioning::new(ProvisioningParts {
        env: Arc::clone(&parts.env),
        store: Arc::clone(&parts.store),
        functions: Arc::clone(&parts.functions),
        tenant,
        id_scope: settings.id_scope.clone(),
        host_names: settings.provisioning.iter().chain(&settings.aliases).cloned().collect(),
        policies: settings.provisioning_policies.clone(),
        default_policy: settings.allocation_policy.clone(),
        hubs: linked.collect(),
    });
    let provisioning = provisioning.with_deployed_policy(Arc::clone(&parts.policy));
    Ok(Arc::new(Platform::new(Arc::clone(&parts.env), hubs, Arc::new(provisioning))))
}
