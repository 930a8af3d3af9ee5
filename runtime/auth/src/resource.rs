//! What a token's `sr` field names, in all the encodings that the SDKs use.

use nave_model::{DeviceId, IdScope, ModuleId, RegistrationId};

use crate::percent::percent_decode;

/// The resource of a token: a host (or an id scope) and a path.
///
/// The text does not say how it is encoded: the C SDK does not encode, Java encodes the ids, Python everything, .NET
/// the ids twice, and `%` is legal in an id. So a resource has up to three *readings*, and it names something if any
/// reading does. This cannot be abused with a device's own key, which is only tried for the device that is named. For
/// a policy's token it means that a token for device `a%41` is also good for device `aA`: who delegates access per
/// device should not have such ids. Decoding never adds path segments, except for the first one, which `sr` needs.
///
/// Source: protocol notes, authentication §1.2 and authorization §1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    readings: Vec<Reading>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    host: String,
    path: Vec<String>,
}

impl Resource {
    /// Reads the text of `sr` as it stands in the token.
    pub fn parse(raw: &str) -> Self {
        let mut readings = Vec::with_capacity(3);
        // Text that is encoded as a whole has no slash to split at; what has none and no `%` is a bare host.
        if raw.contains('/') || !raw.contains('%') {
            readings.push(Reading::split(raw));
        }
        if let Some(once) = percent_decode(raw) {
            let once = Reading::split(&once);
            if let Some(twice) = once.decoded().filter(|twice| *twice != once) {
                readings.push(once);
                readings.push(twice);
            } else {
                readings.push(once);
            }
        }
        readings.dedup();
        Self { readings }
    }

    /// The host, or the id scope, of the most likely reading: without scheme and port, in the case it was written in.
    pub fn host(&self) -> Option<&str> {
        self.readings.last().map(|reading| reading.host.as_str())
    }

    /// Whether the resource is exactly this device (`{host}/devices/{d}`) or module (`…/modules/{m}`).
    pub fn names_device(&self, is_host: impl Fn(&str) -> bool, device: &DeviceId, module: Option<&ModuleId>) -> bool {
        self.allows_device_operation(is_host, device, module, &[])
    }

    /// Whether the resource is at or below this device or module, and covers `operation`, the segments of the path
    /// below it (`["messages", "events"]`; empty for a connection).
    pub fn allows_device_operation(
        &self,
        is_host: impl Fn(&str) -> bool,
        device: &DeviceId,
        module: Option<&ModuleId>,
        operation: &[&str],
    ) -> bool {
        let mut path = vec!["devices", device.as_str()];
        if let Some(module) = module {
            path.extend(["modules", module.as_str()]);
        }
        let identity_length = path.len();
        path.extend(operation);
        self.readings.iter().any(|reading| {
            reading.path.len() >= identity_length && is_host(&reading.host) && reading.is_prefix_of(&path)
        })
    }

    /// Whether the resource is `{host}` and the beginning of `path`, by whole segments: `/a/b` covers `/a/b/c` but not
    /// `/a/bc`. Fixed words compare ignoring case, ids (the second and fourth segment) exactly.
    pub fn covers(&self, is_host: impl Fn(&str) -> bool, path: &[&str]) -> bool {
        self.readings.iter().any(|reading| is_host(&reading.host) && reading.is_prefix_of(path))
    }

    /// Whether the resource is `{idScope}/registrations/{registrationId}`. Both compare ignoring case, as the
    /// provisioning service does.
    pub fn names_registration(&self, scope: &IdScope, registration_id: &RegistrationId) -> bool {
        self.readings.iter().any(|reading| match reading.path.as_slice() {
            [word, id] => {
                reading.host.eq_ignore_ascii_case(scope.as_str())
                    && word.eq_ignore_ascii_case("registrations")
                    && id.eq_ignore_ascii_case(registration_id.as_str())
            }
            _ => false,
        })
    }
}

impl Reading {
    fn split(text: &str) -> Self {
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let mut segments = text.trim_end_matches('/').split('/');
        let host = segments.next().unwrap_or_default();
        let host = match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let mut path: Vec<String> = segments.map(str::to_owned).collect();
        // An old development tool appended the version to the device's path.
        if path.len() > 2 && path.last().is_some_and(|last| last.starts_with("api-version=")) {
            path.pop();
        }
        Self { host: host.to_owned(), path }
    }

    /// The reading with every segment decoded once more. A `/` that appears by that ends no segment, so that such a
    /// segment is no id.
    fn decoded(&self) -> Option<Self> {
        let decode = |text: &String| percent_decode(text).map(String::from);
        Some(Self { host: decode(&self.host)?, path: self.path.iter().map(decode).collect::<Option<_>>()? })
    }

    fn is_prefix_of(&self, path: &[&str]) -> bool {
        // `messages/serviceBound/feedback` and the like have no ids.
        let only_words = path.first().is_some_and(|first| first.eq_ignore_ascii_case("messages"));
        self.path.len() <= path.len()
            && self.path.iter().zip(path).enumerate().all(|(position, (mine, theirs))| {
                if only_words || position.is_multiple_of(2) {
                    mine.eq_ignore_ascii_case(theirs)
                } else {
                    mine == theirs
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::percent::percent_encode;

    fn is_hub(host: &str) -> bool {
        host.eq_ignore_ascii_case("hub1.nave.test")
    }

    fn names(raw: &str, device: &str, module: Option<&str>) -> bool {
        let module = module.map(|module| ModuleId::parse(module).unwrap());
        Resource::parse(raw).names_device(is_hub, &DeviceId::parse(device).unwrap(), module.as_ref())
    }

    #[test]
    fn every_clients_encoding_names_the_device() {
        for (client, raw, device) in [
            ("Python", "hub1.nave.test%2Fdevices%2Fa%23b", "a#b"),
            ("Node, lower-case digits", "hub1.nave.test%2Fdevices%2Fa%21%27%28%29%2ab", "a!'()*b"),
            ("C over MQTT", "hub1.nave.test/devices/a#b", "a#b"),
            ("C over MQTT, percent in the id", "hub1.nave.test/devices/100%", "100%"),
            ("C over MQTT, id that looks encoded", "hub1.nave.test/devices/a%41", "a%41"),
            ("C over HTTPS", "hub1.nave.test/devices/a%23b", "a#b"),
            (".NET", "hub1.nave.test%2Fdevices%2Fa%2523b", "a#b"),
            (".NET, id without need", "hub1.nave.test%2Fdevices%2Fab", "ab"),
            (".NET, percent in the id", "hub1.nave.test%2Fdevices%2F100%2525", "100%"),
            ("Java", "hub1.nave.test/devices/a%25b", "a%b"),
            ("samples, lower case", "hub1.nave.test%2fdevices%2fab", "ab"),
            ("mixed case host", "Hub1.NAVE.test%2Fdevices%2FAb", "Ab"),
            ("VS Code", "hub1.nave.test%2Fdevices%2Fab%2Fapi-version%3D2016-11-14", "ab"),
            ("VS Code, unencoded", "hub1.nave.test/devices/ab/api-version=2016-11-14", "ab"),
            ("scheme and slash", "https%3A%2F%2Fhub1.nave.test%2Fdevices%2Fab%2F", "ab"),
            ("scheme and port", "amqps://hub1.nave.test:5671/devices/ab", "ab"),
            ("id like the suffix", "hub1.nave.test/devices/api-version=1", "api-version=1"),
            ("plus is no blank", "hub1.nave.test/devices/a+b", "a+b"),
        ] {
            assert!(names(raw, device, None), "{client}");
        }
        for raw in ["hub1.nave.test%2Fdevices%2Fd%2Fmodules%2Fm%2523", "hub1.nave.test/devices/d/modules/m#"] {
            assert!(names(raw, "d", Some("m#")), "{raw}");
            assert!(!names(raw, "d", None), "{raw}");
        }
    }

    #[test]
    fn other_resources_do_not_name_the_device() {
        for raw in [
            "",
            "hub1.nave.test",
            "hub1.nave.test%2Fdevices",
            "hub1.nave.test%2Fdevices%2F",
            "hub1.nave.test%2Fdevices%2FAB",
            "hub1.nave.test%2Fdevices%2Fabc",
            "hub1.nave.test%2Fdevices%2Fa",
            "hub2.nave.test%2Fdevices%2Fab",
            "hub1.nave.test%2F%2Fdevices%2Fab",
            "hub1.nave.test%2Ftwins%2Fab",
            "hub1.nave.test%252Fdevices%252Fab",
            "hub1.nave.test/devices/x%252Fab",
            "hub1.nave.test%2Fdevices%2Fab%2Fmessages",
        ] {
            assert!(!names(raw, "ab", None), "{raw}");
        }
        assert!(!names("hub1.nave.test/devices/d%252Fmodules%252Fm", "d", Some("m")), "decoding adds no segments");
    }

    #[test]
    fn prefixes_are_whole_segments() {
        for (raw, path, covered) in [
            ("hub1.nave.test", &["devices", "d"][..], true),
            ("https://HUB1.nave.test/", &["devices", "d"], true),
            ("amqps://hub1.nave.test:5671/", &[], true),
            ("hub1.nave.test/devices", &["devices"], true),
            ("hub1.nave.test/devices", &["devices", "d"], true),
            ("hub1.nave.test/Devices/d", &["devices", "d", "modules", "m"], true),
            ("hub1.nave.test/devices/d", &["devices", "D"], false),
            ("hub1.nave.test/devices/d", &["devices", "d2"], false),
            ("hub1.nave.test/dev", &["devices"], false),
            ("hub1.nave.test/devices/d", &["devices"], false),
            ("hub1.nave.test/messages/servicebound", &["messages", "serviceBound", "feedback"], true),
            ("hub2.nave.test", &["devices"], false),
            ("", &["devices"], false),
        ] {
            assert_eq!(Resource::parse(raw).covers(is_hub, path), covered, "{raw} {path:?}");
        }
    }

    #[test]
    fn a_narrow_device_token_is_good_for_its_operation_only() {
        let device = DeviceId::parse("d").unwrap();
        let allows = |raw: &str, operation: &[&str]| {
            Resource::parse(raw).allows_device_operation(is_hub, &device, None, operation)
        };
        assert!(allows("hub1.nave.test/devices/d", &["messages", "events"]));
        assert!(allows("hub1.nave.test/devices/d/messages", &["messages", "events"]));
        assert!(!allows("hub1.nave.test/devices/d/messages", &["files"]));
        assert!(!allows("hub1.nave.test/devices", &["messages", "events"]), "that takes a policy");
    }

    #[test]
    fn registrations() {
        let (scope, id) = (IdScope::parse("0ne00001234").unwrap(), RegistrationId::parse("dev-1:a").unwrap());
        for (raw, named) in [
            ("0ne00001234%2Fregistrations%2Fdev-1%3Aa", true),
            ("0ne00001234/registrations/dev-1:a", true),
            ("0ne00001234/registrations/DEV-1%3aA", true),
            ("0NE00001234/registrations/dev-1:a/", true),
            ("0ne00001235/registrations/dev-1:a", false),
            ("0ne00001234/registrations/dev-1:b", false),
            ("0ne00001234/registrations", false),
            ("0ne00001234/devices/dev-1:a", false),
        ] {
            assert_eq!(Resource::parse(raw).names_registration(&scope, &id), named, "{raw}");
        }
    }

    #[test]
    fn tells_the_host() {
        assert_eq!(Resource::parse("amqps%3A%2F%2Fh.x%3A5671%2Fdevices%2Fd").host(), Some("h.x"));
        assert_eq!(Resource::parse("h.x/devices/%2541").host(), Some("h.x"));
    }

    proptest! {
        #[test]
        fn encoded_once_or_twice_or_not_names_the_device(device in "[A-Za-z0-9:.+%_#*?!(),=@;$'-]{1,40}") {
            let encoded = percent_encode(&device);
            for text in [
                percent_encode(&format!("hub1.nave.test/devices/{device}")),
                format!("hub1.nave.test/devices/{device}"),
                format!("hub1.nave.test/devices/{encoded}"),
                percent_encode(&format!("hub1.nave.test/devices/{encoded}")),
            ] {
                prop_assert!(names(&text, &device, None), "{}", text);
            }
        }

        #[test]
        fn parsing_never_panics(raw in ".{0,80}") {
            let _ = Resource::parse(&raw).covers(is_hub, &["devices", "d"]);
            let _ = names(&raw, "d", Some("m"));
        }
    }
}
