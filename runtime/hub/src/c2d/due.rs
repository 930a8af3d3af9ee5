//! What becomes due by itself: messages and feedback that expire, locks that run out.
//!
//! Nothing depends on it being on time: whoever looks at a queue tidies it up first. But the sender of a message for a device
//! that never comes wants its feedback, and a message whose lock ran out may have a listener.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::select;
use hashbrown::HashMap;
use nave_model::{DeviceId, Identity, Keys, QueueRecord, Timestamp, unescape_key_part};
use nave_store::{CommitError, Expect, Guard, Put};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::change::{Party, Plan};
use super::queue::Queue;
use crate::error::HubError;
use crate::hub::{Hub, decode};

/// Longest sleep: so soon a wall clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long a queue waits that the store refused to change.
const RETRY: Duration = Duration::from_secs(30);

/// How often a queue is looked at with a message in it that is too old and in the hands of a session.
const RECHECK: Duration = Duration::from_secs(5 * 60);

/// Queues looked at per step when a hub starts.
const RECOVERY_PAGE: usize = 500;

/// What becomes due, and who takes care of it.
#[derive(Default)]
pub(super) struct Due {
    plan: Mutex<Timetable>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Timetable {
    by_time: BTreeSet<(Timestamp, DeviceId)>,
    /// The same by device: one entry for each queue that is not empty.
    by_device: HashMap<DeviceId, Timestamp>,
    /// How many messages are in each queue that is not empty, and in all of them.
    depths: HashMap<DeviceId, usize>,
    depth: usize,
    /// When the oldest feedback expires.
    feedback: Option<Timestamp>,
    /// Whether a task takes care.
    tended: bool,
}

enum Next {
    Nothing,
    Queue(DeviceId),
    Feedback,
    Wait(Duration),
}

impl Timetable {
    fn set(&mut self, device: &DeviceId, at: Option<Timestamp>) {
        if let Some(before) = self.by_device.remove(device) {
            self.by_time.remove(&(before, device.clone()));
        }
        if let Some(at) = at {
            self.by_device.insert(device.clone(), at);
            self.by_time.insert((at, device.clone()));
        }
    }

    fn set_depth(&mut self, device: &DeviceId, depth: usize) {
        let before = match depth {
            0 => self.depths.remove(device),
            _ => self.depths.insert(device.clone(), depth),
        };
        self.depth = self.depth.saturating_sub(before.unwrap_or_default()).saturating_add(depth);
    }

    /// What is to be done at `now`; it is taken out.
    fn next(&mut self, now: Timestamp) -> Next {
        let queue = self.by_time.first().map(|(at, _)| *at);
        match [queue, self.feedback].into_iter().flatten().min() {
            None => {
                self.tended = false;
                Next::Nothing
            }
            Some(at) if at > now => Next::Wait(at.since(now).min(LONGEST_SLEEP)),
            Some(at) if self.feedback == Some(at) => {
                self.feedback = None;
                Next::Feedback
            }
            Some(_) => match self.by_time.pop_first() {
                Some((_, device)) => {
                    self.by_device.remove(&device);
                    Next::Queue(device)
                }
                None => Next::Nothing,
            },
        }
    }
}

impl Hub {
    /// Notes when the queue of `device` is to be looked at, and how many messages are in it.
    pub(crate) fn note_due(&self, device: &DeviceId, at: Option<Timestamp>, depth: usize) {
        {
            let mut plan = self.queues.due.plan.lock();
            plan.set(device, at);
            plan.set_depth(device, depth);
        }
        self.tend_queues();
    }

    /// Notes when the queue of `device`, which did not change, is to be looked at again.
    fn note_due_again(&self, device: &DeviceId, at: Timestamp) {
        self.queues.due.plan.lock().set(device, Some(at));
        self.tend_queues();
    }

    /// How many messages are in all queues, and how much feedback waits.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queues.due.plan.lock().depth, self.queues.feedback.load(Ordering::Relaxed))
    }

    /// Notes when feedback is to be looked at, unless that is noted.
    pub(super) fn note_feedback_due(&self, at: Timestamp) {
        {
            let mut plan = self.queues.due.plan.lock();
            plan.feedback = Some(plan.feedback.map_or(at, |noted| noted.min(at)));
        }
        self.tend_queues();
    }

    /// Makes sure that somebody takes care of what becomes due.
    fn tend_queues(&self) {
        let Some(weak) = self.weak() else { return };
        {
            let mut plan = self.queues.due.plan.lock();
            if plan.by_time.is_empty() && plan.feedback.is_none() {
                return;
            }
            if std::mem::replace(&mut plan.tended, true) {
                drop(plan);
                self.queues.due.changed.notify_one();
                return;
            }
        }
        self.env.spawn(Box::pin(tend(weak)));
    }

    /// Tidies up a queue whose time has come.
    async fn tend_queue(&self, device: &DeviceId) {
        if let Err(error) = self.try_tend(device).await {
            tracing::warn!(hub = %self.id(), %device, %error, "a queue of cloud-to-device messages could not be tidied up");
            self.note_due_again(device, self.env.now().after(RETRY));
        }
    }

    async fn try_tend(&self, device: &DeviceId) -> Result<(), HubError> {
        let lane = self.queues.lanes.enter(device).await;
        let key = self.keys.queue(device.as_str());
        let Some(entry) = self.store.get(&key).await? else { return Ok(()) };
        let (record, revision) = decode::<QueueRecord>(&entry)?;
        let generation = self.load(&Identity::device(device.clone())).await?.map(|(device, _)| device.generation_id);
        let Some(generation) = generation.filter(|generation| *generation == record.generation_id) else {
            // A message that was accepted while another host deleted the device.
            let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
            return match self.store.commit(guards, deletions(&self.keys, device, key, &record)).await {
                Ok(_) => {
                    self.note_due(device, None, 0);
                    Ok(())
                }
                Err(CommitError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            };
        };
        let changed = self.change_queue(device, &generation, Party::Anyone, |queue, now| {
            let settled = queue.changed().is_some() || queue.record().messages.is_empty();
            Ok(Plan::of((settled, Queue::next_due(queue.record(), now))))
        });
        let changed = changed.await?;
        let (settled, due) = changed.result;
        if !settled {
            // What is too old and in the hands of a session is looked at when the session ends, or its host does not live
            // any more.
            let again = self.env.now().after(RECHECK);
            self.note_due_again(device, due.map_or(again, |due| due.min(again)));
        }
        drop(lane);
        if changed.waiting {
            self.announce_messages(device).await;
        }
        Ok(())
    }

    /// Finds the queues that are not empty, and counts the feedback. To be called once when the hub starts.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store cannot be read.
    pub async fn recover_queues(&self) -> Result<(), HubError> {
        let prefix = self.keys.queues();
        let mut after = None;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), RECOVERY_PAGE).await?;
            for (key, entry) in &page {
                let id = key.strip_prefix(&prefix).and_then(unescape_key_part);
                let Some(device) = id.and_then(|id| DeviceId::parse(&id).ok()) else { continue };
                let Some(record) = self.readable::<QueueRecord>(key, entry)? else { continue };
                self.note_due(&device, Queue::next_due(&record, Timestamp::default()), record.messages.len());
            }
            match page.last() {
                Some((key, _)) if page.len() == RECOVERY_PAGE => after = Some(key.clone()),
                _ => break,
            }
        }
        let (count, oldest) = self.count_feedback().await?;
        self.queues.feedback.store(count, Ordering::Relaxed);
        if let Some(oldest) = oldest {
            self.note_feedback_due(oldest.after(self.queues.settings().feedback_time_to_live));
        }
        Ok(())
    }
}

async fn tend(weak: Weak<Hub>) {
    loop {
        let Some(hub) = weak.upgrade() else { return };
        let next = hub.queues.due.plan.lock().next(hub.env.now());
        match next {
            Next::Nothing => return,
            Next::Queue(device) => hub.tend_queue(&device).await,
            Next::Feedback => hub.expire_feedback().await,
            Next::Wait(time) => {
                let (env, changed) = (Arc::clone(&hub.env), Arc::clone(&hub.queues.due.changed));
                // The hub is not kept alive by what it waits for.
                drop(hub);
                select(Box::pin(changed.notified()), env.sleep(time)).await;
            }
        }
    }
}

/// The puts that remove a queue.
pub(super) fn deletions(keys: &Keys, device: &DeviceId, key: String, record: &QueueRecord) -> Vec<Put> {
    let contents = record.messages.iter().map(|message| keys.queued(device.as_str(), message.sequence));
    std::iter::once(key).chain(contents).map(|key| Put { key, value: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_once() {
        let at = Timestamp::from_unix_seconds;
        let device = |id: &str| DeviceId::parse(id).unwrap();
        let mut plan = Timetable { tended: true, ..Timetable::default() };
        plan.set(&device("a"), Some(at(50)));
        plan.set(&device("b"), Some(at(20)));
        plan.set(&device("a"), Some(at(10)));
        plan.set(&device("c"), Some(at(5)));
        plan.set(&device("c"), None);
        plan.set_depth(&device("a"), 2);
        plan.set_depth(&device("b"), 3);
        plan.set_depth(&device("a"), 1);
        assert_eq!(plan.depth, 4);
        plan.set_depth(&device("b"), 0);
        assert_eq!((plan.depth, plan.depths.len()), (1, 1));
        plan.feedback = Some(at(15));
        assert!(matches!(plan.next(at(4)), Next::Wait(time) if time == Duration::from_secs(6)));
        assert!(matches!(plan.next(at(30)), Next::Queue(next) if next == device("a")));
        assert!(matches!(plan.next(at(30)), Next::Feedback));
        assert!(matches!(plan.next(at(30)), Next::Queue(next) if next == device("b")));
        assert!(matches!(plan.next(at(30)), Next::Nothing));
        assert!(!plan.tended && plan.by_device.is_empty());
        plan.set(&device("a"), Some(at(1_000_000)));
        assert!(matches!(plan.next(at(0)), Next::Wait(LONGEST_SLEEP)));
    }
}
