//! Identifiers: each kind is its own type, valid by construction, cheap to clone.
//!
//! The text is an `Arc<str>`: an id is copied into a session, a lane, a subscription table and every message, mostly
//! across threads and without change, so a clone must be a counter and not an allocation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Longest device, module, registration and enrollment-group id, in characters.
///
/// Source: Azure IoT Hub documentation, identity registry; Azure DPS documentation, service concepts. A longer id is
/// refused, as the cloud does.
pub const MAX_ID_LENGTH: usize = 128;

/// Longest host name, in bytes (RFC 1035, section 2.3.4, as text without the root's dot).
pub const MAX_HOST_NAME_LENGTH: usize = 253;

/// Longest label between two dots of a host name, in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST_LABEL_LENGTH: usize = 63;

/// Longest hub name and hub id, in characters (Azure resource naming rules for IoT hubs).
pub const MAX_HUB_NAME_LENGTH: usize = 50;

/// Longest id scope, in characters; the cloud's are 11. A bound only so that an id scope has one.
pub const MAX_ID_SCOPE_LENGTH: usize = 32;

/// Longest name of a shared access policy, in characters (Azure resource naming rules).
pub const MAX_POLICY_NAME_LENGTH: usize = 64;

/// Which identifier a text was meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdKind {
    /// A [`DeviceId`].
    Device,
    /// A [`ModuleId`].
    Module,
    /// A [`RegistrationId`].
    Registration,
    /// An [`EnrollmentGroupId`].
    EnrollmentGroup,
    /// A [`HubName`].
    HubName,
    /// A [`HubId`].
    HubId,
    /// A [`HostName`].
    HostName,
    /// An [`IdScope`].
    IdScope,
    /// A [`PolicyName`].
    PolicyName,
}

impl fmt::Display for IdKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Device => "device id",
            Self::Module => "module id",
            Self::Registration => "registration id",
            Self::EnrollmentGroup => "enrollment group id",
            Self::HubName => "hub name",
            Self::HubId => "hub id",
            Self::HostName => "host name",
            Self::IdScope => "id scope",
            Self::PolicyName => "policy name",
        })
    }
}

/// Why a text is not an identifier. It quotes at most one character of the text, so it may be shown to the client that
/// sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the {kind} {reason}")]
pub struct InvalidId {
    /// What the text was meant to be.
    pub kind: IdKind,
    /// What is wrong with it.
    pub reason: InvalidIdReason,
}

/// The rule that a text broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdReason {
    /// There is no text.
    #[error("is empty")]
    Empty,
    /// There is too much text.
    #[error("is longer than {max} characters")]
    TooLong {
        /// The longest that is accepted, in bytes (all identifiers are ASCII).
        max: usize,
    },
    /// A character is not allowed, or not there.
    #[error("must not contain {character:?} at position {position}")]
    Character {
        /// The first offender.
        character: char,
        /// Its byte offset.
        position: usize,
    },
    /// The text is not built as it has to be.
    #[error("{0}")]
    Form(&'static str),
}

/// Declares one text identifier. `$normalise` checks the text and returns its canonical form, or `None` if the text is
/// canonical already.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:expr, $normalise:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and brings it into its canonical form.
            ///
            /// # Errors
            /// [`InvalidId`] names the rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let canonical: Option<String> =
                    $normalise(text).map_err(|reason| InvalidId { kind: $kind, reason })?;
                Ok(Self(canonical.map_or_else(|| Arc::from(text), Arc::from)))
            }

            /// The canonical text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        serde_as_text!($name, $kind);
    };
}

/// Serialises through `Display` and deserialises through `parse`, so that no record can hold an invalid id.
macro_rules! serde_as_text {
    ($name:ident, $expected:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(formatter, "a text with a {}", $expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use serde_as_text;

text_id! {
    /// A device's name in its hub: 1 to 128 ASCII letters, digits and `- : . + % _ # * ? ! ( ) , = @ ; $ '`,
    /// case-sensitive.
    ///
    /// Source: Azure IoT Hub documentation, identity registry (protocol notes: REST §2.2, authentication §1.7). A `;`
    /// cannot be written in a connection string and `+`, `#` not in an MQTT topic, but the registry takes them.
    DeviceId, IdKind::Device, device_id
}

text_id! {
    /// A module's name on its device; the rules of [`DeviceId`].
    ModuleId, IdKind::Module, device_id
}

impl ModuleId {
    /// Whether the name begins with `$`: such modules (`$edgeAgent`, `$edgeHub`) are made by the hub, and the registry
    /// refuses to create them on request (protocol notes: REST §2.2).
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

text_id! {
    /// A registration id of the provisioning service: 1 to 128 ASCII letters, digits and `- . _ :`, the last a letter,
    /// digit or `-`; case-insensitive, hence kept in lower case.
    ///
    /// A group's device key is derived from the id **as the device wrote it**: whoever derives keeps the raw text.
    ///
    /// Source: Azure DPS documentation, service concepts (protocol notes: provisioning §1).
    RegistrationId, IdKind::Registration, registration_id
}

text_id! {
    /// The name of an enrollment group; the rules of [`RegistrationId`] (protocol notes: provisioning service §1).
    EnrollmentGroupId, IdKind::EnrollmentGroup, registration_id
}

text_id! {
    /// A hub's short name, for people: 1 to 50 ASCII letters, digits and inner hyphens; case-insensitive, kept in lower
    /// case. It may change; [`HubId`] does not.
    HubName, IdKind::HubName, hub_name
}

text_id! {
    /// A hub's immutable internal id, the one that storage keys contain: `[a-z0-9-]{1,50}`.
    HubId, IdKind::HubId, hub_id
}

text_id! {
    /// A DNS name or IPv4 address without a port: labels of ASCII letters, digits, `-` and `_`; case-insensitive, kept
    /// in lower case and without the root's trailing dot.
    HostName, IdKind::HostName, host_name
}

impl HostName {
    /// Parses a host with an optional `:port`, as the `Host` header has it and as the Java SDK's provisioning client
    /// writes it into AMQP `open.hostname` (`host:5671`).
    ///
    /// # Errors
    /// [`InvalidId`], also if the port is not a number from 0 to 65535.
    pub fn parse_authority(text: &str) -> Result<(Self, Option<u16>), InvalidId> {
        let Some((host, port)) = text.split_once(':') else { return Ok((Self::parse(text)?, None)) };
        let digits_only = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits_only).ok_or(InvalidId {
            kind: IdKind::HostName,
            reason: InvalidIdReason::Form("is followed by something that is not a port"),
        })?;
        Ok((Self::parse(host)?, Some(port)))
    }

    /// The text before the first dot: what several SDKs take for the hub's name (`{policy}@sas.root.{short}`).
    pub fn short(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// Whether the name has a dot; the .NET and Java device SDKs refuse hub names without one.
    pub fn is_dotted(&self) -> bool {
        self.0.contains('.')
    }
}

impl PartialEq<str> for HostName {
    /// Compares ignoring case.
    fn eq(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

text_id! {
    /// The id scope that selects a provisioning service: `0ne` and hexadecimal digits, such as `0ne00001234`.
    ///
    /// Real ones are written with upper-case digits too (`0ne000A247E`); kept in lower case, so that one scope has one
    /// text.
    IdScope, IdKind::IdScope, id_scope
}

text_id! {
    /// The name of a shared access policy: 1 to 64 ASCII letters, digits and `- . _`, case-sensitive.
    PolicyName, IdKind::PolicyName, policy_name
}

type Canonical = Result<Option<String>, InvalidIdReason>;

fn device_id(text: &str) -> Canonical {
    check(text, MAX_ID_LENGTH, |byte| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&byte))?;
    Ok(None)
}

fn registration_id(text: &str) -> Canonical {
    check(text, MAX_ID_LENGTH, |byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))?;
    if text.ends_with(['.', '_', ':']) {
        return Err(InvalidIdReason::Form("must end with a letter, a digit or a hyphen"));
    }
    Ok(lower(text))
}

fn hub_name(text: &str) -> Canonical {
    check(text, MAX_HUB_NAME_LENGTH, |byte| byte.is_ascii_alphanumeric() || byte == b'-')?;
    if text.starts_with('-') || text.ends_with('-') {
        return Err(InvalidIdReason::Form("must not begin or end with a hyphen"));
    }
    Ok(lower(text))
}

fn hub_id(text: &str) -> Canonical {
    check(text, MAX_HUB_NAME_LENGTH, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')?;
    Ok(None)
}

fn host_name(text: &str) -> Canonical {
    let name = text.strip_suffix('.').unwrap_or(text);
    check(name, MAX_HOST_NAME_LENGTH, |byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))?;
    for label in name.split('.') {
        if label.is_empty() {
            return Err(InvalidIdReason::Form("has an empty part between dots"));
        }
        if label.len() > MAX_HOST_LABEL_LENGTH {
            return Err(InvalidIdReason::Form("has a part longer than 63 characters between dots"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(InvalidIdReason::Form("has a part that begins or ends with a hyphen"));
        }
    }
    Ok(if name.len() == text.len() { lower(name) } else { Some(name.to_ascii_lowercase()) })
}

fn id_scope(text: &str) -> Canonical {
    check(text, MAX_ID_SCOPE_LENGTH, |byte| byte.is_ascii_alphanumeric())?;
    let canonical = text.to_ascii_lowercase();
    match canonical.strip_prefix("0ne") {
        Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Some(canonical)),
        _ => Err(InvalidIdReason::Form("must be `0ne` followed by hexadecimal digits")),
    }
}

fn policy_name(text: &str) -> Canonical {
    check(text, MAX_POLICY_NAME_LENGTH, |byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))?;
    Ok(None)
}

fn lower(text: &str) -> Option<String> {
    text.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| text.to_ascii_lowercase())
}

fn check(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> Result<(), InvalidIdReason> {
    if text.is_empty() {
        return Err(InvalidIdReason::Empty);
    }
    if text.len() > max {
        return Err(InvalidIdReason::TooLong { max });
    }
    match text.char_indices().find(|(_, character)| !u8::try_from(*character).is_ok_and(&allowed)) {
        None => Ok(()),
        Some((position, character)) => Err(InvalidIdReason::Character { character, position }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn device_ids_take_the_documented_characters_and_no_others() {
        let documented = "-:.+%_#*?!(),=@;$'";
        for byte in 0..=u8::MAX {
            let character = char::from(byte);
            let expected = character.is_ascii_alphanumeric() || documented.contains(character);
            assert_eq!(DeviceId::parse(&format!("a{character}")).is_ok(), expected, "{character:?}");
            assert_eq!(ModuleId::parse(&format!("{character}a")).is_ok(), expected, "{character:?}");
        }
        assert_eq!(
            DeviceId::parse("ab/c").unwrap_err(),
            InvalidId { kind: IdKind::Device, reason: InvalidIdReason::Character { character: '/', position: 2 } }
        );
        assert_eq!(DeviceId::parse("a b").unwrap_err().to_string(), "the device id must not contain ' ' at position 1");
    }

    #[test]
    fn lengths_are_bounded() {
        for length in [1, 128] {
            DeviceId::parse(&"x".repeat(length)).unwrap();
            RegistrationId::parse(&"x".repeat(length)).unwrap();
        }
        assert_eq!(DeviceId::parse("").unwrap_err().reason, InvalidIdReason::Empty);
        assert_eq!(DeviceId::parse(&"x".repeat(129)).unwrap_err().reason, InvalidIdReason::TooLong { max: 128 });
        assert!(HubId::parse(&"x".repeat(51)).is_err());
        assert!(PolicyName::parse(&"x".repeat(65)).is_err());
        assert!(IdScope::parse(&format!("0ne{}", "1".repeat(30))).is_err());
        assert!(HostName::parse(&"a.".repeat(127)).is_ok(), "253 characters and the root's dot");
        assert!(HostName::parse(&format!("{}a", "a.".repeat(127))).is_err());
    }

    #[test]
    fn device_ids_keep_their_case_and_registration_ids_lose_it() {
        assert_ne!(DeviceId::parse("Dev").unwrap(), DeviceId::parse("dev").unwrap());
        assert_eq!(RegistrationId::parse("Dev-1").unwrap(), RegistrationId::parse("dEV-1").unwrap());
        assert_eq!(RegistrationId::parse("Dev-1").unwrap().as_str(), "dev-1");
        assert_eq!(EnrollmentGroupId::parse("Group").unwrap().as_str(), "group");
        assert_ne!(PolicyName::parse("Service").unwrap(), PolicyName::parse("service").unwrap());
    }

    #[test]
    fn registration_ids_end_well() {
        for good in ["a", "a.b", "a-", "1:2", "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6"] {
            assert!(RegistrationId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a.", "a_", "a:", "a b", "a/b", "a+b", "ä"] {
            assert!(RegistrationId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_ignore_case_and_carry_no_port() {
        let host = HostName::parse("Hub1.Nave.Test.").unwrap();
        assert_eq!(host.as_str(), "hub1.nave.test");
        assert_eq!(host, *"HUB1.nave.test");
        assert_eq!((host.short(), host.is_dotted()), ("hub1", true));
        assert!(!HostName::parse("localhost").unwrap().is_dotted());
        assert!(HostName::parse("127.0.0.1").is_ok());
        for bad in ["", ".", "a..b", ".a", "-a.b", "a-.b", "a:1", "a/b", "a b", &"x".repeat(64)] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
        let (host, port) = HostName::parse_authority("Localhost:5671").unwrap();
        assert_eq!((host.as_str(), port), ("localhost", Some(5671)));
        assert_eq!(HostName::parse_authority("h").unwrap().1, None);
        for bad in ["h:", "h:+1", "h:65536", "h:1:2", ":1"] {
            assert!(HostName::parse_authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hub_names_scopes_and_policies() {
        assert_eq!(HubName::parse("Hub-1").unwrap().as_str(), "hub-1");
        assert!(HubName::parse("-a").is_err() && HubName::parse("a-").is_err() && HubName::parse("a.b").is_err());
        assert!(HubId::parse("a-1").is_ok() && HubId::parse("A").is_err());
        assert_eq!(IdScope::parse("0ne000A247E").unwrap().as_str(), "0ne000a247e");
        for bad in ["0ne", "one00001234", "0ne0000123g", "0ne 1", ""] {
            assert!(IdScope::parse(bad).is_err(), "{bad}");
        }
        assert!(PolicyName::parse("iothubowner").is_ok() && PolicyName::parse("a b").is_err());
        assert!(ModuleId::parse("$edgeHub").unwrap().is_system());
    }

    #[test]
    fn json_is_validated() {
        let id: DeviceId = serde_json::from_str(r#""dev#1""#).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""dev#1""#);
        let error = serde_json::from_str::<DeviceId>(r#""a/b""#).unwrap_err().to_string();
        assert!(error.contains("the device id must not contain '/'"), "{error}");
        assert!(serde_json::from_str::<DeviceId>("1").is_err());
        assert_eq!(format!("{:?} {id:>7}", id), r#"DeviceId("dev#1")   dev#1"#);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_idempotent(text in ".{0,140}") {
            macro_rules! idempotent {
                ($($name:ident),*) => {$(
                    if let Ok(id) = $name::parse(&text) {
                        prop_assert_eq!($name::parse(id.as_str()).unwrap(), id.clone());
                        prop_assert!(id.as_str().eq_ignore_ascii_case(text.strip_suffix('.').unwrap_or(&text))
                            || id.as_str() == text);
                    }
                )*};
            }
            idempotent!(DeviceId, ModuleId, RegistrationId, EnrollmentGroupId, HubName, HubId, HostName, IdScope, PolicyName);
            let _ = HostName::parse_authority(&text);
        }
    }
}
