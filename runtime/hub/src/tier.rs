//! The sizes that the cloud service sells, as limits (protocol notes: limits §3).

use crate::throttle::{Limits, Operation, Quota};

/// A tier of hubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Free: the rates of [`Tier::One`], a small quota, and messages metered in half kilobytes.
    Free,
    /// B1 and S1.
    One,
    /// B2 and S2.
    Two,
    /// B3 and S3.
    Three,
}

impl Tier {
    /// Names in the configuration.
    pub const NAMES: [&str; 7] = ["F1", "B1", "S1", "B2", "S2", "B3", "S3"];

    /// The tier of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "F1" => Some(Self::Free),
            "B1" | "S1" => Some(Self::One),
            "B2" | "S2" => Some(Self::Two),
            "B3" | "S3" => Some(Self::Three),
            _ => None,
        }
    }

    /// Most units of a hub.
    pub const fn max_units(self) -> u32 {
        match self {
            Self::Free => 1,
            Self::One | Self::Two => 200,
            Self::Three => 10,
        }
    }

    /// The limits of so many units.
    pub fn limits(self, units: u32) -> Limits {
        let count = f64::from(units);
        let minute = |operations: f64| operations / 60.0;
        // Sending to devices has the rate of the registry, fetching ten times that (limits §3).
        let (registry, connects, method_kilobytes, reads, updates) = match self {
            Self::Free | Self::One => {
                (minute(100.0) * count, f64::max(100.0, 12.0 * count), 160.0 * count, 100.0, 50.0)
            }
            Self::Two => {
                let (reads, updates) = (f64::max(100.0, 10.0 * count), f64::max(50.0, 5.0 * count));
                (minute(100.0) * count, 120.0 * count, 480.0 * count, reads, updates)
            }
            Self::Three => (minute(5_000.0) * count, 6_000.0 * count, 24_576.0 * count, 500.0 * count, 250.0 * count),
        };
        let mut limits = Limits::default();
        limits.set(Operation::Registry, registry);
        limits.set(Operation::CloudToDeviceSends, registry);
        limits.set(Operation::CloudToDeviceReceives, registry * 10.0);
        limits.set(Operation::Connects, connects);
        limits.set(Operation::Messages, connects);
        limits.set(Operation::MethodBytes, method_kilobytes * 1_024.0);
        limits.set(Operation::TwinReads, reads);
        limits.set(Operation::TwinUpdates, updates);
        let (messages, meter_bytes) = match self {
            Self::Free => (8_000, 512),
            Self::One => (400_000, 4_096),
            Self::Two => (6_000_000, 4_096),
            Self::Three => (300_000_000, 4_096),
        };
        limits.quota = Some(Quota { messages: messages * u64::from(units), meter_bytes });
        limits
    }
}

/// The limits of a provisioning service: 1,000 registrations and 1,000 requests a minute, 5 polls of a device in 10 seconds. And
/// what the cloud service does not publish: an address may fail 60 times a minute.
pub fn provisioning_limits() -> Limits {
    let mut limits = Limits::default();
    limits.set(Operation::Registrations, 1_000.0 / 60.0);
    limits.set(Operation::Provisioning, 1_000.0 / 60.0);
    limits.set(Operation::DevicePolls, 0.5);
    limits.set(Operation::FailedRegistrations, 1.0);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_multiply_what_they_should() {
        let one = Tier::One.limits(1);
        assert_eq!(one.rate(Operation::Messages), Some(100.0));
        assert_eq!(one.quota, Some(Quota { messages: 400_000, meter_bytes: 4_096 }));
        let ten = Tier::One.limits(10);
        assert_eq!(ten.rate(Operation::Messages), Some(120.0));
        assert_eq!(ten.rate(Operation::TwinReads), Some(100.0));
        assert_eq!(Tier::Two.limits(20).rate(Operation::TwinUpdates), Some(100.0));
        assert_eq!(Tier::Three.limits(1).rate(Operation::CloudToDeviceSends), Some(5_000.0 / 60.0));
        assert_eq!(Tier::Two.limits(3).rate(Operation::CloudToDeviceReceives), Some(50.0));
        assert_eq!(Tier::Three.limits(2).rate(Operation::Connects), Some(12_000.0));
        assert!(Tier::NAMES.iter().all(|name| Tier::parse(&name.to_lowercase()).is_some()));
        assert_eq!(Tier::parse("S4"), None);
    }
}
