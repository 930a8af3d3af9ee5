//! Reads a call and decides what to do with it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{
    CONNECT_TIMEOUT_SECONDS, DEFAULT_CONNECT_TIMEOUT_SECONDS, DEFAULT_RESPONSE_TIMEOUT_SECONDS, FORBIDDEN_IN_NAMES,
    MAX_BODY_BYTES, MAX_NAME_CHARACTERS, MAX_PAYLOAD_BYTES, RESPONSE_TIMEOUT_SECONDS, TOPIC_WILDCARDS,
};
use crate::refusal::Failure;
use crate::{Call, Plan, Presence, Timeouts};

/// Decides on the call in `body_json`, the body of the request as it was received.
///
/// The arguments are checked first, so that a bad call is refused alike whether the device is there or not.
pub fn begin(body_json: &str, presence: Presence) -> Plan {
    match read(body_json).and_then(|call| plan(call, presence)) {
        Ok(plan) => plan,
        Err(failure) => Plan::Refuse(failure.into()),
    }
}

fn plan(call: Call, presence: Presence) -> Result<Plan, Failure> {
    match presence {
        Presence::UnknownDevice => Err(Failure::UnknownDevice),
        Presence::Disabled => Err(Failure::Disabled),
        Presence::Saturated => Err(Failure::Saturated),
        Presence::Online => Ok(Plan::Deliver(call)),
        Presence::Offline | Presence::NotSubscribed if call.timeouts.connect_ms == 0 => Err(Failure::NotOnline(0)),
        Presence::Offline | Presence::NotSubscribed => Ok(Plan::Wait(call)),
    }
}

/// The body of a call; other members are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    method_name: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    response_timeout_in_seconds: Option<i64>,
    connect_timeout_in_seconds: Option<i64>,
}

fn read(body_json: &str) -> Result<Call, Failure> {
    if body_json.len() > MAX_BODY_BYTES {
        return Err(Failure::TooLarge(MAX_PAYLOAD_BYTES));
    }
    if !body_json.trim_ascii_start().starts_with('{') {
        // serde would take an array for the members in their order.
        return Err(Failure::BadBody("an object is expected".to_owned()));
    }
    let body: Body<'_> = serde_json::from_str(body_json).map_err(|error| Failure::BadBody(error.to_string()))?;
    let name = body.method_name.ok_or(Failure::Missing("methodName"))?;
    check_name(&name)?;
    // An SDK for Node reads every payload as JSON and fails on an empty one, so that "none" is the value null.
    let payload = body.payload.map_or("null", RawValue::get);
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Failure::TooLarge(MAX_PAYLOAD_BYTES));
    }
    let response = seconds(
        "responseTimeoutInSeconds",
        body.response_timeout_in_seconds,
        DEFAULT_RESPONSE_TIMEOUT_SECONDS,
        &RESPONSE_TIMEOUT_SECONDS,
    )?;
    let connect = seconds(
        "connectTimeoutInSeconds",
        body.connect_timeout_in_seconds,
        DEFAULT_CONNECT_TIMEOUT_SECONDS,
        &CONNECT_TIMEOUT_SECONDS,
    )?;
    if connect > response {
        return Err(Failure::BadArgument(format!(
            "Device connection timeout {connect} cannot be longer than an overall call timeout {response}"
        )));
    }
    let timeouts = Timeouts { connect_ms: connect * 1000, response_ms: response * 1000 };
    Ok(Call { name, payload_json: payload.to_owned(), timeouts })
}

fn check_name(name: &str) -> Result<(), Failure> {
    let characters = name.chars().count();
    if characters == 0 || characters > MAX_NAME_CHARACTERS {
        return Err(Failure::BadArgument(format!(
            "'methodName' has {characters} characters; 1 to {MAX_NAME_CHARACTERS} are allowed."
        )));
    }
    let forbidden = |character: &char| {
        FORBIDDEN_IN_NAMES.contains(*character)
            || TOPIC_WILDCARDS.contains(*character)
            || character.is_whitespace()
            || character.is_control()
    };
    match name.chars().find(forbidden) {
        None => Ok(()),
        Some(character) => {
            let code = u32::from(character);
            Err(Failure::BadArgument(format!("'methodName' has the character U+{code:04X}, which is not allowed.")))
        }
    }
}

fn seconds(
    name: &str,
    given: Option<i64>,
    default: u32,
    allowed: &std::ops::RangeInclusive<u32>,
) -> Result<u32, Failure> {
    match given.map_or(Ok(default), u32::try_from) {
        Ok(seconds) if allowed.contains(&seconds) => Ok(seconds),
        _ => {
            let (least, most) = (allowed.start(), allowed.end());
            Err(Failure::BadArgument(format!("'{name}' must be an integer from {least} to {most}.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deliver(body: &str) -> Call {
        match begin(body, Presence::Online) {
            Plan::Deliver(call) => call,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn refuse(body: &str, presence: Presence) -> (u32, String) {
        match begin(body, presence) {
            Plan::Refuse(refusal) => (refusal.error_code, refusal.message),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_call_without_timeouts_has_the_defaults() {
        let call = deliver(r#"{"methodName":"reboot"}"#);
        assert_eq!(call.name, "reboot");
        assert_eq!(call.payload_json, "null");
        assert_eq!((call.timeouts.connect_ms, call.timeouts.response_ms), (0, 30_000));
        let nulls =
            r#"{"methodName":"reboot","payload":null,"responseTimeoutInSeconds":null,"connectTimeoutInSeconds":null}"#;
        assert_eq!(deliver(nulls), call);
    }

    #[test]
    fn the_payload_is_delivered_as_it_is() {
        for payload in ["{ \"a\" : 1.10 }", "[]", "\"\"", "\"x\"", "17", "true", "1e999"] {
            let body = format!(r#" {{"payload": {payload} , "methodName":"m", "other":{{}}}}"#);
            assert_eq!(deliver(&body).payload_json, payload);
        }
    }

    #[test]
    fn timeouts_have_their_ranges() {
        let body = |response: &str, connect: &str| {
            format!(r#"{{"methodName":"m","responseTimeoutInSeconds":{response},"connectTimeoutInSeconds":{connect}}}"#)
        };
        for (response, connect) in [(5, 0), (300, 300), (5, 5)] {
            let timeouts = deliver(&body(&response.to_string(), &connect.to_string())).timeouts;
            assert_eq!((timeouts.response_ms, timeouts.connect_ms), (response * 1000, connect * 1000));
        }
        for (response, connect) in
            [("4", "0"), ("301", "0"), ("-5", "0"), ("300", "301"), ("30", "-1"), ("30", "31"), ("null", "31")]
        {
            assert_eq!(refuse(&body(response, connect), Presence::Online).0, 400_004, "{response} {connect}");
        }
        assert!(refuse(&body("30", "31"), Presence::Online).1.starts_with("Device connection timeout"));
        for (response, connect) in [("\"30\"", "0"), ("30.5", "0"), ("99999999999999999999", "0")] {
            assert_eq!(refuse(&body(response, connect), Presence::Online).0, 400_006, "{response} {connect}");
        }
    }

    #[test]
    fn names_have_their_rules() {
        for name in ["m", "Größe", "component*command", "a.b-c_d!~'%&|^`", &"é".repeat(100)] {
            assert_eq!(deliver(&format!(r#"{{"methodName":"{name}"}}"#)).name, name);
        }
        for name in
            ["", &"a".repeat(101), "a b", "a\\tb", "a\\u0000", "a/b", "a+", "#", "$m", "a\\\\b", "a\\\"b", "a?=", "{m}"]
        {
            let (code, message) = refuse(&format!(r#"{{"methodName":"{name}"}}"#), Presence::Online);
            assert_eq!(code, 400_004, "{name}: {message}");
        }
    }

    #[test]
    fn bodies_have_their_shape() {
        for (body, code) in [
            ("", 400_006),
            ("null", 400_006),
            (r#"["m",1]"#, 400_006),
            (r#"{"methodName":"m""#, 400_006),
            (r#"{"methodName":5}"#, 400_006),
            (r#"{"methodName":"m"} x"#, 400_006),
            ("{}", 400_005),
            (r#"{"methodName":null}"#, 400_005),
        ] {
            assert_eq!(refuse(body, Presence::Online).0, code, "{body}");
        }
    }

    #[test]
    fn payloads_have_a_limit() {
        let body = |length: usize| format!(r#"{{"methodName":"m","payload":"{}"}}"#, "x".repeat(length - 2));
        assert_eq!(deliver(&body(MAX_PAYLOAD_BYTES)).payload_json.len(), MAX_PAYLOAD_BYTES);
        assert_eq!(refuse(&body(MAX_PAYLOAD_BYTES + 1), Presence::Online).0, 413_001);
        assert_eq!(refuse(&body(MAX_BODY_BYTES), Presence::Online).0, 413_001);
        let bomb = format!(r#"{{"methodName":"m","payload":{}"#, "[".repeat(100_000));
        assert_eq!(refuse(&bomb, Presence::Online).0, 400_006);
    }

    #[test]
    fn presence_decides() {
        let now = r#"{"methodName":"m"}"#;
        let patient = r#"{"methodName":"m","connectTimeoutInSeconds":15}"#;
        for (presence, code) in
            [(Presence::UnknownDevice, 404_001), (Presence::Disabled, 403_012), (Presence::Saturated, 403_800)]
        {
            assert_eq!(refuse(now, presence).0, code);
            assert_eq!(refuse(patient, presence).0, code);
            assert_eq!(refuse("{}", presence).0, 400_005, "arguments come first");
        }
        for presence in [Presence::Offline, Presence::NotSubscribed] {
            let Plan::Refuse(refusal) = begin(now, presence) else { panic!("{presence:?}") };
            assert_eq!(refusal.error_name, "DeviceNotOnline");
            assert_eq!(refusal.message, "Timed out waiting for device to connect.");
            assert_eq!(refusal.info_json.as_deref(), Some(r#"{"timeout":"00:00:00"}"#));
            let Plan::Wait(call) = begin(patient, presence) else { panic!("{presence:?}") };
            assert_eq!(call.timeouts.connect_ms, 15_000);
        }
        assert!(matches!(begin(patient, Presence::Online), Plan::Deliver(_)));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in r#"\{("methodName":"[a-z/$]{0,4}")?,?("payload":[\[\]{}0-9"\\]{0,8})?\}|.{0,30}"#) {
            if let Plan::Deliver(call) = begin(&body, Presence::Online) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
                prop_assert!(!call.payload_json.is_empty() && !call.name.contains('/'));
            }
        }
    }
}
