//! Requests, by surface and by what became of them.

use std::time::Duration;

use http::StatusCode;
use nave_metrics::{Collect, Counter, Family, Histogram, Page};

static REQUESTS: Family = Family::counter("nave_http_requests_total", "Requests by surface and class of status.");
static SECONDS: Family =
    Family::histogram("nave_http_request_seconds", "Time from the head of a request to the head of its answer.");

/// Classes of status, as they are written; 429 stands by itself, because it says something about the hub.
const CLASSES: [&str; 4] = ["2xx", "4xx", "429", "5xx"];

/// Requests of one surface.
#[derive(Debug)]
struct Requests {
    classes: [Counter; CLASSES.len()],
    seconds: Histogram,
}

impl Default for Requests {
    fn default() -> Self {
        Self { classes: Default::default(), seconds: Histogram::of_seconds() }
    }
}

impl Requests {
    fn count(&self, status: StatusCode, time: Duration) {
        let class = match status.as_u16() {
            429 => 2,
            400..500 => 1,
            500.. => 3,
            _ => 0,
        };
        if let Some(counter) = self.classes.get(class) {
            counter.increment();
        }
        self.seconds.observe(time);
    }
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Hub,
    Provisioning,
    /// A host that nobody here has.
    Unknown,
}

/// Requests of all surfaces.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics {
    hub: Requests,
    provisioning: Requests,
    unknown: Requests,
}

impl RequestMetrics {
    pub(crate) fn count(&self, surface: Surface, status: StatusCode, time: Duration) {
        let requests = match surface {
            Surface::Hub => &self.hub,
            Surface::Provisioning => &self.provisioning,
            Surface::Unknown => &self.unknown,
        };
        requests.count(status, time);
    }
}

impl Collect for RequestMetrics {
    fn collect(&self, page: &mut Page) {
        let surfaces = [("hub", &self.hub), ("provisioning", &self.provisioning), ("unknown", &self.unknown)];
        for (surface, requests) in surfaces {
            for (class, counter) in CLASSES.iter().zip(&requests.classes) {
                page.value(&REQUESTS, &[("surface", surface), ("status", class)], counter.get());
            }
            page.histogram(&SECONDS, &[("surface", surface)], &requests.seconds);
        }
    }
}
