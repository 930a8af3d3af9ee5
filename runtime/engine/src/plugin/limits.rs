//! What a call of a policy may take.

use std::time::Duration;

/// Most linear memory that a policy may be allowed. The interpreters in Python policies need some 40 MB; more than this
/// is a mistake, and each slot for an instance reserves this much address space.
pub const MAX_POLICY_MEMORY: usize = 256 << 20;

/// Longest deadline that a policy may be allowed: a registration whose answer takes longer is repeated by its client.
pub const MAX_POLICY_DEADLINE: Duration = Duration::from_secs(5);

/// Most table elements that a policy may be allowed. They hold indirect call targets; an interpreter has some 20,000.
pub const MAX_POLICY_TABLE_ELEMENTS: usize = 200_000;

/// Most stack that a policy may be allowed; the threads that run policies have more.
pub const MAX_POLICY_STACK: usize = 1 << 20;

/// Most bytes of a result that a policy may be allowed: an initial twin has at most 40 KB, the rest is the payload.
pub const MAX_POLICY_RESULT_BYTES: usize = 1 << 20;

/// Most calls of one policy that may be allowed to run at once.
pub const MAX_POLICY_CONCURRENCY: u32 = 16;

/// The bounds of one call. The default is what `nave policy check` and a hub use unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Time for instance and call together. Beyond it the call is ended.
    pub deadline: Duration,
    /// Linear memory of the instance, in bytes. Beyond it the call traps.
    pub memory_bytes: usize,
    /// Elements of all its tables. Beyond it the call traps.
    pub table_elements: usize,
    /// Native stack, in bytes. Beyond it the call traps.
    pub stack_bytes: usize,
    /// Bytes that the policy may hand to the host at once: its outcome, or one piece of output.
    pub result_bytes: usize,
    /// Calls that may run at once.
    pub concurrency: u32,
}

/// A bound that no host allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{name}` is {value}; it must be from {least} to {most}")]
pub struct LimitError {
    /// Which bound.
    pub name: &'static str,
    /// What it was set to.
    pub value: usize,
    /// The least that makes sense.
    pub least: usize,
    /// The host's maximum.
    pub most: usize,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(50),
            memory_bytes: 64 << 20,
            table_elements: 50_000,
            stack_bytes: 512 << 10,
            result_bytes: 256 << 10,
            concurrency: 2,
        }
    }
}

impl PolicyLimits {
    /// Whether every bound is within what a host allows.
    ///
    /// # Errors
    ///
    /// [`LimitError`], naming the first that is not.
    pub fn check(&self) -> Result<(), LimitError> {
        let milliseconds = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let concurrency = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let bounds = [
            ("deadlineMs", milliseconds(self.deadline), 1, milliseconds(MAX_POLICY_DEADLINE)),
            ("memoryBytes", self.memory_bytes, 64 << 10, MAX_POLICY_MEMORY),
            ("tableElements", self.table_elements, 1, MAX_POLICY_TABLE_ELEMENTS),
            ("stackBytes", self.stack_bytes, 16 << 10, MAX_POLICY_STACK),
            ("resultBytes", self.result_bytes, 1 << 10, MAX_POLICY_RESULT_BYTES),
            ("concurrency", concurrency(self.concurrency), 1, concurrency(MAX_POLICY_CONCURRENCY)),
        ];
        match bounds.into_iter().find(|(_, value, least, most)| value < least || value > most) {
            Some((name, value, least, most)) => Err(LimitError { name, value, least, most }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_allowed_and_what_no_host_allows_is_named() {
        PolicyLimits::default().check().unwrap();
        let greedy = PolicyLimits { memory_bytes: MAX_POLICY_MEMORY + 1, ..PolicyLimits::default() };
        assert!(matches!(greedy.check(), Err(LimitError { name: "memoryBytes", .. })));
        let hasty = PolicyLimits { deadline: Duration::ZERO, ..PolicyLimits::default() };
        assert!(matches!(hasty.check(), Err(LimitError { name: "deadlineMs", .. })));
        let none = PolicyLimits { concurrency: 0, ..PolicyLimits::default() };
        assert!(matches!(none.check(), Err(LimitError { name: "concurrency", .. })));
    }
}
