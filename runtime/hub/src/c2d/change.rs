//! One change of a queue: read, tidy up, change, and commit with all that follows from it; again when another host was faster.

use std::time::Duration;

use futures_util::future::{Either, select};
use nave_model::{
    ContentRecord, DeviceId, Identity, MessageLock, QueueRecord, QueuedMessage, SessionRecord, Timestamp,
};
use nave_store::{CommitError, Expect, Guard, Put};

use super::content::DeviceBound;
use super::queue::{Holder, Queue, Settlement};
use crate::bus::{HostId, HostMessage, HostReply};
use crate::error::HubError;
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::session::{Session, Subscriptions, ToDevice};

/// How long the host that holds the device's session has to say so. Meanwhile nothing else happens to the queue, whose lane is
/// held; afterwards that host counts as unreachable.
const PEER_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// On whose behalf a queue is changed.
#[derive(Clone, Copy)]
pub(super) enum Party<'a> {
    /// A service, the clock, or a device over HTTPS.
    Anyone,
    /// A session that still is the device's: the commit is guarded by its record, and one that was displaced is ended. Its
    /// device acknowledged the messages with these numbers.
    Session(&'a Session, &'a [u64]),
    /// A session whose connection is gone. It completes what its device acknowledged and gives back the rest, also if the
    /// device has a newer session by now.
    Leaving(&'a Session, &'a [u64]),
}

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
    /// What a device acknowledged is completed before anything is taken back: it would else be handed out once more, or be
    /// given up as undeliverable.
    pub(super) async fn change_queue<T>(
        &self,
        device: &DeviceId,
        generation: &str,
        party: Party<'_>,
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
            let mut live = self.queues.leaving.of(device);
            match party {
                Party::Anyone => live.extend(self.live_epoch(device, record.as_ref()).await?),
                Party::Session(session, _) => live.push(session.epoch),
                Party::Leaving(..) => {}
            }
            let now = self.env.now();
            let Some(mut queue) = Queue::open(record, generation, settings.max_deliveries) else {
                return Err(HubError::unauthorized().with_detail("the queue is that of a later device of this id"));
            };
            if let Party::Session(session, completed) | Party::Leaving(session, completed) = party {
                for sequence in completed {
                    let holder = Holder::Session { epoch: session.epoch, sequence: *sequence };
                    queue.settle(holder, Settlement::Complete);
                }
            }
            match party {
                // Whether a newer session lives, and where, is for others to find out.
                Party::Leaving(session, _) => queue.give_back(session.epoch),
                _ => queue.tidy(now, &live),
            }
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
            if let Party::Session(session, _) = party {
                guards.push(self.session_guard(session));
            }
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    self.note_due(device, Queue::next_due(record, Timestamp::default()), record.messages.len());
                    self.metrics().device_bound.count(&queue, taken.len());
                    self.feedback_came(feedback_count, now);
                    return Ok(Changed { result: plan.result, taken, waiting });
                }
                Err(CommitError::Conflict { key: conflict, .. }) if conflict == key => {}
                Err(CommitError::Conflict { .. }) => match party {
                    Party::Session(session, _) if self.still_owns(session).await? => {}
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
        let (SessionRecord { epoch, host, .. }, _) = decode(&entry)?;
        if host == self.host.as_str() {
            return Ok(self.holds_messages(&identity, epoch).then_some(epoch));
        }
        // A host that cannot be reached holds no connection that matters: the lock is gone with this change, so a session that
        // lives on there completes only what nobody else got meanwhile.
        let message = HostMessage::Holding { hub: self.id().as_str().to_owned(), identity, epoch };
        let reply = self.bus.send(HostId::new(&host), message);
        Ok(match select(reply, self.env.sleep(PEER_ANSWERS_WITHIN)).await {
            Either::Left((Ok(HostReply::Holding(true)), _)) => Some(epoch),
            _ => None,
        })
    }

    /// Whether the session of that epoch is here, open or about to leave, so that it may hold messages.
    pub(crate) fn holds_messages(&self, identity: &Identity, epoch: u64) -> bool {
        let session = self.sessions.get(identity);
        session.is_some_and(|session| session.epoch == epoch && session.is_open())
            || self.queues.leaving.of(identity.device_id()).contains(&epoch)
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
