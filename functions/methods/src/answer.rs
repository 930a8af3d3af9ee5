//! Composes the answer to the caller.

use serde_json::value::RawValue;

use crate::limits::MAX_PAYLOAD_BYTES;
use crate::refusal::Failure;
use crate::{Answered, DeviceAnswer, Refusal, Timeouts};

/// The body of a 200, `{"status":N,"payload":..}`, or the refusal that the caller gets.
///
/// The device's status does not matter to the HTTP status: a call that was answered succeeded.
///
/// # Errors
///
/// What the caller is told if the device did not answer, or not as the protocol wants.
pub fn complete(timeouts: Timeouts, answer: &DeviceAnswer) -> Result<String, Refusal> {
    let failure = match answer {
        DeviceAnswer::Answered(answered) => match body(answered) {
            Ok(body) => return Ok(body),
            Err(failure) => failure,
        },
        DeviceAnswer::NoAnswer => Failure::NoAnswer,
        DeviceAnswer::Disconnected => Failure::Disconnected,
        DeviceAnswer::NeverConnected => Failure::NotOnline(timeouts.connect_ms),
    };
    Err(failure.into())
}

fn body(answered: &Answered) -> Result<String, Failure> {
    let status = status(&answered.status_text).ok_or(Failure::BadAnswer("the status is not an integer of 32 bits"))?;
    if answered.payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Failure::BadAnswer("the payload is too large"));
    }
    let payload = match answered.payload.trim_ascii() {
        // Nothing to say is null.
        [] => "null",
        bytes => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
            .map(RawValue::get)
            .ok_or(Failure::BadAnswer("the payload is not JSON"))?,
    };
    Ok(format!("{{\"status\":{status},\"payload\":{payload}}}"))
}

/// Digits, perhaps with a minus sign: the standard library would take a plus sign too. 32 bits are what the service SDKs read.
fn status(text: &str) -> Option<i32> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { connect_ms: 65_000, response_ms: 70_000 };

    fn answered(status: &str, payload: &[u8]) -> Result<String, Refusal> {
        let answered = Answered { status_text: status.to_owned(), payload: payload.to_vec() };
        complete(TIMEOUTS, &DeviceAnswer::Answered(answered))
    }

    #[test]
    fn what_the_device_says_is_passed_on() {
        for (status, payload, body) in [
            ("200", r#"{"a": 1.10}"#, r#"{"status":200,"payload":{"a": 1.10}}"#),
            ("0", "", r#"{"status":0,"payload":null}"#),
            ("404", " \n", r#"{"status":404,"payload":null}"#),
            ("-1", " [1] ", r#"{"status":-1,"payload":[1]}"#),
            ("2147483647", "\"é\"", r#"{"status":2147483647,"payload":"é"}"#),
        ] {
            assert_eq!(answered(status, payload.as_bytes()).as_deref(), Ok(body));
        }
    }

    #[test]
    fn a_malformed_answer_is_a_bad_gateway() {
        for (status, payload) in [
            ("", "{}".as_bytes()),
            ("abc", b"{}"),
            ("+200", b"{}"),
            ("20.0", b"{}"),
            (" 200", b"{}"),
            ("2147483648", b"{}"),
            ("200", b"{"),
            ("200", b"{} {}"),
            ("200", b"hello"),
            ("200", b"\"\xff\""),
            ("200", &[b'1'; MAX_PAYLOAD_BYTES + 1]),
        ] {
            let refusal = answered(status, payload).unwrap_err();
            assert_eq!((refusal.http_status, refusal.error_code), (502, 502_000), "{status}");
            assert_eq!(refusal.error_name, "BadDeviceResponse");
        }
        assert!(answered("200", &[b'1'; MAX_PAYLOAD_BYTES]).is_ok());
    }

    #[test]
    fn silence_has_its_reasons() {
        for (answer, status, code, name, message, info) in [
            (
                DeviceAnswer::NoAnswer,
                504,
                504_101,
                "GatewayTimeout",
                "Timed out waiting for the response from device.",
                Some("{}"),
            ),
            (DeviceAnswer::Disconnected, 404, 404_104, "DeviceConnectionClosedRemotely", "Device unavailable", None),
            (
                DeviceAnswer::NeverConnected,
                404,
                404_103,
                "DeviceNotOnline",
                "Timed out waiting for device to connect.",
                Some(r#"{"timeout":"00:01:05"}"#),
            ),
        ] {
            let expected = Refusal {
                http_status: status,
                error_code: code,
                error_name: name.to_owned(),
                message: message.to_owned(),
                info_json: info.map(str::to_owned),
            };
            assert_eq!(complete(TIMEOUTS, &answer), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn every_answer_is_json_or_refused(status in "-?[0-9]{1,12}|.{0,5}", payload in prop::collection::vec(any::<u8>(), 0..8)) {
            if let Ok(body) = answered(&status, &payload) {
                prop_assert!(serde_json::from_str::<&RawValue>(&body).is_ok(), "{}", body);
            }
        }

        #[test]
        fn every_json_value_is_passed_on(payload in r#"0|[1-9][0-9]{0,4}|"[a-zé]{0,5}"|\[(1,){0,3}2\]|\{"a":(true|null)\}"#) {
            let body = answered("200", payload.as_bytes()).unwrap();
            prop_assert_eq!(body, format!(r#"{{"status":200,"payload":{payload}}}"#));
        }
    }
}
