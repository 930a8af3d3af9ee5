//! The C bindings of `nave:allocation`, which the C template contains: its users need clang and no generator.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use wit_bindgen_core::Files;

use crate::{Generated, allocation};

/// Where the template keeps them.
const FOLDER: &str = "runtime/nave/templates/policy/c/bindings";

/// Where the generator asks the linker for an object file with the component's type, even if it makes none.
const FORCED_LINK: &str = "\n// Ensure that the *_component_type.o object is linked in";

/// `policy.h` and `policy.c`. Names are short, because the world has one interface: `policy_request_t`, `policy_allocate`.
///
/// There is no object file with the component's type beside them: `nave policy component` knows the world.
pub(crate) fn files(root: &Path) -> Result<Vec<Generated>> {
    let (mut resolve, package) = allocation(root)?;
    let world = resolve.select_world(&[package], Some("allocation-policy"))?;
    let interface = resolve.worlds[world].exports.keys().next().map(|key| resolve.name_world_key(key));
    let options = wit_bindgen_c::Opts {
        no_object_file: true,
        rename: vec![(interface.context("the world exports nothing")?, "policy".to_owned())],
        rename_world: Some("policy".to_owned()),
        ..wit_bindgen_c::Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    files
        .iter()
        .map(|(name, content)| {
            let content = std::str::from_utf8(content).with_context(|| format!("{name} is not text"))?;
            Ok(Generated { path: PathBuf::from(FOLDER).join(name), content: shortened(content) })
        })
        .collect()
}

/// Without the marks of exported names, and without the demand for the object file.
fn shortened(content: &str) -> String {
    let content = content.split(FORCED_LINK).next().unwrap_or_default();
    let lines = content.replace("exports_policy_", "policy_").replace("EXPORTS_POLICY_", "POLICY_");
    lines.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}
