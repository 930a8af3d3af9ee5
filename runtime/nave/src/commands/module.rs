//! `nave module`: the modules of devices.

use clap::{Args, Subcommand};
use serde_json::json;

use super::identity::{
    COLUMNS, ConnectionStringOptions, Credentials, KeyOptions, connection_string, delete, get, keys, path, set,
};
use crate::client::{Method, Target};
use crate::failure::Failure;
use crate::output;

/// Create, show and delete modules. A module is written as DEVICE/MODULE.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave module create gateway-1/camera                   with generated keys
  nave module connection-string gateway-1/camera        for the module's program
  nave module list gateway-1
  nave twin patch gateway-1/camera --desired '{\"zoom\": 2}'
  nave method call gateway-1/camera reboot
  nave module keys gateway-1/camera --regenerate both")]
pub(crate) struct ModuleArgs {
    #[command(subcommand)]
    command: ModuleCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum ModuleCommand {
    /// Create a module; without options it gets two keys.
    Create {
        /// DEVICE/MODULE.
        id: String,
        #[command(flatten)]
        credentials: Credentials,
        /// Who manages it, for people.
        #[arg(long)]
        managed_by: Option<String>,
    },
    /// Show a module, keys included.
    Show {
        /// DEVICE/MODULE.
        id: String,
    },
    /// List the modules of a device.
    List {
        /// The device.
        device: String,
    },
    /// Delete modules. Their sessions end.
    Delete {
        /// DEVICE/MODULE, of each.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Print what the module's program connects with. It contains a key.
    ConnectionString {
        /// DEVICE/MODULE.
        id: String,
        #[command(flatten)]
        options: ConnectionStringOptions,
    },
    /// Show a module's keys, or replace them. With a replaced key its session ends.
    Keys {
        /// DEVICE/MODULE.
        id: String,
        #[command(flatten)]
        options: KeyOptions,
    },
}

/// Runs the command.
pub(crate) fn run(args: &ModuleArgs) -> Result<(), Failure> {
    let endpoint = args.target.hub()?;
    let api = endpoint.hub_api()?;
    let format = args.target.output;
    match &args.command {
        ModuleCommand::Create { id, credentials, managed_by } => {
            let mut module = json!({ "managedBy": managed_by });
            if let Some(authentication) = credentials.document()? {
                set(&mut module, "authentication", authentication);
            }
            output::one(format, &api.send(Method::Put, &path(named(id)?), &[], Some(&module))?.body)
        }
        ModuleCommand::Show { id } => output::one(format, &get(&api, named(id)?)?),
        ModuleCommand::List { device } => {
            let modules = api.send(Method::Get, &format!("{}/modules", path(device)), &[], None)?.body;
            let columns = [("MODULE", "/moduleId"), ("MANAGED BY", "/managedBy")];
            output::list(
                format,
                modules.as_array().map(Vec::as_slice).unwrap_or_default(),
                &[&columns[..], &COLUMNS].concat(),
            )
        }
        ModuleCommand::Delete { ids } => {
            ids.iter().try_for_each(|id| named(id).map(drop))?;
            delete(&api, ids)
        }
        ModuleCommand::ConnectionString { id, options } => {
            connection_string(&endpoint, &api, named(id)?, options, format)
        }
        ModuleCommand::Keys { id, options } => keys(&api, named(id)?, options, format),
    }
}

/// Refuses what names a device: its module would be forgotten, and the device shown, or deleted, instead.
fn named(id: &str) -> Result<&str, Failure> {
    match id.split_once('/') {
        Some((device, module)) if !device.is_empty() && !module.is_empty() && !module.contains('/') => Ok(id),
        _ => Err(Failure::usage(format_args!("{id} is no module: write DEVICE/MODULE"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_not_taken_for_its_module() {
        for bad in ["d", "d/", "/m", "d/m/x", ""] {
            assert!(matches!(named(bad), Err(Failure::Usage(_))), "{bad}");
        }
        assert_eq!(path(named("d#/m").unwrap()), "/devices/d%23/modules/m");
        assert_eq!(path("d"), "/devices/d");
    }
}
