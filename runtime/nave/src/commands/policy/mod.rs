//! `nave policy`: allocation policies that people write themselves.

mod cases;
mod check;
mod component;
mod document;
mod new;
mod sandbox;
mod simulate;
mod test;

use clap::{Args, Subcommand};

use crate::client::Target;
use crate::failure::Failure;

/// Write and try allocation policies.
///
/// A policy is a WebAssembly component with one function, which chooses the hub for each device that registers. It may be
/// written in any language that makes components; there are templates for Rust, JavaScript, Python and C.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy new by-site --lang rust        a project with an example, tests and the interface
  nave policy check policy.wasm              what it is, and whether a hub would take it
  nave policy test policy.wasm --cases cases
  nave policy simulate policy.wasm --devices 100000 --hubs hubs.toml")]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Start a project: an example policy, its tests, and what builds it.
    New(new::New),
    /// Say what a component is and whether a hub would take it.
    Check(check::Check),
    /// Compare a policy's outcomes with expected ones.
    Test(test::Test),
    /// Let a policy place many devices, and see what moves when a hub is added or removed.
    Simulate(simulate::Simulate),
    /// Make a component of a core module that exports the functions of the interface (what clang links).
    Component(component::Component),
}

/// Runs the command.
pub(crate) fn run(args: &PolicyArgs) -> Result<(), Failure> {
    let format = args.target.output;
    match &args.command {
        PolicyCommand::New(args) => new::run(args),
        PolicyCommand::Check(args) => check::run(args, format),
        PolicyCommand::Test(args) => test::run(args, format),
        PolicyCommand::Simulate(args) => simulate::run(args, format),
        PolicyCommand::Component(args) => component::run(args),
    }
}
