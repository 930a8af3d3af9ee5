//! `nave method`: calling methods of devices.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::input::{identity_path, json};
use crate::client::{Method, Target};
use crate::failure::Failure;
use crate::output;

/// Call methods of devices.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave method call thermostat-1 reboot
  nave method call thermostat-1 setSpeed --payload '{\"rpm\": 900}'
  nave method call thermostat-1 reboot --connect-timeout 60    waits up to a minute for the device to connect")]
pub(crate) struct MethodArgs {
    #[command(subcommand)]
    command: MethodCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum MethodCommand {
    /// Call a method and print the device's answer.
    Call {
        /// The device, or DEVICE/MODULE.
        id: String,
        /// The method.
        method: String,
        /// JSON: an argument, @FILE, or - for standard input.
        #[arg(long, short)]
        payload: Option<String>,
        /// Seconds to wait for the answer, 5 to 300.
        #[arg(long, default_value_t = 30)]
        timeout: u32,
        /// Seconds to wait for the device to connect, up to 300.
        #[arg(long, default_value_t = 0)]
        connect_timeout: u32,
    },
}

/// Runs the command.
pub(crate) fn run(args: &MethodArgs) -> Result<(), Failure> {
    let api = args.target.hub()?.hub_api()?;
    let MethodCommand::Call { id, method, payload, timeout, connect_timeout } = &args.command;
    let payload = payload.as_deref().map_or(Ok(Value::Null), json)?;
    let body = json!({
        "methodName": method,
        "payload": payload,
        "responseTimeoutInSeconds": timeout,
        "connectTimeoutInSeconds": connect_timeout,
    });
    let answer = api.send(Method::Post, &format!("/twins/{}/methods", identity_path(id)), &[], Some(&body))?.body;
    output::one(args.target.output, &answer)
}
