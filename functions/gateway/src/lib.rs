//! A hub and a provisioning service without a process of their own: for Spin, which starts a component anew for every
//! request.
//!
//! What the requests mean is in `nave-http` and `nave-hub`, the very code of the program `nave`; decisions are taken by the
//! same components as there, which a deployment composes with this one. Here is only what is different:
//!
//! * [`RequestEnv`]: the time and tasks of one request. Nothing goes on after the answer.
//! * [`BucketLog`]: telemetry in the key-value store, the newest of it.
//! * [`Settings`]: the deployment's variables.
//! * [`answer`]: one request, from its bytes to those of its answer.
//!
//! On wasm32 `component` is around that: Spin's variables, key-value store, clocks and HTTP.

#[cfg(target_arch = "wasm32")]
mod component;
mod env;
mod log;
mod platform;
mod request;
mod settings;

pub use env::{RequestEnv, Source};
pub use log::{BucketLog, KEPT_APPENDS};
pub use platform::{Parts, platform};
pub use request::{MAX_REQUEST_BYTES, RETRY_AFTER_SECONDS, answer};
pub use settings::{InvalidSetting, Settings, VARIABLES};
