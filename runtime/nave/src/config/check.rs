//! From what is written to what is meant: defaults, precedence, and every rule that can be checked before the start.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nave_engine::Source as Functions;
use nave_hub::policy::TrustedKey;
use nave_hub::provisioning::HubDetails;
use nave_hub::{CloudToDeviceSettings, MAX_TIME_TO_LIVE, MIN_TIME_TO_LIVE, RoutingConfig};
use nave_log::{DEFAULT_PARTITIONS, MAX_PARTITIONS};
use nave_model::{HostName, HubId, HubName, IdScope};
use nave_routing::{EndpointName, Enrichment, Route, RouteName, Source};

use super::file::{CloudToDeviceSection, File, HubSection, PolicyKeySection, ProvisioningSection, TlsSection};
use super::throttle::HubThrottleSection;
use super::{
    AllocationPolicy, Config, ConfigError, HubConfig, Listen, Overrides, ProvisioningConfig, TlsFiles, TracesConfig,
    closest,
};
use crate::logging::{LogFormat, LogLevel};

/// Most hubs of one process: each has a log with a thread of its own.
const MAX_HUBS: usize = 50;

/// The domain of names that nobody chose. RFC 6761, section 6.2: `.test` never exists in the public DNS.
const DEFAULT_DOMAIN: &str = "nave.test";

/// Largest allocation weight (Azure DPS documentation, linked hubs).
const MAX_ALLOCATION_WEIGHT: u32 = 1000;

/// Longest retention by age that can be asked for: ten years.
const MAX_RETENTION_HOURS: u64 = 10 * 366 * 24;

/// Largest retention by size that can be asked for: 1 PiB.
const MAX_RETENTION_MIB: u64 = 1 << 30;

/// Most threads for allocation policies; more than a machine has cores serve nothing.
const MAX_POLICY_THREADS: usize = 64;

/// Most trusted keys: an upload may have to try all of them.
const MAX_POLICY_KEYS: usize = 16;

/// Most labels of a hub, and longest label, location and their parts, in bytes: they are part of every request to a policy.
const MAX_HUB_LABELS: usize = 32;
const MAX_HUB_TEXT: usize = 256;

const LOCALHOST: &str = "localhost";
const MQTTS_PORT: u16 = 8883;
const HTTPS_PORT: u16 = 443;

pub(super) fn check(file: File, base: &Path, overrides: Overrides) -> Result<Config, ConfigError> {
    let hubs = hubs(file.hub)?;
    let provisioning = provisioning(file.provisioning, base, overrides.id_scope, &hubs)?;
    distinct_names(&hubs)?;
    let tls = tls(file.tls, base, overrides.tls_certificate, overrides.tls_key)?;
    let workers = overrides.workers.or(file.workers);
    let admin = listen("listen.admin", overrides.admin.or(file.listen.admin), || Listen::loopback(0))?;
    if admin.is_public() {
        return Err(value("listen.admin", "the admin API has no TLS and stays on this machine: use 127.0.0.1:PORT"));
    }
    Ok(Config {
        data_dir: overrides
            .data_dir
            .or_else(|| file.data_dir.map(|path| base.join(path)))
            .unwrap_or_else(super::default_data_dir),
        workers: workers
            .map(|count| NonZeroUsize::new(count).ok_or_else(|| value("workers", "at least one is needed")))
            .transpose()?,
        functions: overrides
            .functions_dir
            .or_else(|| file.functions_dir.map(|path| base.join(path)))
            .map_or(Functions::Embedded, Functions::Directory),
        log_level: choice("log.level", overrides.log_level.or(file.log.level), &LogLevel::ALL, LogLevel::as_str)?
            .unwrap_or_default(),
        log_format: choice("log.format", overrides.log_format.or(file.log.format), &LogFormat::ALL, LogFormat::as_str)?
            .unwrap_or_default(),
        mqtts: listen("listen.mqtts", overrides.mqtts.or(file.listen.mqtts), || Listen::everywhere(MQTTS_PORT))?,
        https: listen("listen.https", overrides.https.or(file.listen.https), || Listen::everywhere(HTTPS_PORT))?,
        admin,
        audit_file: file.audit.file.map(|path| base.join(path)),
        metrics_token_file: file.metrics.token_file.map(|path| base.join(path)),
        tls,
        traces: TracesConfig::check(file.traces, base)?,
        hubs,
        provisioning,
    })
}

fn hubs(mut sections: Vec<HubSection>) -> Result<Vec<HubConfig>, ConfigError> {
    if sections.is_empty() {
        sections.push(HubSection {
            name: "hub1".to_owned(),
            host_name: None,
            aliases: Vec::new(),
            partitions: None,
            retention_hours: None,
            retention_mib: None,
            allocation_weight: None,
            apply_allocation_policy: None,
            latency_ms: None,
            capacity: None,
            location: None,
            labels: BTreeMap::new(),
            fallback_route: None,
            twin_catch_up: None,
            throttle: HubThrottleSection::default(),
            cloud_to_device: CloudToDeviceSection::default(),
            route: Vec::new(),
            enrichment: Vec::new(),
        });
    }
    if sections.len() > MAX_HUBS {
        return Err(value("hub", format!("at most {MAX_HUBS} hubs fit into one process")));
    }
    let mut hubs = sections.into_iter().map(hub).collect::<Result<Vec<HubConfig>, ConfigError>>()?;
    let localhost = parse::<HostName>("hub.aliases", LOCALHOST)?;
    let elsewhere = hubs.iter().skip(1).any(|hub| hub.aliases.contains(&localhost) || hub.host_name == localhost);
    if let Some(first) = hubs.first_mut()
        && first.host_name != localhost
        && !first.aliases.contains(&localhost)
        && !elsewhere
    {
        first.aliases.push(localhost);
    }
    Ok(hubs)
}

fn hub(section: HubSection) -> Result<HubConfig, ConfigError> {
    let name = parse::<HubName>("hub.name", &section.name)?;
    let place = |key: &str| format!("hub `{name}`, {key}");
    let host_name = parse::<HostName>(
        &place("host_name"),
        section.host_name.as_deref().unwrap_or(&format!("{name}.{DEFAULT_DOMAIN}")),
    )?;
    if !host_name.is_dotted() {
        return Err(value(
            place("host_name"),
            format!(
                "`{host_name}` has no dot, and the .NET and Java SDKs refuse such names: use `{host_name}.{DEFAULT_DOMAIN}`, and `{host_name}` as an alias"
            ),
        ));
    }
    let aliases = section.aliases.iter().map(|alias| parse(&place("aliases"), alias)).collect::<Result<Vec<_>, _>>()?;
    let partitions =
        within(&place("partitions"), section.partitions, 1..=MAX_PARTITIONS)?.unwrap_or(DEFAULT_PARTITIONS);
    let defaults = nave_log::Options::default();
    let hours = within(&place("retention_hours"), section.retention_hours, 1..=MAX_RETENTION_HOURS)?;
    let mib = within(&place("retention_mib"), section.retention_mib, 1..=MAX_RETENTION_MIB)?;
    let latency_ms = section.latency_ms;
    if latency_ms.is_some_and(|latency| !latency.is_finite() || latency < 0.0) {
        return Err(value(place("latency_ms"), "a latency is a number of milliseconds from 0"));
    }
    let cloud_to_device = cloud_to_device(&section.cloud_to_device, |key| place(&format!("cloud_to_device.{key}")))?;
    let texts = section.labels.iter().flat_map(|(name, label)| [name, label]).chain(&section.location);
    if section.labels.len() > MAX_HUB_LABELS || texts.into_iter().any(|text| text.len() > MAX_HUB_TEXT) {
        return Err(value(
            place("labels"),
            format!("there are at most {MAX_HUB_LABELS} labels, and no text has more than {MAX_HUB_TEXT} bytes"),
        ));
    }
    let details = HubDetails {
        capacity: within(&place("capacity"), section.capacity, 1..=u64::MAX)?,
        location: section.location,
        labels: section.labels,
    };
    let routing = RoutingConfig {
        routes: section
            .route
            .into_iter()
            .map(|route| {
                let place = |key: &str| place(&format!("route `{}`, {key}", route.name));
                Ok(Route {
                    name: RouteName::parse(&route.name).map_err(|error| value(place("name"), error.to_string()))?,
                    source: parse::<Source>(&place("source"), route.source.as_deref().unwrap_or("DeviceMessages"))?,
                    condition: route.condition.clone().unwrap_or_else(|| "true".to_owned()),
                    endpoint: EndpointName::parse(route.endpoint.as_deref().unwrap_or("events"))
                        .map_err(|error| value(place("endpoint"), error.to_string()))?,
                    enabled: route.enabled.unwrap_or(true),
                })
            })
            .collect::<Result<_, _>>()?,
        fallback: section.fallback_route.unwrap_or(true),
        enrichments: section
            .enrichment
            .iter()
            .map(|enrichment| {
                let events = [EndpointName::events().as_str().to_owned()];
                let endpoints = enrichment.endpoints.as_deref().unwrap_or(&events);
                Enrichment::parse(&enrichment.key, &enrichment.value, endpoints)
                    .map_err(|error| value(place(&format!("enrichment `{}`", enrichment.key)), error.to_string()))
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(HubConfig {
        id: parse::<HubId>(&place("name"), name.as_str())?,
        host_name,
        aliases,
        partitions,
        retention_age: hours.map_or(defaults.retention_age, |hours| Duration::from_secs(hours * 3600)),
        retention_bytes: mib.map_or(defaults.retention_bytes, |mib| mib << 20),
        allocation_weight: within(&place("allocation_weight"), section.allocation_weight, 1..=MAX_ALLOCATION_WEIGHT)?,
        apply_allocation_policy: section.apply_allocation_policy.unwrap_or(true),
        latency_ms,
        cloud_to_device,
        twin_catch_up: section.twin_catch_up.unwrap_or(false),
        details,
        routing,
        throttle: section.throttle.throttle(place)?,
        name,
    })
}

/// The bounds are the cloud service's (Azure IoT Hub documentation, cloud-to-device messages and feedback).
fn cloud_to_device(
    section: &CloudToDeviceSection,
    place: impl Fn(&str) -> String,
) -> Result<CloudToDeviceSettings, ConfigError> {
    const LOCK_SECONDS: std::ops::RangeInclusive<u64> = 5..=300;
    const DELIVERIES: std::ops::RangeInclusive<u32> = 1..=100;
    let minutes = |key: &str, value: Option<u64>, default: Duration| {
        let range = MIN_TIME_TO_LIVE.as_secs() / 60..=MAX_TIME_TO_LIVE.as_secs() / 60;
        Ok(within(&place(key), value, range)?.map_or(default, |minutes| Duration::from_secs(minutes * 60)))
    };
    let seconds = |key: &str, value: Option<u64>, default: Duration| {
        Ok(within(&place(key), value, LOCK_SECONDS)?.map_or(default, Duration::from_secs))
    };
    let times =
        |key: &str, value: Option<u32>, default: u32| Ok(within(&place(key), value, DELIVERIES)?.unwrap_or(default));
    let default = CloudToDeviceSettings::default();
    Ok(CloudToDeviceSettings {
        time_to_live: minutes("ttl_minutes", section.ttl_minutes, default.time_to_live)?,
        max_deliveries: times("max_delivery_count", section.max_delivery_count, default.max_deliveries)?,
        lock: seconds("lock_seconds", section.lock_seconds, default.lock)?,
        feedback_time_to_live: minutes(
            "feedback_ttl_minutes",
            section.feedback_ttl_minutes,
            default.feedback_time_to_live,
        )?,
        feedback_max_deliveries: times(
            "feedback_max_delivery_count",
            section.feedback_max_delivery_count,
            default.feedback_max_deliveries,
        )?,
        feedback_lock: seconds("feedback_lock_seconds", section.feedback_lock_seconds, default.feedback_lock)?,
    })
}

/// Two hubs must not share a name, an id or a host name: the name decides which hub a client means.
fn distinct_names(hubs: &[HubConfig]) -> Result<(), ConfigError> {
    let mut names: Vec<(&HostName, &HubName)> = Vec::new();
    for (position, hub) in hubs.iter().enumerate() {
        if hubs.iter().take(position).any(|other| other.name == hub.name) {
            return Err(value(format!("hub `{}`", hub.name), "there are two hubs of this name"));
        }
        for name in std::iter::once(&hub.host_name).chain(&hub.aliases) {
            if let Some((_, other)) = names.iter().find(|(known, other)| *known == name && *other != &hub.name) {
                return Err(value(format!("hub `{}`", hub.name), format!("hub `{other}` answers to `{name}` already")));
            }
            names.push((name, &hub.name));
        }
    }
    Ok(())
}

fn provisioning(
    section: ProvisioningSection,
    base: &Path,
    id_scope: Option<String>,
    hubs: &[HubConfig],
) -> Result<ProvisioningConfig, ConfigError> {
    let place = |key: &str| format!("provisioning.{key}");
    let default_name = format!("dps.{DEFAULT_DOMAIN}");
    let host_name: HostName = parse(&place("host_name"), section.host_name.as_deref().unwrap_or(&default_name))?;
    let mut aliases =
        section.aliases.iter().map(|alias| parse(&place("aliases"), alias)).collect::<Result<Vec<HostName>, _>>()?;
    let localhost = parse::<HostName>(&place("aliases"), LOCALHOST)?;
    if !aliases.contains(&localhost) && host_name != localhost {
        aliases.push(localhost);
    }
    let policies = AllocationPolicy::ALL;
    let linked_hubs = match section.linked_hubs {
        None => (0..hubs.len()).collect(),
        Some(names) => names
            .iter()
            .map(|name| {
                let wanted = name.to_ascii_lowercase();
                let found = hubs.iter().position(|hub| hub.name.as_str() == wanted || hub.host_name.as_str() == wanted);
                found.ok_or_else(|| {
                    let known: Vec<&str> = hubs.iter().map(|hub| hub.name.as_str()).collect();
                    value(place("linked_hubs"), format!("there is no hub `{name}`; the hubs are {}", known.join(", ")))
                })
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(ProvisioningConfig {
        host_name,
        aliases,
        id_scope: id_scope
            .or(section.id_scope)
            .map(|scope| parse::<IdScope>(&place("id_scope"), &scope))
            .transpose()?,
        allocation_policy: choice(
            &place("allocation_policy"),
            section.allocation_policy,
            &policies,
            AllocationPolicy::as_str,
        )?
        .unwrap_or(AllocationPolicy::Hashed),
        linked_hubs,
        throttle: section.throttle.throttle()?,
        policy_threads: within(&place("policy_threads"), section.policy_threads, 1..=MAX_POLICY_THREADS)?.unwrap_or(1),
        policy_keys: policy_keys(&section.policy_key)?,
        answer_at_once: section.answer_at_once.unwrap_or(false),
        allow_loopback_webhooks: section.allow_loopback_webhooks.unwrap_or(false),
        webhook_ca: section.webhook_ca.map(|path| base.join(path)),
    })
}

fn policy_keys(sections: &[PolicyKeySection]) -> Result<Vec<TrustedKey>, ConfigError> {
    if sections.len() > MAX_POLICY_KEYS {
        return Err(value("provisioning.policy_key", format!("at most {MAX_POLICY_KEYS} keys can be trusted")));
    }
    let key = |section: &PolicyKeySection| {
        let place = format!("provisioning.policy_key `{}`", section.name);
        TrustedKey::parse(&section.name, &section.public_key).map_err(|error| value(place, error.to_string()))
    };
    sections.iter().map(key).collect()
}

fn tls(
    section: TlsSection,
    base: &Path,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = certificate.or_else(|| section.certificate.map(|path| base.join(path)));
    let key = key.or_else(|| section.key.map(|path| base.join(path)));
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let ca = section.ca.map_or_else(|| certificate.clone(), |path| base.join(path));
            Ok(Some(TlsFiles { certificate, key, ca }))
        }
        (None, None) if section.ca.is_none() => Ok(None),
        (None, None) => Err(value("tls.ca", "it belongs to a certificate: give `certificate` and `key` too")),
        (Some(_), None) => Err(value("tls.key", "a certificate needs its private key")),
        (None, Some(_)) => Err(value("tls.certificate", "a private key needs its certificate")),
    }
}

fn listen(place: &str, text: Option<String>, default: impl FnOnce() -> Listen) -> Result<Listen, ConfigError> {
    text.map_or_else(|| Ok(default()), |text| Listen::parse(&text).map_err(|message| value(place, message)))
}

fn choice<T: Copy>(
    place: &str,
    text: Option<String>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<Option<T>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let found = all.iter().copied().find(|candidate| name(*candidate).eq_ignore_ascii_case(&text));
    found.map(Some).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|candidate| name(*candidate)).collect();
        let meant = closest(&text, names.iter().copied())
            .map_or_else(String::new, |suggestion| format!(": did you mean `{suggestion}`?"));
        value(place, format!("`{text}` is none of {}{meant}", names.join(", ")))
    })
}

pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    place: &str,
    number: Option<T>,
    range: std::ops::RangeInclusive<T>,
) -> Result<Option<T>, ConfigError> {
    match number {
        Some(number) if !range.contains(&number) => {
            Err(value(place, format!("{number} is not within {} to {}", range.start(), range.end())))
        }
        number => Ok(number),
    }
}

fn parse<T: FromStr<Err: std::fmt::Display>>(place: &str, text: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|error: T::Err| value(place, format!("`{text}`: {error}")))
}

pub(super) fn value(place: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError::Value { place: place.into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, overrides: Overrides) -> Result<Config, ConfigError> {
        check(File::parse(text)?, Path::new("/etc/nave"), overrides)
    }

    fn error(text: &str) -> String {
        load(text, Overrides::default()).unwrap_err().to_string()
    }

    #[test]
    fn without_any_configuration_there_is_one_hub_that_answers_to_localhost() {
        let config = load("", Overrides::default()).unwrap();
        let [hub] = &*config.hubs else { panic!("{:?}", config.hubs) };
        assert_eq!((hub.name.as_str(), hub.host_name.as_str()), ("hub1", "hub1.nave.test"));
        assert_eq!(hub.aliases, [HostName::parse("localhost").unwrap()]);
        assert!(hub.routing.fallback && hub.apply_allocation_policy);
        assert_eq!(config.mqtts, Listen::everywhere(8883));
        assert_eq!(config.https, Listen::everywhere(443));
        assert!(!config.admin.is_public());
        let names: Vec<&str> = config.host_names().into_iter().map(HostName::as_str).collect();
        assert_eq!(names, ["hub1.nave.test", "localhost", "dps.nave.test"]);
        assert_eq!(config.provisioning.linked_hubs, [0]);
    }

    #[test]
    fn what_is_said_on_the_command_line_wins_over_the_file_and_paths_of_the_file_are_its_own() {
        let text = "data_dir = \"state\"\nworkers = 3\n[listen]\nmqtts = \"off\"\n[log]\nlevel = \"debug\"";
        let config = load(text, Overrides::default()).unwrap();
        assert_eq!(config.data_dir, Path::new("/etc/nave/state"));
        assert_eq!((config.workers.unwrap().get(), &config.mqtts), (3, &Listen::Off));
        assert_eq!(config.log_level, LogLevel::Debug);
        let overrides = Overrides {
            data_dir: Some("elsewhere".into()),
            workers: Some(1),
            mqtts: Some("127.0.0.1:1883".into()),
            log_level: Some("WARN".into()),
            ..Overrides::default()
        };
        let config = load(text, overrides).unwrap();
        assert_eq!(config.data_dir, Path::new("elsewhere"));
        assert_eq!(config.workers.unwrap().get(), 1);
        assert_eq!(config.mqtts, Listen::On(vec!["127.0.0.1:1883".parse().unwrap()]));
        assert_eq!(config.log_level, LogLevel::Warn);
    }

    #[test]
    fn two_hubs_have_names_of_their_own() {
        let two = |rest: &str| format!("[[hub]]\nname = \"a\"\n[[hub]]\nname = \"B\"\n{rest}");
        let config = load(&two(""), Overrides::default()).unwrap();
        assert_eq!(config.hubs[1].host_name.as_str(), "b.nave.test");
        assert!(config.hubs[1].aliases.is_empty());
        assert_eq!(error(&two("host_name = \"a.nave.test\"")), "hub `b`: hub `a` answers to `a.nave.test` already");
        assert_eq!(
            error(&two("[[hub]]\nname = \"A\"\nhost_name = \"c.d\"")),
            "hub `a`: there are two hubs of this name"
        );
        let config = load(&two("aliases = [\"localhost\"]"), Overrides::default()).unwrap();
        assert!(config.hubs[0].aliases.is_empty(), "an operator may give localhost to another hub");
        let config = load(&two("[provisioning]\nlinked_hubs = [\"b.nave.test\"]"), Overrides::default()).unwrap();
        assert_eq!(config.provisioning.linked_hubs, [1]);
        assert!(error(&two("[provisioning]\nlinked_hubs = [\"c\"]")).contains("the hubs are a, b"));
    }

    #[test]
    fn impossible_values_are_refused_with_their_place() {
        let hub = |rest: &str| format!("[[hub]]\nname = \"h\"\n{rest}");
        for (text, expected) in [
            (hub("host_name = \"h\""), "hub `h`, host_name: `h` has no dot"),
            (hub("host_name = \"a b.c\""), "must not contain ' '"),
            (hub("partitions = 33"), "hub `h`, partitions: 33 is not within 1 to 32"),
            (hub("allocation_weight = 0"), "0 is not within 1 to 1000"),
            (hub("latency_ms = nan"), "number of milliseconds"),
            (hub("retention_mib = 0"), "not within"),
            (hub("[hub.cloud_to_device]\nttl_minutes = 0"), "cloud_to_device.ttl_minutes: 0 is not within 1 to 2880"),
            (hub("[hub.cloud_to_device]\nlock_seconds = 301"), "301 is not within 5 to 300"),
            (hub("[hub.cloud_to_device]\nmax_delivery_count = 0"), "0 is not within 1 to 100"),
            (hub("[[hub.route]]\nname = \"r\"\nsource = \"X\""), "hub `h`, route `r`, source: `X`"),
            (hub("[[hub.enrichment]]\nkey = \"a b\"\nvalue = \"\""), "hub `h`, enrichment `a b`: "),
            ("workers = 0".to_owned(), "workers: at least one"),
            ("[log]\nlevel = \"inof\"".to_owned(), "did you mean `info`?"),
            ("[listen]\nadmin = \"0.0.0.0:80\"".to_owned(), "stays on this machine"),
            ("[tls]\nkey = \"k\"".to_owned(), "tls.certificate: "),
            ("[provisioning]\nid_scope = \"x\"".to_owned(), "provisioning.id_scope: `x`"),
            ("[provisioning]\npolicy_threads = 0".to_owned(), "0 is not within 1 to 64"),
            (
                "[[provisioning.policy_key]]\nname = \"r\"\npublic_key = \"x\"".to_owned(),
                "provisioning.policy_key `r`: is no Ed25519 public key",
            ),
            (hub("capacity = 0"), "hub `h`, capacity: 0 is not within"),
            ("[provisioning]\nallocation_policy = \"custom\"".to_owned(), "is none of hashed, geoLatency, static"),
        ] {
            let error = error(&text);
            assert!(error.contains(expected), "{error} / {expected}");
        }
    }
}
