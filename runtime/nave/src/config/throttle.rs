//! `[hub.throttle]` and `[provisioning.throttle]`: rates, by tier and one by one.

use nave_hub::throttle::{Limits, Operation, Quota};
use nave_hub::tier::{Tier, provisioning_limits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ConfigError;
use super::check::value;

/// What a message is metered in where a quota is given without a tier.
const METER_BYTES: u64 = 4_096;

/// Limits, and the keys that they come from with their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttle {
    pub(crate) limits: Limits,
    pub(crate) keys: Vec<(&'static str, Value)>,
}

/// `[hub.throttle]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HubThrottleSection {
    tier: Option<String>,
    units: Option<u32>,
    messages_per_day: Option<u64>,
    connects_per_second: Option<f64>,
    messages_per_second: Option<f64>,
    device_messages_per_second: Option<f64>,
    twin_reads_per_second: Option<f64>,
    twin_updates_per_second: Option<f64>,
    registry_per_second: Option<f64>,
    method_bytes_per_second: Option<f64>,
    cloud_to_device_sends_per_second: Option<f64>,
    cloud_to_device_receives_per_second: Option<f64>,
}

impl HubThrottleSection {
    /// The keys, for whoever looks for unknown ones.
    pub(super) const KEYS: &[&str] = &[
        "cloud_to_device_receives_per_second",
        "cloud_to_device_sends_per_second",
        "connects_per_second",
        "device_messages_per_second",
        "messages_per_day",
        "messages_per_second",
        "method_bytes_per_second",
        "registry_per_second",
        "tier",
        "twin_reads_per_second",
        "twin_updates_per_second",
        "units",
    ];

    /// What a hub is limited to; `place` says where a key stands.
    pub(super) fn throttle(&self, place: impl Fn(&str) -> String) -> Result<Throttle, ConfigError> {
        let keys = vec![
            ("tier", json!(self.tier)),
            ("units", json!(self.units)),
            ("messages_per_day", json!(self.messages_per_day)),
            ("connects_per_second", json!(self.connects_per_second)),
            ("messages_per_second", json!(self.messages_per_second)),
            ("device_messages_per_second", json!(self.device_messages_per_second)),
            ("twin_reads_per_second", json!(self.twin_reads_per_second)),
            ("twin_updates_per_second", json!(self.twin_updates_per_second)),
            ("registry_per_second", json!(self.registry_per_second)),
            ("method_bytes_per_second", json!(self.method_bytes_per_second)),
            ("cloud_to_device_sends_per_second", json!(self.cloud_to_device_sends_per_second)),
            ("cloud_to_device_receives_per_second", json!(self.cloud_to_device_receives_per_second)),
        ];
        Ok(Throttle { limits: self.limits(place)?, keys })
    }

    fn limits(&self, place: impl Fn(&str) -> String) -> Result<Limits, ConfigError> {
        let mut limits = match &self.tier {
            None if self.units.is_some() => {
                return Err(value(place("throttle.units"), "units are units of a tier: set `tier` too"));
            }
            None => Limits::default(),
            Some(name) => {
                let known = || value(place("throttle.tier"), format!("`{name}` is none of {}", Tier::NAMES.join(", ")));
                let tier = Tier::parse(name).ok_or_else(known)?;
                let units = self.units.unwrap_or(1);
                if !(1..=tier.max_units()).contains(&units) {
                    let most = tier.max_units();
                    return Err(value(place("throttle.units"), format!("{name} has 1 to {most} units")));
                }
                tier.limits(units)
            }
        };
        for (key, operation, rate) in [
            ("connects_per_second", Operation::Connects, self.connects_per_second),
            ("messages_per_second", Operation::Messages, self.messages_per_second),
            ("device_messages_per_second", Operation::DeviceMessages, self.device_messages_per_second),
            ("twin_reads_per_second", Operation::TwinReads, self.twin_reads_per_second),
            ("twin_updates_per_second", Operation::TwinUpdates, self.twin_updates_per_second),
            ("registry_per_second", Operation::Registry, self.registry_per_second),
            ("method_bytes_per_second", Operation::MethodBytes, self.method_bytes_per_second),
            ("cloud_to_device_sends_per_second", Operation::CloudToDeviceSends, self.cloud_to_device_sends_per_second),
            (
                "cloud_to_device_receives_per_second",
                Operation::CloudToDeviceReceives,
                self.cloud_to_device_receives_per_second,
            ),
        ] {
            set(&mut limits, operation, rate, || place(&format!("throttle.{key}")))?;
        }
        if let Some(messages) = self.messages_per_day {
            let meter_bytes = limits.quota.map_or(METER_BYTES, |quota| quota.meter_bytes);
            limits.quota = Some(Quota { messages, meter_bytes });
        }
        Ok(limits)
    }
}

/// `[provisioning.throttle]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProvisioningThrottleSection {
    standard: Option<bool>,
    registrations_per_minute: Option<f64>,
    requests_per_minute: Option<f64>,
    device_polls_per_minute: Option<f64>,
    failed_registrations_per_minute: Option<f64>,
}

impl ProvisioningThrottleSection {
    /// The keys, for whoever looks for unknown ones.
    pub(super) const KEYS: &[&str] = &[
        "device_polls_per_minute",
        "failed_registrations_per_minute",
        "registrations_per_minute",
        "requests_per_minute",
        "standard",
    ];

    /// What the provisioning service is limited to.
    pub(super) fn throttle(&self) -> Result<Throttle, ConfigError> {
        let keys = vec![
            ("standard", json!(self.standard)),
            ("registrations_per_minute", json!(self.registrations_per_minute)),
            ("requests_per_minute", json!(self.requests_per_minute)),
            ("device_polls_per_minute", json!(self.device_polls_per_minute)),
            ("failed_registrations_per_minute", json!(self.failed_registrations_per_minute)),
        ];
        Ok(Throttle { limits: self.limits()?, keys })
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let mut limits = if self.standard == Some(true) { provisioning_limits() } else { Limits::default() };
        for (key, operation, rate) in [
            ("registrations_per_minute", Operation::Registrations, self.registrations_per_minute),
            ("requests_per_minute", Operation::Provisioning, self.requests_per_minute),
            ("device_polls_per_minute", Operation::DevicePolls, self.device_polls_per_minute),
            ("failed_registrations_per_minute", Operation::FailedRegistrations, self.failed_registrations_per_minute),
        ] {
            let per_second = rate.map(|rate| rate / 60.0);
            set(&mut limits, operation, per_second, || format!("provisioning.throttle.{key}"))?;
        }
        Ok(limits)
    }
}

fn set(
    limits: &mut Limits,
    operation: Operation,
    rate: Option<f64>,
    place: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    let Some(rate) = rate else { return Ok(()) };
    if !(rate.is_finite() && rate > 0.0) {
        return Err(value(place(), "a rate is a positive number; leave the key out to limit nothing"));
    }
    limits.set(operation, rate);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        let section: HubThrottleSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.limits(|key| key.to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn single_rates_go_over_the_tier() {
        let limits = limits("tier = \"s1\"\nunits = 2\nmessages_per_second = 7\nmessages_per_day = 9").unwrap();
        assert_eq!(limits.rate(Operation::Messages), Some(7.0));
        assert_eq!(limits.rate(Operation::TwinReads), Some(100.0));
        assert_eq!(limits.quota, Some(Quota { messages: 9, meter_bytes: 4_096 }));
    }

    #[test]
    fn nothing_is_limited_unless_it_is_said() {
        assert_eq!(limits("").unwrap(), Limits::default());
        let section = ProvisioningThrottleSection::default();
        assert_eq!(section.limits().unwrap(), Limits::default());
    }

    #[test]
    fn impossible_values_are_refused() {
        for (text, word) in [
            ("tier = \"S9\"", "S9"),
            ("units = 2", "tier"),
            ("tier = \"F1\"\nunits = 2", "1 to 1"),
            ("messages_per_second = 0", "positive"),
            ("registry_per_second = -1.0", "positive"),
            ("connects_per_second = nan", "positive"),
        ] {
            let error = limits(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
