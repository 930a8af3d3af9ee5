//! `nave policy test`.

use std::fs;
use std::path::Path;

use nave_tests::paths;
use serde_json::{Value, json};

use crate::nave::{EXAMPLES, built, code, example, json, policy, stderr, stdout};

/// Runs these cases.
fn test(component: &Path, cases: &Value, more: &[&str]) -> std::process::Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cases.json");
    fs::write(&file, json!({ "cases": cases }).to_string()).unwrap();
    policy("test", component, &[&["--cases", file.to_str().unwrap()], more].concat())
}

#[test]
fn the_cases_of_the_templates_pass() {
    for (lang, name) in EXAMPLES {
        let cases = paths::policies().join(name).join("cases");
        let tested = policy("test", &example(name), &["--cases", cases.to_str().unwrap(), "--output", "json"]);
        let report = json(&tested);
        assert_eq!(code(&tested), 0, "{lang}: {report}");
        assert_eq!(report["failed"], 0, "{lang}");
        assert_eq!(report["passed"].as_u64().unwrap(), report["cases"].as_array().unwrap().len() as u64);
        assert!(report["passed"].as_u64().unwrap() >= 4, "{lang}");
    }
}

#[test]
fn what_differs_is_shown_and_ends_with_exit_code_1() {
    let cases = json!([
        { "name": "right", "request": { "payload": "refuse" }, "expect": { "refuse": "no room for you" } },
        { "name": "wrong", "request": { "payload": "refuse" }, "expect": { "refuse": "come in" } },
        { "name": "other case", "request": { "payload": "later" }, "expect": { "refuse": "no" } },
    ]);
    let tested = test(&built("fixtures/hostile-policy"), &cases, &[]);
    assert_eq!(code(&tested), 1);
    let text = stdout(&tested);
    for expected in [
        "ok    right",
        "FAIL  wrong",
        "-   \"refuse\": \"come in\"",
        "+   \"refuse\": \"no room for you\"",
        "+   \"retryAfter\": 2",
        "1 passed, 2 failed",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let filtered = test(&built("fixtures/hostile-policy"), &cases, &["--filter", "right"]);
    assert_eq!(code(&filtered), 0, "{}", stderr(&filtered));
    assert_eq!(code(&test(&built("fixtures/hostile-policy"), &cases, &["--filter", "nothing"])), 2);
}

#[test]
fn failures_can_be_expected_and_what_a_hub_refuses_fails() {
    let cases = json!([
        { "name": "loops", "request": { "payload": "loop" }, "expect": { "error": "deadline" } },
        { "name": "traps", "request": { "payload": "panic" }, "expect": { "error": "trap" } },
    ]);
    assert_eq!(code(&test(&built("fixtures/hostile-policy"), &cases, &[])), 0);
    let cases = json!([{ "name": "nowhere", "request": { "payload": "unknown-hub" },
                         "expect": { "assign": { "hub": "nowhere.example.net" } } }]);
    let tested = test(&built("fixtures/hostile-policy"), &cases, &[]);
    assert_eq!(code(&tested), 1);
    assert!(stdout(&tested).contains("not among those of the request"), "{}", stdout(&tested));
}

#[test]
fn a_mistake_in_the_cases_is_not_a_failed_case() {
    let tested = test(&example("sticky"), &json!([{ "name": "n", "expect": { "asign": {} } }]), &[]);
    assert_eq!(code(&tested), 2);
    assert!(stderr(&tested).contains("case `n`"), "{}", stderr(&tested));
}
