//! A registration, from the device's request to its answer.
//!
//! The answer "assigning" with an operation id is given only once the outcome is on disk, so that a poll finds it whatever
//! happens in between. Only a decision to come back later is given before: then the registration is on record as assigning.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nave_auth::{CLOCK_SKEW, SasToken};
use nave_engine::provisioning::{
    AttestationKind, Decision, DeviceAddress as WitAddress, DeviceData, Enrollment, EnrollmentKind as WitKind,
    Evidence, Registration, ReprovisionPolicy, Request, Step, Substatus as WitSubstatus, Verdict,
    Webhook as WitWebhook,
};
use nave_model::{
    AttestationRecord, DeviceAddress, EnrollmentKind, EnrollmentRecord, FormatVersion, Json, RegistrationId,
    RegistrationRecord, RegistrationStatus, Removal, SecretText, Substatus,
};
use nave_store::Revision;
use serde_json::Value;

use super::apply::recorded;
use super::attest::{Attested, DeviceCredentials, Proof};
use super::enrollment::registration_not_found;
use super::postponed::Retries;
use super::{OWNER, Provisioning};
use crate::audit::{self, Actor, Change, Outcome};
use crate::error::{ErrorCode, HubError};
use crate::registry::argument;
use crate::throttle::Operation as Limited;

/// What a device is told to wait before it polls, in seconds; the Java SDK takes 2 to 5.
pub const RETRY_AFTER_SECONDS: u32 = 3;

/// Longest registration message (protocol notes: limits §4).
pub const MAX_REGISTRATION_BYTES: usize = 96 << 10;

/// What a device presented. Its `Debug` output has no secrets.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The token's text.
    pub token: Option<SecretText>,
    /// The certificate chain of the TLS handshake, leaf first, DER.
    pub certificates: Vec<Vec<u8>>,
    /// Where it came from: who fails too often is not listened to for a while.
    pub peer: Option<IpAddr>,
}

/// A registration request.
#[derive(Clone)]
pub struct Attempt {
    /// The registration id as the device wrote it.
    pub registration_id: String,
    /// The device's proof.
    pub credentials: Credentials,
    /// The custom payload, JSON text; `None` for none and for null.
    pub payload: Option<String>,
    /// `forceRegistration`.
    pub force: bool,
    /// The api-version that the device speaks.
    pub api_version: Option<String>,
}

impl Attempt {
    /// Reads a registration message (protocol notes: provisioning devices §2.1). `id` is what the path or the client id
    /// says; the message must agree, ignoring case, if it says anything.
    ///
    /// # Errors
    ///
    /// 400.
    pub fn from_document(
        id: &str,
        document: &Value,
        credentials: Credentials,
        force: bool,
        api_version: Option<String>,
    ) -> Result<Self, HubError> {
        let Some(members) = document.as_object() else { return Err(argument("The body is not a JSON object.")) };
        match members.get("registrationId") {
            None | Some(Value::Null) => {}
            Some(Value::String(written)) if written.eq_ignore_ascii_case(id) => {}
            Some(_) => return Err(argument("registrationId in the body is not the registration id of the request.")),
        }
        if members.get("tpm").is_some_and(|tpm| !tpm.is_null()) {
            return Err(argument("TPM attestation is not available in this release of the provisioning service."));
        }
        let payload = members.get("payload").filter(|payload| !payload.is_null()).map(Value::to_string);
        Ok(Self { registration_id: id.to_owned(), credentials, payload, force, api_version })
    }
}

/// Where an operation stands.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// The registration's state.
    pub state: RegistrationRecord,
    /// When to ask again, in seconds, while it is not final.
    pub retry_after: Option<u32>,
}

impl Provisioning {
    /// Registers a device. The operation that is returned has its outcome on disk, unless a policy wants to be asked again.
    ///
    /// # Errors
    ///
    /// 400 for an id that is none, 401 if the device may not register, and ours.
    pub async fn register(self: &Arc<Self>, attempt: Attempt) -> Result<Operation, HubError> {
        let outcome = self.begin(&attempt).await;
        self.metrics().count(&outcome);
        self.audit(&attempt, &outcome);
        outcome
    }

    /// Nothing is recorded of who did not prove that they are a device of an enrollment.
    fn audit(&self, attempt: &Attempt, outcome: &Result<Operation, HubError>) {
        let (outcome, object) = match outcome {
            Err(error) if error.code.status() == 401 || error.code.status() == 429 => return,
            Err(error) => (error.into(), String::new()),
            Ok(Operation { state, .. }) => {
                let hub = state.hub.as_deref().unwrap_or_default();
                let device = state.device_id.as_deref().unwrap_or_default();
                let outcome = match state.status {
                    RegistrationStatus::Assigned | RegistrationStatus::Assigning => Outcome::Done(200),
                    RegistrationStatus::Failed | RegistrationStatus::Disabled => {
                        Outcome::Unsuccessful(state.status.name())
                    }
                };
                (outcome, format!("{hub}/devices/{device}"))
            }
        };
        let actor = Actor::Device(attempt.registration_id.clone());
        let change = Change { actor: &actor, peer: None, owner: OWNER, action: "register", object: &object, outcome };
        audit::record(&*self.env, &change);
    }

    async fn begin(self: &Arc<Self>, attempt: &Attempt) -> Result<Operation, HubError> {
        self.admit(&attempt.credentials)?;
        let id = registration_id(&attempt.registration_id)?;
        let proof = Proof::read(&attempt.credentials).map_err(|error| self.refuse(&attempt.credentials, error))?;
        let _lane = self.lanes.enter(&id).await;
        let operation_id = self.new_operation_id();
        let operation = self.attempt(&id, attempt, &proof, &operation_id, Retries::default()).await?;
        self.postponed.supersede(&id, &operation_id);
        Ok(operation)
    }

    /// What became of an operation.
    ///
    /// # Errors
    ///
    /// 401; 404 if it is not the registration's last one.
    pub async fn operation(
        &self,
        written_id: &str,
        operation_id: &str,
        credentials: &Credentials,
    ) -> Result<Operation, HubError> {
        let state = self.own_registration(written_id, credentials).await?;
        self.progress(state, operation_id).await
    }

    /// The same for a connection that has been told of this operation: whoever registers has proved who they are with the
    /// credentials of their connection, and a poll does not look for the enrollment again. A token counts until its end.
    ///
    /// # Errors
    ///
    /// As [`operation`](Self::operation).
    pub async fn operation_of_connection(
        &self,
        written_id: &str,
        operation_id: &str,
        credentials: &Credentials,
    ) -> Result<Operation, HubError> {
        let id = registration_id(written_id)?;
        if let Some(token) = &credentials.token {
            let token = SasToken::parse(token.reveal()).map_err(|error| unauthorized().with_detail(error))?;
            let is_good = token.check_expiry(self.env.now(), CLOCK_SKEW);
            is_good.map_err(|error| unauthorized().with_detail(error))?;
        }
        let (state, _) = self.load_registration(&id).await?.ok_or_else(|| registration_not_found(&id))?;
        self.progress(state, operation_id).await
    }

    async fn progress(&self, state: RegistrationRecord, operation_id: &str) -> Result<Operation, HubError> {
        self.throttle.pass_device(&self.env, Limited::DevicePolls, &state.registration_id, 1).await?;
        if state.operation_id != operation_id {
            return Err(HubError::new(
                ErrorCode::AsyncOperationNotFound,
                "No such registration operation: register again.",
            ));
        }
        if state.status == RegistrationStatus::Assigning && !self.postponed.has(&state.registration_id, operation_id) {
            return Err(HubError::new(
                ErrorCode::AsyncOperationNotFound,
                "The registration was interrupted: register again.",
            ));
        }
        let retry_after = (state.status == RegistrationStatus::Assigning).then_some(RETRY_AFTER_SECONDS);
        Ok(Operation { id: state.operation_id.clone(), state, retry_after })
    }

    /// A device's own registration.
    ///
    /// # Errors
    ///
    /// 401, 404.
    pub async fn own_registration(
        &self,
        written_id: &str,
        credentials: &Credentials,
    ) -> Result<RegistrationRecord, HubError> {
        self.admit(credentials)?;
        let id = registration_id(written_id)?;
        let proof = Proof::read(credentials).map_err(|error| self.refuse(credentials, error))?;
        let attested = self.attest(&id, written_id, &proof).await?;
        attested.verdict.map_err(|reason| self.refuse(credentials, reason))?;
        Ok(self.load_registration(&id).await?.ok_or_else(|| registration_not_found(&id))?.0)
    }

    async fn attempt(
        self: &Arc<Self>,
        id: &RegistrationId,
        attempt: &Attempt,
        proof: &Proof,
        operation_id: &str,
        retries: Retries,
    ) -> Result<Operation, HubError> {
        let attested = self.attest(id, &attempt.registration_id, proof).await?;
        match &attested.verdict {
            // Only of devices that are known: else anybody could use up everybody's allowance.
            Ok(_) if retries == Retries::default() => self.throttle.pass(&self.env, Limited::Registrations, 1).await?,
            Ok(_) => {}
            Err(reason) => drop(self.refuse(&attempt.credentials, reason)),
        }
        let mut current = self.load_registration(id).await?;
        while current.as_ref().is_some_and(|(record, _)| record.removal.is_some()) {
            self.finish_removal(id).await?;
            current = self.load_registration(id).await?;
        }
        let request = self.request(attempt, proof, &attested, current.as_ref().map(|(record, _)| record));
        let (decision, decider, by_policy) = match self.functions.begin_registration(&request)? {
            Step::Done(decision) => (decision, None, false),
            Step::Allocate(allocation) => {
                let registration = current.as_ref().map(|(record, _)| record);
                let allocated = self.allocate(&allocation, attempt, &attested, registration).await?;
                let decision = self.functions.complete_registration(&request, &allocated.outcome)?;
                let by_policy = allocated.decider.is_some();
                let decider = self.settle(allocated.decider, &decision);
                (decision, decider, by_policy)
            }
        };
        let context =
            Context { id, operation_id, attested: &attested, current: current.as_ref(), kind: request.evidence.kind };
        match decision {
            Decision::Refused(error) => {
                let code = ErrorCode::from_number(error.code).unwrap_or(ErrorCode::IotHubUnauthorizedAccess);
                Err(HubError::new(code, error.message).with_detail(error.log))
            }
            Decision::Assigned(assignment) => {
                let credentials = attested.verdict.as_ref().map_err(|reason| unauthorized().with_detail(reason))?;
                let (source, copied) = self.copy_of_source(&assignment).await?;
                let mut record = self.record(&context, RegistrationStatus::Assigned)?;
                record.substatus = Some(substatus(assignment.substatus));
                record.certificate.clone_from(&credentials.certificate);
                record.hub = Some(assignment.device.hub.clone());
                record.device_id = Some(assignment.device.device_id.clone());
                record.payload = assignment.payload_json.clone().map(crate::twin::json).transpose()?;
                let remove = assignment.remove.as_ref().filter(|_| !matches!(assignment.data, DeviceData::Keep));
                record.removal = remove.map(|address| Removal {
                    address: DeviceAddress { hub: address.hub.clone(), device_id: address.device_id.clone() },
                    copied,
                });
                let step = self.registration_step(&record, context.current)?;
                match self.place_device(&assignment, credentials, source.as_ref(), &step).await? {
                    Some(outcome) => recorded(outcome)?,
                    None => self.record_registration(step).await?,
                }
                if record.removal.is_some() {
                    self.finish_removal(id).await?;
                }
                Ok(Operation { id: operation_id.to_owned(), state: record, retry_after: None })
            }
            Decision::Disabled => {
                let record = self.record(&context, RegistrationStatus::Disabled)?;
                self.commit_registration(&context, &record).await?;
                Ok(Operation { id: operation_id.to_owned(), state: record, retry_after: None })
            }
            Decision::Failed(error) => {
                let policy = decider.as_deref();
                tracing::warn!(registration = %id, code = error.code, policy, detail = %error.log, "registration failed");
                let mut record = self.record(&context, RegistrationStatus::Failed)?;
                record.error_code = Some(error.code);
                record.error_message = Some(error.message);
                self.commit_registration(&context, &record).await?;
                Ok(Operation { id: operation_id.to_owned(), state: record, retry_after: None })
            }
            Decision::RetryAfter(_) if !self.postponed.has_room(id, attempt) => {
                let message = "Too many registrations wait for their allocation policies: try again later.";
                Err(HubError::new(ErrorCode::ThrottlingBacklogTimeout, message))
            }
            Decision::RetryAfter(seconds) if let Some(retries) = retries.next(by_policy) => {
                let record = self.record(&context, RegistrationStatus::Assigning)?;
                self.commit_registration(&context, &record).await?;
                self.retry_later(id, attempt, operation_id, retries, seconds);
                Ok(Operation { id: operation_id.to_owned(), state: record, retry_after: Some(seconds) })
            }
            Decision::RetryAfter(_) => {
                let mut record = self.record(&context, RegistrationStatus::Failed)?;
                record.error_code = Some(ErrorCode::CustomAllocationFailed.number());
                record.error_message = Some("The allocation policy did not decide in time.".to_owned());
                self.commit_registration(&context, &record).await?;
                Ok(Operation { id: operation_id.to_owned(), state: record, retry_after: None })
            }
        }
    }

    fn retry_later(
        self: &Arc<Self>,
        id: &RegistrationId,
        attempt: &Attempt,
        operation_id: &str,
        retries: Retries,
        seconds: u32,
    ) {
        let superseded = self.postponed.put(id, operation_id, attempt.clone());
        let (service, id, operation_id) = (Arc::clone(self), id.clone(), operation_id.to_owned());
        let wait = self.env.sleep(Duration::from_secs(seconds.into()));
        self.env.spawn(Box::pin(async move {
            if let Either::Right(_) = select(wait, superseded).await {
                return;
            }
            let _lane = service.lanes.enter(&id).await;
            let Some(attempt) = service.postponed.take(&id, &operation_id) else { return };
            // Another host may have taken over.
            let is_current = match service.load_registration(&id).await {
                Ok(Some((record, _))) => record.operation_id == operation_id,
                _ => false,
            };
            let mut waits_again = false;
            if let (true, Ok(proof)) = (is_current, Proof::read(&attempt.credentials)) {
                match service.attempt(&id, &attempt, &proof, &operation_id, retries).await {
                    Ok(operation) => waits_again = operation.retry_after.is_some(),
                    Err(error) => tracing::warn!(registration = %id, %error, "registration ended after a wait"),
                }
            }
            // Only now: a poll during the attempt must not take the operation for an interrupted one.
            if !waits_again {
                service.postponed.finish(&id, &operation_id);
            }
        }));
    }

    async fn commit_registration(&self, context: &Context<'_>, record: &RegistrationRecord) -> Result<(), HubError> {
        self.record_registration(self.registration_step(record, context.current)?).await
    }

    /// A registration's next state. A device that was assigned stays where it is until a decision says otherwise.
    fn record(&self, context: &Context<'_>, status: RegistrationStatus) -> Result<RegistrationRecord, HubError> {
        let enrollment = context.attested.enrollment.as_ref();
        let enrollment = enrollment.ok_or_else(|| HubError::internal("a decision without an enrollment"))?;
        let old = context.current.map(|(record, _)| record);
        let now = self.env.now();
        Ok(RegistrationRecord {
            v: FormatVersion,
            registration_id: context.id.as_str().to_owned(),
            operation_id: context.operation_id.to_owned(),
            status,
            substatus: old.and_then(|old| old.substatus),
            enrollment_kind: enrollment.kind,
            enrollment_id: enrollment.id.clone(),
            hub: old.and_then(|old| old.hub.clone()),
            device_id: old.and_then(|old| old.device_id.clone()),
            attestation: kind_name(context.kind).to_owned(),
            certificate: old.and_then(|old| old.certificate.clone()),
            error_code: None,
            error_message: None,
            payload: old.and_then(|old| old.payload.clone()),
            removal: None,
            etag: self.new_etag(),
            created: old.map_or(now, |old| old.created),
            updated: now,
        })
    }

    fn request(
        &self,
        attempt: &Attempt,
        proof: &Proof,
        attested: &Attested,
        current: Option<&RegistrationRecord>,
    ) -> Request {
        let verdict = match &attested.verdict {
            Ok(DeviceCredentials { .. }) => Verdict::Verified,
            Err(reason) => Verdict::Rejected(reason.clone()),
        };
        let kind = match proof {
            Proof::Token(_) => AttestationKind::SymmetricKey,
            Proof::Chain(_) => AttestationKind::X509,
        };
        Request {
            registration_id: attempt.registration_id.clone(),
            evidence: Evidence { kind, verdict },
            enrollment: attested.enrollment.as_deref().map(for_function),
            current: current.and_then(current_registration),
            linked_hubs: self.hubs().iter().map(super::LinkedHub::for_function).collect(),
            service_policy: self.default_policy.clone(),
            force: attempt.force,
            api_version: attempt.api_version.clone(),
        }
    }

    /// `5.` and 16 digits as in the cloud service, then a random id.
    fn new_operation_id(&self) -> String {
        let instance = u64::from_be_bytes(self.random());
        let number = u128::from_be_bytes(self.random());
        format!(
            "5.{instance:016x}.{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            number >> 96,
            number >> 80 & 0xFFFF,
            number >> 64 & 0xFFFF,
            number >> 48 & 0xFFFF,
            number & 0xFFFF_FFFF_FFFF
        )
    }
}

struct Context<'a> {
    id: &'a RegistrationId,
    operation_id: &'a str,
    attested: &'a Attested,
    current: Option<&'a (RegistrationRecord, Revision)>,
    kind: AttestationKind,
}

fn for_function(record: &EnrollmentRecord) -> Enrollment {
    Enrollment {
        kind: match record.kind {
            EnrollmentKind::Individual => WitKind::Individual,
            EnrollmentKind::Group => WitKind::Group,
        },
        id: record.id.clone(),
        enabled: record.enabled,
        attestation: match record.attestation {
            AttestationRecord::SymmetricKey(_) => AttestationKind::SymmetricKey,
            AttestationRecord::Tpm { .. } => AttestationKind::Tpm,
            _ => AttestationKind::X509,
        },
        device_id: record.device_id.clone(),
        allocation_policy: record.allocation_policy.clone(),
        hubs: record.hubs.clone(),
        legacy_hub: record.hub_host_name.clone(),
        webhook: record.webhook.as_ref().map(|webhook| WitWebhook {
            url: webhook.url.clone(),
            api_version: Some(webhook.api_version.clone()).filter(|version| !version.is_empty()),
        }),
        reprovision: record.reprovision.map(|policy| ReprovisionPolicy {
            update_hub_assignment: policy.update_hub_assignment,
            migrate_device_data: policy.migrate_device_data,
        }),
        initial_twin_json: record.initial_twin.as_ref().map(|twin| twin.text().to_owned()),
        iot_edge: record.iot_edge,
    }
}

/// The registration on record of a device that is assigned, whatever its last operation ended with.
fn current_registration(record: &RegistrationRecord) -> Option<Registration> {
    Some(Registration {
        device: WitAddress { hub: record.hub.clone()?, device_id: record.device_id.clone()? },
        substatus: match record.substatus? {
            Substatus::InitialAssignment => WitSubstatus::InitialAssignment,
            Substatus::DeviceDataMigrated => WitSubstatus::DeviceDataMigrated,
            Substatus::DeviceDataReset => WitSubstatus::DeviceDataReset,
            Substatus::ReprovisionedToInitialAssignment => WitSubstatus::ReprovisionedToInitialAssignment,
        },
        payload_json: record.payload.as_ref().map(|payload: &Json| payload.text().to_owned()),
    })
}

const fn substatus(substatus: WitSubstatus) -> Substatus {
    match substatus {
        WitSubstatus::InitialAssignment => Substatus::InitialAssignment,
        WitSubstatus::DeviceDataMigrated => Substatus::DeviceDataMigrated,
        WitSubstatus::DeviceDataReset => Substatus::DeviceDataReset,
        WitSubstatus::ReprovisionedToInitialAssignment => Substatus::ReprovisionedToInitialAssignment,
    }
}

const fn kind_name(kind: AttestationKind) -> &'static str {
    match kind {
        AttestationKind::SymmetricKey => "symmetricKey",
        AttestationKind::X509 => "x509",
        AttestationKind::Tpm => "tpm",
    }
}

fn registration_id(text: &str) -> Result<RegistrationId, HubError> {
    RegistrationId::parse(text).map_err(|error| argument(error.to_string()))
}

/// DPS answers 401002 to every device that it does not let in.
pub(super) fn unauthorized() -> HubError {
    HubError::new(ErrorCode::IotHubUnauthorizedAccess, "Unauthorized")
}
