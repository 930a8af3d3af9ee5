//! `nave policy check`.

use serde_json::{Value, json};

use crate::nave::{EXAMPLES, built, code, example, json, policy, stderr, stdout};

fn members(report: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"))).collect()
}

#[test]
fn the_examples_are_fit_for_a_hub() {
    for (lang, name) in EXAMPLES {
        let checked = policy("check", &example(name), &["--output", "json"]);
        let report = json(&checked);
        assert_eq!(code(&checked), 0, "{lang}: {report}");
        assert_eq!((&report["ok"], &report["contract"]), (&json!(true), &json!("0.1.0")), "{lang}");
        assert_eq!(report["imports"], json!([]), "{lang}");
        let world = if lang == "rust" { "configurable-policy" } else { "allocation-policy" };
        assert_eq!(report["world"], world);
        assert_eq!(report["configurationSchema"].is_object(), lang == "rust");
        let numbers =
            members(&report, &["bytes", "memoryBytes", "callMicros", "instantiationMicros", "compilationMicros"]);
        assert!(numbers[0] > 0 && numbers[1] > 0, "{lang}: {report}");
        assert!(numbers[1] <= report["limits"]["memoryBytes"].as_u64().unwrap(), "{lang}: {report}");
        assert!(report["outcome"].is_object(), "{lang}");
    }
}

#[test]
fn people_get_a_table() {
    let checked = policy("check", &example("sticky"), &[]);
    let text = stdout(&checked);
    for expected in
        ["sha256", "world allocation-policy", "imports        nothing", "limit 50.0 ms", "ok: a hub would take it"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_it_imports_is_listed_and_that_nothing_is_granted() {
    let checked = policy("check", &built("fixtures/curious-policy"), &["--output", "json"]);
    let report = json(&checked);
    let access = |name: &str| {
        let imports = report["imports"].as_array().unwrap();
        let import = imports.iter().find(|import| import["name"].as_str().unwrap().starts_with(name));
        import.unwrap_or_else(|| panic!("{name}: {report}"))["access"].clone()
    };
    assert_eq!(access("wasi:clocks/wall-clock"), "virtual");
    assert_eq!(access("wasi:sockets/tcp-create-socket"), "refused");
    let text = stdout(&policy("check", &built("fixtures/curious-policy"), &[]));
    assert!(text.contains("a hub grants none of them") && text.contains("refused   wasi:"), "{text}");
}

#[test]
fn what_is_no_policy_is_refused_with_the_reason() {
    let module = nave_tests::paths::policies().join("sticky/build/policy.module.wasm");
    for (file, expected) in [(module, "core module"), (built("twin"), "nave:allocation/policy")] {
        let checked = policy("check", &file, &[]);
        assert_eq!(code(&checked), 1);
        assert!(stdout(&checked).contains("PROBLEM: ") && stdout(&checked).contains(expected), "{}", stdout(&checked));
        assert_eq!(json(&policy("check", &file, &["-o", "json"]))["ok"], false);
    }
    assert_eq!(code(&policy("check", std::path::Path::new("no/such/file.wasm"), &[])), 2);
}

#[test]
fn what_a_hub_would_not_survive_or_accept_is_a_problem() {
    let with = |order: &str| {
        let request = json!({ "payload": order }).to_string();
        // So little memory that it is used up long before the time is.
        let limits = if order == "loop" { ["--deadline", "20"] } else { ["--memory", "8"] };
        let args = ["-o", "json", "--request", &request, limits[0], limits[1]];
        let checked = policy("check", &built("fixtures/hostile-policy"), &args);
        (code(&checked), json(&checked))
    };
    for (order, error) in [("loop", "deadline"), ("memory", "memory"), ("stack", "stack"), ("panic", "trap")] {
        let (code, report) = with(order);
        assert_eq!((code, &report["outcome"]["error"]), (1, &json!(error)), "{order}: {report}");
    }
    for order in ["unknown-hub", "big-twin", "bad-json", "fallback-unknown", "other"] {
        let (code, report) = with(order);
        assert_eq!((code, &report["ok"]), (1, &json!(false)), "{order}");
        assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{order}: {report}");
    }
    for order in ["refuse", "later", "fallback"] {
        assert_eq!(with(order).0, 0, "{order}");
    }
}

#[test]
fn a_limit_beyond_a_hubs_maximum_is_refused() {
    for limit in [["--memory", "100000"], ["--deadline", "0"]] {
        let checked = policy("check", &example("sticky"), &limit);
        assert_eq!(code(&checked), 2, "{}", stderr(&checked));
    }
}
