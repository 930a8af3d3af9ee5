//! Two hubs and a provisioning service in one thread and virtual time, and requests to them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{HeaderMap, Request};
use nave_auth::{AccessPolicy, SasToken, SharedKey, default_dps_policies, default_hub_policies};
use nave_engine::plugin::PluginEngine;
use nave_engine::{Engine, Functions, Source};
use nave_env::sim::{SimEnv, Simulation};
use nave_env::{Env, SharedEnv};
use nave_http::service::{Body, HttpService, Peer, PeerTls, ResponseBody};
use nave_http::{Admin, Monitoring, Surface};
use nave_hub::policy::{PoliciesParts, Pool, TrustedKey};
use nave_hub::provisioning::{
    CustomAllocation, HookAnswer, HookClient, HookError, HookRequest, Hooks, LinkedHub, ProvisioningParts,
};
use nave_hub::{
    ConnectOptions, Connected, HostId, Hub, HubParts, Mailbox, MailboxFull, NoPeers, Platform, Presented, Provisioning,
    Session, Subscriptions, ToDevice,
};
use nave_log::sim::SimLog;
use nave_model::{HostName, HubId, IdScope, Identity, Tenant, Timestamp};
use nave_store::sim::SimStore;
use serde_json::Value;

use crate::contract::contract;

pub(crate) const HUB: &str = "hub1.nave.test";
pub(crate) const OTHER_HUB: &str = "hub2.nave.test";
pub(crate) const DPS: &str = "dps.nave.test";
pub(crate) const ID_SCOPE: &str = "0ne00000001";
pub(crate) const ADMIN_TOKEN: &str = "open-sesame";

static FUNCTIONS: LazyLock<Arc<Functions>> = LazyLock::new(|| {
    let engine = Engine::new(None).expect("the engine starts");
    // Nobody ticks: in virtual time calls have no deadline.
    Arc::new(Functions::load(&engine, &Source::Embedded).expect("the components load"))
});

pub(crate) struct World {
    pub(crate) simulation: Simulation,
    pub(crate) env: Arc<SimEnv>,
    pub(crate) platform: Arc<Platform>,
    pub(crate) hooks: Arc<ScriptedHooks>,
    store: Arc<SimStore>,
    surface: Surface,
    admin: Admin,
    /// Why the process is not ready.
    pub(crate) unready: Arc<Mutex<Vec<String>>>,
}

/// How custom allocation is configured.
#[derive(Default)]
struct Custom {
    trusted_keys: Vec<TrustedKey>,
    allow_loopback_http: bool,
}

/// Web hooks that answer what they were told to, in this order, and remember what they were asked.
#[derive(Default)]
pub(crate) struct ScriptedHooks {
    pub(crate) answers: Mutex<VecDeque<Result<HookAnswer, HookError>>>,
    pub(crate) asked: Mutex<Vec<HookRequest>>,
}

impl HookClient for ScriptedHooks {
    fn post(&self, request: &HookRequest) -> Result<HookAnswer, HookError> {
        self.asked.lock().unwrap().push(request.clone());
        self.answers.lock().unwrap().pop_front().expect("an answer for every call")
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::trusting(Vec::new())
    }

    /// A world in which allocation policies are signed by one of these keys, if there are any.
    pub(crate) fn trusting(trusted_keys: Vec<TrustedKey>) -> Self {
        let simulation = Simulation::new(7, Timestamp::from_unix_seconds(1_790_000_000));
        let disk: SharedEnv = simulation.host();
        let store = Arc::new(SimStore::new(disk, Duration::from_millis(1)));
        Self::build(simulation, store, Custom { trusted_keys, ..Custom::default() })
    }

    /// A world in which web hooks on this machine may speak plain HTTP.
    pub(crate) fn with_loopback_hooks() -> Self {
        let simulation = Simulation::new(7, Timestamp::from_unix_seconds(1_790_000_000));
        let store = Arc::new(SimStore::new(simulation.host(), Duration::from_millis(1)));
        Self::build(simulation, store, Custom { allow_loopback_http: true, ..Custom::default() })
    }

    /// A surface for what needs no world around it.
    pub(crate) fn bare_surface() -> Surface {
        Surface::new(Arc::clone(&Self::new().platform))
    }

    /// What a process finds that starts after the one of `earlier`.
    pub(crate) fn after(earlier: &Self) -> Self {
        Self::after_trusting(earlier, Vec::new())
    }

    /// The same, with these keys for policies in its configuration.
    pub(crate) fn after_trusting(earlier: &Self, trusted_keys: Vec<TrustedKey>) -> Self {
        earlier.env.crash();
        let custom = Custom { trusted_keys, ..Custom::default() };
        Self::build(earlier.simulation.clone(), Arc::clone(&earlier.store), custom)
    }

    fn build(simulation: Simulation, store: Arc<SimStore>, custom: Custom) -> Self {
        let Custom { trusted_keys, allow_loopback_http } = custom;
        let env = simulation.host();
        let shared: SharedEnv = Arc::clone(&env) as SharedEnv;
        let hub = |name: &str, aliases: &[&str]| {
            Arc::new(Hub::new(HubParts {
                env: Arc::clone(&shared),
                store: Arc::clone(&store) as _,
                log: Arc::new(SimLog::new(Arc::clone(&shared), 4, Duration::from_millis(1))),
                functions: Arc::clone(&FUNCTIONS),
                bus: Arc::new(NoPeers),
                host: HostId::new("host"),
                tenant: Tenant::default_tenant(),
                id: HubId::parse(name.split('.').next().unwrap()).unwrap(),
                host_name: HostName::parse(name).unwrap(),
                aliases: aliases.iter().map(|alias| HostName::parse(alias).unwrap()).collect(),
                policies: default_hub_policies(|buffer| env.fill_random(buffer)).unwrap(),
            }))
        };
        let hubs = vec![hub(HUB, &["localhost"]), hub(OTHER_HUB, &[])];
        let linked = hubs.iter().map(|hub| LinkedHub::new(Arc::clone(hub)));
        let hooks = Arc::new(ScriptedHooks::default());
        let clock = Arc::clone(&env);
        let custom = CustomAllocation {
            policies: PoliciesParts {
                engine: Arc::new(PluginEngine::new(None, Arc::new(move || clock.monotonic().since_start()))),
                calls: Arc::new(Pool::inline()),
                loads: Arc::new(Pool::inline()),
                trusted_keys,
            },
            hooks: Hooks { client: Arc::clone(&hooks) as _, pool: Arc::new(Pool::inline()), allow_loopback_http },
        };
        let provisioning = Provisioning::new(ProvisioningParts {
            env: Arc::clone(&shared),
            store: Arc::clone(&store) as _,
            functions: Arc::clone(&FUNCTIONS),
            tenant: Tenant::default_tenant(),
            id_scope: IdScope::parse(ID_SCOPE).unwrap(),
            host_names: vec![HostName::parse(DPS).unwrap(), HostName::parse("localhost").unwrap()],
            policies: default_dps_policies(|buffer| env.fill_random(buffer)).unwrap(),
            default_policy: "hashed".to_owned(),
            hubs: linked.collect(),
        });
        let provisioning = Arc::new(provisioning.with_custom_allocation(custom));
        let platform = Arc::new(Platform::new(shared, hubs, provisioning));
        simulation.run(platform.recover()).unwrap().unwrap();
        let surface = Surface::new(Arc::clone(&platform));
        let unready = Arc::new(Mutex::new(Vec::new()));
        let reasons = Arc::clone(&unready);
        let readiness = Box::new(move || reasons.lock().unwrap().clone());
        let admin = Admin::new(Arc::clone(&platform), ADMIN_TOKEN)
            .with_monitoring(Monitoring { readiness, ..Monitoring::default() });
        Self { simulation, env, platform, hooks, store, surface, admin, unready }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.platform.hubs()[0]
    }

    /// A token of a hub's policy.
    pub(crate) fn hub_token(&self, policy: &str) -> String {
        self.policy_token(HUB, self.hub().policy(policy).unwrap())
    }

    /// A token of the provisioning service's owner.
    pub(crate) fn dps_token(&self) -> String {
        self.policy_token(DPS, self.platform.provisioning().policy("provisioningserviceowner").unwrap())
    }

    fn policy_token<R>(&self, resource: &str, policy: &AccessPolicy<R>) -> String {
        SasToken::create(resource, &policy.keys.primary, self.in_an_hour(), Some(policy.name.as_str()))
    }

    /// A device's token for its registration.
    pub(crate) fn registration_token(&self, id: &str, key: &SharedKey) -> String {
        let resource = format!("{ID_SCOPE}/registrations/{id}");
        SasToken::create(&resource, key, self.in_an_hour(), Some("registration"))
    }

    pub(crate) fn in_an_hour(&self) -> Timestamp {
        self.env.now().after(Duration::from_secs(3_600))
    }

    /// A request to the hub, as its owner.
    pub(crate) fn hub_request(&self, method: &str, path: &str) -> Ask<'_> {
        self.request(HUB, method, &versioned(path, "2021-04-12"))
            .header("Authorization", &self.hub_token("iothubowner"))
    }

    /// A request to the service API of the provisioning service, as its owner.
    pub(crate) fn dps_request(&self, method: &str, path: &str) -> Ask<'_> {
        self.request(DPS, method, &versioned(path, "2021-10-01")).header("Authorization", &self.dps_token())
    }

    /// A device's request to the provisioning service, without credentials.
    pub(crate) fn device_request(&self, method: &str, path: &str) -> Ask<'_> {
        self.request(DPS, method, &versioned(&format!("/{ID_SCOPE}/registrations/{path}"), "2019-03-31"))
    }

    /// A request to the administration, with its token.
    pub(crate) fn admin_request(&self, method: &str, path: &str) -> Ask<'_> {
        let ask = self.request("127.0.0.1:4711", method, path);
        Ask { service: &self.admin, ..ask }.header("Authorization", &format!("Bearer {ADMIN_TOKEN}"))
    }

    /// A bare request.
    pub(crate) fn request(&self, host: &str, method: &str, uri: &str) -> Ask<'_> {
        Ask {
            world: self,
            service: &self.surface,
            method: method.to_owned(),
            uri: uri.to_owned(),
            headers: vec![("Host".to_owned(), host.to_owned())],
            body: Body::empty(),
            certificates: Vec::new(),
        }
    }

    /// Creates a device with generated keys and returns its JSON form.
    pub(crate) fn create_device(&self, id: &str) -> Value {
        self.hub_request("PUT", &format!("/devices/{id}")).json(&serde_json::json!({ "deviceId": id })).send().json()
    }

    /// Creates a module (`device/module`) with generated keys and returns its JSON form.
    pub(crate) fn create_module(&self, id: &str) -> Value {
        self.hub_request("PUT", &path(id)).text("{}").send().json()
    }

    /// Connects a device, or a module (`device/module`), that exists to the hub.
    pub(crate) fn connect(&self, id: &str, subscriptions: Subscriptions) -> (Arc<Session>, Arc<Messages>) {
        let identity = Identity::parse(id).unwrap();
        let key = self.hub_request("GET", &path(id)).send().json();
        let key = key["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
        let token = SasToken::create(
            &format!("{HUB}{}", path(id)),
            &SharedKey::from_base64(&key).unwrap(),
            self.in_an_hour(),
            None,
        );
        let messages = Arc::new(Messages::default());
        let mailbox = Arc::clone(&messages);
        let session = self
            .simulation
            .run(async {
                let presented = Presented { token: Some(&token), certificates: &[] };
                let who = self.hub().authenticate(&identity, presented, &[]).await.unwrap();
                let options = ConnectOptions { persistent: false, model_id: None, mailbox };
                let Connected::Session { session, .. } = self.hub().connect(&who, options).await.unwrap() else {
                    panic!("the device changed")
                };
                self.hub().subscribe(&session, subscriptions).await.unwrap();
                session
            })
            .unwrap();
        (session, messages)
    }
}

/// The path of a device, or of a module (`device/module`).
fn path(id: &str) -> String {
    format!("/devices/{}", id.replace('/', "/modules/"))
}

fn versioned(path: &str, version: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}api-version={version}")
}

/// What a device was sent. Methods are answered as they come, if there is an answer.
#[derive(Default)]
pub(crate) struct Messages {
    sent: Mutex<Vec<ToDevice>>,
}

impl Messages {
    pub(crate) fn all(&self) -> Vec<ToDevice> {
        self.sent.lock().unwrap().clone()
    }
}

impl Mailbox for Messages {
    fn deliver(&self, message: ToDevice) -> Result<(), MailboxFull> {
        self.sent.lock().unwrap().push(message);
        Ok(())
    }
}

/// A request in the making.
pub(crate) struct Ask<'a> {
    world: &'a World,
    service: &'a dyn HttpService,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: Body,
    certificates: Vec<Vec<u8>>,
}

impl Ask<'_> {
    /// Sets a header, in place of an earlier one of that name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn text(mut self, body: &str) -> Self {
        self.body = Body::from_bytes(body.to_owned());
        self
    }

    pub(crate) fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Body::from_bytes(body);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.text(&body.to_string())
    }

    /// A body that fails the test when it is read.
    pub(crate) fn untouchable(mut self) -> Self {
        self.body =
            Body::from_stream(futures_util::stream::poll_fn(|_| panic!("a body was read that should not be")), None);
        self
    }

    pub(crate) fn certificates(mut self, chain: Vec<Vec<u8>>) -> Self {
        self.certificates = chain;
        self
    }

    pub(crate) fn send(self) -> Answer {
        let world = self.world;
        world.simulation.run(self.answer()).unwrap()
    }

    /// The answer, with the whole of a stream.
    pub(crate) async fn answer(self) -> Answer {
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let peer = Peer {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
            tls: Some(Arc::new(PeerTls { server_name: None, certificates: self.certificates })),
        };
        let (parts, body) = self.service.call(peer, request.body(self.body).unwrap()).await.into_parts();
        let bytes = match body {
            ResponseBody::Bytes(bytes) => bytes.to_vec(),
            ResponseBody::Stream(chunks) => {
                let chunks: Vec<_> = chunks.collect().await;
                chunks.into_iter().flat_map(|chunk| chunk.unwrap().to_vec()).collect()
            }
            other => panic!("{other:?}"),
        };
        let body = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        let overridden = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-http-method-override"));
        if !overridden {
            contract().check(&self.method, &self.uri, &answer);
        }
        answer
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body, of an answer that is no error.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status / 100, 2, "{self:?}");
        self.document()
    }

    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        serde_json::from_str(&self.body).unwrap()
    }

    /// Asserts a hub's error: status, header and both members of the body. Returns the message's text.
    #[track_caller]
    pub(crate) fn hub_error(&self, status: u16, name: &str) -> String {
        assert_eq!((self.status, self.header("iothub-errorcode")), (status, Some(name)), "{self:?}");
        let document = self.document();
        let message = document["Message"].as_str().unwrap();
        let tracking = document["ExceptionMessage"].as_str().unwrap();
        assert!(tracking.starts_with("Tracking ID:") && tracking.contains("-TimeStamp:"), "{tracking}");
        message.strip_prefix(&format!("ErrorCode:{name};")).unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    /// Asserts an error of the provisioning service. Returns the message's text.
    #[track_caller]
    pub(crate) fn dps_error(&self, code: u32, name: &str) -> String {
        let status = u16::try_from(code / 1_000).unwrap();
        assert_eq!((self.status, self.header("x-ms-error-code")), (status, Some(name)), "{self:?}");
        let document = self.document();
        assert_eq!(document["errorCode"], code);
        assert!(document["trackingId"].is_string() && document["timestampUtc"].is_string(), "{document}");
        document["message"].as_str().unwrap().to_owned()
    }
}
