//! `cargo xtask test`: every test there is, in an order that fails early.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Result, bail};
use nave_tests::leaks;

use crate::components;
use crate::process::{cargo, human, line, note, program, step};
use crate::tally::{self, Runner, Tally};
use crate::wasm_toolchain::{self, Choice};
use crate::workspace::Workspace;
use crate::{build, lint, policies, spin, test_env};

/// pytest's exit code for "no test was selected".
const PYTEST_NOTHING: i32 = 5;

/// What `test` was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    parts: Vec<Part>,
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Lint,
    Rust,
    Policies,
    Python,
    Node,
    Spin,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut parts = Vec::new();
        let mut filter = None;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => parts.push(Part::Rust),
                "--only" => parts.push(match args.next().map(String::as_str) {
                    Some("lint") => Part::Lint,
                    Some("rust") => Part::Rust,
                    Some("policies") => Part::Policies,
                    Some("python") => Part::Python,
                    Some("node") => Part::Node,
                    Some("spin") => Part::Spin,
                    _ => bail!("--only is `lint`, `rust`, `policies`, `python`, `node` or `spin`"),
                }),
                flag if flag.starts_with('-') => bail!("`test` has no option `{flag}`; see `cargo xtask help test`"),
                _ if filter.is_some() => bail!("`test` takes one FILTER, and `{arg}` would be a second"),
                text => filter = Some(text.to_owned()),
            }
        }
        if parts.is_empty() {
            parts = vec![Part::Lint, Part::Rust, Part::Policies, Part::Python, Part::Node, Part::Spin];
        }
        Ok(Self { parts, filter })
    }

    fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// Sets up, runs the parts, and prints the sum.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut total = Tally::default();
    leaks::begin(&ledger(workspace))?;
    let result = parts(workspace, options, &mut total).and_then(|()| secrets(workspace, options));
    eprintln!("==> {} in {}", if result.is_ok() { "all done" } else { "stopped" }, human(start.elapsed()));
    if total != Tally::default() {
        println!("{total}");
    }
    result?;
    if total.ran() == 0 && options.parts != [Part::Lint] {
        bail!("no test ran");
    }
    Ok(())
}

fn parts(workspace: &Workspace, options: &Options, total: &mut Tally) -> Result<()> {
    if options.wants(Part::Lint) {
        lint::format(workspace)?;
    }
    let toolchain = step("WebAssembly toolchain", || wasm_toolchain::obtain(workspace, Choice::Any))?;
    if options.wants(Part::Python) || options.wants(Part::Spin) {
        test_env::python(workspace)?;
    }
    if options.wants(Part::Node) || options.wants(Part::Spin) {
        test_env::node(workspace)?;
    }
    components::build(workspace, &toolchain)?;
    if options.wants(Part::Rust) || options.wants(Part::Spin) {
        components::gateway(workspace, &toolchain)?;
    }
    if options.wants(Part::Lint) {
        lint::clippy(workspace)?;
    }
    // Before the Rust tests, because those that start a hub start this binary.
    if options.parts != [Part::Lint] {
        build::binary(workspace)?;
    }
    if options.wants(Part::Rust) {
        part("Rust tests", &mut rust(workspace, options), Runner::Cargo, options, total)?;
    }
    if options.wants(Part::Policies) || options.wants(Part::Python) {
        policies::build(workspace, &toolchain)?;
    }
    if options.wants(Part::Policies) {
        part("policies", &mut policy_tests(workspace, options), Runner::Cargo, options, total)?;
    }
    let (python, node) = (workspace.root.join("tests/e2e/python"), workspace.root.join("tests/e2e/node"));
    let python_there = options.wants(Part::Python) && contains_file(&python, is_python_test);
    let node_there = options.wants(Part::Node) && contains_file(&node, is_node_test);
    if python_there || node_there || options.wants(Part::Spin) {
        test_env::hosts(workspace)?;
    }
    if python_there {
        part("Python SDKs", &mut pytest(workspace, &python, options), Runner::Pytest, options, total)?;
    }
    if node_there {
        part("Node.js SDKs", &mut node_test(workspace, &node, options), Runner::Node, options, total)?;
    }
    if options.wants(Part::Spin) {
        spin::build(workspace)?;
        part(
            "Spin, Python SDKs",
            &mut filtered(spin::pytest(workspace), "-k", options),
            Runner::Pytest,
            options,
            total,
        )?;
        part("Spin, Node.js SDKs", &mut spin::node(workspace), Runner::Node, options, total)?;
    }
    Ok(())
}

/// Looks for every secret that any part used in everything that all parts wrote.
fn secrets(workspace: &Workspace, options: &Options) -> Result<()> {
    // A filter may choose tests that start no hub, and so may the other parts.
    let starts_hubs = [Part::Rust, Part::Python, Part::Node].into_iter().any(|part| options.wants(part));
    if options.filter.is_some() || !starts_hubs {
        return Ok(());
    }
    step("secrets", || {
        let found = leaks::check(&ledger(workspace))?;
        note(&format!("none of {} secrets is in {} outputs of {} bytes", found.secrets, found.outputs, found.bytes));
        Ok(())
    })
}

fn ledger(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/secrets")
}

/// Runs one test runner; an error if it fails, or if it ran nothing although nothing was filtered out.
fn part(title: &str, command: &mut Command, runner: Runner, options: &Options, total: &mut Tally) -> Result<()> {
    step(title, || {
        let (code, tally) = tally::run(command, runner)?;
        *total += tally;
        note(&format!("{title}: {tally}"));
        let filtered_out = options.filter.is_some() && runner == Runner::Pytest && code == Some(PYTEST_NOTHING);
        if code != Some(0) && !filtered_out {
            bail!(
                "{} failed{}",
                line(command),
                code.map_or_else(String::new, |code| format!(" with exit code {code}"))
            );
        }
        if options.filter.is_none() && tally.ran() == 0 {
            bail!("{} ran no test", line(command));
        }
        Ok(())
    })
}

fn rust(workspace: &Workspace, options: &Options) -> Command {
    let mut command = cargo(workspace);
    command.args(["test", "--release", "--workspace", "--exclude", "nave-bench"]);
    if tally::colour() {
        command.arg("--color=always");
    }
    hub_environment(&mut command, workspace);
    command.args(&options.filter);
    if tally::colour() {
        command.args(["--", "--color=always"]);
    }
    command
}

/// The tests of what `policies::build` made. They are in a binary that `cargo test` does not run by itself.
fn policy_tests(workspace: &Workspace, options: &Options) -> Command {
    let mut command = cargo(workspace);
    // The whole workspace, as everything else here: another selection would compile many dependencies once more.
    command.args(["test", "--release", "--workspace", "--exclude", "nave-bench", "--test", "policies"]);
    if tally::colour() {
        command.arg("--color=always");
    }
    hub_environment(&mut command, workspace);
    command.args(&options.filter);
    if tally::colour() {
        command.args(["--", "--color=always"]);
    }
    command
}

fn pytest(workspace: &Workspace, dir: &Path, options: &Options) -> Command {
    let mut command = program(workspace.python(), workspace);
    command.args(["-m", "pytest"]).arg(dir);
    if tally::colour() {
        command.arg("--color=yes");
    }
    if let Some(filter) = &options.filter {
        command.args(["-k", filter]);
    }
    hub_environment(&mut command, workspace);
    command
}

fn filtered(mut command: Command, option: &str, options: &Options) -> Command {
    if let Some(filter) = &options.filter {
        command.args([option, filter]);
    }
    command
}

fn node_test(workspace: &Workspace, dir: &Path, options: &Options) -> Command {
    let mut command = program("node", workspace);
    // One file at a time: the SDKs dial fixed ports, so there can be only one hub.
    command.current_dir(dir).args(["--test", "--test-concurrency=1"]);
    if let Some(filter) = &options.filter {
        command.arg(format!("--test-name-pattern={filter}"));
    }
    hub_environment(&mut command, workspace);
    command
}

/// Tells the tests which binary to start. (Not where the components are: the engine's build script would run again each time
/// that `NAVE_COMPONENTS` comes and goes.)
fn hub_environment(command: &mut Command, workspace: &Workspace) {
    if env::var_os("NAVE_BIN").is_none() {
        command.env("NAVE_BIN", workspace.binary());
    }
    command.env(leaks::LEDGER, ledger(workspace));
}

fn is_python_test(name: &str) -> bool {
    name.starts_with("test_") && name.ends_with(".py")
}

fn is_node_test(name: &str) -> bool {
    [".test.js", ".test.mjs", ".test.cjs"].iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a file of such a name is in the folder or below, installed packages not counted.
fn contains_file(dir: &Path, wanted: fn(&str) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            name != "node_modules" && contains_file(&entry.path(), wanted)
        } else {
            wanted(&name)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_options_everything_runs() {
        let options = parse(&[]).unwrap();
        for part in [Part::Lint, Part::Rust, Part::Policies, Part::Python, Part::Node, Part::Spin] {
            assert!(options.wants(part), "{part:?}");
        }
        assert_eq!(options.filter, None);
    }

    #[test]
    fn parts_and_filter_are_taken() {
        let options = parse(&["--only", "python", "--only", "node", "twin"]).unwrap();
        assert_eq!(options.parts, [Part::Python, Part::Node]);
        assert_eq!(options.filter.as_deref(), Some("twin"));
        assert_eq!(parse(&["--quick"]).unwrap().parts, [Part::Rust]);
        assert!(parse(&["--only", "java"]).is_err());
        assert!(parse(&["a", "b"]).is_err());
        assert!(parse(&["--slow"]).is_err());
    }

    #[test]
    fn installed_packages_are_not_tests() {
        let dir = env::temp_dir().join(format!("nave-xtask-tests-{}", std::process::id()));
        let package = dir.join("node_modules/some");
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("a.test.js"), "").unwrap();
        assert!(!contains_file(&dir, is_node_test));
        fs::create_dir_all(dir.join("flows")).unwrap();
        fs::write(dir.join("flows/twin.test.mjs"), "").unwrap();
        assert!(contains_file(&dir, is_node_test));
        assert!(!contains_file(&dir, is_python_test));
        fs::remove_dir_all(&dir).unwrap();
    }
}
