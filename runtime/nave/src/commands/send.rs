//! `nave send`: cloud-to-device messages.

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nave_hub::{MAX_DEVICE_BOUND_BYTES, MAX_TIME_TO_LIVE};
use nave_model::Timestamp;
use serde_json::json;

use super::input::segment;
use crate::client::Target;
use crate::failure::Failure;
use crate::output;

/// Send a message to a device.
///
/// The message waits in the device's queue until the device takes it: over MQTT when it is subscribed to
/// `devices/{id}/messages/devicebound/#`, over HTTPS when it asks. A queue holds 50 messages.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave send thermostat-1 'open the window'
  nave send thermostat-1 '{\"rpm\": 900}' --content-type application/json --property kind=speed
  nave send thermostat-1 @firmware.bin --property version=7 --expires-in 600     forgotten after ten minutes
  echo hello | nave send thermostat-1 -

What became of a message can be read as feedback, if it was asked for:
  nave send thermostat-1 hello --ack full --message-id m-1
  nave feedback

Empty a device's queue:
  nave send thermostat-1 --purge")]
pub(crate) struct SendArgs {
    /// The device.
    id: String,
    /// The message: text, @FILE, or - for standard input [default: an empty message].
    #[arg(conflicts_with = "purge")]
    body: Option<String>,
    /// An application property, NAME=VALUE. Names arrive in lower case. May be repeated.
    #[arg(long = "property", short, value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// The feedback to be kept.
    #[arg(long, value_enum)]
    ack: Option<Feedback>,
    /// Seconds after which the message is no longer worth delivering, up to two days [default: the hub's, one hour].
    #[arg(long, value_name = "SECONDS", conflicts_with = "expires_at")]
    expires_in: Option<u64>,
    /// The same as a time, such as 2026-01-31T10:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// The message's id [default: made by the hub].
    #[arg(long)]
    message_id: Option<String>,
    /// An id that connects it with another message.
    #[arg(long)]
    correlation_id: Option<String>,
    /// Media type of the message, for the device.
    #[arg(long)]
    content_type: Option<String>,
    /// Character encoding of the message, for the device.
    #[arg(long)]
    content_encoding: Option<String>,
    /// Send nothing: remove all messages from the device's queue.
    #[arg(long, conflicts_with_all = ["properties", "ack", "expires_in", "expires_at", "message_id", "correlation_id"])]
    purge: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, ValueEnum)]
enum Feedback {
    /// When the device has taken it.
    Positive,
    /// When it came to nothing.
    Negative,
    /// Either way.
    Full,
}

/// Runs the command.
pub(crate) fn run(args: &SendArgs) -> Result<(), Failure> {
    let api = args.target.hub()?.hub_api()?;
    if args.purge {
        let path = format!("/devices/{}/commands", segment(&args.id));
        return output::one(args.target.output, &api.send(crate::client::Method::Delete, &path, &[], None)?.body);
    }
    let headers = headers(args, crate::serve::now())?;
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let path = format!("/devices/{}/messages/deviceBound", segment(&args.id));
    let id = api.post_bytes(&path, &headers, body(args.body.as_deref())?, "iothub-messageid")?;
    output::one(args.target.output, &json!({ "deviceId": args.id, "messageId": id }))
}

/// The properties, in the form in which a device reads them over HTTPS.
fn headers(args: &SendArgs, now: Timestamp) -> Result<Vec<(String, String)>, Failure> {
    let mut headers = Vec::new();
    for property in &args.properties {
        let Some((name, value)) = property.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Failure::usage(format_args!("`{property}` is not NAME=VALUE")));
        };
        headers.push((format!("iothub-app-{name}"), value.to_owned()));
    }
    let expires = match (&args.expires_in, &args.expires_at) {
        (Some(seconds), _) => {
            let life = Duration::from_secs(*seconds);
            if life.is_zero() || life > MAX_TIME_TO_LIVE {
                let most = MAX_TIME_TO_LIVE.as_secs();
                return Err(Failure::usage(format_args!("--expires-in is between 1 and {most} seconds")));
            }
            Some(now.after(life))
        }
        (None, Some(text)) => Some(Timestamp::parse_iso(text).ok_or_else(|| {
            Failure::usage(format_args!("--expires-at: `{text}` is not a time in UTC such as 2026-01-31T10:00:00Z"))
        })?),
        (None, None) => None,
    };
    let ack = args.ack.map(|ack| match ack {
        Feedback::Positive => "positive".to_owned(),
        Feedback::Negative => "negative".to_owned(),
        Feedback::Full => "full".to_owned(),
    });
    let system = [
        ("iothub-expiry", expires.map(Timestamp::iso)),
        ("iothub-ack", ack),
        ("iothub-messageid", args.message_id.clone()),
        ("iothub-correlationid", args.correlation_id.clone()),
        ("iothub-contenttype", args.content_type.clone()),
        ("iothub-contentencoding", args.content_encoding.clone()),
    ];
    headers.extend(system.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(headers)
}

/// Bytes: text as it is, the content of a file after `@`, or standard input for `-`.
fn body(argument: Option<&str>) -> Result<Vec<u8>, Failure> {
    let Some(argument) = argument else { return Ok(Vec::new()) };
    // One byte more than is possible, so that the hub says what is too much.
    let limit = MAX_DEVICE_BOUND_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = match argument.strip_prefix('@') {
        _ if argument == "-" => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
        None => return Ok(argument.as_bytes().to_vec()),
    };
    read.map_err(|error| Failure::usage(format_args!("cannot read {argument}: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: SendArgs,
    }

    fn parsed(words: &[&str]) -> SendArgs {
        Wrapped::try_parse_from(["send"].iter().chain(words))
            .map(|wrapped| wrapped.args)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn options_become_headers() {
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let args = parsed(&["d", "hi", "-p", "a=1=2", "--ack", "full", "--expires-in", "60", "--message-id", "m"]);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            headers(&args, now).unwrap(),
            [
                header("iothub-app-a", "1=2"),
                header("iothub-expiry", "2026-09-21T14:14:20.0000000Z"),
                header("iothub-ack", "full"),
                header("iothub-messageid", "m"),
            ]
        );
        for wrong in ["-px", "--expires-in=0", "--expires-in=999999", "--expires-at=x"] {
            assert!(matches!(headers(&parsed(&["d", wrong]), now), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_text_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        std::fs::write(&path, [0, 255]).unwrap();
        assert_eq!(body(Some(&format!("@{}", path.display()))).unwrap(), [0, 255]);
        assert_eq!((body(Some("hi")).unwrap(), body(None).unwrap()), (b"hi".to_vec(), Vec::new()));
        assert!(matches!(body(Some("@/does/not/exist")), Err(Failure::Usage(_))));
    }
}
