//! Connecting: from verified facts to a session with an epoch.

use std::sync::Arc;

use nave_model::{DeviceRecord, FormatVersion, Identity, SessionRecord};
use nave_store::{CommitError, Expect, Guard, Revision};

use crate::bus::{HostId, HostMessage};
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, MAX_COMMIT_ATTEMPTS, decode, put};
use crate::session::{CloseReason, Mailbox, NewSession, Session, Subscriptions};
use crate::throttle::Operation;

/// A device or module whose credentials were checked against its record.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who it is.
    pub identity: Identity,
    /// The revision of the record that the credentials were checked against: if it has changed by the time of the connect,
    /// they are checked again.
    pub revision: Revision,
    /// Tells this device from an earlier one of the same id.
    pub generation_id: Arc<str>,
    /// The identity's tag: it moves with status and credentials, not with the twin.
    pub etag: u64,
    /// The device, of a module.
    pub owner: Option<Owner>,
    /// What telemetry carries as the connection's authentication method, JSON text.
    pub auth_method: Arc<str>,
    /// When the credentials run out.
    pub expires: Option<nave_model::Timestamp>,
}

/// The device of a module that connects: what was looked at, so that a change is noticed.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The device.
    pub identity: Identity,
    /// The revision at which it was enabled.
    pub revision: Revision,
    /// Tells this device from an earlier one of the same id.
    pub generation_id: Arc<str>,
    /// The identity's tag.
    pub etag: u64,
}

/// What the device asked for when it connected.
pub struct ConnectOptions {
    /// Whether subscriptions survive the connection (MQTT clean session 0).
    pub persistent: bool,
    /// The model that the device announces.
    pub model_id: Option<String>,
    /// Where the hub puts what is for the device.
    pub mailbox: Arc<dyn Mailbox>,
}

/// The outcome of a connect.
pub enum Connected {
    /// The device is connected.
    Session {
        /// Its session.
        session: Arc<Session>,
        /// Whether subscriptions of an earlier connection are live again.
        resumed: bool,
    },
    /// The device's record changed after its credentials were checked: check them again.
    Changed,
}

impl Hub {
    /// Makes `who` the owner of a new session, whose epoch is above that of every earlier one, and ends the earlier one.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store fails, 429 when devices connect too fast.
    pub async fn connect(&self, who: &Authenticated, options: ConnectOptions) -> Result<Connected, HubError> {
        self.pass(Operation::Connects, 1).await?;
        let record_key = self.keys.identity(&who.identity);
        let owner_key = who.owner.as_ref().map(|owner| self.keys.identity(&owner.identity));
        let session_key = self.keys.session(&who.identity.to_string());
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let before = match self.store.get(&session_key).await? {
                Some(entry) => Some(decode::<SessionRecord>(&entry)?),
                None => None,
            };
            let (epoch, kept) = before.as_ref().map_or((1, 0), |(old, _)| (old.epoch + 1, old.subscriptions));
            let stored = SessionRecord {
                v: FormatVersion,
                epoch,
                host: self.host.as_str().to_owned(),
                subscriptions: if options.persistent { kept } else { 0 },
            };
            let mut guards = vec![Guard { key: record_key.clone(), expect: Expect::At(who.revision) }];
            if let (Some(owner), Some(key)) = (&who.owner, &owner_key) {
                guards.push(Guard { key: key.clone(), expect: Expect::At(owner.revision) });
            }
            let expect = before.as_ref().map_or(Expect::Absent, |(_, revision)| Expect::At(*revision));
            guards.push(Guard { key: session_key.clone(), expect });
            let mut puts = vec![put(session_key.clone(), &stored)?];
            let announced = self.announces();
            if announced || options.model_id.is_some() {
                let Some((mut record, _)) =
                    self.load(&who.identity).await?.filter(|(_, revision)| *revision == who.revision)
                else {
                    return Ok(Connected::Changed);
                };
                let new_model = options.model_id.is_some() && record.twin.model_id != options.model_id;
                if new_model {
                    record.twin.model_id.clone_from(&options.model_id);
                }
                if announced {
                    self.announce(&who.identity, &mut record, epoch, &mut puts)?;
                }
                if announced || new_model {
                    puts.push(put(record_key.clone(), &record)?);
                }
            }
            match self.store.commit(guards, puts).await {
                Ok(revision) => {
                    if let Some((old, _)) = before.filter(|(old, _)| old.host != self.host.as_str()) {
                        self.send_close(&who.identity, &old, CloseReason::Displaced);
                    }
                    let resumed = options.persistent && kept != 0;
                    let session = Arc::new(Session::new(NewSession {
                        identity: who.identity.clone(),
                        stored,
                        revision,
                        persistent: options.persistent,
                        generation_id: Arc::clone(&who.generation_id),
                        auth_method: Arc::clone(&who.auth_method),
                        model_id: options.model_id.as_deref().map(Arc::from),
                        mailbox: Arc::clone(&options.mailbox),
                        announced,
                        now: self.env.now(),
                    }));
                    let displaced = self.sessions.insert(&session);
                    // A session that announces itself has taken over the entry.
                    if let Some(displaced) = displaced.filter(|displaced| displaced.announced && !announced) {
                        self.announce_end(&displaced);
                    }
                    if announced {
                        self.forward_soon(&who.identity);
                    }
                    let unconfirmed = Unconfirmed { hub: self, session: Some(Arc::clone(&session)) };
                    if self.changed_meanwhile(who, &session).await? {
                        return Ok(Connected::Changed);
                    }
                    unconfirmed.keep();
                    return Ok(Connected::Session { session, resumed });
                }
                Err(CommitError::Conflict { key, .. }) if key == record_key || Some(&key) == owner_key.as_ref() => {
                    return Ok(Connected::Changed);
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(HubError::new(ErrorCode::ThrottlingBacklogTimeout, "The device connects too often at the same time."))
    }

    /// Whether the device's credentials have to be checked again, because its identity changed after the commit that made it
    /// the session's; a session that was displaced since then is ended.
    ///
    /// Who disables, re-keys or deletes a device, or connects it elsewhere, commits first and then looks for a session to end.
    /// A session that is committed but not in the list yet escapes it. Once it is in the list, either it is found there or
    /// the change is seen here.
    async fn changed_meanwhile(&self, who: &Authenticated, session: &Session) -> Result<bool, HubError> {
        let Some(entry) = self.store.get(&self.keys.session(&who.identity.to_string())).await? else { return Ok(true) };
        let (stored, _) = decode::<SessionRecord>(&entry)?;
        if stored.epoch > session.epoch {
            // Not to be repeated: that would take the device back from its newer connection.
            self.end_stale(session);
        }
        let own = (who.revision, who.etag, &who.generation_id);
        if self.identity_changed(&who.identity, own, Some(session)).await? {
            return Ok(true);
        }
        let Some(owner) = &who.owner else { return Ok(false) };
        let seen = (owner.revision, owner.etag, &owner.generation_id);
        self.identity_changed(&owner.identity, seen, None).await
    }

    /// Whether an identity is another one than was seen, apart from its twin. The connect itself may have written its record.
    async fn identity_changed(
        &self,
        identity: &Identity,
        (revision, etag, generation_id): (Revision, u64, &Arc<str>),
        session: Option<&Session>,
    ) -> Result<bool, HubError> {
        let Some(entry) = self.store.get(&self.keys.identity(identity)).await? else { return Ok(true) };
        if entry.revision == revision || session.is_some_and(|session| entry.revision == *session.record.lock()) {
            return Ok(false);
        }
        let (record, _) = decode::<DeviceRecord>(&entry)?;
        Ok(record.etag != etag || *record.generation_id != **generation_id)
    }

    /// Notes what the device listens to now; for a persistent session durably, before it is acknowledged.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store fails or the session is no longer the device's.
    pub async fn subscribe(&self, session: &Session, subscriptions: Subscriptions) -> Result<(), HubError> {
        if session.subscriptions() == subscriptions {
            return Ok(());
        }
        if session.persistent {
            let stored = SessionRecord {
                v: FormatVersion,
                epoch: session.epoch,
                host: self.host.as_str().to_owned(),
                subscriptions: subscriptions.bits(),
            };
            self.store_session(session, &stored).await?;
        }
        session.set_subscriptions(subscriptions);
        self.sessions.announce();
        Ok(())
    }

    async fn store_session(&self, session: &Session, stored: &SessionRecord) -> Result<(), HubError> {
        let key = self.keys.session(&session.identity.to_string());
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            match self.store.commit(vec![self.session_guard(session)], vec![put(key.clone(), stored)?]).await {
                Ok(revision) => {
                    *session.record.lock() = revision;
                    return Ok(());
                }
                // On this host, a session of an earlier device of the id was closed before that device was removed.
                Err(CommitError::Conflict { .. }) if session.is_open() && self.still_owns(session).await? => {}
                Err(CommitError::Conflict { .. }) => {
                    return Err(HubError::unauthorized().with_detail("the session was displaced"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key, current: None }.into())
    }

    /// The connection of `session` is gone.
    pub fn disconnected(&self, session: &Session) {
        self.leave(session);
        session.close(CloseReason::Displaced);
    }

    /// Ends the session of `identity` wherever it is, unless it began after `up_to_epoch`.
    pub(crate) async fn close_everywhere(&self, identity: &Identity, reason: CloseReason) -> Result<(), HubError> {
        let Some(entry) = self.store.get(&self.keys.session(&identity.to_string())).await? else { return Ok(()) };
        self.end_session(identity, &decode::<SessionRecord>(&entry)?.0, reason);
        Ok(())
    }

    /// Ends the session that `stored` speaks of, and earlier ones.
    pub(crate) fn end_session(&self, identity: &Identity, stored: &SessionRecord, reason: CloseReason) {
        self.close_here(identity, stored.epoch, reason);
        if stored.host != self.host.as_str() {
            self.send_close(identity, stored, reason);
        }
    }

    /// Ends the session of `identity` on this host, unless it began after `up_to_epoch`.
    pub(crate) fn close_here(&self, identity: &Identity, up_to_epoch: u64, reason: CloseReason) {
        if let Some(session) = self.sessions.get(identity).filter(|session| session.epoch <= up_to_epoch) {
            session.close(reason);
            self.leave(&session);
        }
    }

    fn send_close(&self, identity: &Identity, stored: &SessionRecord, reason: CloseReason) {
        let message = HostMessage::Close {
            hub: self.id().as_str().to_owned(),
            identity: identity.clone(),
            epoch: stored.epoch,
            reason,
        };
        let sending = self.bus.send(HostId::new(&stored.host), message);
        // An unreachable host holds no connection that matters: the store refuses its commits.
        self.env.spawn(Box::pin(async move { drop(sending.await) }));
    }
}

/// A session that is in the list and not confirmed yet. Unless it is kept, it leaves the list again, also if whoever connects
/// gives up in between.
struct Unconfirmed<'a> {
    hub: &'a Hub,
    session: Option<Arc<Session>>,
}

impl Unconfirmed<'_> {
    fn keep(mut self) {
        self.session = None;
    }
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.hub.disconnected(session);
        }
    }
}
