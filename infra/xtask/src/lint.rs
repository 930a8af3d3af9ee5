//! Formatting, clippy, and cargo-deny.

use anyhow::{Result, bail};

use crate::components;
use crate::process::{cargo, note, step, succeeds};
use crate::spin;
use crate::wasm_toolchain::{self, Choice};
use crate::workspace::Workspace;

/// The release of cargo-deny that deny.toml is written for.
const CARGO_DENY: &str = "0.20.2";

/// What `lint` was asked.
#[derive(Debug, Default)]
pub(crate) struct Options {
    install_deny: bool,
    advisories: bool,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for arg in args {
            match arg.as_str() {
                "--install-deny" => options.install_deny = true,
                "--advisories" => options.advisories = true,
                other => bail!("`lint` takes no `{other}`; see `cargo xtask help lint`"),
            }
        }
        Ok(options)
    }
}

/// Everything that finds faults without running the code.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    format(workspace)?;
    // The engine's build script embeds the components, so clippy needs them too.
    let toolchain = wasm_toolchain::obtain(workspace, Choice::Any)?;
    components::build(workspace, &toolchain)?;
    clippy(workspace)?;
    deny(workspace, options)
}

/// `cargo fmt --check`.
pub(crate) fn format(workspace: &Workspace) -> Result<()> {
    step("formatting (repair: cargo fmt)", || {
        run_cargo(workspace, &["fmt", "--all", "--check"])?;
        crate::process::run(&mut spin::format(workspace))
    })
}

/// Clippy with warnings as errors, over everything. In the release profile, because the tests are: then macros and build
/// scripts are compiled once for both.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    step("clippy", || {
        run_cargo(workspace, &["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    })
}

fn deny(workspace: &Workspace, options: &Options) -> Result<()> {
    let there = || succeeds(cargo(workspace).args(["deny", "--version"]));
    if options.install_deny && !there() {
        step("cargo-deny from source (5 to 10 minutes)", || {
            run_cargo(workspace, &["install", "--locked", "cargo-deny", "--version", CARGO_DENY])
        })?;
    }
    if !there() {
        note("cargo-deny is not installed: licences and dependencies not checked (cargo xtask lint --install-deny)");
        return Ok(());
    }
    step("licences and dependencies (deny.toml)", || {
        let mut command = cargo(workspace);
        command.args(["deny", "--workspace", "check", "bans", "licenses", "sources"]);
        if options.advisories {
            command.arg("advisories");
        }
        crate::process::run(&mut command)
    })
}

fn run_cargo(workspace: &Workspace, args: &[&str]) -> Result<()> {
    crate::process::run(cargo(workspace).args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_or_refused() {
        let options = Options::parse(&["--advisories".to_owned()]).unwrap();
        assert!(options.advisories && !options.install_deny);
        assert!(Options::parse(&["--fix".to_owned()]).is_err());
    }
}
