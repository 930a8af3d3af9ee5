//! Which hub or provisioning service a command is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nave_auth::ConnectionString;
use nave_model::HostName;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::http::Http;
use crate::config::default_data_dir;
use crate::failure::Failure;
use crate::output::Format;
use crate::ready::{Ready, ReadyError, ReadyHub};

const HTTPS_PORT: u16 = 443;
const MQTTS_PORT: u16 = 8883;

/// How long the loopback device may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The options that every command has.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// Data directory of the hub on this machine [default: the user's folder for application data].
    #[arg(long, env = "NAVE_DATA_DIR", value_name = "DIR", global = true, help_heading = "Which hub")]
    data_dir: Option<PathBuf>,
    /// Connection string of a hub (or provisioning service) elsewhere.
    #[arg(
        long,
        env = "NAVE_CONNECTION_STRING",
        value_name = "TEXT",
        hide_env_values = true,
        global = true,
        help_heading = "Which hub"
    )]
    connection_string: Option<String>,
    /// PEM file with the certificate to trust [default: that of the hub on this machine].
    #[arg(long, env = "NAVE_CA", value_name = "FILE", global = true, help_heading = "Which hub")]
    ca: Option<PathBuf>,
    /// Name of the hub, if the process has several [default: the first].
    #[arg(long, env = "NAVE_HUB", value_name = "NAME", global = true, help_heading = "Which hub")]
    hub: Option<String>,
    /// How results are printed.
    #[arg(long, short, env = "NAVE_OUTPUT", value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
}

/// Where to connect, as whom, and whom to trust.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Name and credential.
    pub(crate) connection: ConnectionString,
    /// Port of HTTPS.
    pub(crate) https_port: u16,
    /// Port of MQTT.
    pub(crate) mqtts_port: u16,
    /// PEM with the certificates to trust.
    pub(crate) ca: Vec<u8>,
    /// Whether it runs on this machine, so that names need not be known to the system.
    pub(crate) is_local: bool,
}

/// The hub that runs on this machine.
pub(crate) struct Local {
    /// Its ready file.
    pub(crate) ready: Ready,
    /// Its data directory.
    pub(crate) data_dir: PathBuf,
}

impl Target {
    /// The running hub on this machine.
    pub(crate) fn local(&self) -> Result<Local, Failure> {
        let data_dir = self.data_dir();
        let ready = Ready::read(&data_dir).map_err(|error| match error {
            ReadyError::NotRunning(_) => Failure::Unreachable(format!(
                "{error}. Start one with `nave serve`, name its directory with --data-dir, or give --connection-string"
            )),
            error => Failure::runtime(error),
        })?;
        Ok(Local { ready, data_dir })
    }

    /// The data directory that the command is about.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }

    /// The hub's name on the command line, if one was given.
    pub(crate) fn hub_name(&self) -> Option<&str> {
        self.hub.as_deref()
    }

    /// The hub that the command is for.
    pub(crate) fn hub(&self) -> Result<Endpoint, Failure> {
        if let Some(text) = &self.connection_string {
            return self.remote(text);
        }
        let local = self.local()?;
        let hub = local.hub(self.hub_name())?;
        local.endpoint(&hub.service_connection_string, hub.https_port, hub.mqtts_port, self.ca.as_deref())
    }

    /// The provisioning service that the command is for.
    pub(crate) fn provisioning(&self) -> Result<Endpoint, Failure> {
        if let Some(text) = &self.connection_string {
            return self.remote(text);
        }
        let local = self.local()?;
        let dps = &local.ready.provisioning;
        local.endpoint(&dps.service_connection_string, dps.https_port, dps.mqtts_port, self.ca.as_deref())
    }

    fn remote(&self, text: &str) -> Result<Endpoint, Failure> {
        let connection = ConnectionString::parse_service(text).map_err(Failure::usage)?;
        let ca = match &self.ca {
            Some(path) => read(path)?,
            None => match self.local() {
                Ok(local) => read(&local.ready.ca_certificate)?,
                Err(_) => {
                    return Err(Failure::usage(
                        "a hub elsewhere has a certificate that this machine does not know: name its CA with --ca FILE",
                    ));
                }
            },
        };
        Ok(Endpoint { connection, https_port: HTTPS_PORT, mqtts_port: MQTTS_PORT, ca, is_local: false })
    }
}

impl Local {
    /// The hub of that name, or the first.
    pub(crate) fn hub(&self, name: Option<&str>) -> Result<&ReadyHub, Failure> {
        let found = match name {
            None => self.ready.hubs.first(),
            Some(name) => self.ready.hubs.iter().find(|hub| {
                std::iter::once(&hub.name)
                    .chain([&hub.host_name])
                    .chain(&hub.aliases)
                    .any(|known| known.eq_ignore_ascii_case(name))
            }),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.ready.hubs.iter().map(|hub| &*hub.name).collect();
            Failure::NotFound(format!(
                "there is no hub `{}`; the hubs are {}",
                name.unwrap_or_default(),
                names.join(", ")
            ))
        })
    }

    fn endpoint(
        &self,
        connection: &str,
        https: Option<u16>,
        mqtts: Option<u16>,
        ca: Option<&Path>,
    ) -> Result<Endpoint, Failure> {
        let connection = ConnectionString::parse_service(connection).map_err(Failure::runtime)?;
        let https_port = https.ok_or_else(|| {
            Failure::Unreachable(
                "the hub does not listen for HTTPS, which this command needs (`listen.https`)".to_owned(),
            )
        })?;
        Ok(Endpoint {
            connection,
            https_port,
            mqtts_port: mqtts.unwrap_or(MQTTS_PORT),
            ca: read(ca.unwrap_or(&self.ready.ca_certificate))?,
            is_local: true,
        })
    }
}

impl Endpoint {
    /// The name to dial.
    pub(crate) const fn host_name(&self) -> &HostName {
        &self.connection.host_name
    }

    /// An HTTP client for the hub's service API.
    pub(crate) fn hub_api(&self) -> Result<Http, Failure> {
        Http::new(self, "2021-04-12")
    }

    /// An HTTP client for the provisioning service's API.
    pub(crate) fn dps_api(&self) -> Result<Http, Failure> {
        Http::new(self, "2021-10-01")
    }
}

/// Where `host` is. A hub that runs on this machine is on its loopback device, unless it listens elsewhere only; that is tried
/// first, because asking for a name that no server knows can take long.
pub(super) fn addresses(is_local: bool, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if is_local {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let found = loopback
            .map(|ip| SocketAddr::new(ip, port))
            .into_iter()
            .find(|address| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok());
        if let Some(found) = found {
            return Ok(vec![found]);
        }
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Random bytes for keys.
pub(crate) fn random(buffer: &mut [u8]) -> Result<(), Failure> {
    SystemRandom::new().fill(buffer).map_err(|_| Failure::runtime("the operating system gives no random bytes"))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::runtime(format_args!("{}: {error}", path.display())))
}
