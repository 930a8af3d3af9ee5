//! Finds keys that the configuration file does not have, and says which one was probably meant.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::throttle::{HubThrottleSection, ProvisioningThrottleSection};

/// A table of the file: what it may contain.
pub(super) struct Section {
    /// How the table is written in the file.
    title: &'static str,
    keys: &'static [&'static str],
    tables: &'static [(&'static str, &'static Section)],
}

/// The whole file. A test keeps it in step with the types that are read.
pub(super) const FILE: Section = Section {
    title: "the top level",
    keys: &["data_dir", "functions_dir", "workers"],
    tables: &[
        ("audit", &AUDIT),
        ("log", &LOG),
        ("listen", &LISTEN),
        ("metrics", &METRICS),
        ("tls", &TLS),
        ("traces", &TRACES),
        ("hub", &HUB),
        ("provisioning", &PROVISIONING),
    ],
};
const LOG: Section = Section { title: "[log]", keys: &["format", "level"], tables: &[] };
const LISTEN: Section = Section { title: "[listen]", keys: &["admin", "https", "mqtts"], tables: &[] };
const AUDIT: Section = Section { title: "[audit]", keys: &["file"], tables: &[] };
const METRICS: Section = Section { title: "[metrics]", keys: &["token_file"], tables: &[] };
const TLS: Section = Section { title: "[tls]", keys: &["ca", "certificate", "key"], tables: &[] };
const TRACES: Section = Section {
    title: "[traces]",
    keys: &["ca", "endpoint", "headers_file", "sample_ratio", "service_name"],
    tables: &[],
};
const HUB: Section = Section {
    title: "[[hub]]",
    keys: &[
        "aliases",
        "allocation_weight",
        "apply_allocation_policy",
        "capacity",
        "fallback_route",
        "host_name",
        "labels",
        "latency_ms",
        "location",
        "name",
        "partitions",
        "retention_hours",
        "retention_mib",
        "twin_catch_up",
    ],
    tables: &[
        ("cloud_to_device", &CLOUD_TO_DEVICE),
        ("route", &ROUTE),
        ("enrichment", &ENRICHMENT),
        ("throttle", &HUB_THROTTLE),
    ],
};
const CLOUD_TO_DEVICE: Section = Section {
    title: "[hub.cloud_to_device]",
    keys: &[
        "feedback_lock_seconds",
        "feedback_max_delivery_count",
        "feedback_ttl_minutes",
        "lock_seconds",
        "max_delivery_count",
        "ttl_minutes",
    ],
    tables: &[],
};
const HUB_THROTTLE: Section = Section { title: "[hub.throttle]", keys: HubThrottleSection::KEYS, tables: &[] };
const ROUTE: Section =
    Section { title: "[[hub.route]]", keys: &["condition", "enabled", "endpoint", "name", "source"], tables: &[] };
const ENRICHMENT: Section = Section { title: "[[hub.enrichment]]", keys: &["endpoints", "key", "value"], tables: &[] };
const PROVISIONING: Section = Section {
    title: "[provisioning]",
    keys: &[
        "aliases",
        "allocation_policy",
        "allow_loopback_webhooks",
        "answer_at_once",
        "host_name",
        "id_scope",
        "linked_hubs",
        "policy_threads",
        "webhook_ca",
    ],
    tables: &[("policy_key", &POLICY_KEY), ("throttle", &PROVISIONING_THROTTLE)],
};
const POLICY_KEY: Section =
    Section { title: "[[provisioning.policy_key]]", keys: &["name", "public_key"], tables: &[] };
const PROVISIONING_THROTTLE: Section =
    Section { title: "[provisioning.throttle]", keys: ProvisioningThrottleSection::KEYS, tables: &[] };

/// Refuses the first unknown key of `text`, in the order of the file.
pub(super) fn refuse(text: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    collect(table, &FILE, &mut found);
    found.sort_by_key(|(place, _, _)| *place);
    let Some((place, key, section)) = found.into_iter().next() else { return Ok(()) };
    let names = section.keys.iter().copied().chain(section.tables.iter().map(|(name, _)| *name));
    Err(ConfigError::UnknownKey {
        line: line_of(text, place),
        section: section.title,
        suggestion: closest(&key, names).map(str::to_owned),
        key,
    })
}

fn collect(table: &DeTable<'_>, section: &'static Section, found: &mut Vec<(usize, String, &'static Section)>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if let Some((_, inner)) = section.tables.iter().find(|(known, _)| *known == name) {
            tables_of(value).for_each(|table| collect(table, inner, found));
        } else if !section.keys.contains(&name) {
            found.push((key.span().start, name.to_owned(), section));
        }
    }
}

/// The table, or the tables of the array; a value that is neither is refused by its type later.
fn tables_of<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> impl Iterator<Item = &'a DeTable<'i>> {
    let one = value.get_ref().as_table();
    let many = value.get_ref().as_array().into_iter().flat_map(|array| array.iter());
    one.into_iter().chain(many.filter_map(|item| item.get_ref().as_table()))
}

/// Every key that a file may have, as `section.key`.
#[cfg(test)]
pub(super) fn all_keys() -> Vec<String> {
    fn walk(prefix: &str, section: &Section, keys: &mut Vec<String>) {
        keys.extend(section.keys.iter().map(|key| format!("{prefix}{key}")));
        for (name, inner) in section.tables {
            walk(&format!("{prefix}{name}."), inner, keys);
        }
    }
    let mut keys = Vec::new();
    walk("", &FILE, &mut keys);
    keys
}

/// The candidate that `word` is probably a misspelling of.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this similarity a suggestion confuses more than it helps.
    const SIMILAR: f64 = 0.7;
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// The line, from 1, in which the byte `place` stands.
pub(super) fn line_of(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}
