//! `cargo xtask`: everything that a newcomer, a developer and continuous integration need, as one command each.
//!
//! The crate has a single dependency because it compiles before anything else on a fresh clone.

#![allow(clippy::disallowed_methods, reason = "a build tool measures how long its steps really take")]

mod build;
mod components;
mod debian;
mod generate;
mod lint;
mod policies;
mod process;
mod simulate;
mod spin;
mod tally;
mod test;
mod test_env;
mod wasm_toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::process::step;
use crate::wasm_toolchain::Choice;
use crate::workspace::Workspace;

const HELP: &str = "\
Set up, build, run and test Nave.

Usage: cargo xtask <COMMAND> [ARGS]

Commands:
  serve [ARGS..]           Set up, build, and run a hub: target/release/nave serve ARGS..
  test [OPTIONS] [FILTER]  Set up and run all tests
  build                    Set up and build the optimised binary target/release/nave
  components               Build functions/* to WebAssembly components in target/components
  policies                 Make, test and build a project of each template of `nave policy new`
  generate                 Write the files that are made from others: policy reference, C bindings
  setup                    Install what building and testing need, and nothing else
  lint                     Check formatting, clippy warnings, licences and dependencies
  bench [ARGS..]           Run the benchmarks (arguments go to criterion)
  simulate [OPTIONS]       Simulate two hubs and their devices for longer than the tests do
  help [COMMAND]           Explain a command

Examples:
  cargo xtask serve                   a hub with its data in ./data
  cargo xtask test --quick twin       the Rust tests whose names contain `twin`
  cargo xtask help test               what `test` does, step by step

The first build compiles the WebAssembly engine and takes 5 to 10 minutes on two cores; after that, seconds.";

const HELP_SERVE: &str = "\
Set up, build, and run a hub.

Usage: cargo xtask serve [ARGS..]

Runs `target/release/nave serve ARGS..` after `cargo xtask build`. The hub takes over this process, so that Ctrl+C and
signals reach it. Without --data-dir or --config among ARGS (and without NAVE_DATA_DIR), the data directory is ./data in
the repository, which git ignores.

Examples:
  cargo xtask serve
  cargo xtask serve --data-dir /tmp/nave
  cargo xtask serve --help            the help of `nave serve` itself";

const HELP_TEST: &str = "\
Set up and run all tests.

Usage: cargo xtask test [--quick] [--only PART]... [FILTER]

Parts, in this order; the first that fails ends the run:
  lint     formatting and clippy (warnings are errors)
  rust     components, then `cargo test --release` over the workspace (but the benchmarks)
  policies the templates of `nave policy new` with each language's tools, and the commands that work with policies
  python   the official Python SDKs against the built binary (tests/e2e/python, pytest)
  node     the official Node.js SDKs against the built binary (tests/e2e/node, node --test)
  spin     what of both needs HTTPS only, against spin.toml in a host that does what Spin does (tests/spin-host)

Options:
  --quick        only the part `rust`: no lint, and no SDKs to install
  --only PART    only this part; may be given several times
  FILTER         only tests whose name contains FILTER (cargo test FILTER, pytest -k, --test-name-pattern)

Everything runs in the release profile, so that the engine is compiled once for tests and binary alike.
The SDKs dial fixed ports (8883, 443) on host names of the hub's own. Run as root, or allow low ports
(`sysctl net.ipv4.ip_unprivileged_port_start=443`) and let `nave hosts --write` put the names into the hosts file.

Every key and token that a test uses is written to target/secrets, and so is what the hubs write; at the end each is looked
for in everything (not with a FILTER).

The last line is the sum over all parts: `N passed, N failed, N skipped`.

Examples:
  cargo xtask test
  cargo xtask test --quick
  cargo xtask test --only python twin";

const HELP_BUILD: &str = "\
Set up and build the optimised binary target/release/nave.

Usage: cargo xtask build

Installs the WebAssembly toolchain if it is missing (see `cargo xtask help setup`), builds the components, and builds the
binary with the components inside. Incremental: seconds when little changed.";

const HELP_COMPONENTS: &str = "\
Build functions/* to WebAssembly components.

Usage: cargo xtask components [--toolchain rustup|debian]

Each folder functions/NAME becomes target/components/NAME.wasm, which the engine's build script embeds. A file is
replaced only when its bytes change. The tests' own components (tests/fixtures/NAME) go to target/components/fixtures.
NAVE_COMPONENTS names another folder than target/components, for the engine's build script too.

Options:
  --toolchain T    rustup: the Rust target of rustup's toolchain; debian: Debian's compiler and library source.
                   Without it, the first that is there or can be installed (see `cargo xtask help setup`)";

const HELP_POLICIES: &str = "\
Make, test and build a project of each template of `nave policy new`.

Usage: cargo xtask policies

Builds the binary, makes a project of each template in target/policies, and runs every command of its README.md there: the
language's tools are installed, the unit tests run, the component is built, checked and tested. The components are then
target/policies/NAME.wasm. A project whose template has not changed is left as it is.

Installed are: from PyPI componentize-py, from npm jco and componentize-js, each inside its project; on Debian the packages
clang, lld, make and python3-venv, where they are missing.";

const HELP_GENERATE: &str = "\
Write the files that are made from others.

Usage: cargo xtask generate

docs/src/policies/reference.md and the C bindings of the template for policies are made from wit/allocation. They are
committed; a test fails when they are out of date.";

const HELP_SETUP: &str = "\
Install what building and testing need.

Usage: cargo xtask setup

WebAssembly toolchain, the first of these that works:
  1. the target wasm32-unknown-unknown of the active Rust toolchain, if it is there
  2. `rustup target add wasm32-unknown-unknown`
  3. on Debian, the packages rustc-web, libstd-rust-web-dev and rust-web-src (a compiler with its library source)
For the tests:
  Python packages (tests/e2e/python/requirements.txt) in a virtual environment under target/setup/venv;
  on Debian, the package python3-venv if Python lacks it
  npm packages (tests/e2e/node/package-lock.json) in tests/e2e/node/node_modules, without running their scripts

Debian packages are installed by apt-get, as root or through sudo. Nothing else outside the repository is touched.
A second run finds all of it there and takes a second. Delete target/setup to start over.";

const HELP_LINT: &str = "\
Check formatting, clippy warnings, licences and dependencies.

Usage: cargo xtask lint [--install-deny] [--advisories]

Runs `cargo fmt --check`, `cargo clippy` with warnings as errors, and, if cargo-deny is there, `cargo deny check` with
deny.toml (bans, licences, sources).

Options:
  --install-deny   first install cargo-deny from source (`cargo install --locked cargo-deny`: 5 to 10 minutes)
  --advisories     let cargo-deny also fetch and check the security advisory database (needs the internet)";

const HELP_BENCH: &str = "\
Run the benchmarks.

Usage: cargo xtask bench [ARGS..]

Builds the components, then runs `cargo bench --package nave-bench ARGS..` (criterion). Compare results only within one
run on one machine; reports are in target/criterion.

Examples:
  cargo xtask bench
  cargo xtask bench -- twin           the benchmarks whose names contain `twin`";

const HELP_SIMULATE: &str = "\
Simulate two hubs and their devices for longer than the tests do.

Usage: cargo xtask simulate [--seeds N] [--hours N] [--first-seed N]

Each seed is a world of its own in virtual time: two hosts and up to five devices with their services, through crashes, power
cuts, full and failing disks, lost connections between hosts, and clocks that jump. At its end everything that was promised is
compared with what is there, and the history of each twin is checked for linearizability. A seed that fails prints the command
that repeats it.

Options:
  --seeds N        how many worlds (4)
  --hours N        virtual hours of each (2)
  --first-seed N   the first seed (0)

Examples:
  cargo xtask simulate --seeds 1000 --hours 24";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let (command, rest) = match args.split_first() {
        None => ("help", &[][..]),
        Some((first, rest)) => (first.as_str(), rest),
    };
    // `serve --help` is for the binary: it has a help of its own that is worth reading.
    if command != "serve" && rest.iter().take_while(|a| *a != "--").any(|a| a == "--help" || a == "-h") {
        println!("{}", help_for(command)?);
        return Ok(());
    }
    match command {
        "help" | "--help" | "-h" => {
            println!("{}", rest.first().map_or(Ok(HELP), |topic| help_for(topic))?);
            Ok(())
        }
        "serve" => build::serve(&Workspace::find()?, rest),
        "test" => test::run(&Workspace::find()?, &test::Options::parse(rest)?),
        "build" => {
            no_arguments(command, rest)?;
            build::build(&Workspace::find()?)
        }
        "components" => {
            let choice = parse_components(rest)?;
            let workspace = Workspace::find()?;
            let toolchain = wasm_toolchain::obtain(&workspace, choice)?;
            components::build(&workspace, &toolchain)?;
            components::gateway(&workspace, &toolchain)
        }
        "policies" => {
            no_arguments(command, rest)?;
            let workspace = Workspace::find()?;
            let toolchain = step("WebAssembly toolchain", || wasm_toolchain::obtain(&workspace, Choice::Any))?;
            components::build(&workspace, &toolchain)?;
            build::binary(&workspace)?;
            policies::build(&workspace, &toolchain)
        }
        "generate" => {
            no_arguments(command, rest)?;
            generate::run(&Workspace::find()?)
        }
        "setup" => {
            no_arguments(command, rest)?;
            let workspace = Workspace::find()?;
            wasm_toolchain::obtain(&workspace, Choice::Any)?;
            test_env::python(&workspace)?;
            test_env::node(&workspace)
        }
        "lint" => lint::run(&Workspace::find()?, &lint::Options::parse(rest)?),
        "bench" => build::bench(&Workspace::find()?, rest),
        "simulate" => simulate::run(&Workspace::find()?, &simulate::Options::parse(rest)?),
        other => bail!("there is no command `{other}`; `cargo xtask help` lists them"),
    }
}

fn help_for(topic: &str) -> Result<&'static str> {
    Ok(match topic {
        "help" => HELP,
        "serve" => HELP_SERVE,
        "test" => HELP_TEST,
        "build" => HELP_BUILD,
        "components" => HELP_COMPONENTS,
        "policies" => HELP_POLICIES,
        "generate" => HELP_GENERATE,
        "setup" => HELP_SETUP,
        "lint" => HELP_LINT,
        "bench" => HELP_BENCH,
        "simulate" => HELP_SIMULATE,
        other => bail!("there is no command `{other}`; `cargo xtask help` lists them"),
    })
}

fn no_arguments(command: &str, rest: &[String]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => bail!("`{command}` takes no argument, but got `{extra}`; see `cargo xtask help {command}`"),
    }
}

fn parse_components(args: &[String]) -> Result<Choice> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => Ok(Choice::Any),
        ["--toolchain", "rustup"] => Ok(Choice::Rustup),
        ["--toolchain", "debian"] => Ok(Choice::Debian),
        ["--toolchain", ..] => bail!("--toolchain is `rustup` or `debian`"),
        [other, ..] => bail!("`components` takes no `{other}`; see `cargo xtask help components`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(args: &[&str]) -> Vec<String> {
        args.iter().map(|&a| a.to_owned()).collect()
    }

    #[test]
    fn every_command_that_the_help_lists_has_a_help_of_its_own() {
        let listed: Vec<&str> = HELP
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(
            listed,
            [
                "serve",
                "test",
                "build",
                "components",
                "policies",
                "generate",
                "setup",
                "lint",
                "bench",
                "simulate",
                "help"
            ]
        );
        for command in listed {
            help_for(command).unwrap();
        }
    }

    #[test]
    fn unknown_commands_and_options_are_refused() {
        assert!(run(&strings(&["deploy"])).is_err());
        assert!(run(&strings(&["build", "--fast"])).is_err());
        assert!(parse_components(&strings(&["--fast"])).is_err());
        assert!(parse_components(&strings(&["--toolchain", "gcc"])).is_err());
    }

    #[test]
    fn components_takes_a_toolchain() {
        assert_eq!(parse_components(&[]).unwrap(), Choice::Any);
        assert_eq!(parse_components(&strings(&["--toolchain", "debian"])).unwrap(), Choice::Debian);
    }
}
