//! Everything that one process serves: its hubs and its provisioning service.

use std::sync::Arc;

use nave_env::{BoxFuture, Gate, SharedEnv};
use nave_model::{HostName, IdScope};

use crate::bus::{HostMessage, HostReply, Receive};
use crate::hub::Hub;
use crate::metrics::PlatformMetrics;
use crate::provisioning::Provisioning;
use crate::session::{CloseReason, MethodAnswer};

/// The hubs and the provisioning service of a process.
pub struct Platform {
    env: SharedEnv,
    hubs: Vec<Arc<Hub>>,
    provisioning: Arc<Provisioning>,
    metrics: PlatformMetrics,
    refusals: Gate,
}

impl Platform {
    /// Puts a platform together. The first hub is the one that answers to `localhost`, if its aliases say so.
    pub fn new(env: SharedEnv, hubs: Vec<Arc<Hub>>, provisioning: Arc<Provisioning>) -> Self {
        hubs.iter().for_each(Hub::retry_forwarding);
        Self { env, hubs, provisioning, metrics: PlatformMetrics::default(), refusals: Gate::default() }
    }

    /// Time, randomness, tasks.
    pub const fn env(&self) -> &SharedEnv {
        &self.env
    }

    /// What concerns no hub in particular.
    pub const fn metrics(&self) -> &PlatformMetrics {
        &self.metrics
    }

    /// Lets one complaint about somebody who was refused into the log, and counts the others until the next one: whoever is
    /// refused can come back as often as they like.
    pub fn refusal(&self) -> Option<u64> {
        self.refusals.pass(self.env.monotonic())
    }

    /// All hubs, the default one first.
    pub fn hubs(&self) -> &[Arc<Hub>] {
        &self.hubs
    }

    /// The hub that answers to `name`.
    pub fn hub(&self, name: &HostName) -> Option<&Arc<Hub>> {
        self.hubs.iter().find(|hub| hub.answers_to(name))
    }

    /// The provisioning service.
    pub const fn provisioning(&self) -> &Arc<Provisioning> {
        &self.provisioning
    }

    /// The provisioning service, if `scope` is its id scope.
    pub fn provisioning_of(&self, scope: &IdScope) -> Option<&Arc<Provisioning>> {
        (self.provisioning.id_scope() == scope).then_some(&self.provisioning)
    }

    /// Does what a start has to do before connections are accepted: certificate authorities are read, events that a crash
    /// left behind are appended, queues that are not empty are found.
    ///
    /// # Errors
    ///
    /// [`crate::HubError`] when the store or the log fails.
    pub async fn recover(&self) -> Result<(), crate::HubError> {
        for hub in &self.hubs {
            hub.authorities.load().await?;
            hub.recover_announced().await?;
            hub.recover_queues().await?;
            let devices = hub.recover_outboxes().await?;
            if devices > 0 {
                tracing::info!(hub = %hub.id(), devices, "appended events that an earlier stop left behind");
            }
        }
        self.provisioning.authorities.load().await?;
        if let Some(policies) = self.provisioning.allocation_policies() {
            policies.recover().await?;
        }
        self.provisioning.recover().await
    }

    /// Ends every session.
    pub fn close_sessions(&self) {
        self.hubs.iter().for_each(|hub| hub.close_sessions(CloseReason::Shutdown));
    }

    fn hub_by_id(&self, id: &str) -> Option<Arc<Hub>> {
        self.hubs.iter().find(|hub| hub.id().as_str() == id).cloned()
    }
}

impl Receive for Platform {
    fn receive(&self, message: HostMessage) -> BoxFuture<HostReply> {
        match message {
            HostMessage::Method { hub, identity, name, payload, timeout } => {
                let hub = self.hub_by_id(&hub);
                Box::pin(async move {
                    HostReply::Method(match hub {
                        Some(hub) => hub.deliver_method(&identity, &name, &payload, timeout).await,
                        None => MethodAnswer::NotConnected,
                    })
                })
            }
            HostMessage::Desired { hub, identity, version, payload } => {
                if let Some(hub) = self.hub_by_id(&hub) {
                    hub.deliver_desired(&identity, version, &payload.into());
                }
                Box::pin(async { HostReply::Done })
            }
            HostMessage::Connection { hub, identity } => {
                let connection = self.hub_by_id(&hub).map(|hub| hub.local_connection(&identity)).unwrap_or_default();
                Box::pin(async move { HostReply::Connection(connection) })
            }
            HostMessage::Holding { hub, identity, epoch } => {
                let holding = self.hub_by_id(&hub).is_some_and(|hub| hub.holds_messages(&identity, epoch));
                Box::pin(async move { HostReply::Holding(holding) })
            }
            HostMessage::DeviceBound { hub, identity } => {
                if let Some(hub) = self.hub_by_id(&hub) {
                    hub.wake_for_messages(&identity);
                }
                Box::pin(async { HostReply::Done })
            }
            HostMessage::Close { hub, identity, epoch, reason } => {
                if let Some(hub) = self.hub_by_id(&hub) {
                    hub.close_here(&identity, epoch, reason);
                }
                Box::pin(async { HostReply::Done })
            }
        }
    }
}
