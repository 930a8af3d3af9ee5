//! Allocation policies in a running hub: deployed by command line, swapped under load, and contained when they misbehave.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use nave_auth::{SharedKey, derive_device_key};
use nave_tests::paths;
use serde_json::{Value, json};

use super::device::{Device, registration};
use super::run;
use super::server::{Ready, Site, binary};
use super::service::Service;

/// Of every enrollment group of these tests.
const GROUP_KEY: [u8; 32] = [11; 32];

/// A hub with its command line.
pub(super) struct Deployment {
    pub(super) site: Site,
}

impl Deployment {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// One whose configuration of the provisioning service goes on so.
    pub(super) fn with(more: &str) -> Self {
        Self { site: Site::with(more) }
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(words).arg("--data-dir").arg(self.site.data()).args(["--output", "json"]);
        command.env_remove("NAVE_CONNECTION_STRING");
        command
    }

    pub(super) fn try_nave(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command that must succeed prints.
    pub(super) fn nave(&self, words: &[&str]) -> Value {
        let output = self.try_nave(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Pushes a fixture.
    pub(super) fn push(&self, fixture: &str, name: &str, version: &str) {
        let file = component(fixture);
        self.nave(&["policy", "push", file.to_str().unwrap(), "--name", name, "--version", version]);
    }

    pub(super) fn statistics(&self, name: &str, version: &str) -> Value {
        let policy = self.nave(&["policy", "show", name]);
        let versions = policy["versions"].as_array().unwrap();
        versions.iter().find(|known| known["version"] == version).unwrap()["statistics"].clone()
    }
}

pub(super) fn component(fixture: &str) -> PathBuf {
    paths::components().join(format!("fixtures/{fixture}.wasm"))
}

/// A group whose devices are placed by `url`, or by the default policy.
pub(super) async fn enroll(ready: &Ready, group: &str, url: Option<&str>) {
    let key = STANDARD.encode(GROUP_KEY);
    let mut body = json!({
        "enrollmentGroupId": group,
        "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": key, "secondaryKey": key } },
    });
    if let Some(url) = url {
        body["allocationPolicy"] = json!("custom");
        body["customAllocationDefinition"] = json!({ "webhookUrl": url, "apiVersion": "2021-10-01" });
    }
    let target = format!("/enrollmentGroups/{group}?api-version=2021-10-01");
    Service::provisioning(ready).json("PUT", &target, &body.to_string()).await;
}

/// Registers a device of the only group of that key, with an order to the fixture.
pub(super) async fn register(ready: &Ready, id: &str, order: &str) -> Value {
    let key = derive_device_key(&SharedKey::from_base64(&STANDARD.encode(GROUP_KEY)).unwrap(), id);
    registration(ready, id, &key, &format!("\"{order}\"")).await
}

#[test]
fn a_policy_is_deployed_by_command_line_and_survives_a_kill() {
    let deployment = Deployment::new();
    let (nave, ready) = deployment.site.start();
    deployment.push("hostile-policy", "p", "1");
    assert_eq!(deployment.nave(&["policy", "activate", "p", "1"])["active"], "1");
    let configured = [
        "enrollment",
        "create",
        "g",
        "--group",
        "--webhook",
        "nave:policy/p",
        "--configuration",
        "{\"region\":\"south\"}",
        "--primary-key",
        &STANDARD.encode(GROUP_KEY),
        "--secondary-key",
        &STANDARD.encode(GROUP_KEY),
    ];
    deployment.nave(&configured);
    let state = run(register(&ready, "dev-1", ""));
    assert_eq!(state["payload"]["config"], json!({ "region": "south" }), "{state}");
    // Acknowledged, so it is there after a kill.
    deployment.push("released-0-1-0", "p", "2");
    deployment.nave(&["policy", "activate", "p", "2"]);
    nave.kill();
    let (nave, ready) = deployment.site.start();
    let state = run(register(&ready, "dev-1", "refuse"));
    assert_eq!((&state["status"], &state["payload"]), (&json!("assigned"), &json!({ "region": "south" })), "{state}");
    assert_eq!(deployment.nave(&["policy", "rollback", "p"])["active"], "1");
    assert_eq!(run(register(&ready, "dev-1", "refuse"))["errorMessage"], "no room for you");
    // What was pushed comes back as it was.
    let copy = deployment.site.root().join("copy.wasm");
    deployment.nave(&["policy", "download", "p", "2", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(component("released-0-1-0")).unwrap());
    let wrong = deployment.try_nave(&["policy", "push", Path::new("Cargo.toml").to_str().unwrap(), "--name", "q"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no WebAssembly component"), "{wrong:?}");
    assert_eq!(deployment.try_nave(&["policy", "show", "q"]).status.code(), Some(3));
    let used = deployment.try_nave(&["policy", "delete", "p"]);
    assert!(String::from_utf8_lossy(&used.stderr).contains("enrollment group 'g'"), "{used:?}");
    deployment.nave(&["policy", "delete", "p", "--force"]);
    assert_eq!(deployment.nave(&["policy", "list"]), json!([]));
    nave.stop();
}

#[test]
fn a_policy_that_spins_costs_its_registrations_and_nothing_else() {
    let deployment = Deployment::new();
    let (nave, ready) = deployment.site.start();
    deployment.push("hostile-policy", "p", "1");
    deployment.nave(&["policy", "activate", "p", "1"]);
    // Long enough for what does not spin, on a machine that has other work.
    deployment.nave(&["policy", "set", "p", "--limits", "{\"deadlineMs\":500}"]);
    run(async {
        enroll(&ready, "spinning", Some("nave:policy/p")).await;
        let key = SharedKey::from_base64(&STANDARD.encode([3; 32])).unwrap();
        Service::hub(&ready).create_device("steady", &key).await;
        let mut steady = Device::connect(&ready, "steady", &key).await.unwrap();
        let (spinning, acknowledged) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0u32)));
        let telemetry = {
            let (spinning, acknowledged) = (Rc::clone(&spinning), Rc::clone(&acknowledged));
            tokio::task::spawn_local(async move {
                while spinning.get() {
                    steady.telemetry(b"{\"n\":1}").await.unwrap();
                    acknowledged.set(acknowledged.get() + 1);
                }
            })
        };
        let orders = ["loop", "panic", "memory", "stack", "giant", "utf8", "outside", "loop", "loop", "loop"];
        let ids: Vec<String> = (0..orders.len()).map(|number| format!("dev-{number}")).collect();
        let states = join_all(ids.iter().zip(orders).map(|(id, order)| register(&ready, id, order))).await;
        let during = acknowledged.get();
        spinning.set(false);
        telemetry.await.unwrap();
        for (state, order) in states.iter().zip(orders) {
            assert_eq!(
                (&state["status"], &state["errorCode"]),
                (&json!("failed"), &json!(400_207)),
                "{order}: {state}"
            );
        }
        assert!(states[0]["errorMessage"].as_str().unwrap().contains("in time"), "{}", states[0]);
        // Four times the policy spun for its whole deadline, on the only thread that policies have.
        assert!(during > 40, "{during} messages were acknowledged meanwhile");
        assert_eq!(register(&ready, "dev-good", "").await["status"], "assigned");
    });
    let errors = &deployment.statistics("p", "1")["errors"];
    assert_eq!(errors["deadline"], 4, "{errors}");
    let log = deployment.site.log();
    assert!(log.contains("policy p@1: ended after its deadline of 500ms"), "{log}");
    assert!(log.contains("policy p@1: trapped"), "{log}");
    nave.stop();
}

#[test]
fn a_thousand_registrations_at_once_find_their_turn_at_a_slow_policy() {
    const DEVICES: usize = 1_000;
    let deployment = Deployment::new();
    let (nave, ready) = deployment.site.start();
    deployment.push("hostile-policy", "p", "1");
    deployment.nave(&["policy", "activate", "p", "1"]);
    deployment.nave(&["policy", "set", "p", "--limits", "{\"queue\":16,\"deadlineMs\":1000}"]);
    run(async {
        enroll(&ready, "slow", Some("nave:policy/p")).await;
        let ids: Vec<String> = (0..DEVICES).map(|number| format!("dev-{number}")).collect();
        let states = join_all(ids.iter().map(|id| register(&ready, id, "slow"))).await;
        let assigned = states.iter().filter(|state| state["status"] == "assigned").count();
        assert_eq!(assigned, DEVICES, "{:?}", states.iter().find(|state| state["status"] != "assigned"));
    });
    let statistics = deployment.statistics("p", "1");
    assert_eq!(statistics["assigned"], DEVICES, "{statistics}");
    assert!(statistics["overflowed"].as_u64().unwrap() > 0, "{statistics}");
    nave.stop();
}

#[test]
fn versions_are_swapped_under_load_and_no_registration_fails() {
    let deployment = Deployment::new();
    let (nave, ready) = deployment.site.start();
    deployment.push("hostile-policy", "p", "1");
    deployment.nave(&["policy", "activate", "p", "1"]);
    deployment.nave(&["policy", "set", "p", "--limits", "{\"deadlineMs\":1000}"]);
    deployment.push("released-0-1-0", "p", "2");
    run(async {
        enroll(&ready, "swapped", Some("nave:policy/p")).await;
        let swapping = Rc::new(Cell::new(true));
        let devices = (0..4).map(|number| {
            let (swapping, ready) = (Rc::clone(&swapping), ready.clone());
            tokio::task::spawn_local(async move {
                let mut registrations = 0;
                while swapping.get() || registrations == 0 {
                    let state = register(&ready, &format!("dev-{number}"), "").await;
                    assert_eq!(state["status"], "assigned", "{state}");
                    registrations += 1;
                }
                registrations
            })
        });
        let devices: Vec<_> = devices.collect();
        let (data, root) = (deployment.site.data().to_owned(), deployment.site.root().to_owned());
        let swaps = tokio::task::spawn_blocking(move || {
            for version in ["2", "1", "2", "1", "2", "1"] {
                let mut command = Command::new(binary());
                command.args(["policy", "activate", "p", version]).arg("--data-dir").arg(&data).current_dir(&root);
                assert!(command.output().unwrap().status.success());
            }
        });
        swaps.await.unwrap();
        swapping.set(false);
        let registrations: u32 = join_all(devices).await.into_iter().map(Result::unwrap).sum();
        assert!(registrations >= 4);
    });
    for version in ["1", "2"] {
        let statistics = deployment.statistics("p", version);
        assert!(statistics["assigned"].as_u64().unwrap() > 0, "{version}: {statistics}");
        assert_eq!(statistics["failed"], 0, "{version}: {statistics}");
    }
    nave.stop();
}
