//! Credentials of devices and modules as services send them, checked.

use std::fmt;

use nave_auth::{KeyPair, Thumbprint};
use nave_model::{Authentication, KeyPairText, SecretText, ThumbprintPair};

use crate::error::HubError;
use crate::hub::Hub;
use crate::registry::argument;

/// Credentials as they were sent. Empty text counts as absent: the Node SDK sends it by default. The `Debug` output has no
/// keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthenticationInput {
    /// `sas`, `selfSigned`, `certificateAuthority` or `none`.
    pub kind: Option<String>,
    /// First key, base64.
    pub primary_key: Option<String>,
    /// Second key, base64.
    pub secondary_key: Option<String>,
    /// First thumbprint, hexadecimal.
    pub primary_thumbprint: Option<String>,
    /// Second thumbprint, hexadecimal.
    pub secondary_thumbprint: Option<String>,
}

impl fmt::Debug for AuthenticationInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthenticationInput").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Hub {
    /// The rules of protocol notes, service REST §2.3.
    pub(crate) fn authentication(&self, input: &AuthenticationInput) -> Result<Authentication, HubError> {
        let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let keys = (present(&input.primary_key), present(&input.secondary_key));
        let thumbprints = (present(&input.primary_thumbprint), present(&input.secondary_thumbprint));
        let has_keys = keys.0.is_some() || keys.1.is_some();
        let has_thumbprints = thumbprints.0.is_some() || thumbprints.1.is_some();
        if has_keys && has_thumbprints {
            return Err(argument("A device has symmetric keys or thumbprints, not both."));
        }
        let kind = input.kind.as_deref().map_or(if has_thumbprints { "selfsigned" } else { "sas" }, |kind| kind);
        match kind.to_ascii_lowercase().as_str() {
            "sas" if has_thumbprints => {
                Err(argument("Authentication type 'sas' takes symmetric keys, not thumbprints."))
            }
            "sas" => match keys {
                (Some(primary), Some(secondary)) => {
                    KeyPair::from_base64(&primary, &secondary)
                        .map_err(|error| argument(format!("Invalid device key: {error}.")))?;
                    Ok(Authentication::Sas(KeyPairText {
                        primary: SecretText::new(primary),
                        secondary: SecretText::new(secondary),
                    }))
                }
                (None, None) => Ok(Authentication::Sas(self.new_keys(32))),
                _ => Err(argument("A device has either no keys or both keys: send none to have them made.")),
            },
            "selfsigned" if has_keys => {
                Err(argument("Authentication type 'selfSigned' takes thumbprints, not symmetric keys."))
            }
            "selfsigned" => {
                let (primary, secondary) = thumbprints;
                if let Some(bad) =
                    [&primary, &secondary].into_iter().flatten().find(|text| Thumbprint::parse_plain(text).is_err())
                {
                    return Err(argument(format!(
                        "StringIsNotThumbprint: '{bad}' is not 40 (SHA-1) or 64 (SHA-256) hexadecimal digits."
                    )));
                }
                Ok(Authentication::SelfSigned(ThumbprintPair { primary, secondary }))
            }
            "certificateauthority" if has_keys || has_thumbprints => {
                Err(argument("Authentication type 'certificateAuthority' takes neither keys nor thumbprints."))
            }
            "certificateauthority" => Ok(Authentication::CertificateAuthority),
            "none" => Err(argument("DeviceAuthenticationTypeIsMissing: a device needs an authentication type.")),
            other => Err(argument(format!(
                "Unknown authentication type '{other}': use sas, selfSigned or certificateAuthority."
            ))),
        }
    }

    pub(crate) fn new_keys(&self, bytes: usize) -> KeyPairText {
        let pair = KeyPair::generate(bytes, |buffer| self.env.fill_random(buffer));
        KeyPairText {
            primary: SecretText::new(pair.primary.expose_base64()),
            secondary: SecretText::new(pair.secondary.expose_base64()),
        }
    }
}
