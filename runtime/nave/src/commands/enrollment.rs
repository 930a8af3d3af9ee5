//! `nave enrollment`: who may register with the provisioning service.

use clap::{Args, Subcommand, ValueEnum};
use nave_auth::{SharedKey, derive_device_key};
use serde_json::{Map, Value, json};

use super::input::{json, quoted, segment, text};
use super::registration::query;
use crate::client::{Http, Method, Target};
use crate::failure::Failure;
use crate::output;

/// Create, show, list and delete enrollments and enrollment groups.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave enrollment create thermostat-1                               one device, generated keys
  nave enrollment create line-7 --group                             a group with a symmetric key
  nave enrollment derive-key line-7 pump-1                          the key of one device of the group
  nave enrollment create gateway-1 --certificate device.pem         one device, its certificate
  nave enrollment create fleet --group --certificate signer.pem     a group, its signing certificate
  nave enrollment create fleet --group --ca-name factory-ca         a group, a CA of `nave ca --provisioning`
  nave enrollment create a --group --policy static --assign-to hub2.nave.test --initial-twin '{\"tags\":{\"line\":7}}'
  nave enrollment create b --group --webhook nave:policy/by-site --configuration '{\"region\":\"north\"}'
  nave enrollment show line-7 --group --keys
  nave enrollment list --group")]
pub(crate) struct EnrollmentArgs {
    #[command(subcommand)]
    command: EnrollmentCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum EnrollmentCommand {
    /// Create an enrollment (or a group); without options it gets two keys.
    Create(Box<Create>),
    /// Show an enrollment.
    Show {
        /// The registration id, or the group's.
        id: String,
        /// It is a group.
        #[arg(long)]
        group: bool,
        /// Show its keys or certificates.
        #[arg(long)]
        keys: bool,
    },
    /// List enrollments.
    List {
        /// The groups.
        #[arg(long)]
        group: bool,
    },
    /// Delete enrollments. Devices that are registered stay in their hubs.
    Delete {
        /// The registration ids, or the groups'.
        #[arg(required = true)]
        ids: Vec<String>,
        /// They are groups.
        #[arg(long)]
        group: bool,
    },
    /// Print the key of a device of a group: what the device registers with.
    DeriveKey {
        /// The group, or `-` with --key.
        group: String,
        /// The device's registration id, written as the device writes it.
        registration_id: String,
        /// The group's key, base64 [default: asked of the provisioning service].
        #[arg(long)]
        key: Option<String>,
    },
}

#[derive(Args)]
struct Create {
    /// The registration id, or the group's.
    id: String,
    /// A group of devices.
    #[arg(long)]
    group: bool,
    /// Primary key, base64 [default: generated].
    #[arg(long, requires = "secondary_key")]
    primary_key: Option<String>,
    /// Secondary key, base64.
    #[arg(long, requires = "primary_key")]
    secondary_key: Option<String>,
    /// PEM file: the device's certificate, or for a group the certificate that signs the devices' ones.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["primary_key", "ca_name"])]
    certificate: Option<String>,
    /// PEM file with a second certificate.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    secondary_certificate: Option<String>,
    /// Name of a CA of the provisioning service.
    #[arg(long, conflicts_with = "primary_key")]
    ca_name: Option<String>,
    /// Device id in the hub [default: the registration id].
    #[arg(long, conflicts_with = "group")]
    device_id: Option<String>,
    /// How the hub is chosen [default: as the service is configured].
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// The policy of your own: nave:policy/NAME, nave:policy/NAME@VERSION, or the https:// address of a web hook.
    #[arg(long, value_name = "ADDRESS")]
    webhook: Option<String>,
    /// What the policy is told for this enrollment, if it can be configured: an argument, @FILE, or -.
    #[arg(long, value_name = "JSON", requires = "webhook")]
    configuration: Option<String>,
    /// Host name of a hub that may be chosen; several times for several [default: all].
    #[arg(long = "assign-to", value_name = "HOST")]
    hubs: Vec<String>,
    /// {"tags": {...}, "properties": {"desired": {...}}}: an argument, @FILE, or - for standard input.
    #[arg(long, value_name = "JSON")]
    initial_twin: Option<String>,
    /// What happens when a device registers again.
    #[arg(long, value_enum, default_value_t = Reprovision::Migrate)]
    reprovision: Reprovision,
    /// Refuse its devices for now.
    #[arg(long)]
    disabled: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    Hashed,
    #[value(name = "geoLatency", alias = "geo-latency")]
    GeoLatency,
    Static,
    /// As --webhook says.
    Custom,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reprovision {
    /// The hub is chosen again; the device's twin moves along.
    Migrate,
    /// The hub is chosen again; the device begins with the initial twin.
    Reset,
    /// It stays where it is.
    Never,
}

/// Runs the command.
pub(crate) fn run(args: &EnrollmentArgs) -> Result<(), Failure> {
    if let EnrollmentCommand::DeriveKey { registration_id, key: Some(key), .. } = &args.command {
        return output::line(&derive(key, registration_id)?);
    }
    let api = args.target.provisioning()?.dps_api()?;
    let format = args.target.output;
    match &args.command {
        EnrollmentCommand::Create(create) => {
            let created = api.send(Method::Put, &path(&create.id, create.group), &[], Some(&document(create)?))?.body;
            output::one(format, &created)
        }
        EnrollmentCommand::Show { id, group, keys: false } => {
            output::one(format, &api.send(Method::Get, &path(id, *group), &[], None)?.body)
        }
        EnrollmentCommand::Show { id, group, keys: true } => output::one(format, &attestation(&api, id, *group)?),
        EnrollmentCommand::List { group } => {
            let (path, id, table) = if *group {
                ("/enrollmentGroups/query", "/enrollmentGroupId", "enrollmentGroups")
            } else {
                ("/enrollments/query", "/registrationId", "enrollments")
            };
            let items = query(&api, path, Some(&json!({ "query": format!("SELECT * FROM {table}") })))?;
            let columns = [
                ("ID", id),
                ("ATTESTATION", "/attestation/type"),
                ("STATUS", "/provisioningStatus"),
                ("POLICY", "/allocationPolicy"),
                ("HUBS", "/iotHubs"),
                ("UPDATED", "/lastUpdatedDateTimeUtc"),
            ];
            output::list(format, &items, &columns)
        }
        EnrollmentCommand::Delete { ids, group } => {
            for id in ids {
                api.send(Method::Delete, &path(id, *group), &[("if-match", &quoted("*"))], None)?;
                eprintln!("deleted {id}");
            }
            Ok(())
        }
        EnrollmentCommand::DeriveKey { group, registration_id, .. } => {
            output::line(&derive(&group_key(&api, group)?, registration_id)?)
        }
    }
}

/// The primary key of a group.
pub(crate) fn group_key(api: &Http, group: &str) -> Result<String, Failure> {
    let attestation = attestation(api, group, true)?;
    let key = attestation.pointer("/symmetricKey/primaryKey").and_then(Value::as_str);
    key.map(str::to_owned).ok_or_else(|| Failure::runtime(format_args!("the group `{group}` has no symmetric key")))
}

/// The key of one device of a group.
pub(crate) fn derive(group_key: &str, registration_id: &str) -> Result<String, Failure> {
    let key = SharedKey::from_base64(group_key).map_err(Failure::usage)?;
    Ok(derive_device_key(&key, registration_id).expose_base64())
}

fn attestation(api: &Http, id: &str, group: bool) -> Result<Value, Failure> {
    Ok(api.send(Method::Post, &format!("{}/attestationmechanism", path(id, group)), &[], None)?.body)
}

fn path(id: &str, group: bool) -> String {
    format!("/{}/{}", if group { "enrollmentGroups" } else { "enrollments" }, segment(id))
}

fn document(create: &Create) -> Result<Value, Failure> {
    let mut document = Map::new();
    let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
    put(if create.group { "enrollmentGroupId" } else { "registrationId" }, json!(create.id));
    put("attestation", attestation_of(create)?);
    put("provisioningStatus", json!(if create.disabled { "disabled" } else { "enabled" }));
    let (update, migrate) = match create.reprovision {
        Reprovision::Migrate => (true, true),
        Reprovision::Reset => (true, false),
        Reprovision::Never => (false, false),
    };
    put("reprovisionPolicy", json!({ "updateHubAssignment": update, "migrateDeviceData": migrate }));
    if let Some(device) = &create.device_id {
        put("deviceId", json!(device));
    }
    if let Some(policy) = create.policy {
        let name = match policy {
            Policy::Hashed => "hashed",
            Policy::GeoLatency => "geoLatency",
            Policy::Static => "static",
            Policy::Custom => "custom",
        };
        put("allocationPolicy", json!(name));
    }
    if let Some(url) = &create.webhook {
        // A web hook without the policy that uses it is not what anybody means.
        if create.policy.is_none() {
            put("allocationPolicy", json!("custom"));
        }
        let mut definition = json!({ "webhookUrl": url, "apiVersion": "2021-10-01" });
        if let (Some(configuration), Some(members)) = (&create.configuration, definition.as_object_mut()) {
            members.insert("configuration".to_owned(), json(configuration)?);
        }
        put("customAllocationDefinition", definition);
    }
    if !create.hubs.is_empty() {
        put("iotHubs", json!(create.hubs));
    }
    if let Some(twin) = &create.initial_twin {
        put("initialTwin", json(twin)?);
    }
    Ok(Value::Object(document))
}

fn attestation_of(create: &Create) -> Result<Value, Failure> {
    if let Some(name) = &create.ca_name {
        return Ok(json!({ "type": "x509", "x509": { "caReferences": { "primary": name } } }));
    }
    if let Some(file) = &create.certificate {
        let read = |file: &String| Ok::<_, Failure>(json!({ "certificate": text(&format!("@{file}"))? }));
        let mut certificates = Map::new();
        certificates.insert("primary".to_owned(), read(file)?);
        if let Some(second) = &create.secondary_certificate {
            certificates.insert("secondary".to_owned(), read(second)?);
        }
        let role = if create.group { "signingCertificates" } else { "clientCertificates" };
        return Ok(json!({ "type": "x509", "x509": { role: certificates } }));
    }
    let keys = match (&create.primary_key, &create.secondary_key) {
        (Some(primary), Some(secondary)) => json!({ "primaryKey": primary, "secondaryKey": secondary }),
        _ => json!({}),
    };
    Ok(json!({ "type": "symmetricKey", "symmetricKey": keys }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_published_test_vector() {
        let key = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        assert_eq!(
            derive(key, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6").unwrap(),
            "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
        );
        assert!(matches!(derive("not a key", "x"), Err(Failure::Usage(_))));
    }
}
