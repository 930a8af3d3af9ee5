//! Registrations that wait for their allocation policies to be asked again, by registration id: a device that registers anew
//! takes the place of what it began before.

use hashbrown::HashMap;
use nave_model::RegistrationId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::register::Attempt;

/// Most registrations that wait; more are told to come back. Each is a task in memory.
const MAX_POSTPONED: usize = 20_000;

/// Bytes of what they sent that are kept for them, all together; who would exceed it is told to come back. A registration
/// may have a payload of 96 KB, and few have any.
const MAX_POSTPONED_BYTES: usize = 64 << 20;

/// What a registration takes besides what was sent: its task and its entry.
const OVERHEAD: usize = 1 << 10;

/// How often a policy may answer "later" before the registration fails.
const MAX_BY_POLICY: u32 = 60;

/// How often the host may say "later" by itself, because too many wait for a policy or because it is not loaded yet: more
/// than an hour of that. A registration must not fail because many others came at the same time.
const MAX_BY_HOST: u32 = 1_000;

/// How often a registration was told to come back, and by whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retries {
    by_policy: u32,
    by_host: u32,
}

impl Retries {
    /// One more, if there may be one.
    pub(super) fn next(self, by_policy: bool) -> Option<Self> {
        let next =
            Self { by_policy: self.by_policy + u32::from(by_policy), by_host: self.by_host + u32::from(!by_policy) };
        (next.by_policy <= MAX_BY_POLICY && next.by_host <= MAX_BY_HOST).then_some(next)
    }
}

/// The registrations that wait on this host.
#[derive(Default)]
pub(super) struct Postponed {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<RegistrationId, Waiting>,
    bytes: usize,
}

struct Waiting {
    operation_id: String,
    /// Absent while it is being asked again.
    attempt: Option<Attempt>,
    bytes: usize,
    /// Dropped with the entry, which ends the wait.
    _goes_on: oneshot::Sender<()>,
}

impl Postponed {
    /// Whether this one may wait, with the others that do.
    pub(super) fn has_room(&self, id: &RegistrationId, attempt: &Attempt) -> bool {
        let state = self.state.lock();
        let (others, taken) = match state.waiting.get(id) {
            Some(own) => (state.waiting.len() - 1, state.bytes - own.bytes),
            None => (state.waiting.len(), state.bytes),
        };
        others < MAX_POSTPONED && taken + size(attempt) <= MAX_POSTPONED_BYTES
    }

    /// Lets a registration wait, in place of what its device began before. What is returned ends when somebody takes its
    /// place, or it is finished.
    pub(super) fn put(&self, id: &RegistrationId, operation_id: &str, attempt: Attempt) -> oneshot::Receiver<()> {
        let (goes_on, ended) = oneshot::channel();
        let bytes = size(&attempt);
        let entry = Waiting { operation_id: operation_id.to_owned(), attempt: Some(attempt), bytes, _goes_on: goes_on };
        let mut state = self.state.lock();
        state.bytes += bytes;
        if let Some(old) = state.waiting.insert(id.clone(), entry) {
            state.bytes -= old.bytes;
        }
        ended
    }

    /// What the device sent, when its wait is over; nothing if the device registered anew meanwhile.
    pub(super) fn take(&self, id: &RegistrationId, operation_id: &str) -> Option<Attempt> {
        let mut state = self.state.lock();
        let entry = state.waiting.get_mut(id).filter(|entry| entry.operation_id == operation_id)?;
        entry.attempt.take()
    }

    /// Whether this host works on that operation.
    pub(super) fn has(&self, id: &str, operation_id: &str) -> bool {
        let Ok(id) = RegistrationId::parse(id) else { return false };
        self.state.lock().waiting.get(&id).is_some_and(|entry| entry.operation_id == operation_id)
    }

    /// An operation ended.
    pub(super) fn finish(&self, id: &RegistrationId, operation_id: &str) {
        self.remove_if(id, |entry| entry.operation_id == operation_id);
    }

    /// A device has an operation on record: what it began before does not wait any longer.
    pub(super) fn supersede(&self, id: &RegistrationId, operation_id: &str) {
        self.remove_if(id, |entry| entry.operation_id != operation_id);
    }

    fn remove_if(&self, id: &RegistrationId, condition: impl FnOnce(&Waiting) -> bool) {
        let mut state = self.state.lock();
        if state.waiting.get(id).is_some_and(condition)
            && let Some(entry) = state.waiting.remove(id)
        {
            state.bytes -= entry.bytes;
        }
    }
}

fn size(attempt: &Attempt) -> usize {
    let credentials = &attempt.credentials;
    let texts = [&attempt.payload, &attempt.api_version].into_iter().flatten().map(String::len).sum::<usize>()
        + credentials.token.as_ref().map_or(0, |token| token.reveal().len());
    OVERHEAD + attempt.registration_id.len() + texts + credentials.certificates.iter().map(Vec::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provisioning::Credentials;

    fn attempt(payload: usize) -> Attempt {
        Attempt {
            registration_id: "d".to_owned(),
            credentials: Credentials::default(),
            payload: Some("x".repeat(payload)),
            force: false,
            api_version: None,
        }
    }

    fn id(text: &str) -> RegistrationId {
        RegistrationId::parse(text).unwrap()
    }

    #[test]
    fn a_device_that_registers_anew_takes_its_own_place() {
        let postponed = Postponed::default();
        let mut first = postponed.put(&id("d"), "op-1", attempt(10));
        assert!(postponed.has("d", "op-1") && !postponed.has("d", "op-2") && first.try_recv().is_err());
        let second = postponed.put(&id("d"), "op-2", attempt(20));
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed), "it need not wait any longer");
        assert!(postponed.take(&id("d"), "op-1").is_none());
        assert_eq!(postponed.take(&id("d"), "op-2").unwrap().payload.unwrap().len(), 20);
        assert!(postponed.has("d", "op-2"), "it is being asked, and is not interrupted");
        postponed.finish(&id("d"), "op-1");
        assert!(postponed.has("d", "op-2"));
        postponed.supersede(&id("d"), "op-2");
        assert!(postponed.has("d", "op-2"));
        postponed.supersede(&id("d"), "op-3");
        assert!(!postponed.has("d", "op-2"));
        assert_eq!(postponed.state.lock().bytes, 0);
        drop(second);
    }

    #[test]
    fn what_they_sent_is_bounded_all_together() {
        let postponed = Postponed::default();
        let large = || attempt(96 << 10);
        let mut waits = Vec::new();
        while postponed.has_room(&id(&format!("d-{}", waits.len())), &large()) {
            waits.push(postponed.put(&id(&format!("d-{}", waits.len())), "op", large()));
        }
        assert!(postponed.state.lock().bytes <= MAX_POSTPONED_BYTES);
        assert!((600..700).contains(&waits.len()), "{}", waits.len());
        assert!(postponed.has_room(&id("d-0"), &large()), "in its own place");
        assert!(!postponed.has_room(&id("other"), &attempt(96 << 10)));
        postponed.finish(&id("d-0"), "op");
        assert!(postponed.has_room(&id("other"), &large()));
    }

    #[test]
    fn a_crowd_does_not_use_up_the_patience_with_a_policy() {
        let mut retries = Retries::default();
        for _ in 0..MAX_BY_HOST {
            retries = retries.next(false).unwrap();
        }
        assert_eq!(retries.next(false), None);
        for _ in 0..MAX_BY_POLICY {
            retries = retries.next(true).unwrap();
        }
        assert_eq!(retries.next(true), None);
    }
}
