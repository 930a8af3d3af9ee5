//! Connected devices: who holds the connection, what it listens to, and what is on its way to it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hashbrown::HashMap;
use nave_model::{Identity, SessionRecord, Timestamp};
use nave_store::Revision;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Method calls that may be on their way to one device. More are refused, so that a device that never answers holds a
/// bounded amount of memory.
pub const MAX_METHODS_IN_FLIGHT: usize = 64;

const SHARDS: usize = 16;

/// What a device subscribed to, as stored in the session record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions(u32);

impl Subscriptions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Direct methods.
    pub const METHODS: Self = Self(1);
    /// Answers to its own twin requests.
    pub const TWIN_RESPONSES: Self = Self(2);
    /// Changes of desired properties.
    pub const TWIN_DESIRED: Self = Self(4);
    /// Cloud-to-device messages.
    pub const CLOUD_TO_DEVICE: Self = Self(8);
    /// Cloud-to-device messages with QoS 0: nobody acknowledges them. Beside [`Self::CLOUD_TO_DEVICE`], not in its place.
    pub const AT_MOST_ONCE: Self = Self(64);
    /// Messages to a module's inputs.
    pub const MODULE_INPUTS: Self = Self(16);
    /// Answers to requests for certificates.
    pub const CREDENTIALS: Self = Self(32);

    /// As stored.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// To be stored.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Why the hub ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The same device connected again (log code 400027).
    Displaced,
    /// The device was disabled.
    Disabled,
    /// The device was deleted.
    Deleted,
    /// The key or thumbprint that let the device in is no longer one of its own.
    CredentialsChanged,
    /// The token's time is over.
    TokenExpired,
    /// The device does not take what is sent to it.
    Overflow,
    /// The hub stops.
    Shutdown,
}

impl CloseReason {
    /// The word for the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Displaced => "connection forcefully closed on new connection",
            Self::Disabled => "device disabled",
            Self::Deleted => "device deleted",
            Self::CredentialsChanged => "credentials changed",
            Self::TokenExpired => "token expired",
            Self::Overflow => "device does not read",
            Self::Shutdown => "hub stops",
        }
    }
}

/// Something for the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToDevice {
    /// A method call.
    Method {
        /// To be repeated in the answer.
        request: u32,
        /// Method name.
        name: String,
        /// Payload, JSON text.
        payload: String,
    },
    /// Desired properties changed.
    Desired {
        /// The new `$version`.
        version: u64,
        /// The notification's body.
        payload: Arc<str>,
    },
    /// Cloud-to-device messages wait in the queue, to be taken with [`crate::Hub::exchange`].
    MessagesWait,
    /// The session is over.
    Close(CloseReason),
}

/// The mailbox is full: the device does not take what is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxFull;

/// Where the hub puts what is for a device. The connection implements it; it must not block.
pub trait Mailbox: Send + Sync + 'static {
    /// Queues `message`.
    ///
    /// # Errors
    ///
    /// [`MailboxFull`] at the queue's bound. A close is always taken.
    fn deliver(&self, message: ToDevice) -> Result<(), MailboxFull>;
}

/// What came of a method call to a connected device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodAnswer {
    /// The device answered.
    Answered {
        /// The status as it wrote it.
        status: String,
        /// The payload as it wrote it.
        payload: Vec<u8>,
    },
    /// It did not answer in time.
    NoAnswer,
    /// Its connection ended.
    Disconnected,
    /// It is not connected (here).
    NotConnected,
    /// It is connected but not subscribed.
    NotSubscribed,
    /// [`MAX_METHODS_IN_FLIGHT`] calls are under way.
    Saturated,
}

/// A device's connection, as the hub sees it.
pub struct Session {
    pub(crate) identity: Identity,
    pub(crate) epoch: u64,
    pub(crate) persistent: bool,
    pub(crate) generation_id: Arc<str>,
    pub(crate) auth_method: Arc<str>,
    pub(crate) model_id: Option<Arc<str>>,
    pub(crate) connected_at: Timestamp,
    pub(crate) record: Mutex<Revision>,
    /// Whether an event told of its begin, so that another has to tell of its end.
    pub(crate) announced: bool,
    mailbox: Arc<dyn Mailbox>,
    closed: OnceLock<CloseReason>,
    subscriptions: AtomicU32,
    messages: AtomicU64,
    last_activity: AtomicU64,
    methods: Mutex<Methods>,
}

#[derive(Default)]
struct Methods {
    next: u32,
    // Boxed: almost every device, almost always, has no call under way.
    waiting: Option<Box<HashMap<u32, oneshot::Sender<MethodAnswer>>>>,
}

pub(crate) struct NewSession {
    pub(crate) identity: Identity,
    pub(crate) stored: SessionRecord,
    pub(crate) revision: Revision,
    pub(crate) persistent: bool,
    pub(crate) generation_id: Arc<str>,
    pub(crate) auth_method: Arc<str>,
    pub(crate) model_id: Option<Arc<str>>,
    pub(crate) mailbox: Arc<dyn Mailbox>,
    pub(crate) announced: bool,
    pub(crate) now: Timestamp,
}

impl Session {
    pub(crate) fn new(new: NewSession) -> Self {
        Self {
            identity: new.identity,
            epoch: new.stored.epoch,
            persistent: new.persistent,
            generation_id: new.generation_id,
            auth_method: new.auth_method,
            model_id: new.model_id,
            connected_at: new.now,
            record: Mutex::new(new.revision),
            announced: new.announced,
            mailbox: new.mailbox,
            closed: OnceLock::new(),
            subscriptions: AtomicU32::new(new.stored.subscriptions),
            messages: AtomicU64::new(0),
            last_activity: AtomicU64::new(new.now.unix_nanos()),
            methods: Mutex::new(Methods::default()),
        }
    }

    /// Who is connected.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The session's epoch: larger than that of every earlier session of the device.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the session still is the device's.
    pub fn is_open(&self) -> bool {
        self.closed.get().is_none()
    }

    /// Why the session is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.closed.get().copied()
    }

    /// What the device listens to.
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::from_bits(self.subscriptions.load(Ordering::Acquire))
    }

    /// When the device last sent something.
    pub fn last_activity(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.last_activity.load(Ordering::Relaxed))
    }

    pub(crate) fn active(&self, now: Timestamp) {
        self.last_activity.fetch_max(now.unix_nanos(), Ordering::Relaxed);
    }

    /// The first of `count` further message numbers of this session.
    pub(crate) fn number_messages(&self, count: u64) -> u64 {
        self.messages.fetch_add(count, Ordering::Relaxed)
    }

    pub(crate) fn set_subscriptions(&self, subscriptions: Subscriptions) {
        self.subscriptions.store(subscriptions.bits(), Ordering::Release);
    }

    /// Ends the session: the connection is told, waiting method calls get [`MethodAnswer::Disconnected`].
    pub(crate) fn close(&self, reason: CloseReason) {
        if self.closed.set(reason).is_ok() {
            let _ = self.mailbox.deliver(ToDevice::Close(reason));
            self.methods.lock().waiting = None;
        }
    }

    pub(crate) fn deliver(&self, message: ToDevice) {
        if self.is_open() && self.mailbox.deliver(message).is_err() {
            self.close(CloseReason::Overflow);
        }
    }

    /// Sends a method call to the device. The receiver gets the answer, or an error when the session ends.
    pub(crate) fn call_method(
        self: &Arc<Self>,
        name: &str,
        payload: &str,
    ) -> Result<(PendingMethod, oneshot::Receiver<MethodAnswer>), MethodAnswer> {
        if !self.is_open() {
            return Err(MethodAnswer::NotConnected);
        }
        if !self.subscriptions().contains(Subscriptions::METHODS) {
            return Err(MethodAnswer::NotSubscribed);
        }
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut methods = self.methods.lock();
            methods.next = methods.next.wrapping_add(1);
            let request = methods.next;
            let waiting = methods.waiting.get_or_insert_default();
            if waiting.len() >= MAX_METHODS_IN_FLIGHT {
                return Err(MethodAnswer::Saturated);
            }
            waiting.insert(request, sender);
            request
        };
        let pending = PendingMethod { session: Arc::clone(self), request };
        self.deliver(ToDevice::Method { request, name: name.to_owned(), payload: payload.to_owned() });
        if self.is_open() { Ok((pending, receiver)) } else { Err(MethodAnswer::Disconnected) }
    }

    /// Takes the device's answer to a method call. An answer that nobody waits for (late, or to nothing) is ignored.
    pub fn answer_method(&self, request: u32, status: &str, payload: &[u8]) {
        if let Some(sender) = self.take_method(request) {
            let _ = sender.send(MethodAnswer::Answered { status: status.to_owned(), payload: payload.to_vec() });
        }
    }

    fn take_method(&self, request: u32) -> Option<oneshot::Sender<MethodAnswer>> {
        let mut methods = self.methods.lock();
        let waiting = methods.waiting.as_mut()?;
        let sender = waiting.remove(&request);
        if waiting.is_empty() {
            methods.waiting = None;
        }
        sender
    }
}

/// Forgets a method call when it is dropped: whoever waited for it gave up.
pub(crate) struct PendingMethod {
    session: Arc<Session>,
    request: u32,
}

impl Drop for PendingMethod {
    fn drop(&mut self) {
        self.session.take_method(self.request);
    }
}

/// The sessions of one hub on this host.
pub(crate) struct Sessions {
    shards: [Mutex<HashMap<Identity, Arc<Session>>>; SHARDS],
    changed: tokio::sync::Notify,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())), changed: tokio::sync::Notify::new() }
    }

    pub(crate) fn get(&self, identity: &Identity) -> Option<Arc<Session>> {
        self.shard(identity).lock().get(identity).cloned()
    }

    /// Puts `session` in place of an older one, which it ends. Of two that were made at the same time the one with the
    /// larger epoch stays. Returns the one that was ended.
    pub(crate) fn insert(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        let loser = {
            let mut shard = self.shard(&session.identity).lock();
            match shard.get(&session.identity) {
                Some(current) if current.epoch > session.epoch => Some(Arc::clone(session)),
                _ => shard.insert(session.identity.clone(), Arc::clone(session)),
            }
        };
        if let Some(loser) = &loser {
            loser.close(CloseReason::Displaced);
        }
        self.changed.notify_waiters();
        loser
    }

    /// Whether `session` was in the list, and not a successor.
    pub(crate) fn remove(&self, session: &Session) -> bool {
        let mut shard = self.shard(&session.identity).lock();
        let current = shard.get(&session.identity).is_some_and(|current| current.epoch == session.epoch);
        if current {
            shard.remove(&session.identity);
        }
        current
    }

    pub(crate) fn close_all(&self, reason: CloseReason) {
        for shard in &self.shards {
            let sessions: Vec<_> = shard.lock().drain().map(|(_, session)| session).collect();
            sessions.iter().for_each(|session| session.close(reason));
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Number of devices among them, modules not included.
    pub(crate) fn count_devices(&self) -> usize {
        let devices = |shard: &Mutex<HashMap<Identity, _>>| shard.lock().keys().filter(|who| !who.is_module()).count();
        self.shards.iter().map(devices).sum()
    }

    /// Some session appeared or changed its subscriptions.
    pub(crate) fn announce(&self) {
        self.changed.notify_waiters();
    }

    /// Resolves at the next such change after the call.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn shard(&self, identity: &Identity) -> &Mutex<HashMap<Identity, Arc<Session>>> {
        let hash = xxhash_rust::xxh3::xxh3_64(identity.device_id().as_str().as_bytes());
        // In bounds: the remainder is below the number of shards.
        #[expect(clippy::indexing_slicing, reason = "the index is a remainder of the length")]
        &self.shards[(hash % SHARDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Inbox(Mutex<Vec<ToDevice>>);

    impl Mailbox for Inbox {
        fn deliver(&self, message: ToDevice) -> Result<(), MailboxFull> {
            let mut inbox = self.0.lock();
            if inbox.len() >= 3 && !matches!(message, ToDevice::Close(_)) {
                return Err(MailboxFull);
            }
            inbox.push(message);
            Ok(())
        }
    }

    fn session(epoch: u64, inbox: &Arc<Inbox>) -> Arc<Session> {
        Arc::new(Session::new(NewSession {
            identity: Identity::parse("dev").unwrap(),
            stored: SessionRecord {
                v: nave_model::FormatVersion,
                epoch,
                host: "h".into(),
                subscriptions: Subscriptions::METHODS.bits(),
            },
            revision: Revision::new(1).unwrap(),
            persistent: true,
            generation_id: "g".into(),
            auth_method: "{}".into(),
            model_id: None,
            mailbox: Arc::clone(inbox) as Arc<dyn Mailbox>,
            announced: false,
            now: Timestamp::from_unix_seconds(1),
        }))
    }

    #[test]
    fn the_larger_epoch_stays_whatever_the_order() {
        let inbox = Arc::default();
        let (old, new) = (session(1, &inbox), session(2, &inbox));
        let sessions = Sessions::new();
        sessions.insert(&new);
        sessions.insert(&old);
        assert_eq!(old.close_reason(), Some(CloseReason::Displaced));
        assert!(new.is_open());
        assert_eq!(sessions.get(&new.identity).unwrap().epoch(), 2);
        assert!(!sessions.remove(&old));
        assert_eq!(sessions.count(), 1, "a displaced session does not remove its successor");
    }

    #[test]
    fn a_closed_session_frees_its_callers() {
        let inbox = Arc::default();
        let session = session(1, &inbox);
        let (_pending, mut answer) = session.call_method("m", "null").unwrap();
        session.close(CloseReason::Disabled);
        assert!(answer.try_recv().is_err());
        assert_eq!(session.call_method("m", "null").err(), Some(MethodAnswer::NotConnected));
        assert_eq!(inbox.0.lock().last(), Some(&ToDevice::Close(CloseReason::Disabled)));
    }

    #[test]
    fn an_answer_reaches_its_caller_once() {
        let inbox = Arc::default();
        let session = session(1, &inbox);
        let (_pending, mut answer) = session.call_method("m", "null").unwrap();
        session.answer_method(99, "200", b"{}");
        session.answer_method(1, "200", b"{}");
        session.answer_method(1, "500", b"{}");
        assert_eq!(answer.try_recv(), Ok(MethodAnswer::Answered { status: "200".into(), payload: b"{}".to_vec() }));
    }

    #[test]
    fn a_device_that_does_not_read_is_closed() {
        let inbox: Arc<Inbox> = Arc::default();
        let session = session(1, &inbox);
        for version in 0..4 {
            session.deliver(ToDevice::Desired { version, payload: "{}".into() });
        }
        assert_eq!(session.close_reason(), Some(CloseReason::Overflow));
    }
}
