//! What can go wrong, and who can do something about it.

#[cfg(not(target_arch = "wasm32"))]
use std::path::PathBuf;

/// Why the log did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The caller named a partition that the log does not have.
    #[error("the log has no such partition")]
    UnknownPartition,
    /// A record or the whole append exceeds a limit of this crate, or is empty; nothing was written.
    #[error("the append is refused: {0}")]
    TooLarge(&'static str),
    /// Too many bytes wait for the disk; nothing was written. Slow down and retry.
    #[error("too much waits for the log")]
    Busy,
    /// The disk is full; nothing was written. Readers go on, and appends work again when there is space.
    #[error("there is no space left for the log")]
    Full,
    /// The log was closed, or its host crashed. What had been queued before may have been written.
    #[error("the log is closed")]
    Stopped,
    /// The disk failed. What was appended may turn up after a restart; the text is for the operator's log.
    #[error("the log cannot be written: {0}")]
    Failed(String),
    /// The disk failed while reading; the text is for the operator's log.
    #[error("the log cannot be read: {0}")]
    Unreadable(String),
    /// A file is damaged at this place.
    #[error("the log's file {file} is damaged at byte {position}: {what}")]
    Corrupt {
        /// The name of the file in the log's directory.
        file: String,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why a log could not be opened.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another part of this one) has the directory open.
    #[error("the log in {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The number of partitions is not 1 to [`crate::MAX_PARTITIONS`].
    #[error("a log has 1 to 32 partitions, not {0}")]
    Partitions(u32),
    /// A file was written by a newer version of this program.
    #[error("the log's file {file} has format {found}; this program knows formats up to {known}: use a newer version")]
    NewerFormat {
        /// The name of the file in the log's directory.
        file: String,
        /// The format that was found.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// A file is damaged where a crash cannot have done it. Nothing was changed; restore the file, or move it and all later
    /// ones away to go on without them.
    #[error("the log's file {file} is damaged at byte {position}: {what}")]
    Corrupt {
        /// The name of the file in the log's directory.
        file: String,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The operating system refused a file operation.
    #[error("cannot open the log: {0}")]
    Io(#[from] std::io::Error),
}
