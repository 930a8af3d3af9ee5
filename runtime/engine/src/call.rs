//! How a call of a function fails, whatever runs it.

use std::time::Duration;

/// How long a call of a built-in function may take before it is ended and its request fails. A hundred times what the
/// slowest call needs, so that a machine under load does not fail requests; a call that loops costs a worker this much
/// once.
pub const CALL_DEADLINE: Duration = Duration::from_millis(250);

/// A call that did not return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("function `{function}`: {failure}")]
pub struct CallError {
    /// Which function.
    pub function: &'static str,
    /// What happened.
    pub failure: Failure,
}

/// Why a call did not return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It ran longer than its deadline.
    #[error("ended after its deadline of {CALL_DEADLINE:?}")]
    Deadline,
    /// It trapped: a bug in the function, or a request that makes it exceed its memory or stack.
    #[error("trapped: {0}")]
    Trap(String),
    /// No instance was to be had.
    #[error("no instance is free: {0}")]
    Busy(String),
}
