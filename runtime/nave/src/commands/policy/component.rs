//! `nave policy component`: from a core module to a component.
//!
//! A compiler that knows nothing of components, such as clang, links a core module whose exports are named by the canonical
//! ABI. What it lacks is the component's type: that is the world in the project's WIT.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::failure::Failure;
use crate::files;
use crate::output;

/// Largest module that is read: with an interpreter inside, some 20 MB.
const MAX_MODULE: u64 = 64 << 20;

/// Make a component of a core module.
#[derive(Args)]
#[command(after_long_help = "\
Example:
  nave policy component build/policy.module.wasm policy.wasm --wit wit

The module exports what the bindings of wit-bindgen for C export: `nave:allocation/policy@0.1.0#allocate`, `cabi_realloc`
and its memory. For a policy with a configuration, say --world configurable-policy.")]
pub(super) struct Component {
    /// The module.
    module: PathBuf,
    /// Where to put the component.
    component: PathBuf,
    /// Folder with the interface that it was built against [default: the module itself says its type].
    #[arg(long, value_name = "DIR")]
    wit: Option<PathBuf>,
    /// The world that it implements.
    #[arg(long, requires = "wit", default_value = "allocation-policy")]
    world: String,
}

/// Runs the command.
pub(super) fn run(args: &Component) -> Result<(), Failure> {
    let failed = |error: &dyn Display| Failure::runtime(format_args!("{}: {error:#}", args.module.display()));
    let size = fs::metadata(&args.module).map_err(|error| failed(&error))?.len();
    if size > MAX_MODULE {
        return Err(failed(&format_args!("it has {size} bytes, more than the {MAX_MODULE} that are read")));
    }
    let mut module = fs::read(&args.module).map_err(|error| failed(&error))?;
    if let Some(wit) = &args.wit {
        embed_type(&mut module, wit, &args.world)?;
    }
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true);
    let component = encoder.module(&module).and_then(ComponentEncoder::encode).map_err(|error| failed(&error))?;
    files::replace(&args.component, &component, files::EVERYONE_READS)
        .map_err(|error| Failure::runtime(format_args!("{}: {error}", args.component.display())))?;
    output::line(&format!("{}: {} bytes", args.component.display(), component.len()))
}

/// Writes the world's type into a custom section of the module, where [`ComponentEncoder`] looks for it.
fn embed_type(module: &mut Vec<u8>, wit: &Path, world: &str) -> Result<(), Failure> {
    let failed = |error: &dyn Display| Failure::usage(format_args!("{}: {error:#}", wit.display()));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).map_err(|error| failed(&error))?;
    let world = resolve.select_world(&[package], Some(world)).map_err(|error| failed(&error))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8).map_err(|error| failed(&error))
}
