//! One decision of a plug-in in each language: a fresh instance, the call, and its end, as a hub does it.
//!
//! The components are those of the templates (`cargo xtask policies`); what is not there is left out. The rival is the
//! built-in component in a fresh instance: `allocation hashed, 10 hubs/fresh`.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use nave_engine::allocation::{Fact, Hub, Request};
use nave_engine::plugin::{PluginEngine, PolicyLabel, PolicyLimits};
use serde_json::{Value, json};

use crate::functions::reported;

/// Language and project of each template.
const EXAMPLES: [(&str, &str); 4] =
    [("c", "sticky"), ("rust", "by-site"), ("js", "by-region"), ("python", "by-organisation")];

pub(crate) fn all(criterion: &mut Criterion) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let engine = PluginEngine::new(Some(&target.join("policies/cache/bench")), Arc::new(|| Duration::ZERO));
    let mut group = criterion.benchmark_group("policy in a fresh instance, 10 hubs, twin of 2 KB");
    let request = request();
    for (lang, project) in EXAMPLES {
        let file = target.join(format!("policies/{project}.wasm"));
        let Ok(bytes) = fs::read(&file) else {
            eprintln!("{} is not there: cargo xtask policies", file.display());
            continue;
        };
        let label = PolicyLabel { name: project.to_owned(), version: "1".to_owned() };
        let policy = engine.compile(&label, &bytes, &PolicyLimits::default()).unwrap();
        group.bench_function(lang, |bencher| {
            bencher.iter(|| {
                let (outcome, _) = policy.allocate(black_box(&request));
                outcome.unwrap()
            });
        });
    }
}

/// A request that every example can decide: with tags, a region and a certificate.
fn request() -> Request {
    let desired: Value = serde_json::from_str(&reported()).unwrap();
    let fact = |name: &str, value: Value| Fact { name: name.to_owned(), json: value.to_string() };
    let hub = |number: usize| Hub {
        name: format!("hub{number}.example.org"),
        weight: 1,
        facts: vec![
            fact("location", json!(format!("plant-{number}"))),
            fact("device-count", json!(1_000 * number)),
            fact("labels", json!({ "organisation": format!("org-{number}") })),
        ],
    };
    Request {
        registration_id: "pump-1".to_owned(),
        policy: "example".to_owned(),
        enrollment_json: json!({ "enrollmentGroup": {
            "enrollmentGroupId": "pumps",
            "attestation": { "type": "x509" },
            "initialTwin": { "tags": { "site": "plant-7" }, "properties": { "desired": desired } },
        }})
        .to_string(),
        payload_json: Some(json!({ "region": "plant-7" }).to_string()),
        config_json: None,
        current: None,
        hubs: (0..10).map(hub).collect(),
        unix_nanos: 1_790_000_000_123_456_700,
        seed: 7,
        facts: vec![fact("x509", json!({ "subjectName": "CN=pump-1, O=org-7" }))],
    }
}
