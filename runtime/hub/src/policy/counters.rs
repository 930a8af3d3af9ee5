//! What each version decided, since this host started. Counters are of this host and are lost when it ends.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use nave_model::{AllocationPolicyName, AllocationPolicyVersion};

/// Failed decisions before a trial can end by itself: one unlucky device is no error rate.
const MIN_TRIAL_ERRORS: u64 = 5;

/// The last decisions of a trial that count towards its error rate, on this host. A trial that went well for a million
/// devices and then fails must end as soon as a young one; 1 percent of this many is [`MIN_TRIAL_ERRORS`].
const TRIAL_WINDOW: usize = 500;

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
    /// Whether each of the last decisions failed, the oldest first.
    window: VecDeque<bool>,
    errors: u64,
    has_ended: bool,
}

impl Trial {
    fn new(rollout: &str) -> Self {
        Self { rollout: rollout.to_owned(), window: VecDeque::new(), errors: 0, has_ended: false }
    }

    /// Counts a decision, and forgets the one that has left the window.
    fn count(&mut self, failed: bool) {
        if self.window.len() >= TRIAL_WINDOW {
            let left = self.window.pop_front().unwrap_or_default();
            self.errors -= u64::from(left);
        }
        self.window.push_back(failed);
        self.errors += u64::from(failed);
    }

    fn decisions(&self) -> u64 {
        u64::try_from(self.window.len()).unwrap_or(u64::MAX)
    }
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

    /// Forgets what a version decided that is deleted.
    pub(super) fn forget_version(&mut self, name: &AllocationPolicyName, version: &AllocationPolicyVersion) {
        self.versions.remove(&(name.clone(), version.clone()));
    }

    /// Counts a decision of a trial. When it has to end, returns the decisions of its window and how many of them failed,
    /// once.
    pub(super) fn count_trial(
        &mut self,
        name: &AllocationPolicyName,
        rollout: &str,
        failed: bool,
        max_error_percent: u8,
    ) -> Option<(u64, u64)> {
        let trial = self.trials.entry(name.clone()).or_insert_with(|| Trial::new(rollout));
        if trial.rollout != rollout {
            *trial = Trial::new(rollout);
        }
        trial.count(failed);
        let too_many = trial.errors >= MIN_TRIAL_ERRORS
            && trial.errors.saturating_mul(100) > trial.decisions().saturating_mul(max_error_percent.into());
        if !too_many || trial.has_ended {
            return None;
        }
        trial.has_ended = true;
        Some((trial.decisions(), trial.errors))
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

    #[test]
    fn what_a_trial_did_long_ago_does_not_excuse_what_it_does_now() {
        let name = AllocationPolicyName::parse("p").unwrap();
        let mut counters = Counters::default();
        for _ in 0..100_000 {
            assert_eq!(counters.count_trial(&name, "r", false, 10), None);
        }
        // A tenth of the window, and one more.
        for _ in 0..TRIAL_WINDOW / 10 {
            assert_eq!(counters.count_trial(&name, "r", true, 10), None);
        }
        assert_eq!(counters.count_trial(&name, "r", true, 10), Some((500, 51)));
        // Failures leave the window as well.
        let mut counters = Counters::default();
        for number in 0..100_000 {
            assert_eq!(counters.count_trial(&name, "r", number % 20 == 19, 10), None);
        }
    }

    #[test]
    fn a_deleted_version_is_forgotten_and_the_others_are_not() {
        let name = AllocationPolicyName::parse("p").unwrap();
        let version = |text| AllocationPolicyVersion::parse(text).unwrap();
        let mut counters = Counters::default();
        counters.count(&name, &version("1"), Counted::Assigned);
        counters.count(&name, &version("2"), Counted::Refused);
        counters.forget_version(&name, &version("1"));
        assert_eq!(counters.of(&name, &version("1")), VersionCounters::default());
        assert_eq!(counters.all().len(), 1);
    }
}
