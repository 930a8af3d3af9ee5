//! What watches the process: metrics for Prometheus, and probes for whoever starts and stops it.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /metrics` | 200, the text format 0.0.4; with a token |
//! | `GET /healthz` | 200 as long as requests are answered at all |
//! | `GET /readyz` | 200, or 503 with one line for each reason why devices and services are not served as they should be |
//!
//! Metrics name hubs and tell how much they have to do, so they want the admin token, or one that is good for nothing else.
//! The probes say no more than the listeners do: a service manager has no token to give, and who could get at one through
//! a probe's configuration would have gained something.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use nave_metrics::{Collect, Page};

use crate::reply::Reply;
use crate::service::ResponseBody;

/// Media type of the answers to probes.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Why a process is not ready, in words for an operator; empty when it is.
pub type Readiness = dyn Fn() -> Vec<String> + Send + Sync;

/// What the admin listener knows about the process besides its hubs.
pub struct Monitoring {
    /// Everything that has metrics.
    pub collectors: Vec<Arc<dyn Collect>>,
    /// A token for `/metrics` alone.
    pub metrics_token: Option<String>,
    /// Asked by `/readyz`.
    pub readiness: Box<Readiness>,
}

impl Default for Monitoring {
    /// Nothing to count, and always ready.
    fn default() -> Self {
        Self { collectors: Vec::new(), metrics_token: None, readiness: Box::new(Vec::new) }
    }
}

impl Monitoring {
    /// The answer to a scrape.
    pub(crate) fn metrics(&self) -> Reply {
        let mut page = Page::default();
        for collector in &self.collectors {
            collector.collect(&mut page);
        }
        text(StatusCode::OK, page.render(), Page::CONTENT_TYPE)
    }

    /// The answer to the question whether anybody answers.
    pub(crate) fn healthy() -> Reply {
        text(StatusCode::OK, "ok\n".to_owned(), PLAIN)
    }

    /// The answer to the question whether everything works.
    pub(crate) fn ready(&self) -> Reply {
        let reasons = (self.readiness)();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ready\n".to_owned(), PLAIN);
        }
        let lines = reasons.iter().flat_map(|reason| [reason.as_str(), "\n"]).collect();
        text(StatusCode::SERVICE_UNAVAILABLE, lines, PLAIN)
    }
}

fn text(status: StatusCode, text: String, kind: &'static str) -> Reply {
    let mut reply = Reply::new(ResponseBody::from(text));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
