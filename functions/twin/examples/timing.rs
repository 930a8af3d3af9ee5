//! How long a change of a twin takes, natively: `cargo run --release -p nave-function-twin --example timing`.
//!
//! The state is cloned for each call, as the host copies it into a component. `serde_json` does the values alone, without
//! metadata and limits, for comparison.

#![allow(clippy::disallowed_methods, reason = "a program that measures time")]
#![allow(clippy::unwrap_used, reason = "a program for developers that fails loudly")]

use std::hint::black_box;
use std::time::Instant;

use nave_function_twin::{Condition, ReportRequest, State, UpdateKind, UpdateRequest, create, report, update};
use serde_json::{Map, Value, json};

const ROUNDS: u32 = 20_000;

fn main() {
    for members in [1, 32, 85] {
        let state = twin(members);
        println!(
            "twin of {members} devices: reported {} bytes, its metadata {} bytes",
            state.reported.json.len(),
            state.reported.metadata_json.len()
        );
        let patch = format!(r#"{{"device{:03}":{{"temperature":21.5}},"uptime":12345}}"#, members / 2);
        measure("report, two members", || {
            let request = ReportRequest {
                reported: state.reported.clone(),
                version: state.version,
                patch_json: patch.clone(),
                if_version: None,
                unix_nanos: 1_790_000_000_123_456_700,
                emit_event: false,
            };
            report(&request).unwrap()
        });
        let body = format!(r#"{{"tags":{{"site":"north"}},"properties":{{"desired":{patch}}}}}"#);
        for emit_event in [false, true] {
            measure(if emit_event { "update and event" } else { "update, tags and two members" }, || {
                let request = UpdateRequest {
                    tags: state.tags.clone(),
                    desired: state.desired.clone(),
                    version: state.version,
                    etag: state.etag,
                    kind: UpdateKind::Patch,
                    body_json: body.clone(),
                    condition: Condition::Unconditional,
                    unix_nanos: 1_790_000_000_123_456_700,
                    emit_event,
                };
                update(&request).unwrap()
            });
        }
        let full = format!(r#"{{"properties":{{"desired":{}}}}}"#, state.desired.json);
        measure("create from the whole document", || create(Some(&full), 0).unwrap());
        measure("(serde_json: parse, merge, write)", || {
            let mut document: Map<String, Value> = serde_json::from_str(&state.reported.json).unwrap();
            let patch: Map<String, Value> = serde_json::from_str(&patch).unwrap();
            document.extend(patch);
            serde_json::to_string(&document).unwrap()
        });
    }
}

fn measure<T>(what: &str, mut call: impl FnMut() -> T) {
    for _ in 0..ROUNDS / 10 {
        black_box(call());
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(call());
    }
    let nanos = start.elapsed().as_nanos() / u128::from(ROUNDS);
    println!("  {what:<36} {:>7}.{:03} us", nanos / 1000, nanos % 1000);
}

/// A twin whose sections have `devices` members with three values each.
fn twin(devices: usize) -> State {
    let members: Map<String, Value> = (0..devices)
        .map(|number| {
            (format!("device{number:03}"), json!({"temperature": 20.25, "state": "running", "errors": number}))
        })
        .collect();
    let tags: Map<String, Value> = (0..20).map(|number| (format!("tag{number:02}"), json!("value"))).collect();
    let body = json!({"tags": tags, "properties": {"desired": members}}).to_string();
    let mut state = create(Some(&body), 0).unwrap();
    let request = ReportRequest {
        reported: state.reported,
        version: 2,
        patch_json: Value::Object(members).to_string(),
        if_version: None,
        unix_nanos: 0,
        emit_event: false,
    };
    state.reported = report(&request).unwrap().reported;
    state
}
