//! The spans of a request's way through the hub: listener, session or HTTP, function, store, log.
//!
//! They are spans of `tracing` with targets of their own, so that a subscriber can tell them from log lines. Whether a
//! request is traced is decided once, when its first span begins ([`ROOT`]); where that span was not made, none of the
//! others is. Without a subscriber that wants them, each costs the load of one flag.
//!
//! What may be in a span is fixed here, and nothing of it is a secret or was written by a client but names: no tokens, no
//! keys, no bodies, no queries, no property bags.

mod carried;
mod parent;

use std::future::Future;
use std::pin::Pin;

use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

pub use carried::Carried;
pub use parent::{Parent, on_parent};

/// The target of spans that begin a trace: the subscriber decides which.
pub const ROOT: &str = "nave::span::root";

/// The target of spans that continue the trace of a client that has decided.
pub const CONTINUED: &str = "nave::span::continued";

/// The target of spans within a trace.
pub const WITHIN: &str = "nave::span";

/// What all targets begin with; no module does, so that no log line is taken for a span.
pub const TARGET: &str = "nave::span";

/// The first span of a request or message. `protocol` is what the listener speaks, `parent` what the client says that this
/// is a part of.
pub fn listener(protocol: &'static str, parent: Option<&Parent>) -> Span {
    match parent {
        None => info_span!(target: ROOT, "listener", otel.kind = "server", network.protocol.name = protocol),
        Some(parent) if !parent.is_sampled() => Span::none(),
        Some(parent) => {
            let span =
                info_span!(target: CONTINUED, "listener", otel.kind = "server", network.protocol.name = protocol);
            parent.adopt(&span);
            span
        }
    }
}

/// What a connected device does. `owner` is the hub, or the id scope; `device` the device or the registration.
pub fn session(operation: &'static str, owner: &str, device: &str) -> Span {
    info_span!(target: WITHIN, "session", nave.operation = operation, nave.owner = owner, nave.device = device,
        error.r#type = Empty, otel.status_code = Empty)
}

/// An HTTP request.
pub fn http(method: &str) -> Span {
    info_span!(target: WITHIN, "http", http.request.method = method, http.route = Empty, nave.owner = Empty,
        http.response.status_code = Empty, otel.status_code = Empty)
}

/// A call of a function; `name` is the function's.
pub fn function(name: &'static str) -> Span {
    info_span!(target: WITHIN, "function", nave.function = name)
}

/// The choice of a hub by a policy that somebody deployed, with the wait for its turn.
pub fn policy(name: &str) -> Span {
    info_span!(target: WITHIN, "policy", nave.policy = name)
}

/// A commit, until it is durable.
pub fn commit(puts: usize) -> Span {
    info_span!(target: WITHIN, "store.commit", nave.puts = puts)
}

/// An append, until it is durable.
pub fn append() -> Span {
    info_span!(target: WITHIN, "log.append")
}

/// Says how an HTTP request was answered.
pub fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Says at the current span for which resource an HTTP request is: by its route, never by its path.
pub fn routed(owner: &str, route: &str) {
    let span = Span::current();
    span.record("nave.owner", owner);
    span.record("http.route", route);
}

/// Says at the current span that what it stands for failed: by the name of the error, never by its text.
pub fn failed(error: &str) {
    let span = Span::current();
    span.record("error.type", error);
    span.record("otel.status_code", "ERROR");
}

/// Work in a box.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The same work within `span`; without a span it is not touched.
pub fn within<'a, T: 'a>(span: Span, work: Boxed<'a, T>) -> Boxed<'a, T> {
    if span.is_disabled() { work } else { Box::pin(work.instrument(span)) }
}

/// The same work within the span that is current now, wherever it will run.
pub fn here<'a, T: 'a>(work: Boxed<'a, T>) -> Boxed<'a, T> {
    within(Span::current(), work)
}
