//! Components in the store: by their content, in pieces, because a value has a size limit and a component of an interpreter
//! exceeds it.

use std::collections::BTreeSet;
use std::sync::Arc;

use nave_model::AllocationPolicyRecord;
use nave_store::{Expect, Guard, Put};

use super::Policies;
use super::push::COMPILATIONS;
use crate::error::HubError;

/// Bytes of a piece: well below the store's limits of a value and of a commit.
const PIECE_BYTES: usize = 1 << 20;

/// Pieces that are looked at in one reading of the store while unused ones are searched: it holds them in memory.
const SWEEP_PIECES: usize = 16;

impl Policies {
    /// Writes the pieces of a component, those that are not there already. Returns the guards under which a record may
    /// refer to them: another host may remove what nothing refers to yet.
    pub(super) async fn write_pieces(&self, digest: &str, bytes: &[u8]) -> Result<Vec<Guard>, HubError> {
        let mut guards = Vec::new();
        for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let key = self.keys.component(digest, number);
            let revision = match self.store.get(&key).await? {
                Some(entry) if entry.value == piece => entry.revision,
                _ => {
                    let put = Put { key: key.clone(), value: Some(bytes::Bytes::copy_from_slice(piece)) };
                    self.store.commit(Vec::new(), vec![put]).await?
                }
            };
            guards.push(Guard { key, expect: Expect::At(revision) });
        }
        Ok(guards)
    }

    /// The component of that content.
    pub(super) async fn read_pieces(&self, digest: &str, size: u64) -> Result<Vec<u8>, HubError> {
        let size = usize::try_from(size).map_err(HubError::internal)?;
        let mut bytes = Vec::with_capacity(size.min(super::MAX_COMPONENT_BYTES));
        for number in 0..size.div_ceil(PIECE_BYTES) {
            let entry = self.store.get(&self.keys.component(digest, number)).await?;
            let entry = entry.ok_or_else(|| {
                HubError::internal(format_args!("piece {number} of the component {digest} is missing: push it again"))
            })?;
            bytes.extend_from_slice(&entry.value);
        }
        if digest_of(&bytes) != digest {
            return Err(HubError::internal(format_args!("the component {digest} is damaged: push it again")));
        }
        Ok(bytes)
    }

    /// Removes the pieces of a component if no policy has it any more. An upload of the same component may be under way:
    /// on this host it waits, on another one its guards fail unless its record is written between the look and the removal,
    /// and then pushing it again repairs it.
    pub(super) async fn remove_pieces_if_unused(&self, digest: &str) -> Result<(), HubError> {
        let _nothing_is_added = self.pieces.lock().await;
        if used(&self.list().await?).contains(digest) {
            return Ok(());
        }
        for number in 0..super::MAX_COMPONENT_BYTES.div_ceil(PIECE_BYTES) {
            let key = self.keys.component(digest, number);
            if self.store.get(&key).await?.is_none() {
                break;
            }
            self.store.commit(Vec::new(), vec![Put { key, value: None }]).await?;
        }
        self.prune_cache().await;
        Ok(())
    }

    /// Removes compiled code that no version needs any more. It is only a cache: what fails is tried again at the next
    /// occasion.
    pub(super) async fn prune_cache(&self) {
        let Ok(records) = self.list().await else { return };
        let digests: Vec<String> = used(&records).into_iter().map(str::to_owned).collect();
        let engine = Arc::clone(&self.engine);
        let pruned = self.loads.run("", COMPILATIONS, move || engine.prune_cache(&digests)).await;
        if let Ok(Err(error)) = pruned {
            tracing::warn!(%error, "compiled code of deleted policies could not be removed");
        }
    }

    /// Removes what an upload or a deletion left behind that ended half way.
    pub(super) async fn sweep(&self, records: &[AllocationPolicyRecord]) -> Result<(), HubError> {
        let used = used(records);
        let prefix = self.keys.components();
        let mut after: Option<String> = None;
        loop {
            let entries = self.store.scan(&prefix, after.as_deref(), SWEEP_PIECES).await?;
            let is_last = entries.len() < SWEEP_PIECES;
            for (key, entry) in entries {
                let digest = key.strip_prefix(&prefix).and_then(|name| name.split('.').next()).unwrap_or_default();
                if !used.contains(digest) {
                    let guards = vec![Guard { key: key.clone(), expect: Expect::At(entry.revision) }];
                    self.store.commit(guards, vec![Put { key: key.clone(), value: None }]).await?;
                }
                after = Some(key);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// SHA-256, lower case hexadecimal.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    nave_auth::sha256(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn used(records: &[AllocationPolicyRecord]) -> BTreeSet<&str> {
    records.iter().flat_map(|record| &record.versions).map(|version| version.digest.as_str()).collect()
}
