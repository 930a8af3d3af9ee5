//! `nave policy simulate`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::nave::{built, code, example, json, policy, stderr, stdout};

/// Enough for shares that can be told from chance, few enough for a second.
const DEVICES: &str = "2000";

/// Three hubs, which the built-in component chooses among by weight.
const HASHED: &str = "
[[hub]]
name = 'hub1.example.org'
weight = 2

[[hub]]
name = 'hub2.example.org'

[[hub]]
name = 'hub3.example.org'

[[devices]]
request = { policy = 'hashed' }
";

fn simulate(component: &Path, hubs: &str, more: &[&str]) -> std::process::Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hubs.toml");
    fs::write(&file, hubs).unwrap();
    let devices = if more.contains(&"--devices") { &[][..] } else { &["--devices", DEVICES][..] };
    policy("simulate", component, &[&["--hubs", file.to_str().unwrap()], devices, more].concat())
}

fn devices(report: &Value) -> Vec<u64> {
    report["hubs"].as_array().unwrap().iter().map(|hub| hub["devices"].as_u64().unwrap()).collect()
}

#[test]
fn rendezvous_hashing_follows_the_weights_and_moves_only_what_it_must() {
    let simulated = simulate(&built("allocation"), HASHED, &["-o", "json"]);
    assert_eq!(code(&simulated), 0, "{}", stderr(&simulated));
    let report = json(&simulated);
    let devices = devices(&report);
    assert_eq!(devices.iter().sum::<u64>(), 2000);
    // Five standard deviations of 2000 devices at a half are 112; the ids are the same every time.
    assert!(devices[0].abs_diff(1000) < 112 && devices[1].abs_diff(500) < 112, "{devices:?}");
    let again = report["again"].as_array().unwrap();
    let counts = |round: &Value| {
        [&round["moved"], &round["movedNeedlessly"], &round["withoutHubNow"]].map(|n| n.as_u64().unwrap())
    };
    assert_eq!(counts(&again[0]), [0, 0, 0], "{}", again[0]);
    assert_eq!(counts(&again[1]), [devices[2], 0, 0], "{}", again[1]);
    let [moved, needlessly, _] = counts(&again[2]);
    // The new hub is like the first: weight 2 of 6.
    assert!(moved.abs_diff(2000 / 3) < 112 && needlessly == 0, "{}", again[2]);
    assert!(report["decisionMicros"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn kinds_of_devices_use_policy_and_refusals_are_counted() {
    let hubs = "
[[hub]]
name = 'europe1.example.org'
[[hub]]
name = 'america1.example.org'
[[devices]]
share = 2
request = { payload = { region = 'america' } }
[[devices]]
request = { payload = { region = 'asia' } }
[[devices]]
";
    let report = json(&simulate(&example("by-region"), hubs, &["-o", "json", "--devices", "400"]));
    assert_eq!(report["builtIn"]["hashed"], 100);
    assert_eq!(report["refused"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>(), 100);
    let devices = devices(&report);
    assert!(devices.iter().sum::<u64>() == 300 && devices[1] > 200, "{devices:?}");
}

#[test]
fn people_get_a_histogram_and_failures_an_exit_code() {
    let simulated =
        simulate(&built("allocation"), HASHED, &["--remove", "hub1.example.org", "--add", "hub4.example.org"]);
    let text = stdout(&simulated);
    for expected in [
        "2000 devices register",
        "████",
        "(by weight 50.0 %)",
        "time per decision",
        "without hub1.example.org",
        "with hub4.example.org",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let broken = HASHED.replace("policy = 'hashed'", "payload = 'panic'");
    let simulated = simulate(&built("fixtures/hostile-policy"), &broken, &[]);
    assert_eq!(code(&simulated), 1);
    assert!(stdout(&simulated).contains("FAILED: 2000 (trapped"), "{}", stdout(&simulated));
    assert_eq!(code(&simulate(&built("allocation"), HASHED, &["--remove", "hub9.example.org"])), 2);
}
