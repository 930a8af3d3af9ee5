//! Keys, certificates and `connection.json`, as `nave serve` makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use crate::imports::Shared;
use crate::manifest::Manifest;

/// The port of HTTPS: the SDKs dial no other.
const PORT: u16 = 443;

/// A deployment for tests.
pub(crate) struct Deployment {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) port: u16,
    file: PathBuf,
    connection: String,
}

impl Deployment {
    /// The manifest's defaults, two hubs, new keys and new certificates.
    pub(crate) fn new(manifest: &Manifest, folder: &Path) -> Result<Self> {
        let mut variables = manifest.variables.clone();
        let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
        set("hub_host_names", "hub1.nave.test,hub2.nave.test");
        set("provisioning_host_names", "dps.nave.test");
        let (hub_key, dps_key) = (key()?, key()?);
        for name in ["iothubowner_key", "device_key", "registry_read_key", "registry_read_write_key", "service_key"] {
            set(name, &hub_key);
        }
        set("provisioning_key", &dps_key);
        let names = ["hub1.nave.test", "hub2.nave.test", "dps.nave.test", "localhost"];
        let (tls, ca) = certificates(&names, &folder.join("ca-key.pem"))?;
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, ca)?;
        let service = |host: &str, policy: &str, key: &str| {
            format!("HostName={host};SharedAccessKeyName={policy};SharedAccessKey={key}")
        };
        let hub = |name: &str, host: &str, aliases: &[&str]| {
            let text = service(host, "iothubowner", &hub_key);
            json!({ "name": name, "hostName": host, "aliases": aliases, "httpsPort": PORT, "serviceConnectionString": text })
        };
        let connection = json!({
            "version": 1,
            "pid": std::process::id(),
            "caCertificate": fs::canonicalize(&ca_file)?,
            "hubs": [hub("hub1", "localhost", &["hub1.nave.test"]), hub("hub2", "hub2.nave.test", &[])],
            "provisioning": {
                "hostName": "localhost",
                "aliases": ["dps.nave.test"],
                "idScope": variables.get("id_scope").context("id_scope")?,
                "httpsPort": PORT,
                "serviceConnectionString": service("localhost", "provisioningserviceowner", &dps_key),
            },
        });
        let shared = Arc::new(Shared::new(variables));
        let file = folder.join("connection.json");
        Ok(Self { shared, tls, port: PORT, file, connection: connection.to_string() })
    }

    /// Says that it is ready.
    pub(crate) fn announce(&self) -> Result<()> {
        let half = self.file.with_extension("half");
        fs::write(&half, &self.connection)?;
        Ok(fs::rename(half, &self.file)?)
    }

    /// Says that it is not any more.
    pub(crate) fn withdraw(&self) {
        drop(fs::remove_file(&self.file));
    }
}

/// 32 random bytes in base64: those of a new private key, of which nothing else is used.
fn key() -> Result<String> {
    let pair = KeyPair::generate()?;
    let der = pair.serialize_der();
    Ok(STANDARD.encode(der.get(der.len().saturating_sub(32)..).context("a key")?))
}

/// The authority keeps its key: what was told to trust it before a restart still does.
fn certificates(names: &[&str], key_file: &Path) -> Result<(Arc<rustls::ServerConfig>, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "nave spin host");
    let key = match fs::read_to_string(key_file) {
        Ok(pem) => KeyPair::from_pem(&pem)?,
        Err(_) => KeyPair::generate()?,
    };
    fs::write(key_file, key.serialize_pem())?;
    let ca = CertifiedIssuer::self_signed(params, key)?;
    let pair = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let leaf = CertificateParams::new(names)?.signed_by(&pair, &ca)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)?;
    Ok((Arc::new(config), ca.pem()))
}
