//! The deployment on Spin, in the test host that does what Spin does.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{cargo, program, run, step};
use crate::workspace::Workspace;

/// What of the Python suite runs against Spin: the files that need HTTPS and little else. What else single tests need is in
/// `tests/spin-host/differences.json`, with the reason why Spin has it not.
const PYTHON: &[&str] = &[
    "test_allocation.py",
    "test_bulk.py",
    "test_enrollments.py",
    "test_modules.py",
    "test_provisioning_https.py",
    "test_registry.py",
];

/// What of the Node.js suite does.
const NODE: &[&str] = &["device_bound.test.js", "enrollments.test.js", "provisioning.test.js", "registry.test.js"];

/// Builds the test host. It is a workspace of its own with a target directory of its own.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    step("the test host for Spin (the first time 2 to 4 minutes)", || {
        let mut command = cargo(workspace);
        command.args(["build", "--locked", "--manifest-path", "tests/spin-host/Cargo.toml"]);
        command.env("CARGO_TARGET_DIR", target(workspace));
        run(&mut command)?;
        // It is not optimised, so this takes longer than the suites would wait for a hub to start.
        run(program(host(workspace), workspace).arg("compile"))
    })
}

/// `cargo fmt` for the test host.
pub(crate) fn format(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace);
    command.args(["fmt", "--check", "--manifest-path", "tests/spin-host/Cargo.toml"]);
    command
}

/// The Python tests, with the host in the place of the hub.
pub(crate) fn pytest(workspace: &Workspace) -> Command {
    let mut command = program(workspace.python(), workspace);
    command.args(["-m", "pytest"]);
    let folder = workspace.root.join("tests/e2e/python");
    command.args(PYTHON.iter().map(|file| folder.join(file)));
    with_host(&mut command, workspace);
    command
}

/// The Node.js tests, with the host in the place of the hub.
pub(crate) fn node(workspace: &Workspace) -> Command {
    let mut command = program("node", workspace);
    command.current_dir(workspace.root.join("tests/e2e/node"));
    command.args(["--test", "--test-concurrency=1"]).args(NODE);
    with_host(&mut command, workspace);
    command
}

fn with_host(command: &mut Command, workspace: &Workspace) {
    command.env("NAVE_BIN", host(workspace));
    // For what the host is not: the command that writes names into the hosts file.
    command.env("NAVE_REAL_BIN", workspace.binary());
    // Tests skip what Spin has not.
    command.env("NAVE_HOST", "spin");
}

fn host(workspace: &Workspace) -> PathBuf {
    target(workspace).join("debug/nave-spin-host")
}

fn target(workspace: &Workspace) -> PathBuf {
    workspace.target.join("spin-host")
}
