//! `nave policy push`, `list`, `show`, `activate`, `rollback`, `set`, `download`, `delete`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use nave_hub::policy::{MAX_COMPONENT_BYTES, statement};
use nave_model::{AllocationPolicyName, AllocationPolicyVersion};
use ring::digest;
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use crate::client::{Http, Method, Target};
use crate::commands::input::segment;
use crate::failure::Failure;
use crate::output;

#[derive(Args)]
pub(super) struct Push {
    /// The component.
    file: PathBuf,
    /// The policy's name; it is made if there is none.
    #[arg(long)]
    name: String,
    /// The version [default: the beginning of the component's digest].
    #[arg(long)]
    version: Option<String>,
    /// Let it decide at once, for all devices.
    #[arg(long)]
    activate: bool,
    /// PEM file with an Ed25519 private key (`openssl genpkey -algorithm ed25519`) to sign with.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
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
}

pub(super) fn push(args: &Push, target: &Target) -> Result<(), Failure> {
    let component = read(&args.file)?;
    let hash = digest::digest(&digest::SHA256, &component);
    let hexadecimal: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = AllocationPolicyName::parse(&args.name).map_err(Failure::usage)?;
    let version = match &args.version {
        Some(version) => AllocationPolicyVersion::parse(version),
        None => AllocationPolicyVersion::parse(hexadecimal.get(..12).unwrap_or(&hexadecimal)),
    };
    let version = version.map_err(Failure::usage)?;
    let content_digest = format!("sha-256=:{}:", STANDARD.encode(hash));
    let mut headers = vec![("content-type", "application/wasm"), ("content-digest", content_digest.as_str())];
    let signature = args.sign_key.as_deref().map(|path| sign(path, &statement(&name, &version, &hexadecimal)));
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
    change(target, Method::Post, &args.name, &["rollback"], None)
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
    api.send(Method::Delete, &path(&args.name, &rest), &[("if-match", "\"*\"")], None)?;
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

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| Failure::usage(format_args!("{}: {error}", path.display()));
    let limit = u64::try_from(MAX_COMPONENT_BYTES).unwrap_or(u64::MAX);
    let mut component = Vec::new();
    std::fs::File::open(path).map_err(wrong)?.take(limit + 1).read_to_end(&mut component).map_err(wrong)?;
    if component.len() > MAX_COMPONENT_BYTES {
        return Err(Failure::usage(format_args!("{} has more than {MAX_COMPONENT_BYTES} bytes", path.display())));
    }
    Ok(component)
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
}
