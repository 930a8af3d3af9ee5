//! How a command fails: what it says, and with which exit code.

use std::process::ExitCode;

/// Why a command did not do what it was asked for. The text says what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong: nothing was done.
    #[error("{0}")]
    Usage(String),
    /// Something failed.
    #[error("{0}")]
    Runtime(String),
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The hub does not run, or does not answer.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// The exit code; `nave --help` lists them.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Runtime(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Unreachable(_) => 4,
        })
    }

    /// Something failed, in these words.
    pub(crate) fn runtime(message: impl std::fmt::Display) -> Self {
        Self::Runtime(message.to_string())
    }

    /// The command line or the configuration is wrong, in these words.
    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::Usage(message.to_string())
    }
}
