//! The rule by which Spin composes (`spin/compose.rs`), on a small component: what fits, what does not, and that it runs.

use anyhow::Result;
use nave_tests::paths;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use crate::components;
use crate::spin::compose::{self, Part};

const POLICY: &str = "nave:allocation/policy@0.1.0";
const TWIN: &str = "nave:twin/twin@0.1.0";

/// A dependency as a manifest declares it: the import that it is for, the component, and the export if named differently.
struct Dependency {
    import: &'static str,
    component: &'static str,
    export: Option<&'static str>,
}

const DEPENDENCIES: [Dependency; 3] = [
    Dependency { import: TWIN, component: "twin", export: None },
    Dependency { import: POLICY, component: "allocation", export: None },
    // Any component with this export would do; the built-in one stands for the operator's.
    Dependency { import: "custom-policy", component: "allocation", export: Some(POLICY) },
];

fn compose(dependencies: &[Dependency]) -> Result<Vec<u8>> {
    let parts = dependencies.iter().map(|dependency| {
        let bytes = paths::component(dependency.component)?;
        Ok(Part { import: dependency.import, bytes, export: dependency.export })
    });
    compose::compose(paths::component("fixtures/gateway")?, parts.collect::<Result<_>>()?)
}

#[test]
fn the_composed_gateway_imports_nothing_and_keeps_its_exports() {
    let (resolve, world) = components::decode(&compose(&DEPENDENCIES).unwrap()).unwrap();
    assert_eq!(components::imports(&resolve, world), [""; 0]);
    let mut exports = components::exports(&resolve, world);
    exports.sort();
    assert_eq!(exports, ["new-twin", "place", "place-by-custom-policy"]);
}

#[test]
fn the_composed_gateway_runs_and_reaches_every_function() {
    type Answer = (Result<String, String>,);
    type Place<'a> = (&'a str, &'a [&'a str]);

    let engine = Engine::default();
    let component = Component::new(&engine, compose(&DEPENDENCIES).unwrap()).unwrap();
    let mut store = Store::new(&engine, ());
    // An empty linker: whatever the component still needed would fail here.
    let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
    let place = instance.get_typed_func::<Place<'_>, Answer>(&mut store, "place").unwrap();
    let custom = instance.get_typed_func::<Place<'_>, Answer>(&mut store, "place-by-custom-policy").unwrap();
    let new_twin = instance.get_typed_func::<(&str,), Answer>(&mut store, "new-twin").unwrap();

    let hubs = ["hub1.nave.test", "hub2.nave.test", "hub3.nave.test"];
    let (by_name,) = place.call(&mut store, ("hashed", &hubs)).unwrap();
    assert!(hubs.contains(&by_name.clone().unwrap().as_str()), "{by_name:?}");
    let (by_plain_name,) = custom.call(&mut store, ("hashed", &hubs)).unwrap();
    assert_eq!(by_plain_name, by_name, "the same policy under another name decides the same");
    let (refused,) = place.call(&mut store, ("no-such-policy", &hubs)).unwrap();
    assert!(refused.is_err(), "{refused:?}");

    let (desired,) = new_twin.call(&mut store, (r#"{"properties":{"desired":{"fan":3}}}"#,)).unwrap();
    assert_eq!(desired.unwrap(), r#"{"fan":3}"#);
    let (refused,) = new_twin.call(&mut store, ("not json",)).unwrap();
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn an_import_without_dependency_stays() {
    let (resolve, world) = components::decode(&compose(&DEPENDENCIES[..2]).unwrap()).unwrap();
    let imports = components::imports(&resolve, world);
    assert!(imports.iter().any(|import| import == "custom-policy"), "{imports:?}");
    assert!(!imports.iter().any(|import| import == TWIN), "{imports:?}");
}

#[test]
fn a_dependency_that_does_not_fit_is_refused() {
    let missing = Dependency { import: "custom-policy", component: "twin", export: Some(POLICY) };
    assert!(format!("{:#}", compose(&[missing]).unwrap_err()).contains("does not export"));
    let wrong_type = Dependency { import: "custom-policy", component: "twin", export: Some(TWIN) };
    assert!(format!("{:#}", compose(&[wrong_type]).unwrap_err()).contains("does not fit"));
    let unknown = Dependency { import: "other-policy", component: "allocation", export: Some(POLICY) };
    assert!(format!("{:#}", compose(&[unknown]).unwrap_err()).contains("does not import"));
}
