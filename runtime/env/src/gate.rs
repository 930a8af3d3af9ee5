//! Complaints that could come thousands of times per second.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::Moment;

/// A repeated complaint is logged at most once in this time, with the number of those that were swallowed.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Lets one complaint through per [`COMPLAINT_INTERVAL`] and counts the others.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Moment>,
    suppressed: u64,
}

impl Gate {
    /// The number of complaints that were swallowed since the last one that passed, if this one passes.
    pub fn pass(&self, now: Moment) -> Option<u64> {
        // A panic while counting leaves nothing half done.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.since(last) < COMPLAINT_INTERVAL) {
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
        let (gate, start) = (Gate::default(), Moment::from_start(Duration::ZERO));
        assert_eq!(gate.pass(start), Some(0));
        assert_eq!(gate.pass(start), None);
        assert_eq!(gate.pass(start.after(COMPLAINT_INTERVAL / 2)), None);
        assert_eq!(gate.pass(start.after(COMPLAINT_INTERVAL)), Some(2));
        assert_eq!(gate.pass(start.after(COMPLAINT_INTERVAL * 2)), Some(0));
    }
}
