//! The host's side of the interfaces in `wit/`: the only generated code of the host.

#![allow(missing_docs, reason = "generated from the WIT files, which document every item")]
#![allow(
    ambiguous_associated_items,
    reason = "the generated code names the associated type `Lower` where a function `lower` exists"
)]

macro_rules! world {
    ($module:ident, $path:literal, $world:literal) => {
        pub(crate) mod $module {
            wasmtime::component::bindgen!({
                path: $path,
                world: $world,
                additional_derives: [PartialEq],
            });
        }
    };
}

world!(twin_world, "../../wit/twin", "twin-function");
world!(methods_world, "../../wit/methods", "methods-function");
world!(provisioning_world, "../../wit/provisioning", "provisioning-function");
world!(allocation_world, "../../wit/allocation", "allocation-policy");
world!(routing_world, "../../wit/routing", "routing-function");

/// The types of `nave:twin/twin`.
pub mod twin {
    pub use super::twin_world::exports::nave::twin::twin::*;
}

/// The types of `nave:methods/methods`.
pub mod methods {
    pub use super::methods_world::exports::nave::methods::methods::*;
}

/// The types of `nave:provisioning/provisioning`.
pub mod provisioning {
    pub use super::provisioning_world::exports::nave::provisioning::provisioning::*;
}

/// The types of `nave:allocation/policy`.
pub mod allocation {
    pub use super::allocation_world::exports::nave::allocation::policy::*;
}

/// The types of `nave:routing/routing`.
pub mod routing {
    pub use super::routing_world::exports::nave::routing::routing::*;
}
