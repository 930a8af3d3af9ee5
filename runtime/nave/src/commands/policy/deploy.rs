//! `nave policy push`, `list`, `show`, `activate`, `rollback`, `set`, `download`, `delete`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use nave_hub::policy::statement;
use nave_model::{AllocationPolicyName, AllocationPolicyVersion};
use ring::digest;
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use super::source::{self, Fetched, SourceArgs};
use crate::client::{Http, Method, Target};
use crate::commands::input::segment;
use crate::failure::Failure;
use crate::output;

/// Store a version of a policy in the hub, or in an OCI registry.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy push by-site.wasm --name by-site --version 1.2 --activate
  nave policy push by-site.wasm --to oci://ghcr.io/example/by-site:1.2         into a registry, not the hub
  nave policy push oci://ghcr.io/example/by-site:1.2 --name by-site --version 1.2
  nave policy push https://example.org/by-site.wasm --sha256 9f86... --name by-site

The command line fetches the component, so the hub needs no way out. The tag of a registry is resolved to the digest of its
manifest, which is verified, shown and recorded with the version.")]
pub(super) struct Push {
    /// The component: a file, https://... with --sha256, or oci://REGISTRY/REPOSITORY:TAG or @sha256:HEX.
    source: String,
    /// The policy's name; it is made if there is none.
    #[arg(long, required_unless_present = "to")]
    name: Option<String>,
    /// The version [default: the beginning of the component's digest].
    #[arg(long)]
    version: Option<String>,
    /// Let it decide at once, for all devices.
    #[arg(long)]
    activate: bool,
    /// PEM file with an Ed25519 private key (`openssl genpkey -algorithm ed25519`) to sign with.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Store it in this registry instead of the hub: oci://REGISTRY/REPOSITORY:TAG.
    #[arg(long, value_name = "OCI", conflicts_with_all = ["name", "version", "activate", "sign_key"])]
    to: Option<String>,
    #[command(flatten)]
    how: SourceArgs,
}

#[derive(Args)]
pub(super) struct Show {
    /// The policy.
    name: String,
}

#[derive(Args)]
pub(super) struct Activate {
    /// The policy.
    name: String,
    /// The version.
    version: String,
    /// On trial, for this share of the devices, in percent: 10 or 10%.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u8>,
    /// Failed decisions, in percent of all, beyond which the trial ends by itself [default: 10].
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "canary")]
    max_errors: Option<u8>,
}

#[derive(Args)]
pub(super) struct Rollback {
    /// The policy.
    name: String,
}

#[derive(Args)]
pub(super) struct Set {
    /// The policy.
    name: String,
    /// What it writes, and where it traps, goes into the hub's log.
    #[arg(long, value_enum)]
    debug: Option<Switch>,
    /// Its limits, instead of those that it has: a JSON object with deadlineMs, memoryBytes, tableElements, stackBytes,
    /// resultBytes, concurrency, queue. What is left out is as usual; {} makes everything usual.
    #[arg(long, value_name = "JSON")]
    limits: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Args)]
pub(super) struct Download {
    /// The policy.
    name: String,
    /// The version.
    version: String,
    /// Where to.
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct Delete {
    /// The policy.
    name: String,
    /// The version [default: all of them, and the policy].
    version: Option<String>,
    /// Delete it even if enrollments use it: their devices cannot register from then on.
    #[arg(long)]
    force: bool,
}

pub(super) fn push(args: &Push, target: &Target) -> Result<(), Failure> {
    let Fetched { component, sha256, pinned } = source::fetch(&args.source, &args.how)?;
    let name = match (&args.to, &args.name) {
        (Some(to), _) => return output::one(target.output, &source::publish(&component, to, &args.how)?),
        (None, name) => AllocationPolicyName::parse(name.as_deref().unwrap_or_default()).map_err(Failure::usage)?,
    };
    let version = match &args.version {
        Some(version) => AllocationPolicyVersion::parse(version),
        None => AllocationPolicyVersion::parse(sha256.get(..12).unwrap_or(&sha256)),
    };
    let version = version.map_err(Failure::usage)?;
    let content_digest = format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, &component)));
    let mut headers = vec![("content-type", "application/wasm"), ("content-digest", content_digest.as_str())];
    if let Some(pinned) = &pinned {
        headers.push(("x-nave-source", pinned));
    }
    let signature = args.sign_key.as_deref().map(|path| sign(path, &statement(&name, &version, &sha256)));
    let signature = signature.transpose()?;
    if let Some(signature) = &signature {
        headers.push(("x-nave-signature", signature));
    }
    let api = target.provisioning()?.dps_api()?;
    let pushed = api.upload(&path(name.as_str(), &["versions", version.as_str()]), &headers, component)?;
    if args.activate {
        let body = json!({ "version": version });
        let activated = api.send(Method::Post, &path(name.as_str(), &["activate"]), &[], Some(&body))?.body;
        return output::one(target.output, &summary(&activated, version.as_str()));
    }
    output::one(target.output, &summary(&pushed, version.as_str()))?;
    if pushed.get("active").and_then(Value::as_str) != Some(version.as_str()) {
        eprintln!("Nothing uses it yet: `nave policy activate {name} {version}`, with --canary 10 to try it first.");
    }
    Ok(())
}

pub(super) fn list(target: &Target) -> Result<(), Failure> {
    let policies = target.provisioning()?.dps_api()?.send(Method::Get, "/allocationPolicies", &[], None)?.body;
    let columns = [
        ("NAME", "/name"),
        ("ACTIVE", "/active"),
        ("CANARY", "/canary/version"),
        ("PERCENT", "/canary/percent"),
        ("DEBUG", "/debug"),
        ("UPDATED", "/lastUpdatedDateTimeUtc"),
    ];
    output::list(target.output, policies.as_array().map(Vec::as_slice).unwrap_or_default(), &columns)
}

pub(super) fn show(args: &Show, target: &Target) -> Result<(), Failure> {
    let api = target.provisioning()?.dps_api()?;
    let policy = api.send(Method::Get, &path(&args.name, &[]), &[], None)?.body;
    if target.output == output::Format::Json {
        return output::one(target.output, &policy);
    }
    let mut head = policy.as_object().cloned().unwrap_or_default();
    let versions = head.remove("versions").unwrap_or_default();
    output::one(target.output, &Value::Object(head))?;
    output::line("")?;
    let columns = [
        ("VERSION", "/version"),
        ("ROLE", "/role"),
        ("DECISIONS", "/statistics/decisions"),
        ("ASSIGNED", "/statistics/assigned"),
        ("DELEGATED", "/statistics/delegated"),
        ("REFUSED", "/statistics/refused"),
        ("FAILED", "/statistics/failed"),
        ("ERRORS", "/statistics/errors"),
        ("SIZE", "/size"),
        ("CREATED", "/createdDateTimeUtc"),
    ];
    output::list(target.output, versions.as_array().map(Vec::as_slice).unwrap_or_default(), &columns)
}

pub(super) fn activate(args: &Activate, target: &Target) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("version".to_owned(), json!(args.version));
    for (member, value) in [("canaryPercent", args.canary), ("maxErrorPercent", args.max_errors)] {
        if let Some(value) = value {
            body.insert(member.to_owned(), json!(value));
        }
    }
    change(target, Method::Post, &args.name, &["activate"], Some(&Value::Object(body)))
}

pub(super) fn roll_back(args: &Rollback, target: &Target) -> Result<(), Failure> {
    let api = target.provisioning()?.dps_api()?;
    let before = api.send(Method::Get, &path(&args.name, &[]), &[], None)?;
    // What is taken back is what was there when the operator looked, not what somebody activated since.
    let etag = before.etag.unwrap_or_default();
    let after = api.send(Method::Post, &path(&args.name, &["rollback"]), &[("if-match", &etag)], None)?.body;
    eprintln!("{}", taken_back(&before.body, &after));
    output::one(target.output, &without_versions(&after))
}

/// What a roll-back did.
fn taken_back(before: &Value, after: &Value) -> String {
    let text =
        |policy: &Value, pointer: &str| policy.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let active = text(after, "/active");
    if before.get("canary").is_some() {
        format!("the trial of version {} ended; version {active} decides", text(before, "/canary/version"))
    } else if before.get("returned").is_some() {
        format!(
            "the trial of version {} had ended by itself; version {active} decides as before. To go back further, roll back again",
            text(before, "/returned/version")
        )
    } else {
        format!("version {active} decides instead of version {}", text(before, "/active"))
    }
}

pub(super) fn set(args: &Set, target: &Target) -> Result<(), Failure> {
    let mut body = Map::new();
    if let Some(debug) = args.debug {
        body.insert("debug".to_owned(), json!(debug == Switch::On));
    }
    if let Some(limits) = &args.limits {
        body.insert("limits".to_owned(), crate::commands::input::json(limits)?);
    }
    if body.is_empty() {
        return Err(Failure::usage("there is nothing to set: give --debug or --limits"));
    }
    change(target, Method::Patch, &args.name, &[], Some(&Value::Object(body)))
}

pub(super) fn download(args: &Download, target: &Target) -> Result<(), Failure> {
    let api = target.provisioning()?.dps_api()?;
    let mut component = Vec::new();
    api.stream(&path(&args.name, &["versions", &args.version]))?
        .read_to_end(&mut component)
        .map_err(Failure::runtime)?;
    std::fs::write(&args.file, &component)
        .map_err(|error| Failure::runtime(format_args!("{}: {error}", args.file.display())))?;
    eprintln!("{} bytes in {}", component.len(), args.file.display());
    Ok(())
}

pub(super) fn delete(args: &Delete, target: &Target) -> Result<(), Failure> {
    let api = target.provisioning()?.dps_api()?;
    let rest = args.version.as_deref().map(|version| vec!["versions", version]).unwrap_or_default();
    let force = if args.force { "?force=true" } else { "" };
    api.send(Method::Delete, &format!("{}{force}", path(&args.name, &rest)), &[("if-match", "\"*\"")], None)?;
    match &args.version {
        Some(version) => eprintln!("deleted version {version} of {}", args.name),
        None => eprintln!("deleted {}", args.name),
    }
    Ok(())
}

fn change(target: &Target, method: Method, name: &str, rest: &[&str], body: Option<&Value>) -> Result<(), Failure> {
    let api: Http = target.provisioning()?.dps_api()?;
    output::one(target.output, &without_versions(&api.send(method, &path(name, rest), &[], body)?.body))
}

fn path(name: &str, rest: &[&str]) -> String {
    let segments = std::iter::once(name).chain(rest.iter().copied()).map(segment);
    format!("/allocationPolicies/{}", segments.collect::<Vec<_>>().join("/"))
}

/// What there is to say about a version that was pushed.
fn summary(policy: &Value, version: &str) -> Value {
    let versions = policy.get("versions").and_then(Value::as_array).into_iter().flatten();
    let mut found = versions.filter(|known| known.get("version").and_then(Value::as_str) == Some(version)).cloned();
    let mut summary = Map::new();
    summary.insert("name".to_owned(), policy.get("name").cloned().unwrap_or_default());
    if let Some(Value::Object(members)) = found.next() {
        summary.extend(members.into_iter().filter(|(name, _)| name != "statistics"));
    }
    Value::Object(summary)
}

fn without_versions(policy: &Value) -> Value {
    let mut members = policy.as_object().cloned().unwrap_or_default();
    members.remove("versions");
    Value::Object(members)
}

fn sign(path: &Path, statement: &str) -> Result<String, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{}: {error}", path.display()));
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(&error))?;
    // openssl writes the form without the public key.
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_der())
        .map_err(|error| wrong(&format_args!("not an Ed25519 private key ({error})")))?;
    Ok(STANDARD.encode(pair.sign(statement.as_bytes())))
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse() {
        Ok(number) if (1..=100).contains(&number) => Ok(number),
        _ => Err("it is a number from 1 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_with_or_without_its_sign() {
        assert_eq!((percent("10%"), percent("10"), percent("99 %")), (Ok(10), Ok(10), Ok(99)));
        for wrong in ["", "%", "0", "101", "1.5", "-1", "ten"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_escaped() {
        assert_eq!(path("a b", &["versions", "1+2/3"]), "/allocationPolicies/a%20b/versions/1%2B2%2F3");
    }

    #[test]
    fn a_key_of_openssl_signs() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        // RFC 8410, section 10.3: the example without a public key.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        std::fs::write(&file, pem).unwrap();
        let public = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        let signature = STANDARD.decode(sign(&file, "text").unwrap()).unwrap();
        let der = STANDARD.decode(public).unwrap();
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &der[12..]);
        key.verify(b"text", &signature).unwrap();
        std::fs::write(&file, "nothing").unwrap();
        assert!(matches!(sign(&file, "text"), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_rollback_says_what_it_took_back() {
        let after = json!({ "active": "2" });
        let said = |before: &Value| taken_back(before, &after);
        assert_eq!(said(&json!({ "active": "3", "previous": "2" })), "version 2 decides instead of version 3");
        let trial = said(&json!({ "active": "2", "canary": { "version": "4" } }));
        assert_eq!(trial, "the trial of version 4 ended; version 2 decides");
        let returned = said(&json!({ "active": "2", "returned": { "version": "4" } }));
        assert!(returned.starts_with("the trial of version 4 had ended by itself; version 2 decides"), "{returned}");
    }
}
