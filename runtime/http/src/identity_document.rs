//! Identities as the SDKs write them, alone and in bulk requests (protocol notes: REST §2.2 and §2.5).

use nave_hub::{
    AuthenticationInput, BulkChange, BulkOperation, DeviceInput, ErrorCode, HubError, ModuleInput, ScopeInput,
};
use nave_model::{DeviceId, DeviceStatus, Identity, IfMatch, ModuleId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::call::{argument, device_id};
use crate::shared_document::{Capabilities, SymmetricKey};

/// The members of an identity that count; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Document {
    device_id: Option<String>,
    module_id: Option<String>,
    managed_by: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<Authentication>,
    capabilities: Option<Capabilities>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
}

/// One element of a bulk request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Item<'a> {
    id: Option<String>,
    module_id: Option<String>,
    /// The SDKs write `eTag`; an identity as it was read, which the Node.js SDK sends as it is, has `etag`.
    #[serde(rename = "eTag")]
    bulk_etag: Option<String>,
    etag: Option<String>,
    import_mode: Option<String>,
    #[serde(rename = "twinETag", alias = "twinEtag")]
    twin_etag: Option<String>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    managed_by: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<Authentication>,
    capabilities: Option<Capabilities>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Authentication {
    r#type: Option<String>,
    symmetric_key: Option<SymmetricKey>,
    x509_thumbprint: Option<Thumbprints>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

impl Document {
    pub(crate) fn into_device(self, device: &DeviceId) -> Result<DeviceInput, HubError> {
        self.check_device(device)?;
        device_input(
            self.status.as_deref(),
            self.status_reason,
            self.authentication,
            self.capabilities,
            scopes(self.device_scope, self.parent_scopes),
        )
    }

    pub(crate) fn into_module(self, device: &DeviceId, module: &ModuleId) -> Result<ModuleInput, HubError> {
        self.check_device(device)?;
        if self.module_id.is_some_and(|written| written != module.as_str()) {
            return Err(argument("moduleId in the body is not the module id of the path."));
        }
        let authentication = self.authentication.unwrap_or_default().into_input();
        Ok(ModuleInput { managed_by: self.managed_by, authentication })
    }

    fn check_device(&self, device: &DeviceId) -> Result<(), HubError> {
        if self.device_id.as_ref().is_some_and(|written| written != device.as_str()) {
            return Err(argument("deviceId in the body is not the device id of the path."));
        }
        Ok(())
    }
}

impl Item<'_> {
    /// Which device or module the element is about.
    pub(crate) fn identity(&self) -> Result<Identity, HubError> {
        let device = self.id.as_deref().ok_or_else(|| missing("id"))?;
        let module = self.module_id.as_deref().filter(|module| !module.is_empty());
        let module = module.map(ModuleId::parse).transpose().map_err(|error| argument(error.to_string()))?;
        Ok(Identity::new(device_id(device)?, module))
    }

    pub(crate) fn into_change(self, identity: Identity) -> Result<BulkChange, HubError> {
        let mode = self.import_mode.as_deref().filter(|mode| !mode.is_empty()).ok_or_else(|| missing("importMode"))?;
        let of_identity = || if_tag(self.bulk_etag.as_deref().or(self.etag.as_deref()), "eTag");
        let operation = match mode.to_ascii_lowercase().as_str() {
            "create" => BulkOperation::Create,
            "update" => BulkOperation::Update(IfMatch::Any),
            "updateifmatchetag" => BulkOperation::Update(of_identity()?),
            "createorupdate" => BulkOperation::CreateOrUpdate(IfMatch::Any),
            "createorupdateifmatchetag" => BulkOperation::CreateOrUpdate(of_identity()?),
            "delete" => BulkOperation::Delete(IfMatch::Any),
            "deleteifmatchetag" => BulkOperation::Delete(of_identity()?),
            "updatetwin" => BulkOperation::UpdateTwin(IfMatch::Any),
            "updatetwinifmatchetag" => BulkOperation::UpdateTwin(if_tag(self.twin_etag.as_deref(), "twinETag")?),
            _ => return Err(argument("importMode is none that the registry knows.")),
        };
        let members = [("tags", self.tags), ("properties", self.properties)].map(|(name, document)| {
            document.filter(|document| document.get() != "null").map(|document| format!("\"{name}\":{document}"))
        });
        let members: Vec<String> = members.into_iter().flatten().collect();
        Ok(BulkChange {
            identity,
            operation,
            input: device_input(
                self.status.as_deref(),
                self.status_reason,
                self.authentication,
                self.capabilities,
                scopes(self.device_scope, self.parent_scopes),
            )?,
            managed_by: self.managed_by,
            twin: (!members.is_empty()).then(|| format!("{{{}}}", members.join(","))),
        })
    }
}

impl Authentication {
    fn into_input(self) -> AuthenticationInput {
        let keys = self.symmetric_key.unwrap_or_default();
        let thumbprints = self.x509_thumbprint.unwrap_or_default();
        AuthenticationInput {
            kind: self.r#type,
            primary_key: keys.primary_key,
            secondary_key: keys.secondary_key,
            primary_thumbprint: thumbprints.primary_thumbprint,
            secondary_thumbprint: thumbprints.secondary_thumbprint,
        }
    }
}

fn device_input(
    written_status: Option<&str>,
    status_reason: Option<String>,
    authentication: Option<Authentication>,
    capabilities: Option<Capabilities>,
    scopes: ScopeInput,
) -> Result<DeviceInput, HubError> {
    Ok(DeviceInput {
        status: written_status.map(status).transpose()?,
        status_reason,
        authentication: authentication.unwrap_or_default().into_input(),
        iot_edge: capabilities.unwrap_or_default().iot_edge.unwrap_or(false),
        scopes,
    })
}

fn scopes(device_scope: Option<String>, parent_scopes: Option<Vec<String>>) -> ScopeInput {
    ScopeInput { device_scope, parent_scopes: parent_scopes.unwrap_or_default() }
}

fn if_tag(tag: Option<&str>, member: &str) -> Result<IfMatch, HubError> {
    match IfMatch::parse(tag) {
        IfMatch::None => Err(missing(member)),
        condition => Ok(condition),
    }
}

fn missing(member: &str) -> HubError {
    HubError::new(ErrorCode::ArgumentNull, format!("The member {member} is missing."))
}

/// The Java SDK writes `Enabled` (protocol notes: Java SDKs).
fn status(text: &str) -> Result<DeviceStatus, HubError> {
    match text {
        text if text.eq_ignore_ascii_case("enabled") => Ok(DeviceStatus::Enabled),
        text if text.eq_ignore_ascii_case("disabled") => Ok(DeviceStatus::Disabled),
        _ => Err(argument("status is neither enabled nor disabled.")),
    }
}
