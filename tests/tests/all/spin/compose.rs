//! Composing a component with its dependencies as Spin does it.
//!
//! Spin's rule (its documentation, "Component dependencies"): each import of the component that a dependency is declared for
//! is satisfied by an export of that dependency, of the same name unless the declaration names another (`export = …`). Each
//! dependency is an instance of its own, and one level deep: what a dependency imports stays an import of the whole.

use anyhow::{Context as _, Result};
use wac_graph::types::{Package, SubtypeChecker, WorldId};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};

/// A dependency as a manifest declares it: the import that it is for, the component, and the export if named differently.
pub(crate) struct Part<'a> {
    /// The import.
    pub(crate) import: &'a str,
    /// The component.
    pub(crate) bytes: Vec<u8>,
    /// Its export.
    pub(crate) export: Option<&'a str>,
}

/// The component with its dependencies in it.
pub(crate) fn compose(component: Vec<u8>, parts: Vec<Part<'_>>) -> Result<Vec<u8>> {
    let mut graph = CompositionGraph::new();
    let (outer, root) = instantiate(&mut graph, "component", component)?;
    for part in parts {
        let import = *graph.types()[outer]
            .imports
            .get(part.import)
            .with_context(|| format!("the component does not import {}", part.import))?;
        let (world, instance) = instantiate(&mut graph, part.import, part.bytes)?;
        let name = part.export.unwrap_or(part.import);
        let export = *graph.types()[world]
            .exports
            .get(name)
            .with_context(|| format!("the dependency for {} does not export {name}", part.import))?;
        SubtypeChecker::new(&mut Default::default())
            .is_subtype(export, graph.types(), import, graph.types())
            .with_context(|| format!("{name} does not fit the import {}", part.import))?;
        let argument = graph.alias_instance_export(instance, name)?;
        graph.set_instantiation_argument(root, part.import, argument)?;
    }
    let exports: Vec<String> = graph.types()[outer].exports.keys().cloned().collect();
    for name in exports {
        let export = graph.alias_instance_export(root, &name)?;
        graph.export(export, name)?;
    }
    Ok(graph.encode(EncodeOptions { validate: true, ..EncodeOptions::default() })?)
}

fn instantiate(graph: &mut CompositionGraph, name: &str, bytes: Vec<u8>) -> Result<(WorldId, NodeId)> {
    // The name only tells packages apart: the same component under two imports is two instances.
    let package = Package::from_bytes(&format!("dependency:{name}"), None, bytes, graph.types_mut())?;
    let world = package.ty();
    let id = graph.register_package(package)?;
    Ok((world, graph.instantiate(id)))
}
