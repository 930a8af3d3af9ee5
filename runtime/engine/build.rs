//! Embeds the built-in components, so that the binary needs no file beside it.
//!
//! They are compiled from `functions/` by `cargo xtask components` into `target/components` (or the folder that the
//! environment variable `NAVE_COMPONENTS` names, relative to the workspace's root). Cargo cannot do that here: a build
//! script that calls cargo for another target would wait for the lock that its own build holds.
//!
//! Output, `$OUT_DIR/components.rs`: one constant of type `[(&str, &[u8]); N]` with name and bytes of each component,
//! in alphabetical order.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// The functions that every hub has: one folder of `functions/` each.
const BUILT_IN: [&str; 5] = ["allocation", "methods", "provisioning", "routing", "twin"];

fn main() -> ExitCode {
    // In a component the functions are imports.
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        return ExitCode::SUCCESS;
    }
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=NAVE_COMPONENTS");
    println!("cargo::rerun-if-changed=build.rs");
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../..");
    let dir =
        root.join(env::var_os("NAVE_COMPONENTS").map_or_else(|| PathBuf::from("target/components"), PathBuf::from));
    let mut code = format!(
        "/// The built-in components: name and bytes of each, in alphabetical order.\n\
         const COMPONENTS: [(&str, &[u8]); {}] = [\n",
        BUILT_IN.len()
    );
    for name in BUILT_IN {
        let file = dir.join(format!("{name}.wasm"));
        // Also when it is missing: the build is then repeated as soon as it is there.
        println!("cargo::rerun-if-changed={}", file.display());
        let file = file
            .canonicalize()
            .map_err(|error| format!("no component {} ({error}); run: cargo xtask components", file.display()))?;
        code.push_str(&format!("    ({name:?}, include_bytes!({:?})),\n", file.display().to_string()));
    }
    code.push_str("];\n");
    let out = Path::new(&variable("OUT_DIR")?).join("components.rs");
    fs::write(&out, code).map_err(|error| format!("cannot write {}: {error}", out.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
