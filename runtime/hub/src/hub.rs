//! One hub: what its operations share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nave_auth::{AccessPolicy, Rights};
use nave_engine::Functions;
use nave_env::SharedEnv;
use nave_log::Log;
use nave_model::{DeviceRecord, HostName, HubId, Identity, Keys, Record, SessionRecord, Tenant};
use nave_routing::RouteTable;
use nave_store::{CommitError, Entry, Expect, Guard, Put, Revision, Store};
use parking_lot::RwLock;

use crate::authority::Authorities;
use crate::bus::{Bus, HostId};
use crate::c2d::Queues;
use crate::error::HubError;
use crate::lane::Lanes;
use crate::metrics::HubMetrics;
use crate::outbox::{Late, check_outbox};
use crate::presence::Presence;
use crate::session::{CloseReason, Session, Sessions};
use crate::statistics::Counted;
use crate::throttle::{Limits, Operation, Throttle};

/// Attempts at a change before the caller is told to repeat it. Conflicts come from other hosts only, so a second attempt
/// is rare and a tenth means that something is badly wrong.
pub const MAX_COMMIT_ATTEMPTS: u32 = 10;

/// What a hub is made of. All of it is shared between hubs but the log, the names and the policies.
pub struct HubParts {
    /// Time, randomness, tasks.
    pub env: SharedEnv,
    /// State.
    pub store: Arc<dyn Store>,
    /// Telemetry of this hub.
    pub log: Arc<dyn Log>,
    /// Decisions.
    pub functions: Arc<Functions>,
    /// Other hosts.
    pub bus: Arc<dyn Bus>,
    /// This host.
    pub host: HostId,
    /// The owner of the hub.
    pub tenant: Tenant,
    /// The hub's immutable id: part of every key.
    pub id: HubId,
    /// The dotted name that devices are told.
    pub host_name: HostName,
    /// Other names under which the hub answers.
    pub aliases: Vec<HostName>,
    /// Shared access policies.
    pub policies: Vec<AccessPolicy<Rights>>,
}

/// One hub. Cheap to share; all operations take `&self`.
pub struct Hub {
    pub(crate) env: SharedEnv,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) functions: Arc<Functions>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) host: HostId,
    pub(crate) keys: Keys,
    pub(crate) sessions: Sessions,
    pub(crate) lanes: Lanes<Identity>,
    pub(crate) routes: RwLock<Arc<RouteTable>>,
    pub(crate) authorities: Authorities,
    pub(crate) late: Late,
    metrics: HubMetrics,
    pub(crate) throttle: Throttle,
    pub(crate) presence: Presence,
    pub(crate) counted: tokio::sync::Mutex<Option<Counted>>,
    pub(crate) queues: Queues,
    pub(crate) twin_catch_up: AtomicBool,
    id: HubId,
    host_name: HostName,
    aliases: Vec<HostName>,
    policies: Vec<AccessPolicy<Rights>>,
}

impl Hub {
    /// Puts a hub together. Its routes are those of a hub without any: everything goes to `events`.
    pub fn new(parts: HubParts) -> Self {
        let keys = Keys::new(&parts.tenant, parts.id.as_str());
        let authorities = Authorities::new(Arc::clone(&parts.env), Arc::clone(&parts.store), keys.clone());
        Self {
            env: parts.env,
            store: parts.store,
            log: parts.log,
            functions: parts.functions,
            bus: parts.bus,
            host: parts.host,
            keys,
            sessions: Sessions::new(),
            lanes: Lanes::new(),
            routes: RwLock::new(Arc::new(RouteTable::default_for(parts.host_name.short()))),
            authorities,
            late: Late::default(),
            metrics: HubMetrics::default(),
            throttle: Throttle::default(),
            presence: Presence::default(),
            counted: tokio::sync::Mutex::new(None),
            queues: Queues::new(),
            twin_catch_up: AtomicBool::new(false),
            id: parts.id,
            host_name: parts.host_name,
            aliases: parts.aliases,
            policies: parts.policies,
        }
    }

    /// The immutable id.
    pub const fn id(&self) -> &HubId {
        &self.id
    }

    /// The dotted host name.
    pub const fn host_name(&self) -> &HostName {
        &self.host_name
    }

    /// Whether the hub answers to `name`.
    pub fn answers_to(&self, name: &HostName) -> bool {
        self.host_name == *name || self.aliases.contains(name)
    }

    /// The other names of the hub.
    pub fn aliases(&self) -> &[HostName] {
        &self.aliases
    }

    /// The shared access policy of that name.
    pub fn policy(&self, name: &str) -> Option<&AccessPolicy<Rights>> {
        self.policies.iter().find(|policy| policy.name.as_str() == name)
    }

    /// All shared access policies.
    pub fn policies(&self) -> &[AccessPolicy<Rights>] {
        &self.policies
    }

    /// The certificate authorities that vouch for devices.
    pub const fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// Puts limits in force; what was used of the ones before is forgotten.
    pub fn set_limits(&self, limits: Limits) {
        self.throttle.set(limits);
    }

    /// Lets an operation through, perhaps later.
    ///
    /// # Errors
    ///
    /// 429001 when it would have to wait for too long.
    pub async fn pass(&self, operation: Operation, cost: u64) -> Result<(), HubError> {
        self.throttle.pass(&self.env, operation, cost).await
    }

    /// What the hub counts.
    pub const fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// The telemetry log.
    pub const fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Number of connections on this host.
    pub fn connected(&self) -> usize {
        self.sessions.count()
    }

    /// The session of `identity` on this host, if it is connected here.
    pub fn session(&self, identity: &Identity) -> Option<Arc<Session>> {
        self.sessions.get(identity)
    }

    /// Ends every session.
    pub fn close_sessions(&self, reason: CloseReason) {
        self.sessions.close_all(reason);
    }

    /// A device or module with the revision it was read at.
    pub(crate) async fn load(&self, identity: &Identity) -> Result<Option<(DeviceRecord, Revision)>, HubError> {
        let entry = self.store.get(&self.keys.identity(identity)).await?;
        entry.map(|entry| decode(&entry)).transpose()
    }

    /// A device or module that has to be there.
    pub(crate) async fn require(&self, identity: &Identity) -> Result<(DeviceRecord, Revision), HubError> {
        self.load(identity).await?.ok_or_else(|| HubError::device_not_found(&identity.to_string()))
    }

    /// Reads a device or module, changes it and commits it, again when another host was faster.
    ///
    /// On behalf of a connected device the commit is also guarded by the session's record, so that a session that was
    /// displaced elsewhere changes nothing; it is ended then.
    pub(crate) async fn change<T>(
        &self,
        identity: &Identity,
        session: Option<&Session>,
        mut change: impl FnMut(&mut DeviceRecord) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let key = self.keys.identity(identity);
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (mut record, revision) = self.require(identity).await?;
            if let Some(session) = session.filter(|session| *session.generation_id != *record.generation_id) {
                self.end_stale(session);
                return Err(HubError::unauthorized().with_detail("the session is that of an earlier device of this id"));
            }
            let outbox_before = record.outbox_count;
            let result = change(&mut record)?;
            let mut guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
            if let Some(session) = session {
                guards.push(self.session_guard(session));
            }
            let mut puts = vec![put(key.clone(), &record)?];
            let has_events = record.outbox_count != outbox_before;
            if has_events {
                check_outbox(&record)?;
                puts.push(self.outbox_marker(identity));
            }
            match self.store.commit(guards, puts).await {
                Ok(_) => {
                    if has_events {
                        self.forward_events(identity).await;
                    }
                    return Ok(result);
                }
                Err(CommitError::Conflict { key: conflict, .. }) if conflict == key => {}
                Err(CommitError::Conflict { .. }) => match session {
                    Some(session) if self.still_owns(session).await? => {}
                    _ => return Err(HubError::unauthorized().with_detail("the session was displaced on another host")),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict { key, current: None }.into())
    }

    pub(crate) fn session_guard(&self, session: &Session) -> Guard {
        let key = self.keys.session(&session.identity.to_string());
        Guard { key, expect: Expect::At(*session.record.lock()) }
    }

    /// Whether the device still is the session's, asked after a commit found the session's record changed: its own
    /// subscriptions change that as well. If so, the commit can be repeated with the newer revision; if not, the session has
    /// been ended.
    pub(crate) async fn still_owns(&self, session: &Session) -> Result<bool, HubError> {
        if let Some(entry) = self.store.get(&self.keys.session(&session.identity.to_string())).await? {
            let (stored, revision) = decode::<SessionRecord>(&entry)?;
            // An id that was made anew counts its epochs from 1 again, and may do so on another host.
            if stored.epoch == session.epoch && stored.host == self.host.as_str() {
                let mut known = session.record.lock();
                *known = revision.max(*known);
                return Ok(true);
            }
        }
        self.end_stale(session);
        Ok(false)
    }

    pub(crate) fn end_stale(&self, session: &Session) {
        session.close(CloseReason::Displaced);
        self.leave(session);
    }

    /// Takes a session out of the list, if it still is there, and remembers when that was.
    pub(crate) fn leave(&self, session: &Session) {
        if self.sessions.remove(session) {
            self.presence.left(&session.identity, session.last_activity(), self.env.now());
            if session.announced {
                self.announce_end(session);
            }
        }
    }
}

pub(crate) fn decode<R: Record>(entry: &Entry) -> Result<(R, Revision), HubError> {
    Ok((R::decode(&entry.value)?, entry.revision))
}

pub(crate) fn put<R: Record>(key: String, record: &R) -> Result<Put, HubError> {
    Ok(Put { key, value: Some(record.encode()?.into()) })
}
