//! `nave registration`: devices that the provisioning service has assigned.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::input::segment;
use crate::client::{Http, Method, Target};
use crate::failure::Failure;
use crate::output;

/// Most pages of one listing; a million registrations fit.
const MAX_PAGES: usize = 10_000;

/// Registrations that one page holds.
const PAGE: &str = "100";

/// Show and delete registrations.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave registration show thermostat-1
  nave registration list my-group
  nave registration delete thermostat-1     the device stays in its hub and may register again")]
pub(crate) struct RegistrationArgs {
    #[command(subcommand)]
    command: RegistrationCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum RegistrationCommand {
    /// Show a device's registration.
    Show {
        /// The registration id.
        id: String,
    },
    /// List the registrations of an enrollment group.
    List {
        /// The group.
        group: String,
    },
    /// Forget registrations.
    Delete {
        /// The registration ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Runs the command.
pub(crate) fn run(args: &RegistrationArgs) -> Result<(), Failure> {
    let api = args.target.provisioning()?.dps_api()?;
    let format = args.target.output;
    match &args.command {
        RegistrationCommand::Show { id } => {
            output::one(format, &api.send(Method::Get, &format!("/registrations/{}", segment(id)), &[], None)?.body)
        }
        RegistrationCommand::List { group } => {
            let items = query(&api, &format!("/registrations/{}/query", segment(group)), None)?;
            let columns = [
                ("REGISTRATION", "/registrationId"),
                ("STATUS", "/status"),
                ("HUB", "/assignedHub"),
                ("DEVICE", "/deviceId"),
                ("UPDATED", "/lastUpdatedDateTimeUtc"),
            ];
            output::list(format, &items, &columns)
        }
        RegistrationCommand::Delete { ids } => {
            for id in ids {
                api.send(Method::Delete, &format!("/registrations/{}", segment(id)), &[], None)?;
                eprintln!("deleted {id}");
            }
            Ok(())
        }
    }
}

/// All pages of a query.
pub(super) fn query(api: &Http, path: &str, body: Option<&Value>) -> Result<Vec<Value>, Failure> {
    let mut items = Vec::new();
    let mut continuation: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let mut headers = vec![("x-ms-max-item-count", PAGE)];
        if let Some(token) = &continuation {
            headers.push(("x-ms-continuation", token));
        }
        let reply = api.send(Method::Post, path, &headers, body)?;
        if let Value::Array(page) = reply.body {
            items.extend(page);
        }
        continuation = reply.continuation;
        if continuation.is_none() {
            return Ok(items);
        }
    }
    Err(Failure::runtime("the list does not end"))
}
