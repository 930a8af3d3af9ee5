//! From `functions/*` to `target/components/*.wasm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{note, run, step};
use crate::wasm_toolchain::WasmToolchain;
use crate::workspace::Workspace;

/// The folder of the component that is not a function: with it in one call the functions would get the features that the
/// hub wants of their dependencies, and other bytes.
const GATEWAY: &str = "gateway";

/// A crate that becomes a component.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    /// The folder's name, which is the component's name.
    name: String,
    package: String,
}

/// Builds the components and puts those whose bytes changed where the engine's build script finds them: `functions/NAME` as
/// `NAME.wasm`, and the tests' own `tests/fixtures/NAME` as `fixtures/NAME.wasm`.
///
/// # Errors
/// A crate does not compile, or what it compiles to is not a component that exports something. The other components are
/// there all the same.
pub(crate) fn build(workspace: &Workspace, toolchain: &WasmToolchain) -> Result<()> {
    step(&format!("components ({})", toolchain.describe()), || {
        let mut functions = guests(&workspace.root.join("functions"))?;
        functions.retain(|guest| guest.name != GATEWAY);
        let fixtures = guests(&workspace.root.join("tests/fixtures"))?;
        let compiled = run(&mut compile(workspace, toolchain, functions.iter().chain(&fixtures)));

        let mut broken = Vec::new();
        let mut changed = 0;
        let fixtures_dir = workspace.components.join("fixtures");
        for (guests, dir) in [(&functions, &workspace.components), (&fixtures, &fixtures_dir)] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            remove_others(dir, guests)?;
            for guest in guests {
                match install_guest(&toolchain.output_dir(workspace), guest, dir) {
                    Ok(written) => changed += usize::from(written),
                    Err(error) => {
                        eprintln!("error: {}: {error:#}", guest.name);
                        broken.push(guest.name.as_str());
                    }
                }
            }
        }
        compiled?;
        if !broken.is_empty() {
            bail!("no component for {}; the reasons are above", broken.join(", "));
        }
        note(&format!("{changed} changed, in {}", workspace.relative(&workspace.components)));
        Ok(())
    })
}

/// Builds the gateway for Spin: the whole hub, which takes as long as all the others together. It is a call of its own, and
/// nothing that the program needs.
///
/// # Errors
/// As [`build`].
pub(crate) fn gateway(workspace: &Workspace, toolchain: &WasmToolchain) -> Result<()> {
    step("the gateway for Spin", || {
        let mut functions = guests(&workspace.root.join("functions"))?;
        functions.retain(|guest| guest.name == GATEWAY);
        for guest in &functions {
            run(toolchain.cargo_rustc(workspace).args(["--package", &guest.package]))?;
            install_guest(&toolchain.output_dir(workspace), guest, &workspace.components)?;
        }
        Ok(())
    })
}

/// All guests in one call, always the same ones: cargo unites the features of what it builds together, so any other selection
/// would compile the bindings generator and its dependencies once more. `--keep-going`: a broken guest does not keep the
/// others from those who work on something else.
fn compile<'a>(workspace: &Workspace, toolchain: &WasmToolchain, guests: impl Iterator<Item = &'a Guest>) -> Command {
    let mut command = toolchain.cargo_build(workspace);
    command.args(["--lib", "--keep-going"]);
    for guest in guests {
        command.args(["--package", &guest.package]);
    }
    command
}

/// Takes over what the compiler made of a guest; whether it changed.
fn install_guest(from: &Path, guest: &Guest, dir: &Path) -> Result<bool> {
    let file = from.join(format!("{}.wasm", guest.package.replace('-', "_")));
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    check_component(&bytes)
        .with_context(|| format!("the package {} did not become a component that exports its world", guest.package))?;
    let changed = install(&bytes, &dir.join(format!("{}.wasm", guest.name)))?;
    if changed {
        note(&format!("{}.wasm: {} KiB", guest.name, bytes.len().div_ceil(1024)));
    }
    Ok(changed)
}

/// The crates one level below `dir`, in alphabetical order.
fn guests(dir: &Path) -> Result<Vec<Guest>> {
    let mut found = Vec::new();
    if !dir.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let manifest = path.join("Cargo.toml");
        let (true, Some(name)) = (manifest.exists(), path.file_name().and_then(|name| name.to_str())) else { continue };
        let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        let package = package_name(&text).with_context(|| format!("{} has no package name", manifest.display()))?;
        found.push(Guest { name: name.to_owned(), package: package.to_owned() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The value of `name` in `[package]`.
fn package_name(manifest: &str) -> Option<&str> {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[package]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| {
            line.strip_prefix("name")?.trim_start().strip_prefix('=')?.trim().strip_prefix('"')?.split('"').next()
        })
}

/// Refuses bytes that are not a component with at least one export.
///
/// The layout (the component model's binary format): `\0asm`, a version that tells components from modules, then
/// sections of one byte of id, a LEB128 length and that many bytes; the section id of exports is 11.
fn check_component(bytes: &[u8]) -> Result<()> {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const EXPORTS: u8 = 11;
    let Some(mut rest) = bytes.strip_prefix(COMPONENT) else {
        bail!("the linker did not make a component but something else ({} bytes)", bytes.len());
    };
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = leb128(after).context("it ends in the middle of a section")?;
        if id == EXPORTS {
            return Ok(());
        }
        rest = after.get(length..).context("it ends in the middle of a section")?;
    }
    bail!("it exports nothing: its lib.rs has no `wit_bindgen::generate!` with an `export!` that is compiled for Wasm");
}

/// An unsigned number and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (index, &byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Writes the file unless it has these bytes already; whether it wrote. A reader never sees half a file.
fn install(bytes: &[u8], file: &Path) -> Result<bool> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let half = file.with_extension(format!("wasm.{}", std::process::id()));
    fs::write(&half, bytes).with_context(|| format!("cannot write {}", half.display()))?;
    fs::rename(&half, file).with_context(|| format!("cannot replace {}", file.display()))?;
    Ok(true)
}

/// Removes the components of crates that are no more: a deleted function must not live on in somebody's build.
fn remove_others(dir: &Path, guests: &[Guest]) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path: PathBuf = entry?.path();
        let is_wasm = path.extension().is_some_and(|ext| ext == "wasm");
        if is_wasm
            && path.file_stem().is_none_or(|stem| *stem != *GATEWAY && guests.iter().all(|guest| *stem != *guest.name))
        {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_come_from_the_package_table() {
        let manifest =
            "# name = \"no\"\n[package]\nname = \"nave-function-twin\"\nversion = \"1\"\n[lib]\nname = \"no\"\n";
        assert_eq!(package_name(manifest), Some("nave-function-twin"));
        assert_eq!(package_name("[lib]\nname = \"no\"\n"), None);
    }

    #[test]
    fn a_module_is_not_a_component() {
        let error = check_component(b"\0asm\x01\0\0\0").unwrap_err().to_string();
        assert!(error.contains("not make a component"), "{error}");
        assert!(check_component(b"").is_err());
    }

    #[test]
    fn a_component_without_exports_is_refused() {
        // One custom section (id 0) of three bytes.
        let error = check_component(b"\0asm\x0d\0\x01\0\x00\x03\x01a!").unwrap_err().to_string();
        assert!(error.contains("exports nothing"), "{error}");
        assert!(check_component(b"\0asm\x0d\0\x01\0\x00\x03\x01a").unwrap_err().to_string().contains("middle"));
        check_component(b"\0asm\x0d\0\x01\0\x00\x03\x01a!\x0b\x00").unwrap();
    }

    #[test]
    fn section_lengths_may_take_several_bytes() {
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 7]), Some((624_485, &[7][..])));
        assert_eq!(leb128(&[0x80]), None);
        assert_eq!(leb128(&[0xff; 9]), None);
    }

    #[test]
    fn a_file_is_written_only_when_it_changes() {
        let dir = std::env::temp_dir().join(format!("nave-xtask-{}", std::process::id()));
        fs::create_dir_all(dir.join("old")).unwrap();
        let file = dir.join("twin.wasm");
        assert!(install(b"one", &file).unwrap());
        assert!(!install(b"one", &file).unwrap());
        assert!(install(b"two", &file).unwrap());
        fs::write(dir.join("gone.wasm"), b"x").unwrap();
        remove_others(&dir, &[Guest { name: "twin".to_owned(), package: "p".to_owned() }]).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(!dir.join("gone.wasm").exists());
        assert!(dir.join("old").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
