//! The configuration: one TOML file, environment variables, flags, in that order of increasing precedence.
//!
//! [`Config::load`] reads and checks all of it before anything is touched, so that a mistake costs nothing.

mod check;
pub(crate) mod explain;
mod file;
mod listen;
pub(crate) mod origin;
mod throttle;
mod traces;
mod unknown_keys;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nave_engine::Source;
use nave_hub::policy::TrustedKey;
use nave_hub::provisioning::HubDetails;
use nave_hub::{CloudToDeviceSettings, RoutingConfig};
use nave_model::{HostName, HubId, HubName, IdScope};

use crate::logging::{LogFormat, LogLevel};

pub(crate) use listen::Listen;
pub(crate) use throttle::Throttle;
pub(crate) use traces::TracesConfig;
pub(crate) use unknown_keys::closest;

/// The name of the data directory in a user's folder for application data.
const DEFAULT_DATA_DIR: &str = "nave";

/// Everything that `nave serve` has to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where state lives.
    pub(crate) data_dir: PathBuf,
    /// Threads that serve connections; `None` for one per core.
    pub(crate) workers: Option<NonZeroUsize>,
    /// Where the functions come from.
    pub(crate) functions: Source,
    /// Most detailed log level.
    pub(crate) log_level: LogLevel,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// MQTT over TLS.
    pub(crate) mqtts: Listen,
    /// HTTPS.
    pub(crate) https: Listen,
    /// The admin API, HTTP on loopback.
    pub(crate) admin: Listen,
    /// Where audit records go; `None` for the log.
    pub(crate) audit_file: Option<PathBuf>,
    /// Holds a token for `/metrics` alone.
    pub(crate) metrics_token_file: Option<PathBuf>,
    /// The operator's certificate; `None` for the development CA's.
    pub(crate) tls: Option<TlsFiles>,
    /// Where traces go.
    pub(crate) traces: TracesConfig,
    /// The hubs, at least one; the first is the default.
    pub(crate) hubs: Vec<HubConfig>,
    /// The provisioning service.
    pub(crate) provisioning: ProvisioningConfig,
}

/// A certificate that the operator brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The chain, leaf first, PEM.
    pub(crate) certificate: PathBuf,
    /// The private key, PEM.
    pub(crate) key: PathBuf,
    /// What clients have to trust; the chain itself if nothing else is said.
    pub(crate) ca: PathBuf,
}

/// One hub.
#[derive(Clone, Debug)]
pub(crate) struct HubConfig {
    /// Its short name.
    pub(crate) name: HubName,
    /// Its id in the store: the name with which it was created.
    pub(crate) id: HubId,
    /// The dotted name.
    pub(crate) host_name: HostName,
    /// Other names.
    pub(crate) aliases: Vec<HostName>,
    /// Partitions of its telemetry log, if it is new.
    pub(crate) partitions: u32,
    /// How long telemetry is kept.
    pub(crate) retention_age: Duration,
    /// How many bytes of telemetry are kept.
    pub(crate) retention_bytes: u64,
    /// Its share among evenly weighted hubs.
    pub(crate) allocation_weight: Option<u32>,
    /// False takes it out of allocation.
    pub(crate) apply_allocation_policy: bool,
    /// Round-trip time for `geoLatency`, in milliseconds.
    pub(crate) latency_ms: Option<f64>,
    /// Cloud-to-device messages.
    pub(crate) cloud_to_device: CloudToDeviceSettings,
    /// Whether devices that say what they know of their twins are told the difference.
    pub(crate) twin_catch_up: bool,
    /// What allocation policies are told about it besides.
    pub(crate) details: HubDetails,
    /// Routes, fallback and enrichments.
    pub(crate) routing: RoutingConfig,
    /// Rates.
    pub(crate) throttle: Throttle,
}

/// The provisioning service.
#[derive(Clone, Debug)]
pub(crate) struct ProvisioningConfig {
    /// The dotted name.
    pub(crate) host_name: HostName,
    /// Other names.
    pub(crate) aliases: Vec<HostName>,
    /// The id scope; `None` for one that is generated and kept.
    pub(crate) id_scope: Option<IdScope>,
    /// Policy of enrollments that name none.
    pub(crate) allocation_policy: AllocationPolicy,
    /// Positions in [`Config::hubs`] of the hubs that devices may be assigned to.
    pub(crate) linked_hubs: Vec<usize>,
    /// Rates.
    pub(crate) throttle: Throttle,
    /// Threads that run allocation policies.
    pub(crate) policy_threads: usize,
    /// Keys that sign allocation policies; without any, signatures are not asked for.
    pub(crate) policy_keys: Vec<TrustedKey>,
    /// Whether a registration is answered with its outcome, where there is one.
    pub(crate) answer_at_once: bool,
    /// Whether web hooks on this machine may be named without TLS.
    pub(crate) allow_loopback_webhooks: bool,
    /// Whom web hooks are trusted by, PEM; `None` for the authorities of the system.
    pub(crate) webhook_ca: Option<PathBuf>,
}

/// A built-in policy that a service may have as its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllocationPolicy {
    /// Evenly weighted.
    Hashed,
    /// Lowest latency.
    GeoLatency,
    /// The one hub that the enrollment names.
    Static,
}

impl AllocationPolicy {
    const ALL: [Self; 3] = [Self::Hashed, Self::GeoLatency, Self::Static];

    /// The name in the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hashed => "hashed",
            Self::GeoLatency => "geoLatency",
            Self::Static => "static",
        }
    }
}

/// What environment variables and flags say; clap has let flags win already. Each wins over the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) workers: Option<usize>,
    pub(crate) functions_dir: Option<PathBuf>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<String>,
    pub(crate) mqtts: Option<String>,
    pub(crate) https: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) id_scope: Option<String>,
}

/// What is wrong with the configuration. The fault is the operator's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file: {0}")]
    Read(std::io::Error),
    /// The file is too long to be a configuration.
    #[error("the configuration file has more than {} bytes", file::MAX_FILE_BYTES)]
    TooLong,
    /// It is not TOML, or a value has the wrong type.
    #[error("{}{message}", line.map_or_else(String::new, |line| format!("line {line}: ")))]
    Syntax {
        /// From 1.
        line: Option<usize>,
        /// The parser's words.
        message: String,
    },
    /// A key does not exist.
    #[error("line {line}: unknown key `{key}` in {section}{}", suggestion.as_ref().map_or_else(String::new, |name| format!(": did you mean `{name}`?")))]
    UnknownKey {
        /// From 1.
        line: usize,
        /// As it is written.
        key: String,
        /// The table it stands in.
        section: &'static str,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// A value is not possible.
    #[error("{place}: {message}")]
    Value {
        /// The key, as it would be written.
        place: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Config {
    /// Reads the file if there is one, applies `overrides`, and checks everything.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the line or the key.
    pub(crate) fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        Self::load_explained(path, overrides, &origin::Sources::default()).map(|(config, _)| config)
    }

    /// The same with a list of everything that is in force, and where each value came from; `sources` says it for what
    /// `overrides` has.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the line or the key.
    pub(crate) fn load_explained(
        path: Option<&Path>,
        overrides: Overrides,
        sources: &origin::Sources,
    ) -> Result<(Self, Vec<explain::Entry>), ConfigError> {
        let (parsed, base) = match path {
            Some(path) => (read(path)?, path.parent().unwrap_or(Path::new("")).to_owned()),
            None => (file::Parsed::default(), PathBuf::new()),
        };
        let config = check::check(parsed.file, &base, overrides)?;
        let entries = explain::entries(&config, &parsed.written, sources);
        Ok((config, entries))
    }

    /// A configuration from its file's text alone.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_text(text: &str) -> Result<(Self, Vec<explain::Entry>), ConfigError> {
        let parsed = file::File::parse_with_places(text)?;
        let config = check::check(parsed.file, Path::new("/etc/nave"), Overrides::default())?;
        let entries = explain::entries(&config, &parsed.written, &origin::Sources::default());
        Ok((config, entries))
    }

    /// Every name that a client may dial.
    pub(crate) fn host_names(&self) -> Vec<&HostName> {
        let mut names: Vec<&HostName> = Vec::new();
        let hubs = self.hubs.iter().flat_map(|hub| std::iter::once(&hub.host_name).chain(&hub.aliases));
        let provisioning = std::iter::once(&self.provisioning.host_name).chain(&self.provisioning.aliases);
        for name in hubs.chain(provisioning) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// The data directory that is used when nobody names one: the user's folder for application data.
pub(crate) fn default_data_dir() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join(DEFAULT_DATA_DIR)
}

fn read(path: &Path) -> Result<file::Parsed, ConfigError> {
    use std::io::Read as _;
    let mut text = String::new();
    let opened = std::fs::File::open(path).map_err(ConfigError::Read)?;
    opened.take(file::MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(ConfigError::Read)?;
    if u64::try_from(text.len()).map_or(true, |length| length > file::MAX_FILE_BYTES) {
        return Err(ConfigError::TooLong);
    }
    file::File::parse_with_places(&text)
}
