//! The files of this repository that are made from other files of it.
//!
//! They are committed, because people read them or build with them who do not build this repository. `cargo xtask generate`
//! writes them; a test fails when one of them is not what it would write.

mod c_bindings;
mod reference;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use wit_bindgen_core::wit_parser::{PackageId, Resolve};

/// The package that strangers compile against, from the repository's root.
const ALLOCATION: &str = "wit/allocation";

/// A generated file.
#[derive(Debug)]
pub struct Generated {
    /// Its path from the repository's root.
    pub path: PathBuf,
    /// What it must contain.
    pub content: String,
}

/// All generated files of the repository at `root`.
///
/// # Errors
/// A source is missing or wrong.
pub fn files(root: &Path) -> Result<Vec<Generated>> {
    let mut files = c_bindings::files(root)?;
    files.push(reference::file(root)?);
    Ok(files)
}

/// The repository that this program was compiled in.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn allocation(root: &Path) -> Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join(ALLOCATION)).with_context(|| format!("cannot read {ALLOCATION}"))?;
    Ok((resolve, package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_up_to_date() {
        let root = root();
        for file in files(&root).unwrap() {
            let have = std::fs::read_to_string(root.join(&file.path)).unwrap_or_default();
            assert!(have == file.content, "{} is out of date: run `cargo xtask generate`", file.path.display());
        }
    }
}
