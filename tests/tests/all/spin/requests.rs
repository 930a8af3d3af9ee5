//! The gateway's logic natively: every request on a platform of its own, as on Spin, over one bucket in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use nave_auth::{SasToken, SharedKey, derive_device_key};
use nave_engine::allocation::{Assignment, Outcome, Request as PolicyRequest};
use nave_engine::{Engine, Functions, Source as Components};
use nave_env::{Moment, SharedEnv};
use nave_function_gateway::{Parts, RequestEnv, Settings, Source, answer, platform};
use nave_hub::provisioning::DeployedPolicy;
use nave_model::Timestamp;
use nave_store::{BucketStore, MemoryBucket};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

const HUB: &str = "hub1.nave.test";
const OTHER_HUB: &str = "hub2.nave.test";
const DPS: &str = "dps.nave.test";
const ID_SCOPE: &str = "0ne00000001";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);

static FUNCTIONS: LazyLock<Arc<Functions>> = LazyLock::new(|| {
    let engine = Engine::new(None).unwrap();
    // Nobody ticks: calls have no deadline.
    Arc::new(Functions::load(&engine, &Components::Embedded).unwrap())
});

struct Still;

impl Source for Still {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Moment {
        Moment::from_start(Duration::ZERO)
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        SystemRandom::new().fill(buffer).unwrap();
    }
}

/// Sends every device to the second hub.
struct Elsewhere;

impl DeployedPolicy for Elsewhere {
    fn allocate(&self, request: &PolicyRequest) -> Outcome {
        assert_eq!(request.policy, "custom");
        Outcome::Assign(Assignment {
            hub: OTHER_HUB.into(),
            device_id: None,
            initial_twin_json: Some(r#"{"tags":{"by":"policy"}}"#.into()),
            payload_json: Some("7".into()),
        })
    }
}

#[derive(Clone, Default)]
struct Spin(MemoryBucket);

struct Reply {
    status: StatusCode,
    response: Response<()>,
    body: Value,
}

impl Spin {
    fn call(&self, host: &str, token: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let settings = Settings::read(|name| {
            Some(match name {
                "hub_host_names" => format!("{HUB},{OTHER_HUB}"),
                "provisioning_host_names" => DPS.to_owned(),
                "id_scope" => ID_SCOPE.to_owned(),
                "routes" => r#"[{"name":"twins","source":"twinChangeEvents"}]"#.to_owned(),
                "iothubowner_key" | "provisioning_key" => KEY.to_owned(),
                _ => return None,
            })
        });
        let env = RequestEnv::new(Box::new(Still));
        let parts = Parts {
            env: Arc::clone(&env) as SharedEnv,
            store: Arc::new(BucketStore::new(self.0.clone(), random())),
            functions: Arc::clone(&FUNCTIONS),
            policy: Arc::new(Elsewhere),
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let uri = format!("http://{host}{path}{separator}api-version=2021-04-12");
        let mut request = Request::builder().method(method).uri(uri).header("authorization", token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned().into()).unwrap();
        let (parts, body) = answer(&env, &platform(&settings.unwrap(), &parts).unwrap(), request).into_parts();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8(body.to_vec()).unwrap().into());
        Reply { status: parts.status, response: Response::from_parts(parts, ()), body }
    }

    fn hub(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call(HUB, &token(HUB, KEY, Some("iothubowner")), method, path, headers, &body)
    }

    fn dps(&self, method: Method, path: &str, body: &Value) -> Reply {
        let token = token(DPS, KEY, Some("provisioningserviceowner"));
        self.call(DPS, &token, method, path, &[], &body.to_string())
    }

    /// Registers, and returns the state after the first poll.
    fn register(&self, id: &str, key: &str) -> Reply {
        let token = token(&format!("{ID_SCOPE}/registrations/{id}"), key, None);
        let path = format!("/{ID_SCOPE}/registrations/{id}");
        let body = json!({ "registrationId": id }).to_string();
        let first = self.call(DPS, &token, Method::PUT, &format!("{path}/register"), &[], &body);
        if first.status != StatusCode::ACCEPTED {
            return first;
        }
        assert_eq!(first.response.headers()["retry-after"], "3");
        let operation = first.body["operationId"].as_str().unwrap();
        self.call(DPS, &token, Method::GET, &format!("{path}/operations/{operation}"), &[], "{}")
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn token(resource: &str, key: &str, name: Option<&str>) -> String {
    SasToken::create(resource, &SharedKey::from_base64(key).unwrap(), NOW.after(Duration::from_secs(3600)), name)
}

fn enrollment(attestation: &Value) -> Value {
    json!({ "attestation": { "type": "symmetricKey", "symmetricKey": attestation } })
}

#[test]
fn a_group_registers_devices_that_can_speak_to_their_hub() {
    let spin = Spin::default();
    let created = spin.dps(Method::PUT, "/enrollmentGroups/g", &enrollment(&json!({})));
    assert_eq!(created.status, StatusCode::OK, "{}", created.body);
    let shown = spin.dps(Method::POST, "/enrollmentGroups/g/attestationmechanism", &json!({}));
    let group_key = SharedKey::from_base64(shown.body["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap();
    let key = derive_device_key(&group_key, "dev-1").expose_base64();

    let assigned = spin.register("dev-1", &key);
    assert_eq!((assigned.status, &assigned.body["status"]), (StatusCode::OK, &json!("assigned")), "{}", assigned.body);
    let hub = assigned.body["registrationState"]["assignedHub"].as_str().unwrap().to_owned();
    assert_eq!(spin.register("dev-2", &key).status, StatusCode::UNAUTHORIZED);
    let again = spin.register("dev-1", &key);
    assert_eq!(again.body["registrationState"]["substatus"], "reprovisionedToInitialAssignment");
    let listed = spin.dps(Method::POST, "/registrations/g/query", &json!({ "query": "SELECT *" }));
    assert_eq!(listed.body.as_array().map(Vec::len), Some(1), "{}", listed.body);
    let groups = spin.dps(Method::POST, "/enrollmentGroups/query", &json!({ "query": "SELECT *" }));
    assert_eq!(groups.body.as_array().map(Vec::len), Some(1), "{}", groups.body);

    let device_token = token(&format!("{hub}/devices/dev-1"), &key, None);
    let sent = spin.call(&hub, &device_token, Method::POST, "/devices/dev-1/messages/events", &[], "hot");
    assert_eq!(sent.status, StatusCode::NO_CONTENT, "{}", sent.body);
    let service = token(&hub, KEY, Some("iothubowner"));
    let events = spin.call(&hub, &service, Method::GET, "/events?from=earliest", &[], "");
    assert_eq!(events.body["body"], "aG90", "{}", events.body);
    let forged = token(&format!("{hub}/devices/dev-1"), KEY, None);
    let refused = spin.call(&hub, &forged, Method::POST, "/devices/dev-1/messages/events", &[], "hot");
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[test]
fn an_individual_enrollment_may_ask_for_the_deployed_policy() {
    let spin = Spin::default();
    let mut wanted = enrollment(&json!({ "primaryKey": KEY, "secondaryKey": KEY }));
    wanted["registrationId"] = json!("dev-1");
    wanted["allocationPolicy"] = json!("custom");
    wanted["customAllocationDefinition"] = json!({ "webhookUrl": "nave:policy/another", "apiVersion": "2021-10-01" });
    let other = spin.dps(Method::PUT, "/enrollments/dev-1", &wanted);
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
    assert!(other.body["message"].as_str().unwrap().contains("nave:policy/deployed"), "{}", other.body);
    wanted["customAllocationDefinition"]["webhookUrl"] = json!("nave:policy/deployed");
    assert_eq!(spin.dps(Method::PUT, "/enrollments/dev-1", &wanted).status, StatusCode::OK);
    let assigned = spin.register("dev-1", KEY);
    let state = &assigned.body["registrationState"];
    assert_eq!((&state["assignedHub"], &state["payload"]), (&json!(OTHER_HUB), &json!(7)), "{}", assigned.body);
    let service = token(OTHER_HUB, KEY, Some("iothubowner"));
    let twin = spin.call(OTHER_HUB, &service, Method::GET, "/twins/dev-1", &[], "");
    assert_eq!(twin.body["tags"]["by"], "policy");
}

#[test]
fn the_registry_and_twins_are_the_hubs() {
    let spin = Spin::default();
    let device = spin.hub(Method::PUT, "/devices/d", &[], &json!({ "deviceId": "d" }));
    assert_eq!(device.status, StatusCode::OK, "{}", device.body);
    assert_eq!(spin.hub(Method::PUT, "/devices/d", &[], &json!({ "deviceId": "d" })).status, StatusCode::CONFLICT);
    let patched = spin.hub(Method::PATCH, "/twins/d", &[], &json!({ "properties": { "desired": { "fan": 3 } } }));
    assert_eq!(patched.body["properties"]["desired"]["fan"], 3, "{}", patched.body);
    let events = spin.hub(Method::GET, "/events?from=earliest", &[], &Value::Null);
    assert_eq!(events.body["properties"]["opType"], "updateTwin", "{}", events.body);
    let module = spin.hub(Method::PUT, "/devices/d/modules/m", &[], &json!({ "deviceId": "d", "moduleId": "m" }));
    assert_eq!(module.status, StatusCode::OK, "{}", module.body);
    assert_eq!(spin.hub(Method::GET, "/devices", &[], &Value::Null).body.as_array().map(Vec::len), Some(1));
    assert_eq!(
        spin.hub(Method::DELETE, "/devices/d", &[("if-match", "*")], &Value::Null).status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(spin.hub(Method::GET, "/devices/d/modules/m", &[], &Value::Null).status, StatusCode::UNAUTHORIZED);
    assert_eq!(spin.hub(Method::GET, "/devices", &[], &Value::Null).body, json!([]));
}

/// A device is never online there, and nobody waits until it is.
#[test]
fn methods_are_answered_at_once() {
    let spin = Spin::default();
    spin.hub(Method::PUT, "/devices/d", &[], &json!({ "deviceId": "d" }));
    let offline = spin.hub(Method::POST, "/twins/d/methods", &[], &json!({ "methodName": "m", "payload": null }));
    assert_eq!(offline.status, StatusCode::NOT_FOUND, "{}", offline.body);
    let waits = json!({ "methodName": "m", "payload": null, "connectTimeoutInSeconds": 30 });
    let waiting = spin.hub(Method::POST, "/twins/d/methods", &[], &waits);
    assert_eq!(waiting.status, StatusCode::GATEWAY_TIMEOUT, "{}", waiting.body);
}

#[test]
fn messages_wait_for_devices() {
    let spin = Spin::default();
    let device = spin.hub(Method::PUT, "/devices/d", &[], &json!({ "deviceId": "d" }));
    let key = device.body["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap();
    let device = token(&format!("{HUB}/devices/d"), key, None);
    let path = "/devices/d/messages/devicebound";
    let none = spin.call(HUB, &device, Method::GET, path, &[], "");
    assert_eq!(none.status, StatusCode::NO_CONTENT);
    let sent = spin.hub(Method::POST, path, &[("iothub-messageid", "m1")], &json!("hello"));
    assert!(sent.status.is_success(), "{}", sent.body);
    let received = spin.call(HUB, &device, Method::GET, path, &[], "");
    assert_eq!((received.status, &received.body), (StatusCode::OK, &json!("hello")));
    let lock = received.response.headers()["iothub-messagelocktoken"].to_str().unwrap();
    let locked = spin.call(HUB, &device, Method::GET, path, &[], "");
    assert_eq!(locked.status, StatusCode::NO_CONTENT, "it is locked");
    let completed = spin.call(HUB, &device, Method::DELETE, &format!("{path}/{lock}"), &[], "");
    assert_eq!(completed.status, StatusCode::NO_CONTENT, "{}", completed.body);
    let again = spin.call(HUB, &device, Method::DELETE, &format!("{path}/{lock}"), &[], "");
    assert_eq!(again.status, StatusCode::PRECONDITION_FAILED, "{}", again.body);
}

/// Each patch that is acknowledged is there exactly once; whoever loses too often is told when to come back.
#[test]
fn many_clients_patch_one_twin() {
    const CLIENTS: usize = 64;
    let spin = Spin::default();
    spin.hub(Method::PUT, "/devices/d", &[], &json!({ "deviceId": "d" }));
    let first = spin.hub(Method::GET, "/twins/d", &[], &Value::Null).body["version"].as_u64().unwrap();
    let (acknowledged, told_to_wait) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (spin, acknowledged, told_to_wait) = (spin.clone(), &acknowledged, &told_to_wait);
            scope.spawn(move || {
                let patch = json!({ "tags": { format!("c{client}"): client } });
                loop {
                    let reply = spin.hub(Method::PATCH, "/twins/d", &[], &patch);
                    match reply.status {
                        StatusCode::OK => break acknowledged.fetch_add(1, Ordering::Relaxed),
                        StatusCode::TOO_MANY_REQUESTS => {
                            assert!(reply.response.headers().contains_key("retry-after"));
                            told_to_wait.fetch_add(1, Ordering::Relaxed);
                        }
                        other => panic!("{other} {}", reply.body),
                    }
                }
            });
        }
    });
    let twin = spin.hub(Method::GET, "/twins/d", &[], &Value::Null).body;
    let tags = twin["tags"].as_object().unwrap();
    assert_eq!((acknowledged.load(Ordering::Relaxed), tags.len()), (CLIENTS, CLIENTS));
    assert_eq!(
        twin["version"],
        json!(first + CLIENTS as u64),
        "told to wait: {}",
        told_to_wait.load(Ordering::Relaxed)
    );
}
