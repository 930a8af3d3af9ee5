//! Where the tests find what they test.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of the built components: `NAVE_COMPONENTS`, else `target/components`, as for the engine's build script.
#[must_use]
pub fn components() -> PathBuf {
    root().join(env::var_os("NAVE_COMPONENTS").map_or_else(|| PathBuf::from("target/components"), PathBuf::from))
}

/// The bytes of a built component. `name` is the folder in `functions/`, or `fixtures/` and the folder in `tests/fixtures/`.
///
/// # Errors
/// It has not been built; the message says how to.
pub fn component(name: &str) -> Result<Vec<u8>> {
    let file = components().join(format!("{name}.wasm"));
    fs::read(&file).with_context(|| format!("{}: run `cargo xtask components`", file.display()))
}

/// The program under test: `NAVE_BIN`, else what `cargo xtask build` makes.
#[must_use]
pub fn binary() -> PathBuf {
    env::var_os("NAVE_BIN").map_or_else(|| target().join("release/nave"), PathBuf::from)
}

/// What `cargo xtask policies` made of the templates for policies.
#[must_use]
pub fn policies() -> PathBuf {
    target().join("policies")
}

/// Cargo's target directory.
fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

/// The names of all functions: the folders in `functions/` that hold a crate, in alphabetical order.
///
/// # Errors
/// The folder cannot be listed.
pub fn functions() -> Result<Vec<String>> {
    let dir = root().join("functions");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
