//! The live display: one line that is redrawn on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::statistics::Statistics;
use crate::failure::Failure;
use crate::output::{self, Format, printable};

/// Between two redraws on a terminal.
const REDRAW: Duration = Duration::from_millis(250);

/// Between two lines elsewhere.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Back to the beginning of the line, and clear it.
const REWIND: &str = "\r\u{1b}[2K";

/// The display.
pub(super) struct Progress {
    format: Format,
    total: usize,
    live: bool,
    seen: (Instant, u64),
    rate: f64,
    failures: u64,
}

impl Progress {
    /// Of `total` devices.
    pub(super) fn new(format: Format, total: usize) -> Self {
        let live = format == Format::Table && std::io::stderr().is_terminal();
        Self { format, total, live, seen: (Instant::now(), 0), rate: 0.0, failures: 0 }
    }

    /// How often it wants to be shown.
    pub(super) const fn period(&self) -> Duration {
        if self.live { REDRAW } else { LINE_EVERY }
    }

    /// Shows how it goes.
    pub(super) fn show(&mut self, statistics: &Statistics) -> Result<(), Failure> {
        self.measure(statistics);
        match (self.format, self.live) {
            (Format::Json, _) => output::line(&statistics.json().to_string()),
            (Format::Table, false) => output::line(&self.text(statistics)),
            (Format::Table, true) => {
                let mut terminal = std::io::stderr().lock();
                let failures = statistics.failures.load(Ordering::Relaxed);
                if failures != self.failures {
                    self.failures = failures;
                    let _ = writeln!(terminal, "{REWIND}  {}", printable(&statistics.last_failure()));
                }
                // A terminal that is gone is no reason to stop.
                let _ = write!(terminal, "{REWIND}{}", self.text(statistics)).and_then(|()| terminal.flush());
                Ok(())
            }
        }
    }

    /// Shows how it went.
    pub(super) fn finish(&mut self, statistics: &Statistics) -> Result<(), Failure> {
        if self.live {
            eprint!("{REWIND}");
        }
        match self.format {
            Format::Json => output::line(&statistics.json().to_string()),
            Format::Table => output::one(self.format, &statistics.json()),
        }
    }

    fn measure(&mut self, statistics: &Statistics) {
        /// Weight of the newest measurement in the rate that is shown.
        const NEW: f64 = 0.3;
        let (then, before) = self.seen;
        let sent = statistics.acknowledged.load(Ordering::Relaxed);
        let elapsed = then.elapsed().as_secs_f64();
        if elapsed > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = sent.saturating_sub(before) as f64 / elapsed;
            self.rate = if self.live { self.rate * (1.0 - NEW) + rate * NEW } else { rate };
            self.seen = (Instant::now(), sent);
        }
    }

    fn text(&self, statistics: &Statistics) -> String {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let latency = statistics
            .mean_latency()
            .map_or_else(String::new, |mean| format!(", {:.1} ms each", mean.as_secs_f64() * 1000.0));
        format!(
            "connected {}/{}  messages {} ({:.1}/s{latency})  reported {}  desired {}  methods {}  failures {}",
            get(&statistics.connected),
            self.total,
            get(&statistics.acknowledged),
            self.rate,
            get(&statistics.reported),
            get(&statistics.desired),
            get(&statistics.methods),
            get(&statistics.failures),
        )
    }
}
