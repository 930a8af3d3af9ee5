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

/// Hexadecimal digits of a component's SHA-256 that its file's name has.
const CONTENT_DIGITS: usize = 32;

pub(crate) fn file_name(engine: &Engine, name: &str, bytes: &[u8]) -> String {
    let content = digest::digest(&digest::SHA256, bytes);
    let hexadecimal: String = content.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    file_name_of(engine, name, &hexadecimal)
}

/// The name of the file for the component with this SHA-256, lower case hexadecimal.
pub(crate) fn file_name_of(engine: &Engine, name: &str, content: &str) -> String {
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let content = content.get(..CONTENT_DIGITS).unwrap_or(content);
    format!("{name}-{content}-{:016x}.cwasm", compatibility.finish())
}

/// Removes the files of `name` other than these: of other contents, and of other engines. Another process may use them; it
/// compiles again. Files that are being written are left alone. Without a directory there is nothing to do.
pub(crate) fn prune(directory: &Path, name: &str, keep: &[String]) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else { continue };
        if is_file_of(name, &file) && !keep.contains(&file) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a save under that name makes files so called.
fn is_file_of(name: &str, file: &str) -> bool {
    let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    let digits = rest.and_then(|rest| rest.get(..CONTENT_DIGITS));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) && file.ends_with(".cwasm")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_name_are_removed_and_not_those_to_keep() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let (kept, old) = (file_name(&engine, "policy", b"new"), file_name(&engine, "policy", b"old"));
        let (other, longer) = (file_name(&engine, "twin", b"old"), file_name(&engine, "policy-of-mine", b"old"));
        let unfinished = format!("{old}.4711.new");
        for file in [&kept, &old, &other, &longer, &unfinished, &"policy-README".to_owned()] {
            std::fs::write(directory.path().join(file), "").unwrap();
        }
        prune(directory.path(), "policy", std::slice::from_ref(&kept)).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = vec![kept, other, longer, unfinished, "policy-README".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
        prune(&directory.path().join("absent"), "policy", &[]).unwrap();
    }
}
