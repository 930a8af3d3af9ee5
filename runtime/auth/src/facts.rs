//! From what a client presented to verified facts, or to a rejection.

use nave_model::{IdScope, Identity, PolicyName, RegistrationId, Timestamp};

use crate::key::KeyPair;
use crate::policy::AccessPolicy;
use crate::rights::Rights;
use crate::sas::{CLOCK_SKEW, KeyName, SasError, SasToken};
use crate::x509::{
    CertificateError, CertificateInfo, ChainError, ClientCertificates, Thumbprint, TrustAnchors, verify_chain,
};

/// Why a client is not who it says it is. `Display` is the detail for the log; it holds no secret.
/// [`Rejection::client_message`] is what the client may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// There is neither a token nor a certificate.
    #[error("the client presented no credential")]
    NoCredential,
    /// The token is malformed, expired, or its signature is wrong.
    #[error(transparent)]
    Token(#[from] SasError),
    /// The token is for something else.
    #[error("the token's resource does not cover what the client asks for")]
    WrongResource,
    /// The token says that it was signed with a key that cannot sign for this.
    #[error("the token's key name fits neither the caller's own key nor an access policy")]
    UnknownPolicy,
    /// The policy that signed the token does not have the right.
    #[error("the access policy `{0}` lacks the right that this needs")]
    MissingRight(PolicyName),
    /// The caller is registered for another kind of authentication.
    #[error("the caller is registered without shared keys")]
    NoKeys,
    /// The certificates are not usable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The leaf is not the registered one.
    #[error("the certificate with SHA-256 thumbprint {presented} is not the registered one")]
    ThumbprintMismatch {
        /// The presented certificate's thumbprint.
        presented: Thumbprint,
    },
    /// The leaf's validity is over.
    #[error("the certificate expired at {0}")]
    CertificateExpired(String),
    /// The leaf's validity has not begun.
    #[error("the certificate is not valid before {0}")]
    CertificateNotYetValid(String),
    /// The leaf's common name is not the caller's id.
    #[error("the certificate's common name is not the id that the client states")]
    CommonNameMismatch,
    /// No chain to a trusted CA.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Rejection {
    /// A text for the client. It does not help to find out which ids or policies exist, nor which part of a token was
    /// nearly right; expiry is said because clients with a wrong clock need it.
    pub const fn client_message(&self) -> &'static str {
        match self {
            Self::NoCredential => "Authorization header missing",
            Self::Token(SasError::Expired { .. }) => "Unauthorized: the token has expired",
            Self::ThumbprintMismatch { .. } => "Thumbprint does not match configuration",
            Self::Certificate(_)
            | Self::CertificateExpired(_)
            | Self::CertificateNotYetValid(_)
            | Self::CommonNameMismatch
            | Self::Chain(_) => "Invalid certificate.",
            Self::Token(_) | Self::WrongResource | Self::UnknownPolicy | Self::NoKeys => "Unauthorized",
            Self::MissingRight(_) => "IotHubUnauthorizedAccess",
        }
    }
}

/// A device or module proved itself with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SasFacts {
    /// Whose key signed the token.
    pub signer: SasSigner,
    /// When the token expires, without skew; the connection ends then.
    pub expires: Timestamp,
}

/// Whose key signed a device's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SasSigner {
    /// The device's or module's own key.
    OwnKey,
    /// An access policy with [`Rights::DEVICE_CONNECT`].
    Policy(PolicyName),
}

impl SasFacts {
    /// The stamp for the messages of `identity`.
    pub const fn auth_method(&self, identity: &Identity) -> ConnectionAuthMethod {
        match self.signer {
            SasSigner::Policy(_) => ConnectionAuthMethod { scope: AuthScope::Hub, kind: AuthType::Sas },
            SasSigner::OwnKey => ConnectionAuthMethod { scope: AuthScope::of(identity), kind: AuthType::Sas },
        }
    }
}

/// A service client proved that it holds an access policy's key. `R` is [`Rights`] or [`crate::DpsRights`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFacts<R> {
    /// The policy.
    pub policy: PolicyName,
    /// What it allows; whether that is enough is the endpoint's question.
    pub rights: R,
    /// When the token expires, without skew.
    pub expires: Timestamp,
}

/// A device proved to the provisioning service that it holds one of some key pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationFacts {
    /// The position of the pair in what was tried.
    pub candidate: usize,
    /// When the token expires, without skew.
    pub expires: Timestamp,
}

/// A client proved itself with a certificate, whose key the TLS handshake has seen at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Facts {
    /// What the leaf says.
    pub leaf: CertificateInfo,
    /// Why it is trusted.
    pub trust: X509Trust,
}

/// Why a certificate is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X509Trust {
    /// It is the registered one, by thumbprint.
    Registered {
        /// The position of the thumbprint in what was compared: 0 is the primary if there is one.
        candidate: usize,
    },
    /// A CA stands behind it.
    Authority {
        /// The position of the CA in the trust anchors.
        anchor_index: usize,
        /// How many intermediates lie between.
        intermediates: usize,
    },
}

impl X509Facts {
    /// The stamp for the messages of `identity`.
    pub const fn auth_method(&self, identity: &Identity) -> ConnectionAuthMethod {
        ConnectionAuthMethod { scope: AuthScope::of(identity), kind: AuthType::X509 }
    }
}

/// How the connection that sent a message was authenticated: the JSON text of `iothub-connection-auth-method` (protocol
/// notes: authentication §1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionAuthMethod {
    /// Whose credential it was.
    pub scope: AuthScope,
    /// What kind of credential it was.
    pub kind: AuthType,
}

/// Whose credential authenticated a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthScope {
    /// An access policy's.
    Hub,
    /// The device's.
    Device,
    /// The module's.
    Module,
}

impl AuthScope {
    const fn of(identity: &Identity) -> Self {
        if identity.is_module() { Self::Module } else { Self::Device }
    }
}

/// What kind of credential authenticated a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthType {
    /// A token.
    Sas,
    /// A shared key without a token.
    SymKey,
    /// A certificate.
    X509,
}

impl ConnectionAuthMethod {
    /// The JSON text.
    pub const fn json(self) -> &'static str {
        match (self.scope, self.kind) {
            (AuthScope::Hub, AuthType::Sas) => r#"{"scope":"hub","type":"sas","issuer":"iothub"}"#,
            (AuthScope::Hub, AuthType::SymKey) => r#"{"scope":"hub","type":"symkey","issuer":"iothub"}"#,
            (AuthScope::Hub, AuthType::X509) => r#"{"scope":"hub","type":"x509","issuer":"iothub"}"#,
            (AuthScope::Device, AuthType::Sas) => r#"{"scope":"device","type":"sas","issuer":"iothub"}"#,
            (AuthScope::Device, AuthType::SymKey) => r#"{"scope":"device","type":"symkey","issuer":"iothub"}"#,
            (AuthScope::Device, AuthType::X509) => r#"{"scope":"device","type":"x509","issuer":"iothub"}"#,
            (AuthScope::Module, AuthType::Sas) => r#"{"scope":"module","type":"sas","issuer":"iothub"}"#,
            (AuthScope::Module, AuthType::SymKey) => r#"{"scope":"module","type":"symkey","issuer":"iothub"}"#,
            (AuthScope::Module, AuthType::X509) => r#"{"scope":"module","type":"x509","issuer":"iothub"}"#,
        }
    }
}

/// Verifies the token of a device or module for a connection (`operation` empty) or for an operation below its path
/// (`["messages", "events"]`).
///
/// `keys` are its own keys, if it has any; `policies` those of the hub. Either its own key signed for its path or
/// something below, or a policy with [`Rights::DEVICE_CONNECT`] signed for anything that covers it.
///
/// # Errors
/// [`Rejection`].
pub fn verify_device_token(
    token: &SasToken,
    is_host: impl Fn(&str) -> bool,
    identity: &Identity,
    operation: &[&str],
    keys: Option<&KeyPair>,
    policies: &[AccessPolicy<Rights>],
    now: Timestamp,
) -> Result<SasFacts, Rejection> {
    token.check_expiry(now, CLOCK_SKEW)?;
    let (device, module) = (identity.device_id(), identity.module_id());
    let expires = token.expiry();
    let policy = find_policy(token, policies);
    if token.may_be_device_key(device.as_str()) {
        let own = match keys {
            None => Err(Rejection::NoKeys),
            Some(_) if !token.resource().allows_device_operation(&is_host, device, module, operation) => {
                Err(Rejection::WrongResource)
            }
            Some(keys) => token.verify(&keys.both()).map_err(Rejection::Token),
        };
        match own {
            Ok(()) => return Ok(SasFacts { signer: SasSigner::OwnKey, expires }),
            // A policy may have the same name as the device.
            Err(rejection) if policy.is_none() => return Err(rejection),
            Err(_) => (),
        }
    }
    let policy = policy.ok_or(Rejection::UnknownPolicy)?;
    let mut path = vec!["devices", device.as_str()];
    if let Some(module) = module {
        path.extend(["modules", module.as_str()]);
    }
    path.extend(operation);
    if !token.resource().covers(is_host, &path) {
        return Err(Rejection::WrongResource);
    }
    token.verify(&policy.keys.both())?;
    if !policy.rights.contains(Rights::DEVICE_CONNECT) {
        return Err(Rejection::MissingRight(policy.name.clone()));
    }
    Ok(SasFacts { signer: SasSigner::Policy(policy.name.clone()), expires })
}

/// Verifies the token of a service client for the resource `path` (`["twins", "dev-1"]`) of a hub or provisioning
/// service.
///
/// # Errors
/// [`Rejection`]. Whether the policy's rights are enough is not checked here.
pub fn verify_policy_token<R: Copy>(
    token: &SasToken,
    is_host: impl Fn(&str) -> bool,
    path: &[&str],
    policies: &[AccessPolicy<R>],
    now: Timestamp,
) -> Result<PolicyFacts<R>, Rejection> {
    token.check_expiry(now, CLOCK_SKEW)?;
    let policy = find_policy(token, policies).ok_or(Rejection::UnknownPolicy)?;
    if !token.resource().covers(is_host, path) {
        return Err(Rejection::WrongResource);
    }
    token.verify(&policy.keys.both())?;
    Ok(PolicyFacts { policy: policy.name.clone(), rights: policy.rights, expires: token.expiry() })
}

/// Verifies the token of a device at the provisioning service against key pairs: the individual enrollment's, or those
/// derived from each group's ([`KeyPair::derive`], with the id as the device wrote it), lazily and in order.
///
/// # Errors
/// [`Rejection`].
pub fn verify_registration_token(
    token: &SasToken,
    scope: &IdScope,
    registration_id: &RegistrationId,
    candidates: impl IntoIterator<Item = KeyPair>,
    now: Timestamp,
) -> Result<RegistrationFacts, Rejection> {
    token.check_expiry(now, CLOCK_SKEW)?;
    if !token.may_be_registration_key() {
        return Err(Rejection::UnknownPolicy);
    }
    if !token.resource().names_registration(scope, registration_id) {
        return Err(Rejection::WrongResource);
    }
    let candidate = candidates.into_iter().position(|keys| token.verify(&keys.both()).is_ok());
    let candidate = candidate.ok_or(Rejection::Token(SasError::WrongSignature))?;
    Ok(RegistrationFacts { candidate, expires: token.expiry() })
}

/// Compares the presented leaf with the registered thumbprints (a device's, or those of an enrollment's certificates),
/// and checks its validity. The chain is not looked at.
///
/// # Errors
/// [`Rejection`].
pub fn match_certificate(
    certificates: &ClientCertificates,
    registered: &[Thumbprint],
    now: Timestamp,
) -> Result<X509Facts, Rejection> {
    let leaf = certificates.leaf();
    let candidate = registered.iter().position(|thumbprint| leaf.has_thumbprint(thumbprint));
    let candidate = candidate.ok_or(Rejection::ThumbprintMismatch { presented: leaf.sha256_thumbprint })?;
    check_validity(leaf, now)?;
    Ok(X509Facts { leaf: leaf.clone(), trust: X509Trust::Registered { candidate } })
}

/// Verifies the presented chain against `anchors`, and that the leaf's common name is the client's id, as `is_name`
/// says: a device id compares exactly, a registration id ignoring case.
///
/// # Errors
/// [`Rejection`].
pub fn verify_ca_signed(
    certificates: &ClientCertificates,
    is_name: impl Fn(&str) -> bool,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<X509Facts, Rejection> {
    let leaf = certificates.leaf();
    if !leaf.common_name.as_deref().is_some_and(is_name) {
        return Err(Rejection::CommonNameMismatch);
    }
    check_validity(leaf, now)?;
    let chain = verify_chain(certificates, anchors, now)?;
    let trust = X509Trust::Authority { anchor_index: chain.anchor_index, intermediates: chain.path.len() };
    Ok(X509Facts { leaf: leaf.clone(), trust })
}

fn check_validity(leaf: &CertificateInfo, now: Timestamp) -> Result<(), Rejection> {
    if now > leaf.not_after {
        return Err(Rejection::CertificateExpired(leaf.not_after_utc.clone()));
    }
    if now < leaf.not_before {
        return Err(Rejection::CertificateNotYetValid(leaf.not_before_utc.clone()));
    }
    Ok(())
}

fn find_policy<'a, R>(token: &SasToken, policies: &'a [AccessPolicy<R>]) -> Option<&'a AccessPolicy<R>> {
    match token.key_name() {
        KeyName::None => None,
        KeyName::Policy(name) => policies.iter().find(|policy| policy.name.as_str() == name),
    }
}
