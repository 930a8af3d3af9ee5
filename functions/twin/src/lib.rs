//! The rules of device and module twins: merge patches, `$metadata`, versions, limits, notifications and events.
//!
//! The types are those of the WIT package `nave:twin`, generated once and used by the native library and by the component
//! alike. [`create`], [`update`], [`report`] and [`catch_up`] are the exports of the component; everything else is how they work:
//!
//! * `reader` reads JSON as it comes from a client, `document` turns it into a checked patch;
//! * `stored` walks the canonical text of stored state without building values;
//! * `merge` splices: only what a patch names is parsed and written, the rest is copied as text. A twin is changed far more
//!   often than anything else in a hub, and most patches touch few of many members.

mod catch_up;
#[cfg(target_arch = "wasm32")]
mod component;
mod document;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod limits;
mod merge;
mod reader;
mod rejection;
mod rules;
mod stored;

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/twin",
        world: "twin-function",
        additional_derives: [PartialEq, Eq],
    });
}

pub use bindings::exports::nave::twin::twin::{
    Condition, Event, Excess, Part, Rejection, ReportOutcome, ReportRequest, Rule, Section, State, Tags, UpdateKind,
    UpdateOutcome, UpdateRequest, Violation,
};
pub use catch_up::catch_up;
pub use rules::{create, report, update};
