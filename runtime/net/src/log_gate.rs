//! Complaints that could come thousands of times per second.

use std::time::Instant;

use parking_lot::Mutex;

use crate::limits::LOG_INTERVAL;

/// Lets one complaint through per [`LOG_INTERVAL`] and counts the others.
#[derive(Default)]
pub(crate) struct LogGate(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogGate {
    /// The number of complaints that were swallowed since the last one that passed, if this one passes.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swallows_and_counts() {
        let gate = LogGate::default();
        let start = Instant::now();
        assert_eq!(gate.pass_at(start), Some(0));
        assert_eq!(gate.pass_at(start), None);
        assert_eq!(gate.pass_at(start + LOG_INTERVAL / 2), None);
        assert_eq!(gate.pass_at(start + LOG_INTERVAL), Some(2));
        assert_eq!(gate.pass_at(start + LOG_INTERVAL * 2), Some(0));
    }
}
