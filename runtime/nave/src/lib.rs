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

mod backup;
mod cli;
mod client;
mod commands;
mod config;
mod failure;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod https;
mod inspect;
mod logging;
mod output;
mod ready;
mod serve;
mod ticker;
mod traces;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use cli::{Cli, Command};
use failure::Failure;

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // The sub-command's own matches say which of its values were given where.
    let given = matches.subcommand().map(|(_, given)| given.clone()).unwrap_or_default();
    match execute(cli, &given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nave: {failure}");
            failure.exit_code()
        }
    }
}

fn execute(cli: Cli, given: &clap::ArgMatches) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => {
            let sources = cli::sources(given);
            let (config, entries) = args.config.load_from(&sources)?;
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
            serve::serve(serve::Configured { args: args.config, sources, config, entries, audit })
        }
        Command::Hub(args) => commands::hub::run(&args),
        Command::Device(args) => commands::device::run(&args),
        Command::Module(args) => commands::module::run(&args),
        Command::Twin(args) => commands::twin::run(&args),
        Command::Method(args) => commands::method::run(&args),
        Command::Send(args) => commands::send::run(&args),
        Command::Feedback(args) => commands::feedback::run(&args),
        Command::Enrollment(args) => commands::enrollment::run(&args),
        Command::Registration(args) => commands::registration::run(&args),
        Command::Events(args) => commands::events::run(&args),
        Command::Ca(args) => commands::ca::run(&args),
        Command::Policy(args) => commands::policy::run(&args),
        Command::Simulate(args) => commands::simulate::run(&args),
        Command::Hosts(args) => commands::hosts::run(&args),
        Command::Config(args) => commands::config::run(&args, given),
        Command::Status(args) => commands::status::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args, given),
        Command::Reload(args) => commands::reload::run(&args),
        Command::Backup(args) => commands::backup::run(&args),
        Command::Restore(args) => commands::restore::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man(args) => commands::man::run(&args),
    }
}
