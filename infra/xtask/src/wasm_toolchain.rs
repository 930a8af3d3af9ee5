//! A compiler and a linker that make WebAssembly components, wherever they can be had.
//!
//! The target is `wasm32-unknown-unknown`: its standard library has no clock, no randomness and no environment, so a
//! component imports what its world names and nothing else. The linker is `wasm-component-ld`, which comes with Rust's
//! own distribution and turns the linked module into a component.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use crate::debian;
use crate::process::{cargo, note, output, program, succeeds, succeeds_within};
use crate::workspace::Workspace;

/// The target triple of the components.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// How long rustup may take to download the target (about 20 MB) before the next way is tried. A closed network may drop
/// packets instead of refusing them, and then nothing else would end the attempt.
const RUSTUP_LIMIT: Duration = Duration::from_secs(300);

/// Debian's current compiler (the packages for building web browsers are kept current in every release), the matching
/// standard library for build scripts, and its source for the WebAssembly target.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Which toolchain the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first that is there, else the first that can be installed.
    Any,
    /// The Rust target of the active toolchain.
    Rustup,
    /// Debian's compiler, with the standard library built from source.
    Debian,
}

/// A toolchain that is installed.
#[derive(Debug)]
pub(crate) struct WasmToolchain {
    linker: PathBuf,
    wasm_ld: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rustup,
    Debian,
}

/// Finds a toolchain, or installs one.
///
/// # Errors
/// No way works; the message says what to install.
pub(crate) fn obtain(workspace: &Workspace, choice: Choice) -> Result<WasmToolchain> {
    let (linker, wasm_ld) = find_linker(workspace)?;
    let kind = obtain_kind(workspace, choice)?;
    Ok(WasmToolchain { linker, wasm_ld, kind })
}

impl WasmToolchain {
    /// `cargo build` for components; the packages are still to be named.
    ///
    /// Components have a target directory of their own: another compiler in the native one would make cargo look at every
    /// fingerprint twice, and both builds would wait for each other's lock.
    pub(crate) fn cargo_build(&self, workspace: &Workspace) -> Command {
        self.cargo(workspace, "build")
    }

    /// `cargo rustc` for the component of one package, whose manifest does not say that it is one.
    pub(crate) fn cargo_rustc(&self, workspace: &Workspace) -> Command {
        let mut command = self.cargo(workspace, "rustc");
        command.args(["--lib", "--crate-type", "cdylib"]);
        command
    }

    fn cargo(&self, workspace: &Workspace, subcommand: &str) -> Command {
        let mut command = cargo(workspace);
        command.arg(subcommand).args(["--target", TARGET, "--profile", "component"]);
        command.env("CARGO_TARGET_DIR", self.target_dir(workspace));
        command.env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_RUSTFLAGS");
        if self.kind == Kind::Debian {
            command.args(["-Z", "build-std=std,panic_abort"]);
            command.env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
        }
        command.envs(self.variables(workspace));
        command
    }

    /// The variables that make a plain `cargo build --target wasm32-unknown-unknown` use this toolchain.
    pub(crate) fn variables(&self, workspace: &Workspace) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", self.linker.display().to_string()),
            ("CARGO_ENCODED_RUSTFLAGS", self.rustflags(workspace).join("\x1f")),
        ];
        if self.kind == Kind::Debian {
            variables.extend([
                ("RUSTC", DEBIAN_RUSTC.to_owned()),
                ("RUSTC_BOOTSTRAP", "1".to_owned()),
                ("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort".to_owned()),
            ]);
        }
        variables
    }

    /// Where cargo puts the linked components.
    pub(crate) fn output_dir(&self, workspace: &Workspace) -> PathBuf {
        self.target_dir(workspace).join(TARGET).join("component")
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Rustup => "the toolchain's own wasm32-unknown-unknown",
            Kind::Debian => "Debian's compiler, standard library built from source",
        }
    }

    fn target_dir(&self, workspace: &Workspace) -> PathBuf {
        // The two compilers each keep their own: otherwise each would invalidate the other's work.
        workspace.target.join(match self.kind {
            Kind::Rustup => "wasm",
            Kind::Debian => "wasm-debian",
        })
    }

    fn rustflags(&self, workspace: &Workspace) -> Vec<String> {
        let mut flags = vec!["-C".to_owned(), format!("link-arg=--wasm-ld-path={}", self.wasm_ld.display())];
        // Panic messages name source files: without this the bytes of a component would depend on who built it where.
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
        for (from, to) in [(Some(workspace.root.clone()), "nave"), (cargo_home, "cargo")] {
            if let Some(from) = from {
                flags.push(format!("--remap-path-prefix={}={to}", from.display()));
            }
        }
        flags
    }
}

fn obtain_kind(workspace: &Workspace, choice: Choice) -> Result<Kind> {
    let remembered = workspace.setup().join("wasm-toolchain");
    if choice != Choice::Debian && rustup_target_is_there(workspace) {
        return Ok(Kind::Rustup);
    }
    // Once rustup could not download, it is not asked again: the answer may take minutes.
    let settled = fs::read_to_string(&remembered).is_ok_and(|text| text.trim() == "debian");
    if choice != Choice::Rustup && (choice == Choice::Debian || settled) && debian_is_there() {
        return Ok(Kind::Debian);
    }
    if choice != Choice::Debian && succeeds(Command::new("rustup").arg("--version")) {
        note(&format!("installing the Rust target {TARGET} with rustup"));
        let mut add = program("rustup", workspace);
        add.args(["target", "add", TARGET]);
        if succeeds_within(&mut add, RUSTUP_LIMIT).context("cannot start rustup")? && rustup_target_is_there(workspace)
        {
            return Ok(Kind::Rustup);
        }
        note("rustup could not install it");
    }
    if choice != Choice::Rustup && debian::is_debian() {
        if !debian_is_there() {
            note("using Debian's compiler for the components instead");
            debian::install(workspace, DEBIAN_PACKAGES)?;
        }
        if debian_is_there() {
            fs::create_dir_all(workspace.setup())?;
            fs::write(&remembered, "debian\n")?;
            return Ok(Kind::Debian);
        }
    }
    bail!(
        "no compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian install the packages {}",
        DEBIAN_PACKAGES.join(" ")
    );
}

fn rustup_target_is_there(workspace: &Workspace) -> bool {
    let mut print = program("rustc", workspace);
    print.args(["--print", "target-libdir", "--target", TARGET]);
    let Some(dir) = output(&mut print) else { return false };
    fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("libstd-")))
    })
}

/// Whether Debian's compiler is there, new enough for this workspace, and has its library's source.
fn debian_is_there() -> bool {
    let mut version = Command::new(DEBIAN_RUSTC);
    version.arg("--version");
    let new_enough = output(&mut version)
        .and_then(|text| minor_version(&text))
        .zip(minor_version(concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"))))
        .is_some_and(|(have, need)| have >= need);
    new_enough && Path::new(DEBIAN_LIBRARY).exists()
}

/// `95` from `rustc 1.95.0 (…)`.
fn minor_version(text: &str) -> Option<u32> {
    text.strip_prefix("rustc 1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The component linker and the module linker of Rust's own distribution.
fn find_linker(workspace: &Workspace) -> Result<(PathBuf, PathBuf)> {
    let rustc = |args: &[&str]| {
        let mut command = program("rustc", workspace);
        command.args(args);
        output(&mut command).context("cannot run rustc; install Rust with rustup (https://rustup.rs)")
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    let version = rustc(&["-vV"])?;
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let bin = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin");
    let exe = env::consts::EXE_SUFFIX;
    let linker = bin.join(format!("wasm-component-ld{exe}"));
    let wasm_ld = bin.join("gcc-ld").join(format!("wasm-ld{exe}"));
    if !linker.exists() || !wasm_ld.exists() {
        bail!("this Rust has no wasm-component-ld in {}; install Rust with rustup (https://rustup.rs)", bin.display());
    }
    Ok((linker, wasm_ld))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(minor_version("rustc 1.95.0 (59807616e 2026-04-14)"), Some(95));
        assert_eq!(minor_version("rustc 1.100.0-nightly"), Some(100));
        assert_eq!(minor_version("rustc 1.95"), Some(95));
        assert_eq!(minor_version("gcc 12"), None);
    }
}
