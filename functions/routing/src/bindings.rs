//! The types of `wit/routing`, generated. They are plain Rust types on every target; only the component's exported
//! symbols exist on `wasm32` alone.

#![allow(missing_docs, unreachable_pub, unsafe_code, unused_qualifications, reason = "generated code")]
#![allow(clippy::all, clippy::needless_pass_by_value, reason = "generated code")]

wit_bindgen::generate!({
    path: "../../wit/routing",
    world: "routing-function",
    additional_derives: [PartialEq],
    generate_unused_types: true,
});

#[cfg(target_arch = "wasm32")]
struct Component;

#[cfg(target_arch = "wasm32")]
impl exports::nave::routing::routing::Guest for Component {
    fn compile(
        condition: String,
        source: exports::nave::routing::routing::Source,
    ) -> Result<exports::nave::routing::routing::Compiled, Vec<exports::nave::routing::routing::Diagnostic>> {
        crate::compile(&condition, source)
    }
}

#[cfg(target_arch = "wasm32")]
export!(Component);
