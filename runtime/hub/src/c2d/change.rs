//! One change of a queue: read, tidy up, change, and commit with all that follows from it; again when another host was faster.

use nave_model::{
    ContentRecord, DeviceId, Identity, MessageLock, QueueRecord, QueuedMessage, SessionRecord, Timestamp,
};
use nave_store::{CommitError, Expect, Guard, Put};

use super::content::DeviceBound;
use super::queue::Queue;
use crate::bus::{HostId, HostMessage, HostReply};
use crate::error::HubError;
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::session::{Session, Subscriptions, ToDevice};

/// What a change of a queue comes to.
pub(super) struct Plan<T> {
    pub(super) result: T,
    /// Messages that were handed out: their contents are needed.
    pub(super) taken: Vec<QueuedMessage>,
    /// Contents of new messages.
    pub(super) contents: Vec<Put>,
}

impl<T> Plan<T> {
    pub(super) const fn of(result: T) -> Self {
        Self { result, taken: Vec::new(), contents: Vec::new() }
    }
}

/// A change that is durable.
pub(super) struct Changed<T> {
    pub(super) result: T,
    pub(super) taken: Vec<(QueuedMessage, DeviceBound)>,
    /// Whether more waits.
    pub(super) waiting: bool,
}

impl Hub {
    /// Changes the queue of the device of this generation. To be called within the queue's lane.
    ///
    /// On behalf of a session the commit is guarded by the session's record; a session that was displaced is ended.
    pub(super) async fn change_queue<T>(
        &self,
        device: &DeviceId,
        generation: &str,
        session: Option<&Session>,
        mut change: impl FnMut(&mut Queue, Timestamp) -> Result<Plan<T>, HubError>,
    ) -> Result<Changed<T>, HubError> {
        let key = self.keys.queue(device.as_str());
        let settings = self.queues.settings();
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let stored = self.store.get(&key).await?.as_ref().map(decode::<QueueRecord>).transpose()?;
            let (record, expect) = match stored {
                Some((record, revision)) => (Some(record), Expect::At(revision)),
                None => (None, Expect::Absent),
            };
            let live = match session {
                Some(session) => Some(session.epoch),
                None => self.live_epoch(device, record.as_ref()).await?,
            };
            let now = self.env.now();
            let Some(mut queue) = Queue::open(record, generation, settings.max_deliveries) else {
                return Err(HubError::unauthorized().with_detail("the queue is that of a later device of this id"));
            };
            queue.tidy(now, live);
            let plan = change(&mut queue, now)?;
            let taken = self.contents(device, plan.taken, &mut queue).await?;
            let waiting = queue.is_waiting();
            let Some(record) = queue.changed() else {
                return Ok(Changed { result: plan.result, taken, waiting });
            };
            let mut puts = vec![put(key.clone(), record)?];
            puts.extend(plan.contents);
            let gone = queue.gone().map(|sequence| self.keys.queued(device.as_str(), sequence));
            puts.extend(gone.map(|key| Put { key, value: None }));
            let feedback = self.feedback_on(device, generation, queue.ended(), now)?;
            let feedback_count = feedback.len();
            puts.extend(feedback);
            let mut guards = vec![Guard { key: key.clone(), expect }];
            guards.extend(session.map(|session| self.session_guard(session)));
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    self.note_due(device, Queue::next_due(record, Timestamp::default()));
                    self.feedback_came(feedback_count, now);
                    return Ok(Changed { result: plan.result, taken, waiting });
                }
                Err(CommitError::Conflict { key: conflict, .. }) if conflict == key => {}
                Err(CommitError::Conflict { .. }) => match session {
                    Some(session) if self.still_owns(session).await? => {}
                    _ => return Err(HubError::unauthorized().with_detail("the session was displaced")),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key, current: None }.into())
    }

    /// The contents of messages that are handed out. A message without contents, which only a damaged store has, is dropped:
    /// else it would stop the queue for ever.
    async fn contents(
        &self,
        device: &DeviceId,
        taken: Vec<QueuedMessage>,
        queue: &mut Queue,
    ) -> Result<Vec<(QueuedMessage, DeviceBound)>, HubError> {
        let mut contents = Vec::with_capacity(taken.len());
        for message in taken {
            let key = self.keys.queued(device.as_str(), message.sequence);
            match self.store.get(&key).await? {
                Some(entry) => contents.push((message, decode::<ContentRecord>(&entry)?.0.into())),
                None => {
                    tracing::error!(hub = %self.id(), %device, message = ?message.message_id, "a queued message has no contents");
                    queue.drop_damaged(message.sequence);
                }
            }
        }
        Ok(contents)
    }

    /// The epoch of the session that may hold messages; asked only if one does.
    async fn live_epoch(&self, device: &DeviceId, record: Option<&QueueRecord>) -> Result<Option<u64>, HubError> {
        let held = |message: &QueuedMessage| matches!(message.lock, Some(MessageLock::Session { .. }));
        if !record.is_some_and(|record| record.messages.iter().any(held)) {
            return Ok(None);
        }
        let identity = Identity::device(device.clone());
        let Some(entry) = self.store.get(&self.keys.session(&identity.to_string())).await? else { return Ok(None) };
        let (stored, _) = decode::<SessionRecord>(&entry)?;
        if stored.host != self.host.as_str() {
            // A host that cannot be reached holds no connection that matters: the lock is gone with this change, so a session
            // that lives on there completes nothing.
            let message = HostMessage::Connection { hub: self.id().as_str().to_owned(), identity };
            let reply = self.bus.send(HostId::new(&stored.host), message).await;
            let open = matches!(reply, Ok(HostReply::Connection(there)) if there.connected);
            return Ok(open.then_some(stored.epoch));
        }
        let session = self.sessions.get(&identity);
        let open = session.is_some_and(|session| session.epoch == stored.epoch && session.is_open());
        Ok(open.then_some(stored.epoch))
    }

    /// Tells the device's connection, wherever it is, that messages wait. A failure costs the wake only: the messages are
    /// found when the device asks next.
    pub(super) async fn announce_messages(&self, device: &DeviceId) {
        let identity = Identity::device(device.clone());
        if self.wake_for_messages(&identity) {
            return;
        }
        let Ok(Some(entry)) = self.store.get(&self.keys.session(&identity.to_string())).await else { return };
        let Ok((stored, _)) = decode::<SessionRecord>(&entry) else { return };
        if stored.host != self.host.as_str() {
            let message = HostMessage::DeviceBound { hub: self.id().as_str().to_owned(), identity };
            let sending = self.bus.send(HostId::new(&stored.host), message);
            self.env.spawn(Box::pin(async move { drop(sending.await) }));
        }
    }

    /// Wakes the connection of `identity` if it is here and listens. False if it is not here.
    pub(crate) fn wake_for_messages(&self, identity: &Identity) -> bool {
        let Some(session) = self.sessions.get(identity) else { return false };
        if session.subscriptions().contains(Subscriptions::CLOUD_TO_DEVICE) {
            session.deliver(ToDevice::MessagesWait);
        }
        true
    }
}
