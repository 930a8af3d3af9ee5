//! `nave policy`: allocation policies that people write themselves.

mod cases;
mod check;
mod component;
mod deploy;
mod document;
mod new;
mod record;
mod sandbox;
mod simulate;
mod source;
mod test;

use clap::{Args, Subcommand};

use crate::client::Target;
use crate::failure::Failure;

/// Write, try and deploy allocation policies.
///
/// A policy is a WebAssembly component with one function, which chooses the hub for each device that registers. It may be
/// written in any language that makes components; there are templates for Rust, JavaScript, Python and C. An enrollment
/// uses it with the allocation policy `custom` and the web hook address nave:policy/NAME, or nave:policy/NAME@VERSION.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy new by-site --lang rust        a project with an example, tests and the interface
  nave policy check policy.wasm              what it is, and whether a hub would take it
  nave policy test policy.wasm --cases cases
  nave policy simulate policy.wasm --devices 100000 --hubs hubs.toml
  nave policy push policy.wasm --name by-site --activate     the first version, into the hub
  nave enrollment create fleet --group --webhook nave:policy/by-site
  nave policy push policy.wasm --name by-site --version 1.1
  nave policy activate by-site 1.1 --canary 10               for a tenth of the devices
  nave policy show by-site                                   what each version decided, and what failed
  nave policy activate by-site 1.1                           for all of them
  nave policy rollback by-site                               back to the version before
  nave policy set by-site --debug on                         what it writes goes into the hub's log")]
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
    /// Compare a policy's outcomes with expected ones, or record what a running hub asks it.
    Test(test::Test),
    /// Let a policy place many devices, and see what moves when a hub is added or removed.
    Simulate(simulate::Simulate),
    /// Make a component of a core module that exports the functions of the interface (what clang links).
    Component(component::Component),
    /// Store a version of a policy in the hub, from a file, a web server or an OCI registry; or store it in a registry.
    Push(deploy::Push),
    /// Write a component from an OCI registry or a web server into a file.
    Pull(source::Pull),
    /// List the policies of the hub.
    List,
    /// Show a policy: its versions, which of them decide, what they decided.
    Show(deploy::Show),
    /// Let a version decide, for all devices or for a share of them.
    Activate(deploy::Activate),
    /// End a trial, or go back to the version that decided before.
    Rollback(deploy::Rollback),
    /// Change what a policy may take, and whether what it writes goes into the log.
    Set(deploy::Set),
    /// Write the component of a version into a file.
    Download(deploy::Download),
    /// Delete a version, or a policy with all of them.
    Delete(deploy::Delete),
}

/// Runs the command.
pub(crate) fn run(args: &PolicyArgs) -> Result<(), Failure> {
    let (target, format) = (&args.target, args.target.output);
    match &args.command {
        PolicyCommand::New(args) => new::run(args),
        PolicyCommand::Check(args) => check::run(args, format),
        PolicyCommand::Test(args) => test::run(args, target),
        PolicyCommand::Simulate(args) => simulate::run(args, format),
        PolicyCommand::Component(args) => component::run(args),
        PolicyCommand::Push(args) => deploy::push(args, target),
        PolicyCommand::Pull(args) => source::pull(args, format),
        PolicyCommand::List => deploy::list(target),
        PolicyCommand::Show(args) => deploy::show(args, target),
        PolicyCommand::Activate(args) => deploy::activate(args, target),
        PolicyCommand::Rollback(args) => deploy::roll_back(args, target),
        PolicyCommand::Set(args) => deploy::set(args, target),
        PolicyCommand::Download(args) => deploy::download(args, target),
        PolicyCommand::Delete(args) => deploy::delete(args, target),
    }
}
