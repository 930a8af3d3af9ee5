//! Opens the listeners, and describes for the ready file what is open.

use std::net::SocketAddr;
use std::sync::Arc;

use nave_auth::ConnectionString;
use nave_env::Env as _;
use nave_http::{Admin, Operator, Surface};
use nave_hub::Platform;
use nave_metrics::Collect;
use nave_model::HostName;
use nave_net::tls::{Certificates, ServerTls};
use nave_net::{ListenError, RealEnv, Server, WebSocketEndpoint};
use nave_session::MqttFactory;

use super::Settings;
use super::certificates::ServerIdentity;
use super::monitoring::{self, Stopping};
use super::platform::Parts;
use crate::config::{Config, Listen};
use crate::failure::Failure;
use crate::ready::{Ready, ReadyAdmin, ReadyHub, ReadyProvisioning};

/// The name that works on this machine without any set-up.
const LOCALHOST: &str = "localhost";

/// Random bytes in the admin API's token.
const TOKEN_BYTES: usize = 32;

/// What is open.
pub(super) struct Open {
    /// What is served, replaceable.
    pub(super) certificates: Arc<Certificates>,
    mqtts: Option<u16>,
    https: Option<u16>,
    admin: Option<ReadyAdmin>,
}

/// Opens what the configuration asks for.
pub(super) fn open(
    server: &Server,
    config: &Config,
    identity: &ServerIdentity,
    parts: &Parts,
    env: &Arc<RealEnv>,
    stopping: &Stopping,
    operator: Arc<dyn Operator>,
) -> Result<Open, Failure> {
    let platform = &parts.platform;
    let certificates = Certificates::new(identity.identity.clone(), []);
    let tls = ServerTls::new(Arc::clone(&certificates)).map_err(Failure::runtime)?;
    let factory = Arc::new(MqttFactory::new(Arc::clone(platform)));
    let surface = Arc::new(Surface::new(Arc::clone(platform)));
    let token = new_token(env);
    let others = vec![server.metrics(), surface.clone() as Arc<dyn Collect>];
    let monitoring = monitoring::monitoring(config, parts, others, stopping)?;
    let admin = Arc::new(Admin::new(Arc::clone(platform), &token).with_monitoring(monitoring).with_operator(operator));
    let mqtts = bind("mqtts", &config.mqtts, |address| server.listen_mqtts(address, &tls, factory.clone()))?;
    let websocket = WebSocketEndpoint {
        paths: nave_session::WEBSOCKET_PATHS,
        sub_protocol: nave_session::WEBSOCKET_SUB_PROTOCOL,
        factory,
    };
    let https = bind("https", &config.https, |address| {
        server.listen_https(address, &tls, surface.clone(), vec![websocket.clone()])
    })?;
    let mut url = None;
    bind("admin", &config.admin, |address| {
        let bound = server.listen_http(address, admin.clone())?;
        url.get_or_insert_with(|| format!("http://{bound}"));
        Ok(bound)
    })?;
    Ok(Open { certificates, mqtts, https, admin: url.map(|url| ReadyAdmin { url, token }) })
}

/// A new token for each start: it is worth nothing once the hub has stopped.
fn new_token(env: &RealEnv) -> String {
    let mut bytes = [0; TOKEN_BYTES];
    env.fill_random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Listens on every address, all on the port that the first one got. The first has to succeed. A machine without IPv6 has
/// no use for the second one.
fn bind(
    what: &str,
    listen: &Listen,
    mut open: impl FnMut(SocketAddr) -> Result<SocketAddr, ListenError>,
) -> Result<Option<u16>, Failure> {
    let Listen::On(addresses) = listen else { return Ok(None) };
    let mut port = None;
    for address in addresses {
        let wanted = port.map_or(*address, |port| SocketAddr::new(address.ip(), port));
        match open(wanted) {
            Ok(bound) => {
                tracing::info!(address = %bound, "listening for {what}");
                port = Some(bound.port());
            }
            Err(error @ (ListenError::AddressNotAvailable { .. } | ListenError::Io { .. })) if port.is_some() => {
                tracing::debug!(%error, "not listening for {what} on {wanted}");
            }
            Err(error) => {
                return Err(Failure::runtime(format_args!("{what}: {error} (`listen.{what}`, --listen-{what})")));
            }
        }
    }
    Ok(port)
}

/// The content of the ready file.
pub(super) fn describe(
    config: &Config,
    settings: &Settings,
    platform: &Platform,
    identity: &ServerIdentity,
    open: &Open,
) -> Result<Ready, Failure> {
    let mut hubs = Vec::with_capacity(config.hubs.len());
    for hub in &config.hubs {
        let policies = settings.hub_policies(hub.id.as_str()).map_err(Failure::runtime)?;
        let owner = policies.into_iter().next().ok_or_else(|| Failure::runtime("a hub without access policies"))?;
        let (dial, aliases) = names(&hub.host_name, &hub.aliases);
        hubs.push(ReadyHub {
            name: hub.name.as_str().to_owned(),
            host_name: dial.as_str().to_owned(),
            aliases: texts(&aliases),
            mqtts_port: open.mqtts,
            https_port: open.https,
            service_connection_string: ConnectionString::service(dial, owner.name, owner.keys.primary).expose(),
        });
    }
    let policies = settings.provisioning_policies().map_err(Failure::runtime)?;
    let owner = policies.into_iter().next().ok_or_else(|| Failure::runtime("no provisioning access policy"))?;
    let (dial, aliases) = names(&config.provisioning.host_name, &config.provisioning.aliases);
    Ok(Ready {
        version: Ready::VERSION,
        pid: std::process::id(),
        ca_certificate: identity.ca.clone(),
        hubs,
        provisioning: ReadyProvisioning {
            host_name: dial.as_str().to_owned(),
            aliases: texts(&aliases),
            id_scope: platform.provisioning().id_scope().as_str().to_owned(),
            mqtts_port: open.mqtts,
            https_port: open.https,
            service_connection_string: ConnectionString::service(dial, owner.name, owner.keys.primary).expose(),
        },
        admin: open.admin.clone(),
    })
}

/// The name to dial on this machine, and the others: `localhost` if it answers to that.
fn names(host_name: &HostName, aliases: &[HostName]) -> (HostName, Vec<HostName>) {
    let all = std::iter::once(host_name).chain(aliases);
    let dial = all.clone().find(|name| name.as_str() == LOCALHOST).unwrap_or(host_name);
    (dial.clone(), all.filter(|name| *name != dial).cloned().collect())
}

fn texts(names: &[HostName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}
