//! `build`, `serve` and `bench`.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::components;
use crate::process::{cargo, note, program, run, step};
use crate::wasm_toolchain::{self, Choice};
use crate::workspace::Workspace;

/// Sets up and leaves the optimised binary in the target directory.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let toolchain = step("WebAssembly toolchain", || wasm_toolchain::obtain(workspace, Choice::Any))?;
    components::build(workspace, &toolchain)?;
    binary(workspace)
}

/// The binary alone; the components must be there.
pub(crate) fn binary(workspace: &Workspace) -> Result<()> {
    step("the binary (cargo build --release; the first time 5 to 10 minutes)", || {
        // The whole workspace, as `cargo xtask test` does: cargo unites the features of what it is asked for, and another
        // selection would compile many dependencies once more. Built is only what the binary needs.
        run(cargo(workspace).args(["build", "--release", "--workspace", "--exclude", "nave-bench", "--bin", "nave"]))?;
        note(&format!("binary: {}", workspace.relative(&workspace.binary())));
        Ok(())
    })
}

/// Builds, then becomes `nave serve`.
pub(crate) fn serve(workspace: &Workspace, args: &[String]) -> Result<()> {
    build(workspace)?;
    let mut command = program(workspace.binary(), workspace);
    // The person's own folder, not the root: relative paths among the arguments are theirs.
    command.current_dir(env::current_dir().context("the current folder is gone")?);
    command.arg("serve").args(args);
    if needs_data_dir(args, env::var_os("NAVE_DATA_DIR").is_some()) {
        command.arg("--data-dir").arg(workspace.root.join("data"));
    }
    become_program(command)
}

/// Builds the components, then runs the benchmarks.
pub(crate) fn bench(workspace: &Workspace, args: &[String]) -> Result<()> {
    let toolchain = step("WebAssembly toolchain", || wasm_toolchain::obtain(workspace, Choice::Any))?;
    components::build(workspace, &toolchain)?;
    step("benchmarks", || run(cargo(workspace).args(["bench", "--package", "nave-bench"]).args(args)))
}

/// Whether the hub would not know where its data go.
fn needs_data_dir(args: &[String], in_environment: bool) -> bool {
    let names_it = |arg: &String| {
        let flag = arg.split('=').next().unwrap_or(arg);
        ["--data-dir", "--config", "--help", "-h"].contains(&flag)
    };
    !in_environment && !args.iter().any(names_it)
}

/// Replaces this process, so that signals reach the hub and its exit code is this command's.
#[cfg(unix)]
fn become_program(mut command: Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", crate::process::line(&command)))
}

#[cfg(not(unix))]
fn become_program(mut command: Command) -> Result<()> {
    run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_given_only_when_nothing_else_names_one() {
        let needs = |args: &[&str]| needs_data_dir(&args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>(), false);
        assert!(needs(&[]));
        assert!(needs(&["--log", "debug"]));
        assert!(!needs(&["--data-dir", "d"]));
        assert!(!needs(&["--data-dir=d"]));
        assert!(!needs(&["--config", "nave.toml"]));
        assert!(!needs(&["--help"]));
        assert!(!needs_data_dir(&[], true));
    }
}
