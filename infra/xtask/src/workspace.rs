//! Where things are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folders that the commands work on.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// The repository's root.
    pub(crate) root: PathBuf,
    /// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` in the root.
    pub(crate) target: PathBuf,
    /// Where components go: `NAVE_COMPONENTS`, else `target/components` in the root, whatever the target directory is.
    /// The engine's build script reads the same two.
    pub(crate) components: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was compiled in (or, when cargo runs it, the one that cargo names).
    pub(crate) fn find() -> Result<Self> {
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .ancestors()
            .nth(2)
            .with_context(|| format!("{} is not two folders below the repository's root", manifest_dir.display()))?
            .to_path_buf();
        Ok(Self::at(root, env::var_os("CARGO_TARGET_DIR"), env::var_os("NAVE_COMPONENTS")))
    }

    fn at(root: PathBuf, target: Option<OsString>, components: Option<OsString>) -> Self {
        // Relative paths are relative to the root, where every command below runs.
        let target = target.map_or_else(|| root.join("target"), |dir| root.join(dir));
        let components = components.map_or_else(|| root.join("target/components"), |dir| root.join(dir));
        Self { root, target, components }
    }

    /// Where set-up keeps what it installed and what it remembers.
    pub(crate) fn setup(&self) -> PathBuf {
        self.target.join("setup")
    }

    /// The optimised binary.
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("release").join(if cfg!(windows) { "nave.exe" } else { "nave" })
    }

    /// Where the projects are made of the templates of `nave policy new`, and their components.
    pub(crate) fn policies(&self) -> PathBuf {
        self.target.join("policies")
    }

    /// `PATH` with the optimised binary first.
    pub(crate) fn path_with_binary(&self) -> Result<OsString> {
        let binary = self.binary().parent().map(Path::to_path_buf);
        let path = env::var_os("PATH").unwrap_or_default();
        env::join_paths(binary.into_iter().chain(env::split_paths(&path))).context("PATH cannot be extended")
    }

    /// The virtual environment's Python.
    pub(crate) fn python(&self) -> PathBuf {
        self.setup().join("venv").join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
    }

    /// `path` as a reader in the root would type it.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_moves_but_the_components_stay() {
        let plain = Workspace::at("/w".into(), None, None);
        assert_eq!(plain.target, Path::new("/w/target"));
        assert_eq!(plain.components, Path::new("/w/target/components"));

        let moved = Workspace::at("/w".into(), Some("/tmp/t".into()), None);
        assert_eq!(moved.binary().parent().unwrap(), Path::new("/tmp/t/release"));
        assert_eq!(moved.components, Path::new("/w/target/components"));

        let named = Workspace::at("/w".into(), None, Some("out".into()));
        assert_eq!(named.components, Path::new("/w/out"));
    }
}
