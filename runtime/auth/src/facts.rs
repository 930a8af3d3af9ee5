//! What was verified about a client.

use nave_model::{Identity, PolicyName, Timestamp};

use crate::x509::CertificateInfo;

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
    /// An access policy with [`crate::Rights::DEVICE_CONNECT`].
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

/// A service client proved that it holds an access policy's key. `R` is [`crate::Rights`] or [`crate::DpsRights`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::match_certificate;
    use crate::x509::Thumbprint;
    use crate::x509::fixtures::{NOW, presented, self_signed};

    #[test]
    fn stamps() {
        let (device, module) = (Identity::parse("d").unwrap(), Identity::parse("d/m").unwrap());
        let sas = |signer| SasFacts { signer, expires: NOW };
        let own = sas(SasSigner::OwnKey);
        assert_eq!(own.auth_method(&device).json(), r#"{"scope":"device","type":"sas","issuer":"iothub"}"#);
        assert_eq!(own.auth_method(&module).json(), r#"{"scope":"module","type":"sas","issuer":"iothub"}"#);
        let policy = sas(SasSigner::Policy(PolicyName::parse("device").unwrap()));
        assert_eq!(policy.auth_method(&module).json(), r#"{"scope":"hub","type":"sas","issuer":"iothub"}"#);
        let leaf = self_signed("d", |_| ());
        let x509 = match_certificate(&presented(&[&leaf]), &[Thumbprint::sha1(&leaf)], NOW).unwrap();
        assert_eq!(x509.auth_method(&device).json(), r#"{"scope":"device","type":"x509","issuer":"iothub"}"#);
        for scope in [AuthScope::Hub, AuthScope::Device, AuthScope::Module] {
            for kind in [AuthType::Sas, AuthType::SymKey, AuthType::X509] {
                let expected = format!("{{\"scope\":\"{scope:?}\",\"type\":\"{kind:?}\",\"issuer\":\"iothub\"}}");
                assert_eq!(ConnectionAuthMethod { scope, kind }.json(), expected.to_lowercase());
            }
        }
    }
}
