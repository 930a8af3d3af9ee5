//! The development CA and the server's certificate: made on the first start, so that TLS works without any set-up.
//!
//! The CA's private key never leaves the data directory. The server's certificate is made again when the names change, when
//! less than [`RENEW_BEFORE_DAYS`] of it are left, and when it does not belong to the CA.

use std::io;
use std::path::{Path, PathBuf};

use nave_env::Env;
use nave_model::Timestamp;
use nave_net::tls::{Identity, IdentityError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::TlsFiles;
use crate::files;
use crate::inspect::{CertificateFacts, name_text};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";

/// How long the CA lives, in days. Devices carry its certificate, so it must not expire soon.
const CA_DAYS: i64 = 20 * 365;

/// How long the server's certificate lives, in days. Some TLS stacks refuse more than 398 days.
const SERVER_DAYS: i64 = 365;

/// The server's certificate is renewed at a start when less than this is left of it.
const RENEW_BEFORE_DAYS: i64 = 30;

/// Clocks of devices differ; a certificate is valid from this long before it is made.
const BACKDATE_DAYS: i64 = 2;

const DAY_SECONDS: i64 = 24 * 3600;

/// What the listeners serve, and what clients have to trust.
pub(crate) struct ServerIdentity {
    /// Certificate and key.
    pub(crate) identity: Identity,
    /// What the certificate says.
    pub(crate) facts: Option<CertificateFacts>,
    /// PEM file for clients.
    pub(crate) ca: PathBuf,
    /// Whether it comes from the development CA.
    pub(crate) is_development: bool,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file cannot be read or written.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// The operator's certificate cannot be served.
    #[error("{}: {}", .0.display(), .1)]
    Identity(PathBuf, IdentityError),
    /// The development CA's files do not belong together or cannot be read.
    #[error("the development CA in {} is damaged: {}. Restore it, or remove the directory: every client must then trust a new CA", .0.display(), .1)]
    Damaged(PathBuf, String),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The certificate that the operator configured.
///
/// # Errors
///
/// [`CertificateError`].
pub(crate) fn configured(tls: &TlsFiles) -> Result<ServerIdentity, CertificateError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| CertificateError::Io(path.clone(), error));
    let (chain, key) = (read(&tls.certificate)?, read(&tls.key)?);
    read(&tls.ca)?;
    let identity =
        Identity::from_pem(&chain, &key).map_err(|error| CertificateError::Identity(tls.certificate.clone(), error))?;
    let ca = std::path::absolute(&tls.ca).unwrap_or_else(|_| tls.ca.clone());
    Ok(ServerIdentity { identity, facts: CertificateFacts::of_pem(&chain), ca, is_development: false })
}

/// The development CA's certificate for `names`, from `dir`, made there if necessary.
///
/// # Errors
///
/// [`CertificateError`].
pub(crate) fn development(dir: &Path, names: &[String], env: &dyn Env) -> Result<ServerIdentity, CertificateError> {
    files::private_dir(dir).map_err(|error| CertificateError::Io(dir.to_owned(), error))?;
    let now = env.now();
    let (ca_pem, ca_key) = match (read_text(&dir.join(CA_CERTIFICATE))?, read_text(&dir.join(CA_KEY))?) {
        (Some(certificate), Some(key)) => {
            let damaged = |error: rcgen::Error| CertificateError::Damaged(dir.to_owned(), error.to_string());
            (certificate, KeyPair::from_pem(&key).map_err(damaged)?)
        }
        (None, None) => make_ca(dir, now)?,
        (certificate, _) => {
            let what = if certificate.is_some() { "its private key is missing" } else { "its certificate is missing" };
            return Err(CertificateError::Damaged(dir.to_owned(), what.to_owned()));
        }
    };
    let ca = dir.join(CA_CERTIFICATE);
    let existing = (read_text(&dir.join(SERVER_CERTIFICATE))?, read_text(&dir.join(SERVER_KEY))?);
    if let (Some(chain), Some(key)) = existing
        && is_current(&chain, &ca_pem, names, now)
        && let Ok(identity) = Identity::from_pem(chain.as_bytes(), key.as_bytes())
    {
        let facts = CertificateFacts::of_pem(chain.as_bytes());
        return Ok(ServerIdentity { identity, facts, ca, is_development: true });
    }
    let (identity, facts) = make_server(dir, &ca_key, names, env)?;
    Ok(ServerIdentity { identity, facts, ca, is_development: true })
}

fn make_ca(dir: &Path, now: Timestamp) -> Result<(String, KeyPair), CertificateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = ca_params(&key);
    params.not_before = moment(now, -BACKDATE_DAYS * DAY_SECONDS);
    params.not_after = moment(now, CA_DAYS * DAY_SECONDS);
    let certificate = params.self_signed(&key)?.pem();
    // The key first: a certificate without its key would be damage, a key without its certificate too, but a crash between
    // the two is over before anybody trusts the CA.
    write(&dir.join(CA_KEY), &key.serialize_pem(), files::OWNER_ONLY)?;
    write(&dir.join(CA_CERTIFICATE), &certificate, files::EVERYONE_READS)?;
    tracing::info!(ca = %dir.join(CA_CERTIFICATE).display(), "made a development CA");
    Ok((certificate, key))
}

/// The CA's parameters follow from its key alone, so that it can sign again after a restart. The name contains a part of
/// the key's hash: clients that trust several development CAs find the right one.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Nave");
    let digest = sha256(key.public_key_raw());
    let tag: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    name.push(DnType::CommonName, format!("Nave development CA {tag}"));
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from_slice(&positive(digest.get(4..20).unwrap_or_default())));
    params
}

fn make_server(
    dir: &Path,
    ca_key: &KeyPair,
    names: &[String],
    env: &dyn Env,
) -> Result<(Identity, Option<CertificateFacts>), CertificateError> {
    let now = env.now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut serial = [0; 16];
    env.fill_random(&mut serial);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("nave", String::as_str));
    params.not_before = moment(now, -BACKDATE_DAYS * DAY_SECONDS);
    params.not_after = moment(now, SERVER_DAYS * DAY_SECONDS);
    params.serial_number = Some(SerialNumber::from_slice(&positive(&serial)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer_params = ca_params(ca_key);
    let certificate = params.signed_by(&key, &Issuer::from_params(&issuer_params, ca_key))?.pem();
    let key = key.serialize_pem();
    write(&dir.join(SERVER_KEY), &key, files::OWNER_ONLY)?;
    write(&dir.join(SERVER_CERTIFICATE), &certificate, files::EVERYONE_READS)?;
    tracing::info!(names = %names.join(", "), "made a server certificate");
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())
        .map_err(|error| CertificateError::Identity(dir.join(SERVER_CERTIFICATE), error))?;
    Ok((identity, CertificateFacts::of_pem(certificate.as_bytes())))
}

/// Whether the server's certificate can be served for another while.
fn is_current(chain: &str, ca: &str, names: &[String], now: Timestamp) -> bool {
    let (Ok((_, server)), Ok((_, ca))) = (parse_x509_pem(chain.as_bytes()), parse_x509_pem(ca.as_bytes())) else {
        return false;
    };
    let (Ok((_, server)), Ok((_, ca))) =
        (X509Certificate::from_der(&server.contents), X509Certificate::from_der(&ca.contents))
    else {
        return false;
    };
    let until = server.validity().not_after.timestamp();
    let lasts = until > moment(now, RENEW_BEFORE_DAYS * DAY_SECONDS).unix_timestamp();
    let same_issuer = server.issuer().as_raw() == ca.subject().as_raw();
    let mut have: Vec<String> = Vec::new();
    if let Ok(Some(extension)) = server.subject_alternative_name() {
        have.extend(extension.value.general_names.iter().filter_map(name_text));
    }
    let mut want = names.to_vec();
    want.sort();
    have.sort();
    lasts && same_issuer && want == have
}

fn read_text(path: &Path) -> Result<Option<String>, CertificateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertificateError::Io(path.to_owned(), error)),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    files::replace(path, text.as_bytes(), mode).map_err(|error| CertificateError::Io(path.to_owned(), error))
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

/// RFC 5280, section 4.1.2.2: serial numbers are positive.
fn positive(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    bytes
}

/// The moment `seconds` away from `time`. RFC 5280 writes years beyond 9999 not at all; those are cut by `time`.
fn moment(time: Timestamp, offset: i64) -> OffsetDateTime {
    let seconds = i64::try_from(time.unix_seconds()).unwrap_or(i64::MAX).saturating_add(offset);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nave_env::sim::{SimEnv, Simulation};

    use super::*;

    const NAMES: [&str; 3] = ["hub1.nave.test", "localhost", "127.0.0.1"];

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn at(days: i64) -> Arc<SimEnv> {
        let start = 1_800_000_000 + days * DAY_SECONDS;
        Simulation::new(u64::try_from(days).unwrap(), Timestamp::from_unix_seconds(u64::try_from(start).unwrap()))
            .host()
    }

    fn text(dir: &Path, file: &str) -> String {
        std::fs::read_to_string(dir.join(file)).unwrap()
    }

    #[test]
    fn keeps_what_is_good_and_renews_what_is_not() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let made = development(dir, &names(&NAMES), &*at(0)).unwrap();
        assert!(made.is_development && made.ca == dir.join(CA_CERTIFICATE));
        for file in [CA_KEY, SERVER_KEY] {
            assert_eq!(std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (ca, server) = (text(dir, CA_CERTIFICATE), text(dir, SERVER_CERTIFICATE));
        development(dir, &names(&["localhost", "127.0.0.1", "hub1.nave.test"]), &*at(1)).unwrap();
        assert_eq!(text(dir, SERVER_CERTIFICATE), server, "the same names in another order");
        development(dir, &names(&["localhost"]), &*at(2)).unwrap();
        let other = text(dir, SERVER_CERTIFICATE);
        assert_ne!(other, server, "other names");
        development(dir, &names(&["localhost"]), &*at(300)).unwrap();
        assert_eq!(text(dir, SERVER_CERTIFICATE), other, "it lasts");
        development(dir, &names(&["localhost"]), &*at(340)).unwrap();
        assert_ne!(text(dir, SERVER_CERTIFICATE), other, "it is about to expire");
        assert_eq!(text(dir, CA_CERTIFICATE), ca, "clients never have to trust another CA");
    }

    #[test]
    fn a_client_that_trusts_the_ca_trusts_the_server_after_a_renewal_too() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for (day, list) in [(0, &NAMES[..]), (1, &["localhost"][..])] {
            development(dir, &names(list), &*at(day)).unwrap();
            let server = parse_x509_pem(text(dir, SERVER_CERTIFICATE).as_bytes()).unwrap().1.contents;
            let ca = parse_x509_pem(text(dir, CA_CERTIFICATE).as_bytes()).unwrap().1.contents;
            let (_, server) = X509Certificate::from_der(&server).unwrap();
            let (_, ca) = X509Certificate::from_der(&ca).unwrap();
            assert_eq!(server.issuer().as_raw(), ca.subject().as_raw());
            let signature = ring::signature::UnparsedPublicKey::new(
                &ring::signature::ECDSA_P256_SHA256_ASN1,
                &ca.public_key().subject_public_key.data,
            );
            signature.verify(server.tbs_certificate.as_ref(), &server.signature_value.data).unwrap();
        }
    }

    #[test]
    fn half_a_ca_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        development(dir.path(), &names(&NAMES), &*at(0)).unwrap();
        std::fs::remove_file(dir.path().join(CA_KEY)).unwrap();
        let Err(error) = development(dir.path(), &names(&NAMES), &*at(0)) else { panic!("it went on") };
        assert!(error.to_string().contains("its private key is missing"), "{error}");
    }
}
