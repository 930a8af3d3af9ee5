//! The component: the exports of `nave:twin` on top of the native library.

#![allow(unsafe_code, reason = "wit-bindgen's export glue; this crate itself has no unsafe code")]

use crate::bindings::exports::nave::twin::twin::Guest;
use crate::{Rejection, ReportOutcome, ReportRequest, Section, State, UpdateOutcome, UpdateRequest};

struct Component;

impl Guest for Component {
    fn create(initial_json: Option<String>, unix_nanos: u64) -> Result<State, Rejection> {
        crate::create(initial_json.as_deref(), unix_nanos)
    }

    fn update(request: UpdateRequest) -> Result<UpdateOutcome, Rejection> {
        crate::update(&request)
    }

    fn report(request: ReportRequest) -> Result<ReportOutcome, Rejection> {
        crate::report(&request)
    }

    fn catch_up(desired: Section, since: u64) -> Result<Option<String>, Rejection> {
        crate::catch_up(&desired, since)
    }
}

crate::bindings::export!(Component with_types_in crate::bindings);
