//! The hub as a process: started, stopped, killed and abused from outside, over real sockets and on a real disk.
//!
//! The program is the one that `NAVE_BIN` names, or `target/release/nave`. Every test starts hubs of its own in a directory of
//! its own, on ports that the system chooses. Bounds of time are there against hangs only.
#![allow(clippy::disallowed_methods, reason = "these tests are about real processes in real time")]

mod audit;
mod backup;
mod configuration;
mod device;
mod flood;
mod full_disk;
mod greedy;
mod hostile;
mod kill;
mod lifecycle;
mod metrics;
mod operations;
mod policies;
mod policy_tools;
mod ports;
mod privileges;
mod promises;
mod reload;
mod rotation;
mod secrets;
mod server;
mod service;
mod throttle;
mod traces;
mod web_hook;

use std::time::Duration;

pub(crate) use server::Site;

/// Longer than anything takes on a slow and busy machine; what is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test with sockets and timers.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// `work`, which must not take for ever.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
