//! What each version decided, since this host started.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use nave_model::{AllocationPolicyName, AllocationPolicyVersion};

/// Failed decisions before a trial can end by itself: one unlucky device is no error rate.
const MIN_TRIAL_ERRORS: u64 = 5;

/// What a version decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionCounters {
    /// Calls that were begun.
    pub decisions: u64,
    /// Devices that got a hub from it.
    pub assigned: u64,
    /// Decisions that it left to a built-in policy.
    pub delegated: u64,
    /// Devices that it refused.
    pub refused: u64,
    /// Devices that it told to come back.
    pub postponed: u64,
    /// Registrations that were told to come back because too many waited for it.
    pub overflowed: u64,
    /// Calls that failed, and outcomes that could not be used, by their kind.
    pub errors: BTreeMap<&'static str, u64>,
}

impl VersionCounters {
    /// Failed decisions of every kind.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What came of one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Assigned,
    Delegated,
    Refused,
    Postponed,
    Overflowed,
    Failed(&'static str),
}

/// The counters of all versions, and those of the trials.
#[derive(Default)]
pub(super) struct Counters {
    versions: HashMap<(AllocationPolicyName, AllocationPolicyVersion), VersionCounters>,
    trials: HashMap<AllocationPolicyName, Trial>,
}

struct Trial {
    rollout: String,
    decisions: u64,
    errors: u64,
    has_ended: bool,
}

impl Counters {
    pub(super) fn of(&self, name: &AllocationPolicyName, version: &AllocationPolicyVersion) -> VersionCounters {
        self.versions.get(&(name.clone(), version.clone())).cloned().unwrap_or_default()
    }

    /// All of them, in the order of names and versions.
    pub(super) fn all(&self) -> Vec<(AllocationPolicyName, AllocationPolicyVersion, VersionCounters)> {
        let each =
            self.versions.iter().map(|((name, version), counters)| (name.clone(), version.clone(), counters.clone()));
        let mut all: Vec<_> = each.collect();
        all.sort_by(|(name, version, _), (other, another, _)| (name, version).cmp(&(other, another)));
        all
    }

    /// Forgets what a policy decided that is deleted.
    pub(super) fn forget(&mut self, name: &AllocationPolicyName) {
        self.versions.retain(|(known, _), _| known != name);
        self.trials.remove(name);
    }

    pub(super) fn count(&mut self, name: &AllocationPolicyName, version: &AllocationPolicyVersion, counted: Counted) {
        let counters = self.versions.entry((name.clone(), version.clone())).or_default();
        if counted != Counted::Overflowed {
            counters.decisions += 1;
        }
        match counted {
            Counted::Assigned => counters.assigned += 1,
            Counted::Delegated => counters.delegated += 1,
            Counted::Refused => counters.refused += 1,
            Counted::Postponed => counters.postponed += 1,
            Counted::Overflowed => counters.overflowed += 1,
            Counted::Failed(kind) => *counters.errors.entry(kind).or_default() += 1,
        }
    }

    /// Counts a decision of a trial. Returns its counts when it has to end, once.
    pub(super) fn count_trial(
        &mut self,
        name: &AllocationPolicyName,
        rollout: &str,
        failed: bool,
        max_error_percent: u8,
    ) -> Option<(u64, u64)> {
        let fresh = || Trial { rollout: rollout.to_owned(), decisions: 0, errors: 0, has_ended: false };
        let trial = self.trials.entry(name.clone()).or_insert_with(fresh);
        if trial.rollout != rollout {
            *trial = fresh();
        }
        trial.decisions += 1;
        trial.errors += u64::from(failed);
        let too_many = trial.errors >= MIN_TRIAL_ERRORS
            && trial.errors.saturating_mul(100) > trial.decisions.saturating_mul(max_error_percent.into());
        if !too_many || trial.has_ended {
            return None;
        }
        trial.has_ended = true;
        Some((trial.decisions, trial.errors))
    }

    /// A trial could not be ended: the next failure tries again.
    pub(super) fn trial_goes_on(&mut self, name: &AllocationPolicyName, rollout: &str) {
        if let Some(trial) = self.trials.get_mut(name).filter(|trial| trial.rollout == rollout) {
            trial.has_ended = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_ends_once_when_more_than_its_share_failed() {
        let name = AllocationPolicyName::parse("p").unwrap();
        let mut counters = Counters::default();
        for _ in 0..96 {
            assert_eq!(counters.count_trial(&name, "r1", false, 5), None);
        }
        for _ in 0..5 {
            assert_eq!(counters.count_trial(&name, "r1", true, 5), None, "5 of 101 is less than 5 percent");
        }
        assert_eq!(counters.count_trial(&name, "r1", true, 5), Some((102, 6)));
        assert_eq!(counters.count_trial(&name, "r1", true, 5), None);
        counters.trial_goes_on(&name, "r1");
        assert_eq!(counters.count_trial(&name, "r1", true, 5), Some((104, 8)), "again, if it could not be ended");
        // The next roll-out begins at nothing.
        for _ in 0..4 {
            assert_eq!(counters.count_trial(&name, "r2", true, 5), None);
        }
        assert_eq!(counters.count_trial(&name, "r2", true, 5), Some((5, 5)));
    }
}
