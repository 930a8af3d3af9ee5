//! What the topics mean: those that clients publish to and subscribe to, and those that the server publishes to
//! (protocol notes: MQTT §4, provisioning §3.2).
//!
//! Topics are matched exactly as to case. Which variants are tolerated is said at each function.

mod dps;
mod hub;
mod outgoing;
mod query;

use std::fmt;

pub use dps::{DPS_RESPONSES_FILTER, DpsPublish, dps_filter, dps_publish};
pub use hub::{Feature, HubPublish, Since, hub_filter, hub_publish};
pub use outgoing::{FromServer, ToClient, ToServer, parse_from_server};

/// Longest request id (`$rid`) in bytes; a longer one is [`TopicError::RequestIdTooLong`]. The SDKs use GUIDs and
/// counters. The answer's topic repeats it, and the answer would not fit into a topic without a bound.
pub const MAX_REQUEST_ID_LENGTH: usize = 256;

/// A device, or a module on a device, as topics and client ids name it: as text that nobody checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client<'a> {
    /// The device id.
    pub device: &'a str,
    /// The module id, if it is a module.
    pub module: Option<&'a str>,
}

impl<'a> Client<'a> {
    /// A device.
    pub const fn device(device: &'a str) -> Self {
        Self { device, module: None }
    }

    /// A module.
    pub const fn module(device: &'a str, module: &'a str) -> Self {
        Self { device, module: Some(module) }
    }
}

impl fmt::Display for Client<'_> {
    /// The client id: `{device}` or `{device}/{module}`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.device)?;
        match self.module {
            None => Ok(()),
            Some(module) => write!(formatter, "/{module}"),
        }
    }
}

/// Why a PUBLISH of a client cannot be served. On MQTT every one of them closes the connection: there is no other way to
/// say no (protocol notes: MQTT §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The topic is none that clients publish to.
    #[error("the topic is unknown")]
    Unknown,
    /// The topic belongs to another device or module than the connected one.
    #[error("the topic is of another device or module")]
    OtherIdentity,
    /// The request has no `$rid`, or an empty one.
    #[error("the topic has no request id")]
    NoRequestId,
    /// The request has more than one `$rid`.
    #[error("the topic has more than one request id")]
    SeveralRequestIds,
    /// [`MAX_REQUEST_ID_LENGTH`].
    #[error("the request id is longer than {MAX_REQUEST_ID_LENGTH} bytes")]
    RequestIdTooLong,
    /// Something stands between the operation and its parameters.
    #[error("the topic has a part after the operation")]
    SubResource,
    /// `$version` is not a number.
    #[error("the topic has a $version that is not a number")]
    Version,
    /// The status of a poll has no `operationId`.
    #[error("the topic has no operation id")]
    NoOperationId,
}

/// The filter is none that clients may subscribe to: SUBACK 0x80 for it, and the connection stays (protocol notes:
/// MQTT §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the topic filter is unknown, or of another device or module")]
pub struct FilterRefused;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: Client<'_> = Client::device("dev1");
    const MODULE: Client<'_> = Client::module("dev1", "mod1");

    #[test]
    fn telemetry_is_accepted_in_all_its_forms() {
        for (topic, bag) in [
            ("devices/dev1/messages/events", ""),
            ("devices/dev1/messages/events/", ""),
            ("devices/dev1/messages/events//", ""),
            ("devices/dev1/messages/events/a=1", "a=1"),
            ("devices/dev1/messages/events/a=1/", "a=1"),
            ("devices/dev1/messages/events/?a=1", "a=1"),
            ("devices/dev1/messages/events?a=1", "a=1"),
            ("devices/dev1/messages/events/url=http://x/y", "url=http://x/y"),
            ("devices/dev1/messages/events/a=messages/events/", "a=messages/events"),
        ] {
            assert_eq!(hub_publish(DEVICE, topic), Ok(HubPublish::Telemetry { bag }), "{topic}");
        }
        let topic = "devices/dev1/modules/mod1/messages/events/%24.on=out/";
        assert_eq!(hub_publish(MODULE, topic), Ok(HubPublish::Telemetry { bag: "%24.on=out" }));
    }

    #[test]
    fn nobody_publishes_for_somebody_else() {
        for topic in [
            "devices/dev2/messages/events/",
            "devices/Dev1/messages/events/",
            "devices/dev1/modules/mod1/messages/events/",
        ] {
            assert_eq!(hub_publish(DEVICE, topic), Err(TopicError::OtherIdentity), "{topic}");
        }
        for topic in ["devices/dev1/messages/events/", "devices/dev1/modules/mod2/messages/events/"] {
            assert_eq!(hub_publish(MODULE, topic), Err(TopicError::OtherIdentity), "{topic}");
        }
    }

    #[test]
    fn requests_are_read() {
        use HubPublish as P;
        for (topic, expected) in [
            ("$iothub/twin/GET/?$rid=1", P::TwinGet { rid: "1", since: None }),
            ("$iothub/twin/GET?$rid=a-b%2F/c", P::TwinGet { rid: "a-b%2F/c", since: None }),
            ("$iothub/twin/GET/?%24rid=1", P::TwinGet { rid: "1", since: None }),
            ("$iothub/twin/GET/?x=y&$rid=1", P::TwinGet { rid: "1", since: None }),
            (
                "$iothub/twin/GET/?$rid=1&$since=12&%24lineage=638.0",
                P::TwinGet { rid: "1", since: Some(Since { version: 12, lineage: "638.0" }) },
            ),
            (
                "$iothub/twin/GET/?$rid=1&$since=0",
                P::TwinGet { rid: "1", since: Some(Since { version: 0, lineage: "" }) },
            ),
            ("$iothub/twin/GET/?$rid=1&$since=-1", P::TwinGet { rid: "1", since: None }),
            ("$iothub/twin/GET/?$rid=1&since=3", P::TwinGet { rid: "1", since: None }),
            ("$iothub/twin/PATCH/properties/reported/?$rid=r", P::TwinPatch { rid: Some("r"), version: None }),
            ("$iothub/twin/PATCH/properties/reported/?$rid=", P::TwinPatch { rid: None, version: None }),
            ("$iothub/twin/PATCH/properties/reported/", P::TwinPatch { rid: None, version: None }),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=r&$version=7",
                P::TwinPatch { rid: Some("r"), version: Some(7) },
            ),
            ("$iothub/methods/res/200/?$rid=1f", P::MethodResponse { status: "200", rid: "1f" }),
            ("$iothub/methods/res/-1/?$rid=1", P::MethodResponse { status: "-1", rid: "1" }),
            ("$iothub/methods/res/ok?$rid=1", P::MethodResponse { status: "ok", rid: "1" }),
            ("$iothub/credentials/POST/issueCertificate/?$rid=1", P::IssueCertificate { rid: "1" }),
        ] {
            assert_eq!(hub_publish(DEVICE, topic), Ok(expected), "{topic}");
            assert_eq!(hub_publish(MODULE, topic), Ok(expected), "{topic}");
        }
    }

    #[test]
    fn broken_requests_are_refused() {
        use TopicError as E;
        let long = format!("$iothub/twin/GET/?$rid={}", "x".repeat(MAX_REQUEST_ID_LENGTH + 1));
        for (topic, error) in [
            ("$iothub/twin/GET/", E::NoRequestId),
            ("$iothub/twin/GET/?$rid=", E::NoRequestId),
            ("$iothub/twin/GET/?rid=1", E::NoRequestId),
            ("$iothub/twin/GET/?$rid=1&$rid=1", E::SeveralRequestIds),
            ("$iothub/twin/GET/foo/?$rid=1", E::SubResource),
            ("$iothub/twin/PATCH/properties/reported/foo/?$rid=1", E::SubResource),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x", E::Version),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=+1", E::Version),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=18446744073709551616", E::Version),
            ("$iothub/twin/PATCH/properties/desired/?$rid=1", E::Unknown),
            ("$iothub/twin/get/?$rid=1", E::Unknown),
            ("$iothub/methods/res/200", E::NoRequestId),
            ("$iothub/methods/POST/x/?$rid=1", E::Unknown),
            ("$dps/registrations/PUT/iotdps-register/?$rid=1", E::Unknown),
            ("devices/dev1/messages/eventsfoo", E::Unknown),
            ("devices/dev1/messages/devicebound/", E::Unknown),
            ("devices/dev1", E::Unknown),
            ("devices/dev1/modules/mod1", E::Unknown),
            ("anything", E::Unknown),
            (&long, E::RequestIdTooLong),
        ] {
            assert_eq!(hub_publish(DEVICE, topic), Err(error), "{topic}");
        }
    }

    #[test]
    fn filters_are_granted_to_their_owner() {
        use Feature as F;
        for (client, filter, feature) in [
            (DEVICE, "devices/dev1/messages/devicebound/#", Some(F::CloudToDevice)),
            (DEVICE, "devices/dev1/messages/deviceBound/#", Some(F::CloudToDevice)),
            (DEVICE, "$iothub/methods/POST/#", Some(F::Methods)),
            (DEVICE, "$iothub/twin/res/#", Some(F::TwinResponses)),
            (DEVICE, "$iothub/twin/PATCH/properties/desired/#", Some(F::TwinDesired)),
            (DEVICE, "$iothub/credentials/res/#", Some(F::Credentials)),
            (DEVICE, "$iothub/credential/#", Some(F::Credentials)),
            (MODULE, "devices/dev1/modules/mod1/inputs/#", Some(F::ModuleInputs)),
            (MODULE, "devices/dev1/modules/mod1/#", Some(F::ModuleInputs)),
            (MODULE, "devices/dev1/modules/mod1/messages/devicebound/#", Some(F::ModuleDeviceBound)),
            (MODULE, "$iothub/methods/POST/#", Some(F::Methods)),
            (DEVICE, "#", None),
            (DEVICE, "$iothub/#", None),
            (DEVICE, "$iothub/twin/#", None),
            (DEVICE, "$iothub/twin/res/200/#", None),
            (DEVICE, "devices/+/messages/devicebound/#", None),
            (DEVICE, "devices/dev2/messages/devicebound/#", None),
            (DEVICE, "devices/dev1/messages/devicebound/", None),
            (DEVICE, "devices/dev1/#", None),
            (DEVICE, "devices/dev1/modules/mod1/#", None),
            (MODULE, "devices/dev1/messages/devicebound/#", None),
            (MODULE, "devices/dev1/modules/mod2/#", None),
            (DEVICE, DPS_RESPONSES_FILTER, None),
        ] {
            assert_eq!(hub_filter(client, filter).ok(), feature, "{client} {filter}");
        }
        assert!(dps_filter("$dps/registrations/res/#").is_ok());
        assert!(dps_filter("$dps/registrations/#").is_err() && dps_filter("#").is_err());
    }

    #[test]
    fn provisioning_requests_are_read() {
        assert_eq!(
            dps_publish("$dps/registrations/PUT/iotdps-register/?$rid=1"),
            Ok(DpsPublish::Register { rid: "1" })
        );
        let poll = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.31.b1-ea";
        assert_eq!(dps_publish(poll), Ok(DpsPublish::OperationStatus { rid: "2", operation_id: "5.31.b1-ea" }));
        for (topic, error) in [
            ("$dps/registrations/PUT/iotdps-register/", TopicError::NoRequestId),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2", TopicError::NoOperationId),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=", TopicError::NoOperationId),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?operationId=2", TopicError::NoRequestId),
            ("$dps/registrations/POST/iotdps-register/?$rid=1", TopicError::Unknown),
            ("devices/dev1/messages/events/", TopicError::Unknown),
        ] {
            assert_eq!(dps_publish(topic), Err(error), "{topic}");
        }
    }

    #[test]
    fn outgoing_topics_are_what_the_parsers_of_the_sdks_need() {
        use ToClient as T;
        for (topic, text) in [
            (T::CloudToDevice { device: "d", bag: "%24.to=x" }, "devices/d/messages/devicebound/%24.to=x"),
            (T::CloudToDevice { device: "d", bag: "" }, "devices/d/messages/devicebound/"),
            (T::ModuleInput { device: "d", module: "m", input: "i", bag: "" }, "devices/d/modules/m/inputs/i/"),
            (T::Method { name: "reboot", rid: 17 }, "$iothub/methods/POST/reboot/?$rid=17"),
            (T::TwinResponse { status: 200, rid: "r", version: None }, "$iothub/twin/res/200/?$rid=r"),
            (T::TwinResponse { status: 204, rid: "r", version: Some(9) }, "$iothub/twin/res/204/?$rid=r&$version=9"),
            (T::TwinDesired { version: 3 }, "$iothub/twin/PATCH/properties/desired/?$version=3"),
            (T::CredentialsResponse { status: 202, rid: "r" }, "$iothub/credentials/res/202/?$rid=r"),
            (T::DpsResponse { status: 200, rid: "r", retry_after: None }, "$dps/registrations/res/200/?$rid=r"),
            (
                T::DpsResponse { status: 202, rid: "r", retry_after: Some(3) },
                "$dps/registrations/res/202/?$rid=r&retry-after=3",
            ),
        ] {
            assert_eq!(topic.to_string(), text);
        }
    }

    #[test]
    fn our_clients_read_what_our_server_writes() {
        use {FromServer as F, ToClient as T};
        for (topic, read) in [
            (T::CloudToDevice { device: "d", bag: "a=1" }, F::CloudToDevice { bag: "a=1" }),
            (
                T::ModuleInput { device: "d", module: "m", input: "i", bag: "a" },
                F::ModuleInput { input: "i", bag: "a" },
            ),
            (T::Method { name: "reboot", rid: 17 }, F::Method { name: "reboot", rid: "17" }),
            (
                T::TwinResponse { status: 429, rid: "r", version: Some(2) },
                F::TwinResponse { status: 429, rid: "r", version: Some(2) },
            ),
            (T::TwinDesired { version: 3 }, F::TwinDesired { version: 3 }),
            (T::CredentialsResponse { status: 202, rid: "r" }, F::CredentialsResponse { status: 202, rid: "r" }),
            (
                T::DpsResponse { status: 202, rid: "r", retry_after: Some(3) },
                F::DpsResponse { status: 202, rid: "r", retry_after: Some(3) },
            ),
        ] {
            assert_eq!(parse_from_server(&topic.to_string()), Some(read), "{topic}");
        }
        for other in ["", "a", "devices/d/messages/events/", "$iothub/twin/res/x/?$rid=1", "$iothub/twin/res/200/"] {
            assert_eq!(parse_from_server(other), None, "{other}");
        }
    }

    #[test]
    fn our_server_reads_what_our_clients_write() {
        use {HubPublish as P, ToServer as T};
        let read = |topic: T<'_>| hub_publish(MODULE, &topic.to_string()).map(|read| format!("{read:?}"));
        for (topic, expected) in [
            (T::Telemetry { client: MODULE, bag: "a=1" }, P::Telemetry { bag: "a=1" }),
            (T::TwinGet { rid: "r", since: None }, P::TwinGet { rid: "r", since: None }),
            (
                T::TwinGet { rid: "r", since: Some(Since { version: 12, lineage: "638.0" }) },
                P::TwinGet { rid: "r", since: Some(Since { version: 12, lineage: "638.0" }) },
            ),
            (T::TwinPatch { rid: "r", version: None }, P::TwinPatch { rid: Some("r"), version: None }),
            (T::TwinPatch { rid: "r", version: Some(1) }, P::TwinPatch { rid: Some("r"), version: Some(1) }),
            (T::MethodResponse { status: -5, rid: "r" }, P::MethodResponse { status: "-5", rid: "r" }),
        ] {
            assert_eq!(read(topic), Ok(format!("{expected:?}")));
        }
        let device = T::Telemetry { client: DEVICE, bag: "" }.to_string();
        assert_eq!(hub_publish(DEVICE, &device), Ok(P::Telemetry { bag: "" }));
        let register = T::DpsRegister { rid: "r" }.to_string();
        assert_eq!(dps_publish(&register), Ok(DpsPublish::Register { rid: "r" }));
        let poll = T::DpsOperationStatus { rid: "r", operation_id: "o" }.to_string();
        assert_eq!(dps_publish(&poll), Ok(DpsPublish::OperationStatus { rid: "r", operation_id: "o" }));
    }

    proptest! {
        #[test]
        fn matching_never_panics(
            text in "(\\$iothub/|\\$dps/registrations/|devices/|dev1|mod1|/|modules/|messages/|events|twin/|GET|res/|200|\\?|\\$rid=|&|#|x|\u{e4}){0,10}"
        ) {
            for client in [DEVICE, MODULE] {
                let _ = hub_filter(client, &text);
                if let Ok(HubPublish::TwinGet { rid, .. }) = hub_publish(client, &text) {
                    prop_assert!((1..=MAX_REQUEST_ID_LENGTH).contains(&rid.len()));
                }
            }
            let _ = (dps_publish(&text), dps_filter(&text), parse_from_server(&text));
        }
    }
}
