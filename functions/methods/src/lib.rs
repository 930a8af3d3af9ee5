//! The rules of direct methods: which calls are valid, what to do with one, and what the caller is answered.
//!
//! The types are those of the WIT package `nave:methods`, generated once and used by the native library and by the component
//! alike. [`begin`] and [`complete`] are the two exports of the component.

mod answer;
mod call;
#[cfg(target_arch = "wasm32")]
mod component;
pub mod limits;
mod refusal;

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/methods",
        world: "methods-function",
        additional_derives: [PartialEq, Eq],
    });
}

pub use answer::complete;
pub use bindings::exports::nave::methods::methods::{Answered, Call, DeviceAnswer, Plan, Presence, Refusal, Timeouts};
pub use call::begin;
