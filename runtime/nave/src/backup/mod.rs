//! Copies of everything that a hub keeps: one file, taken while the hub runs, checksummed, and read back into an empty
//! directory. `BACKUP.md` beside this crate describes the format to the byte.
//!
//! The state is copied first and telemetry after it: an event that the state has already handed over to the log is then in
//! the copy of the log. What is in both is told apart by its message key, as after a crash.

mod format;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing;
mod read;
mod restore;
mod write;

#[cfg(any(test, feature = "fuzzing"))]
pub use fuzzing::fuzz_backup;
pub(crate) use read::{Whole, check};
pub(crate) use restore::{restore, was_interrupted};
pub(crate) use write::{LogOf, Source, offline, write};

/// Why a backup cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// A file cannot be read or written.
    #[error("{what}: {error}")]
    Io {
        /// Which file, or what was being done.
        what: String,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// It is not a backup, or not a whole one.
    #[error("the backup is damaged at byte {position}: {what}. Nothing of it was used")]
    Damaged {
        /// Where.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A newer release wrote it.
    #[error("the backup has format {0}, and this program knows {known}: use the release that made it, or a newer one", known = format::VERSION)]
    Newer(u32),
    /// The store or a log gave an error.
    #[error("{0}")]
    Content(String),
}

impl BackupError {
    fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        |error| Self::Io { what, error }
    }
}

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// When it was begun; everything that was acknowledged before is in it.
    pub(crate) created: nave_model::Timestamp,
    /// Files, segments of logs among them.
    pub(crate) files: u64,
    /// Entries of the store.
    pub(crate) entries: u64,
    /// Length of the whole.
    pub(crate) bytes: u64,
}

impl Summary {
    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "created": self.created.iso(),
            "files": self.files,
            "entries": self.entries,
            "bytes": self.bytes,
        })
    }
}

#[cfg(test)]
mod tests;
