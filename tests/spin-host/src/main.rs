//! A host for tests that does what Spin does: reads `spin.toml`, composes the gateway with its dependencies, and serves it
//! over HTTP, with variables and a key-value store in memory. TLS, which a proxy does in front of Spin, is here too.
//!
//! It takes the place of `nave serve` in the end-to-end suites, so it is called like it and writes the same
//! `connection.json`: `nave-spin-host serve --data-dir DIR`. `nave-spin-host compile` only does what takes long, and keeps the
//! result beside the program. Everything else is passed on to the program in `NAVE_REAL_BIN`.

#[path = "../../tests/all/spin/compose.rs"]
mod compose;
mod connection;
mod imports;
#[path = "../../tests/all/spin/manifest.rs"]
mod manifest;
mod serve;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context as _, Result};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use compose::Part;
use manifest::Manifest;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nave-spin-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spin.toml");
    if arguments.first().is_some_and(|command| command == "compile") {
        return load(&Manifest::read(&file)?).map(|_| ExitCode::SUCCESS);
    }
    if arguments.first().is_none_or(|command| command != "serve") {
        let real = env::var_os("NAVE_REAL_BIN").context("NAVE_REAL_BIN is not set")?;
        let status = Command::new(real).args(&arguments).status()?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let folder = arguments.iter().position(|argument| argument == "--data-dir").and_then(|at| arguments.get(at + 1));
    let folder = PathBuf::from(folder.context("--data-dir is missing")?);
    fs::create_dir_all(&folder)?;
    let manifest = Manifest::read(&file)?;
    let service = load(&manifest)?;
    let deployment = connection::Deployment::new(&manifest, &folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve::until_stopped(service, &deployment))?;
    Ok(ExitCode::SUCCESS)
}

fn load(manifest: &Manifest) -> Result<ServicePre<imports::Request>> {
    let mut parts = Vec::new();
    for dependency in &manifest.dependencies {
        let bytes = fs::read(&dependency.path).with_context(|| dependency.path.display().to_string())?;
        parts.push(Part { import: &dependency.import, bytes, export: dependency.export.as_deref() });
    }
    let source = fs::read(&manifest.source).with_context(|| manifest.source.display().to_string())?;
    let composed = compose::compose(source, parts)?;
    let mut config = Config::new();
    config.wasm_component_model_async(true).cranelift_opt_level(OptLevel::None);
    let engine = Engine::new(&config).map_err(plain)?;
    let component = compiled(&engine, &composed)?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p3::add_to_linker(&mut linker).map_err(plain)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker).map_err(plain)?;
    imports::add_to_linker(&mut linker).map_err(plain)?;
    let instance =
        linker.instantiate_pre(&component).map_err(plain).context("the composed gateway cannot be linked")?;
    ServicePre::new(instance).map_err(plain)
}

/// The component, compiled now or by an earlier run: this program is not optimised, and neither is Cranelift in it.
fn compiled(engine: &Engine, bytes: &[u8]) -> Result<Component> {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let file = env::current_exe()?.with_extension(format!("{:016x}.cwasm", hasher.finish()));
    if !file.exists() {
        let half = file.with_extension(format!("{}.half", std::process::id()));
        fs::write(&half, engine.precompile_component(bytes).map_err(plain)?)?;
        fs::rename(half, &file)?;
    }
    // SAFETY: the file lies beside this program, which wrote it for this very engine, as its name says.
    unsafe { Component::deserialize_file(engine, &file) }.map_err(plain)
}

/// The errors of wasmtime are no standard errors.
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}
