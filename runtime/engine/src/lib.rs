//! The component host: loads the functions that take the hub's decisions, bounds what a call may cost, keeps warm
//! instances, and swaps a function while calls are under way.
//!
//! * [`Engine`] owns wasmtime, its pool and the cache of compiled code on disk.
//! * [`Functions`] is the set of built-in functions, with one typed method per call.
//! * [`plugin`] runs allocation policies that others wrote, each call in a fresh instance with nothing granted.
//! * [`Source`] says where the component files come from: embedded in the binary, or a directory that overrides them.
//!
//! A trap, a missed deadline or an exhausted memory is a [`CallError`]: one failed request, and the instance is thrown
//! away. A function imports nothing, so there is nothing else that it could do.
//!
//! Compiled to WebAssembly this crate is the other end of the same calls: [`Functions`] passes them to the components that
//! the host of the whole, such as Spin, composed with it. What needs a compiler is not there then.

// The seam is here and not in the hub, so that the hub is the same code on both hosts.
#[cfg(not(target_arch = "wasm32"))]
mod bindings;
#[cfg(not(target_arch = "wasm32"))]
mod cache;
mod call;
#[cfg(target_arch = "wasm32")]
mod composed;
#[cfg(not(target_arch = "wasm32"))]
mod engine;
#[cfg(not(target_arch = "wasm32"))]
mod functions;
#[cfg(not(target_arch = "wasm32"))]
mod metrics;
#[cfg(not(target_arch = "wasm32"))]
pub mod plugin;
#[cfg(not(target_arch = "wasm32"))]
mod pool;
#[cfg(not(target_arch = "wasm32"))]
mod source;

#[cfg(not(target_arch = "wasm32"))]
pub use bindings::{allocation, methods, provisioning, routing, twin};
pub use call::{CALL_DEADLINE, CallError, Failure};
#[cfg(target_arch = "wasm32")]
pub use composed::{Functions, allocation, methods, plugin, provisioning, routing, twin};
#[cfg(not(target_arch = "wasm32"))]
pub use engine::{Engine, EngineError, MAX_FUNCTION_MEMORY, MAX_FUNCTION_STACK, MAX_TABLE_ELEMENTS, TICK};
#[cfg(not(target_arch = "wasm32"))]
pub use functions::{Functions, PreparedFunctions};
#[cfg(not(target_arch = "wasm32"))]
pub use pool::{MAX_CALLS_PER_INSTANCE, MAX_WARM_INSTANCES, Reuse};
#[cfg(not(target_arch = "wasm32"))]
pub use source::{FUNCTION_NAMES, Source};
