//! `nave feedback`: what became of messages to devices.

use clap::Args;
use serde_json::Value;

use crate::client::{Method, Target};
use crate::failure::Failure;
use crate::output;

/// Print what became of messages that were sent with `--ack`, and forget it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave feedback
  nave feedback --keep                 leaves it for other readers
  nave feedback --output json

Outcomes: Success, Expired, DeliveryCountExceeded, Rejected, Purged. Feedback that nobody reads
is kept for an hour.")]
pub(crate) struct FeedbackArgs {
    /// Print and keep it.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    target: Target,
}

const PATH: &str = "/messages/serviceBound/feedback";

/// Most batches that are printed at once.
const MAX_BATCHES: usize = 1_000;

/// Runs the command.
pub(crate) fn run(args: &FeedbackArgs) -> Result<(), Failure> {
    let api = args.target.hub()?.hub_api()?;
    let (mut records, mut tokens) = (Vec::new(), Vec::new());
    while tokens.len() < MAX_BATCHES {
        let reply = api.send(Method::Get, PATH, &[], None)?;
        let Some(token) = reply.etag else { break };
        records.extend(reply.body.as_array().cloned().unwrap_or_default());
        tokens.push(token);
    }
    let columns = [
        ("TIME", "/enqueuedTimeUtc"),
        ("DEVICE", "/deviceId"),
        ("MESSAGE", "/originalMessageId"),
        ("OUTCOME", "/statusCode"),
    ];
    let printed = output::list(args.target.output, &records, &columns);
    // What was printed is done; what could not be printed, or is to be kept, goes back.
    for token in tokens {
        let path = format!("{PATH}/{}", token.trim_matches('"'));
        match args.keep || printed.is_err() {
            true => api.send(Method::Post, &format!("{path}/abandon"), &[], Some(&Value::Null))?,
            false => api.send(Method::Delete, &path, &[], None)?,
        };
    }
    printed
}
