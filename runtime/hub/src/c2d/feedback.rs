//! Feedback to services on what became of their messages (protocol notes: service AMQP §4.3, REST §9).
//!
//! A record is written with the commit that decides a message's fate, under a key of its own, so that queues do not wait for
//! each other. When a service asks, the oldest records become a batch, which is an aggregate: handed out under a lock token,
//! completed, given back, or forgotten when its time is over. The token names the batch, so any host can settle it.

use std::sync::atomic::Ordering;

use nave_model::{
    DeviceId, FeedbackBatchRecord, FeedbackRecord, FormatVersion, Identity, Outcome, QueuedMessage, Record as _,
    RecordError, Timestamp,
};
use nave_store::{CommitError, Entry, Expect, Guard, Put, Revision, StoreError};
use serde_json::json;

use super::guid;
use super::receive::lock_lost;
use crate::error::HubError;
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};

/// Most records of one batch (Azure IoT Hub documentation, message feedback).
pub const MAX_BATCH_RECORDS: usize = 64;

/// Most feedback of a hub that no service has completed. Further feedback is dropped, with a warning: who asks for feedback
/// and never reads it must not fill the disk.
pub const MAX_FEEDBACK_RECORDS: usize = 50_000;

/// Entries looked at per step.
const PAGE: usize = 100;

/// Feedback that was handed to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedbackBatch {
    /// What settles it; a GUID, because that is what clients over AMQP make of it.
    pub lock_token: String,
    /// Its number; later batches have larger ones.
    pub number: u64,
    /// When it was put together.
    pub created: Timestamp,
    /// How often it was given back before.
    pub deliveries: u32,
    /// A JSON array of records.
    pub json: String,
}

impl Hub {
    /// The puts that leave feedback on what ended, as far as it is wanted.
    pub(super) fn feedback_on(
        &self,
        device: &DeviceId,
        generation: &str,
        ended: &[(QueuedMessage, Outcome)],
        now: Timestamp,
    ) -> Result<Vec<Put>, HubError> {
        let mut puts = Vec::new();
        let room = MAX_FEEDBACK_RECORDS.saturating_sub(self.queues.feedback.load(Ordering::Relaxed));
        for (message, outcome) in ended.iter().filter(|(message, outcome)| message.ack.wants(*outcome)) {
            if puts.len() >= room {
                tracing::warn!(hub = %self.id(), %device, "feedback is dropped: {MAX_FEEDBACK_RECORDS} records wait to be read");
                break;
            }
            let record = FeedbackRecord {
                v: FormatVersion,
                message_id: message.message_id.clone(),
                device_id: device.as_str().to_owned(),
                generation_id: generation.to_owned(),
                outcome: *outcome,
                at: now,
            };
            puts.push(put(self.keys.feedback(now, device.as_str(), message.sequence), &record)?);
        }
        Ok(puts)
    }

    /// Notes that feedback was committed.
    pub(super) fn feedback_came(&self, count: usize, now: Timestamp) {
        if count > 0 {
            self.queues.feedback.fetch_add(count, Ordering::Relaxed);
            self.note_feedback_due(now.after(self.queues.settings().feedback_time_to_live));
        }
    }

    fn feedback_went(&self, count: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(count));
        let _ = self.queues.feedback.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The next feedback, locked for the caller; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store fails.
    pub async fn receive_feedback(&self) -> Result<Option<FeedbackBatch>, HubError> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let taken = match self.take_back_batch().await {
                Ok(None) => self.new_batch().await,
                taken => taken,
            };
            match taken {
                Ok(batch) => return Ok(batch),
                // Another service was faster.
                Err(Missed::Conflict) => {}
                Err(Missed::Failed(error)) => return Err(error),
            }
        }
        Err(CommitError::Conflict { key: self.keys.feedbacks(), current: None }.into())
    }

    /// A batch that was handed out before and waits again.
    async fn take_back_batch(&self) -> Result<Option<FeedbackBatch>, Missed> {
        let (prefix, now, settings) = (self.keys.feedback_batches(), self.env.now(), self.queues.settings());
        let mut after = None;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), PAGE).await?;
            for (key, entry) in &page {
                let (mut batch, revision) = decode::<FeedbackBatchRecord>(entry)?;
                if batch.token.is_some() && batch.until > now {
                    continue;
                }
                // A lock that ran out: whoever had it did not do its work.
                batch.deliveries += u32::from(batch.token.take().is_some());
                let dead = batch.deliveries >= settings.feedback_max_deliveries;
                if dead || is_over(&batch, now, settings.feedback_time_to_live) {
                    self.remove_batch(key, &batch, revision).await?;
                    continue;
                }
                let Some(number) = key.strip_prefix(&prefix).and_then(|number| number.parse().ok()) else { continue };
                let expect = Expect::At(revision);
                return self.hand_out(number, batch, Guard { key: key.clone(), expect }, Vec::new()).await.map(Some);
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(None),
            }
        }
    }

    /// A new batch of the oldest records.
    async fn new_batch(&self) -> Result<Option<FeedbackBatch>, Missed> {
        let (now, time_to_live) = (self.env.now(), self.queues.settings().feedback_time_to_live);
        loop {
            let page = self.store.scan(&self.keys.feedbacks(), None, MAX_BATCH_RECORDS).await?;
            if page.is_empty() {
                return Ok(None);
            }
            let mut records = Vec::with_capacity(page.len());
            let mut changes = Vec::with_capacity(page.len());
            for (key, entry) in &page {
                let (record, revision) = decode::<FeedbackRecord>(entry)?;
                changes.push((
                    Guard { key: key.clone(), expect: Expect::At(revision) },
                    Put { key: key.clone(), value: None },
                ));
                // Feedback goes with its device (protocol notes: service AMQP §4.2).
                if record.at.after(time_to_live) > now && self.is_there(&record).await? {
                    records.push(record);
                }
            }
            let gone = page.len() - records.len();
            if records.is_empty() {
                let (guards, puts) = changes.into_iter().unzip();
                self.store.commit(guards, puts).await?;
                self.feedback_went(gone);
                continue;
            }
            let batch = FeedbackBatchRecord { records, created: now, ..FeedbackBatchRecord::default() };
            let number = now.unix_nanos();
            let guard = Guard { key: self.keys.feedback_batch(number), expect: Expect::Absent };
            let batch = self.hand_out(number, batch, guard, changes).await?;
            self.feedback_went(gone);
            return Ok(Some(batch));
        }
    }

    async fn is_there(&self, record: &FeedbackRecord) -> Result<bool, HubError> {
        let Ok(identity) = Identity::parse(&record.device_id) else { return Ok(false) };
        let device = self.load(&identity).await?;
        Ok(device.is_some_and(|(device, _)| device.generation_id == record.generation_id))
    }

    async fn hand_out(
        &self,
        number: u64,
        mut batch: FeedbackBatchRecord,
        guard: Guard,
        changes: Vec<(Guard, Put)>,
    ) -> Result<FeedbackBatch, Missed> {
        let mut random = [0; 8];
        self.env.fill_random(&mut random);
        let token = guid(u128::from(number) << 64 | u128::from(u64::from_be_bytes(random)));
        batch.token = Some(token.clone());
        batch.until = self.env.now().after(self.queues.settings().feedback_lock);
        let (mut guards, mut puts): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        puts.push(put(guard.key.clone(), &batch)?);
        guards.push(guard);
        self.store.commit(guards, puts).await?;
        Ok(FeedbackBatch {
            lock_token: token,
            number,
            created: batch.created,
            deliveries: batch.deliveries,
            json: batch_json(&batch),
        })
    }

    /// Removes feedback that was handed out under this token: it is done, or of no use.
    ///
    /// # Errors
    ///
    /// 412002 if the lock ran out or never was.
    pub async fn complete_feedback(&self, token: &str) -> Result<(), HubError> {
        let (key, batch, revision) = self.locked_batch(token).await?;
        match self.remove_batch(&key, &batch, revision).await {
            Ok(()) => Ok(()),
            Err(Missed::Conflict) => Err(lock_lost()),
            Err(Missed::Failed(error)) => Err(error),
        }
    }

    /// Gives feedback back that was handed out under this token.
    ///
    /// # Errors
    ///
    /// 412002 if the lock ran out or never was.
    pub async fn abandon_feedback(&self, token: &str) -> Result<(), HubError> {
        let (key, mut batch, revision) = self.locked_batch(token).await?;
        batch.token = None;
        batch.deliveries += 1;
        let done = if batch.deliveries >= self.queues.settings().feedback_max_deliveries {
            self.remove_batch(&key, &batch, revision).await
        } else {
            let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
            self.store.commit(guards, vec![put(key, &batch)?]).await.map(drop).map_err(Missed::from)
        };
        match done {
            Ok(()) => Ok(()),
            Err(Missed::Conflict) => Err(lock_lost()),
            Err(Missed::Failed(error)) => Err(error),
        }
    }

    async fn locked_batch(&self, token: &str) -> Result<(String, FeedbackBatchRecord, Revision), HubError> {
        let number = batch_number(token).ok_or_else(lock_lost)?;
        let key = self.keys.feedback_batch(number);
        let Some(entry) = self.store.get(&key).await? else { return Err(lock_lost()) };
        let (batch, revision) = decode::<FeedbackBatchRecord>(&entry)?;
        let held = batch.token.as_deref().is_some_and(|held| held.eq_ignore_ascii_case(token));
        if held && batch.until > self.env.now() { Ok((key, batch, revision)) } else { Err(lock_lost()) }
    }

    async fn remove_batch(&self, key: &str, batch: &FeedbackBatchRecord, revision: Revision) -> Result<(), Missed> {
        let guards = vec![Guard { key: key.to_owned(), expect: Expect::At(revision) }];
        self.store.commit(guards, vec![Put { key: key.to_owned(), value: None }]).await?;
        self.feedback_went(batch.records.len());
        Ok(())
    }

    /// Removes feedback whose time is over.
    pub(super) async fn expire_feedback(&self) {
        if let Err(error) = self.try_expire_feedback().await {
            tracing::warn!(hub = %self.id(), %error, "old feedback could not be removed");
            self.note_feedback_due(self.env.now().after(self.queues.settings().feedback_lock));
        }
    }

    async fn try_expire_feedback(&self) -> Result<(), HubError> {
        let (now, time_to_live) = (self.env.now(), self.queues.settings().feedback_time_to_live);
        loop {
            let page = self.store.scan(&self.keys.feedbacks(), None, PAGE).await?;
            let mut old = Vec::new();
            for (key, entry) in &page {
                let (record, revision) = decode::<FeedbackRecord>(entry)?;
                if record.at.after(time_to_live) <= now {
                    old.push((key.clone(), revision));
                }
            }
            if old.is_empty() {
                break;
            }
            let count = old.len();
            let guards = old.iter().map(|(key, at)| Guard { key: key.clone(), expect: Expect::At(*at) }).collect();
            let puts = old.into_iter().map(|(key, _)| Put { key, value: None }).collect();
            match self.store.commit(guards, puts).await {
                Ok(_) => self.feedback_went(count),
                // A service takes them: look again.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let page = self.store.scan(&self.keys.feedback_batches(), None, PAGE).await?;
        for (key, entry) in &page {
            let (batch, revision) = decode::<FeedbackBatchRecord>(entry)?;
            let locked = batch.token.is_some() && batch.until > now;
            if !locked && is_over(&batch, now, time_to_live) {
                match self.remove_batch(key, &batch, revision).await {
                    Ok(()) | Err(Missed::Conflict) => {}
                    Err(Missed::Failed(error)) => return Err(error),
                }
            }
        }
        let (count, oldest) = self.count_feedback().await?;
        self.queues.feedback.store(count, Ordering::Relaxed);
        if let Some(oldest) = oldest {
            // Not before there can be something to do.
            let again = now.after(self.queues.settings().feedback_lock);
            self.note_feedback_due(oldest.after(time_to_live).max(again));
        }
        Ok(())
    }

    /// How much feedback there is, and from when the oldest is.
    pub(super) async fn count_feedback(&self) -> Result<(usize, Option<Timestamp>), HubError> {
        let (mut count, mut oldest) = (0, None::<Timestamp>);
        let mut see = |record: &FeedbackRecord| {
            count += 1;
            oldest = Some(oldest.map_or(record.at, |known| known.min(record.at)));
        };
        for prefix in [self.keys.feedbacks(), self.keys.feedback_batches()] {
            let mut after: Option<String> = None;
            loop {
                let page = self.store.scan(&prefix, after.as_deref(), PAGE).await?;
                for (key, entry) in &page {
                    match records(entry) {
                        Ok(records) => records.iter().for_each(&mut see),
                        Err(RecordError::Damaged(error)) => self.note_damaged(key, &error),
                        Err(error) => return Err(error.into()),
                    }
                }
                match page.last() {
                    Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                    _ => break,
                }
            }
        }
        Ok((count, oldest))
    }
}

/// The records of an entry of either kind.
fn records(entry: &Entry) -> Result<Vec<FeedbackRecord>, RecordError> {
    match FeedbackBatchRecord::decode(&entry.value) {
        Ok(batch) => Ok(batch.records),
        Err(_) => Ok(vec![FeedbackRecord::decode(&entry.value)?]),
    }
}

/// Somebody else was faster, or it does not work.
enum Missed {
    Conflict,
    Failed(HubError),
}

impl From<CommitError> for Missed {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Conflict,
            error => Self::Failed(error.into()),
        }
    }
}

impl From<HubError> for Missed {
    fn from(error: HubError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

fn is_over(batch: &FeedbackBatchRecord, now: Timestamp, time_to_live: std::time::Duration) -> bool {
    batch.records.iter().all(|record| record.at.after(time_to_live) <= now)
}

/// The first half of a token is the number of its batch.
fn batch_number(token: &str) -> Option<u64> {
    let digits: String = token.chars().filter(|character| *character != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits.get(..16)?, 16).ok()
}

fn batch_json(batch: &FeedbackBatchRecord) -> String {
    let records = batch.records.iter().map(|record| {
        json!({
            "originalMessageId": record.message_id,
            "deviceGenerationId": record.generation_id,
            "deviceId": record.device_id,
            "enqueuedTimeUtc": record.at.iso(),
            "statusCode": record.outcome.as_str(),
            "description": record.outcome.as_str(),
        })
    });
    serde_json::Value::Array(records.collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_batch() {
        let token = guid(u128::from(1_790_000_000_123_456_789u64) << 64 | 7);
        assert_eq!(batch_number(&token), Some(1_790_000_000_123_456_789));
        for bad in ["", "x", "18d70000-0000-0000-0000-00000000000", "18d70000-0000-0000-0000-00000000000g", "++++"] {
            assert_eq!(batch_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn entries_of_both_kinds_are_counted() {
        let record = FeedbackRecord {
            v: FormatVersion,
            message_id: "m".into(),
            device_id: "d".into(),
            generation_id: "1".into(),
            outcome: Outcome::Success,
            at: Timestamp::from_unix_seconds(1),
        };
        let batch = FeedbackBatchRecord { records: vec![record.clone(); 3], ..FeedbackBatchRecord::default() };
        let entry = |value: Vec<u8>| Entry { revision: Revision::new(1).unwrap(), value: value.into() };
        assert_eq!(records(&entry(record.encode().unwrap())).unwrap().len(), 1);
        assert_eq!(records(&entry(batch.encode().unwrap())).unwrap().len(), 3);
        assert!(batch_json(&batch).starts_with(r#"[{"originalMessageId":"m","deviceGenerationId":"1","deviceId":"d""#));
    }
}
