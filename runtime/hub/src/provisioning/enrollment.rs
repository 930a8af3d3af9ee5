//! Enrollments: create, read, update, delete, list.

use std::fmt;
use std::sync::Arc;

use nave_auth::{ENROLLMENT_KEY_LENGTH, KeyPair, parse_certificate_text};
use nave_model::{
    AllocationPolicyReference, AttestationRecord, CertificateText, DeviceId, DpsEtag, EnrollmentGroupId,
    EnrollmentKind, EnrollmentRecord, FormatVersion, IfMatch, Json, KeyPairText, Record, RegistrationId,
    RegistrationRecord, Reprovision, SecretText, Webhook,
};
use nave_store::{CommitError, Expect, Guard, Put, Revision};

use super::{Provisioning, configuration, deployed};
use crate::error::{ErrorCode, HubError};
use crate::hub::{decode, put};
use crate::registry::argument;
use crate::twin::rejected_by_service;

/// Most enrollment groups: each symmetric-key registration may have to try all of them.
pub const MAX_ENROLLMENT_GROUPS: usize = 200;

/// Most enrollments or registrations in one page of a query.
pub const MAX_ENROLLMENT_PAGE: usize = 1_000;

/// What the service wants an enrollment to be: the members of the REST body that count.
#[derive(Clone, Debug)]
pub struct EnrollmentInput {
    /// One device or many.
    pub kind: EnrollmentKind,
    /// Registration id or group id.
    pub id: String,
    /// Desired device id (individual enrollments only).
    pub device_id: Option<String>,
    /// Credentials.
    pub attestation: AttestationInput,
    /// False for `disabled`.
    pub enabled: bool,
    /// Edge device.
    pub iot_edge: bool,
    /// Legacy single hub.
    pub hub_host_name: Option<String>,
    /// Initial twin.
    pub initial_twin: Option<Json>,
    /// Free metadata.
    pub optional_device_information: Option<Json>,
    /// Re-provisioning.
    pub reprovision: Option<Reprovision>,
    /// Allocation policy.
    pub allocation_policy: Option<String>,
    /// Allowed hubs.
    pub hubs: Vec<String>,
    /// Custom allocation.
    pub webhook: Option<Webhook>,
}

/// Credentials as they were sent. What is absent keeps its stored value, so that an enrollment can be written back as it
/// was read, without its secrets. The `Debug` output has none.
#[derive(Clone)]
pub enum AttestationInput {
    /// Two keys; made if absent and nothing is stored.
    SymmetricKey {
        /// First key, base64.
        primary: Option<String>,
        /// Second key, base64.
        secondary: Option<String>,
    },
    /// Leaf certificates (individual) or signing certificates (group), PEM or base64.
    X509 {
        /// First certificate.
        primary: Option<String>,
        /// Second certificate.
        secondary: Option<String>,
    },
    /// Names of registered certificate authorities.
    CaReferences {
        /// First name.
        primary: String,
        /// Second name.
        secondary: Option<String>,
    },
    /// A TPM.
    Tpm {
        /// Endorsement key.
        endorsement_key: String,
        /// Storage root key.
        storage_root_key: Option<String>,
    },
}

impl fmt::Debug for AttestationInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SymmetricKey { .. } => "SymmetricKey(..)",
            Self::X509 { .. } => "X509(..)",
            Self::CaReferences { .. } => "CaReferences(..)",
            Self::Tpm { .. } => "Tpm(..)",
        })
    }
}

/// One page of records.
#[derive(Clone, Debug)]
pub struct EnrollmentPage<T> {
    /// The records.
    pub items: Vec<T>,
    /// What to pass for the next page; absent on the last.
    pub continuation: Option<String>,
}

impl Provisioning {
    /// An enrollment.
    ///
    /// # Errors
    ///
    /// 404.
    pub async fn get_enrollment(&self, kind: EnrollmentKind, id: &str) -> Result<EnrollmentRecord, HubError> {
        Ok(self.load_enrollment(kind, id).await?.ok_or_else(|| not_found(kind, id))?.0)
    }

    /// Creates an enrollment (no `If-Match`) or updates it (any other).
    ///
    /// # Errors
    ///
    /// 400 for what is not an enrollment, 409 for a create of what exists, 404 for an update of what does not, 412 for a
    /// stale tag.
    pub async fn put_enrollment(
        &self,
        input: EnrollmentInput,
        condition: &IfMatch,
    ) -> Result<EnrollmentRecord, HubError> {
        let id = enrollment_id(input.kind, &input.id)?;
        let stored = self.load_enrollment(input.kind, &id).await?;
        match (&stored, condition) {
            (Some(_), IfMatch::None) => return Err(conflict(input.kind, &id)),
            (None, IfMatch::Any | IfMatch::Tag(_)) => return Err(not_found(input.kind, &id)),
            (Some((record, _)), IfMatch::Tag(_)) if !condition.holds_for(&record.etag) => {
                return Err(HubError::precondition_failed());
            }
            (None, IfMatch::None) if input.kind == EnrollmentKind::Group => self.check_group_count().await?,
            _ => {}
        }
        let (old, revision) = stored.map_or((None, None), |(record, revision)| (Some(record), Some(revision)));
        let mut record = self.enrollment_record(input, id, old.as_ref())?;
        if let Some(webhook) = record.webhook.take() {
            record.webhook = Some(self.checked_webhook(webhook, old.as_ref()).await?);
        }
        let key = self.enrollment_key(record.kind, &record.id);
        let guards = vec![Guard { key: key.clone(), expect: revision.map_or(Expect::Absent, Expect::At) }];
        match self.store.commit(guards, vec![put(key, &record)?]).await {
            Ok(_) => Ok(record),
            Err(CommitError::Conflict { .. }) if revision.is_none() => Err(conflict(record.kind, &record.id)),
            Err(CommitError::Conflict { .. }) => Err(HubError::precondition_failed()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an enrollment. Devices that it provisioned stay.
    ///
    /// # Errors
    ///
    /// 404; 412 for a stale tag.
    pub async fn delete_enrollment(&self, kind: EnrollmentKind, id: &str, condition: &IfMatch) -> Result<(), HubError> {
        let (record, revision) = self.load_enrollment(kind, id).await?.ok_or_else(|| not_found(kind, id))?;
        if !condition.holds_for(&record.etag) {
            return Err(HubError::precondition_failed());
        }
        let key = self.enrollment_key(kind, &record.id);
        let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
        match self.store.commit(guards, vec![Put { key, value: None }]).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(HubError::precondition_failed()),
            Err(error) => Err(error.into()),
        }
    }

    /// A page of enrollments in the order of their ids.
    ///
    /// # Errors
    ///
    /// 400 for a continuation that is none.
    pub async fn list_enrollments(
        &self,
        kind: EnrollmentKind,
        limit: usize,
        continuation: Option<&str>,
    ) -> Result<EnrollmentPage<EnrollmentRecord>, HubError> {
        let prefix = match kind {
            EnrollmentKind::Individual => self.keys.enrollments(),
            EnrollmentKind::Group => self.keys.groups(),
        };
        self.page(&prefix, limit, continuation).await
    }

    /// A registration's state.
    ///
    /// # Errors
    ///
    /// 404.
    pub async fn get_registration(&self, id: &RegistrationId) -> Result<RegistrationRecord, HubError> {
        Ok(self.load_registration(id).await?.ok_or_else(|| registration_not_found(id))?.0)
    }

    /// Forgets a registration. The device in its hub stays.
    ///
    /// # Errors
    ///
    /// 404; 412 for a stale tag.
    pub async fn delete_registration(&self, id: &RegistrationId, condition: &IfMatch) -> Result<(), HubError> {
        let _lane = self.lanes.enter(id).await;
        let (record, revision) = match self.load_registration(id).await? {
            // The device in the hub that it left is to go: with the registration nobody would know of it any more.
            Some((record, _)) if record.removal.is_some() && condition.holds_for(&record.etag) => {
                self.finish_removal(id).await?;
                self.load_registration(id).await?
            }
            registration => registration,
        }
        .ok_or_else(|| registration_not_found(id))?;
        if !condition.holds_for(&record.etag) {
            return Err(HubError::precondition_failed());
        }
        let key = self.keys.registration(id.as_str());
        let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
        let mut puts = vec![Put { key, value: None }];
        if record.enrollment_kind == EnrollmentKind::Group {
            puts.push(Put { key: self.keys.member(&record.enrollment_id, id.as_str()), value: None });
        }
        match self.store.commit(guards, puts).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(HubError::precondition_failed()),
            Err(error) => Err(error.into()),
        }
    }

    /// A page of the registrations of a group.
    ///
    /// # Errors
    ///
    /// 400 for a continuation that is none. An unknown group has no registrations; a deleted one keeps those that it made.
    pub async fn list_registrations(
        &self,
        group: &str,
        limit: usize,
        continuation: Option<&str>,
    ) -> Result<EnrollmentPage<RegistrationRecord>, HubError> {
        let group = enrollment_id(EnrollmentKind::Group, group)?;
        let prefix = self.keys.members(&group);
        let (entries, continuation) = self.page_of_keys(&prefix, limit, continuation).await?;
        let mut items = Vec::with_capacity(entries.len());
        for id in entries {
            if let Some(entry) = self.store.get(&self.keys.registration(&id)).await? {
                items.push(decode::<RegistrationRecord>(&entry)?.0);
            }
        }
        Ok(EnrollmentPage { items, continuation })
    }

    /// All groups. Those that did not change since the last call are not decoded again.
    pub(crate) async fn all_groups(&self) -> Result<Vec<Arc<EnrollmentRecord>>, HubError> {
        let entries = self.store.scan(&self.keys.groups(), None, MAX_ENROLLMENT_GROUPS).await?;
        let mut cache = self.groups.lock();
        if cache.len() > 2 * MAX_ENROLLMENT_GROUPS {
            cache.clear();
        }
        entries
            .into_iter()
            .map(|(key, entry)| {
                if let Some((_, record)) = cache.get(&key).filter(|(revision, _)| *revision == entry.revision) {
                    return Ok(Arc::clone(record));
                }
                let record = Arc::new(decode::<EnrollmentRecord>(&entry)?.0);
                cache.insert(key, (entry.revision, Arc::clone(&record)));
                Ok(record)
            })
            .collect()
    }

    pub(crate) async fn load_enrollment(
        &self,
        kind: EnrollmentKind,
        id: &str,
    ) -> Result<Option<(EnrollmentRecord, Revision)>, HubError> {
        let Ok(id) = enrollment_id(kind, id) else { return Ok(None) };
        let entry = self.store.get(&self.enrollment_key(kind, &id)).await?;
        entry.map(|entry| decode(&entry)).transpose()
    }

    pub(crate) async fn load_registration(
        &self,
        id: &RegistrationId,
    ) -> Result<Option<(RegistrationRecord, Revision)>, HubError> {
        let entry = self.store.get(&self.keys.registration(id.as_str())).await?;
        entry.map(|entry| decode(&entry)).transpose()
    }

    pub(crate) fn new_etag(&self) -> String {
        let text = DpsEtag::from_u128(u128::from_be_bytes(self.random())).to_string();
        nave_model::bare_etag(&text).to_owned()
    }

    fn enrollment_key(&self, kind: EnrollmentKind, id: &str) -> String {
        match kind {
            EnrollmentKind::Individual => self.keys.enrollment(id),
            EnrollmentKind::Group => self.keys.group(id),
        }
    }

    async fn check_group_count(&self) -> Result<(), HubError> {
        let groups = self.store.scan(&self.keys.groups(), None, MAX_ENROLLMENT_GROUPS).await?;
        if groups.len() < MAX_ENROLLMENT_GROUPS {
            return Ok(());
        }
        let message = format!("There can be {MAX_ENROLLMENT_GROUPS} enrollment groups.");
        Err(HubError::new(ErrorCode::TooManyEnrollments, message))
    }

    async fn page<R: Record>(
        &self,
        prefix: &str,
        limit: usize,
        continuation: Option<&str>,
    ) -> Result<EnrollmentPage<R>, HubError> {
        let limit = limit.clamp(1, MAX_ENROLLMENT_PAGE);
        let after = continuation.map(|token| after_key(prefix, token)).transpose()?;
        let mut entries = self.store.scan(prefix, after.as_deref(), limit + 1).await?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let continuation = entries.last().filter(|_| more).and_then(|(key, _)| key.strip_prefix(prefix)).map(to_token);
        let items = entries.iter().map(|(_, entry)| Ok(decode::<R>(entry)?.0)).collect::<Result<_, HubError>>()?;
        Ok(EnrollmentPage { items, continuation })
    }

    async fn page_of_keys(
        &self,
        prefix: &str,
        limit: usize,
        continuation: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), HubError> {
        let limit = limit.clamp(1, MAX_ENROLLMENT_PAGE);
        let after = continuation.map(|token| after_key(prefix, token)).transpose()?;
        let mut entries = self.store.scan(prefix, after.as_deref(), limit + 1).await?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let suffixes = entries.iter().filter_map(|(key, _)| key.strip_prefix(prefix));
        let continuation = suffixes.clone().next_back().filter(|_| more).map(to_token);
        let ids = suffixes.filter_map(|part| nave_model::unescape_key_part(part).map(|id| id.into_owned())).collect();
        Ok((ids, continuation))
    }

    fn enrollment_record(
        &self,
        input: EnrollmentInput,
        id: String,
        old: Option<&EnrollmentRecord>,
    ) -> Result<EnrollmentRecord, HubError> {
        let device_id = input.device_id.filter(|text| !text.is_empty() && input.kind == EnrollmentKind::Individual);
        if let Some(device) = &device_id {
            DeviceId::parse(device).map_err(|error| argument(error.to_string()))?;
        }
        if let Some(twin) = &input.initial_twin {
            // The same rules as at the time of the registration, so that a wrong twin is found when it is written.
            self.functions.create_twin(Some(twin.text()), 0)?.map_err(rejected_by_service)?;
        }
        let policy = input.allocation_policy.filter(|text| !text.is_empty());
        if let Some(policy) = &policy {
            let known = ["hashed", "geoLatency", "static", "custom"];
            if !known.iter().any(|name| name.eq_ignore_ascii_case(policy)) {
                return Err(argument(format!("Unknown allocationPolicy '{policy}': use one of {}.", known.join(", "))));
            }
            if policy.eq_ignore_ascii_case("custom") && input.webhook.is_none() {
                return Err(argument("allocationPolicy 'custom' needs a customAllocationDefinition."));
            }
        }
        let now = self.env.now();
        Ok(EnrollmentRecord {
            v: FormatVersion,
            kind: input.kind,
            attestation: self.attestation(input.kind, input.attestation, old)?,
            id,
            device_id,
            enabled: input.enabled,
            iot_edge: input.iot_edge,
            hub_host_name: input.hub_host_name.filter(|text| !text.is_empty()),
            initial_twin: input.initial_twin,
            optional_device_information: input.optional_device_information,
            reprovision: input.reprovision,
            allocation_policy: policy,
            hubs: input.hubs,
            webhook: input.webhook,
            etag: self.new_etag(),
            created: old.map_or(now, |old| old.created),
            updated: now,
        })
    }

    /// A custom allocation that can be carried out, as far as that can be told now: a policy may be pushed later. A
    /// configuration that is not sent stays as it was, so that SDKs that do not know it do not lose it; null removes it.
    async fn checked_webhook(&self, mut webhook: Webhook, old: Option<&EnrollmentRecord>) -> Result<Webhook, HubError> {
        if self.deployed.is_some() {
            return deployed::checked(webhook);
        }
        let Some((policies, hooks)) = self.allocation_policies().zip(self.hooks()) else {
            return Err(argument("This provisioning service has no custom allocation."));
        };
        if !AllocationPolicyReference::is_meant(&webhook.url) {
            if webhook.configuration.take().is_some_and(|document| document.text() != "null") {
                return Err(argument("Only a policy (nave:policy/NAME) has a configuration, a web hook has none."));
            }
            hooks.allows(&webhook.url).map_err(|why| argument(format!("{why}.")))?;
            return Ok(webhook);
        }
        let reference = AllocationPolicyReference::parse(&webhook.url)
            .map_err(|error| argument(format!("webhookUrl: {error}.")))?;
        let stored = old.and_then(|old| old.webhook.as_ref()).filter(|stored| stored.url == webhook.url);
        webhook.configuration = match webhook.configuration {
            None => stored.and_then(|stored| stored.configuration.clone()),
            Some(document) if document.text() == "null" => None,
            Some(document) => {
                let schema = policies.schema(&reference).await?;
                configuration::check(&schema, &document).map_err(|why| {
                    argument(format!("The configuration for '{}' is not valid: {why}.", reference.name))
                })?;
                Some(document)
            }
        };
        Ok(webhook)
    }

    fn attestation(
        &self,
        kind: EnrollmentKind,
        input: AttestationInput,
        old: Option<&EnrollmentRecord>,
    ) -> Result<AttestationRecord, HubError> {
        let old = old.map(|old| &old.attestation);
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        match input {
            AttestationInput::SymmetricKey { primary, secondary } => {
                match (present(primary), present(secondary), old) {
                    (Some(primary), Some(secondary), _) => {
                        KeyPair::from_base64(&primary, &secondary)
                            .map_err(|error| argument(format!("Invalid symmetric key: {error}.")))?;
                        Ok(AttestationRecord::SymmetricKey(KeyPairText {
                            primary: SecretText::new(primary),
                            secondary: SecretText::new(secondary),
                        }))
                    }
                    (None, None, Some(AttestationRecord::SymmetricKey(keys))) => {
                        Ok(AttestationRecord::SymmetricKey(keys.clone()))
                    }
                    (None, None, _) => {
                        let keys = KeyPair::generate(ENROLLMENT_KEY_LENGTH, |buffer| self.env.fill_random(buffer));
                        Ok(AttestationRecord::SymmetricKey(KeyPairText {
                            primary: SecretText::new(keys.primary.expose_base64()),
                            secondary: SecretText::new(keys.secondary.expose_base64()),
                        }))
                    }
                    _ => Err(argument(
                        "A symmetric key attestation has either no keys or both keys: send none to have them made.",
                    )),
                }
            }
            AttestationInput::X509 { primary, secondary } => {
                let (old_primary, old_secondary) = match old {
                    Some(
                        AttestationRecord::ClientCertificates { primary, secondary }
                        | AttestationRecord::SigningCertificates { primary, secondary },
                    ) => (Some(primary.clone()), secondary.clone()),
                    _ => (None, None),
                };
                let primary = present(primary).map(|text| certificate(&text)).transpose()?.or(old_primary);
                let Some(primary) = primary else {
                    return Err(argument("An X.509 attestation needs a primary certificate."));
                };
                let secondary = present(secondary).map(|text| certificate(&text)).transpose()?.or(old_secondary);
                Ok(match kind {
                    EnrollmentKind::Individual => AttestationRecord::ClientCertificates { primary, secondary },
                    EnrollmentKind::Group => AttestationRecord::SigningCertificates { primary, secondary },
                })
            }
            AttestationInput::CaReferences { primary, secondary } => {
                Ok(AttestationRecord::CaReferences { primary, secondary: present(secondary) })
            }
            AttestationInput::Tpm { .. } if kind == EnrollmentKind::Group => {
                Err(argument("An enrollment group cannot have TPM attestation."))
            }
            AttestationInput::Tpm { endorsement_key, storage_root_key } => {
                Ok(AttestationRecord::Tpm { endorsement_key, storage_root_key: present(storage_root_key) })
            }
        }
    }
}

/// The canonical form of an enrollment's id.
pub(crate) fn enrollment_id(kind: EnrollmentKind, id: &str) -> Result<String, HubError> {
    let id = match kind {
        EnrollmentKind::Individual => RegistrationId::parse(id).map(|id| id.as_str().to_owned()),
        EnrollmentKind::Group => EnrollmentGroupId::parse(id).map(|id| id.as_str().to_owned()),
    };
    id.map_err(|error| argument(error.to_string()))
}

fn certificate(text: &str) -> Result<CertificateText, HubError> {
    use base64::Engine as _;
    let der = parse_certificate_text(text).map_err(|error| argument(format!("Invalid certificate: {error}.")))?;
    Ok(CertificateText(base64::engine::general_purpose::STANDARD.encode(der)))
}

/// A continuation is the escaped id of the last item; it is opaque to clients and harmless when forged, because the
/// prefix is put in front again.
fn to_token(part: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part)
}

fn after_key(prefix: &str, token: &str) -> Result<String, HubError> {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok();
    let part = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    // Not from the beginning: a client that follows continuations would never end.
    let part = part.ok_or_else(|| argument("The continuation is not one that this service has given."))?;
    Ok(format!("{prefix}{part}"))
}

fn not_found(kind: EnrollmentKind, id: &str) -> HubError {
    match kind {
        EnrollmentKind::Individual => {
            HubError::new(ErrorCode::EnrollmentNotFound, format!("No enrollment with registration id '{id}'."))
        }
        EnrollmentKind::Group => {
            HubError::new(ErrorCode::EnrollmentGroupNotFound, format!("No enrollment group '{id}'."))
        }
    }
}

fn conflict(kind: EnrollmentKind, id: &str) -> HubError {
    match kind {
        EnrollmentKind::Individual => HubError::new(
            ErrorCode::EnrollmentConflict,
            format!("An enrollment with registration id '{id}' exists: send its etag as If-Match to update it."),
        ),
        EnrollmentKind::Group => HubError::new(
            ErrorCode::EnrollmentGroupConflict,
            format!("The enrollment group '{id}' exists: send its etag as If-Match to update it."),
        ),
    }
}

pub(crate) fn registration_not_found(id: &RegistrationId) -> HubError {
    HubError::new(ErrorCode::DeviceRegistrationNotFound, format!("No registration with id '{id}'."))
}
