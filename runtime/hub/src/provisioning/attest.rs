//! Which enrollment a device belongs to, and whether its proof holds.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_auth::{
    CaCertificate, ClientCertificates, KeyPair, Rejection, SasToken, Thumbprint, TrustAnchors, match_certificate,
    verify_ca_signed, verify_registration_token,
};
use nave_model::{
    AttestationRecord, Authentication, CertificateText, EnrollmentKind, EnrollmentRecord, KeyPairText, RegistrationId,
    SecretText, ThumbprintPair,
};

use super::Provisioning;
use super::register::Credentials;
use crate::error::HubError;

/// What a device presented, read.
pub(crate) enum Proof {
    /// A token.
    Token(SasToken),
    /// A certificate chain.
    Chain(Box<ClientCertificates>),
}

/// The enrollment that a registration is judged by.
pub(crate) struct Attested {
    /// The enrollment; none if nothing fits.
    pub(crate) enrollment: Option<Arc<EnrollmentRecord>>,
    /// What the device can use in its hub, or why its proof does not hold.
    pub(crate) verdict: Result<DeviceCredentials, String>,
}

/// The credentials that the device gets in its hub.
#[derive(Clone)]
pub(crate) struct DeviceCredentials {
    pub(crate) authentication: Authentication,
    /// The leaf certificate, base64 of DER.
    pub(crate) certificate: Option<String>,
}

impl Proof {
    pub(crate) fn read(credentials: &Credentials) -> Result<Self, Rejection> {
        if let Some(token) = credentials.token.as_ref().map(SecretText::reveal).filter(|token| !token.is_empty()) {
            return Ok(Self::Token(SasToken::parse(token)?));
        }
        if credentials.certificates.is_empty() {
            return Err(Rejection::NoCredential);
        }
        let chain = credentials.certificates.iter().map(|der| der.clone().into()).collect();
        Ok(Self::Chain(Box::new(ClientCertificates::new(chain)?)))
    }
}

impl Provisioning {
    /// Finds the enrollment: an individual one that is disabled or of the presented kind; else the first group that a
    /// presented certificate belongs to, or whose derived key verifies the token. The first match decides.
    ///
    /// `written_id` is the registration id as the device wrote it: group keys derive from that very text.
    pub(crate) async fn attest(
        &self,
        id: &RegistrationId,
        written_id: &str,
        proof: &Proof,
    ) -> Result<Attested, HubError> {
        let individual = self.load_enrollment(EnrollmentKind::Individual, id.as_str()).await?;
        let decides = |record: &EnrollmentRecord| !record.enabled || same_kind(&record.attestation, proof);
        if let Some((record, _)) = individual.filter(|(record, _)| decides(record)) {
            let verdict = self.verify_individual(id, &record, proof);
            return Ok(Attested { enrollment: Some(Arc::new(record)), verdict });
        }
        let groups = self.all_groups().await?;
        match proof {
            Proof::Token(token) => Ok(self.attest_by_derived_key(id, written_id, token, groups)),
            Proof::Chain(chain) => Ok(self.attest_by_chain(id, chain, groups)),
        }
    }

    fn verify_individual(
        &self,
        id: &RegistrationId,
        record: &EnrollmentRecord,
        proof: &Proof,
    ) -> Result<DeviceCredentials, String> {
        match (&record.attestation, proof) {
            (AttestationRecord::SymmetricKey(keys), Proof::Token(token)) => {
                let pair = key_pair(keys)?;
                verify_registration_token(token, self.id_scope(), id, [pair], self.env.now())
                    .map_err(|error| error.to_string())?;
                Ok(DeviceCredentials { authentication: Authentication::Sas(keys.clone()), certificate: None })
            }
            (AttestationRecord::ClientCertificates { primary, secondary }, Proof::Chain(chain)) => {
                check_common_name(id, chain)?;
                let registered: Vec<Thumbprint> = [Some(primary), secondary.as_ref()]
                    .into_iter()
                    .flatten()
                    .filter_map(|certificate| Some(Thumbprint::sha256(&STANDARD.decode(&certificate.0).ok()?)))
                    .collect();
                match_certificate(chain, &registered, self.env.now()).map_err(|error| error.to_string())?;
                Ok(leaf_credentials(chain))
            }
            (AttestationRecord::CaReferences { .. }, Proof::Chain(chain)) => {
                let anchors = TrustAnchors::new(self.anchors_of(record));
                let is_name = |name: &str| name.eq_ignore_ascii_case(id.as_str());
                verify_ca_signed(chain, is_name, &anchors, self.env.now()).map_err(|error| error.to_string())?;
                Ok(leaf_credentials(chain))
            }
            (AttestationRecord::Tpm { .. }, _) => Err("TPM attestation is not available in this release".to_owned()),
            _ => Err("the device presented another kind of credential than its enrollment has".to_owned()),
        }
    }

    fn attest_by_derived_key(
        &self,
        id: &RegistrationId,
        written_id: &str,
        token: &SasToken,
        groups: Vec<Arc<EnrollmentRecord>>,
    ) -> Attested {
        let candidates: Vec<(Arc<EnrollmentRecord>, KeyPair)> = groups
            .into_iter()
            .filter_map(|group| {
                let AttestationRecord::SymmetricKey(keys) = &group.attestation else { return None };
                let pair = key_pair(keys).ok()?.derive(written_id);
                Some((group, pair))
            })
            .collect();
        let pairs = candidates.iter().map(|(_, pair)| pair.clone());
        match verify_registration_token(token, self.id_scope(), id, pairs, self.env.now()) {
            Ok(facts) => match candidates.into_iter().nth(facts.candidate) {
                Some((group, pair)) => {
                    let keys = KeyPairText {
                        primary: SecretText::new(pair.primary.expose_base64()),
                        secondary: SecretText::new(pair.secondary.expose_base64()),
                    };
                    let credentials =
                        DeviceCredentials { authentication: Authentication::Sas(keys), certificate: None };
                    Attested { enrollment: Some(group), verdict: Ok(credentials) }
                }
                None => Attested { enrollment: None, verdict: Err("no enrollment group matches".to_owned()) },
            },
            Err(error) => {
                Attested { enrollment: None, verdict: Err(format!("no enrollment matches the token: {error}")) }
            }
        }
    }

    fn attest_by_chain(
        &self,
        id: &RegistrationId,
        chain: &ClientCertificates,
        groups: Vec<Arc<EnrollmentRecord>>,
    ) -> Attested {
        // One path building over the certificates of all groups finds the anchor nearest to the leaf.
        let mut authorities = Vec::new();
        let mut owners = Vec::new();
        for group in groups {
            for authority in self.anchors_of(&group) {
                authorities.push(authority);
                owners.push(Arc::clone(&group));
            }
        }
        let anchors = TrustAnchors::new(authorities);
        match nave_auth::verify_chain(chain, &anchors, self.env.now()) {
            Ok(verified) => {
                let verdict = check_common_name(id, chain).map(|()| leaf_credentials(chain));
                Attested { enrollment: owners.into_iter().nth(verified.anchor_index), verdict }
            }
            Err(error) => {
                Attested { enrollment: None, verdict: Err(format!("no enrollment matches the certificate: {error}")) }
            }
        }
    }

    fn anchors_of(&self, record: &EnrollmentRecord) -> Vec<CaCertificate> {
        match &record.attestation {
            AttestationRecord::SigningCertificates { primary, secondary } => {
                [Some(primary), secondary.as_ref()].into_iter().flatten().filter_map(ca_certificate).collect()
            }
            AttestationRecord::CaReferences { primary, secondary } => {
                let trusted = self.authorities.trusted();
                let names = [Some(primary), secondary.as_ref()].into_iter().flatten();
                names.filter_map(|name| trusted.named(name).cloned()).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn ca_certificate(text: &CertificateText) -> Option<CaCertificate> {
    CaCertificate::parse(&STANDARD.decode(&text.0).ok()?).ok()
}

fn key_pair(keys: &KeyPairText) -> Result<KeyPair, String> {
    KeyPair::from_base64(keys.primary.reveal(), keys.secondary.reveal()).map_err(|error| error.to_string())
}

/// For X.509 the registration id is the leaf's common name (protocol notes: authentication §3.2).
fn check_common_name(id: &RegistrationId, chain: &ClientCertificates) -> Result<(), String> {
    match &chain.leaf().common_name {
        Some(name) if name.eq_ignore_ascii_case(id.as_str()) => Ok(()),
        name => Err(format!("the certificate's common name {name:?} is not the registration id")),
    }
}

fn leaf_credentials(chain: &ClientCertificates) -> DeviceCredentials {
    let thumbprint = chain.leaf().sha256_thumbprint.to_string();
    DeviceCredentials {
        authentication: Authentication::SelfSigned(ThumbprintPair { primary: Some(thumbprint), secondary: None }),
        certificate: chain.chain().first().map(|leaf| STANDARD.encode(leaf)),
    }
}

const fn same_kind(attestation: &AttestationRecord, proof: &Proof) -> bool {
    match attestation {
        AttestationRecord::SymmetricKey(_) | AttestationRecord::Tpm { .. } => matches!(proof, Proof::Token(_)),
        _ => matches!(proof, Proof::Chain(_)),
    }
}
