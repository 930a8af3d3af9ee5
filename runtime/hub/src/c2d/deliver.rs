//! What a session takes out of its device's queue.

use std::time::Duration;

use nave_model::{MessageLock, QueuedMessage};

use super::change::Plan;
use super::content::DeviceBound;
use super::queue::{Handover, Holder, Settlement};
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
    /// A number that the session does not hold is ignored. While the store refuses (the disk is full) this waits, as long as
    /// the session is open.
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
        let changed = self.change_queue(device, &session.generation_id, Some(session), |queue, _| {
            for sequence in completed {
                let holder = Holder::Session { epoch: session.epoch, sequence: *sequence };
                queue.settle(holder, Settlement::Complete);
            }
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

    /// The connection of `session` is gone: completes what the device acknowledged last, and takes the rest back. If this
    /// does not happen (a crash, a newer session), whoever looks at the queue next takes it back.
    ///
    /// # Errors
    ///
    /// 401 if the device has a newer session.
    pub async fn leave_queue(&self, session: &Session, completed: &[u64]) -> Result<(), HubError> {
        let device = session.identity.device_id();
        let lane = self.queues.lanes.enter(device).await;
        let changed = self.change_queue(device, &session.generation_id, Some(session), |queue, _| {
            for sequence in completed {
                let holder = Holder::Session { epoch: session.epoch, sequence: *sequence };
                queue.settle(holder, Settlement::Complete);
            }
            queue.give_back(session.epoch);
            Ok(Plan::of(()))
        });
        let waiting = changed.await?.waiting;
        drop(lane);
        if waiting {
            self.announce_messages(device).await;
        }
        Ok(())
    }
}
