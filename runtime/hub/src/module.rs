//! Module identities: create, read, update, delete, list (protocol notes: REST §2).

use nave_model::{Authentication, DeviceId, DeviceRecord, DeviceStatus, Identity, IdentityEtag, IfMatch, ModuleId};

use crate::aggregate::{MAX_MODULES, matches};
use crate::credentials::AuthenticationInput;
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, decode};
use crate::registry::{DeviceView, argument, needs_if_match};
use crate::session::CloseReason;

/// Longest `managedBy`, in characters; a longer one is refused. The bound is that of status reasons.
pub const MAX_MANAGED_BY: usize = 128;

/// What the service wants a module to be: the members of the REST body that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInput {
    /// Who manages the module.
    pub managed_by: Option<String>,
    /// Credentials. The type `none` counts as `sas` (protocol notes: REST §2.3).
    pub authentication: AuthenticationInput,
}

impl Hub {
    /// A module's identity, keys included.
    ///
    /// # Errors
    ///
    /// 401 if there is no such device or it is disabled; [`ErrorCode::ModuleNotFound`].
    pub async fn get_module(&self, device: &DeviceId, module: &ModuleId) -> Result<DeviceView, HubError> {
        let identity = Identity::module(device.clone(), module.clone());
        self.require_enabled_owner(&identity).await?;
        let (record, _) = self.require(&identity).await.map_err(module_not_found)?;
        self.show(&record).await
    }

    /// The modules of a device, in the order of their ids.
    ///
    /// # Errors
    ///
    /// 401 if there is no such device or it is disabled.
    pub async fn list_modules(&self, device: &DeviceId) -> Result<Vec<DeviceView>, HubError> {
        let device = Identity::device(device.clone());
        self.require_enabled_owner(&device).await?;
        let mut views = Vec::new();
        for record in self.modules_of(&device).await? {
            views.push(self.show(&record).await?);
        }
        Ok(views)
    }

    /// Creates a module (no `If-Match`) or updates it (any other).
    ///
    /// # Errors
    ///
    /// 401 if there is no such device or it is disabled; 409 for a create of what exists, 404 for an update of what does not,
    /// 412 for a stale tag, 400 for credentials that are none and for ids that begin with `$`, 413 above [`MAX_MODULES`].
    pub async fn put_module(
        &self,
        device: &DeviceId,
        module: &ModuleId,
        input: &ModuleInput,
        condition: &IfMatch,
    ) -> Result<DeviceView, HubError> {
        if condition.is_none() {
            return self.put_new_module(device, module, input, None).await;
        }
        let identity = Identity::module(device.clone(), module.clone());
        self.require_enabled_owner(&identity).await?;
        refuse_system_module(module)?;
        let managed_by = managed_by(input)?;
        let authentication = self.module_authentication(&input.authentication)?;
        let _lane = self.lanes.enter(&identity).await;
        let changed = self.change(&identity, None, |record| {
            if !condition.holds_for(IdentityEtag::new(record.etag)) {
                return Err(HubError::precondition_failed());
            }
            let rekeyed = record.authentication != authentication;
            record.authentication = authentication.clone();
            record.managed_by.clone_from(&managed_by);
            record.etag += 1;
            Ok((record.clone(), rekeyed))
        });
        let (record, rekeyed) = changed.await.map_err(module_not_found)?;
        if rekeyed {
            self.close_everywhere(&identity, CloseReason::CredentialsChanged).await?;
        }
        self.show(&record).await
    }

    /// Creates a module, perhaps with a twin to begin with.
    pub(crate) async fn put_new_module(
        &self,
        device: &DeviceId,
        module: &ModuleId,
        input: &ModuleInput,
        initial_twin: Option<&str>,
    ) -> Result<DeviceView, HubError> {
        let identity = Identity::module(device.clone(), module.clone());
        self.require_enabled_owner(&identity).await?;
        refuse_system_module(module)?;
        let authentication = self.module_authentication(&input.authentication)?;
        let mut record = self.new_record(&identity, authentication, initial_twin)?;
        record.managed_by = managed_by(input)?;
        let owner = Identity::device(device.clone());
        // The device's lane first, here and wherever both are needed.
        let _owner_lane = self.lanes.enter(&owner).await;
        let _lane = self.lanes.enter(&identity).await;
        let mut records = [record];
        self.create(&mut records, Some(&owner)).await.map_err(|error| match error.code {
            ErrorCode::DeviceNotFound => no_access(),
            _ => error,
        })?;
        let [record] = records;
        self.show(&record).await
    }

    /// Deletes a module with its twin and its session.
    ///
    /// # Errors
    ///
    /// 412 without `If-Match` or for a stale tag; 401 if there is no such device or it is disabled; 404; 400 for the modules
    /// of an edge device, which go with it.
    pub async fn delete_module(
        &self,
        device: &DeviceId,
        module: &ModuleId,
        condition: &IfMatch,
    ) -> Result<(), HubError> {
        needs_if_match(condition, "module")?;
        let identity = Identity::module(device.clone(), module.clone());
        self.require_enabled_owner(&identity).await?;
        refuse_system_module(module)?;
        let _lane = self.lanes.enter(&identity).await;
        self.remove(&identity, &matches(condition)).await.map_err(module_not_found)?;
        Ok(())
    }

    /// The records of the modules of a device, in the order of their ids.
    pub(crate) async fn modules_of(&self, device: &Identity) -> Result<Vec<DeviceRecord>, HubError> {
        let prefix = self.keys.modules(device.device_id().as_str());
        // The system modules of a device that becomes an edge device come on top of the others.
        let entries = self.store.scan(&prefix, None, 2 * MAX_MODULES).await?;
        entries.iter().map(|(_, entry)| Ok(decode::<DeviceRecord>(entry)?.0)).collect()
    }

    /// Removes all modules of a device, or its system modules only. To be called within the device's lane; a crash in between
    /// leaves a device with fewer modules.
    pub(crate) async fn remove_modules(&self, device: &Identity, system_only: bool) -> Result<(), HubError> {
        for record in self.modules_of(device).await? {
            let identity = record.identity().map_err(HubError::internal)?;
            if system_only && !identity.module_id().is_some_and(ModuleId::is_system) {
                continue;
            }
            let _lane = self.lanes.enter(&identity).await;
            match self.remove(&identity, &|_| Ok(())).await {
                Err(error) if error.code != ErrorCode::DeviceNotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Creates the system modules of an edge device that are missing, or removes those of another device. To be called within
    /// the device's lane.
    pub(crate) async fn settle_system_modules(&self, device: &Identity, iot_edge: bool) -> Result<(), HubError> {
        if !iot_edge {
            return self.remove_modules(device, true).await;
        }
        for record in self.system_modules(device)? {
            let identity = record.identity().map_err(HubError::internal)?;
            let _lane = self.lanes.enter(&identity).await;
            match self.create(&mut [record], Some(device)).await {
                Err(error) if error.code != ErrorCode::ModuleAlreadyExistsOnDevice => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the sessions of all modules of a device.
    pub(crate) async fn close_modules(&self, device: &Identity, reason: CloseReason) -> Result<(), HubError> {
        for record in self.modules_of(device).await? {
            self.close_everywhere(&record.identity().map_err(HubError::internal)?, reason).await?;
        }
        Ok(())
    }

    /// Operations on modules do not say whether there is such a device, or why not (protocol notes: REST §2.3).
    async fn require_enabled_owner(&self, identity: &Identity) -> Result<(), HubError> {
        match self.load(&Identity::device(identity.device_id().clone())).await? {
            Some((device, _)) if device.status == DeviceStatus::Enabled => Ok(()),
            _ => Err(no_access()),
        }
    }

    fn module_authentication(&self, input: &AuthenticationInput) -> Result<Authentication, HubError> {
        match input.kind.as_deref() {
            Some(kind) if kind.eq_ignore_ascii_case("none") => {
                self.authentication(&AuthenticationInput { kind: None, ..input.clone() })
            }
            _ => self.authentication(input),
        }
    }
}

fn managed_by(input: &ModuleInput) -> Result<Option<String>, HubError> {
    let manager = input.managed_by.clone().filter(|manager| !manager.is_empty());
    if manager.as_ref().is_some_and(|manager| manager.chars().count() > MAX_MANAGED_BY) {
        return Err(argument(format!("managedBy is longer than {MAX_MANAGED_BY} characters.")));
    }
    Ok(manager)
}

fn no_access() -> HubError {
    HubError::new(
        ErrorCode::IotHubUnauthorizedAccess,
        "Unauthorized: there is no such device, or it is disabled, so that its modules cannot be reached.",
    )
}

fn module_not_found(error: HubError) -> HubError {
    match error.code {
        ErrorCode::DeviceNotFound => HubError::new(ErrorCode::ModuleNotFound, "The specified module does not exist."),
        _ => error,
    }
}

fn refuse_system_module(module: &ModuleId) -> Result<(), HubError> {
    if module.is_system() {
        return Err(argument("Modules whose ids begin with '$' come and go with their edge device."));
    }
    Ok(())
}
