//! How a policy fails: when it is loaded, and when it is called.

use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::PolicyLabel;
use super::limits::{LimitError, PolicyLimits};
use super::sandbox::Stop;

/// Why a component cannot be used as a policy. Each says what its author has to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is something else.
    #[error("this is no WebAssembly component: {0}")]
    NotAComponent(String),
    /// It does not compile.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// It does not export `nave:allocation/policy`, or not as the interface says.
    #[error("the component does not fit the world `nave:allocation/allocation-policy`: {0}")]
    World(String),
    /// It imports what no host of policies has.
    #[error(
        "the component imports `{0}`. A policy may import WASI 0.2 interfaces only, and gets them with nothing behind them"
    )]
    Import(String),
    /// A limit is out of range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// It cannot be instantiated, or its schema cannot be read.
    #[error("the component does not start: {failure}{}{output}", if output.is_empty() { "" } else { "; " })]
    Start {
        /// What happened.
        failure: PolicyFailure,
        /// What it wrote meanwhile.
        output: String,
    },
    /// The host cannot run policies; not the policy's fault.
    #[error(
        "the WebAssembly engine cannot start: {0}. It reserves virtual memory: check `ulimit -v` and cgroup limits"
    )]
    Engine(String),
}

/// A call that did not return, and of which policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {label}: {failure}")]
pub struct PolicyCallError {
    /// Name and version.
    pub label: PolicyLabel,
    /// What happened.
    pub failure: PolicyFailure,
}

/// Why a call did not return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFailure {
    /// It ran longer than its deadline.
    #[error("ended after its deadline of {limit:?}")]
    Deadline {
        /// The deadline.
        limit: Duration,
    },
    /// It wanted more memory than it may have.
    #[error("wanted more than its {limit} bytes of memory")]
    Memory {
        /// The bound.
        limit: usize,
    },
    /// It wanted more table elements than it may have.
    #[error("wanted more than its {limit} table elements")]
    Tables {
        /// The bound.
        limit: usize,
    },
    /// It called itself too deeply.
    #[error("used up its stack of {limit} bytes")]
    Stack {
        /// The bound.
        limit: usize,
    },
    /// It trapped, which is also what a panic or an uncaught exception becomes.
    #[error("trapped: {0}")]
    Trap(String),
    /// It called something that is there in name only.
    #[error("called `{0}`, which no policy is granted")]
    NotGranted(String),
    /// It ended its program instead of answering.
    #[error("ended itself (`wasi:cli/exit`) instead of answering")]
    Exit,
    /// It handed over more than it may.
    #[error("returned, or wrote at once, more than {limit} bytes")]
    Oversize {
        /// The bound.
        limit: usize,
    },
    /// What it returned breaks the rules of components: text that is not UTF-8, or that lies outside its memory.
    #[error("returned something that is not an outcome: {0}")]
    InvalidResult(String),
    /// All its slots are taken; the policy was not called.
    #[error("no instance is free: {0}")]
    Busy(String),
}

impl PolicyFailure {
    /// One word for it, for counters and structured logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "deadline",
            Self::Memory { .. } => "memory",
            Self::Tables { .. } => "tables",
            Self::Stack { .. } => "stack",
            Self::Trap(_) => "trap",
            Self::NotGranted(_) => "notGranted",
            Self::Exit => "exit",
            Self::Oversize { .. } => "oversize",
            Self::InvalidResult(_) => "invalidResult",
            Self::Busy(_) => "busy",
        }
    }

    pub(super) fn of(error: &wasmtime::Error, limits: &PolicyLimits) -> Self {
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return match stop {
                Stop::Memory => Self::Memory { limit: limits.memory_bytes },
                Stop::Tables => Self::Tables { limit: limits.table_elements },
                Stop::NotGranted(import) => Self::NotGranted(import.to_string()),
                Stop::Exit => Self::Exit,
                Stop::Resources(what) => Self::Trap((*what).to_owned()),
            };
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Self::Busy(format!("{error:#}"));
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Deadline { limit: limits.deadline },
            Some(Trap::StackOverflow) => Self::Stack { limit: limits.stack_bytes },
            Some(trap) => Self::Trap(trap.to_string()),
            None => {
                let text = root_cause(error);
                // wasmtime has no public type for this one.
                if text.contains("fuel allocated for hostcalls") {
                    return Self::Oversize { limit: limits.result_bytes };
                }
                Self::InvalidResult(text)
            }
        }
    }
}

/// The innermost message: those around it are backtraces.
fn root_cause(error: &wasmtime::Error) -> String {
    error.chain().last().map(ToString::to_string).unwrap_or_default()
}
