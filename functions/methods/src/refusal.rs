//! The error answers, each with the code that the SDKs know.

use crate::Refusal;

/// The errors that a call can end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The body is no JSON of the right shape.
    BadBody(String),
    /// A member that is required is missing.
    Missing(&'static str),
    /// A member has a value that is not allowed.
    BadArgument(String),
    /// The body or the payload is too large; the limit in bytes.
    TooLarge(usize),
    /// There is no such identity.
    UnknownDevice,
    /// The identity is disabled.
    Disabled,
    /// The device was not connected and subscribed within so many milliseconds.
    NotOnline(u32),
    /// The hub has as many calls under way as it allows.
    Saturated,
    /// The connection ended before the answer.
    Disconnected,
    /// The device did not answer in time.
    NoAnswer,
    /// What the device answered is not what the protocol allows.
    BadAnswer(&'static str),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let mut info_json = None;
        let (error_code, name, message) = match failure {
            Failure::BadBody(why) => (400_006, "IotHubFormatError", format!("The body is not a method call: {why}")),
            Failure::Missing(member) => (400_005, "ArgumentNull", format!("'{member}' is missing.")),
            Failure::BadArgument(message) => (400_004, "ArgumentInvalid", message),
            Failure::TooLarge(limit) => {
                (413_001, "MessageTooLarge", format!("The payload of a method may have at most {limit} bytes."))
            }
            Failure::UnknownDevice => (404_001, "DeviceNotFound", "NotFound".to_owned()),
            Failure::Disabled => (403_012, "DeviceDisabled", "The device is disabled.".to_owned()),
            Failure::NotOnline(timeout_ms) => {
                info_json = Some(format!("{{\"timeout\":\"{}\"}}", clock(timeout_ms)));
                (404_103, "DeviceNotOnline", "Timed out waiting for device to connect.".to_owned())
            }
            Failure::Saturated => {
                (403_800, "InflightMethodExceeded", "Too many method calls are under way; try again later.".to_owned())
            }
            Failure::Disconnected => (404_104, "DeviceConnectionClosedRemotely", "Device unavailable".to_owned()),
            Failure::NoAnswer => {
                info_json = Some("{}".to_owned());
                (504_101, "GatewayTimeout", "Timed out waiting for the response from device.".to_owned())
            }
            Failure::BadAnswer(why) => {
                (502_000, "BadDeviceResponse", format!("The device's answer is not valid: {why}."))
            }
        };
        // The first three digits of a code are the HTTP status.
        let http_status = u16::try_from(error_code / 1000).unwrap_or(500);
        Self { http_status, error_code, error_name: name.to_owned(), message, info_json }
    }
}

/// `hh:mm:ss`.
fn clock(milliseconds: u32) -> String {
    let seconds = milliseconds / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_head_of_the_code() {
        for (failure, status, code) in [
            (Failure::BadBody(String::new()), 400, 400_006),
            (Failure::Missing("methodName"), 400, 400_005),
            (Failure::BadArgument(String::new()), 400, 400_004),
            (Failure::TooLarge(1), 413, 413_001),
            (Failure::UnknownDevice, 404, 404_001),
            (Failure::Disabled, 403, 403_012),
            (Failure::NotOnline(0), 404, 404_103),
            (Failure::Saturated, 403, 403_800),
            (Failure::Disconnected, 404, 404_104),
            (Failure::NoAnswer, 504, 504_101),
            (Failure::BadAnswer("x"), 502, 502_000),
        ] {
            let refusal = Refusal::from(failure);
            assert_eq!((refusal.http_status, refusal.error_code), (status, code), "{refusal:?}");
        }
    }

    #[test]
    fn the_timeout_is_a_clock() {
        for (milliseconds, text) in
            [(0, "00:00:00"), (15_000, "00:00:15"), (300_000, "00:05:00"), (3_661_999, "01:01:01")]
        {
            assert_eq!(clock(milliseconds), text);
        }
    }
}
