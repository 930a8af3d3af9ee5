//! One call of each function: natively, in a warm instance, and in a fresh one.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use nave_engine::{Engine, Functions, Reuse, Source};
use serde_json::{Map, Value, json};

const NOW: u64 = 1_790_000_000_123_456_700;
const CONDITION: &str = "level = 'storage' AND $body.temperature > 30 AND NOT IS_DEFINED(quarantined) \
                         AND STARTS_WITH($connectionDeviceId, 'line-7')";

/// The functions as they are called in both ways.
struct Ways {
    warm: Functions,
    fresh: Functions,
}

pub(crate) fn all(criterion: &mut Criterion) {
    let engine = Engine::new(None).unwrap();
    let ways = Ways {
        warm: Functions::load(&engine, &Source::Embedded).unwrap(),
        fresh: Functions::load_with(&engine, &Source::Embedded, Reuse::Never).unwrap(),
    };
    twin(&mut criterion.benchmark_group("twin report, 2 KB"), &ways);
    methods(&mut criterion.benchmark_group("method begin and complete"), &ways);
    provisioning(&mut criterion.benchmark_group("provisioning begin, 10 hubs"), &ways);
    allocation(&mut criterion.benchmark_group("allocation hashed, 10 hubs"), &ways);
    routing(&mut criterion.benchmark_group("route condition, 4 predicates"), &ways);
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn three<N, W>(group: &mut Group<'_>, ways: &Ways, mut native: impl FnMut() -> N, wasm: impl Fn(&Functions) -> W) {
    group.bench_function("native", |bencher| bencher.iter(|| black_box(native())));
    group.bench_function("warm", |bencher| bencher.iter(|| black_box(wasm(&ways.warm))));
    group.bench_function("fresh", |bencher| bencher.iter(|| black_box(wasm(&ways.fresh))));
}

/// Reported properties of about 2 KB: 32 members with three values each.
pub(crate) fn reported() -> String {
    let members: Map<String, Value> = (0..32)
        .map(|number| {
            (format!("device{number:03}"), json!({"temperature": 20.25, "state": "running", "errors": number}))
        })
        .collect();
    Value::Object(members).to_string()
}

pub(crate) const PATCH: &str = r#"{"device016":{"temperature":21.5},"uptime":12345}"#;

/// The same request for the native and for the generated types of the host.
macro_rules! report_request {
    ($types:path, $section:expr, $version:expr, $patch:expr) => {{
        use $types as types;
        types::ReportRequest {
            reported: types::Section {
                json: $section.json.clone(),
                metadata_json: $section.metadata_json.clone(),
                version: $section.version,
                size: $section.size,
            },
            version: $version,
            patch_json: $patch.to_owned(),
            if_version: None,
            unix_nanos: NOW,
            emit_event: false,
        }
    }};
}

fn twin(group: &mut Group<'_>, ways: &Ways) {
    let empty = nave_function_twin::create(None, NOW).unwrap();
    let filled = report_request!(nave_function_twin, empty.reported, empty.version, reported());
    let filled = nave_function_twin::report(&filled).unwrap();
    let native = report_request!(nave_function_twin, filled.reported, filled.version, PATCH);
    let wasm = report_request!(nave_engine::twin, filled.reported, filled.version, PATCH);
    three(
        group,
        ways,
        || nave_function_twin::report(&native).unwrap(),
        |functions| functions.report_twin(&wasm).unwrap().unwrap(),
    );
}

fn methods(group: &mut Group<'_>, ways: &Ways) {
    const BODY: &str =
        r#"{"methodName":"reboot","responseTimeoutInSeconds":30,"payload":{"delay":5,"reason":"firmware 4.2"}}"#;
    const ANSWER: &[u8] = br#"{"accepted":true,"at":"2026-01-01T00:00:00Z"}"#;
    three(
        group,
        ways,
        || {
            use nave_function_methods as types;
            let types::Plan::Deliver(call) = types::begin(BODY, types::Presence::Online) else {
                panic!("not delivered")
            };
            let answer = types::DeviceAnswer::Answered(types::Answered {
                status_text: "200".to_owned(),
                payload: ANSWER.to_vec(),
            });
            types::complete(call.timeouts, &answer).unwrap()
        },
        |functions| {
            use nave_engine::methods as types;
            let types::Plan::Deliver(call) = functions.begin_method(BODY, types::Presence::Online).unwrap() else {
                panic!("not delivered")
            };
            let answer = types::DeviceAnswer::Answered(types::Answered {
                status_text: "200".to_owned(),
                payload: ANSWER.to_vec(),
            });
            functions.complete_method(call.timeouts, &answer).unwrap().unwrap()
        },
    );
}

/// A group's first registration of a device: ten linked hubs, an initial twin, no current assignment.
macro_rules! registration_request {
    ($types:path) => {{
        use $types as types;
        types::Request {
            registration_id: "line-7-sensor-000123".to_owned(),
            evidence: types::Evidence { kind: types::AttestationKind::SymmetricKey, verdict: types::Verdict::Verified },
            enrollment: Some(types::Enrollment {
                kind: types::EnrollmentKind::Group,
                id: "line-7".to_owned(),
                enabled: true,
                attestation: types::AttestationKind::SymmetricKey,
                device_id: None,
                allocation_policy: Some("hashed".to_owned()),
                hubs: (0..10).map(hub_name).collect(),
                legacy_hub: None,
                webhook: None,
                reprovision: Some(types::ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: true }),
                initial_twin_json: Some(
                    r#"{"tags":{"site":"north"},"properties":{"desired":{"interval":30}}}"#.to_owned(),
                ),
                iot_edge: false,
            }),
            current: None,
            linked_hubs: (0..10)
                .map(|number| types::LinkedHub {
                    name: hub_name(number),
                    allocation_weight: None,
                    apply_allocation_policy: true,
                })
                .collect(),
            service_policy: "hashed".to_owned(),
            force: false,
            api_version: Some("2019-03-31".to_owned()),
        }
    }};
}

fn hub_name(number: u32) -> String {
    format!("hub{number}.region.nave.test")
}

fn provisioning(group: &mut Group<'_>, ways: &Ways) {
    let native = registration_request!(nave_function_provisioning);
    let wasm = registration_request!(nave_engine::provisioning);
    three(
        group,
        ways,
        || match nave_function_provisioning::begin(&native) {
            nave_function_provisioning::Step::Allocate(allocation) => allocation,
            other => panic!("{other:?}"),
        },
        |functions| match functions.begin_registration(&wasm).unwrap() {
            nave_engine::provisioning::Step::Allocate(allocation) => allocation,
            other => panic!("{other:?}"),
        },
    );
}

macro_rules! allocation_request {
    ($types:path) => {{
        use $types as types;
        types::Request {
            registration_id: "line-7-sensor-000123".to_owned(),
            policy: "hashed".to_owned(),
            enrollment_json: "{}".to_owned(),
            payload_json: None,
            config_json: None,
            current: None,
            hubs: (0..10).map(|number| types::Hub { name: hub_name(number), weight: 1, facts: Vec::new() }).collect(),
            unix_nanos: NOW,
            seed: 7,
            facts: Vec::new(),
        }
    }};
}

fn allocation(group: &mut Group<'_>, ways: &Ways) {
    let native = allocation_request!(nave_function_allocation);
    let wasm = allocation_request!(nave_engine::allocation);
    three(
        group,
        ways,
        || match nave_function_allocation::allocate(&native) {
            nave_function_allocation::Outcome::Assign(assignment) => assignment,
            other => panic!("{other:?}"),
        },
        |functions| match functions.allocate(&wasm).unwrap() {
            nave_engine::allocation::Outcome::Assign(assignment) => assignment,
            other => panic!("{other:?}"),
        },
    );
}

fn routing(group: &mut Group<'_>, ways: &Ways) {
    three(
        group,
        ways,
        || nave_function_routing::compile(CONDITION, nave_function_routing::Source::DeviceMessages).unwrap(),
        |functions| functions.compile_route(CONDITION, nave_engine::routing::Source::DeviceMessages).unwrap().unwrap(),
    );
}
