//! A gateway composes with the functions as Spin composes a component with its dependencies.
//!
//! Spin's rule (its documentation, "Component dependencies"): each import of the gateway that a dependency is declared for is
//! satisfied by an export of that dependency, of the same name unless the declaration names another (`export = …`). Each
//! dependency is an instance of its own, and one level deep: what a dependency imports stays an import of the whole. This is
//! why functions import nothing, and it must stay possible for as long as the same functions shall serve both hosts.

use anyhow::{Context as _, Result};
use nave_tests::paths;
use wac_graph::types::{Package, SubtypeChecker, WorldId};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use crate::components;

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
    let mut graph = CompositionGraph::new();
    let (gateway_world, gateway) = instantiate(&mut graph, "gateway", paths::component("fixtures/gateway")?)?;
    for dependency in dependencies {
        let import = *graph.types()[gateway_world]
            .imports
            .get(dependency.import)
            .with_context(|| format!("the gateway does not import {}", dependency.import))?;
        let (world, instance) = instantiate(&mut graph, dependency.import, paths::component(dependency.component)?)?;
        let name = dependency.export.unwrap_or(dependency.import);
        let export = *graph.types()[world]
            .exports
            .get(name)
            .with_context(|| format!("{} does not export {name}", dependency.component))?;
        SubtypeChecker::new(&mut Default::default())
            .is_subtype(export, graph.types(), import, graph.types())
            .with_context(|| format!("{name} does not fit the import {}", dependency.import))?;
        let argument = graph.alias_instance_export(instance, name)?;
        graph.set_instantiation_argument(gateway, dependency.import, argument)?;
    }
    let exports: Vec<String> = graph.types()[gateway_world].exports.keys().cloned().collect();
    for name in exports {
        let export = graph.alias_instance_export(gateway, &name)?;
        graph.export(export, name)?;
    }
    Ok(graph.encode(EncodeOptions { validate: true, ..EncodeOptions::default() })?)
}

fn instantiate(graph: &mut CompositionGraph, name: &str, bytes: Vec<u8>) -> Result<(WorldId, NodeId)> {
    // The name only tells packages apart: the same component under two imports is two instances.
    let package = Package::from_bytes(&format!("dependency:{name}"), None, bytes, graph.types_mut())?;
    let world = package.ty();
    let id = graph.register_package(package)?;
    Ok((world, graph.instantiate(id)))
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
