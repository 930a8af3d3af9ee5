//! What the committer needs of a storage engine. The seam at which tests crash it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Entry, StoreError};

/// One durable state of the engine, unaffected by what is written later.
pub(crate) trait View: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// See [`crate::Store::scan`].
    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Entry)>, StoreError>;
}

/// Why a batch could not be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// No space, and nothing of the batch will ever be seen.
    Full,
    /// The engine refuses writes until it is reopened; nothing of the batch was written.
    NeedsReopen(String),
    /// The engine must not be written to again by this process: what is on disk is uncertain.
    Broken(String),
}

/// An engine with one writer. After an error only [`Engine::reopen`] makes it writable again.
pub(crate) trait Engine: Send + 'static {
    /// The state as of the last successful [`Engine::sync`].
    fn view(&self) -> Option<Arc<dyn View>>;

    /// The newest revision in that state.
    fn newest(&self) -> u64;

    /// Whether there is room for another batch.
    fn has_space(&self) -> bool;

    /// Hands over a batch and the newest revision in it. It may or may not reach the disk before the next sync.
    fn write(&mut self, changes: HashMap<String, Option<Entry>>, newest: u64) -> Result<(), EngineError>;

    /// Makes everything that was written durable, and visible in the next [`Engine::view`].
    fn sync(&mut self) -> Result<(), EngineError>;

    /// Closes the engine and opens it again. No view is in use when this is called, except by reads that end soon.
    fn reopen(&mut self) -> Result<(), EngineError>;
}
