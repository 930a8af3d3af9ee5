//! What authors of policies see of a running hub: what their policy writes, and what it was asked.

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::policies::{Deployment, component, enroll, register};
use super::{in_time, run};

#[test]
fn what_a_policy_writes_is_in_the_log_while_somebody_debugs_it() {
    let deployment = Deployment::new();
    let (nave, ready) = deployment.site.start();
    deployment.push("curious-policy", "p", "1.2");
    deployment.nave(&["policy", "activate", "p", "1.2"]);
    run(enroll(&ready, "curious", Some("nave:policy/p")));
    let said = |id: &str| {
        let log = deployment.site.log();
        let said = log.lines().filter(|line| line.contains("allocation policy says") && line.contains(id));
        said.map(str::to_owned).collect::<Vec<_>>()
    };
    run(register(&ready, "dev-before", ""));
    assert_eq!(said("dev-before"), Vec::<String>::new());
    deployment.nave(&["policy", "set", "p", "--debug", "on"]);
    run(register(&ready, "dev-debugged", ""));
    let lines = said("dev-debugged");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["policy=p", "version=1.2", "registration=\"dev-debugged\"", "hello from the policy"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    // A long line is cut, and what is beyond the buffer is said to be missing.
    run(register(&ready, "dev-chatter", "chatter"));
    let lines = said("dev-chatter");
    assert!(lines.iter().all(|line| line.len() < 1_000), "{lines:?}");
    assert!(deployment.site.log().contains("... and more, which is not kept"));
    deployment.nave(&["policy", "set", "p", "--debug", "off"]);
    run(register(&ready, "dev-after", ""));
    assert_eq!(said("dev-after"), Vec::<String>::new());
    nave.stop();
}

#[test]
fn recorded_cases_are_real_and_can_be_replayed() {
    let deployment = Deployment::new();
    let (nave, ready) = deployment.site.start();
    deployment.push("hostile-policy", "p", "1");
    deployment.nave(&["policy", "activate", "p", "1"]);
    deployment.nave(&["policy", "set", "p", "--limits", "{\"deadlineMs\":1000}"]);
    let folder = deployment.site.root().join("cases");
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let mut recording = deployment.command(&["policy", "test", "--record", folder, "--name", "p", "--count", "4"]);
    let mut recording = recording.args(["--for", "10m"]).stderr(Stdio::piped()).spawn().unwrap();
    run(async {
        enroll(&ready, "recorded", Some("nave:policy/p")).await;
        // It records from a moment that this test does not see, so devices go on until it has what it wants.
        let wanted = async {
            for round in 0.. {
                let ids = ["", "refuse", "fallback"].map(|order| (format!("dev-{round}-{order}"), order));
                join_all(ids.iter().map(|(id, order)| register(&ready, id, order))).await;
                if let Some(status) = recording.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            unreachable!()
        };
        assert!(in_time("a recording", wanted).await.success());
    });
    let file = std::path::Path::new(folder).join("recorded-p-1.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let cases = document["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4, "{text}");
    for case in cases {
        assert_eq!(case["request"]["facts"]["symmetric-key"], json!({ "kind": "group" }), "{case}");
        assert_eq!(case["request"]["hubs"][0]["name"], "hub1.nave.test", "{case}");
    }
    for secret in ["SharedAccess", "primaryKey", "sig="] {
        assert!(!text.contains(secret), "{text}");
    }
    // The same version answers the same, another one does not: that is what the cases are for.
    let test = |fixture: &str, more: &[&str]| {
        let component = component(fixture);
        let words = ["policy", "test", component.to_str().unwrap(), "--cases", folder, "--deadline", "5000"];
        let output = deployment.try_nave(&[words.as_slice(), more].concat());
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, results) = test("hostile-policy", &[]);
    assert_eq!((code, &results["passed"]), (Some(0), &json!(4)), "{results}");
    let (code, results) = test("released-0-1-0", &[]);
    assert_eq!((code, &results["passed"]), (Some(1), &json!(0)), "{results}");
    // Nobody registers: there is nothing to record, and what is there is not overwritten.
    let nothing = folder.to_owned() + "/nothing.json";
    let idle = ["policy", "test", "--record", &nothing, "--name", "p", "--for", "1s"];
    assert_eq!(deployment.try_nave(&idle).status.code(), Some(1));
    let taken = ["policy", "test", "--record", file.to_str().unwrap(), "--name", "p", "--for", "1s"];
    assert_eq!(deployment.try_nave(&taken).status.code(), Some(2));
    nave.stop();
}
