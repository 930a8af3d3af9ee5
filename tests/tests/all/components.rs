//! Each function is a component that imports nothing and exports its interface, no more and no less.
//!
//! "Imports nothing" is the promise that everything else rests on: a function without imports has no clock, no randomness,
//! no network and no storage, so it decides the same on every host, can be replayed, and can leak nothing.

use anyhow::{Context as _, Result, bail};
use nave_tests::paths;
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldId};

/// The world of a component, read from its bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Resolve, WorldId)> {
    match wit_component::decode(bytes)? {
        DecodedWasm::Component(resolve, world) => Ok((resolve, world)),
        DecodedWasm::WitPackage(..) => bail!("it is an encoded WIT package, not a component"),
    }
}

/// The full names of all imports.
pub(crate) fn imports(resolve: &Resolve, world: WorldId) -> Vec<String> {
    resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect()
}

/// The full names of all exports.
pub(crate) fn exports(resolve: &Resolve, world: WorldId) -> Vec<String> {
    resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key)).collect()
}

#[test]
fn there_are_the_five_functions_at_least() {
    let functions = paths::functions().unwrap();
    for name in ["allocation", "methods", "provisioning", "routing", "twin"] {
        assert!(functions.iter().any(|function| function == name), "functions/{name} is missing: {functions:?}");
    }
}

/// The functions that take decisions; the gateway is what a deployment composes with them.
fn deciding() -> Vec<String> {
    let mut functions = paths::functions().unwrap();
    functions.retain(|name| name != "gateway");
    functions
}

#[test]
fn functions_import_nothing() {
    for name in deciding() {
        let bytes = paths::component(&name).unwrap();
        let (resolve, world) = decode(&bytes).with_context(|| name.clone()).unwrap();
        assert_eq!(imports(&resolve, world), [""; 0], "functions/{name} must not import anything");
    }
}

/// `wit/NAME` declares one interface of that role, `nave:NAME/…`, and a world that exports it. The component's exports must be
/// exactly those of a world of its package, with compatible types.
#[test]
fn functions_export_exactly_a_world_of_their_package() {
    for name in deciding() {
        conforms(&name).with_context(|| format!("functions/{name}")).unwrap();
    }
}

fn conforms(name: &str) -> Result<()> {
    let bytes = paths::component(name)?;
    let (have, have_world) = decode(&bytes)?;
    let have_exports = exports(&have, have_world);

    let mut wanted = Resolve::default();
    let (package, _) = wanted.push_dir(paths::root().join("wit").join(name))?;
    let mut described = Vec::new();
    for &world in wanted.packages[package].worlds.values() {
        let wanted_exports = exports(&wanted, world);
        if wanted_exports == have_exports {
            return wit_component::targets(&wanted, world, &bytes)
                .with_context(|| format!("types differ from world {}", wanted.worlds[world].name));
        }
        described.push(format!("{} exports {wanted_exports:?}", wanted.worlds[world].name));
    }
    bail!("it exports {have_exports:?}, but {}", described.join(", and "))
}

/// The checks above would be worth nothing if they saw no imports at all.
#[test]
fn imports_are_seen_where_there_are_some() {
    let bytes = paths::component("fixtures/gateway").unwrap();
    let (resolve, world) = decode(&bytes).unwrap();
    let mut imports = imports(&resolve, world);
    imports.sort();
    assert_eq!(imports, ["custom-policy", "nave:allocation/policy@0.1.0", "nave:twin/twin@0.1.0"]);
}

/// And so would the check of exports, if a component of another world passed.
#[test]
fn a_component_of_another_world_does_not_conform() {
    let mut wit = Resolve::default();
    let (package, _) = wit.push_dir(paths::root().join("wit/twin")).unwrap();
    let world = wit.select_world(&[package], None).unwrap();
    assert!(wit_component::targets(&wit, world, &paths::component("twin").unwrap()).is_ok());
    assert!(wit_component::targets(&wit, world, &paths::component("allocation").unwrap()).is_err());
}
