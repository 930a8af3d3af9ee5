//! What the commands for devices and those for modules share. A module is written as `DEVICE/MODULE`; ids have no slash.

use clap::{Args, ValueEnum};
use nave_auth::{ConnectionString, Credential, DEVICE_KEY_LENGTH, SharedKey};
use nave_model::{HostName, Identity};
use serde_json::{Value, json};

use super::input::{identity_path, quoted};
use crate::client::{Endpoint, Http, Method, random};
use crate::failure::Failure;
use crate::output;

/// How a new device or module proves itself; without options it gets two keys.
#[derive(Args)]
pub(super) struct Credentials {
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
}

impl Credentials {
    /// The member `authentication`, if it is not left to the hub.
    pub(super) fn document(&self) -> Result<Option<Value>, Failure> {
        Ok(match (&self.primary_key, self.thumbprints.as_slice(), self.ca_signed) {
            (_, [], true) => Some(json!({ "type": "certificateAuthority" })),
            (Some(primary), [], false) => Some(
                json!({ "type": "sas", "symmetricKey": { "primaryKey": primary, "secondaryKey": self.secondary_key } }),
            ),
            (None, [], false) => None,
            (_, [first], _) => Some(json!({ "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": first } })),
            (_, [first, second], _) => Some(json!({
                "type": "selfSigned",
                "x509Thumbprint": { "primaryThumbprint": first, "secondaryThumbprint": second }
            })),
            _ => return Err(Failure::usage("there are at most two thumbprints")),
        })
    }
}

/// What the connection string of a device or module is to hold.
#[derive(Args)]
pub(super) struct ConnectionStringOptions {
    /// Use the secondary key.
    #[arg(long)]
    secondary: bool,
    /// The host name to put in, one of the hub's names.
    #[arg(long)]
    host_name: Option<String>,
}

/// What is to be done with the keys of a device or module.
#[derive(Args)]
pub(super) struct KeyOptions {
    /// Which one to replace.
    #[arg(long, value_enum)]
    regenerate: Option<WhichKey>,
}

/// The columns of a list that devices and modules have in common; before them stands what is their own.
pub(super) const COLUMNS: [(&str, &str); 3] = [
    ("CONNECTION", "/connectionState"),
    ("AUTHENTICATION", "/authentication/type"),
    ("LAST ACTIVITY", "/lastActivityTime"),
];

/// Which of two keys.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum WhichKey {
    Primary,
    Secondary,
    Both,
}

/// Deletes devices or modules.
pub(super) fn delete(api: &Http, ids: &[String]) -> Result<(), Failure> {
    for id in ids {
        api.send(Method::Delete, &path(id), &[("if-match", "*")], None)?;
        eprintln!("deleted {id}");
    }
    Ok(())
}

/// Prints the connection string of a device or module.
pub(super) fn connection_string(
    endpoint: &Endpoint,
    api: &Http,
    id: &str,
    options: &ConnectionStringOptions,
    format: output::Format,
) -> Result<(), Failure> {
    let document = get(api, id)?;
    let host = match &options.host_name {
        Some(name) => HostName::parse(name).map_err(Failure::usage)?,
        None => endpoint.host_name().clone(),
    };
    let identity = Identity::parse(id).map_err(Failure::usage)?;
    let credential = if document.pointer("/authentication/type") == Some(&json!("sas")) {
        Credential::Key(key(&document, if options.secondary { "secondaryKey" } else { "primaryKey" })?)
    } else {
        Credential::X509
    };
    let text = ConnectionString::device(host, identity, credential).expose();
    match format {
        output::Format::Table => output::line(&text),
        output::Format::Json => output::one(format, &json!({ "connectionString": text })),
    }
}

/// Prints the keys of a device or module, after replacing some.
pub(super) fn keys(api: &Http, id: &str, options: &KeyOptions, format: output::Format) -> Result<(), Failure> {
    let document = match options.regenerate {
        None => get(api, id)?,
        Some(which) => change(api, id, |document| {
            if matches!(which, WhichKey::Primary | WhichKey::Both) {
                replace_key(document, "primaryKey")?;
            }
            if matches!(which, WhichKey::Secondary | WhichKey::Both) {
                replace_key(document, "secondaryKey")?;
            }
            Ok(())
        })?,
    };
    key(&document, "primaryKey")?;
    output::one(format, document.pointer("/authentication/symmetricKey").unwrap_or(&Value::Null))
}

/// The path of a device, or of a module written as `DEVICE/MODULE`.
pub(super) fn path(id: &str) -> String {
    format!("/devices/{}", identity_path(id))
}

pub(super) fn get(api: &Http, id: &str) -> Result<Value, Failure> {
    Ok(api.send(Method::Get, &path(id), &[], None)?.body)
}

/// Reads a device, changes it, and writes it back unless somebody else has changed it meanwhile.
pub(super) fn change(
    api: &Http,
    id: &str,
    change: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let mut device = get(api, id)?;
    let etag = quoted(device.get("etag").and_then(Value::as_str).unwrap_or("*"));
    change(&mut device)?;
    Ok(api.send(Method::Put, &path(id), &[("if-match", &etag)], Some(&device))?.body)
}

pub(super) fn set(device: &mut Value, member: &str, value: Value) {
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
    let text = text.ok_or_else(|| Failure::runtime("it has no keys: it proves itself by a certificate"))?;
    SharedKey::from_base64(text).map_err(Failure::runtime)
}
