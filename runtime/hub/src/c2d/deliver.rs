//! What a session takes out of its device's queue.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use nave_model::{DeviceId, MessageLock, QueuedMessage};
use parking_lot::Mutex;

use super::change::{Party, Plan};
use super::content::DeviceBound;
use super::queue::Handover;
use crate::error::HubError;
use crate::hub::Hub;
use crate::session::Session;

/// How long after a refusal of the store a session tries again, first and at most. Meanwhile nothing is acknowledged and
/// nothing handed out, and the connection stays: the device's other traffic may well be possible.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// How much a session can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appetite {
    /// Most messages.
    pub count: usize,
    /// Most bytes; a message that is larger comes alone.
    pub bytes: usize,
    /// QoS 0: a message is done when it is handed out.
    pub at_most_once: bool,
}

/// A message that was handed to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What completes it.
    pub sequence: u64,
    /// How often it came back before.
    pub deliveries: u32,
    /// The message.
    pub message: DeviceBound,
}

/// What came of an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// What was handed out, in order.
    pub deliveries: Vec<Delivery>,
    /// Whether more waits.
    pub more: bool,
}

impl Hub {
    /// Completes the messages with these numbers and hands out further ones, in one commit. What was completed stays so, and
    /// what was handed out is locked for the session, when this resolves.
    ///
    /// The numbers are of messages that the session was handed; what somebody else got meanwhile is not completed. While the
    /// store refuses (the disk is full) this waits, as long as the session is open.
    ///
    /// # Errors
    ///
    /// 401 if the session is no longer the device's.
    pub async fn exchange(
        &self,
        session: &Session,
        completed: &[u64],
        appetite: Appetite,
    ) -> Result<Exchange, HubError> {
        let mut wait = RETRY_FIRST;
        loop {
            match self.try_exchange(session, completed, appetite).await {
                Err(error) if matches!(error.code.status(), 429 | 503) && session.is_open() => {
                    tracing::warn!(hub = %self.id(), device = %session.identity, %error, "a queue cannot be changed now");
                    self.env.sleep(wait).await;
                    wait = RETRY_MOST.min(wait * 2);
                }
                result => return result,
            }
        }
    }

    async fn try_exchange(
        &self,
        session: &Session,
        completed: &[u64],
        appetite: Appetite,
    ) -> Result<Exchange, HubError> {
        let device = session.identity.device_id();
        let handover = match appetite.at_most_once {
            true => Handover::ForGood,
            false => Handover::Locked(MessageLock::Session { epoch: session.epoch }),
        };
        let _lane = self.queues.lanes.enter(device).await;
        let party = Party::Session(session, completed);
        let changed = self.change_queue(device, &session.generation_id, party, |queue, _| {
            let taken = queue.take(appetite.count, appetite.bytes, &handover);
            Ok(Plan { taken, ..Plan::of(()) })
        });
        let changed = changed.await?;
        let delivery = |(queued, message): (QueuedMessage, DeviceBound)| Delivery {
            sequence: queued.sequence,
            deliveries: queued.deliveries,
            message,
        };
        Ok(Exchange { deliveries: changed.taken.into_iter().map(delivery).collect(), more: changed.waiting })
    }

    /// The connection of `session` is about to go: until it has left the queue, it keeps what it holds. To be called before
    /// [`Self::disconnected`].
    pub fn leaving(self: &Arc<Self>, session: &Arc<Session>) -> Leaving {
        self.queues.leaving.add(session.identity.device_id(), session.epoch);
        Leaving { hub: Arc::clone(self), session: Arc::clone(session) }
    }
}

/// A session that leaves its device's queue.
pub struct Leaving {
    hub: Arc<Hub>,
    session: Arc<Session>,
}

impl Leaving {
    /// Completes what the device acknowledged last, and gives back the rest. If this does not happen (a crash, a full disk),
    /// whoever looks at the queue next takes it all back: what was acknowledged may come again.
    ///
    /// # Errors
    ///
    /// 401 if the device was made anew meanwhile; those of the store.
    pub async fn finish(self, completed: &[u64]) -> Result<(), HubError> {
        let (hub, device) = (Arc::clone(&self.hub), self.session.identity.device_id().clone());
        let lane = hub.queues.lanes.enter(&device).await;
        let party = Party::Leaving(&self.session, completed);
        let changed = hub.change_queue(&device, &self.session.generation_id, party, |_, _| Ok(Plan::of(()))).await;
        drop(self);
        drop(lane);
        if changed?.waiting {
            hub.announce_messages(&device).await;
        }
        Ok(())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.hub.queues.leaving.remove(self.session.identity.device_id(), self.session.epoch);
    }
}

/// The sessions that leave: a few at a time.
#[derive(Default)]
pub(super) struct LeavingSessions(Mutex<HashMap<DeviceId, Vec<u64>>>);

impl LeavingSessions {
    /// The epochs of those of `device`.
    pub(super) fn of(&self, device: &DeviceId) -> Vec<u64> {
        self.0.lock().get(device).cloned().unwrap_or_default()
    }

    fn add(&self, device: &DeviceId, epoch: u64) {
        self.0.lock().entry(device.clone()).or_default().push(epoch);
    }

    fn remove(&self, device: &DeviceId, epoch: u64) {
        let mut leaving = self.0.lock();
        if let Some(epochs) = leaving.get_mut(device) {
            epochs.retain(|known| *known != epoch);
            if epochs.is_empty() {
                leaving.remove(device);
            }
        }
    }
}
