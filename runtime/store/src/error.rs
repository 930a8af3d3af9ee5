//! What can go wrong, and who can do something about it.

#[cfg(not(target_arch = "wasm32"))]
use std::path::PathBuf;

use crate::Entry;

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The caller asked for more entries than one answer may hold.
    #[error("a scan asks for {0} entries, which is too many")]
    LimitTooLarge(usize),
    /// The store was closed.
    #[error("the store is closed")]
    Stopped,
    /// The engine is being reopened after a failure, or could not be. Retrying later may help.
    #[error("the store is not readable at the moment")]
    Unavailable,
    /// Something lies under this key that this program did not write.
    #[error("the stored value of key {0:?} is damaged")]
    Corrupt(String),
    /// The engine failed; the text is for the log, not for clients.
    #[error("the storage engine failed: {0}")]
    Engine(String),
}

/// Why a commit was not applied, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A guard did not hold; nothing was written. Read again and decide again.
    #[error("key {key:?} is not what the guard expects")]
    Conflict {
        /// The key of the first guard that failed.
        key: String,
        /// What the key holds instead, durable when it is reported.
        current: Option<Entry>,
    },
    /// A key, a value or the whole commit exceeds a limit of this crate, or a key is empty; nothing was written.
    #[error("the commit is too large: {0}")]
    TooLarge(&'static str),
    /// Too much is queued; nothing was written. Slow down and retry.
    #[error("too many commits are waiting")]
    Busy,
    /// The disk is (nearly) full; nothing was written. The store stays readable, and commits work again when there is space.
    #[error("there is no space left for the store")]
    Full,
    /// The store was closed, or its host crashed. If the commit had been queued before, it may have been applied.
    #[error("the store is closed")]
    Stopped,
    /// The engine failed. The commit may turn out to have been applied after a restart; the text is for the log.
    #[error("the storage engine failed: {0}")]
    Failed(String),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Why a store could not be opened.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another part of this one) has the directory open.
    #[error("the store in {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The directory was written by a newer version of this program.
    #[error("the store in {} has format {found}; this program knows formats up to {known}: use a newer version", .dir.display())]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// The format that was found.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// The directory holds something that this program did not write.
    #[error("the store in {} is damaged: {what}", .dir.display())]
    Corrupt {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused a file operation.
    #[error("cannot open the store in {}: {source}", .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// The engine could not be opened.
    #[error("the storage engine cannot open {}: {what}", .dir.display())]
    Engine {
        /// The directory.
        dir: PathBuf,
        /// Its message.
        what: String,
    },
}
