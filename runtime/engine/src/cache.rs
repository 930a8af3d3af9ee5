//! Compiled code on disk: one file per component content and engine version.
//!
//! A file is the SHA-256 of what follows, then wasmtime's serialised component. The name carries the hash of the component
//! and of everything that decides compatibility (wasmtime's version and settings, the processor's features), so a file is
//! never stale: another engine looks for another name.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;

use ring::digest;
use wasmtime::Engine;
use wasmtime::component::Component;

const DIGEST_LENGTH: usize = digest::SHA256_OUTPUT_LEN;

pub(crate) fn file_name(engine: &Engine, name: &str, bytes: &[u8]) -> String {
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let content = digest::digest(&digest::SHA256, bytes);
    let mut content_hex = String::with_capacity(32);
    for byte in content.as_ref().iter().take(16) {
        content_hex.push_str(&format!("{byte:02x}"));
    }
    format!("{name}-{content_hex}-{:016x}.cwasm", compatibility.finish())
}

/// The cached component, or nothing if there is none or it is damaged.
pub(crate) fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let bytes = std::fs::read(path).ok()?;
    let (expected, code) = bytes.split_at_checked(DIGEST_LENGTH)?;
    if digest::digest(&digest::SHA256, code).as_ref() != expected {
        tracing::warn!(path = %path.display(), "cached code is damaged and is compiled again");
        return None;
    }
    #[expect(unsafe_code, reason = "wasmtime offers no safe way to load code that it compiled earlier")]
    // SAFETY: `deserialize` must be given bytes that `Component::serialize` made. `save` below is the only writer of files
    // of this name; it writes exactly that, behind its digest, which was just checked, so a torn or altered file does not
    // come here by accident. The directory belongs to the user that runs the hub and is not accessible to others
    // (`save` creates it so); whoever can write there can replace the hub's binary as well. wasmtime itself checks that
    // the code was made by the same version with the same settings.
    let component = unsafe { Component::deserialize(engine, code) };
    component.ok()
}

/// Writes a component's code under `file`, whole or not at all.
pub(crate) fn save(component: &Component, directory: &Path, file: &str) -> std::io::Result<()> {
    let code = component.serialize().map_err(|error| std::io::Error::other(format!("{error:#}")))?;
    create_private(directory)?;
    let temporary = directory.join(format!("{file}.{}.new", std::process::id()));
    let mut output = std::fs::File::create(&temporary)?;
    output.write_all(digest::digest(&digest::SHA256, &code).as_ref())?;
    output.write_all(&code)?;
    drop(output);
    std::fs::rename(&temporary, directory.join(file))
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
