//! The deployment on Spin: what `spin.toml` composes fits together, and is what `nave` has in it.

pub(crate) mod compose;
mod manifest;
mod requests;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use nave_tests::paths;
use wit_parser::{Resolve, WorldItem};

use crate::components;
use compose::{Part, compose};
use manifest::Manifest;

/// The package of the SDK whose WIT says what Spin gives to components.
const SDK: &str = "spin-sdk";

/// Worlds of the SDK's WIT that a component may import, beside those of its own packages: the ones that the SDK is made of.
const WORLD_PREFIX: &str = "spin-sdk-";

/// What a component of the HTTP trigger may import: the world of WASI that it is linked against.
const HTTP_SERVICE: &str = "service";

fn manifest() -> Manifest {
    Manifest::read(&paths::root().join("spin.toml")).unwrap()
}

fn composed() -> Vec<u8> {
    let manifest = manifest();
    let parts = manifest.dependencies.iter().map(|dependency| Part {
        import: &dependency.import,
        bytes: fs::read(&dependency.path).unwrap(),
        export: dependency.export.as_deref(),
    });
    compose(fs::read(&manifest.source).unwrap(), parts.collect()).unwrap()
}

#[test]
fn the_gateway_composes_and_imports_nothing_that_spin_does_not_have() {
    let (resolve, world) = components::decode(&composed()).unwrap();
    let allowed = allowed().unwrap();
    let imports = components::imports(&resolve, world);
    let foreign: Vec<_> = imports.iter().filter(|import| !allowed.contains(*import)).collect();
    assert!(foreign.is_empty(), "{foreign:?} are not among {allowed:?}");
    assert!(imports.iter().any(|import| import.starts_with("wasi:keyvalue/atomics@")), "{imports:?}");
    let exports = components::exports(&resolve, world);
    assert!(exports.iter().any(|export| export.starts_with("wasi:http/handler@")), "{exports:?}");
}

/// Without its dependencies the gateway imports each of them: it takes no decision itself.
#[test]
fn every_function_is_a_dependency() {
    let manifest = manifest();
    let (resolve, world) = components::decode(&fs::read(&manifest.source).unwrap()).unwrap();
    let allowed = allowed().unwrap();
    let imports: BTreeSet<String> =
        components::imports(&resolve, world).into_iter().filter(|import| !allowed.contains(import)).collect();
    assert_eq!(imports, manifest.dependencies.iter().map(|dependency| dependency.import.clone()).collect());
    for function in ["allocation", "methods", "provisioning", "routing", "twin"] {
        assert!(
            imports.iter().any(|import| import.starts_with(&format!("nave:{function}/"))),
            "{function}: {imports:?}"
        );
    }
}

/// One set of files, two hosts.
#[test]
fn the_dependencies_are_the_files_that_the_program_has_in_it() {
    let binary = fs::read(paths::binary()).with_context(|| "run `cargo xtask build`").unwrap();
    for dependency in manifest().dependencies {
        let bytes = fs::read(&dependency.path).unwrap();
        let is_in_it = contains(&binary, &bytes);
        assert!(is_in_it, "{} is not in {}, byte by byte", dependency.path.display(), paths::binary().display());
    }
}

/// The variables that the gateway reads are those that it is given.
#[test]
fn every_variable_has_a_place_in_the_manifest() {
    let variables = manifest().variables;
    let given: Vec<&str> = variables.keys().map(String::as_str).collect();
    let mut read = nave_function_gateway::VARIABLES;
    read.sort_unstable();
    assert_eq!(given, read);
    let settings = nave_function_gateway::Settings::read(|name| variables.get(name).cloned());
    settings.expect("the manifest's defaults can be used");
}

/// Whether `part` is somewhere in `whole`.
fn contains(whole: &[u8], part: &[u8]) -> bool {
    // Components begin alike for some bytes; their ends do not matter until then.
    let Some(head) = part.get(..16) else { return false };
    let mut from = 0;
    while let Some(at) = whole.get(from..).and_then(|rest| rest.windows(head.len()).position(|window| window == head)) {
        if whole.get(from + at..).is_some_and(|rest| rest.starts_with(part)) {
            return true;
        }
        from += at + 1;
    }
    false
}

/// The interfaces that Spin provides, read from the WIT in the source of the SDK that the gateway is built with.
fn allowed() -> Result<BTreeSet<String>> {
    let mut resolve = Resolve { all_features: true, ..Resolve::default() };
    resolve.push_dir(sdk()?.join("wit")).context("the WIT of the SDK")?;
    let mut names = BTreeSet::new();
    for (_, world) in &resolve.worlds {
        let is_wasi_service = world.name == HTTP_SERVICE;
        if !world.name.starts_with(WORLD_PREFIX) && !is_wasi_service {
            continue;
        }
        for (key, item) in &world.imports {
            if matches!(item, WorldItem::Interface { .. }) {
                names.insert(resolve.name_world_key(key));
            }
        }
    }
    anyhow::ensure!(names.len() > 10, "the SDK's WIT names only {names:?}");
    Ok(names)
}

/// Where cargo has the source of the SDK.
fn sdk() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--filter-platform", "wasm32-unknown-unknown"])
        .current_dir(paths::root())
        .output()?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let package =
        packages.iter().find(|package| package["name"] == SDK).context("the gateway is built without the SDK")?;
    let manifest = PathBuf::from(package["manifest_path"].as_str().context("manifest_path")?);
    Ok(manifest.parent().context("a folder")?.to_owned())
}
