//! Who may do what: devices by their credentials, services by their policy's rights.

use nave_auth::{
    ClientCertificates, DpsRights, KeyPair, PolicyFacts, Rejection, Rights, SasToken, Thumbprint, match_certificate,
    verify_ca_signed, verify_device_token, verify_policy_token,
};
use nave_model::{Authentication, DeviceStatus, HostName, Identity};

use crate::connect::{Authenticated, Owner};
use crate::error::{ErrorCode, HubError};
use crate::hub::Hub;
use crate::provisioning::Provisioning;

/// What a device presented.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The token's text, if it is not empty.
    pub token: Option<&'a str>,
    /// The certificate chain of the TLS handshake, leaf first, DER.
    pub certificates: &'a [Vec<u8>],
}

impl Hub {
    /// Checks a device's credentials against its record. `operation` is the path below the device, for HTTPS.
    ///
    /// # Errors
    ///
    /// 401 for every reason: the caller does not learn whether the device exists. The detail is for the log.
    pub async fn authenticate(
        &self,
        identity: &Identity,
        presented: Presented<'_>,
        operation: &[&str],
    ) -> Result<Authenticated, HubError> {
        let Some((record, revision)) = self.load(identity).await? else {
            return Err(refused("there is no such device"));
        };
        if record.status == DeviceStatus::Disabled {
            return Err(refused("the device is disabled"));
        }
        let owner = if identity.is_module() { Some(self.enabled_owner(identity).await?) } else { None };
        let now = self.env.now();
        let is_host = |name: &str| self.is_own_name(name);
        let (method, expires) = match (presented.token, &record.authentication) {
            (Some(token), authentication) => {
                let token = SasToken::parse(token).map_err(|error| rejected(&error.into()))?;
                let keys = match authentication {
                    Authentication::Sas(keys) => Some(
                        KeyPair::from_base64(keys.primary.reveal(), keys.secondary.reveal())
                            .map_err(HubError::internal)?,
                    ),
                    _ => None,
                };
                let facts =
                    verify_device_token(&token, is_host, identity, operation, keys.as_ref(), self.policies(), now)
                        .map_err(|error| rejected(&error))?;
                (facts.auth_method(identity), Some(facts.expires))
            }
            (None, Authentication::SelfSigned(pair)) => {
                let certificates = client_certificates(presented.certificates)?;
                let registered: Vec<Thumbprint> = [&pair.primary, &pair.secondary]
                    .into_iter()
                    .flatten()
                    .filter_map(|text| Thumbprint::parse(text).ok())
                    .collect();
                let facts = match_certificate(&certificates, &registered, now).map_err(|error| rejected(&error))?;
                (facts.auth_method(identity), Some(facts.leaf.not_after))
            }
            (None, Authentication::CertificateAuthority) => {
                let certificates = client_certificates(presented.certificates)?;
                let trusted = self.authorities.trusted();
                // Of a module: `{device}/{module}` (protocol notes: authentication §2).
                let own = identity.to_string();
                let facts = verify_ca_signed(&certificates, |name| name == own, &trusted.anchors, now)
                    .map_err(|error| rejected(&error))?;
                (facts.auth_method(identity), Some(facts.leaf.not_after))
            }
            (None, Authentication::Sas(_) | Authentication::None) => return Err(rejected(&Rejection::NoCredential)),
        };
        Ok(Authenticated {
            identity: identity.clone(),
            revision,
            generation_id: record.generation_id.into(),
            etag: record.etag,
            owner,
            auth_method: method.json().into(),
            expires,
        })
    }

    /// The device of a module, which has to be enabled for its modules to connect.
    async fn enabled_owner(&self, module: &Identity) -> Result<Owner, HubError> {
        let identity = Identity::device(module.device_id().clone());
        match self.load(&identity).await? {
            None => Err(refused("the module's device does not exist")),
            Some((device, _)) if device.status == DeviceStatus::Disabled => {
                Err(refused("the module's device is disabled"))
            }
            Some((device, revision)) => {
                Ok(Owner { identity, revision, generation_id: device.generation_id.into(), etag: device.etag })
            }
        }
    }

    /// Checks a service's token for `path` (without query), and that its policy has `rights`.
    ///
    /// # Errors
    ///
    /// 401: no token, a bad one, an expired one, or one without the rights.
    pub fn authorize(
        &self,
        token: Option<&str>,
        path: &[&str],
        rights: Rights,
    ) -> Result<PolicyFacts<Rights>, HubError> {
        let token = token.ok_or_else(|| rejected(&Rejection::NoCredential))?;
        let token = SasToken::parse(token).map_err(|error| rejected(&error.into()))?;
        let facts = verify_policy_token(&token, |name| self.is_own_name(name), path, self.policies(), self.env.now())
            .map_err(|error| rejected(&error))?;
        if facts.rights.contains(rights) {
            return Ok(facts);
        }
        Err(lacks_right(facts.policy.as_str()))
    }

    fn is_own_name(&self, name: &str) -> bool {
        HostName::parse(name).is_ok_and(|name| self.answers_to(&name))
    }
}

impl Provisioning {
    /// Checks a service's token for `path` (without query), and that its policy has `rights`.
    ///
    /// # Errors
    ///
    /// 401: no token, a bad one, an expired one, or one without the rights.
    pub fn authorize(
        &self,
        token: Option<&str>,
        path: &[&str],
        rights: DpsRights,
    ) -> Result<PolicyFacts<DpsRights>, HubError> {
        let token = token.ok_or_else(|| rejected(&Rejection::NoCredential))?;
        let token = SasToken::parse(token).map_err(|error| rejected(&error.into()))?;
        let is_host = |name: &str| HostName::parse(name).is_ok_and(|name| self.answers_to(&name));
        let facts = verify_policy_token(&token, is_host, path, self.policies(), self.env.now())
            .map_err(|error| rejected(&error))?;
        if facts.rights.contains(rights) { Ok(facts) } else { Err(lacks_right(facts.policy.as_str())) }
    }
}

pub(crate) fn client_certificates(chain: &[Vec<u8>]) -> Result<ClientCertificates, HubError> {
    if chain.is_empty() {
        return Err(rejected(&Rejection::NoCredential));
    }
    ClientCertificates::new(chain.iter().map(|der| der.clone().into()).collect())
        .map_err(|error| rejected(&error.into()))
}

pub(crate) fn rejected(rejection: &Rejection) -> HubError {
    HubError::new(ErrorCode::IotHubUnauthorized, rejection.client_message()).with_detail(rejection)
}

fn refused(detail: &str) -> HubError {
    HubError::unauthorized().with_detail(detail)
}

fn lacks_right(policy: &str) -> HubError {
    HubError::new(ErrorCode::IotHubUnauthorizedAccess, "Unauthorized: the access policy lacks the right for this.")
        .with_detail(format_args!("policy `{policy}`"))
}
