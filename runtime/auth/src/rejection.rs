//! Why a client is refused: one text for the log, another for the client.

use nave_model::PolicyName;

use crate::sas::SasError;
use crate::x509::{CertificateError, ChainError, Thumbprint};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_less_than_the_log() {
        let policy = PolicyName::parse("secret-policy").unwrap();
        let rejection = Rejection::MissingRight(policy);
        assert!(rejection.to_string().contains("secret-policy"));
        assert!(!rejection.client_message().contains("secret-policy"));
        let wrong = Rejection::Token(SasError::WrongSignature);
        assert_eq!(wrong.client_message(), Rejection::UnknownPolicy.client_message());
        assert_eq!(wrong.client_message(), Rejection::WrongResource.client_message());
        assert_eq!(wrong.client_message(), Rejection::NoKeys.client_message());
    }
}
