//! `nave events`: what devices send.

use std::io::{BufRead as _, BufReader};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use nave_auth::percent_encode;
use serde_json::Value;

use crate::client::Target;
use crate::failure::Failure;
use crate::output::{self, Format, printable};

/// Seconds after which a stream that is not followed ends if nothing comes.
const QUIET_SECONDS: u64 = 1;

/// Longest line of the stream: a message of 256 KB in base64, its properties, and room.
const MAX_LINE: usize = 2 << 20;

/// Print device-to-cloud messages.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave events                                    what is there, oldest first
  nave events --follow                           what comes from now on; Ctrl-C ends it
  nave events --follow --from earliest --device thermostat-1
  nave events --from 2026-01-31T10:00:00Z --output json > events.ndjson
  nave events --partition 0 --from 1234          after the message with this offset")]
pub(crate) struct EventsArgs {
    /// Go on with new messages.
    #[arg(long, short)]
    follow: bool,
    /// earliest, latest, a time, or an offset of the partition [default: earliest, with --follow latest].
    #[arg(long)]
    from: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<u32>,
    /// Only this device.
    #[arg(long)]
    device: Option<String>,
    /// Name of the consumer group.
    #[arg(long, default_value = "$Default")]
    consumer_group: String,
    /// End after this many messages.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
pub(crate) fn run(args: &EventsArgs) -> Result<(), Failure> {
    let api = args.target.hub()?.hub_api()?;
    let from = args.from.as_deref().unwrap_or(if args.follow { "latest" } else { "earliest" });
    let mut path =
        format!("/events?consumerGroup={}&from={}", percent_encode(&args.consumer_group), percent_encode(from));
    if let Some(partition) = args.partition {
        path.push_str(&format!("&partition={partition}"));
    }
    if !args.follow {
        path.push_str(&format!("&maxWait={QUIET_SECONDS}"));
    }
    let mut lines = BufReader::new(api.stream(&path)?);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut line = Vec::new();
    while left > 0 {
        line.clear();
        let read =
            std::io::Read::take(&mut lines, u64::try_from(MAX_LINE).unwrap_or(u64::MAX)).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::Unreachable(format!("the stream broke: {error}. Does the hub still run?")))?
            == 0
        {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let event: Value = serde_json::from_str(text)
            .map_err(|error| Failure::runtime(format_args!("the stream is not what was expected: {error}")))?;
        if args.device.as_deref().is_some_and(|device| event.get("deviceId").and_then(Value::as_str) != Some(device)) {
            continue;
        }
        left -= 1;
        match args.target.output {
            Format::Json => output::line(text)?,
            Format::Table => output::line(&readable(&event))?,
        }
    }
    Ok(())
}

/// One message on one line.
fn readable(event: &Value) -> String {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
    let properties = event.get("properties").and_then(Value::as_object).into_iter().flatten();
    let properties: Vec<String> =
        properties.map(|(name, value)| printable(&format!("{name}={}", value.as_str().unwrap_or_default()))).collect();
    let device = match event.get("moduleId").and_then(Value::as_str) {
        Some(module) => format!("{}/{module}", text("deviceId")),
        None => text("deviceId").to_owned(),
    };
    let body = match STANDARD.decode(text("body")) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(body) => printable(&body),
            Err(error) => format!("({} bytes that are not text)", error.as_bytes().len()),
        },
        Err(_) => "(unreadable)".to_owned(),
    };
    let place = format!("{}:{}", number("partition"), number("sequenceNumber"));
    let mut line = format!("{}  {place:>8}  {}", text("enqueuedTime"), printable(&device));
    if !properties.is_empty() {
        line.push_str(&format!("  [{}]", properties.join(", ")));
    }
    format!("{line}  {body}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let event = |body: &[u8]| {
            readable(&json!({
                "partition": 3, "sequenceNumber": 14, "enqueuedTime": "T", "deviceId": "d", "properties": {"a": "1\n2"},
                "body": STANDARD.encode(body),
            }))
        };
        assert_eq!(event(b"{\"t\":\n1}"), "T      3:14  d  [a=1\\n2]  {\"t\":\\n1}");
        assert_eq!(event(&[0xff, 0]), "T      3:14  d  [a=1\\n2]  (2 bytes that are not text)");
    }
}
