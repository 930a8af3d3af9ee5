//! `/allocationPolicies`, and the registrations that such policies decide.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_auth::{SharedKey, derive_device_key};
use nave_env::Env as _;
use nave_hub::policy::{TrustedKey, statement};
use nave_hub::provisioning::{HookAnswer, HookError};
use nave_model::{AllocationPolicyName, AllocationPolicyVersion};
use nave_tests::paths;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::world::{Answer, HUB, OTHER_HUB, World};

fn component(fixture: &str) -> Vec<u8> {
    paths::component(&format!("fixtures/{fixture}")).unwrap()
}

fn push(world: &World, name: &str, version: &str, component: Vec<u8>) -> Answer {
    world.dps_request("PUT", &format!("/allocationPolicies/{name}/versions/{version}")).bytes(component).send()
}

fn activate(world: &World, name: &str, body: &Value) -> Answer {
    world.dps_request("POST", &format!("/allocationPolicies/{name}/activate")).json(body).send()
}

/// A policy with one active version, the hostile fixture.
fn deploy(world: &World, name: &str) {
    push(world, name, "1", component("hostile-policy")).json();
    activate(world, name, &json!({ "version": "1" })).json();
}

/// A group whose devices ask `url`, and its key.
fn enroll(world: &World, group: &str, definition: &Value) -> SharedKey {
    let body = json!({
        "enrollmentGroupId": group, "attestation": { "type": "symmetricKey" },
        "allocationPolicy": "custom", "customAllocationDefinition": definition,
        "initialTwin": { "tags": { "site": 7 } },
    });
    world.dps_request("PUT", &format!("/enrollmentGroups/{group}")).json(&body).send().json();
    let secrets = world.dps_request("POST", &format!("/enrollmentGroups/{group}/attestationmechanism")).send().json();
    SharedKey::from_base64(secrets["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap()
}

fn by_policy(url: &str) -> Value {
    json!({ "webhookUrl": url, "apiVersion": "2021-10-01" })
}

/// Registers a device with this payload, polls to the end, and returns its state.
fn register(world: &World, key: &SharedKey, id: &str, payload: &Value) -> Value {
    let token = world.registration_token(id, &derive_device_key(key, id));
    let accepted = world
        .device_request("PUT", &format!("{id}/register"))
        .header("Authorization", &token)
        .json(&json!({ "registrationId": id, "payload": payload }))
        .send();
    let operation = accepted.json()["operationId"].as_str().unwrap().to_owned();
    loop {
        let path = format!("{id}/operations/{operation}");
        let answer = world.device_request("GET", &path).header("Authorization", &token).send();
        if answer.status == 200 {
            return answer.json()["registrationState"].clone();
        }
        world.simulation.run(world.env.sleep(Duration::from_secs(1))).unwrap();
    }
}

fn statistics(world: &World, name: &str, version: &str) -> Value {
    let policy = world.dps_request("GET", &format!("/allocationPolicies/{name}")).send().json();
    let versions = policy["versions"].as_array().unwrap();
    versions.iter().find(|known| known["version"] == version).unwrap()["statistics"].clone()
}

#[test]
fn a_policy_decides_with_everything_that_is_promised() {
    let world = World::new();
    deploy(&world, "echo");
    let mut definition = by_policy("nave:policy/echo");
    definition["configuration"] = json!({ "region": "north" });
    let key = enroll(&world, "g", &definition);
    let state = register(&world, &key, "dev-1", &json!({ "a": [1] }));
    assert_eq!((&state["status"], &state["assignedHub"]), (&json!("assigned"), &json!(HUB)), "{state}");
    let told = &state["payload"];
    assert_eq!((&told["calls"], &told["policy"]), (&json!(1), &json!("custom")));
    assert_eq!(told["config"], json!({ "region": "north" }));
    assert_eq!(told["payload"], json!({ "a": [1] }));
    assert_eq!(told["current"], Value::Null);
    let enrollment = &told["enrollment"]["enrollmentGroup"];
    assert_eq!(
        (&enrollment["enrollmentGroupId"], &enrollment["initialTwin"]["tags"]["site"]),
        (&json!("g"), &json!(7))
    );
    assert_eq!(enrollment["attestation"]["symmetricKey"], json!({}), "no secrets");
    assert_eq!(told["facts"]["symmetric-key"], json!({ "kind": "group" }));
    assert_eq!(told["facts"]["linked-hubs"], json!([HUB, OTHER_HUB]));
    let now: u64 = told["unixNanos"].as_str().unwrap().parse().unwrap();
    assert!(now >= 1_790_000_000_000_000_000);
    // Again, and it knows where the device is and what it was given.
    let state = register(&world, &key, "dev-1", &json!("again"));
    assert_eq!(state["payload"]["current"], json!({ "hub": HUB, "deviceId": "dev-1" }));
    // Counted in the background since the first time, so it may be some seconds old.
    assert!(state["payload"]["hubs"][HUB]["facts"]["device-count"].is_u64(), "{state}");
    assert_eq!(state["substatus"], "reprovisionedToInitialAssignment");
    assert_eq!(statistics(&world, "echo", "1")["assigned"], 2);
}

#[test]
fn each_outcome_is_carried_out_and_each_bad_one_is_one_failed_registration() {
    let world = World::new();
    deploy(&world, "p");
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    let run = |order: &str| register(&world, &key, &format!("dev-{order}"), &json!(order));
    assert_eq!(run("fallback")["status"], "assigned");
    let refused = run("refuse");
    assert_eq!((&refused["status"], &refused["errorCode"]), (&json!("failed"), &json!(400_207)));
    assert_eq!(refused["errorMessage"], "no room for you");
    for order in [
        "panic",
        "memory",
        "stack",
        "giant",
        "utf8",
        "outside",
        "unknown-hub",
        "big-twin",
        "bad-json",
        "deep-json",
        "deep-twin",
        "fallback-unknown",
        "other",
    ] {
        let state = run(order);
        assert_eq!((&state["status"], &state["errorCode"]), (&json!("failed"), &json!(400_207)), "{order}: {state}");
        assert_eq!(run("")["status"], "assigned", "the next registration after {order}");
    }
    let counted = statistics(&world, "p", "1");
    let errors = json!({
        "invalidResult": 2, "memory": 1, "oversize": 1, "stack": 1, "trap": 1, "unusable": 7,
    });
    assert_eq!((&counted["errors"], &counted["failed"]), (&errors, &json!(13)), "{counted}");
    assert_eq!((&counted["delegated"], &counted["refused"]), (&json!(1), &json!(1)));
}

#[test]
fn a_policy_may_postpone_and_an_absent_one_fails_with_its_name() {
    let world = World::new();
    deploy(&world, "p");
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    let token = world.registration_token("dev-1", &derive_device_key(&key, "dev-1"));
    let later = world.device_request("PUT", "dev-1/register").header("Authorization", &token);
    let accepted = later.json(&json!({ "payload": "later" })).send();
    assert_eq!((accepted.status, accepted.header("retry-after")), (202, Some("2")));
    for (group, url) in [("none", "nave:policy/nobody"), ("version", "nave:policy/p@7")] {
        let key = enroll(&world, group, &by_policy(url));
        let state = register(&world, &key, &format!("dev-{group}"), &json!(""));
        assert_eq!((&state["status"], &state["errorCode"]), (&json!("failed"), &json!(400_207)), "{state}");
    }
    push(&world, "idle", "1", component("hostile-policy")).json();
    let key = enroll(&world, "idle", &by_policy("nave:policy/idle"));
    assert_eq!(register(&world, &key, "dev-idle", &json!(""))["status"], "failed", "nothing is active");
    let key = enroll(&world, "pinned", &by_policy("nave:policy/idle@1"));
    assert_eq!(register(&world, &key, "dev-pinned", &json!(""))["status"], "assigned", "a version that is named is");
}

#[test]
fn versions_are_stored_activated_and_rolled_back() {
    let world = World::new();
    let first = push(&world, "p", "1.0", component("hostile-policy"));
    let etag = first.header("etag").unwrap().to_owned();
    let policy = first.json();
    assert_eq!((&policy["versions"][0]["role"], policy.get("active")), (&json!("idle"), None));
    assert_eq!(policy["versions"][0]["configurationSchema"]["type"], "object");
    assert_eq!(policy["etag"], json!(etag));
    assert_eq!(push(&world, "p", "1.0", component("hostile-policy")).json()["etag"], json!(etag), "nothing changed");
    push(&world, "p", "1.0", component("released-0-1-0")).dps_error(409_000, "GenericConflict");
    push(&world, "p", "1.1", component("released-0-1-0")).json();
    let stale = world.dps_request("POST", "/allocationPolicies/p/activate").header("If-Match", &etag);
    stale.json(&json!({ "version": "1.0" })).send().dps_error(412_001, "PreconditionFailed");
    activate(&world, "p", &json!({ "version": "2.0" })).dps_error(404_000, "GenericNotFound");
    activate(&world, "p", &json!({ "version": "1.1", "canaryPercent": 10 })).dps_error(400_004, "ArgumentInvalid");
    activate(&world, "p", &json!({ "version": "1.0" })).json();
    let changed = activate(&world, "p", &json!({ "version": "1.1" })).json();
    assert_eq!((&changed["active"], &changed["previous"]), (&json!("1.1"), &json!("1.0")));
    let rollback = || world.dps_request("POST", "/allocationPolicies/p/rollback").send();
    let changed = rollback().json();
    assert_eq!((&changed["active"], &changed["previous"]), (&json!("1.0"), &json!("1.1")));
    let delete = |path: &str| world.dps_request("DELETE", &format!("/allocationPolicies/{path}")).send();
    delete("p/versions/1.0").dps_error(409_000, "GenericConflict");
    assert_eq!(delete("p/versions/1.1").status, 204);
    rollback().dps_error(400_004, "ArgumentInvalid");
    let listed = world.dps_request("GET", "/allocationPolicies").send().json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(delete("p").status, 204);
    delete("p").dps_error(404_000, "GenericNotFound");
    assert_eq!(world.dps_request("GET", "/allocationPolicies").send().json(), json!([]));
    // Neither a component that is no policy nor a name that is none is stored.
    assert!(push(&world, "q", "1", b"rubbish".to_vec()).dps_error(400_004, "ArgumentInvalid").contains("component"));
    push(&world, ".q", "1", component("hostile-policy")).dps_error(400_004, "ArgumentInvalid");
    let anonymous = world.dps_request("GET", "/allocationPolicies").without("Authorization").send();
    anonymous.dps_error(401_002, "IotHubUnauthorizedAccess");
}

#[test]
fn a_new_version_is_used_at_once_and_a_policy_survives_a_restart() {
    let world = World::new();
    deploy(&world, "p");
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    assert_eq!(register(&world, &key, "dev-1", &json!("refuse"))["status"], "failed");
    push(&world, "p", "2", component("released-0-1-0")).json();
    activate(&world, "p", &json!({ "version": "2" })).json();
    // The other fixture refuses nobody.
    assert_eq!(register(&world, &key, "dev-1", &json!("refuse"))["status"], "assigned");
    let again = World::after(&world);
    assert_eq!(register(&again, &key, "dev-2", &json!("refuse"))["status"], "assigned");
    assert_eq!(statistics(&again, "p", "2")["assigned"], 1);
    assert_eq!(statistics(&again, "p", "1")["decisions"], 0);
}

#[test]
fn limits_and_debug_are_settings_of_a_policy() {
    let world = World::new();
    deploy(&world, "p");
    let set = |body: Value| world.dps_request("PATCH", "/allocationPolicies/p").json(&body).send();
    let changed = set(json!({ "limits": { "memoryBytes": 4_194_304, "queue": 3 }, "debug": true })).json();
    assert_eq!((&changed["limits"]["memoryBytes"], &changed["debug"]), (&json!(4_194_304), &json!(true)));
    assert_eq!(set(json!({ "debug": false })).json()["limits"]["queue"], 3, "what is not said stays");
    for wrong in [
        json!({ "limits": { "memoryBytes": 4_000_000_000u32 } }),
        json!({ "limits": { "deadlineMs": 0 } }),
        json!({ "limits": { "queue": 100_000 } }),
        // The last one would be asked after minutes.
        json!({ "limits": { "queue": 64, "deadlineMs": 5_000 } }),
    ] {
        set(wrong).dps_error(400_004, "ArgumentInvalid");
    }
    set(json!({ "limits": { "patience": 1 } })).dps_error(400_004, "ArgumentInvalid");
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    // 8 MB do not fit into 4.
    assert_eq!(register(&world, &key, "dev-1", &json!("giant"))["status"], "failed");
    assert_eq!(statistics(&world, "p", "1")["errors"], json!({ "memory": 1 }));
}

#[test]
fn a_trial_ends_by_itself_when_too_much_of_it_fails() {
    let world = World::new();
    push(&world, "p", "good", component("released-0-1-0")).json();
    activate(&world, "p", &json!({ "version": "good" })).json();
    push(&world, "p", "bad", component("hostile-policy")).json();
    let trial = activate(&world, "p", &json!({ "version": "bad", "canaryPercent": 30, "maxErrorPercent": 20 })).json();
    assert_eq!((&trial["canary"]["percent"], &trial["active"]), (&json!(30), &json!("good")));
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    let status = |id: &str| register(&world, &key, id, &json!("panic"))["status"].as_str().unwrap().to_owned();
    let failed: Vec<String> =
        (0..60).map(|number| format!("dev-{number}")).filter(|id| status(id) == "failed").collect();
    // The fifth failure ended it: nobody after that met the version that fails.
    assert_eq!(failed.len(), 5, "{failed:?}");
    let policy = world.dps_request("GET", "/allocationPolicies/p").send().json();
    assert_eq!(policy.get("canary"), None);
    assert_eq!((&policy["returned"]["version"], &policy["returned"]["errors"]), (&json!("bad"), &json!(5)));
    assert_eq!(statistics(&world, "p", "bad")["errors"], json!({ "trap": 5 }));
    assert_eq!(status(&failed[0]), "assigned");
}

#[test]
fn a_configuration_is_held_against_the_schema_of_the_policy() {
    let world = World::new();
    deploy(&world, "p");
    let put = |definition: &Value, if_match: Option<&str>| {
        let body = json!({
            "registrationId": "d", "attestation": { "type": "symmetricKey" }, "allocationPolicy": "custom",
            "customAllocationDefinition": definition,
        });
        let request = world.dps_request("PUT", "/enrollments/d").json(&body);
        match if_match {
            Some(tag) => request.header("If-Match", tag).send(),
            None => request.send(),
        }
    };
    let mut definition = by_policy("nave:policy/p");
    definition["configuration"] = json!({ "region": "west" });
    let message = put(&definition, None).dps_error(400_004, "ArgumentInvalid");
    assert!(message.contains("'south'") && message.contains("/region"), "{message}");
    definition["configuration"] = json!({ "region": "south" });
    let stored = put(&definition, None).json();
    assert_eq!(stored["customAllocationDefinition"]["configuration"], json!({ "region": "south" }));
    // An SDK that does not know the member does not send it back; null removes it.
    let kept = put(&by_policy("nave:policy/p"), Some("*")).json();
    assert_eq!(kept["customAllocationDefinition"]["configuration"], json!({ "region": "south" }));
    definition["configuration"] = Value::Null;
    let removed = put(&definition, Some("*")).json();
    assert_eq!(removed["customAllocationDefinition"].get("configuration"), None);
    for (url, reason) in [("nave:policy/nobody", "No allocation policy"), ("https://example.net/hook", "has none")] {
        let mut definition = by_policy(url);
        definition["configuration"] = json!({});
        let answer = put(&definition, Some("*"));
        assert!(answer.body.contains(reason), "{answer:?}");
        assert!(answer.status >= 400);
    }
    for url in ["nave:policy/", "nave:other/p", "http://127.0.0.1/", "http://example.net/", "nonsense"] {
        put(&by_policy(url), Some("*")).dps_error(400_004, "ArgumentInvalid");
    }
}

#[test]
fn uploads_are_verified() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let key = TrustedKey::parse("release", &STANDARD.encode(pair.public_key().as_ref())).unwrap();
    let world = World::trusting(vec![key]);
    let bytes = component("hostile-policy");
    let hash = digest::digest(&digest::SHA256, &bytes);
    let hexadecimal: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let sign = |version: &str| {
        let name = AllocationPolicyName::parse("p").unwrap();
        let version = AllocationPolicyVersion::parse(version).unwrap();
        STANDARD.encode(pair.sign(statement(&name, &version, &hexadecimal).as_bytes()))
    };
    let upload = || world.dps_request("PUT", "/allocationPolicies/p/versions/1").bytes(bytes.clone());
    assert!(upload().send().dps_error(400_004, "ArgumentInvalid").contains("not signed"));
    let replayed = upload().header("x-nave-signature", &sign("0")).send();
    assert!(replayed.dps_error(400_004, "ArgumentInvalid").contains("not one of a key"));
    upload().header("x-nave-signature", "AAAA").send().dps_error(400_004, "ArgumentInvalid");
    let damaged = format!("sha-256=:{}:", STANDARD.encode([0; 32]));
    let damaged = upload().header("x-nave-signature", &sign("1")).header("Content-Digest", &damaged).send();
    assert!(damaged.dps_error(400_004, "ArgumentInvalid").contains("damaged"));
    let right = format!("sha-256=:{}:", STANDARD.encode(hash));
    let stored = upload().header("x-nave-signature", &sign("1")).header("Content-Digest", &right).send().json();
    assert_eq!(stored["versions"][0]["signedBy"], "release");
    assert_eq!(stored["versions"][0]["digest"], format!("sha256:{hexadecimal}"));
    let endless = vec![0; 49 << 20];
    push(&world, "p", "2", endless).dps_error(413_001, "MessageTooLarge");
}

#[test]
fn a_web_hook_is_asked_as_the_cloud_service_asks() {
    let world = World::new();
    let url = "https://fn.example.net/api/allocate?code=c2VjcmV0";
    let key = enroll(&world, "g", &json!({ "webhookUrl": url, "apiVersion": "2019-03-31" }));
    let ok = |body: Value| Ok(HookAnswer { status: 200, body: body.to_string().into_bytes() });
    let answer = |answer| world.hooks.answers.lock().unwrap().push_back(answer);
    answer(ok(
        json!({ "iotHubHostname": "HUB2.nave.test", "initialTwin": { "tags": { "x": 1 } }, "payload": { "y": 2 } }),
    ));
    let state = register(&world, &key, "dev-1", &json!({ "z": 3 }));
    assert_eq!((&state["assignedHub"], &state["payload"]), (&json!(OTHER_HUB), &json!({ "y": 2 })));
    let asked = world.hooks.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.url, url);
    let document: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        document["deviceRuntimeContext"],
        json!({ "registrationId": "dev-1", "symmetricKey": {}, "payload": { "z": 3 } })
    );
    assert_eq!(document["linkedHubs"], json!([HUB, OTHER_HUB]));
    assert_eq!(document["enrollmentGroup"]["attestation"], json!({ "type": "symmetricKey" }));
    assert!(document["enrollmentGroup"]["etag"].as_str().unwrap().starts_with('"'));
    // The next time it is told where the device is.
    answer(ok(json!({ "iotHubHostName": HUB })));
    register(&world, &key, "dev-1", &Value::Null);
    let document: Value = serde_json::from_str(&world.hooks.asked.lock().unwrap()[1].body).unwrap();
    let context = json!({
        "registrationId": "dev-1", "currentIotHubHostName": OTHER_HUB, "currentDeviceId": "dev-1", "symmetricKey": {},
    });
    assert_eq!(document["deviceRuntimeContext"], context);
}

#[test]
fn each_failure_of_a_web_hook_has_its_code() {
    let world = World::new();
    let key =
        enroll(&world, "g", &json!({ "webhookUrl": "https://fn.example.net/x?code=1", "apiVersion": "2019-03-31" }));
    let status = |status: u16, body: &str| Ok(HookAnswer { status, body: body.as_bytes().to_vec() });
    let unreachable = || Err(HookError::Unreachable("connection refused".to_owned()));
    for (number, (answers, code, message)) in [
        (vec![status(400, "no suitable hub")], 400_207, "status code: 400"),
        (vec![status(401, "")], 400_209, "status code: 401"),
        (vec![status(503, ""), status(503, "")], 400_207, "status code: 503"),
        (vec![status(200, "<html>")], 400_207, "not valid"),
        (vec![status(200, "{}")], 400_208, "did not name"),
        (vec![status(200, r#"{"iotHubHostName":"elsewhere.example.net"}"#)], 400_207, "not valid"),
        (vec![Err(HookError::TimedOut)], 400_207, "in time"),
        (vec![Err(HookError::TooLarge)], 400_207, "not valid"),
        (vec![unreachable(), unreachable()], 400_207, "cannot be reached"),
    ]
    .into_iter()
    .enumerate()
    {
        world.hooks.answers.lock().unwrap().extend(answers);
        let state = register(&world, &key, &format!("dev-{number}"), &Value::Null);
        assert_eq!((&state["status"], &state["errorCode"]), (&json!("failed"), &json!(code)), "{state}");
        assert!(state["errorMessage"].as_str().unwrap().contains(message), "{state}");
        assert!(world.hooks.answers.lock().unwrap().is_empty());
    }
    // What passes is tried again.
    world.hooks.answers.lock().unwrap().extend([
        unreachable(),
        Ok(HookAnswer { status: 200, body: format!("{{\"iotHubHostName\":\"{HUB}\"}}").into_bytes() }),
    ]);
    assert_eq!(register(&world, &key, "dev-late", &Value::Null)["status"], "assigned");
}

#[test]
fn a_rollback_after_a_trial_that_ended_by_itself_leaves_the_active_version() {
    let world = World::new();
    push(&world, "p", "older", component("released-0-1-0")).json();
    activate(&world, "p", &json!({ "version": "older" })).json();
    push(&world, "p", "good", component("released-0-1-0")).json();
    activate(&world, "p", &json!({ "version": "good" })).json();
    push(&world, "p", "bad", component("hostile-policy")).json();
    activate(&world, "p", &json!({ "version": "bad", "canaryPercent": 50, "maxErrorPercent": 20 })).json();
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    for number in 0..60 {
        register(&world, &key, &format!("dev-{number}"), &json!("panic"));
    }
    let rollback = || world.dps_request("POST", "/allocationPolicies/p/rollback").send().json();
    let shown = world.dps_request("GET", "/allocationPolicies/p").send().json();
    assert_eq!(shown["returned"]["version"], "bad", "{shown}");
    // Whoever meant the trial finds it taken back, and nothing else.
    let shown = rollback();
    assert_eq!((&shown["active"], shown.get("returned")), (&json!("good"), None));
    assert_eq!(rollback()["active"], "older");
}

#[test]
fn what_an_enrollment_uses_is_deleted_by_force_only() {
    let world = World::new();
    deploy(&world, "p");
    push(&world, "p", "2", component("released-0-1-0")).json();
    push(&world, "p", "3", component("released-0-1-0")).json();
    enroll(&world, "fleet", &by_policy("nave:policy/P"));
    enroll(&world, "pinned", &by_policy("nave:policy/p@2"));
    enroll(&world, "elsewhere", &by_policy("nave:policy/other"));
    let delete = |path: &str| world.dps_request("DELETE", &format!("/allocationPolicies/{path}")).send();
    let message = delete("p").dps_error(409_000, "GenericConflict");
    assert!(message.contains("'fleet'") && message.contains("'pinned'") && !message.contains("elsewhere"), "{message}");
    let message = delete("p/versions/2").dps_error(409_000, "GenericConflict");
    assert!(message.contains("'pinned'") && !message.contains("'fleet'"), "{message}");
    assert_eq!(delete("p/versions/3").status, 204, "nobody names it");
    delete("p?force=perhaps").dps_error(400_004, "ArgumentInvalid");
    assert_eq!(delete("p/versions/2?force=true").status, 204);
    delete("p/versions/1?force=true").dps_error(409_000, "GenericConflict");
    assert_eq!(delete("p?force=true").status, 204);
}

#[test]
fn a_version_that_is_pushed_again_after_its_deletion_begins_to_count_anew() {
    let world = World::new();
    deploy(&world, "p");
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    register(&world, &key, "dev-1", &json!(""));
    push(&world, "p", "2", component("released-0-1-0")).json();
    activate(&world, "p", &json!({ "version": "2" })).json();
    assert_eq!(statistics(&world, "p", "1")["assigned"], 1);
    assert_eq!(world.dps_request("DELETE", "/allocationPolicies/p/versions/1").send().status, 204);
    push(&world, "p", "1", component("released-0-1-0")).json();
    assert_eq!(statistics(&world, "p", "1")["decisions"], 0);
}

#[test]
fn a_key_that_is_not_trusted_any_more_activates_nothing() {
    let pair = || {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let key = TrustedKey::parse("release", &STANDARD.encode(pair.public_key().as_ref())).unwrap();
        (pair, key)
    };
    let ((old_pair, old_key), (new_pair, new_key)) = (pair(), pair());
    let bytes = component("hostile-policy");
    let hash = digest::digest(&digest::SHA256, &bytes);
    let hexadecimal: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = |world: &World, version: &str, pair: &Ed25519KeyPair| {
        let name = AllocationPolicyName::parse("p").unwrap();
        let statement = statement(&name, &AllocationPolicyVersion::parse(version).unwrap(), &hexadecimal);
        let signature = STANDARD.encode(pair.sign(statement.as_bytes()));
        let upload = world.dps_request("PUT", &format!("/allocationPolicies/p/versions/{version}"));
        upload.bytes(bytes.clone()).header("x-nave-signature", &signature).send().json()
    };
    let world = World::trusting(vec![old_key]);
    signed(&world, "1", &old_pair);
    signed(&world, "2", &old_pair);
    activate(&world, "p", &json!({ "version": "1" })).json();
    activate(&world, "p", &json!({ "version": "2" })).json();
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    let pinned = enroll(&world, "pinned", &by_policy("nave:policy/p@1"));
    assert_eq!(register(&world, &key, "dev-1", &json!(""))["status"], "assigned");
    // Another key, under the same name.
    let world = World::after_trusting(&world, vec![new_key]);
    let message = activate(&world, "p", &json!({ "version": "1" })).dps_error(400_004, "ArgumentInvalid");
    assert!(message.contains("not one of a key that this service trusts"), "{message}");
    world.dps_request("POST", "/allocationPolicies/p/rollback").send().dps_error(400_004, "ArgumentInvalid");
    assert_eq!(register(&world, &key, "dev-1", &json!(""))["status"], "failed", "what decides is not trusted either");
    assert_eq!(register(&world, &pinned, "dev-2", &json!(""))["status"], "failed");
    // The same bytes signed anew are good again.
    signed(&world, "1", &new_pair);
    let shown = activate(&world, "p", &json!({ "version": "1" })).json();
    assert_eq!((&shown["active"], &shown["versions"][0]["signedBy"]), (&json!("1"), &json!("release")));
    world.simulation.run(world.env.sleep(Duration::from_secs(60))).unwrap();
    assert_eq!(register(&world, &key, "dev-1", &json!(""))["status"], "assigned");
}

#[test]
fn a_component_that_is_pushed_while_its_last_user_is_deleted_is_whole() {
    for tenths in (0..60).step_by(4) {
        let world = World::new();
        push(&world, "old", "1", component("released-0-1-0")).json();
        let push =
            world.dps_request("PUT", "/allocationPolicies/new/versions/1").bytes(component("released-0-1-0")).answer();
        let delete = async {
            world.env.sleep(Duration::from_micros(tenths * 100)).await;
            world.dps_request("DELETE", "/allocationPolicies/old").answer().await
        };
        let (pushed, deleted) = world.simulation.run(futures_util::future::join(push, delete)).unwrap();
        assert_eq!(deleted.status, 204);
        // Refused, if the deletion came between its pieces and its record; never stored without its component.
        if pushed.status == 200 {
            activate(&World::after(&world), "new", &json!({ "version": "1" })).json();
        }
    }
}

#[test]
fn a_web_hook_that_is_not_allowed_any_more_is_not_asked() {
    let world = World::with_loopback_hooks();
    let key = enroll(&world, "g", &by_policy("http://127.0.0.1:7071/api?code=c2VjcmV0"));
    let answer = HookAnswer { status: 200, body: json!({ "iotHubHostName": HUB }).to_string().into_bytes() };
    world.hooks.answers.lock().unwrap().push_back(Ok(answer));
    assert_eq!(register(&world, &key, "dev-1", &Value::Null)["status"], "assigned");
    let world = World::after(&world);
    let state = register(&world, &key, "dev-1", &Value::Null);
    assert_eq!((&state["status"], &state["errorCode"]), (&json!("failed"), &json!(400_207)), "{state}");
    assert!(world.hooks.asked.lock().unwrap().is_empty());
}

#[test]
fn where_a_component_is_from_is_shown() {
    let world = World::new();
    let upload = |version: &str, source: &str| {
        let upload = world.dps_request("PUT", &format!("/allocationPolicies/p/versions/{version}"));
        upload.bytes(component("released-0-1-0")).header("x-nave-source", source).send()
    };
    let source = "oci://registry.example/policies/by-site@sha256:0000";
    assert_eq!(upload("1", source).json()["versions"][0]["source"], source);
    for wrong in ["two words", "", &"x".repeat(513)] {
        upload("2", wrong).dps_error(400_004, "ArgumentInvalid");
    }
}

#[test]
fn requests_are_recorded_on_demand_within_bounds_and_without_secrets() {
    let world = World::new();
    deploy(&world, "p");
    let key = enroll(&world, "g", &by_policy("nave:policy/p"));
    let recording =
        |method: &str, body: Value| world.dps_request(method, "/allocationPolicies/p/recording").json(&body).send();
    recording("GET", Value::Null).dps_error(404_000, "GenericNotFound");
    register(&world, &key, "dev-0", &json!("before"));
    for wrong in [json!({ "count": 0, "seconds": 1 }), json!({ "count": 1, "seconds": 3_601 }), json!({ "count": 1 })] {
        recording("POST", wrong).dps_error(400_004, "ArgumentInvalid");
    }
    recording("POST", json!({ "count": 3, "seconds": 60 })).json();
    register(&world, &key, "dev-1", &json!({ "site": 7, "wifiPassword": "c2VjcmV0" }));
    register(&world, &key, "dev-2", &json!("refuse"));
    assert_eq!(recording("GET", Value::Null).json()["isRunning"], json!(true));
    register(&world, &key, "dev-3", &json!("panic"));
    register(&world, &key, "dev-4", &json!("after"));
    let answer = recording("GET", Value::Null);
    for secret in ["c2VjcmV0", "primaryKey\":\"", "SharedAccess"] {
        assert!(!answer.body.contains(secret), "{answer:?}");
    }
    let shown = answer.json();
    assert_eq!((&shown["recorded"], &shown["isRunning"]), (&json!(3), &json!(false)), "{shown}");
    let cases = shown["cases"].as_array().unwrap();
    assert_eq!(cases[0]["request"]["payload"], json!({ "site": 7, "wifiPassword": "***" }));
    assert_eq!(cases[0]["request"]["hubs"][0]["name"], HUB);
    assert_eq!(cases[0]["expect"]["assign"]["hub"], HUB);
    assert_eq!(cases[1]["expect"], json!({ "refuse": "no room for you" }));
    assert_eq!(cases[2]["expect"], json!({ "error": "trap" }));
    assert_eq!(cases[2]["name"], "3: dev-3 by p@1");
    // Forgotten after a while.
    world.simulation.run(world.env.sleep(Duration::from_secs(700))).unwrap();
    recording("GET", Value::Null).dps_error(404_000, "GenericNotFound");
    recording("POST", json!({ "count": 1, "seconds": 60 })).json();
    assert_eq!(recording("DELETE", Value::Null).status, 204);
    recording("DELETE", Value::Null).dps_error(404_000, "GenericNotFound");
    let anonymous = world.dps_request("POST", "/allocationPolicies/p/recording").without("Authorization").send();
    anonymous.dps_error(401_002, "IotHubUnauthorizedAccess");
}
