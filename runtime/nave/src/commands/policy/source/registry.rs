//! A client of OCI registries: what pulling and pushing one component needs of the distribution specification 1.1.
//!
//! Libraries for this bring an asynchronous HTTP client with some forty crates, for six requests.

use std::cell::RefCell;

use nave_hub::policy::MAX_COMPONENT_BYTES;
use serde::Deserialize;
use ureq::http::{Request, Response};

use super::credentials::{self, Found};
use super::manifest::{self, MANIFEST};
use super::reference::{Reference, Which};
use super::{RegistryArgs, agent, sha256};
use crate::failure::Failure;

/// Largest manifest (the specification asks registries to take 4 MiB; one of a component has 500 bytes), and largest answer
/// of who hands out tokens.
const MAX_MANIFEST: usize = 4 << 20;
const MAX_TOKEN_ANSWER: usize = 64 << 10;

/// Longest part of an answer that an error quotes, in characters.
const MAX_QUOTED: usize = 300;

/// A component that was pulled.
pub(super) struct Pulled {
    pub(super) component: Vec<u8>,
    /// The reference with the manifest's digest.
    pub(super) pinned: String,
}

/// A registry.
pub(super) struct Registry {
    agent: ureq::Agent,
    /// Scheme and authority.
    base: String,
    host: String,
    plain: bool,
    found: Found,
    /// The header that the registry accepted last.
    authorization: RefCell<Option<String>>,
}

impl Registry {
    /// The registry of a reference. Nothing is sent yet.
    pub(super) fn open(reference: &Reference, args: &RegistryArgs) -> Result<Self, Failure> {
        let host = reference.host.as_str();
        let plain = agent::is_plain(host, args);
        // What people call docker.io has its API elsewhere.
        let authority = if host == "docker.io" { "registry-1.docker.io" } else { host };
        Ok(Self {
            agent: agent::agent(plain, args)?,
            base: format!("{}://{authority}", if plain { "http" } else { "https" }),
            host: host.to_owned(),
            plain,
            found: credentials::find(host, args)?,
            authorization: RefCell::default(),
        })
    }

    /// Fetches a component. Manifest and component are held against their digests.
    pub(super) fn pull(&self, reference: &Reference) -> Result<Pulled, Failure> {
        let bad = |why: &dyn std::fmt::Display| Failure::runtime(format_args!("{reference}: {why}"));
        let path = format!("/v2/{}/manifests/{}", reference.repository, reference.name());
        let response = self.exchange("GET", &path, &[("accept", MANIFEST)], None)?;
        let response = self.expect(response, &[200], reference)?;
        let stated = header(&response, "docker-content-digest");
        let manifest = agent::body(response, MAX_MANIFEST, "the manifest")?;
        let digest = sha256(&manifest);
        let wanted = match &reference.which {
            Which::Digest(digits) => Some(digits.clone()),
            Which::Tag(_) => stated.and_then(|text| text.strip_prefix("sha256:").map(str::to_owned)),
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
            return Err(bad(&format_args!("its manifest has the SHA-256 {digest} and should have {wanted}")));
        }
        let layer = manifest::component_of(&manifest).map_err(|why| bad(&why))?;
        let content = layer.sha256().map_err(|why| bad(&why))?;
        if usize::try_from(layer.size).map_or(true, |size| size > MAX_COMPONENT_BYTES) {
            return Err(bad(&format_args!(
                "it has {} bytes, more than the {MAX_COMPONENT_BYTES} that a hub takes",
                layer.size
            )));
        }
        let path = format!("/v2/{}/blobs/sha256:{content}", reference.repository);
        let response = self.exchange("GET", &path, &[], None)?;
        let response = self.expect(response, &[200], reference)?;
        let component = agent::body(response, MAX_COMPONENT_BYTES, "the component")?;
        let actual = sha256(&component);
        if actual != content {
            return Err(bad(&format_args!("its component has the SHA-256 {actual} and should have {content}")));
        }
        Ok(Pulled { component, pinned: reference.pinned(&digest).to_string() })
    }

    /// Stores a component under a tag or, if the reference has that digest, without one. Returns the reference with the
    /// manifest's digest.
    pub(super) fn push(&self, reference: &Reference, component: &[u8]) -> Result<String, Failure> {
        let (config, manifest) = manifest::describe(component).map_err(Failure::usage)?;
        let digest = sha256(&manifest);
        if let Which::Digest(wanted) = &reference.which
            && *wanted != digest
        {
            return Err(Failure::usage(format_args!(
                "{reference}: this component's manifest has the digest sha256:{digest}; push it under a tag"
            )));
        }
        for blob in [component, &config] {
            self.upload(reference, blob)?;
        }
        let path = format!("/v2/{}/manifests/{}", reference.repository, reference.name());
        let response = self.exchange("PUT", &path, &[("content-type", MANIFEST)], Some(&manifest))?;
        let response = self.expect(response, &[201], reference)?;
        let pinned = reference.pinned(&digest).to_string();
        match header(&response, "docker-content-digest") {
            Some(stored) if stored != format!("sha256:{digest}") => Err(Failure::runtime(format_args!(
                "{reference}: the registry stored it as {stored} instead of sha256:{digest}"
            ))),
            _ => Ok(pinned),
        }
    }

    /// Stores content, unless it is there.
    fn upload(&self, reference: &Reference, blob: &[u8]) -> Result<(), Failure> {
        let digest = format!("sha256:{}", sha256(blob));
        let path = format!("/v2/{}/blobs/{digest}", reference.repository);
        if self.exchange("HEAD", &path, &[], None)?.status().as_u16() == 200 {
            return Ok(());
        }
        let path = format!("/v2/{}/blobs/uploads/", reference.repository);
        let response = self.exchange("POST", &path, &[], Some(&[]))?;
        let response = self.expect(response, &[202], reference)?;
        let location = header(&response, "location");
        let location = location.ok_or_else(|| {
            Failure::runtime(format_args!("{reference}: the registry did not say where to upload to"))
        })?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={digest}");
        let kind = [("content-type", "application/octet-stream")];
        let response = self.exchange("PUT", &target, &kind, Some(blob))?;
        self.expect(response, &[201], reference).map(drop)
    }

    /// Sends a request to a path of the registry, or to an address that it named. Who the command line is goes to the
    /// registry only, and only when it asks.
    fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let url = if target.starts_with('/') { format!("{}{target}", self.base) } else { target.to_owned() };
        let is_own = url.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'));
        let mut has_asked = false;
        loop {
            let mut request = Request::builder().method(method).uri(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = self.authorization.borrow().as_deref().filter(|_| is_own) {
                request = request.header("authorization", authorization);
            }
            let result = match body {
                Some(bytes) => self.agent.run(request.body(bytes).map_err(Failure::usage)?),
                None => self.agent.run(request.body(()).map_err(Failure::usage)?),
            };
            let response = result.map_err(|error| agent::failed(&self.host, &error))?;
            if response.status().as_u16() != 401 || !is_own || has_asked {
                return Ok(response);
            }
            has_asked = true;
            let challenge = header(&response, "www-authenticate").unwrap_or_default();
            let authorization = self.authorize(&challenge)?;
            *self.authorization.borrow_mut() = Some(authorization);
        }
    }

    /// The header that a challenge asks for.
    fn authorize(&self, challenge: &str) -> Result<String, Failure> {
        let (scheme, rest) = challenge.trim().split_once(' ').unwrap_or((challenge.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let known = self.found.credentials.as_ref().ok_or_else(|| self.refused())?;
            return Ok(known.basic());
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Failure::runtime(format_args!(
                "{}: the registry asks for an authorisation that is not known here: {scheme:?}",
                self.host
            )));
        }
        let realm = parameter(rest, "realm").unwrap_or_default();
        let is_safe = realm.starts_with("https://") || (self.plain && realm.starts_with("http://"));
        if !is_safe {
            return Err(Failure::runtime(format_args!(
                "{}: the registry's tokens are not to be had by https",
                self.host
            )));
        }
        let mut request = self.agent.get(&realm);
        for name in ["service", "scope"] {
            if let Some(value) = parameter(rest, name) {
                request = request.query(name, value);
            }
        }
        if let Some(known) = &self.found.credentials {
            request = request.header("authorization", known.basic());
        }
        let response = request.call().map_err(|error| agent::failed(&self.host, &error))?;
        if response.status().as_u16() != 200 {
            return Err(self.refused());
        }
        let text = agent::body(response, MAX_TOKEN_ANSWER, "the answer with the registry's token")?;
        let answer: TokenAnswer = serde_json::from_slice(&text).map_err(|error| {
            // What it says could quote the token.
            Failure::runtime(format_args!(
                "{}: the answer with the token is not JSON, line {}",
                self.host,
                error.line()
            ))
        })?;
        let token = answer.token.or(answer.access_token).ok_or_else(|| self.refused())?;
        Ok(format!("Bearer {token}"))
    }

    fn refused(&self) -> Failure {
        match &self.found.credentials {
            Some(_) => Failure::runtime(format_args!("{}: the registry refuses this user and password", self.host)),
            None => {
                Failure::runtime(format_args!("{}: the registry asks who you are: {}", self.host, self.found.advice))
            }
        }
    }

    fn expect(
        &self,
        response: Response<ureq::Body>,
        wanted: &[u16],
        reference: &Reference,
    ) -> Result<Response<ureq::Body>, Failure> {
        let status = response.status().as_u16();
        match status {
            status if wanted.contains(&status) => Ok(response),
            401 | 403 if self.found.credentials.is_none() => Err(self.refused()),
            401 | 403 => Err(Failure::runtime(format_args!("{reference}: this user may not do that"))),
            404 => Err(Failure::NotFound(format!("{reference}: there is no such manifest or repository"))),
            _ => {
                let said = agent::body(response, MAX_TOKEN_ANSWER, "the answer").unwrap_or_default();
                let said: String = String::from_utf8_lossy(&said).chars().take(MAX_QUOTED).collect();
                Err(Failure::runtime(format_args!("{reference}: the registry answered with status {status}: {said:?}")))
            }
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

fn header(response: &Response<ureq::Body>, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A parameter of a challenge: `name="value"`, several with commas between them. None of those that count has an escaped
/// quote.
fn parameter(challenge: &str, wanted: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((name, after)) = rest.split_once('=') {
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => {
                after.split_once(',').map_or((after, ""), |(value, _)| (value, after.get(value.len()..).unwrap_or("")))
            }
        };
        if name.trim_start_matches([',', ' ']).trim().eq_ignore_ascii_case(wanted) {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::NamedTempFile;

    use super::super::test_registry::{Demand, TestRegistry};
    use super::*;

    /// The smallest component: its header.
    fn component() -> Vec<u8> {
        b"\0asm\x0d\0\x01\0".to_vec()
    }

    fn open(server: &TestRegistry, name: &str, args: &RegistryArgs) -> (Registry, Reference) {
        let reference = Reference::parse(&format!("oci://{}/{name}", server.host())).unwrap();
        (Registry::open(&reference, args).unwrap(), reference)
    }

    /// A file with the password of the registries that ask for one.
    fn password() -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(b"pass").unwrap();
        file
    }

    fn somebody(password: &NamedTempFile) -> RegistryArgs {
        RegistryArgs {
            registry_user: Some("user".to_owned()),
            registry_password_file: Some(password.path().to_owned()),
            ..RegistryArgs::default()
        }
    }

    #[test]
    fn what_is_pushed_is_pulled_by_tag_and_by_digest() {
        let password = password();
        for demand in [Demand::Nothing, Demand::Basic, Demand::Bearer] {
            let server = TestRegistry::demanding(demand);
            let (registry, tag) = open(&server, "policies/by-site:1.2", &somebody(&password));
            let pinned = registry.push(&tag, &component()).unwrap();
            assert!(pinned.starts_with(&format!("oci://{}/policies/by-site@sha256:", server.host())), "{pinned}");
            let pulled = registry.pull(&tag).unwrap();
            assert_eq!((pulled.component, &pulled.pinned), (component(), &pinned));
            let by_digest = Reference::parse(&pinned).unwrap();
            let fresh = Registry::open(&by_digest, &somebody(&password)).unwrap();
            assert_eq!(fresh.pull(&by_digest).unwrap().component, component());
            // Again, and nothing is uploaded twice.
            let uploads = server.uploads();
            assert_eq!(registry.push(&tag, &component()).unwrap(), pinned);
            assert_eq!((server.uploads(), uploads), (2, 2));
        }
    }

    #[test]
    fn what_was_changed_on_the_way_is_refused() {
        let server = TestRegistry::start();
        let (registry, tag) = open(&server, "p:1", &RegistryArgs::default());
        let pinned = Reference::parse(&registry.push(&tag, &component()).unwrap()).unwrap();
        server.damage_blobs();
        let error = registry.pull(&tag).err().unwrap();
        assert!(error.to_string().contains("its component has the SHA-256"), "{error}");
        server.damage_manifests();
        for reference in [&tag, &pinned] {
            let error = registry.pull(reference).err().unwrap();
            assert!(error.to_string().contains("its manifest has the SHA-256"), "{error}");
        }
    }

    #[test]
    fn errors_say_what_is_missing() {
        let server = TestRegistry::start();
        let (registry, absent) = open(&server, "absent:1", &RegistryArgs::default());
        assert!(matches!(registry.pull(&absent), Err(Failure::NotFound(_))));
        assert!(matches!(registry.push(&absent, b"rubbish"), Err(Failure::Usage(_))));
        let other = Reference::parse(&format!("oci://{}/p@sha256:{}", server.host(), "a".repeat(64))).unwrap();
        assert!(matches!(registry.push(&other, &component()), Err(Failure::Usage(_))));
        let locked = TestRegistry::demanding(Demand::Basic);
        let password = password();
        let wrong = RegistryArgs { registry_user: Some("other".to_owned()), ..somebody(&password) };
        let (registry, reference) = open(&locked, "p:1", &wrong);
        let error = registry.pull(&reference).err().unwrap();
        assert!(!error.to_string().contains("pass"), "{error}");
        let tokens = TestRegistry::demanding(Demand::Bearer);
        let (registry, reference) = open(&tokens, "p:1", &wrong);
        let error = registry.pull(&reference).err().unwrap();
        assert!(error.to_string().contains("refuses this user"), "{error}");
        let nobody = Reference::parse("oci://127.0.0.1:1/p:1").unwrap();
        let registry = Registry::open(&nobody, &RegistryArgs::default()).unwrap();
        assert!(matches!(registry.pull(&nobody), Err(Failure::Unreachable(_))));
    }

    #[test]
    fn a_challenge_is_read() {
        let challenge =
            r#"realm="https://auth.example/token",service="registry.example", scope="repository:a/b:pull,push""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(challenge, "SERVICE").as_deref(), Some("registry.example"));
        assert_eq!(parameter(challenge, "scope").as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("realm=x,service=y", "service").as_deref(), Some("y"));
        for wrong in ["", "realm", "realm=\"x", "=", "\"=\""] {
            let _ = parameter(wrong, "realm");
        }
    }
}
