//! The promise of `wit/allocation`: what was built against a released version runs on this host, with the same meaning.

use std::fs;

use nave_tests::paths;
use wit_parser::Resolve;

use crate::nave::{built, code, json, policy};

/// Each released version, with the folder of its fixture.
const RELEASED: [(&str, &str); 1] = [("0.1.0", "released-0-1-0")];

#[test]
fn released_policies_decide_as_they_did() {
    for (version, fixture) in RELEASED {
        let component = built(&format!("fixtures/{fixture}"));
        let report = json(&policy("check", &component, &["-o", "json"]));
        assert_eq!((report["ok"].as_bool(), report["contract"].as_str()), (Some(true), Some(version)));
        let cases = paths::root().join("tests/fixtures").join(fixture).join("cases.json");
        let tested = policy("test", &component, &["--cases", cases.to_str().unwrap(), "-o", "json"]);
        assert_eq!(code(&tested), 0, "{version}: {}", json(&tested));
    }
}

/// Documentation may change, types may not.
#[test]
fn the_interface_still_has_the_types_of_its_release() {
    let mut now = Resolve::default();
    let (package, _) = now.push_dir(paths::root().join("wit/allocation")).unwrap();
    for (version, fixture) in RELEASED {
        let name = &now.packages[package].name;
        assert_eq!(name.version.as_ref().unwrap().to_string(), version, "a new version needs a fixture of its own");
        let world = now.select_world(&[package], Some("configurable-policy")).unwrap();
        let released = fs::read(built(&format!("fixtures/{fixture}"))).unwrap();
        wit_component::targets(&now, world, &released).unwrap();
    }
}
