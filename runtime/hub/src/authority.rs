//! Certificate authorities that vouch for devices: registered by name, trusted once possession of the key is shown.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_auth::{CaCertificate, TrustAnchors, parse_certificate_text, verification_code, verify_possession};
use nave_env::SharedEnv;
use nave_model::{CaRecord, CertificateText, FormatVersion, Keys};
use nave_store::{CommitError, Expect, Guard, Put, Store};
use parking_lot::RwLock;

use crate::error::{ErrorCode, HubError};
use crate::hub::{decode, put};
use crate::registry::argument;

/// Most certificate authorities of one hub or provisioning service (protocol notes: limits §4).
pub const MAX_AUTHORITIES: usize = 25;

/// Longest name of a certificate authority.
pub const MAX_AUTHORITY_NAME: usize = 64;

/// The trusted authorities, ready for path building.
pub(crate) struct Trusted {
    names: Vec<String>,
    pub(crate) anchors: TrustAnchors,
}

impl Trusted {
    /// The certificate of that name.
    pub(crate) fn named(&self, name: &str) -> Option<&CaCertificate> {
        let index = self.names.iter().position(|known| known == name)?;
        self.anchors.authorities().get(index)
    }
}

/// The authorities of one hub or provisioning service.
pub struct Authorities {
    env: SharedEnv,
    store: Arc<dyn Store>,
    keys: Keys,
    trusted: RwLock<Arc<Trusted>>,
    /// Held from reading the store to putting the result in place, so that an older reading does not replace a newer one.
    loading: tokio::sync::Mutex<()>,
}

impl Authorities {
    pub(crate) fn new(env: SharedEnv, store: Arc<dyn Store>, keys: Keys) -> Self {
        let none = Trusted { names: Vec::new(), anchors: TrustAnchors::new([]) };
        Self { env, store, keys, trusted: RwLock::new(Arc::new(none)), loading: tokio::sync::Mutex::new(()) }
    }

    pub(crate) fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.trusted.read())
    }

    /// All authorities in the order of their names.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store fails.
    pub async fn list(&self) -> Result<Vec<CaRecord>, HubError> {
        let entries = self.store.scan(&self.keys.cas(), None, MAX_AUTHORITIES).await?;
        entries.iter().map(|(_, entry)| Ok(decode::<CaRecord>(entry)?.0)).collect()
    }

    /// Registers an authority by its certificate (PEM or base64 of DER). With `verified` the caller vouches for it; else it
    /// is trusted only after [`Authorities::verify`], and the record says with which code.
    ///
    /// # Errors
    ///
    /// 400 for what is no CA certificate, 409 if the name is taken.
    pub async fn add(&self, name: &str, certificate: &str, verified: bool) -> Result<CaRecord, HubError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || name.len() > MAX_AUTHORITY_NAME || !name.bytes().all(plain) {
            return Err(argument(format!(
                "The name of a certificate authority has 1 to {MAX_AUTHORITY_NAME} letters, digits, '-', '.' or '_'."
            )));
        }
        if self.list().await?.len() >= MAX_AUTHORITIES {
            return Err(argument(format!("There can be {MAX_AUTHORITIES} certificate authorities: delete one first.")));
        }
        let der =
            parse_certificate_text(certificate).map_err(|error| argument(format!("Invalid certificate: {error}.")))?;
        CaCertificate::parse(&der).map_err(|error| argument(format!("Invalid certificate: {error}.")))?;
        let now = self.env.now();
        let record = CaRecord {
            v: FormatVersion,
            name: name.to_owned(),
            certificate: CertificateText(STANDARD.encode(&der)),
            verified,
            verification_code: (!verified).then(|| verification_code(|buffer| self.env.fill_random(buffer))),
            created: now,
            updated: now,
        };
        let key = self.keys.ca(name);
        let guards = vec![Guard { key: key.clone(), expect: Expect::Absent }];
        match self.store.commit(guards, vec![put(key, &record)?]).await {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => {
                return Err(HubError::new(
                    ErrorCode::GenericConflict,
                    format!("There is a certificate authority '{name}' already: delete it first."),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        self.load().await?;
        Ok(record)
    }

    /// Takes a proof of possession: a certificate with the verification code as its common name, signed by the authority.
    ///
    /// # Errors
    ///
    /// 404; 400 if it proves nothing.
    pub async fn verify(&self, name: &str, proof: &str) -> Result<CaRecord, HubError> {
        let key = self.keys.ca(name);
        let entry = self.store.get(&key).await?.ok_or_else(|| not_found(name))?;
        let (mut record, revision) = decode::<CaRecord>(&entry)?;
        let Some(code) = record.verification_code.take() else { return Ok(record) };
        let ca = certificate(&record)?;
        let proof =
            parse_certificate_text(proof).map_err(|error| argument(format!("Invalid certificate: {error}.")))?;
        verify_possession(&ca, &proof, &code, self.env.now())
            .map_err(|error| argument(format!("The certificate proves nothing: {error}.")))?;
        record.verified = true;
        record.updated = self.env.now();
        let guards = vec![Guard { key: key.clone(), expect: Expect::At(revision) }];
        self.store.commit(guards, vec![put(key, &record)?]).await?;
        self.load().await?;
        Ok(record)
    }

    /// Forgets an authority. Devices that it vouched for are refused from now on.
    ///
    /// # Errors
    ///
    /// 404.
    pub async fn delete(&self, name: &str) -> Result<(), HubError> {
        let key = self.keys.ca(name);
        let entry = self.store.get(&key).await?.ok_or_else(|| not_found(name))?;
        let guards = vec![Guard { key: key.clone(), expect: Expect::At(entry.revision) }];
        self.store.commit(guards, vec![Put { key, value: None }]).await?;
        self.load().await
    }

    /// Reads the trusted authorities from the store.
    pub(crate) async fn load(&self) -> Result<(), HubError> {
        let _loading = self.loading.lock().await;
        let records: Vec<_> = self.list().await?.into_iter().filter(|record| record.verified).collect();
        let certificates = records.iter().map(certificate).collect::<Result<Vec<_>, _>>()?;
        let trusted = Trusted {
            names: records.into_iter().map(|record| record.name).collect(),
            anchors: TrustAnchors::new(certificates),
        };
        *self.trusted.write() = Arc::new(trusted);
        Ok(())
    }
}

fn certificate(record: &CaRecord) -> Result<CaCertificate, HubError> {
    let der = STANDARD.decode(&record.certificate.0).map_err(HubError::internal)?;
    CaCertificate::parse(&der).map_err(HubError::internal)
}

fn not_found(name: &str) -> HubError {
    HubError::new(ErrorCode::GenericNotFound, format!("No certificate authority '{name}'."))
}
