//! What people type: JSON on the command line, in a file or on standard input; certificates; ids in paths.

use std::io::Read as _;

use nave_auth::percent_encode;
use serde_json::Value;

use crate::failure::Failure;

/// Longest document that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Text as it is, the content of a file after `@`, or standard input for `-`.
pub(super) fn text(argument: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match argument.strip_prefix('@') {
        _ if argument == "-" => std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text),
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)),
        None => return Ok(argument.to_owned()),
    };
    read.map_err(|error| Failure::usage(format_args!("cannot read {argument}: {error}")))?;
    Ok(text)
}

/// JSON, given in the ways of [`text`].
pub(super) fn json(argument: &str) -> Result<Value, Failure> {
    serde_json::from_str(&text(argument)?).map_err(|error| {
        Failure::usage(format_args!(
            "not JSON: {error}. Write it in single quotes ('{{\"a\":1}}'), as @FILE, or as - for standard input"
        ))
    })
}

/// A piece of a path.
pub(super) fn segment(id: &str) -> String {
    percent_encode(id)
}

/// The piece of a path that names a device, or a module written as `DEVICE/MODULE`.
pub(super) fn identity_path(id: &str) -> String {
    match id.split_once('/') {
        None => segment(id),
        Some((device, module)) => format!("{}/modules/{}", segment(device), segment(module)),
    }
}

/// An ETag as `If-Match` has it.
pub(super) fn quoted(etag: &str) -> String {
    if etag.starts_with('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_from_the_command_line_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        std::fs::write(&path, "{\"a\": [1]}").unwrap();
        assert_eq!(json(&format!("@{}", path.display())).unwrap(), json("{\"a\":[1]}").unwrap());
        assert!(matches!(json("{a:1}"), Err(Failure::Usage(text)) if text.contains("single quotes")));
        assert!(matches!(json("@/does/not/exist"), Err(Failure::Usage(_))));
    }
}
