//! The configuration file as it is written: every key optional, nothing interpreted yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::de::DeTable;

use super::origin::Written;
use super::throttle::{HubThrottleSection, ProvisioningThrottleSection};
use super::{ConfigError, unknown_keys};

/// Longest configuration file. A hundred hubs with a hundred routes each stay below it.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) workers: Option<usize>,
    pub(super) functions_dir: Option<PathBuf>,
    pub(super) log: LogSection,
    pub(super) listen: ListenSection,
    pub(super) audit: AuditSection,
    pub(super) metrics: MetricsSection,
    pub(super) tls: TlsSection,
    pub(super) traces: TracesSection,
    pub(super) hub: Vec<HubSection>,
    pub(super) provisioning: ProvisioningSection,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    pub(super) level: Option<String>,
    pub(super) format: Option<String>,
}

/// `[listen]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListenSection {
    pub(super) mqtts: Option<String>,
    pub(super) https: Option<String>,
    pub(super) admin: Option<String>,
}

/// `[audit]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditSection {
    pub(super) file: Option<PathBuf>,
}

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MetricsSection {
    pub(super) token_file: Option<PathBuf>,
}

/// `[tls]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSection {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
}

/// `[traces]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TracesSection {
    pub(super) endpoint: Option<String>,
    pub(super) headers_file: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) sample_ratio: Option<f64>,
    pub(super) service_name: Option<String>,
}

/// `[[hub]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HubSection {
    pub(super) name: String,
    pub(super) host_name: Option<String>,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    pub(super) partitions: Option<u32>,
    pub(super) retention_hours: Option<u64>,
    pub(super) retention_mib: Option<u64>,
    pub(super) allocation_weight: Option<u32>,
    pub(super) apply_allocation_policy: Option<bool>,
    pub(super) latency_ms: Option<f64>,
    pub(super) capacity: Option<u64>,
    pub(super) location: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) fallback_route: Option<bool>,
    pub(super) twin_catch_up: Option<bool>,
    #[serde(default)]
    pub(super) throttle: HubThrottleSection,
    #[serde(default)]
    pub(super) cloud_to_device: CloudToDeviceSection,
    #[serde(default)]
    pub(super) route: Vec<RouteSection>,
    #[serde(default)]
    pub(super) enrichment: Vec<EnrichmentSection>,
}

/// `[hub.cloud_to_device]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CloudToDeviceSection {
    pub(super) ttl_minutes: Option<u64>,
    pub(super) max_delivery_count: Option<u32>,
    pub(super) lock_seconds: Option<u64>,
    pub(super) feedback_ttl_minutes: Option<u64>,
    pub(super) feedback_max_delivery_count: Option<u32>,
    pub(super) feedback_lock_seconds: Option<u64>,
}

/// `[[hub.route]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteSection {
    pub(super) name: String,
    pub(super) source: Option<String>,
    pub(super) condition: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) enabled: Option<bool>,
}

/// `[[hub.enrichment]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrichmentSection {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) endpoints: Option<Vec<String>>,
}

/// `[provisioning]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProvisioningSection {
    pub(super) host_name: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) id_scope: Option<String>,
    pub(super) allocation_policy: Option<String>,
    pub(super) answer_at_once: Option<bool>,
    pub(super) linked_hubs: Option<Vec<String>>,
    pub(super) throttle: ProvisioningThrottleSection,
    pub(super) policy_threads: Option<usize>,
    pub(super) allow_loopback_webhooks: Option<bool>,
    pub(super) webhook_ca: Option<PathBuf>,
    pub(super) policy_key: Vec<PolicyKeySection>,
}

/// `[[provisioning.policy_key]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyKeySection {
    pub(super) name: String,
    pub(super) public_key: String,
}

impl File {
    /// Reads the text of a file.
    #[cfg(test)]
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(Self::parse_with_places(text)?.file)
    }

    /// Reads the text of a file, and notes where each key stands.
    pub(super) fn parse_with_places(text: &str) -> Result<Parsed, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            line: error.span().map(|span| unknown_keys::line_of(text, span.start)),
            message: error.message().to_owned(),
        };
        let table = DeTable::parse(text).map_err(syntax)?;
        unknown_keys::refuse(text, table.get_ref())?;
        let written = Written::of(text, table.get_ref());
        Ok(Parsed { file: toml::from_str(text).map_err(syntax)?, written })
    }
}

/// A file that was read.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// What it says.
    pub(super) file: File,
    /// Where it says it.
    pub(super) written: Written,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file with every key.
    pub(in crate::config) const EVERYTHING: &str = r#"
        data_dir = "d"
        workers = 2
        functions_dir = "f"
        log = { level = "debug", format = "json" }
        listen = { mqtts = "off", https = "off", admin = "off" }
        audit = { file = "r" }
        metrics = { token_file = "t" }
        tls = { certificate = "c", key = "k", ca = "a" }
        [traces]
        endpoint = "https://c.x/v1/traces"
        headers_file = "h"
        ca = "a"
        sample_ratio = 0.5
        service_name = "n"
        [[hub]]
        name = "hub1"
        host_name = "h.x"
        aliases = ["a"]
        partitions = 4
        retention_hours = 1
        retention_mib = 1
        allocation_weight = 1
        apply_allocation_policy = true
        latency_ms = 1.5
        capacity = 1000
        location = "plant-7"
        labels = { tier = "gold" }
        fallback_route = false
        twin_catch_up = true
        [hub.throttle]
        tier = "S1"
        units = 2
        messages_per_day = 1
        connects_per_second = 1
        messages_per_second = 1
        device_messages_per_second = 1
        twin_reads_per_second = 1
        twin_updates_per_second = 1
        registry_per_second = 1
        method_bytes_per_second = 1
        cloud_to_device_sends_per_second = 1
        cloud_to_device_receives_per_second = 1
        [hub.cloud_to_device]
        ttl_minutes = 60
        max_delivery_count = 10
        lock_seconds = 60
        feedback_ttl_minutes = 60
        feedback_max_delivery_count = 10
        feedback_lock_seconds = 60
        [[hub.route]]
        name = "r"
        source = "DeviceMessages"
        condition = "true"
        endpoint = "events"
        enabled = true
        [[hub.enrichment]]
        key = "k"
        value = "v"
        endpoints = ["events"]
        [provisioning]
        host_name = "d.x"
        aliases = ["d"]
        id_scope = "0ne1"
        allocation_policy = "hashed"
        answer_at_once = true
        linked_hubs = ["hub1"]
        policy_threads = 2
        allow_loopback_webhooks = true
        webhook_ca = "ca.pem"
        [provisioning.throttle]
        standard = true
        registrations_per_minute = 1
        requests_per_minute = 1
        device_polls_per_minute = 1
        failed_registrations_per_minute = 1
        [[provisioning.policy_key]]
        name = "release"
        public_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    "#;

    #[test]
    fn every_key_is_known_to_both_readers() {
        let file = File::parse(EVERYTHING).unwrap();
        assert_eq!(file.hub[0].route.len() + file.hub[0].enrichment.len(), 2);
        assert_eq!(file.provisioning.linked_hubs.unwrap(), ["hub1"]);
    }

    #[test]
    fn a_misspelled_key_is_refused_with_its_line_and_the_right_one() {
        let error = |text: &str| File::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("workers = 2\n\n[[hub]]\nname = \"a\"\nhots_name = \"b\"\n"),
            "line 5: unknown key `hots_name` in [[hub]]: did you mean `host_name`?"
        );
        assert_eq!(
            error("[[hub]]\nname = \"a\"\n[[hub.route]]\nname = \"r\"\nsuorce = \"x\""),
            "line 5: unknown key `suorce` in [[hub.route]]: did you mean `source`?"
        );
        assert_eq!(error("\n[lisen]\n"), "line 2: unknown key `lisen` in the top level: did you mean `listen`?");
        assert_eq!(error("color = 1"), "line 1: unknown key `color` in the top level");
        assert_eq!(error("zzz = 1\n[log]\nlevle = 1"), error("zzz = 1"), "the first of the file is named");
    }

    #[test]
    fn other_mistakes_are_named_with_their_line() {
        let error = |text: &str| File::parse(text).unwrap_err().to_string();
        assert!(error("workers = 1\nworkers = 2").starts_with("line 2: "), "{}", error("workers = 1\nworkers = 2"));
        assert!(error("\nworkers = \"two\"").starts_with("line 2: invalid type: string"));
        assert!(error("[[hub]]\nhost_name = \"x.y\"").contains("missing field `name`"));
        assert!(error("hub = 3").contains("invalid type"));
    }
}
