//! Policies that are pushed to a running hub: not here. A component cannot compile components; its deployment names the
//! one policy instead ([`Functions::allocate_by_deployed_policy`](super::Functions::allocate_by_deployed_policy)).
//!
//! The types are those of the native module as far as the hub names them, so that it is the same code. No value of
//! [`Policy`] can exist.

#[path = "../plugin/limits.rs"]
mod limits;

mod error {
    /// Why a component cannot be used as a policy.
    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    pub enum PolicyError {
        /// Always.
        #[error("this host takes no policies: the deployment names the one that it has")]
        NotHere,
        /// A limit is out of range.
        #[error(transparent)]
        Limit(#[from] super::limits::LimitError),
    }
}

use crate::allocation;

pub use error::PolicyError;
pub use limits::{
    LimitError, MAX_POLICY_CONCURRENCY, MAX_POLICY_DEADLINE, MAX_POLICY_MEMORY, MAX_POLICY_RESULT_BYTES,
    MAX_POLICY_STACK, MAX_POLICY_TABLE_ELEMENTS, PolicyLimits,
};

/// Which policy, in which version: what errors and logs name it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyLabel {
    /// The policy's name.
    pub name: String,
    /// The version.
    pub version: String,
}

/// What a call took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallReport {
    /// The call itself.
    pub call: std::time::Duration,
    /// What the policy wrote to its standard output and error.
    pub output: String,
    /// Whether it wrote more than that.
    pub output_truncated: bool,
    /// After a trap: the functions that were active.
    pub backtrace: Vec<String>,
}

/// What a component is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The version of `nave:allocation` that it was built against.
    pub contract: String,
}

/// A call that did not return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct PolicyCallError {
    /// What happened.
    pub failure: PolicyFailure,
}

/// Why a call did not return: there are no calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFailure {}

impl PolicyFailure {
    /// One word for it.
    pub const fn kind(&self) -> &'static str {
        match *self {}
    }
}

/// Compiles nothing.
#[derive(Debug, Default)]
pub struct PluginEngine;

impl PluginEngine {
    /// Refuses.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotHere`].
    pub fn compile(&self, _: &PolicyLabel, _: &[u8], limits: &PolicyLimits) -> Result<Policy, PolicyError> {
        limits.check()?;
        Err(PolicyError::NotHere)
    }

    /// There is no cache.
    ///
    /// # Errors
    ///
    /// None.
    pub fn prune_cache(&self, _: &[String]) -> std::io::Result<()> {
        Ok(())
    }
}

/// A compiled policy: there is none.
#[derive(Clone, Debug)]
pub struct Policy {
    never: Never,
}

#[derive(Clone, Debug)]
enum Never {}

impl Policy {
    /// What the component is.
    pub const fn inspect(&self) -> &Inspection {
        match self.never {}
    }

    /// The JSON Schema of its configuration.
    pub const fn configuration_schema(&self) -> Option<&str> {
        match self.never {}
    }

    /// Decides.
    pub fn allocate(&self, _: &allocation::Request) -> (Result<allocation::Outcome, PolicyCallError>, CallReport) {
        match self.never {}
    }
}
