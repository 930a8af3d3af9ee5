//! `nave device`: the devices of a hub.

use clap::{Args, Subcommand, ValueEnum};
use nave_auth::{ConnectionString, Credential, DEVICE_KEY_LENGTH, SharedKey};
use nave_model::{DeviceId, HostName, Identity};
use serde_json::{Value, json};

use super::input::{quoted, segment};
use crate::client::{Http, Method, Target, random};
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
        /// Primary key, base64 [default: generated].
        #[arg(long, requires = "secondary_key")]
        primary_key: Option<String>,
        /// Secondary key, base64.
        #[arg(long, requires = "primary_key")]
        secondary_key: Option<String>,
        /// Thumbprint of its self-signed certificate; twice for a second one.
        #[arg(long = "thumbprint", num_args = 1, conflicts_with_all = ["primary_key", "ca_signed"])]
        thumbprints: Vec<String>,
        /// Its certificate is signed by a CA that the hub knows.
        #[arg(long, conflicts_with = "primary_key")]
        ca_signed: bool,
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
        /// Use the secondary key.
        #[arg(long)]
        secondary: bool,
        /// The host name to put in, one of the hub's names.
        #[arg(long)]
        host_name: Option<String>,
    },
    /// Show a device's keys, or replace them. With a replaced key its session ends.
    Keys {
        /// Its id.
        id: String,
        /// Which one to replace.
        #[arg(long, value_enum)]
        regenerate: Option<WhichKey>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum WhichKey {
    Primary,
    Secondary,
    Both,
}

/// Runs the command.
pub(crate) fn run(args: &DeviceArgs) -> Result<(), Failure> {
    let endpoint = args.target.hub()?;
    let api = endpoint.hub_api()?;
    let format = args.target.output;
    match &args.command {
        DeviceCommand::Create { id, primary_key, secondary_key, thumbprints, ca_signed, disabled } => {
            let mut device = json!({ "deviceId": id, "status": if *disabled { "disabled" } else { "enabled" } });
            let authentication = match (primary_key, thumbprints.as_slice(), ca_signed) {
                (_, [], true) => Some(json!({ "type": "certificateAuthority" })),
                (Some(primary), [], false) => Some(
                    json!({ "type": "sas", "symmetricKey": { "primaryKey": primary, "secondaryKey": secondary_key } }),
                ),
                (None, [], false) => None,
                (_, [first], _) => {
                    Some(json!({ "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": first } }))
                }
                (_, [first, second], _) => Some(json!({
                    "type": "selfSigned",
                    "x509Thumbprint": { "primaryThumbprint": first, "secondaryThumbprint": second }
                })),
                _ => return Err(Failure::usage("a device has at most two thumbprints")),
            };
            if let (Some(authentication), Some(members)) = (authentication, device.as_object_mut()) {
                members.insert("authentication".to_owned(), authentication);
            }
            let created = api.send(Method::Put, &path(id), &[], Some(&device))?.body;
            output::one(format, &created)
        }
        DeviceCommand::Show { id } => output::one(format, &get(&api, id)?),
        DeviceCommand::List { top } => {
            let devices = api.send(Method::Get, &format!("/devices?top={top}"), &[], None)?.body;
            let columns = [
                ("DEVICE", "/deviceId"),
                ("STATUS", "/status"),
                ("CONNECTION", "/connectionState"),
                ("AUTHENTICATION", "/authentication/type"),
                ("LAST ACTIVITY", "/lastActivityTime"),
            ];
            output::list(format, devices.as_array().map(Vec::as_slice).unwrap_or_default(), &columns)
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
        DeviceCommand::Delete { ids } => {
            for id in ids {
                api.send(Method::Delete, &path(id), &[("if-match", "*")], None)?;
                eprintln!("deleted {id}");
            }
            Ok(())
        }
        DeviceCommand::ConnectionString { id, secondary, host_name } => {
            let device = get(&api, id)?;
            let host = match host_name {
                Some(name) => HostName::parse(name).map_err(Failure::usage)?,
                None => endpoint.host_name().clone(),
            };
            let identity = Identity::device(DeviceId::parse(id).map_err(Failure::usage)?);
            let credential = if device.pointer("/authentication/type") == Some(&json!("sas")) {
                Credential::Key(key(&device, if *secondary { "secondaryKey" } else { "primaryKey" })?)
            } else {
                Credential::X509
            };
            let text = ConnectionString::device(host, identity, credential).expose();
            match format {
                output::Format::Table => output::line(&text),
                output::Format::Json => output::one(format, &json!({ "connectionString": text })),
            }
        }
        DeviceCommand::Keys { id, regenerate } => {
            let device = match regenerate {
                None => get(&api, id)?,
                Some(which) => change(&api, id, |device| {
                    if matches!(which, WhichKey::Primary | WhichKey::Both) {
                        replace_key(device, "primaryKey")?;
                    }
                    if matches!(which, WhichKey::Secondary | WhichKey::Both) {
                        replace_key(device, "secondaryKey")?;
                    }
                    Ok(())
                })?,
            };
            key(&device, "primaryKey")?;
            output::one(format, device.pointer("/authentication/symmetricKey").unwrap_or(&Value::Null))
        }
    }
}

fn path(id: &str) -> String {
    format!("/devices/{}", segment(id))
}

fn get(api: &Http, id: &str) -> Result<Value, Failure> {
    Ok(api.send(Method::Get, &path(id), &[], None)?.body)
}

/// Reads a device, changes it, and writes it back unless somebody else has changed it meanwhile.
fn change(api: &Http, id: &str, change: impl FnOnce(&mut Value) -> Result<(), Failure>) -> Result<Value, Failure> {
    let mut device = get(api, id)?;
    let etag = quoted(device.get("etag").and_then(Value::as_str).unwrap_or("*"));
    change(&mut device)?;
    Ok(api.send(Method::Put, &path(id), &[("if-match", &etag)], Some(&device))?.body)
}

fn set(device: &mut Value, member: &str, value: Value) {
    if let Some(members) = device.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
}

fn replace_key(device: &mut Value, which: &str) -> Result<(), Failure> {
    key(device, which)?;
    let mut bytes = [0; DEVICE_KEY_LENGTH];
    random(&mut bytes)?;
    let new = SharedKey::from_bytes(&bytes).map_err(Failure::runtime)?.expose_base64();
    if let Some(keys) = device.pointer_mut("/authentication/symmetricKey").and_then(Value::as_object_mut) {
        keys.insert(which.to_owned(), json!(new));
    }
    Ok(())
}

fn key(device: &Value, which: &str) -> Result<SharedKey, Failure> {
    let text = device.pointer(&format!("/authentication/symmetricKey/{which}")).and_then(Value::as_str);
    let text = text.ok_or_else(|| Failure::runtime("the device has no keys: it proves itself by a certificate"))?;
    SharedKey::from_base64(text).map_err(Failure::runtime)
}
