//! `generate`.

use anyhow::Result;

use crate::process::{self, cargo, step};
use crate::workspace::Workspace;

/// Writes the files that are made from others. A crate of its own does it, because it needs what this one does without.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    step("generated files", || {
        process::run(cargo(workspace).args(["run", "--release", "--quiet", "--package", "nave-generate"]))
    })
}
