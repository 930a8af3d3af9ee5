//! The one custom policy of a service whose host cannot run policies: its deployment put it in.

use nave_engine::allocation::{Outcome as PolicyOutcome, Request};
use nave_engine::provisioning::{FailureCause, Outcome};
use nave_model::{AllocationPolicyReference, Webhook};

use super::allocate::failed;
use super::{DEPLOYED_POLICY, Provisioning};
use crate::error::HubError;
use crate::registry::argument;

/// A policy that is there for as long as the service is.
pub trait DeployedPolicy: Send + Sync {
    /// Chooses a hub.
    fn allocate(&self, request: &Request) -> PolicyOutcome;
}

impl Provisioning {
    /// Asks the deployed policy. An enrollment that names another policy, or a web hook, finds none.
    pub(super) fn ask_deployed(
        &self,
        policy: &dyn DeployedPolicy,
        url: &str,
        request: Request,
    ) -> Result<Outcome, HubError> {
        if let Err(error) = check_url(url) {
            return Ok(failed(FailureCause::UnknownPolicy, error));
        }
        let outcome = policy.allocate(&request);
        self.meaning(&DEPLOYED_POLICY, outcome, request).map(|(outcome, _)| outcome)
    }
}

/// A custom allocation that a service with a deployed policy can carry out.
pub(super) fn checked(webhook: Webhook) -> Result<Webhook, HubError> {
    check_url(&webhook.url).map_err(argument)?;
    if webhook.configuration.is_some() {
        return Err(argument("The policy of this deployment has no configuration."));
    }
    Ok(webhook)
}

fn check_url(url: &str) -> Result<(), String> {
    let reference = AllocationPolicyReference::parse(url).map_err(|error| format!("webhookUrl: {error}."))?;
    if reference.name.as_str() == DEPLOYED_POLICY && reference.version.is_none() {
        return Ok(());
    }
    Err(format!("This deployment has one custom policy: nave:policy/{DEPLOYED_POLICY}."))
}
