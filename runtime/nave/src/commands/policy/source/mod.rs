//! Where a component comes from: a file, an `https://` address, or an OCI registry.
//!
//! The command line fetches it, so the hub needs no way out. What is fetched is pinned by its SHA-256: an address needs
//! `--sha256`; of a registry the digest of the manifest is resolved, verified, shown and recorded.

mod agent;
mod credentials;
mod manifest;
mod reference;
mod registry;
#[cfg(test)]
mod test_registry;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use nave_hub::policy::MAX_COMPONENT_BYTES;
use ring::digest;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::files;
use crate::output::{self, Format};

use reference::Reference;
use registry::Registry;

/// How to reach what is not a file.
#[derive(Args)]
pub(super) struct SourceArgs {
    /// The SHA-256 that the component must have, hexadecimal; an https:// source needs it.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// How to speak to a registry or web server.
#[derive(Args, Default)]
pub(super) struct RegistryArgs {
    /// User of the registry [default: NAVE_REGISTRY_USER, or what `docker login` wrote].
    #[arg(long, value_name = "NAME")]
    registry_user: Option<String>,
    /// File with the user's password or token, - for standard input [default: NAVE_REGISTRY_PASSWORD, or what `docker login`
    /// wrote].
    #[arg(long, value_name = "FILE")]
    registry_password_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Speak HTTP without TLS. Servers on this machine (localhost) are spoken to so unless --registry-ca is given.
    #[arg(long, conflicts_with = "registry_ca")]
    plain_http: bool,
}

/// A component and where it is from.
pub(super) struct Fetched {
    pub(super) component: Vec<u8>,
    /// Its SHA-256, hexadecimal.
    pub(super) sha256: String,
    /// The source with its digest; nothing of a file.
    pub(super) pinned: Option<String>,
}

/// Write a component from a registry or web server into a file.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy pull oci://ghcr.io/example/by-site:1.2 by-site.wasm
  nave policy pull oci://ghcr.io/example/by-site@sha256:9f86... by-site.wasm
  nave policy pull https://example.org/by-site.wasm by-site.wasm --sha256 9f86...")]
pub(super) struct Pull {
    /// oci://REGISTRY/REPOSITORY:TAG, oci://REGISTRY/REPOSITORY@sha256:HEX, or https://...
    source: String,
    /// Where to.
    file: PathBuf,
    #[command(flatten)]
    how: SourceArgs,
}

/// Runs `nave policy pull`.
pub(super) fn pull(args: &Pull, format: Format) -> Result<(), Failure> {
    let fetched = fetch(&args.source, &args.how)?;
    files::replace(&args.file, &fetched.component, files::EVERYONE_READS)
        .map_err(|error| Failure::runtime(format_args!("{}: {error}", args.file.display())))?;
    let pulled = json!({
        "file": args.file.display().to_string(),
        "source": fetched.pinned,
        "digest": format!("sha256:{}", fetched.sha256),
        "size": fetched.component.len(),
    });
    output::one(format, &pulled)
}

/// Fetches a component.
pub(super) fn fetch(source: &str, how: &SourceArgs) -> Result<Fetched, Failure> {
    let wanted = how.sha256.as_deref().map(hexadecimal).transpose()?;
    let (component, pinned) = match source.split_once("://") {
        Some(("oci", _)) => {
            let reference = Reference::parse(source).map_err(Failure::usage)?;
            let pulled = Registry::open(&reference, &how.registry)?.pull(&reference)?;
            (pulled.component, Some(pulled.pinned))
        }
        Some((scheme @ ("https" | "http"), _)) => {
            let Some(wanted) = &wanted else {
                return Err(Failure::usage(format_args!(
                    "a component from {scheme}:// is pinned: give --sha256 with the digest that its author published"
                )));
            };
            let component = agent::download(source, &how.registry)?;
            // Its query may hold a key.
            let shown = source.split(['?', '#']).next().unwrap_or_default();
            (component, Some(format!("{shown}#sha256:{wanted}")))
        }
        Some((scheme, _)) => {
            return Err(Failure::usage(format_args!("{scheme}:// is no source: use a file, https:// or oci://")));
        }
        None => (read(Path::new(source))?, None),
    };
    let sha256 = sha256(&component);
    match wanted {
        Some(wanted) if wanted != sha256 => Err(Failure::runtime(format_args!(
            "{} is not what was asked for: its SHA-256 is {sha256}, not {wanted}",
            source.split(['?', '#']).next().unwrap_or_default()
        ))),
        _ => Ok(Fetched { component, sha256, pinned }),
    }
}

/// Puts a component into a registry. Returns what there is to say about it.
pub(super) fn publish(component: &[u8], to: &str, how: &SourceArgs) -> Result<Value, Failure> {
    let reference = Reference::parse(to).map_err(Failure::usage)?;
    let pinned = Registry::open(&reference, &how.registry)?.push(&reference, component)?;
    Ok(json!({
        "reference": reference.to_string(),
        "pinned": pinned,
        "digest": format!("sha256:{}", sha256(component)),
        "size": component.len(),
    }))
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

/// SHA-256, lower case hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hexadecimal(text: &str) -> Result<String, Failure> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits.to_ascii_lowercase());
    }
    Err(Failure::usage(format_args!("no SHA-256, which has 64 hexadecimal digits: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(sha256: Option<&str>) -> SourceArgs {
        SourceArgs { sha256: sha256.map(str::to_owned), registry: RegistryArgs::default() }
    }

    #[test]
    fn a_file_may_be_pinned_and_an_address_must_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.wasm");
        std::fs::write(&file, "abc").unwrap();
        let source = file.to_str().unwrap();
        let digest = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        let fetched = fetch(source, &how(Some(digest))).unwrap();
        assert_eq!((fetched.component.as_slice(), fetched.pinned), (b"abc".as_slice(), None));
        let wrong = fetch(source, &how(Some(&"0".repeat(64)))).err().unwrap();
        assert!(wrong.to_string().contains("ba7816bf"), "{wrong}");
        for (source, sha256) in [
            ("https://example.org/p.wasm", None),
            ("https://example.org/p.wasm", Some("abc")),
            ("ftp://example.org/p.wasm", None),
            ("oci://example.org", None),
        ] {
            assert!(matches!(fetch(source, &how(sha256)), Err(Failure::Usage(_))), "{source}");
        }
    }

    #[test]
    fn a_component_is_downloaded_and_held_against_its_digest() {
        let server = test_registry::TestRegistry::start();
        server.put_file("/p.wasm", b"abc");
        let digest = sha256(b"abc");
        let url = format!("http://{}/p.wasm?key=c2VjcmV0", server.host());
        let fetched = fetch(&url, &how(Some(&digest))).unwrap();
        assert_eq!(fetched.component, b"abc");
        assert_eq!(fetched.pinned, Some(format!("http://{}/p.wasm#sha256:{digest}", server.host())));
        let other = fetch(&url, &how(Some(&sha256(b"other")))).err().unwrap();
        assert!(other.to_string().contains("not what was asked for") && !other.to_string().contains("c2VjcmV0"));
        let absent = format!("http://{}/absent.wasm?key=c2VjcmV0", server.host());
        let error = fetch(&absent, &how(Some(&digest))).err().unwrap();
        assert!(matches!(&error, Failure::NotFound(text) if !text.contains("c2VjcmV0")), "{error}");
        // Plain HTTP is for this machine.
        let error = fetch("http://192.0.2.1/p.wasm", &how(Some(&digest))).err().unwrap();
        assert!(error.to_string().contains("--plain-http"), "{error}");
    }
}
