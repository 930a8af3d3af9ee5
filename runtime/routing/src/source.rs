//! Which messages a route looks at.

use std::fmt;
use std::str::FromStr;

/// The source of a message, and the messages that a route looks at (protocol notes: routing §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Telemetry that devices and modules send.
    DeviceMessages,
    /// Changes of twins.
    TwinChangeEvents,
    /// Creation and deletion of devices and modules.
    DeviceLifecycleEvents,
    /// Devices that connect and disconnect.
    DeviceConnectionStateEvents,
    /// Progress of scheduled jobs.
    DeviceJobLifecycleEvents,
    /// Changes of digital twins.
    DigitalTwinChangeEvents,
}

impl Source {
    /// Every source, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::DeviceMessages,
        Self::TwinChangeEvents,
        Self::DeviceLifecycleEvents,
        Self::DeviceConnectionStateEvents,
        Self::DeviceJobLifecycleEvents,
        Self::DigitalTwinChangeEvents,
    ];

    /// The name in the configuration of a route, for example `DeviceMessages`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceMessages => "DeviceMessages",
            Self::TwinChangeEvents => "TwinChangeEvents",
            Self::DeviceLifecycleEvents => "DeviceLifecycleEvents",
            Self::DeviceConnectionStateEvents => "DeviceConnectionStateEvents",
            Self::DeviceJobLifecycleEvents => "DeviceJobLifecycleEvents",
            Self::DigitalTwinChangeEvents => "DigitalTwinChangeEvents",
        }
    }

    /// The value of the annotation `iothub-message-source` on a message that a back end reads
    /// (protocol notes: routing §7).
    #[must_use]
    pub fn message_source(self) -> &'static str {
        match self {
            Self::DeviceMessages => "Telemetry",
            Self::TwinChangeEvents => "twinChangeEvents",
            Self::DeviceLifecycleEvents => "deviceLifecycleEvents",
            Self::DeviceConnectionStateEvents => "deviceConnectionStateEvents",
            Self::DeviceJobLifecycleEvents => "deviceJobLifecycleEvents",
            Self::DigitalTwinChangeEvents => "digitalTwinChangeEvents",
        }
    }

    /// The place in a table with one entry for each source.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no source that routes can have. `MqttBrokerMessages` and `Invalid`, which the cloud's management
/// enumeration also lists, are not sources of this hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a message source; the sources are {list}", list = Source::ALL.map(Source::as_str).join(", "))]
pub struct UnknownSource(pub String);

impl FromStr for Source {
    type Err = UnknownSource;

    /// Ignores case, as the cloud service does.
    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        Self::ALL
            .into_iter()
            .find(|source| source.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownSource(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_without_regard_to_case() {
        for (index, source) in Source::ALL.into_iter().enumerate() {
            assert_eq!(source.index(), index);
            assert_eq!(source.as_str().to_uppercase().parse(), Ok(source));
        }
        assert!("Invalid".parse::<Source>().is_err());
    }
}
