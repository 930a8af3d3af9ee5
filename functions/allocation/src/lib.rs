//! The built-in allocation policies `hashed`, `geoLatency` and `static`: one pure function, exported as a component with
//! the world `nave:allocation/allocation-policy`.
//!
//! The types are those that wit-bindgen makes from `wit/allocation`; on wasm32 the crate is the component, elsewhere an
//! ordinary library, so that the tests run the very code that is deployed.

mod policies;
mod rendezvous;

#[cfg(target_arch = "wasm32")]
mod component;

#[allow(missing_docs, reason = "generated; the documentation is in wit/allocation")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/allocation",
        world: "allocation-policy",
        additional_derives: [PartialEq],
    });
}

pub use bindings::exports::nave::allocation::policy::{Assignment, Fact, Hub, Outcome, Request};
pub use policies::{Policy, Refusal, choose};
pub use rendezvous::pick;

/// Decides by the built-in policy that `request.policy` names: `assign` with only the hub set, or `refuse`.
pub fn allocate(request: &Request) -> Outcome {
    match choose(request) {
        Ok(hub) => Outcome::Assign(Assignment {
            hub: hub.name.clone(),
            device_id: None,
            initial_twin_json: None,
            payload_json: None,
        }),
        Err(refusal) => Outcome::Refuse(refusal.to_string()),
    }
}
