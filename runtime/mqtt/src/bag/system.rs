//! The properties that the protocol gives a meaning to.

use std::borrow::Cow;
use std::fmt;

/// A system property (protocol notes: MQTT §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SystemProperty {
    /// `$.mid`
    MessageId,
    /// `$.cid`
    CorrelationId,
    /// `$.uid`
    UserId,
    /// `$.to`
    To,
    /// `$.ct`
    ContentType,
    /// `$.ce`
    ContentEncoding,
    /// `$.exp`: absolute expiry.
    Expiry,
    /// `$.ctime`: creation time, UTC.
    CreationTime,
    /// `$.on`: a module's output.
    OutputName,
    /// `$.ifid`: marks security messages.
    InterfaceId,
    /// `$.sub`: the component of the model.
    Component,
    /// `$.schema`
    Schema,
    /// `$.diagid`: distributed tracing.
    DiagnosticId,
    /// `$.diagctx`: distributed tracing.
    DiagnosticContext,
    /// `iothub-ack`: the feedback that the sender wants.
    Ack,
    /// `iothub-operation`
    Operation,
    /// `$.cdid`: set by the server only.
    ConnectionDeviceId,
    /// `$.cmid`: set by the server only.
    ConnectionModuleId,
}

impl SystemProperty {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::MessageId,
        Self::CorrelationId,
        Self::UserId,
        Self::To,
        Self::ContentType,
        Self::ContentEncoding,
        Self::Expiry,
        Self::CreationTime,
        Self::OutputName,
        Self::InterfaceId,
        Self::Component,
        Self::Schema,
        Self::DiagnosticId,
        Self::DiagnosticContext,
        Self::Ack,
        Self::Operation,
        Self::ConnectionDeviceId,
        Self::ConnectionModuleId,
    ];

    /// The key in a bag, not encoded.
    pub const fn key(self) -> &'static str {
        match self {
            Self::MessageId => "$.mid",
            Self::CorrelationId => "$.cid",
            Self::UserId => "$.uid",
            Self::To => "$.to",
            Self::ContentType => "$.ct",
            Self::ContentEncoding => "$.ce",
            Self::Expiry => "$.exp",
            Self::CreationTime => "$.ctime",
            Self::OutputName => "$.on",
            Self::InterfaceId => "$.ifid",
            Self::Component => "$.sub",
            Self::Schema => "$.schema",
            Self::DiagnosticId => "$.diagid",
            Self::DiagnosticContext => "$.diagctx",
            Self::Ack => "iothub-ack",
            Self::Operation => "iothub-operation",
            Self::ConnectionDeviceId => "$.cdid",
            Self::ConnectionModuleId => "$.cmid",
        }
    }

    /// The property of a decoded key.
    pub fn from_key(key: &str) -> Option<Self> {
        match key.strip_prefix("$.") {
            Some(short) => Self::from_short(short),
            None => match key {
                "iothub-ack" => Some(Self::Ack),
                "iothub-operation" => Some(Self::Operation),
                _ => None,
            },
        }
    }

    /// The property of a key as it stands in a bag, for the usual ways of writing it.
    pub(super) fn from_raw_key(key: &str) -> Option<Self> {
        key.strip_prefix("%24.").and_then(Self::from_short).or_else(|| Self::from_key(key))
    }

    fn from_short(short: &str) -> Option<Self> {
        Some(match short {
            "mid" => Self::MessageId,
            "cid" => Self::CorrelationId,
            "uid" => Self::UserId,
            "to" => Self::To,
            "ct" => Self::ContentType,
            "ce" => Self::ContentEncoding,
            "exp" => Self::Expiry,
            "ctime" => Self::CreationTime,
            "on" => Self::OutputName,
            "ifid" => Self::InterfaceId,
            "sub" => Self::Component,
            "schema" => Self::Schema,
            "diagid" => Self::DiagnosticId,
            "diagctx" => Self::DiagnosticContext,
            "cdid" => Self::ConnectionDeviceId,
            "cmid" => Self::ConnectionModuleId,
            _ => return None,
        })
    }
}

impl fmt::Display for SystemProperty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.key())
    }
}

/// The system properties of a message; each at most once. Null is absent: .NET writes a key alone for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemProperties<'a> {
    values: Vec<(SystemProperty, Cow<'a, str>)>,
}

impl<'a> SystemProperties<'a> {
    /// The value of `property`; may be empty.
    pub fn get(&self, property: SystemProperty) -> Option<&str> {
        self.values.iter().find(|(present, _)| *present == property).map(|(_, value)| &**value)
    }

    /// Sets `property`, or removes it.
    pub fn set(&mut self, property: SystemProperty, value: Option<Cow<'a, str>>) {
        let at = self.values.iter().position(|(present, _)| *present == property);
        match (at, value) {
            (Some(at), Some(value)) => {
                if let Some(slot) = self.values.get_mut(at) {
                    slot.1 = value;
                }
            }
            (Some(at), None) => {
                self.values.remove(at);
            }
            (None, Some(value)) => self.values.push((property, value)),
            (None, None) => {}
        }
    }

    /// Those that are present, in the order in which they were set first.
    pub fn iter(&self) -> impl Iterator<Item = (SystemProperty, &str)> {
        self.values.iter().map(|(property, value)| (*property, &**value))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
