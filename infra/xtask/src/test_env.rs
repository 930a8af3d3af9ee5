//! The official SDKs that the end-to-end tests use, each in a folder of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::debian;
use crate::process::{note, output, program, run, step, succeeds};
use crate::workspace::Workspace;

/// The oldest Python that the pinned packages support.
const PYTHON: (u32, u32) = (3, 10);
/// The oldest Node.js whose test runner has what the tests use.
const NODE_MAJOR: u32 = 20;

/// The Python packages of `tests/e2e/python/requirements.txt`, in a virtual environment.
pub(crate) fn python(workspace: &Workspace) -> Result<()> {
    let requirements = workspace.root.join("tests/e2e/python/requirements.txt");
    let version = output(Command::new("python3").arg("--version"))
        .with_context(|| format!("Python is missing: install Python {}.{} or newer", PYTHON.0, PYTHON.1))?;
    if numbers(&version).is_none_or(|have| have < PYTHON) {
        bail!("{version} is too old for the SDKs: install Python {}.{} or newer", PYTHON.0, PYTHON.1);
    }
    let wanted = format!("{version}\n{}", read(&requirements)?);
    let stamp = workspace.setup().join("python.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && workspace.python().exists() {
        return Ok(());
    }
    step("Python SDKs (tests/e2e/python/requirements.txt into a virtual environment)", || {
        let venv = workspace.setup().join("venv");
        fs::create_dir_all(workspace.setup())?;
        let create = || {
            let mut command = program("python3", workspace);
            command.args(["-m", "venv", "--clear"]).arg(&venv);
            command
        };
        if !succeeds(&mut create()) {
            if debian::is_debian() {
                debian::install(workspace, &["python3-venv"])?;
            }
            run(&mut create())?;
        }
        run(program(workspace.python(), workspace)
            .args([
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "--quiet",
                "--use-pep517",
                "--requirement",
            ])
            .arg(&requirements))?;
        fs::write(&stamp, wanted)?;
        Ok(())
    })
}

/// The npm packages of `tests/e2e/node/package-lock.json`.
pub(crate) fn node(workspace: &Workspace) -> Result<()> {
    let dir = workspace.root.join("tests/e2e/node");
    let version = output(Command::new("node").arg("--version"))
        .with_context(|| format!("Node.js is missing: install Node.js {NODE_MAJOR} or newer, with npm"))?;
    if numbers(&version).is_none_or(|(major, _)| major < NODE_MAJOR) {
        bail!("Node.js {version} is too old for the tests: install Node.js {NODE_MAJOR} or newer");
    }
    // These tests make their certificates with it.
    if !succeeds(Command::new("openssl").arg("version")) {
        if !debian::is_debian() {
            bail!("openssl is missing: install the OpenSSL command line tool");
        }
        debian::install(workspace, &["openssl"])?;
    }
    let wanted = format!("{version}\n{}{}", read(&dir.join("package.json"))?, read(&dir.join("package-lock.json"))?);
    // In the folder itself: whoever deletes node_modules deletes the stamp with it.
    let stamp = dir.join("node_modules/.nave-stamp");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    step("Node.js SDKs (tests/e2e/node/package-lock.json)", || {
        // An optional native module of one package does not compile everywhere, and nothing else needs scripts.
        run(program("npm", workspace).current_dir(&dir).args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]))?;
        fs::write(&stamp, wanted)?;
        Ok(())
    })
}

/// Lets the hub write the names that the tests dial into the hosts file.
pub(crate) fn hosts(workspace: &Workspace) -> Result<()> {
    if !succeeds(program(workspace.binary(), workspace).args(["hosts", "--help"])) {
        note("this nave has no `hosts` command: the hosts file is left as it is");
        return Ok(());
    }
    step("host names of tests/e2e/nave.toml (nave hosts --write)", || {
        run(program(workspace.binary(), workspace).args(["hosts", "--write", "--config", "tests/e2e/nave.toml"]))
    })
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers =
        version.split(|c: char| !c.is_ascii_digit()).filter(|s| !s.is_empty()).map(|s| s.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(numbers("Python 3.11.7"), Some((3, 11)));
        assert_eq!(numbers("v20.20.2"), Some((20, 20)));
        assert_eq!(numbers("unknown"), None);
    }
}
