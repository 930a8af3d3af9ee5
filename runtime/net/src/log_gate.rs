//! [`Gate`] by the clock of the machine, for code that comes before any `Env`: acceptors and handshakes.

use std::time::Instant;

use nave_env::{Gate, Moment};

/// Lets one complaint through per [`COMPLAINT_INTERVAL`](nave_env::COMPLAINT_INTERVAL) and counts the others.
pub(crate) struct LogGate {
    gate: Gate,
    start: Instant,
}

impl Default for LogGate {
    fn default() -> Self {
        Self { gate: Gate::default(), start: Instant::now() }
    }
}

impl LogGate {
    /// The number of complaints that were swallowed since the last one that passed, if this one passes.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.gate.pass(Moment::from_start(self.start.elapsed()))
    }
}
