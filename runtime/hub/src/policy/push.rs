//! Storing a version: verified, compiled and tried out before anything is written.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_engine::plugin::{Policy, PolicyLabel};
use nave_model::{
    AllocationPolicyName, AllocationPolicyRecord, AllocationPolicyVersion, FormatVersion, IfMatch, Json,
    PolicyLimitsRecord, PolicyVersionRecord,
};
use nave_store::Expect;

use super::loaded::limits;
use super::pieces::digest_of;
use super::pool::Bounds;
use super::{MAX_POLICIES, MAX_POLICY_VERSIONS, Policies, find, not_found};
use crate::error::{ErrorCode, HubError};
use crate::registry::argument;

/// Largest component. Python policies have 18 MB; an upload holds a few copies in memory, and one upload at a time is done.
pub const MAX_COMPONENT_BYTES: usize = 48 << 20;

/// Longest text that says where a component is from, in bytes: a registry, a repository and a digest.
pub const MAX_SOURCE_BYTES: usize = 512;

/// Compilations that wait for their turn; more are refused, and repeated by whoever asked.
pub(super) const COMPILATIONS: Bounds = Bounds { running: 1, waiting: 128 };

/// The right to upload a component; there is one. To be taken before the component is read.
pub struct UploadSlot {
    _held: tokio::sync::OwnedMutexGuard<()>,
}

/// A version of a policy as it arrives.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Which policy.
    pub name: AllocationPolicyName,
    /// Which version.
    pub version: AllocationPolicyVersion,
    /// The component.
    pub component: bytes::Bytes,
    /// SHA-256 of the component as the sender computed it, lower case hexadecimal.
    pub digest: Option<String>,
    /// An Ed25519 signature of its [`statement`].
    pub signature: Option<Vec<u8>>,
    /// Where the sender says that it is from, pinned: shown to whoever asks later. At most [`MAX_SOURCE_BYTES`].
    pub source: Option<String>,
}

impl Policies {
    /// Begins an upload.
    ///
    /// # Errors
    ///
    /// 429 while another one is under way.
    pub fn begin_upload(&self) -> Result<UploadSlot, HubError> {
        let held = Arc::clone(&self.uploading).try_lock_owned();
        let held = held.map_err(|_| {
            HubError::new(
                ErrorCode::ThrottlingBacklogTimeout,
                "Another policy is being uploaded: try again in a moment.",
            )
        })?;
        Ok(UploadSlot { _held: held })
    }

    /// Stores a version. A policy of that name is made if there is none. A version never changes: pushing the same bytes
    /// again changes nothing, pushing others under its name is a conflict.
    ///
    /// # Errors
    ///
    /// 400 for what is not a policy, is damaged or is not signed; 409 for a version that exists with another content; 412
    /// for a stale tag; 413 if there is too much of something; 429 if too many compile.
    pub async fn push(
        &self,
        _slot: UploadSlot,
        upload: Upload,
        condition: &IfMatch,
    ) -> Result<AllocationPolicyRecord, HubError> {
        let Upload { name, version, component, .. } = &upload;
        if component.len() > MAX_COMPONENT_BYTES {
            return Err(too_large(format!("A component has at most {MAX_COMPONENT_BYTES} bytes.")));
        }
        let digest = digest_of(component);
        if upload.digest.as_ref().is_some_and(|stated| *stated != digest) {
            return Err(argument(format!("The component was damaged on the way: its SHA-256 is {digest}.")));
        }
        if upload.source.as_ref().is_some_and(|source| !is_source(source)) {
            return Err(argument(format!(
                "A source is printable ASCII without spaces, at most {MAX_SOURCE_BYTES} bytes."
            )));
        }
        let signature = upload.signature.as_ref().map(|bytes| STANDARD.encode(bytes));
        let signed_by = self.signer(name, version, &digest, signature.as_deref())?;
        let stored = self.load(name).await?;
        match (&stored, condition) {
            (None, IfMatch::Any | IfMatch::Tag(_)) => return Err(not_found(name)),
            (Some((_, record)), condition) if !condition.holds_for(&record.etag) => {
                return Err(HubError::precondition_failed());
            }
            (Some((_, record)), _) => match find(record, version) {
                Some(known) if known.digest == digest => {
                    // Pieces that are missing or damaged come back: this is how a component is repaired.
                    let _nothing_is_removed = self.pieces.lock().await;
                    self.write_pieces(&digest, component).await?;
                    if signed_by.is_none() || known.signature == signature {
                        return Ok(AllocationPolicyRecord::clone(record));
                    }
                    // Signed by another key than before, which is how a key is replaced.
                    let condition = IfMatch::Tag(record.etag.clone());
                    return self
                        .change(name, &condition, |record| {
                            let known = record.versions.iter_mut().find(|known| known.version == *version);
                            let known = known.ok_or_else(HubError::precondition_failed)?;
                            (known.signature, known.signed_by) = (signature, signed_by);
                            Ok(())
                        })
                        .await;
                }
                Some(_) => {
                    return Err(HubError::new(
                        ErrorCode::GenericConflict,
                        format!(
                            "Version '{version}' of '{name}' exists with another content: push under a new version."
                        ),
                    ));
                }
                None if record.versions.len() >= MAX_POLICY_VERSIONS => {
                    return Err(too_large(format!(
                        "'{name}' has {MAX_POLICY_VERSIONS} versions, the most there may be: delete one."
                    )));
                }
                None => {}
            },
            (None, IfMatch::None) if self.list().await?.len() >= MAX_POLICIES => {
                return Err(too_large(format!(
                    "There are {MAX_POLICIES} policies, the most there may be: delete one."
                )));
            }
            (None, IfMatch::None) => {}
        }
        let settings = stored.as_ref().map(|(_, record)| record.limits).unwrap_or_default();
        let policy = self.compile(name, version, component.clone(), settings).await?;
        let schema = policy.configuration_schema().map(check_schema).transpose()?;
        let _nothing_is_removed = self.pieces.lock().await;
        let guards = self.write_pieces(&digest, component).await?;
        let now = self.env.now();
        let (mut record, expect) = match stored {
            Some((revision, record)) => (AllocationPolicyRecord::clone(&record), Expect::At(revision)),
            None => (new_record(name, now), Expect::Absent),
        };
        record.versions.push(PolicyVersionRecord {
            version: version.clone(),
            size: u64::try_from(component.len()).unwrap_or(u64::MAX),
            contract: policy.inspect().contract.clone(),
            schema,
            signed_by,
            signature,
            source: upload.source.clone(),
            digest: digest.clone(),
            created: now,
        });
        self.save(&mut record, expect, guards).await?;
        self.loaded.lock().put(name, version, &digest, settings, policy);
        tracing::info!(policy = %name, %version, %digest, bytes = component.len(), "allocation policy stored");
        Ok(record)
    }

    /// Compiles a component where it delays nobody.
    pub(super) async fn compile(
        &self,
        name: &AllocationPolicyName,
        version: &AllocationPolicyVersion,
        component: bytes::Bytes,
        settings: PolicyLimitsRecord,
    ) -> Result<Policy, HubError> {
        let (engine, limits) = (Arc::clone(&self.engine), limits(settings));
        let label = PolicyLabel { name: name.as_str().to_owned(), version: version.as_str().to_owned() };
        let compiled = self.loads.run("", COMPILATIONS, move || engine.compile(&label, &component, &limits)).await;
        compiled
            .map_err(|error| {
                HubError::new(
                    ErrorCode::ThrottlingBacklogTimeout,
                    "Too many policies are being compiled: try again later.",
                )
                .with_detail(error)
            })?
            .map_err(|error| argument(format!("Not usable as an allocation policy: {error}.")))
    }
}

fn new_record(name: &AllocationPolicyName, now: nave_model::Timestamp) -> AllocationPolicyRecord {
    AllocationPolicyRecord {
        v: FormatVersion,
        name: name.clone(),
        versions: Vec::new(),
        active: None,
        previous: None,
        canary: None,
        returned: None,
        limits: PolicyLimitsRecord::default(),
        debug: false,
        etag: String::new(),
        created: now,
        updated: now,
    }
}

/// A schema that cannot be used is found when the policy is pushed, not when an enrollment is written.
fn check_schema(text: &str) -> Result<Json, HubError> {
    crate::provisioning::schema_of(text)
        .map_err(|error| argument(format!("The schema of its configuration is not usable: {error}.")))
}

/// Text that may stand in a table and in a log as it is.
fn is_source(text: &str) -> bool {
    text.len() <= MAX_SOURCE_BYTES && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn too_large(message: String) -> HubError {
    HubError::new(ErrorCode::MessageTooLarge, message)
}
