//! Where the hub meets the outside world: sockets, TLS, threads and clocks.
//!
//! - [`Server`] owns the worker threads and the listeners. Device connections are driven through a sans-I/O
//!   [`Protocol`](nave_session::protocol::Protocol), requests through an [`HttpService`](nave_http::service::HttpService):
//!   what is inside a connection knows neither sockets nor TLS.
//! - [`tls`] holds certificates and the settings of TLS.
//! - [`RealEnv`] is the operating system as a [`nave_env::Env`].
//! - [`limits`] names every bound, with its consequence.
#![allow(
    clippy::disallowed_methods,
    reason = "this crate is the outside world: it owns the threads and reads the clocks that everything else is handed"
)]

mod channel;
mod env;
mod error;
mod handshake;
mod http;
pub mod limits;
mod listener;
mod log_gate;
mod metrics;
mod mqtts;
mod scratch;
mod server;
mod signals;
pub mod tls;
mod wakeups;
mod websocket;
mod worker;

pub use env::RealEnv;
pub use error::{ListenError, StartError};
pub use limits::Limits;
pub use server::{Counters, Server, ServerOptions, Statistics};
pub use signals::{Signal, watch_signals};
pub use websocket::WebSocketEndpoint;
#[cfg(any(test, feature = "fuzzing"))]
pub use websocket::fuzzing;
