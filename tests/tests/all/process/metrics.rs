//! Metrics and probes: what is exposed is well-formed, true, documented, and all that the dashboard uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use nave_tests::paths;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::device::Device;
use super::server::{Ready, Site};
use super::service::Service;
use super::{in_time, run};

pub(super) const SCRAPER: &str = "a-token-for-the-scraper";

/// A request to the admin listener: status, content type and text.
async fn get(ready: &Ready, path: &str, token: Option<&str>) -> (u16, String, String) {
    let url = ready.json["admin"]["url"].as_str().unwrap();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let authorization = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    in_time(path, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, kind.to_owned(), body.to_owned())
}

/// One metric with its labels.
type Sample = (String, BTreeMap<String, String>);

/// A page as Prometheus reads it.
#[derive(Default)]
pub(super) struct Exposition {
    /// Type by name.
    families: BTreeMap<String, String>,
    samples: Vec<(Sample, f64)>,
}

impl Exposition {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut current = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && !page.families.contains_key(name), "{line}");
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current, "{line}");
                page.families.insert(name.to_owned(), kind.to_owned());
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
                let labels = labels.strip_suffix('}').unwrap();
                let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
                    let (name, value) = label.split_once('=').unwrap();
                    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
                    (name.to_owned(), value.to_owned())
                });
                let family = match page.families[&current].as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)),
                    _ => Some(name),
                };
                assert_eq!(family, Some(current.as_str()), "{line}");
                page.samples.push(((name.to_owned(), labels.collect()), value.parse().unwrap()));
            }
        }
        page
    }

    /// The sum of all samples with these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = self.samples.iter().filter(|((sample, has), _)| {
            sample == name && labels.iter().all(|(label, value)| has.get(*label).is_some_and(|has| has == value))
        });
        let values: Vec<f64> = matching.map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "there is no {name} with {labels:?}");
        values.iter().sum()
    }

    /// The rules of Prometheus that a scrape does not check.
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for (sample, value) in &self.samples {
            assert!(seen.insert(sample), "{sample:?} twice");
            assert!(value.is_finite() && *value >= 0.0, "{sample:?} is {value}");
        }
        for (name, kind) in &self.families {
            assert!(name.starts_with("nave_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            if kind != "histogram" {
                continue;
            }
            let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((sample, labels), value) in &self.samples {
                if *sample == format!("{name}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").unwrap().replace('+', "").parse().unwrap();
                    series.entry(labels).or_default().push((bound, *value));
                }
            }
            assert!(!series.is_empty(), "{name}");
            for (labels, buckets) in series {
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?} {buckets:?}");
                let (bound, all) = *buckets.last().unwrap();
                assert!(bound.is_infinite());
                let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(self.value(&format!("{name}_count"), &labels), all, "{name}");
            }
        }
    }

    /// Names as they are queried.
    fn names(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|((name, _), _)| name.as_str()).collect()
    }
}

#[test]
fn metrics_tell_what_happened() {
    run(async {
        let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n");
        fs::write(site.root().join("scraper"), format!("{SCRAPER}\n")).unwrap();
        let (hub, ready) = site.start();
        let admin = ready.json["admin"]["token"].as_str().unwrap();
        let before = scrape(&ready, SCRAPER).await;

        let key = SharedKey::from_bytes(&[7; DEVICE_KEY_LENGTH]).unwrap();
        let service = Service::hub(&ready);
        service.create_device("counted", &key).await;
        let wrong = SharedKey::from_bytes(&[8; DEVICE_KEY_LENGTH]).unwrap();
        assert!(Device::connect(&ready, "counted", &wrong).await.is_err());
        let mut device = Device::connect(&ready, "counted", &key).await.unwrap();
        for _ in 0..3 {
            device.telemetry(b"0123456789").await.unwrap();
        }
        assert_eq!(device.twin().await.unwrap().0, 200);
        service.twin("counted").await;
        assert_eq!(service.request("GET", "/twins/nobody?api-version=2021-04-12", "").await.unwrap().status, 404);

        let page = scrape(&ready, admin).await;
        let grown = |name: &str, labels: &[(&str, &str)]| page.value(name, labels) - before.value(name, labels);
        let hub1 = ("hub", "hub1");
        assert_eq!(grown("nave_device_connects_total", &[hub1, ("outcome", "ok")]), 1.0);
        assert_eq!(grown("nave_device_connects_total", &[hub1, ("outcome", "refused")]), 1.0);
        assert_eq!(grown("nave_authentication_failures_total", &[("protocol", "mqtt")]), 1.0);
        assert_eq!(grown("nave_messages_total", &[hub1, ("outcome", "ok")]), 3.0);
        assert_eq!(grown("nave_message_bytes_total", &[hub1]), 30.0);
        assert_eq!(grown("nave_acknowledgements_total", &[hub1]), 3.0);
        assert_eq!(grown("nave_log_records_total", &[hub1]), 3.0);
        assert!(grown("nave_log_sync_seconds_count", &[hub1]) >= 1.0);
        assert_eq!(grown("nave_twin_operations_total", &[hub1, ("operation", "device_read"), ("outcome", "ok")]), 1.0);
        assert_eq!(grown("nave_twin_operations_total", &[hub1, ("operation", "read"), ("outcome", "ok")]), 1.0);
        assert_eq!(grown("nave_twin_operations_total", &[hub1, ("operation", "read"), ("outcome", "refused")]), 1.0);
        assert!(grown("nave_store_commits_total", &[("outcome", "committed")]) >= 2.0);
        assert!(grown("nave_store_sync_seconds_sum", &[]) > 0.0);
        assert!(grown("nave_function_seconds_count", &[("function", "twin")]) >= 1.0);
        assert!(grown("nave_http_requests_total", &[("surface", "hub"), ("status", "4xx")]) >= 1.0);
        assert_eq!(page.value("nave_devices_connected", &[hub1]), 1.0);
        assert_eq!(page.value("nave_store_writable", &[]), 1.0);
        assert!(page.value("process_resident_memory_bytes", &[]) > 1e6);
        assert_eq!(page.value("nave_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        hub.stop();
    });
}

#[test]
fn probes_want_no_token_and_metrics_do() {
    run(async {
        let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n");
        fs::write(site.root().join("scraper"), SCRAPER).unwrap();
        let (hub, ready) = site.start();
        for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
            assert_eq!(get(&ready, path, None).await, (200, "text/plain; charset=utf-8".to_owned(), text.to_owned()));
        }
        for wrong in [None, Some(""), Some("a-token-for-the-scrapeR")] {
            assert_eq!(get(&ready, "/metrics", wrong).await.0, 401);
        }
        assert_eq!(get(&ready, "/admin/status", Some(SCRAPER)).await.0, 401, "that token is for metrics alone");
        let (status, kind, _) = get(&ready, "/metrics", Some(SCRAPER)).await;
        assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        hub.stop();
    });
}

#[test]
fn a_token_that_can_be_guessed_is_refused() {
    let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n");
    fs::write(site.root().join("scraper"), "short").unwrap();
    site.refused(site.command()).expect(2, &["metrics.token_file", "16"]);
    fs::remove_file(site.root().join("scraper")).unwrap();
    site.refused(site.command()).expect(2, &["metrics.token_file", "scraper"]);
}

#[test]
fn every_metric_is_documented_and_the_dashboard_uses_no_other() {
    run(async {
        let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n");
        fs::write(site.root().join("scraper"), SCRAPER).unwrap();
        let (hub, ready) = site.start();
        let page = scrape(&ready, SCRAPER).await;
        hub.stop();

        let text = fs::read_to_string(paths::root().join("runtime/nave/METRICS.md")).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[0].trim_matches('`').to_owned(), cells[1].to_owned())
        });
        let documented: BTreeMap<String, String> = rows.collect();
        assert_eq!(documented, page.families, "METRICS.md and the program differ");

        let text = fs::read_to_string(paths::root().join("infra/grafana/nave.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut queries = Vec::new();
        expressions(&dashboard, &mut queries);
        assert!(queries.len() > 15);
        let names = page.names();
        let mut used = BTreeSet::new();
        for query in &queries {
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for name in words.filter(|word| word.starts_with("nave_") || word.starts_with("process_")) {
                assert!(names.contains(name), "the dashboard uses {name}, which does not exist: {query}");
                used.insert(name);
            }
        }
        assert!(used.len() > 15, "{used:?}");
    });
}

pub(super) async fn scrape(ready: &Ready, token: &str) -> Exposition {
    let (status, _, text) = get(ready, "/metrics", Some(token)).await;
    assert_eq!(status, 200, "{text}");
    nave_tests::leaks::collect("metrics", &text);
    let page = Exposition::parse(&text);
    page.check();
    page
}

/// Every `expr` in the document.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    other => expressions(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}
