//! Events about connections: that a device or module is there, that it is gone (protocol notes: routing §7).
//!
//! That it is there is committed with the session, together with an entry under a key of its own, "announced". That it is
//! gone is committed with the removal of that entry, if the session still is the newest. So each announced session ends with
//! one event, also if the hub is killed: what is announced when it starts is over. Of several events that wait for the log
//! the newest stands for all, as consumers have to put up with in the cloud as well.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use nave_model::{DeviceRecord, FormatVersion, Identity, Json, Record, SessionRecord};
use nave_routing::Source;
use nave_store::{CommitError, Expect, Guard, Put};
use serde::{Deserialize, Serialize};

use crate::error::HubError;
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::outbox::Event;
use crate::session::Session;

/// Announced sessions looked at per step when a hub starts.
const RECOVERY_PAGE: usize = 500;

/// Ends announced at the same time when a hub starts: their commits share syncs, so that the start is not held up by one
/// sync after the other.
const RECOVERED_AT_ONCE: usize = 128;

/// A session whose begin was announced and whose end was not yet.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Announced {
    v: FormatVersion,
    epoch: u64,
    host: String,
}

impl Record for Announced {}

impl Hub {
    /// Whether anything listens to connections.
    pub(crate) fn announces(&self) -> bool {
        self.routes.read().listens(Source::DeviceConnectionStateEvents)
    }

    /// Puts the event that `record`'s device is connected into its outbox, and what belongs into the same commit into `puts`.
    pub(crate) fn announce(
        &self,
        identity: &Identity,
        record: &mut DeviceRecord,
        epoch: u64,
        puts: &mut Vec<Put>,
    ) -> Result<(), HubError> {
        self.add_connection_event(record, epoch, true);
        puts.push(self.outbox_marker(identity));
        let entry = Announced { v: FormatVersion, epoch, host: self.host.as_str().to_owned() };
        puts.push(put(self.keys.announced(&identity.to_string()), &entry)?);
        Ok(())
    }

    /// Appends waiting events of `identity` to the log without anybody waiting for it.
    pub(crate) fn forward_soon(&self, identity: &Identity) {
        let Some(hub) = self.shared() else { return };
        let identity = identity.clone();
        self.env.spawn(Box::pin(async move {
            let _lane = hub.lanes.enter(&identity).await;
            hub.forward_events(&identity).await;
        }));
    }

    /// Says that an announced session is over, without anybody waiting for it.
    pub(crate) fn announce_end(&self, session: &Session) {
        let Some(hub) = self.shared() else { return };
        let (identity, epoch) = (session.identity.clone(), session.epoch);
        self.env.spawn(Box::pin(async move {
            if let Err(error) = hub.end_announced(&identity, epoch).await {
                // The entry stays; the next connection of the device or the next start of the hub takes it up.
                tracing::warn!(hub = %hub.id(), %identity, %error, "the end of a connection is not announced yet");
            }
        }));
    }

    /// Announces the end of the sessions that were on this host when it last stopped. To be called once when the hub starts,
    /// before connections are accepted.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store fails.
    pub(crate) async fn recover_announced(&self) -> Result<(), HubError> {
        let prefix = self.keys.all_announced();
        let mut after = None;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), RECOVERY_PAGE).await?;
            let mut ended = Vec::with_capacity(page.len());
            for (key, entry) in &page {
                let Some(announced) = self.readable::<Announced>(key, entry)? else { continue };
                let id = key.strip_prefix(&prefix).and_then(nave_model::unescape_key_part);
                let identity = id.and_then(|id| Identity::parse(&id).ok());
                if let Some(identity) = identity.filter(|_| announced.host == self.host.as_str()) {
                    ended.push((identity, announced.epoch));
                }
            }
            let end = |(identity, epoch): (Identity, u64)| async move {
                if let Err(error) = self.end_announced(&identity, epoch).await {
                    // The entry stays, for the device's next connection or the next start.
                    self.note_damaged(&self.keys.announced(&identity.to_string()), &error);
                }
            };
            stream::iter(ended).for_each_concurrent(RECOVERED_AT_ONCE, end).await;
            match page.last() {
                Some((key, _)) if page.len() == RECOVERY_PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Commits the event that the session of that epoch is over, and removes its entry. If there was a newer session, or the
    /// device is gone, there is only the entry to remove, unless the newer session announced itself: then it is that one's.
    async fn end_announced(&self, identity: &Identity, epoch: u64) -> Result<(), HubError> {
        let _lane = self.lanes.enter(identity).await;
        let (key, session_key) = (self.keys.identity(identity), self.keys.session(&identity.to_string()));
        let announced_key = self.keys.announced(&identity.to_string());
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let Some(entry) = self.store.get(&announced_key).await? else { return Ok(()) };
            let (announced, announced_revision) = decode::<Announced>(&entry)?;
            if announced.epoch != epoch {
                return Ok(());
            }
            let mut guards = vec![Guard { key: announced_key.clone(), expect: Expect::At(announced_revision) }];
            let mut puts = vec![Put { key: announced_key.clone(), value: None }];
            let session = self.store.get(&session_key).await?.as_ref().map(decode::<SessionRecord>).transpose()?;
            let session = session.filter(|(session, _)| session.epoch == epoch);
            let mut has_event = false;
            if let (Some((_, session_revision)), Some((mut record, revision))) = (session, self.load(identity).await?) {
                guards.push(Guard { key: key.clone(), expect: Expect::At(revision) });
                guards.push(Guard { key: session_key.clone(), expect: Expect::At(session_revision) });
                has_event = self.announces();
                if has_event {
                    self.add_connection_event(&mut record, epoch, false);
                    puts.push(self.outbox_marker(identity));
                    puts.push(put(key.clone(), &record)?);
                }
            }
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    if has_event {
                        self.forward_events(identity).await;
                    }
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key, current: None }.into())
    }

    fn add_connection_event(&self, record: &mut DeviceRecord, epoch: u64, connected: bool) {
        let source = Source::DeviceConnectionStateEvents.as_str();
        record.outbox.retain(|entry| entry.source != source);
        let body = format!(r#"{{"sequenceNumber":"{}"}}"#, sequence_number(&record.generation_id, epoch, connected));
        let event = Event::connection(connected, Json::parse(body).unwrap_or_default());
        self.add_event(record, |_| event);
    }

    fn shared(&self) -> Option<Arc<Self>> {
        self.late.hub()
    }
}

/// 64 hexadecimal digits whose order as text is the order of the events of one id: the generation of the device, which is
/// larger for one that is made anew, then the session's epoch, then begin or end.
fn sequence_number(generation_id: &str, epoch: u64, connected: bool) -> String {
    let generation: u64 = generation_id.parse().unwrap_or_default();
    let step = u128::from(epoch) << 1 | u128::from(!connected);
    format!("{generation:032X}{step:032X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_grow_with_every_event() {
        let generations = ["638000000000000000", "638000000000000001"];
        let numbers: Vec<_> = generations
            .iter()
            .flat_map(|generation| {
                [(1, true), (1, false), (2, true), (u64::MAX, true), (u64::MAX, false)]
                    .map(|(epoch, connected)| sequence_number(generation, epoch, connected))
            })
            .collect();
        assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "{numbers:?}");
        assert!(numbers.iter().all(|number| number.len() == 64), "{numbers:?}");
    }
}
