//! What `spin.toml` says, as far as it concerns what is composed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The one component of the manifest.
pub(crate) struct Manifest {
    /// Its file.
    pub(crate) source: PathBuf,
    /// What it is composed with.
    pub(crate) dependencies: Vec<Dependency>,
    /// Its variables, with the defaults of the application's variables that they are made of.
    pub(crate) variables: BTreeMap<String, String>,
}

/// A component that satisfies an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The import.
    pub(crate) import: String,
    /// The component's file.
    pub(crate) path: PathBuf,
    /// The name of its export, if that is not the import's.
    pub(crate) export: Option<String>,
}

impl Manifest {
    /// Reads the manifest. Paths in it are relative to its folder.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let manifest: toml::Table = text.parse().with_context(|| file.display().to_string())?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let gateway = table(table(&manifest, "component")?, "gateway")?;
        let path = |at: &toml::Table, name: &str| Ok::<_, anyhow::Error>(folder.join(text_of(at, name)?));
        let mut dependencies = Vec::new();
        for (import, dependency) in table(gateway, "dependencies")? {
            let dependency = dependency.as_table().with_context(|| format!("the dependency {import}"))?;
            let export =
                dependency.get("export").map(|_| text_of(dependency, "export").map(str::to_owned)).transpose()?;
            dependencies.push(Dependency { import: import.clone(), path: path(dependency, "path")?, export });
        }
        let application = table(&manifest, "variables")?;
        let mut variables = BTreeMap::new();
        for (name, template) in table(gateway, "variables")? {
            let template = template.as_str().context("a variable is a text")?;
            let named = template.strip_prefix("{{ ").and_then(|rest| rest.strip_suffix(" }}"));
            let named = named.with_context(|| format!("the variable {name} is not just one of the application's"))?;
            variables.insert(name.clone(), text_of(table(application, named)?, "default")?.to_owned());
        }
        Ok(Self { source: path(gateway, "source")?, dependencies, variables })
    }
}

fn table<'a>(of: &'a toml::Table, name: &str) -> Result<&'a toml::Table> {
    of.get(name).and_then(toml::Value::as_table).with_context(|| format!("there is no table {name}"))
}

fn text_of<'a>(of: &'a toml::Table, name: &str) -> Result<&'a str> {
    of.get(name).and_then(toml::Value::as_str).with_context(|| format!("there is no text {name}"))
}
