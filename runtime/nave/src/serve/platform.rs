//! Puts the parts of the platform together.

use std::sync::Arc;

use nave_engine::Functions;
use nave_env::SharedEnv;
use nave_hub::provisioning::{CustomAllocation, LinkedHub, ProvisioningParts};
use nave_hub::{HostId, Hub, HubParts, NoPeers, Platform, Provisioning};
use nave_log::{FileLog, Log};
use nave_metrics::{Collect, Page};
use nave_model::{HubId, Tenant};
use nave_store::{FjallStore, Store};

use super::Settings;
use super::directory::DataDir;
use crate::backup::{self, Source};
use crate::config::Config;
use crate::failure::Failure;

/// The open files of a hub.
pub(super) struct Storage {
    store: Arc<FjallStore>,
    /// One for each hub, in the order of the configuration.
    logs: Vec<Arc<FileLog>>,
}

impl Storage {
    /// Opens the store and the logs.
    pub(super) fn open(config: &Config, data: &DataDir, env: &SharedEnv) -> Result<Self, Failure> {
        let store =
            FjallStore::open(&data.store(), nave_store::Options::default(), Arc::clone(env)).map_err(|error| {
                match &error {
                    nave_store::OpenError::Io { source, .. } => data.explain(source),
                    _ => Failure::runtime(&error),
                }
            })?;
        let logs = config.hubs.iter().map(|hub| {
            let options = nave_log::Options {
                partitions: hub.partitions,
                retention_age: hub.retention_age,
                retention_bytes: hub.retention_bytes,
                ..nave_log::Options::default()
            };
            let dir = data.log(hub.id.as_str());
            crate::files::private_dir(&dir).map_err(|error| data.explain(&error))?;
            let log = FileLog::open(&dir, options, Arc::clone(env)).map_err(|error| match &error {
                nave_log::OpenError::Io(source) => data.explain(source),
                _ => Failure::runtime(format_args!("hub `{}`: {error}", hub.name)),
            })?;
            if log.partitions() != hub.partitions {
                tracing::warn!(
                    hub = %hub.name, has = log.partitions(), configured = hub.partitions,
                    "the number of partitions is fixed when a hub is created; it stays as it is"
                );
            }
            Ok(Arc::new(log))
        });
        Ok(Self { store: Arc::new(store), logs: logs.collect::<Result<_, Failure>>()? })
    }
}

/// The platform and what has to be closed after it.
pub(super) struct Parts {
    pub(super) platform: Arc<Platform>,
    functions: Arc<Functions>,
    storage: Storage,
}

/// A log, which does not know whose it is.
struct LogOf {
    hub: HubId,
    log: Arc<FileLog>,
}

impl Collect for LogOf {
    fn collect(&self, page: &mut Page) {
        self.log.collect(self.hub.as_str(), page);
    }
}

impl Parts {
    /// Makes the hubs and the provisioning service.
    pub(super) fn build(
        config: &Config,
        settings: &Settings,
        storage: Storage,
        functions: Arc<Functions>,
        custom: CustomAllocation,
        env: &SharedEnv,
    ) -> Result<Self, Failure> {
        functions.measure(env);
        let store: Arc<dyn Store> = storage.store.clone();
        let hubs = config.hubs.iter().zip(&storage.logs).map(|(hub_config, log)| {
            let hub = Hub::new(HubParts {
                env: Arc::clone(env),
                store: Arc::clone(&store),
                log: log.clone(),
                functions: Arc::clone(&functions),
                bus: Arc::new(NoPeers),
                host: HostId::new("local"),
                tenant: Tenant::default_tenant(),
                id: hub_config.id.clone(),
                host_name: hub_config.host_name.clone(),
                aliases: hub_config.aliases.clone(),
                policies: settings.hub_policies(hub_config.id.as_str()).map_err(Failure::runtime)?,
            });
            hub.set_limits(hub_config.throttle.limits.clone());
            hub.set_cloud_to_device(hub_config.cloud_to_device);
            hub.set_twin_catch_up(hub_config.twin_catch_up);
            hub.set_routing(hub_config.routing.clone())
                .map_err(|error| Failure::usage(format_args!("hub `{}`: {error}", hub_config.name)))?;
            Ok(Arc::new(hub))
        });
        let hubs = hubs.collect::<Result<Vec<_>, Failure>>()?;
        let id_scope = match &config.provisioning.id_scope {
            Some(scope) => scope.clone(),
            None => settings.id_scope().map_err(Failure::runtime)?,
        };
        let linked = config.provisioning.linked_hubs.iter().filter_map(|position| {
            let (hub, hub_config) = (hubs.get(*position)?, config.hubs.get(*position)?);
            Some(LinkedHub {
                hub: Arc::clone(hub),
                allocation_weight: hub_config.allocation_weight,
                apply_allocation_policy: hub_config.apply_allocation_policy,
                latency_ms: hub_config.latency_ms,
                details: hub_config.details.clone(),
            })
        });
        let provisioning = Provisioning::new(ProvisioningParts {
            env: Arc::clone(env),
            store,
            functions: Arc::clone(&functions),
            tenant: Tenant::default_tenant(),
            id_scope,
            host_names: std::iter::once(&config.provisioning.host_name)
                .chain(&config.provisioning.aliases)
                .cloned()
                .collect(),
            policies: settings.provisioning_policies().map_err(Failure::runtime)?,
            default_policy: config.provisioning.allocation_policy.as_str().to_owned(),
            hubs: linked.collect(),
        });
        provisioning.set_limits(config.provisioning.throttle.limits.clone());
        provisioning.set_answers_at_once(config.provisioning.answer_at_once);
        let provisioning = provisioning.with_custom_allocation(custom);
        let platform = Arc::new(Platform::new(Arc::clone(env), hubs, Arc::new(provisioning)));
        Ok(Self { platform, functions, storage })
    }

    /// Everything here that has metrics.
    pub(super) fn collectors(&self) -> Vec<Arc<dyn Collect>> {
        let mut all: Vec<Arc<dyn Collect>> =
            vec![self.platform.clone(), self.functions.clone(), self.storage.store.clone()];
        for (hub, log) in self.platform.hubs().iter().zip(&self.storage.logs) {
            all.push(Arc::new(LogOf { hub: hub.id().clone(), log: Arc::clone(log) }));
        }
        all
    }

    /// The store.
    pub(super) fn store(&self) -> Arc<FjallStore> {
        Arc::clone(&self.storage.store)
    }

    /// What a backup copies.
    pub(super) fn source(&self, config: &Config, data: &DataDir) -> Source {
        let logs = config.hubs.iter().zip(&self.storage.logs).map(|(hub, log)| {
            let id = hub.id.as_str().to_owned();
            backup::LogOf { dir: data.log(&id), hub: id, log: Arc::clone(log) }
        });
        Source { data_dir: data.path().to_owned(), store: Arc::clone(&self.storage.store), logs: logs.collect() }
    }

    /// Keeps telemetry as `config` says from now on.
    pub(super) fn set_retention(&self, config: &Config) {
        for (hub, log) in config.hubs.iter().zip(&self.storage.logs) {
            log.set_retention(hub.retention_age, hub.retention_bytes);
        }
    }

    /// Writes what is queued and closes the files.
    pub(super) fn close(self) {
        for log in &self.storage.logs {
            log.close();
        }
        self.storage.store.close();
    }
}
