//! Which version decides: activation, trials on a share of the devices, and the way back.

use std::sync::Arc;
use std::time::Duration;

use nave_model::{
    AllocationPolicyName, AllocationPolicyRecord, AllocationPolicyVersion, CanaryRecord, IfMatch, PolicyLimitsRecord,
    ReturnRecord,
};

use super::loaded::limits;
use super::{Policies, not_found, version_of};
use crate::error::{ErrorCode, HubError};
use crate::registry::argument;

/// Failed decisions, in percent of all, beyond which a trial ends by itself unless the operator says otherwise.
pub const DEFAULT_MAX_ERROR_PERCENT: u8 = 10;

/// Most calls of one policy that may be allowed to wait.
const MAX_QUEUE: u32 = 1_024;

/// Calls of one policy that wait for their turn, unless the policy says otherwise; the next registrations are told to come
/// back. At the usual deadline the last of them waits less than two seconds.
const DEFAULT_QUEUE: u32 = 64;

/// Longest time that the last call in a queue may wait if each call before it takes its whole deadline: devices give up
/// after 30 s. A queue that could take longer is refused, and the usual one is shortened.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(20);

/// Calls of a policy with these limits that may wait for their turn.
pub(super) fn queue(settings: PolicyLimitsRecord) -> u32 {
    settings.queue.unwrap_or(DEFAULT_QUEUE).min(longest_queue(settings))
}

/// How many calls may wait so that the last one is asked within [`MAX_QUEUE_WAIT`].
fn longest_queue(settings: PolicyLimitsRecord) -> u32 {
    let limits = limits(settings);
    let turns = MAX_QUEUE_WAIT.as_nanos() / limits.deadline.as_nanos().max(1);
    u32::try_from(turns).unwrap_or(u32::MAX).saturating_mul(limits.concurrency).clamp(1, MAX_QUEUE)
}

fn check_queue(settings: PolicyLimitsRecord) -> Result<(), HubError> {
    let Some(queue) = settings.queue else { return Ok(()) };
    let longest = longest_queue(settings);
    if queue <= longest {
        return Ok(());
    }
    let limits = limits(settings);
    Err(argument(format!(
        "Invalid limits: the limit `queue` is at most {longest} with a deadline of {} ms and {} calls at once, so that the \
         last in the queue waits no longer than {} s.",
        limits.deadline.as_millis(),
        limits.concurrency,
        MAX_QUEUE_WAIT.as_secs()
    )))
}

/// A version that shall decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The version.
    pub version: AllocationPolicyVersion,
    /// On trial, for a share of the devices; absent for all of them.
    pub trial: Option<Trial>,
}

/// A trial on a share of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The share, 1 to 99 percent.
    pub percent: u8,
    /// Failed decisions, in percent of all, beyond which it ends by itself.
    pub max_error_percent: u8,
}

/// How a policy is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicySettings {
    /// Limits that differ from the usual ones; absent leaves them.
    pub limits: Option<PolicyLimitsRecord>,
    /// Whether what it writes goes into the log; absent leaves it.
    pub debug: Option<bool>,
}

impl Policies {
    /// Makes a version decide, for all devices or on trial. It is loaded before, so no registration meets a version that is
    /// not there yet; calls that are under way finish on the old one.
    ///
    /// # Errors
    ///
    /// 400 for a trial without a version that decides otherwise, 404, 412 for a stale tag.
    pub async fn activate(
        self: &Arc<Self>,
        name: &AllocationPolicyName,
        activation: Activation,
        condition: &IfMatch,
    ) -> Result<AllocationPolicyRecord, HubError> {
        let record = self.get(name).await?;
        if !condition.holds_for(&record.etag) {
            return Err(HubError::precondition_failed());
        }
        let version = version_of(&record, &activation.version)?;
        self.ensure_loaded(&record, version).await?;
        let digest = version.digest.clone();
        let (rollout, now) = (format!("{:032x}", u128::from_be_bytes(self.random())), self.env.now());
        let Activation { version, trial } = activation;
        let changed = self.change(name, condition, |record| {
            // It may have been deleted, or pushed anew, while it was loaded.
            if version_of(record, &version)?.digest != digest {
                return Err(HubError::precondition_failed());
            }
            record.returned = None;
            let Some(trial) = trial else {
                if record.active.as_ref() != Some(&version) {
                    record.previous = record.active.replace(version.clone());
                }
                record.canary = None;
                return Ok(());
            };
            if !(1..=99).contains(&trial.percent) || !(1..=100).contains(&trial.max_error_percent) {
                return Err(argument(
                    "A trial is for 1 to 99 percent of the devices, and ends at 1 to 100 percent errors.",
                ));
            }
            match &record.active {
                None => return Err(argument("Nothing decides yet: activate a version for all devices first.")),
                Some(active) if *active == version => {
                    return Err(argument(format!("Version '{version}' decides already, for all devices.")));
                }
                Some(_) => {}
            }
            // Who takes part stays as it was while a trial of the same version goes on: its share only grows or shrinks.
            let rollout = match record.canary.take() {
                Some(old) if old.version == version => old.rollout,
                _ => rollout,
            };
            record.canary = Some(CanaryRecord {
                version: version.clone(),
                percent: trial.percent,
                rollout,
                max_error_percent: trial.max_error_percent,
                started: now,
            });
            Ok(())
        });
        let changed = changed.await?;
        tracing::info!(
            policy = %name, %version, percent = trial.map_or(100, |trial| trial.percent), "allocation policy activated"
        );
        Ok(changed)
    }

    /// Takes back what was done last: ends a trial, acknowledges one that ended by itself (which was taken back already), or
    /// makes the version decide that decided before.
    ///
    /// # Errors
    ///
    /// 400 if there is nothing to go back to, 404, 412 for a stale tag.
    pub async fn roll_back(
        self: &Arc<Self>,
        name: &AllocationPolicyName,
        condition: &IfMatch,
    ) -> Result<AllocationPolicyRecord, HubError> {
        let record = self.get(name).await?;
        if let (None, None, Some(previous)) = (&record.canary, &record.returned, &record.previous) {
            self.ensure_loaded(&record, version_of(&record, previous)?).await?;
        }
        let changed = self.change(name, condition, |record| {
            if record.canary.take().is_some() || record.returned.take().is_some() {
                return Ok(());
            }
            let Some(previous) = record.previous.take() else {
                return Err(argument(format!("'{}' has no version to go back to.", record.name)));
            };
            record.previous = record.active.replace(previous);
            Ok(())
        });
        let changed = changed.await?;
        let version = changed.active.as_ref().map(AllocationPolicyVersion::as_str).unwrap_or_default();
        tracing::info!(policy = %name, version, "allocation policy rolled back");
        Ok(changed)
    }

    /// Changes how a policy is run. The versions that decide are loaded under their new limits before, as in
    /// [`Policies::activate`].
    ///
    /// # Errors
    ///
    /// 400 for limits beyond the host's, 404, 412 for a stale tag.
    pub async fn configure(
        self: &Arc<Self>,
        name: &AllocationPolicyName,
        settings: PolicySettings,
        condition: &IfMatch,
    ) -> Result<AllocationPolicyRecord, HubError> {
        if let Some(wanted) = settings.limits {
            limits(wanted).check().map_err(|error| argument(format!("Invalid limits: {error}.")))?;
            check_queue(wanted)?;
        }
        let mut record = AllocationPolicyRecord::clone(&*self.get(name).await?);
        if !condition.holds_for(&record.etag) {
            return Err(HubError::precondition_failed());
        }
        record.limits = settings.limits.unwrap_or(record.limits);
        for version in record.active.iter().chain(record.canary.iter().map(|canary| &canary.version)) {
            self.ensure_loaded(&record, version_of(&record, version)?).await?;
        }
        self.change(name, condition, |record| {
            record.limits = settings.limits.unwrap_or(record.limits);
            record.debug = settings.debug.unwrap_or(record.debug);
            Ok(())
        })
        .await
    }

    /// Deletes a version that decides nothing. With `force` also one that enrollments name; their devices cannot register
    /// from then on.
    ///
    /// # Errors
    ///
    /// 404; 409 for one that is active or on trial, or that enrollments name; 412 for a stale tag.
    pub async fn delete_version(
        &self,
        name: &AllocationPolicyName,
        version: &AllocationPolicyVersion,
        force: bool,
        condition: &IfMatch,
    ) -> Result<(), HubError> {
        version_of(&*self.get(name).await?, version)?;
        if !force {
            self.ensure_unused(name, Some(version)).await?;
        }
        let mut digest = String::new();
        self.change(name, condition, |record| {
            version_of(record, version)?.digest.clone_into(&mut digest);
            let decides = record.active.as_ref() == Some(version)
                || record.canary.as_ref().is_some_and(|canary| canary.version == *version);
            if decides {
                return Err(HubError::new(
                    ErrorCode::GenericConflict,
                    format!("Version '{version}' decides: activate another one first."),
                ));
            }
            record.versions.retain(|known| known.version != *version);
            if record.previous.as_ref() == Some(version) {
                record.previous = None;
            }
            Ok(())
        })
        .await?;
        self.loaded.lock().forget_version(name, version);
        self.counters.lock().forget_version(name, version);
        self.remove_pieces_if_unused(&digest).await
    }

    /// Ends a trial because too much of it failed. Another host, or the operator, may have ended it meanwhile.
    pub(super) async fn end_trial(
        &self,
        name: &AllocationPolicyName,
        rollout: &str,
        decisions: u64,
        errors: u64,
    ) -> Result<(), HubError> {
        let (_, record) = self.load(name).await?.ok_or_else(|| not_found(name))?;
        let Some(canary) = record.canary.as_ref().filter(|canary| canary.rollout == rollout) else { return Ok(()) };
        let (version, at) = (canary.version.clone(), self.env.now());
        let condition = IfMatch::Tag(record.etag.clone());
        self.change(name, &condition, |record| {
            record.canary = None;
            record.returned = Some(ReturnRecord { version: version.clone(), decisions, errors, at });
            Ok(())
        })
        .await?;
        tracing::error!(
            policy = %name, %version, decisions, errors,
            "the trial of an allocation policy ended by itself: too many of its decisions failed"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_as_long_as_devices_are_patient() {
        let settings = |deadline_ms, concurrency, queue| PolicyLimitsRecord {
            deadline_ms: Some(deadline_ms),
            concurrency: Some(concurrency),
            queue,
            ..PolicyLimitsRecord::default()
        };
        assert_eq!(queue(PolicyLimitsRecord::default()), DEFAULT_QUEUE);
        assert_eq!((queue(settings(5_000, 1, None)), queue(settings(5_000, 2, None))), (4, 8));
        assert!(check_queue(settings(5_000, 1, Some(4))).is_ok());
        let error = check_queue(settings(5_000, 1, Some(5))).unwrap_err();
        assert!(error.to_string().contains("at most 4"), "{error}");
        assert!(check_queue(settings(1, 16, Some(MAX_QUEUE + 1))).is_err());
        // What was stored before there was this rule.
        assert_eq!(queue(settings(5_000, 1, Some(1_000))), 4);
    }
}
