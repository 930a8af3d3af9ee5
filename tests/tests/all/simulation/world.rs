//! The simulated world: two host processes that share a store, logs and a bus, in one thread and virtual time.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use super::fuse::FusedStore;
use bytes::Bytes;
use nave_auth::{ENROLLMENT_KEY_LENGTH, KeyPair, default_dps_policies, default_hub_policies};
use nave_engine::{Engine, Functions, Source};
use nave_env::sim::{SimEnv, Simulation};
use nave_env::{BoxFuture, Env, Moment, SharedEnv};
use nave_hub::provisioning::{AttestationInput, EnrollmentInput, LinkedHub, ProvisioningParts};
use nave_hub::{HostId, Hub, HubError, HubParts, Platform, Provisioning, Receive, RoutingConfig, SimBus};
use nave_log::sim::SimLog;
use nave_model::{EnrollmentKind, HostName, HubId, IdScope, IfMatch, Reprovision, Tenant, Timestamp};
use nave_routing::{EndpointName, Route, RouteName};
use nave_session::MqttFactory;
use nave_session::protocol::{Disconnect, PeerFacts, Protocol, ProtocolFactory, TlsVersion};
use nave_store::sim::SimStore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) const HUBS: [&str; 2] = ["hub1.sim.test", "hub2.sim.test"];
pub(crate) const ID_SCOPE: &str = "0ne00000001";
pub(crate) const GROUP: &str = "sim-group";

/// Longest time that bytes are under way between a device and its host.
const MAX_LINK_DELAY_MS: u64 = 30;

/// Compiled once: the simulation itself costs milliseconds.
pub(crate) static FUNCTIONS: LazyLock<Arc<Functions>> = LazyLock::new(|| {
    let engine = Engine::new(None).expect("the engine starts");
    // Nobody ticks: in virtual time calls have no deadline.
    Arc::new(Functions::load(&engine, &Source::Embedded).expect("the components load"))
});

/// Everything that outlives a host.
pub(crate) struct World {
    pub(crate) simulation: Simulation,
    /// Time for tests and devices; never crashes.
    pub(crate) env: Arc<SimEnv>,
    pub(crate) store: Arc<FusedStore>,
    disk: Arc<SimStore>,
    pub(crate) logs: [Arc<SimLog>; 2],
    bus: SimBus,
    keys: Vec<KeyPair>,
}

/// One host process.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) env: Arc<SimEnv>,
    pub(crate) platform: Arc<Platform>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed, Timestamp::from_unix_seconds(1_790_000_000));
        let env = simulation.host();
        // What is stored lives in a place of its own: a crash of a host does not touch it.
        let disk: SharedEnv = simulation.host();
        let shared = || Arc::clone(&disk);
        let disk_store = Arc::new(SimStore::new(shared(), Duration::from_millis(2)));
        let store = Arc::new(FusedStore::new(Arc::clone(&disk_store)));
        let logs = [0, 1].map(|_| Arc::new(SimLog::new(shared(), 4, Duration::from_millis(3))));
        let keys = (0..4).map(|_| KeyPair::generate(ENROLLMENT_KEY_LENGTH, |buffer| env.fill_random(buffer))).collect();
        Self { simulation, env, store, disk: disk_store, logs, bus: SimBus::default(), keys }
    }

    /// Starts a host process. A host of the same name must have crashed before.
    pub(crate) async fn start(&self, name: &str) -> Host {
        self.start_with(name, &FUNCTIONS).await
    }

    /// Starts a host process with functions of its own.
    pub(crate) async fn start_with(&self, name: &str, functions: &Arc<Functions>) -> Host {
        self.try_start(name, functions).await.unwrap()
    }

    /// The same, of what may not start.
    pub(crate) async fn try_start(&self, name: &str, functions: &Arc<Functions>) -> Result<Host, HubError> {
        let env = self.simulation.host();
        let shared: SharedEnv = Arc::clone(&env) as SharedEnv;
        let id = HostId::new(name);
        let hubs: Vec<Arc<Hub>> = HUBS
            .iter()
            .zip(&self.logs)
            .zip(&self.keys)
            .map(|((host_name, log), keys)| {
                let mut policies = default_hub_policies(|buffer| buffer.fill(7)).unwrap();
                policies.iter_mut().for_each(|policy| policy.keys = keys.clone());
                let hub = Hub::new(HubParts {
                    env: Arc::clone(&shared),
                    store: Arc::clone(&self.store) as _,
                    log: Arc::clone(log) as _,
                    functions: Arc::clone(functions),
                    bus: Arc::new(self.bus.clone()),
                    host: id.clone(),
                    tenant: Tenant::default_tenant(),
                    id: HubId::parse(host_name.split('.').next().unwrap()).unwrap(),
                    host_name: HostName::parse(host_name).unwrap(),
                    aliases: Vec::new(),
                    policies,
                });
                hub.set_routing(events_too()).unwrap();
                Arc::new(hub)
            })
            .collect();
        let linked = hubs.iter().map(|hub| LinkedHub::new(Arc::clone(hub)));
        let provisioning = Arc::new(Provisioning::new(ProvisioningParts {
            env: Arc::clone(&shared),
            store: Arc::clone(&self.store) as _,
            functions: Arc::clone(functions),
            tenant: Tenant::default_tenant(),
            id_scope: IdScope::parse(ID_SCOPE).unwrap(),
            host_names: vec![HostName::parse("dps.sim.test").unwrap()],
            policies: default_dps_policies(|buffer| buffer.fill(9)).unwrap(),
            default_policy: "hashed".to_owned(),
            hubs: linked.collect(),
        }));
        let platform = Arc::new(Platform::new(Arc::clone(&shared), hubs, provisioning));
        platform.recover().await?;
        self.bus.join(id.clone(), shared, Arc::clone(&platform) as Arc<dyn Receive>);
        Ok(Host { id, env, platform })
    }

    /// Ends a host as a power cut would: its tasks stop where they stand, its connections are gone.
    pub(crate) fn crash(&self, host: &Host) {
        self.bus.leave(&host.id);
        host.env.crash();
    }

    /// Takes a host off the bus; it goes on otherwise.
    pub(crate) fn cut_off(&self, host: &Host) {
        self.bus.leave(&host.id);
    }

    /// Puts something into the store behind everybody's back.
    pub(crate) async fn plant(&self, key: &str, value: Bytes) {
        let put = nave_store::Put { key: key.to_owned(), value: Some(value) };
        nave_store::Store::commit(&*self.disk, Vec::new(), vec![put]).await.unwrap();
    }

    /// Power goes: what was not forced to disk is lost. The hosts must have crashed.
    pub(crate) fn lose_unsynced(&self) {
        self.disk.crash();
        self.logs.iter().for_each(|log| log.crash());
    }

    /// Whether commits and appends find their disks full from now on: the store's, and each log's.
    pub(crate) fn set_full(&self, store: bool, logs: [bool; 2]) {
        self.disk.set_full(store);
        self.logs.iter().zip(logs).for_each(|(log, full)| log.set_full(full));
    }

    /// The key of the enrollment group, and the group itself with the default policies.
    pub(crate) async fn enroll(&self, host: &Host) -> KeyPair {
        self.enroll_in(host, &[], None).await
    }

    /// The key of the enrollment group; the group is created or changed.
    pub(crate) async fn enroll_in(&self, host: &Host, hubs: &[&str], reprovision: Option<Reprovision>) -> KeyPair {
        self.ask_to_enroll_in(host, hubs, reprovision).await.unwrap()
    }

    /// The same, where that may fail.
    pub(crate) async fn ask_to_enroll_in(
        &self,
        host: &Host,
        hubs: &[&str],
        reprovision: Option<Reprovision>,
    ) -> Result<KeyPair, HubError> {
        let keys = self.keys.last().unwrap().clone();
        let input = EnrollmentInput {
            kind: EnrollmentKind::Group,
            id: GROUP.to_owned(),
            device_id: None,
            attestation: AttestationInput::SymmetricKey {
                primary: Some(keys.primary.expose_base64()),
                secondary: Some(keys.secondary.expose_base64()),
            },
            enabled: true,
            iot_edge: false,
            hub_host_name: None,
            initial_twin: None,
            optional_device_information: None,
            reprovision,
            allocation_policy: None,
            hubs: hubs.iter().map(|hub| (*hub).to_owned()).collect(),
            webhook: None,
        };
        let service = host.platform.provisioning();
        let exists = service.get_enrollment(EnrollmentKind::Group, GROUP).await.is_ok();
        let condition = if exists { IfMatch::Any } else { IfMatch::None };
        service.put_enrollment(input, &condition).await?;
        Ok(keys)
    }

    /// What a host does with the bytes of a new connection.
    pub(crate) fn protocol(&self, host: &Host) -> Box<dyn Protocol> {
        let peer = PeerFacts {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
            server_name: None,
            certificates: Vec::new(),
            tls: TlsVersion::Tls13,
        };
        MqttFactory::new(Arc::clone(&host.platform)).accept(peer)
    }

    /// A connection from a device to `host`. Bytes take a seeded while in both directions and stay in order.
    pub(crate) fn connect(&self, host: &Host) -> (UnboundedSender<Vec<u8>>, UnboundedReceiver<Vec<u8>>) {
        let protocol = self.protocol(host);
        let (device_out, from_device) = unbounded_channel();
        let (to_device, device_in) = unbounded_channel();
        let (slow_out, host_in) = unbounded_channel();
        let (host_out, slow_in) = unbounded_channel();
        self.link(from_device, slow_out);
        self.link(slow_in, to_device);
        host.env.spawn(Box::pin(drive(protocol, host_in, host_out, Arc::clone(&host.env) as SharedEnv)));
        (device_out, device_in)
    }

    fn link(&self, mut from: UnboundedReceiver<Vec<u8>>, to: UnboundedSender<Vec<u8>>) {
        let (env, simulation) = (Arc::clone(&self.env), self.simulation.clone());
        self.env.spawn(Box::pin(async move {
            while let Some(bytes) = from.recv().await {
                env.sleep(Duration::from_millis(simulation.below(MAX_LINK_DELAY_MS))).await;
                if to.send(bytes).is_err() {
                    break;
                }
            }
        }));
    }
}

fn events_too() -> RoutingConfig {
    let sources = [nave_routing::Source::TwinChangeEvents, nave_routing::Source::DeviceConnectionStateEvents];
    let routes = sources.map(|source| Route {
        name: RouteName::parse(source.as_str()).unwrap(),
        source,
        condition: "true".to_owned(),
        endpoint: EndpointName::events(),
        enabled: true,
    });
    RoutingConfig { routes: routes.to_vec(), fallback: true, enrichments: Vec::new() }
}

/// What a driver of sockets does, without sockets.
async fn drive(
    mut protocol: Box<dyn Protocol>,
    mut input: UnboundedReceiver<Vec<u8>>,
    output: UnboundedSender<Vec<u8>>,
    env: SharedEnv,
) {
    let mut timer: Option<(Moment, BoxFuture<()>)> = None;
    let mut gone = false;
    poll_fn(|context| {
        loop {
            let mut received = false;
            while !gone && protocol.wants_input() {
                match input.poll_recv(context) {
                    Poll::Ready(Some(bytes)) => {
                        protocol.receive(&bytes);
                        received = true;
                    }
                    Poll::Ready(None) => {
                        protocol.disconnected(Disconnect::PeerClosed);
                        gone = true;
                    }
                    Poll::Pending => break,
                }
            }
            protocol.poll(context);
            let mut bytes = Vec::new();
            while protocol.transmit(&mut bytes) {}
            if !bytes.is_empty() && !gone {
                let _ = output.send(bytes);
            }
            if let (Some(reason), false) = (protocol.closing(), gone) {
                protocol.disconnected(Disconnect::Closed(reason));
                gone = true;
                // What it begins now has to be polled.
                continue;
            }
            if gone && protocol.drained() {
                return Poll::Ready(());
            }
            if !received && !timer_fired(&*protocol, &mut timer, &env, context) {
                return Poll::Pending;
            }
        }
    })
    .await;
}

fn timer_fired(
    protocol: &dyn Protocol,
    timer: &mut Option<(Moment, BoxFuture<()>)>,
    env: &SharedEnv,
    context: &mut Context<'_>,
) -> bool {
    let Some(deadline) = protocol.deadline() else { return false };
    if timer.as_ref().is_none_or(|(at, _)| *at != deadline) {
        *timer = Some((deadline, env.sleep(deadline.since(env.monotonic()))));
    }
    let Some((_, sleep)) = timer else { return false };
    let fired = sleep.as_mut().poll(context).is_ready();
    if fired {
        *timer = None;
    }
    fired
}
