//! Connection strings: `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…` and their variants.

use std::fmt;

use nave_model::{DeviceId, HostName, Identity, InvalidId, ModuleId, PolicyName};

use crate::key::{KeyError, SharedKey};

/// Longest connection string, in bytes; every field at its longest, a token included, stays below it.
pub const MAX_CONNECTION_STRING_LENGTH: usize = 8192;

/// What is wrong with a connection string. It never quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// The text is longer than [`MAX_CONNECTION_STRING_LENGTH`].
    #[error("the connection string is longer than {MAX_CONNECTION_STRING_LENGTH} bytes")]
    TooLong,
    /// A piece between semicolons is not `name=value`.
    #[error("the connection string has a piece without `=`: every piece is `Name=value`, with `;` in between")]
    Form,
    /// A field is not there.
    #[error("the connection string has no `{field}`; {kind} looks like `{example}`")]
    Missing {
        /// The field that is missing.
        field: &'static str,
        /// What the connection string should be.
        kind: &'static str,
        /// How that looks.
        example: &'static str,
    },
    /// A field is there twice.
    #[error("the connection string has two `{0}`")]
    Duplicate(&'static str),
    /// A field that contradicts what the connection string should be.
    #[error("`{field}` does not belong into {kind}")]
    Unexpected {
        /// The field that should not be there.
        field: &'static str,
        /// What the connection string should be.
        kind: &'static str,
    },
    /// A name is not valid.
    #[error("in the connection string, {0}")]
    Id(#[from] InvalidId),
    /// The key is not valid.
    #[error("in the connection string, {0}")]
    Key(#[from] KeyError),
}

/// How the holder of a connection string proves who it is. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// `SharedAccessKey=…`.
    Key(SharedKey),
    /// `SharedAccessSignature=…`: a token that somebody else made.
    Token(String),
    /// `x509=true`: a certificate that is not part of the string.
    X509,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Token(_) => "Token(..)",
            Self::X509 => "X509",
        })
    }
}

/// A connection string of a hub's or provisioning service's policy, of a device, or of a module. It names no port
/// because no SDK accepts one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionString {
    /// `HostName`: the hub or the provisioning service.
    pub host_name: HostName,
    /// `GatewayHostName`: whom to dial instead.
    pub gateway_host_name: Option<HostName>,
    /// `DeviceId` and `ModuleId`.
    pub identity: Option<Identity>,
    /// `SharedAccessKeyName`.
    pub policy: Option<PolicyName>,
    /// `SharedAccessKey`, `SharedAccessSignature` or `x509`.
    pub credential: Credential,
}

const SERVICE: (&str, &str) =
    ("a service connection string", "HostName=<host>;SharedAccessKeyName=<policy>;SharedAccessKey=<key>");
const DEVICE: (&str, &str) = ("a device connection string", "HostName=<host>;DeviceId=<device>;SharedAccessKey=<key>");

impl ConnectionString {
    /// The connection string of a policy of a hub or of a provisioning service.
    pub const fn service(host_name: HostName, policy: PolicyName, key: SharedKey) -> Self {
        let credential = Credential::Key(key);
        Self { host_name, gateway_host_name: None, identity: None, policy: Some(policy), credential }
    }

    /// The connection string of a device or module with its own credential.
    pub const fn device(host_name: HostName, identity: Identity, credential: Credential) -> Self {
        Self { host_name, gateway_host_name: None, identity: Some(identity), policy: None, credential }
    }

    /// Reads the connection string of a policy of a hub or of a provisioning service.
    ///
    /// # Errors
    /// [`ConnectionStringError`], which says what is missing or too much.
    pub fn parse_service(text: &str) -> Result<Self, ConnectionStringError> {
        let fields = Fields::parse(text)?;
        let kind = SERVICE.0;
        if fields.device_id.is_some() {
            return Err(ConnectionStringError::Unexpected { field: "DeviceId", kind });
        }
        let parsed = fields.build(SERVICE)?;
        match (&parsed.policy, &parsed.credential) {
            (_, Credential::X509) => Err(ConnectionStringError::Unexpected { field: "x509", kind }),
            (None, Credential::Key(_)) => Err(missing("SharedAccessKeyName", SERVICE)),
            _ => Ok(parsed),
        }
    }

    /// Reads the connection string of a device or module.
    ///
    /// # Errors
    /// [`ConnectionStringError`], which says what is missing or too much.
    pub fn parse_device(text: &str) -> Result<Self, ConnectionStringError> {
        let fields = Fields::parse(text)?;
        if fields.device_id.is_none() {
            return Err(missing("DeviceId", DEVICE));
        }
        fields.build(DEVICE)
    }

    /// The text, **with its secret**: for the ready file, for people who ask for it, never for a log.
    pub fn expose(&self) -> String {
        let mut text = format!("HostName={}", self.host_name);
        let mut push = |name: &str, value: &str| {
            text.push(';');
            text.push_str(name);
            text.push('=');
            text.push_str(value);
        };
        if let Some(identity) = &self.identity {
            push("DeviceId", identity.device_id().as_str());
            if let Some(module) = identity.module_id() {
                push("ModuleId", module.as_str());
            }
        }
        if let Some(policy) = &self.policy {
            push("SharedAccessKeyName", policy.as_str());
        }
        match &self.credential {
            Credential::Key(key) => push("SharedAccessKey", &key.expose_base64()),
            Credential::Token(token) => push("SharedAccessSignature", token),
            Credential::X509 => push("x509", "true"),
        }
        if let Some(gateway) = &self.gateway_host_name {
            push("GatewayHostName", gateway.as_str());
        }
        text
    }
}

fn missing(field: &'static str, (kind, example): (&'static str, &'static str)) -> ConnectionStringError {
    ConnectionStringError::Missing { field, kind, example }
}

#[derive(Default)]
struct Fields<'a> {
    host_name: Option<&'a str>,
    gateway: Option<&'a str>,
    device_id: Option<&'a str>,
    module_id: Option<&'a str>,
    policy: Option<&'a str>,
    key: Option<&'a str>,
    token: Option<&'a str>,
    x509: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Splits at `;` and each piece at its first `=` (keys end in `=`). Names compare ignoring case, as in .NET;
    /// unknown names and empty pieces are ignored.
    fn parse(text: &'a str) -> Result<Self, ConnectionStringError> {
        if text.len() > MAX_CONNECTION_STRING_LENGTH {
            return Err(ConnectionStringError::TooLong);
        }
        let mut fields = Self::default();
        for piece in text.split(';').map(str::trim).filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').ok_or(ConnectionStringError::Form)?;
            let known = [
                ("HostName", &mut fields.host_name),
                ("GatewayHostName", &mut fields.gateway),
                ("DeviceId", &mut fields.device_id),
                ("ModuleId", &mut fields.module_id),
                ("SharedAccessKeyName", &mut fields.policy),
                ("SharedAccessKey", &mut fields.key),
                ("SharedAccessSignature", &mut fields.token),
                ("x509", &mut fields.x509),
            ];
            for (known_name, slot) in known {
                if name.trim().eq_ignore_ascii_case(known_name) && slot.replace(value.trim()).is_some() {
                    return Err(ConnectionStringError::Duplicate(known_name));
                }
            }
        }
        Ok(fields)
    }

    fn build(self, kind: (&'static str, &'static str)) -> Result<ConnectionString, ConnectionStringError> {
        let host_name = HostName::parse(self.host_name.ok_or(missing("HostName", kind))?)?;
        let module = self.module_id.map(ModuleId::parse).transpose()?;
        let identity = match self.device_id {
            Some(device) => Some(Identity::new(DeviceId::parse(device)?, module)),
            None if module.is_some() => return Err(missing("DeviceId", kind)),
            None => None,
        };
        let x509 = self.x509.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let credential = match (self.key, self.token, x509) {
            (Some(key), None, false) => Credential::Key(SharedKey::from_base64(key)?),
            (None, Some(token), false) => Credential::Token(token.to_owned()),
            (None, None, true) => Credential::X509,
            (None, None, false) => return Err(missing("SharedAccessKey", kind)),
            (Some(_), Some(_), _) => {
                return Err(ConnectionStringError::Unexpected {
                    field: "SharedAccessSignature",
                    kind: "a connection string with `SharedAccessKey`",
                });
            }
            _ => {
                return Err(ConnectionStringError::Unexpected {
                    field: "x509",
                    kind: "a connection string with a key or token",
                });
            }
        };
        Ok(ConnectionString {
            host_name,
            gateway_host_name: self.gateway.map(HostName::parse).transpose()?,
            identity,
            policy: self.policy.map(PolicyName::parse).transpose()?,
            credential,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn every_kind_survives_the_round_trip() {
        let service = format!("HostName=hub1.nave.test;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}");
        assert_eq!(ConnectionString::parse_service(&service).unwrap().expose(), service);
        let token = "HostName=h.x;SharedAccessSignature=SharedAccessSignature sr=a&sig=b=&se=1&skn=s";
        assert_eq!(ConnectionString::parse_service(token).unwrap().expose(), token);
        for device in [
            format!("HostName=localhost;DeviceId=d=1;SharedAccessKey={KEY}"),
            format!("HostName=h.x;DeviceId=d;ModuleId=$edgeHub;SharedAccessKey={KEY};GatewayHostName=gw"),
            format!("HostName=h.x;DeviceId=d;SharedAccessKeyName=device;SharedAccessKey={KEY}"),
            "HostName=h.x;DeviceId=d;x509=true".to_owned(),
        ] {
            assert_eq!(ConnectionString::parse_device(&device).unwrap().expose(), device);
        }
        let key = SharedKey::from_base64(KEY).unwrap();
        let made = ConnectionString::service(
            HostName::parse("hub1.nave.test").unwrap(),
            PolicyName::parse("iothubowner").unwrap(),
            key.clone(),
        );
        assert_eq!(made.expose(), service);
        let made = ConnectionString::device(
            HostName::parse("localhost").unwrap(),
            Identity::parse("d=1").unwrap(),
            Credential::Key(key),
        );
        assert_eq!(made.expose(), format!("HostName=localhost;DeviceId=d=1;SharedAccessKey={KEY}"));
        assert!(!format!("{made:?}").contains("AAEC"));
    }

    #[test]
    fn is_lenient_where_the_sdks_are() {
        let text = format!(" hostname=H.x ; Extra=1;sharedaccesskeyname=s;SHAREDACCESSKEY={KEY}; ");
        let parsed = ConnectionString::parse_service(&text).unwrap();
        assert_eq!((parsed.host_name.as_str(), parsed.policy.unwrap().as_str()), ("h.x", "s"));
    }

    #[test]
    fn errors_say_what_is_missing() {
        let service = |text: &str| ConnectionString::parse_service(text).unwrap_err().to_string();
        let device = |text: &str| ConnectionString::parse_device(text).unwrap_err().to_string();
        assert_eq!(
            service("HostName=h;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAA=="),
            "the connection string has no `SharedAccessKeyName`; a service connection string looks like \
             `HostName=<host>;SharedAccessKeyName=<policy>;SharedAccessKey=<key>`"
        );
        for (error, part) in [
            (service(""), "no `HostName`"),
            (service("HostName=h;SharedAccessKeyName=s"), "no `SharedAccessKey`"),
            (service("HostName=h;x509=true"), "`x509` does not belong into a service"),
            (service("HostName=h;DeviceId=d;SharedAccessKey=x"), "`DeviceId` does not belong into a service"),
            (service("HostName=h;SharedAccessKeyName=s;SharedAccessKey=secret"), "the key is not base64"),
            (service("HostName=h;SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0"), "the key has 6 bytes"),
            (service("HostName=h/x;SharedAccessKeyName=s;SharedAccessKey=k"), "the host name must not contain '/'"),
            (service("HostName"), "every piece is `Name=value`"),
            (service("HostName=a;hostname=b"), "two `HostName`"),
            (service(&"x".repeat(9000)), "longer than"),
            (device("HostName=h"), "no `DeviceId`; a device"),
            (device("DeviceId=d"), "no `HostName`"),
            (device("HostName=h;ModuleId=m;x509=true"), "no `DeviceId`"),
            (device("HostName=h;DeviceId=d;SharedAccessKey=a;SharedAccessSignature=b"), "`SharedAccessSignature` does"),
            (device("HostName=h;DeviceId=d;SharedAccessKey=a;x509=true"), "`x509` does not belong"),
            (device("HostName=h;DeviceId=a b;x509=true"), "the device id must not contain ' '"),
        ] {
            assert!(error.contains(part), "{error} / {part}");
            assert!(!error.contains("secret") && !error.contains("c2Vj"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "((HostName|DeviceId|ModuleId|SharedAccessKey|x509|=|;)|.){0,30}") {
            let _ = ConnectionString::parse_service(&text);
            if let Ok(parsed) = ConnectionString::parse_device(&text) {
                prop_assert_eq!(ConnectionString::parse_device(&parsed.expose()).unwrap(), parsed);
            }
        }
    }
}
