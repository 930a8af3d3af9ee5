//! Records that cannot be read when a hub starts.
//!
//! One damaged record must not keep a hub with all its devices from starting. It is skipped and stays where it is, so that
//! somebody can look at it or bring back a backup; the log names its key, and it is counted.

use nave_model::{Record, RecordError};
use nave_store::Entry;

use crate::error::HubError;
use crate::hub::Hub;

impl Hub {
    /// Reads a record; `None`, noted, if it is damaged.
    ///
    /// # Errors
    ///
    /// [`HubError`] if a newer release wrote it. That is no damage: this program must not run on this store.
    pub(crate) fn readable<R: Record>(&self, key: &str, entry: &Entry) -> Result<Option<R>, HubError> {
        match R::decode(&entry.value) {
            Ok(record) => Ok(Some(record)),
            Err(error @ RecordError::Newer { .. }) => Err(error.into()),
            Err(error @ RecordError::Damaged(_)) => {
                self.note_damaged(key, &error);
                Ok(None)
            }
        }
    }

    /// Notes that what is stored under `key` was skipped.
    pub(crate) fn note_damaged(&self, key: &str, error: &dyn std::fmt::Display) {
        tracing::error!(hub = %self.id(), key, %error, "a record in the store cannot be read and was skipped");
        self.metrics().damaged_records.increment();
    }
}
