//! Running the built program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nave_tests::paths;
use serde_json::Value;

/// The examples of the templates: language and project.
pub(crate) const EXAMPLES: [(&str, &str); 4] =
    [("rust", "by-site"), ("js", "by-region"), ("python", "by-organisation"), ("c", "sticky")];

/// The component that was built of a template.
pub(crate) fn example(name: &str) -> PathBuf {
    let file = paths::policies().join(format!("{name}.wasm"));
    assert!(file.exists(), "{}: run `cargo xtask policies`", file.display());
    file
}

/// A component that was built with the functions: `allocation`, or `fixtures/NAME`.
pub(crate) fn built(name: &str) -> PathBuf {
    let file = paths::components().join(format!("{name}.wasm"));
    assert!(file.exists(), "{}: run `cargo xtask components`", file.display());
    file
}

/// Runs `nave policy COMMAND FILE ARGS`.
pub(crate) fn policy(command: &str, file: &Path, args: &[&str]) -> Output {
    run([OsStr::new(command), file.as_os_str()].into_iter().chain(args.iter().map(OsStr::new)))
}

/// Runs `nave policy ARGS`.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(paths::binary());
    // Interpreters take long to compile; `cargo xtask policies` has left them here.
    command.arg("policy").args(args).env("XDG_CACHE_HOME", paths::policies().join("cache"));
    command.output().unwrap()
}

/// What it printed, as JSON.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

/// What it printed.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it complained about.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Its exit code.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
