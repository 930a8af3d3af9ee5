//! Many changes of the registry in one request (protocol notes: REST §2.5). There is no transaction: each change succeeds or
//! fails by itself.

use futures_util::stream::{self, StreamExt as _};
use hashbrown::{HashMap, HashSet};
use nave_model::{DeviceId, Identity, IfMatch};

use crate::error::{ErrorCode, HubError};
use crate::hub::Hub;
use crate::module::ModuleInput;
use crate::registry::DeviceInput;
use crate::twin::TwinUpdate;

/// Most changes of one request (protocol notes: limits §4). More are refused with `TooManyDevices`.
pub const MAX_BULK_CHANGES: usize = 100;

/// Devices that one request changes at the same time: enough for their commits to share syncs, few beside other requests.
const BULK_CONCURRENCY: usize = 16;

/// One change of the registry.
#[derive(Clone, Debug)]
pub struct BulkChange {
    /// Which device or module.
    pub identity: Identity,
    /// What is to be done.
    pub operation: BulkOperation,
    /// What the identity is to be; of a module only the credentials count.
    pub input: DeviceInput,
    /// Who manages a module.
    pub managed_by: Option<String>,
    /// The twin to begin with, or what is to be merged into the twin: JSON text with `tags` and `properties.desired`.
    pub twin: Option<String>,
}

/// What is to be done with an identity or its twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkOperation {
    /// Create the identity.
    Create,
    /// Update the identity if the condition holds.
    Update(IfMatch),
    /// Update the identity if the condition holds; create it if it does not exist.
    CreateOrUpdate(IfMatch),
    /// Delete the identity if the condition holds.
    Delete(IfMatch),
    /// Merge into the twin if the condition holds.
    UpdateTwin(IfMatch),
}

impl Hub {
    /// Carries out changes of several devices at the same time, those of one device and its modules in their order. The
    /// answer has the outcome of each in the order of the request.
    ///
    /// # Errors
    ///
    /// Nothing is done if there are more than [`MAX_BULK_CHANGES`], or two of one identity.
    pub async fn bulk(&self, changes: &[BulkChange]) -> Result<Vec<Result<(), HubError>>, HubError> {
        check_bulk(changes.len(), changes.iter().map(|change| &change.identity))?;
        let mut devices: HashMap<&DeviceId, Vec<usize>> = HashMap::new();
        for (position, change) in changes.iter().enumerate() {
            devices.entry(change.identity.device_id()).or_default().push(position);
        }
        let mut groups: Vec<Vec<usize>> = devices.into_values().collect();
        groups.sort_unstable();
        let done = stream::iter(groups).map(|positions| async move {
            let mut outcomes = Vec::with_capacity(positions.len());
            for position in positions {
                if let Some(change) = changes.get(position) {
                    outcomes.push((position, self.change_one(change).await));
                }
            }
            outcomes
        });
        let mut outcomes: Vec<_> = done.buffer_unordered(BULK_CONCURRENCY).concat().await;
        outcomes.sort_unstable_by_key(|(position, _)| *position);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    async fn change_one(&self, change: &BulkChange) -> Result<(), HubError> {
        match &change.operation {
            BulkOperation::Create => self.create_one(change).await,
            BulkOperation::Update(condition) => self.update_one(change, condition).await,
            BulkOperation::CreateOrUpdate(condition) => match self.create_one(change).await {
                Err(error) if is_there(&error) => self.update_one(change, condition).await,
                created => created,
            },
            BulkOperation::Delete(condition) => match change.identity.module_id() {
                None => self.delete_device(change.identity.device_id(), condition).await,
                Some(module) => self.delete_module(change.identity.device_id(), module, condition).await,
            },
            BulkOperation::UpdateTwin(condition) => {
                let patch = change.twin.as_deref().unwrap_or("{}");
                self.update_twin(&change.identity, TwinUpdate::Patch, patch, condition).await.map(drop)
            }
        }
    }

    async fn create_one(&self, change: &BulkChange) -> Result<(), HubError> {
        let device = change.identity.device_id();
        let created = match change.identity.module_id() {
            None => self.create_device(self.first_device(device, &change.input, change.twin.as_deref())?).await,
            Some(module) => self.put_new_module(device, module, &module_input(change), change.twin.as_deref()).await,
        };
        created.map(drop)
    }

    async fn update_one(&self, change: &BulkChange, condition: &IfMatch) -> Result<(), HubError> {
        let device = change.identity.device_id();
        let updated = match change.identity.module_id() {
            None => self.put_device(device, &change.input, condition).await,
            Some(module) => self.put_module(device, module, &module_input(change), condition).await,
        };
        updated.map(drop)
    }
}

/// Whether so many changes of these identities may be in one request.
///
/// # Errors
///
/// 413, 400.
pub fn check_bulk<'a>(count: usize, identities: impl Iterator<Item = &'a Identity>) -> Result<(), HubError> {
    if count > MAX_BULK_CHANGES {
        return Err(HubError::new(
            ErrorCode::TooManyDevices,
            format!("One request changes at most {MAX_BULK_CHANGES} devices and modules."),
        ));
    }
    let mut seen = HashSet::with_capacity(count);
    for identity in identities {
        if !seen.insert(identity) {
            return Err(HubError::new(
                ErrorCode::DeviceDefinedMultipleTimes,
                format!("'{identity}' is in the request more than once: nothing was done."),
            ));
        }
    }
    Ok(())
}

fn module_input(change: &BulkChange) -> ModuleInput {
    ModuleInput { managed_by: change.managed_by.clone(), authentication: change.input.authentication.clone() }
}

const fn is_there(error: &HubError) -> bool {
    matches!(error.code, ErrorCode::DeviceAlreadyExists | ErrorCode::ModuleAlreadyExistsOnDevice)
}
