//! The Nave program: `nave serve` runs a hub, the other commands manage one.
//!
//! * [`config`] turns file, environment and flags into one checked [`config::Config`].
//! * [`serve`] puts the parts of a hub together and takes them apart again.
//! * [`commands`] are the other commands; [`client`] is how they reach a hub.
//! * [`ready`] is the file by which programs on this machine find a running hub.
#![allow(
    clippy::disallowed_methods,
    reason = "the binary is the outside world: it owns threads, reads clocks, and hands both to everything else"
)]

mod cli;
mod client;
mod commands;
mod config;
mod failure;
mod files;
mod logging;
mod output;
mod ready;
mod serve;
mod ticker;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use config::Config;
use failure::Failure;

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nave: {failure}");
            failure.exit_code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => {
            let path = args.config.clone();
            let config = Config::load(path.as_deref(), args.overrides()).map_err(|error| match &path {
                Some(path) => Failure::usage(format_args!("{}: {error}", path.display())),
                None => Failure::usage(error),
            })?;
            let audit = config.audit_file.as_deref().map(logging::AuditFile::open).transpose().map_err(|error| {
                let path = config.audit_file.as_deref().unwrap_or(Path::new(""));
                Failure::usage(format_args!("audit.file: {}: {error}", path.display()))
            })?;
            logging::start(config.log_level, config.log_format, audit.clone());
            for (name, _) in std::env::vars_os() {
                if let Some(meant) = name.to_str().and_then(cli::misspelled) {
                    tracing::warn!("the environment variable {} does not exist: did you mean {meant}?", name.display());
                }
            }
            serve::serve(&config, audit.as_ref())
        }
        Command::Hub(args) => commands::hub::run(&args),
        Command::Device(args) => commands::device::run(&args),
        Command::Module(args) => commands::module::run(&args),
        Command::Twin(args) => commands::twin::run(&args),
        Command::Method(args) => commands::method::run(&args),
        Command::Enrollment(args) => commands::enrollment::run(&args),
        Command::Registration(args) => commands::registration::run(&args),
        Command::Events(args) => commands::events::run(&args),
        Command::Ca(args) => commands::ca::run(&args),
        Command::Policy(args) => commands::policy::run(&args),
        Command::Simulate(args) => commands::simulate::run(&args),
        Command::Hosts(args) => commands::hosts::run(&args),
    }
}
