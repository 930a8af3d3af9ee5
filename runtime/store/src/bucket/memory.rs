//! A bucket in memory, which can be made to fail.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Bucket;

/// A bucket in memory. Clones are the same bucket, each with a life of its own: see [`MemoryBucket::dying_after`].
#[derive(Clone, Default)]
pub struct MemoryBucket {
    entries: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    life: Arc<Mutex<Option<usize>>>,
    lies: bool,
}

impl MemoryBucket {
    /// The same bucket for somebody who dies after so many operations: each later one fails.
    #[must_use]
    pub fn dying_after(&self, operations: usize) -> Self {
        Self { life: Arc::new(Mutex::new(Some(operations))), ..self.clone() }
    }

    /// The same bucket for somebody who does not die.
    #[must_use]
    pub fn revived(&self) -> Self {
        Self { life: Arc::default(), ..self.clone() }
    }

    /// The same bucket for somebody to whom every swap is called a success.
    #[must_use]
    pub fn lying(&self) -> Self {
        Self { lies: true, ..self.clone() }
    }

    /// What it holds.
    pub fn entries(&self) -> HashMap<String, Vec<u8>> {
        self.entries.lock().clone()
    }

    fn live(&self) -> Result<(), String> {
        match &mut *self.life.lock() {
            None => Ok(()),
            Some(0) => Err("dead".to_owned()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Bucket for MemoryBucket {
    type Handle = (String, Option<Vec<u8>>);

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.live()?;
        Ok(self.entries.lock().get(key).cloned())
    }

    fn read(&self, key: &str) -> Result<(Option<Vec<u8>>, Self::Handle), String> {
        let value = self.get(key)?;
        Ok((value.clone(), (key.to_owned(), value)))
    }

    /// Compares values, as the SQLite back end of Spin does.
    fn swap(&self, (key, before): Self::Handle, value: Vec<u8>) -> Result<bool, String> {
        self.live()?;
        let mut entries = self.entries.lock();
        if entries.get(&key) != before.as_ref() {
            return Ok(self.lies);
        }
        entries.insert(key, value);
        Ok(true)
    }
}
