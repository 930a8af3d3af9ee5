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

mod bindings;
mod cache;
mod engine;
mod functions;
mod metrics;
pub mod plugin;
mod pool;
mod source;

pub use bindings::{allocation, methods, provisioning, routing, twin};
pub use engine::{
    CALL_DEADLINE, Engine, EngineError, MAX_FUNCTION_MEMORY, MAX_FUNCTION_STACK, MAX_TABLE_ELEMENTS, TICK,
};
pub use functions::{Functions, PreparedFunctions};
pub use pool::{CallError, Failure, MAX_CALLS_PER_INSTANCE, MAX_WARM_INSTANCES, Reuse};
pub use source::{FUNCTION_NAMES, Source};
