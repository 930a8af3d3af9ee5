//! What the transports count.

use std::sync::atomic::Ordering;

use nave_metrics::{Collect, Family, Page};

use crate::worker::Shared;

static CONNECTIONS: Family = Family::gauge("nave_connections", "Connections of all listeners.");
static UNAUTHENTICATED: Family =
    Family::gauge("nave_connections_unauthenticated", "Those of them that have not proved who they are.");
static ACCEPTED: Family = Family::counter("nave_connections_accepted_total", "Connections that were accepted.");
static REFUSED: Family = Family::counter(
    "nave_connections_refused_total",
    "Connections that were closed at once, because all places were taken.",
);
static HANDSHAKES: Family =
    Family::counter("nave_tls_handshake_failures_total", "TLS handshakes that failed or took too long.");
static WEBSOCKETS: Family = Family::counter("nave_websockets_total", "Connections that became WebSockets.");
static VIOLATIONS: Family =
    Family::counter("nave_websocket_violations_total", "WebSockets that ended because their client broke the framing.");

impl Collect for Shared {
    fn collect(&self, page: &mut Page) {
        page.value(&CONNECTIONS, &[], self.connections.load(Ordering::Relaxed));
        page.value(&UNAUTHENTICATED, &[], self.unauthenticated.load(Ordering::Relaxed));
        for (family, counter) in [
            (&ACCEPTED, &self.accepted),
            (&REFUSED, &self.refused),
            (&HANDSHAKES, &self.handshake_failures),
            (&WEBSOCKETS, &self.websockets),
            (&VIOLATIONS, &self.websocket_violations),
        ] {
            page.value(family, &[], counter.load(Ordering::Relaxed));
        }
    }
}
