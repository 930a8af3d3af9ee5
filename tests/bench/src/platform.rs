//! A platform with one hub, as the binary assembles it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nave_auth::{DEVICE_KEY_LENGTH, KeyPair, SasToken, default_dps_policies, default_hub_policies};
use nave_engine::{Engine, Functions, Source};
use nave_env::{Env as _, SharedEnv};
use nave_hub::provisioning::{LinkedHub, ProvisioningParts};
use nave_hub::{
    AuthenticationInput, ConnectOptions, Connected, DeviceInput, HostId, Hub, HubParts, Mailbox, MailboxFull, NoPeers,
    Platform, Presented, Provisioning, Session, ToDevice,
};
use nave_log::FileLog;
use nave_model::{DeviceId, HostName, HubId, IdScope, Identity, IfMatch, Tenant};
use nave_net::tls::{Certificates, Identity as TlsIdentity, ServerTls};
use nave_net::{RealEnv, Server, ServerOptions};
use nave_session::MqttFactory;
use nave_store::FjallStore;

/// The hub's name, in tokens and in TLS.
pub const HUB: &str = "hub1.nave.test";

/// Everything that runs.
pub struct Bench {
    /// The operating system.
    pub env: Arc<RealEnv>,
    /// The hub.
    pub hub: Arc<Hub>,
    /// The hub with its provisioning service.
    pub platform: Arc<Platform>,
    keys: KeyPair,
}

/// Throws away what a device would get.
struct Nobody;

impl Mailbox for Nobody {
    fn deliver(&self, _: ToDevice) -> Result<(), MailboxFull> {
        Ok(())
    }
}

impl Bench {
    /// Puts a hub together whose state and log are below `dir`.
    pub fn start(dir: &Path) -> Self {
        let env = RealEnv::start().unwrap();
        let shared = || Arc::clone(&env) as SharedEnv;
        let engine = Engine::new(None).unwrap();
        let functions = Arc::new(Functions::load(&engine, &Source::Embedded).unwrap());
        let store = Arc::new(FjallStore::open(&dir.join("store"), nave_store::Options::default(), shared()).unwrap());
        let log = Arc::new(FileLog::open(&dir.join("log"), nave_log::Options::default(), shared()).unwrap());
        let hub = Arc::new(Hub::new(HubParts {
            env: shared(),
            store: Arc::clone(&store) as _,
            log,
            functions: Arc::clone(&functions),
            bus: Arc::new(NoPeers),
            host: HostId::new("bench"),
            tenant: Tenant::default_tenant(),
            id: HubId::parse("hub1").unwrap(),
            host_name: HostName::parse(HUB).unwrap(),
            aliases: Vec::new(),
            policies: default_hub_policies(|buffer| env.fill_random(buffer)).unwrap(),
        }));
        let provisioning = Arc::new(Provisioning::new(ProvisioningParts {
            env: shared(),
            store,
            functions,
            tenant: Tenant::default_tenant(),
            id_scope: IdScope::parse("0ne00000001").unwrap(),
            host_names: vec![HostName::parse("dps.nave.test").unwrap()],
            policies: default_dps_policies(|buffer| env.fill_random(buffer)).unwrap(),
            default_policy: "hashed".to_owned(),
            hubs: vec![LinkedHub::new(Arc::clone(&hub))],
        }));
        let platform = Arc::new(Platform::new(shared(), vec![Arc::clone(&hub)], provisioning));
        let keys = KeyPair::generate(DEVICE_KEY_LENGTH, |buffer| env.fill_random(buffer));
        Self { env, hub, platform, keys }
    }

    /// Creates a device; all devices have the same keys.
    pub async fn create_device(&self, id: &str) {
        let input = DeviceInput {
            authentication: AuthenticationInput {
                kind: Some("sas".to_owned()),
                primary_key: Some(self.keys.primary.expose_base64()),
                secondary_key: Some(self.keys.secondary.expose_base64()),
                ..AuthenticationInput::default()
            },
            ..DeviceInput::default()
        };
        self.hub.put_device(&DeviceId::parse(id).unwrap(), &input, &IfMatch::None).await.unwrap();
    }

    /// A device's token, valid for an hour.
    pub fn token(&self, id: &str) -> String {
        let expiry = self.env.now().after(Duration::from_secs(3_600));
        SasToken::create(&format!("{HUB}/devices/{id}"), &self.keys.primary, expiry, None)
    }

    /// Connects a device without a network.
    pub async fn connect(&self, id: &str) -> Arc<Session> {
        let identity = Identity::parse(id).unwrap();
        let token = self.token(id);
        let presented = Presented { token: Some(&token), certificates: &[] };
        let who = self.hub.authenticate(&identity, presented, &[]).await.unwrap();
        let options = ConnectOptions { persistent: false, model_id: None, mailbox: Arc::new(Nobody) };
        match self.hub.connect(&who, options).await.unwrap() {
            Connected::Session { session, .. } => session,
            Connected::Changed => panic!("nobody else changes the device"),
        }
    }

    /// Serves the platform over MQTT with TLS on a free port of the loopback interface.
    pub fn serve(&self) -> (Server, SocketAddr) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![HUB.to_owned()]).unwrap().self_signed(&key).unwrap();
        let identity = TlsIdentity::from_der(vec![certificate.der().to_vec()], key.serialize_der()).unwrap();
        let tls = ServerTls::new(Certificates::new(identity, [])).unwrap();
        let server = Server::start(&ServerOptions::default(), Arc::clone(&self.env)).unwrap();
        let factory = Arc::new(MqttFactory::new(Arc::clone(&self.platform)));
        let address = server.listen_mqtts((Ipv4Addr::LOCALHOST, 0).into(), &tls, factory).unwrap();
        (server, address)
    }
}
