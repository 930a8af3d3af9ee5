//! What a device takes out of its queue over HTTPS, one message at a time (protocol notes: device HTTPS §3).

use nave_model::MessageLock;

use super::change::{Party, Plan};
use super::content::Received;
use super::guid;
use super::queue::{Handover, Holder, Settlement};
use crate::connect::Authenticated;
use crate::error::{ErrorCode, HubError};
use crate::hub::Hub;
use crate::throttle::Operation;

impl Hub {
    /// The oldest message that waits, locked for the caller; `None` if there is none.
    ///
    /// # Errors
    ///
    /// 401 if the device was deleted meanwhile, 429 when devices ask too fast.
    pub async fn receive_message(&self, who: &Authenticated) -> Result<Option<Received>, HubError> {
        self.pass(Operation::CloudToDeviceReceives, 1).await?;
        let device = who.identity.device_id();
        let mut random = [0; 16];
        self.env.fill_random(&mut random);
        let token = guid(u128::from_be_bytes(random));
        let lock_time = self.queues.settings().lock;
        let _lane = self.queues.lanes.enter(device).await;
        self.require_same(who).await?;
        let changed = self.change_queue(device, &who.generation_id, Party::Anyone, |queue, now| {
            let lock = MessageLock::Token { token: token.clone(), until: now.after(lock_time) };
            Ok(Plan { taken: queue.take(1, usize::MAX, &Handover::Locked(lock)), ..Plan::of(()) })
        });
        let taken = changed.await?.taken.into_iter().next();
        Ok(taken.map(|(queued, message)| Received {
            lock_token: token,
            sequence: queued.sequence,
            enqueued: queued.enqueued,
            deliveries: queued.deliveries,
            message,
        }))
    }

    /// Settles a message that was received with this lock token.
    ///
    /// # Errors
    ///
    /// 412002 if the lock ran out or never was.
    pub async fn settle_message(
        &self,
        who: &Authenticated,
        token: &str,
        settlement: Settlement,
    ) -> Result<(), HubError> {
        let device = who.identity.device_id();
        let lane = self.queues.lanes.enter(device).await;
        self.require_same(who).await?;
        let changed = self.change_queue(device, &who.generation_id, Party::Anyone, |queue, _| {
            match queue.settle(Holder::Token(token), settlement) {
                true => Ok(Plan::of(())),
                false => Err(lock_lost()),
            }
        });
        let waiting = changed.await?.waiting;
        drop(lane);
        if waiting {
            self.announce_messages(device).await;
        }
        Ok(())
    }

    /// The device that was authenticated still is the one of that id.
    async fn require_same(&self, who: &Authenticated) -> Result<(), HubError> {
        self.note_activity(&who.identity);
        match self.load(&who.identity).await? {
            Some((record, _)) if *record.generation_id == *who.generation_id => Ok(()),
            _ => Err(HubError::unauthorized().with_detail("the device was deleted meanwhile")),
        }
    }
}

pub(super) fn lock_lost() -> HubError {
    HubError::new(
        ErrorCode::DeviceMessageLockLost,
        "The lock token is not, or no longer, that of a message: receive it again.",
    )
}
