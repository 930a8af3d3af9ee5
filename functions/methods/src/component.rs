//! The component: the exports of `nave:methods` on top of the native library.

#![allow(unsafe_code, reason = "wit-bindgen's export glue; this crate itself has no unsafe code")]

use crate::bindings::exports::nave::methods::methods::Guest;
use crate::{DeviceAnswer, Plan, Presence, Refusal, Timeouts};

struct Component;

impl Guest for Component {
    fn begin(body_json: String, presence: Presence) -> Plan {
        crate::begin(&body_json, presence)
    }

    fn complete(timeouts: Timeouts, answer: DeviceAnswer) -> Result<String, Refusal> {
        crate::complete(timeouts, &answer)
    }
}

crate::bindings::export!(Component with_types_in crate::bindings);
