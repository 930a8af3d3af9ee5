//! `nave config`: what is in force, and where each value came from.

use clap::{ArgMatches, Args, Subcommand};
use serde_json::Value;

use crate::cli::ConfigArgs;
use crate::client::{Http, Method};
use crate::config::explain::{Entry, with_id_scope};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::ready::Ready;
use crate::serve::Settings;

/// Show the configuration, or check it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave config show --config /etc/nave/nave.toml     what `nave serve` with the same flags would use
  nave config show --running                        what the running hub uses, since its last reload
  nave config show -o json
  nave config check --config /etc/nave/nave.toml    only whether it is right; exit code 2 if not

Keys of access policies and of certificates are not part of it; `nave hub connection-string`
prints the former.")]
pub(crate) struct ConfigCommandArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every key, its value, and whether it is a default or came from the file, the environment or a flag.
    Show {
        /// Of the hub that runs with this data directory.
        #[arg(long)]
        running: bool,
        /// How the list is printed.
        #[arg(long, short, env = "NAVE_OUTPUT", value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        config: Box<ConfigArgs>,
    },
    /// Read the configuration and say what is wrong with it.
    Check {
        #[command(flatten)]
        config: Box<ConfigArgs>,
    },
}

/// Runs the command; `given` are its matches.
pub(crate) fn run(args: &ConfigCommandArgs, given: &ArgMatches) -> Result<(), Failure> {
    let given = given.subcommand().map(|(_, given)| given.clone()).unwrap_or_default();
    match &args.command {
        ConfigCommand::Show { running, output, config } => {
            let (parsed, entries) = config.load(&given)?;
            let entries = if *running {
                of_running(&parsed.data_dir)?
            } else {
                let settings = Settings::read(&parsed.data_dir).ok().flatten();
                let scope = settings.and_then(|settings| settings.id_scope().ok());
                let entries = with_id_scope(entries, scope.as_ref().map(nave_model::IdScope::as_str));
                entries.iter().map(Entry::json).collect()
            };
            output::list(*output, &entries, &[("KEY", "/key"), ("VALUE", "/value"), ("FROM", "/from")])
        }
        ConfigCommand::Check { config } => {
            let (parsed, _) = config.load(&given)?;
            let names: Vec<&str> = parsed.hubs.iter().map(|hub| hub.name.as_str()).collect();
            output::line(&format!("the configuration can be used: hubs {}", names.join(", ")))
        }
    }
}

fn of_running(data_dir: &std::path::Path) -> Result<Vec<Value>, Failure> {
    let ready = Ready::read(data_dir).map_err(|error| Failure::Unreachable(error.to_string()))?;
    let admin = ready.admin.ok_or_else(|| {
        Failure::Unreachable("the hub has no admin API (`listen.admin` is off), so it cannot be asked".to_owned())
    })?;
    let answer = Http::admin(&admin).send(Method::Get, "/admin/configuration", &[], None)?;
    match answer.body {
        Value::Array(entries) => Ok(entries),
        _ => Err(Failure::runtime("the hub did not answer with a list")),
    }
}
