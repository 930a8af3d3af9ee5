//! `nave device`: the devices of a hub.

use clap::{Args, Subcommand};
use serde_json::json;

use super::identity::{
    COLUMNS, ConnectionStringOptions, Credentials, KeyOptions, change, connection_string, delete, get, keys, path, set,
};
use crate::client::{Method, Target};
use crate::failure::Failure;
use crate::output;

/// Create, show, change and delete devices.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave device create thermostat-1                       with generated keys
  nave device connection-string thermostat-1            for the device's program
  nave device create gateway-1 --thumbprint 0123...     self-signed certificate (SHA-1 or SHA-256)
  nave device create pump-1 --ca-signed                 certificate signed by a CA of `nave ca`
  nave device list --output json
  nave device update thermostat-1 --disable --reason \"stolen\"
  nave device keys thermostat-1 --regenerate secondary")]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    command: DeviceCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// Create a device; without options it gets two keys.
    Create {
        /// Its id.
        id: String,
        #[command(flatten)]
        credentials: Credentials,
        /// Refuse it for now.
        #[arg(long)]
        disabled: bool,
    },
    /// Show a device, keys included.
    Show {
        /// Its id.
        id: String,
    },
    /// List devices (up to 1,000).
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1000)]
        top: u32,
    },
    /// Enable or disable a device. A disabled one is disconnected.
    Update {
        /// Its id.
        id: String,
        /// Let it connect.
        #[arg(long, conflicts_with = "disable", required_unless_present_any = ["disable", "reason"])]
        enable: bool,
        /// Refuse it.
        #[arg(long)]
        disable: bool,
        /// Why, for people.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Delete devices. Their sessions end.
    Delete {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Print what the device's program connects with. It contains a key.
    ConnectionString {
        /// Its id.
        id: String,
        #[command(flatten)]
        options: ConnectionStringOptions,
    },
    /// Show a device's keys, or replace them. With a replaced key its session ends.
    Keys {
        /// Its id.
        id: String,
        #[command(flatten)]
        options: KeyOptions,
    },
}

/// Runs the command.
pub(crate) fn run(args: &DeviceArgs) -> Result<(), Failure> {
    let endpoint = args.target.hub()?;
    let api = endpoint.hub_api()?;
    let format = args.target.output;
    match &args.command {
        DeviceCommand::Create { id, credentials, disabled } => {
            let mut device = json!({ "deviceId": id, "status": if *disabled { "disabled" } else { "enabled" } });
            if let Some(authentication) = credentials.document()? {
                set(&mut device, "authentication", authentication);
            }
            let created = api.send(Method::Put, &path(id), &[], Some(&device))?.body;
            output::one(format, &created)
        }
        DeviceCommand::Show { id } => output::one(format, &get(&api, id)?),
        DeviceCommand::List { top } => {
            let devices = api.send(Method::Get, &format!("/devices?top={top}"), &[], None)?.body;
            let columns = [("DEVICE", "/deviceId"), ("STATUS", "/status")];
            output::list(
                format,
                devices.as_array().map(Vec::as_slice).unwrap_or_default(),
                &[&columns[..], &COLUMNS].concat(),
            )
        }
        DeviceCommand::Update { id, enable, disable, reason } => {
            let updated = change(&api, id, |device| {
                if *enable || *disable {
                    set(device, "status", json!(if *disable { "disabled" } else { "enabled" }));
                }
                if let Some(reason) = reason {
                    set(device, "statusReason", json!(reason));
                }
                Ok(())
            })?;
            output::one(format, &updated)
        }
        DeviceCommand::Delete { ids } => delete(&api, ids),
        DeviceCommand::ConnectionString { id, options } => connection_string(&endpoint, &api, id, options, format),
        DeviceCommand::Keys { id, options } => keys(&api, id, options, format),
    }
}
