//! The configuration in force as a list: key, value, where the value came from, and whether it can change without a restart.
//!
//! `nave config show` prints the list, and a reload compares two of them. A key that is missing here could change unnoticed:
//! a test compares with the keys that the file may have.

use serde_json::{Value, json};

use super::origin::{Origin, Sources, Written};
use super::{Config, HubConfig, TlsFiles};

/// One value in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key as it would be written; hubs, routes and enrichments by name: `hub.hub1.route.hot.condition`.
    pub(crate) key: String,
    /// Its value; null for "none".
    pub(crate) value: Value,
    /// Where the value came from.
    pub(crate) origin: Origin,
    /// Whether a running hub takes up a change of it.
    pub(crate) reloadable: bool,
}

impl Entry {
    /// The entry for programs.
    pub(crate) fn json(&self) -> Value {
        let mut entry = json!({
            "key": self.key,
            "value": self.value,
            "source": match &self.origin {
                Origin::Default => "default",
                Origin::DataDirectory => "dataDirectory",
                Origin::File(_) => "file",
                Origin::Environment(_) => "environment",
                Origin::Flag(_) => "flag",
            },
        });
        let (member, detail) = match &self.origin {
            Origin::File(line) => ("line", json!(line)),
            Origin::Environment(name) | Origin::Flag(name) => ("name", json!(name)),
            Origin::Default | Origin::DataDirectory => ("", Value::Null),
        };
        if let Some(members) = entry.as_object_mut() {
            if !detail.is_null() {
                members.insert(member.to_owned(), detail);
            }
            members.insert("from".to_owned(), json!(self.origin.to_string()));
            members.insert("reloadable".to_owned(), json!(self.reloadable));
        }
        entry
    }
}

/// Whether a change needs a restart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Taken up by a reload.
    Reload,
    /// Fixed until the next start.
    Restart,
}

struct List<'a> {
    written: &'a Written,
    sources: &'a Sources,
    entries: Vec<Entry>,
}

impl List<'_> {
    /// Adds `key`; `place` is where the file has it.
    fn add_at(&mut self, key: String, place: &str, value: Value, change: Change) {
        let said = self.sources.0.get(place).cloned();
        let origin = said.or_else(|| self.written.line(place).map(Origin::File)).unwrap_or(Origin::Default);
        self.entries.push(Entry { key, value, origin, reloadable: change == Change::Reload });
    }

    fn add(&mut self, key: &str, value: Value, change: Change) {
        self.add_at(key.to_owned(), key, value, change);
    }
}

/// Everything that is in force. A generated id scope is not known here; see [`with_id_scope`].
pub(crate) fn entries(config: &Config, written: &Written, sources: &Sources) -> Vec<Entry> {
    use Change::{Reload, Restart};
    let mut list = List { written, sources, entries: Vec::new() };
    list.add("data_dir", json!(config.data_dir), Restart);
    list.add("workers", config.workers.map_or(Value::Null, |count| json!(count)), Restart);
    let functions = match &config.functions {
        nave_engine::Source::Embedded => Value::Null,
        nave_engine::Source::Directory(path) => json!(path),
    };
    list.add("functions_dir", functions, Reload);
    list.add("log.level", json!(config.log_level.as_str()), Reload);
    list.add("log.format", json!(config.log_format.as_str()), Restart);
    list.add("listen.mqtts", json!(config.mqtts.to_string()), Restart);
    list.add("listen.https", json!(config.https.to_string()), Restart);
    list.add("listen.admin", json!(config.admin.to_string()), Restart);
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map_or(Value::Null, |path| json!(path));
    list.add("audit.file", path(&config.audit_file), Restart);
    list.add("metrics.token_file", path(&config.metrics_token_file), Restart);
    let tls =
        |file: fn(&TlsFiles) -> &std::path::PathBuf| config.tls.as_ref().map_or(Value::Null, |tls| json!(file(tls)));
    list.add("tls.certificate", tls(|tls| &tls.certificate), Reload);
    list.add("tls.key", tls(|tls| &tls.key), Reload);
    list.add("tls.ca", tls(|tls| &tls.ca), Reload);
    let traces = &config.traces;
    list.add("traces.endpoint", traces.endpoint.as_ref().map_or(Value::Null, |endpoint| json!(endpoint)), Reload);
    list.add("traces.headers_file", path(&traces.headers_file), Reload);
    list.add("traces.ca", path(&traces.ca), Reload);
    list.add("traces.sample_ratio", json!(traces.sample_ratio), Reload);
    list.add("traces.service_name", json!(traces.service_name), Reload);
    for (index, hub) in config.hubs.iter().enumerate() {
        hub_entries(&mut list, index, hub);
    }
    let provisioning = &config.provisioning;
    let names =
        |names: &[nave_model::HostName]| json!(names.iter().map(nave_model::HostName::as_str).collect::<Vec<_>>());
    list.add("provisioning.host_name", json!(provisioning.host_name.as_str()), Restart);
    list.add("provisioning.aliases", names(&provisioning.aliases), Restart);
    let scope = provisioning.id_scope.as_ref().map_or(Value::Null, |scope| json!(scope.as_str()));
    list.add("provisioning.id_scope", scope, Restart);
    list.add("provisioning.allocation_policy", json!(provisioning.allocation_policy.as_str()), Restart);
    let linked = provisioning.linked_hubs.iter().filter_map(|position| config.hubs.get(*position));
    list.add("provisioning.linked_hubs", json!(linked.map(|hub| hub.name.as_str()).collect::<Vec<_>>()), Restart);
    for (key, value) in &provisioning.throttle.keys {
        list.add(&format!("provisioning.throttle.{key}"), value.clone(), Restart);
    }
    list.add("provisioning.answer_at_once", json!(provisioning.answer_at_once), Reload);
    list.add("provisioning.policy_threads", json!(provisioning.policy_threads), Restart);
    list.add("provisioning.allow_loopback_webhooks", json!(provisioning.allow_loopback_webhooks), Restart);
    list.add("provisioning.webhook_ca", path(&provisioning.webhook_ca), Restart);
    for (index, key) in provisioning.policy_keys.iter().enumerate() {
        let mut add = |name: &str, value: Value| {
            let shown = format!("provisioning.policy_key.{}.{name}", key.name);
            list.add_at(shown, &format!("provisioning.policy_key[{index}].{name}"), value, Restart);
        };
        add("name", json!(key.name));
        add("public_key", json!(key.base64()));
    }
    list.entries
}

fn hub_entries(list: &mut List<'_>, index: usize, hub: &HubConfig) {
    use Change::{Reload, Restart};
    let names =
        |names: &[nave_model::HostName]| json!(names.iter().map(nave_model::HostName::as_str).collect::<Vec<_>>());
    let mut add = |key: &str, value: Value, change| {
        list.add_at(format!("hub.{}.{key}", hub.name), &format!("hub[{index}].{key}"), value, change);
    };
    add("name", json!(hub.name.as_str()), Restart);
    add("host_name", json!(hub.host_name.as_str()), Restart);
    add("aliases", names(&hub.aliases), Restart);
    add("partitions", json!(hub.partitions), Restart);
    add("retention_hours", json!(hub.retention_age.as_secs() / 3600), Reload);
    add("retention_mib", json!(hub.retention_bytes >> 20), Reload);
    add("allocation_weight", hub.allocation_weight.map_or(Value::Null, |weight| json!(weight)), Restart);
    add("apply_allocation_policy", json!(hub.apply_allocation_policy), Restart);
    add("latency_ms", hub.latency_ms.map_or(Value::Null, |latency| json!(latency)), Restart);
    let details = &hub.details;
    add("capacity", details.capacity.map_or(Value::Null, |capacity| json!(capacity)), Restart);
    add("location", details.location.as_ref().map_or(Value::Null, |location| json!(location)), Restart);
    add("labels", json!(details.labels), Restart);
    add("fallback_route", json!(hub.routing.fallback), Reload);
    add("twin_catch_up", json!(hub.twin_catch_up), Reload);
    for (key, value) in &hub.throttle.keys {
        add(&format!("throttle.{key}"), value.clone(), Restart);
    }
    let messages = &hub.cloud_to_device;
    for (key, value) in [
        ("ttl_minutes", messages.time_to_live.as_secs() / 60),
        ("max_delivery_count", messages.max_deliveries.into()),
        ("lock_seconds", messages.lock.as_secs()),
        ("feedback_ttl_minutes", messages.feedback_time_to_live.as_secs() / 60),
        ("feedback_max_delivery_count", messages.feedback_max_deliveries.into()),
        ("feedback_lock_seconds", messages.feedback_lock.as_secs()),
    ] {
        add(&format!("cloud_to_device.{key}"), json!(value), Reload);
    }
    for (at, route) in hub.routing.routes.iter().enumerate() {
        let name = route.name.as_str();
        let mut add = |key: &str, value: Value| {
            let key_text = format!("hub.{}.route.{name}.{key}", hub.name);
            list.add_at(key_text, &format!("hub[{index}].route[{at}].{key}"), value, Reload);
        };
        add("name", json!(name));
        add("source", json!(route.source.as_str()));
        add("condition", json!(route.condition));
        add("endpoint", json!(route.endpoint.as_str()));
        add("enabled", json!(route.enabled));
    }
    for (at, enrichment) in hub.routing.enrichments.iter().enumerate() {
        let name = enrichment.key.as_str();
        let value = match &enrichment.value {
            nave_routing::EnrichmentValue::Static(text) => text,
            nave_routing::EnrichmentValue::HubName => "$iothubname",
            nave_routing::EnrichmentValue::Twin { literal, .. } => literal,
        };
        let mut add = |key: &str, value: Value| {
            let key_text = format!("hub.{}.enrichment.{name}.{key}", hub.name);
            list.add_at(key_text, &format!("hub[{index}].enrichment[{at}].{key}"), value, Reload);
        };
        add("key", json!(name));
        add("value", json!(value));
        let endpoints = enrichment.endpoints.iter().map(nave_routing::EndpointName::as_str);
        add("endpoints", json!(endpoints.collect::<Vec<_>>()));
    }
}

/// The same list with the id scope that was generated for the data directory, where none is configured.
pub(crate) fn with_id_scope(mut entries: Vec<Entry>, generated: Option<&str>) -> Vec<Entry> {
    for entry in entries.iter_mut().filter(|entry| entry.key == "provisioning.id_scope" && entry.value.is_null()) {
        if let Some(generated) = generated {
            entry.value = json!(generated);
            entry.origin = Origin::DataDirectory;
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::EVERYTHING;
    use super::super::file::{File, Parsed};
    use super::super::unknown_keys;
    use super::super::{Overrides, check};
    use super::*;

    fn list(text: &str, overrides: Overrides, sources: &Sources) -> Vec<Entry> {
        let Parsed { file, written } = File::parse_with_places(text).unwrap();
        let config = check::check(file, std::path::Path::new("/etc"), overrides).unwrap();
        entries(&config, &written, sources)
    }

    #[test]
    fn every_key_that_the_file_may_have_is_shown_with_its_line() {
        let shown = list(EVERYTHING, Overrides::default(), &Sources::default());
        for key in unknown_keys::all_keys() {
            let (section, key) = key.rsplit_once('.').unwrap_or(("", key.as_str()));
            let found = shown.iter().find(|entry| {
                let mut parts: Vec<&str> = entry.key.split('.').collect();
                let last = parts.pop().unwrap_or_default();
                // Names of hubs, routes and enrichments stand between the sections.
                let sections: Vec<&str> = match &*parts {
                    ["hub", _] => vec!["hub"],
                    ["hub", _, inner] | ["hub", _, inner, _] => vec!["hub", inner],
                    ["provisioning", "policy_key", _] => vec!["provisioning", "policy_key"],
                    other => other.to_vec(),
                };
                last == key && sections.join(".") == section
            });
            let entry = found.unwrap_or_else(|| panic!("`{section}.{key}` is not shown"));
            assert!(matches!(entry.origin, Origin::File(line) if line > 1), "{entry:?}");
        }
    }

    #[test]
    fn each_value_names_its_source() {
        let sources = Sources(
            [
                ("log.level", Origin::Flag("--log-level".to_owned())),
                ("listen.https", Origin::Environment("NAVE_LISTEN_HTTPS".to_owned())),
            ]
            .into(),
        );
        let overrides =
            Overrides { log_level: Some("debug".into()), https: Some("off".into()), ..Overrides::default() };
        let text = "[log]\nlevel = \"warn\"\n[listen]\nmqtts = \":0\"\n";
        let shown = with_id_scope(list(text, overrides, &sources), Some("0ne1"));
        let of = |key: &str| {
            let entry = shown.iter().find(|entry| entry.key == key).unwrap();
            (entry.value.clone(), entry.origin.to_string())
        };
        assert_eq!(of("log.level"), (json!("debug"), "flag, --log-level".to_owned()));
        assert_eq!(of("listen.https"), (json!("off"), "environment, NAVE_LISTEN_HTTPS".to_owned()));
        assert_eq!(of("listen.mqtts"), (json!("[::]:0"), "file, line 4".to_owned()));
        assert_eq!(of("workers"), (Value::Null, "default".to_owned()));
        assert_eq!(of("provisioning.id_scope"), (json!("0ne1"), "data directory".to_owned()));
        assert_eq!(of("hub.hub1.host_name"), (json!("hub1.nave.test"), "default".to_owned()));
    }
}
