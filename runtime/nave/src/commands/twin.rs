//! `nave twin`: tags, desired and reported properties.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::input::{identity_path, json, quoted};
use crate::client::{Method, Target};
use crate::failure::Failure;
use crate::output;

/// Show and change twins.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave twin show thermostat-1
  nave twin show gateway-1/camera                       of a module
  nave twin patch thermostat-1 --desired '{\"interval\": 30}'
  nave twin patch thermostat-1 --tags '{\"floor\": 2}' --desired @desired.json
  nave twin patch thermostat-1 --desired '{\"interval\": null}'     removes the property
  nave twin replace thermostat-1 --tags '{}' --desired '{\"a\": 1}'
JSON is an argument, @FILE, or - for standard input.")]
pub(crate) struct TwinArgs {
    #[command(subcommand)]
    command: TwinCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum TwinCommand {
    /// Show a device's twin.
    Show {
        /// The device, or DEVICE/MODULE.
        id: String,
    },
    /// Merge: what is named changes, null removes, the rest stays.
    Patch(Change),
    /// Replace whole sections: those that are named, tags and desired properties.
    Replace(Change),
}

#[derive(Args)]
struct Change {
    /// The device, or DEVICE/MODULE.
    id: String,
    /// Tags, JSON.
    #[arg(long, required_unless_present = "desired")]
    tags: Option<String>,
    /// Desired properties, JSON.
    #[arg(long)]
    desired: Option<String>,
    /// Only if the twin still has this ETag.
    #[arg(long)]
    etag: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &TwinArgs) -> Result<(), Failure> {
    let api = args.target.hub()?.hub_api()?;
    let (method, change) = match &args.command {
        TwinCommand::Show { id } => {
            let twin = api.send(Method::Get, &path(id), &[], None)?.body;
            return output::one(args.target.output, &twin);
        }
        TwinCommand::Patch(change) => (Method::Patch, change),
        TwinCommand::Replace(change) => (Method::Put, change),
    };
    let mut body = Map::new();
    if let Some(tags) = &change.tags {
        body.insert("tags".to_owned(), json(tags)?);
    }
    if let Some(desired) = &change.desired {
        body.insert("properties".to_owned(), json!({ "desired": json(desired)? }));
    }
    let etag = quoted(change.etag.as_deref().unwrap_or("*"));
    let twin = api.send(method, &path(&change.id), &[("if-match", &etag)], Some(&Value::Object(body)))?.body;
    output::one(args.target.output, &twin)
}

fn path(id: &str) -> String {
    format!("/twins/{}", identity_path(id))
}
