//! Messages between hosts that share one store.
//!
//! A device is connected to one host; a service request may reach another. What the second host wants of the connection
//! travels over a [`Bus`]: it is never needed for correctness of state (that is the store's business), only to reach a
//! connection. A single-process hub has [`NoPeers`].

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use nave_env::{BoxFuture, Env, SharedEnv};
use nave_model::Identity;
use parking_lot::Mutex;

use crate::presence::Connection;
use crate::session::{CloseReason, MethodAnswer};

/// The name of a host process. Unique among the hosts of one store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostId(Arc<str>);

impl HostId {
    /// A host by name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What one host asks of another.
#[derive(Clone, Debug)]
pub enum HostMessage {
    /// Pass a method call to a device that is connected to you.
    Method {
        /// The hub's id.
        hub: String,
        /// The device.
        identity: Identity,
        /// Method name.
        name: String,
        /// Payload, JSON text.
        payload: String,
        /// How long to wait for the device.
        timeout: Duration,
    },
    /// Desired properties changed: tell the device if it listens.
    Desired {
        /// The hub's id.
        hub: String,
        /// The device.
        identity: Identity,
        /// The new `$version`.
        version: u64,
        /// The notification's body.
        payload: String,
    },
    /// Tell what you know of the device's connection.
    Connection {
        /// The hub's id.
        hub: String,
        /// The device.
        identity: Identity,
    },
    /// Tell whether the device's session of this epoch may hold messages of its queue.
    Holding {
        /// The hub's id.
        hub: String,
        /// The device.
        identity: Identity,
        /// The session's epoch.
        epoch: u64,
    },
    /// Cloud-to-device messages wait: tell the device's connection if it listens.
    DeviceBound {
        /// The hub's id.
        hub: String,
        /// The device.
        identity: Identity,
    },
    /// End the device's session if its epoch is not above this one.
    Close {
        /// The hub's id.
        hub: String,
        /// The device.
        identity: Identity,
        /// The newest epoch to end.
        epoch: u64,
        /// Why.
        reason: CloseReason,
    },
}

/// What the other host answers.
#[derive(Clone, Debug)]
pub enum HostReply {
    /// Done, or nothing to do.
    Done,
    /// Whether the device is there and listens for methods, and what came of the call.
    Method(MethodAnswer),
    /// The device's connection.
    Connection(Connection),
    /// Whether the session may hold messages.
    Holding(bool),
}

/// The other host could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host {host} cannot be reached")]
pub struct Unreachable {
    /// Which one.
    pub host: String,
}

/// Carries messages between hosts.
pub trait Bus: Send + Sync + 'static {
    /// Sends `message` to `host` and waits for its reply.
    fn send(&self, host: HostId, message: HostMessage) -> BoxFuture<Result<HostReply, Unreachable>>;
}

/// Takes messages from other hosts. The platform implements it.
pub trait Receive: Send + Sync + 'static {
    /// Handles one message.
    fn receive(&self, message: HostMessage) -> BoxFuture<HostReply>;
}

/// The bus of a hub that runs alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Bus for NoPeers {
    fn send(&self, host: HostId, _message: HostMessage) -> BoxFuture<Result<HostReply, Unreachable>> {
        Box::pin(async move { Err(Unreachable { host: host.as_str().to_owned() }) })
    }
}

/// A bus between simulated hosts: every message takes a seeded while, and a crashed host is unreachable.
#[derive(Clone, Default)]
pub struct SimBus {
    hosts: Arc<Mutex<HashMap<HostId, Member>>>,
}

/// A reachable host: where it runs, and what takes its messages.
type Member = (SharedEnv, Arc<dyn Receive>);

impl SimBus {
    /// Longest time that a message is under way.
    pub const MAX_DELAY: Duration = Duration::from_millis(20);

    /// Makes `host`, which runs in `env`, reachable.
    pub fn join(&self, host: HostId, env: SharedEnv, receiver: Arc<dyn Receive>) {
        self.hosts.lock().insert(host, (env, receiver));
    }

    /// Takes `host` off the bus.
    pub fn leave(&self, host: &HostId) {
        self.hosts.lock().remove(host);
    }
}

impl Bus for SimBus {
    fn send(&self, host: HostId, message: HostMessage) -> BoxFuture<Result<HostReply, Unreachable>> {
        let target = self.hosts.lock().get(&host).map(|(env, receiver)| (Arc::clone(env), Arc::clone(receiver)));
        Box::pin(async move {
            let unreachable = Unreachable { host: host.as_str().to_owned() };
            let Some((env, receiver)) = target else { return Err(unreachable) };
            let delay = delay(&*env);
            env.sleep(delay).await;
            // The receiver works in its own host, so that it dies with it.
            let (sender, answer) = tokio::sync::oneshot::channel();
            let reply_delay = self::delay(&*env);
            let receiving = Arc::clone(&env);
            env.spawn(Box::pin(async move {
                let reply = receiver.receive(message).await;
                receiving.sleep(reply_delay).await;
                let _ = sender.send(reply);
            }));
            answer.await.map_err(|_| unreachable)
        })
    }
}

fn delay(env: &dyn Env) -> Duration {
    let mut byte = [0; 1];
    env.fill_random(&mut byte);
    SimBus::MAX_DELAY * u32::from(byte[0]) / 255
}
