//! How the records of devices and modules come into being and go away.
//!
//! A module is an aggregate like a device. What differs is that it needs its device, the owner: the commit that creates a
//! module writes the owner's record anew, so that whoever deletes the owner meanwhile is refused and looks for modules again.

use nave_model::{Authentication, DeviceRecord, Identity, IdentityEtag, IfMatch, ModuleId, SessionRecord, Timestamp};
use nave_store::{CommitError, Expect, Guard, Put, Step, StepError};

use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::outbox::Event;
use crate::session::CloseReason;
use crate::twin::{rejected_by_service, twin_record};

/// Most modules of a device, its system modules not included (Azure IoT Hub documentation, quotas; protocol notes: limits
/// §4). One more is refused with `TooManyModulesOnDevice`.
pub const MAX_MODULES: usize = 50;

impl Hub {
    /// A new record: nothing is stored yet.
    pub(crate) fn new_record(
        &self,
        identity: &Identity,
        authentication: Authentication,
        initial_twin: Option<&str>,
    ) -> Result<DeviceRecord, HubError> {
        let now = self.env.now();
        let twin = self.functions.create_twin(initial_twin, now.unix_nanos())?.map_err(rejected_by_service)?;
        let mut record = DeviceRecord::new(identity, generation_id(now), authentication, twin_record(twin)?, now);
        // A tag of an earlier identity of the same name must match nothing.
        record.etag = now.unix_millis();
        Ok(record)
    }

    /// Stores records made by [`Hub::new_record`], all in one commit, unless one of them exists. Modules of a device that
    /// exists name it as their `owner`. To be called within the lanes of all of them.
    ///
    /// # Errors
    ///
    /// 409 if one exists, 413 above [`MAX_MODULES`], 404 without the owner.
    pub(crate) async fn create(&self, records: &mut [DeviceRecord], owner: Option<&Identity>) -> Result<(), HubError> {
        self.create_then(records, owner, None).await.map(drop)
    }

    /// The same, and then the step that follows, whose outcome is returned: where the store can, both become durable together.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); the step was not taken then.
    pub(crate) async fn create_then(
        &self,
        records: &mut [DeviceRecord],
        owner: Option<&Identity>,
        next: Option<Step>,
    ) -> Result<Next, HubError> {
        let mut creations = Vec::with_capacity(records.len());
        for record in records {
            let identity = record.identity().map_err(HubError::internal)?;
            let has_event = self.add_event(record, Event::created);
            let (key, marker) = (self.keys.identity(&identity), self.keys.outbox(&identity.to_string()));
            creations.push(Creation { put: put(key.clone(), record)?, key, marker, has_event, identity });
        }
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (mut guards, mut puts) = (Vec::new(), Vec::new());
            for creation in &creations {
                self.forward_orphans(&creation.identity).await?;
                guards.push(Guard { key: creation.key.clone(), expect: Expect::Absent });
                guards.push(Guard { key: creation.marker.clone(), expect: Expect::Absent });
                puts.push(creation.put.clone());
                if creation.has_event {
                    puts.push(self.outbox_marker(&creation.identity));
                }
            }
            if let Some(owner) = owner {
                let (record, revision) = self.require(owner).await?;
                let added = creations.iter().filter(|creation| counts(&creation.identity)).count();
                let modules = self.modules_of(owner).await?;
                let there = modules.iter().filter_map(|record| record.identity().ok()).filter(counts).count();
                if added > 0 && there + added > MAX_MODULES {
                    let message = format!("A device has at most {MAX_MODULES} modules.");
                    return Err(HubError::new(ErrorCode::TooManyModulesOnDevice, message));
                }
                let key = self.keys.identity(owner);
                guards.push(Guard { key: key.clone(), expect: Expect::At(revision) });
                puts.push(put(key, &record)?);
            }
            let steps = std::iter::once(Step { guards, puts }).chain(next.clone()).collect();
            match self.store.commit_steps(steps).await {
                Err(StepError { done: 0, error: CommitError::Conflict { key, .. } }) => {
                    if let Some(existing) = creations.iter().find(|creation| creation.key == key) {
                        return Err(already_exists(&existing.identity));
                    }
                }
                Err(StepError { done: 0, error }) => return Err(error.into()),
                outcome => {
                    for creation in creations.iter().filter(|creation| creation.has_event) {
                        self.forward_events(&creation.identity).await;
                    }
                    return Ok(outcome.map(drop).map_err(|refused| refused.error));
                }
            }
        }
        let key = creations.into_iter().next().map_or_else(String::new, |creation| creation.key);
        Err(CommitError::Conflict { key, current: None }.into())
    }

    /// Removes the record of `identity` with its session and its queue, if `check` allows it; a device with modules stays, and
    /// the answer is false. To be called within the lane of `identity`.
    ///
    /// # Errors
    ///
    /// 404, and those of `check`.
    pub(crate) async fn remove(&self, identity: &Identity, check: &Check<'_>) -> Result<bool, HubError> {
        let key = self.keys.identity(identity);
        let session_key = self.keys.session(&identity.to_string());
        let _queue = self.queues.lanes.enter(identity.device_id()).await;
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (record, revision) = self.require(identity).await?;
            check(&record)?;
            // Read after the record, whose revision is guarded and moves with every module that is created.
            if !identity.is_module() && !self.modules_of(identity).await?.is_empty() {
                return Ok(false);
            }
            let session = self.store.get(&session_key).await?.as_ref().map(decode::<SessionRecord>).transpose()?;
            let end_session = || {
                if let Some((stored, _)) = &session {
                    self.end_session(identity, stored, CloseReason::Deleted);
                }
            };
            // Before the record is gone: after a crash nobody could find the host that holds the session.
            end_session();
            // The guard makes sure that no other session began meanwhile.
            let expect = session.as_ref().map_or(Expect::Absent, |(_, revision)| Expect::At(*revision));
            let mut guards = vec![
                Guard { key: key.clone(), expect: Expect::At(revision) },
                Guard { key: session_key.clone(), expect },
            ];
            let gone = [key.clone(), session_key.clone(), self.keys.announced(&identity.to_string())];
            let mut puts: Vec<Put> = gone.into_iter().map(|key| Put { key, value: None }).collect();
            if !identity.is_module() {
                let (guard, deletions) = self.queue_deletion(identity.device_id()).await?;
                guards.push(guard);
                puts.extend(deletions);
            }
            let has_event = self.orphan_events(&record, Event::deleted(&record), &mut puts)?;
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    if !identity.is_module() {
                        self.note_due(identity.device_id(), None, 0);
                    }
                    // Once more: a session that had been committed may have come into the list since.
                    end_session();
                    self.presence.forget(identity);
                    if has_event {
                        self.forward_events(identity).await;
                    }
                    return Ok(true);
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key, current: None }.into())
    }
}

/// What came of the step after a creation.
pub(crate) type Next = Result<(), CommitError>;

/// Whether a record may be removed: asked about the very revision that is removed.
pub(crate) type Check<'c> = dyn Fn(&DeviceRecord) -> Result<(), HubError> + Send + Sync + 'c;

/// The check of an entity tag: 412 for a stale one.
pub(crate) fn matches(condition: &IfMatch) -> impl Fn(&DeviceRecord) -> Result<(), HubError> + Send + Sync {
    move |record| match condition.holds_for(IdentityEtag::new(record.etag)) {
        true => Ok(()),
        false => Err(HubError::precondition_failed()),
    }
}

/// A record about to be stored.
struct Creation {
    identity: Identity,
    key: String,
    marker: String,
    put: Put,
    has_event: bool,
}

/// System modules come on top of the modules that a device may have.
fn counts(identity: &Identity) -> bool {
    !identity.module_id().is_some_and(ModuleId::is_system)
}

fn already_exists(identity: &Identity) -> HubError {
    let device = identity.device_id();
    match identity.module_id() {
        None => {
            HubError::new(ErrorCode::DeviceAlreadyExists, format!("A device with ID '{device}' is already registered."))
        }
        Some(module) => HubError::new(
            ErrorCode::ModuleAlreadyExistsOnDevice,
            format!("A module with ID '{module}' is already registered on device '{device}'."),
        ),
    }
}

/// A number that grows with time, in the form of the cloud service: 100 ns units since the year 1.
fn generation_id(now: Timestamp) -> String {
    const UNIX_EPOCH_TICKS: u64 = 621_355_968_000_000_000;
    (UNIX_EPOCH_TICKS + now.unix_nanos() / 100).to_string()
}
