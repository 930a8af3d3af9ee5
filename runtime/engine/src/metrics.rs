//! What calls of functions cost, and how they end.

use std::sync::OnceLock;

use nave_env::SharedEnv;
use nave_metrics::{Counter, Family, Histogram, Page};

use crate::call::{CallError, Failure};

static SECONDS: Family = Family::histogram("nave_function_seconds", "Time of one call of a function that returned.");
static FAILURES: Family = Family::counter("nave_function_failures_total", "Calls of functions that did not return.");

/// Calls of one function.
#[derive(Debug)]
pub(crate) struct FunctionMetrics {
    /// Whose time it is; without one, calls are not counted.
    clock: Clock,
    seconds: Histogram,
    deadline: Counter,
    trap: Counter,
    busy: Counter,
}

#[derive(Default)]
struct Clock(OnceLock<SharedEnv>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.get().is_some() { "a clock" } else { "no clock" })
    }
}

impl Default for FunctionMetrics {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            seconds: Histogram::of_seconds(),
            deadline: Counter::new(),
            trap: Counter::new(),
            busy: Counter::new(),
        }
    }
}

impl FunctionMetrics {
    /// Measures from now on.
    pub(crate) fn start(&self, env: &SharedEnv) {
        // The first one stays: a second is the same clock.
        let _ = self.clock.0.set(env.clone());
    }

    /// Measures a call.
    pub(crate) fn around<T>(&self, call: impl FnOnce() -> Result<T, CallError>) -> Result<T, CallError> {
        let clock = self.clock.0.get();
        let began = clock.map(|env| env.monotonic());
        let result = call();
        match &result {
            Ok(_) => {
                if let Some((env, began)) = clock.zip(began) {
                    self.seconds.observe(env.monotonic().since(began));
                }
            }
            Err(error) => match error.failure {
                Failure::Deadline => self.deadline.increment(),
                Failure::Trap(_) => self.trap.increment(),
                Failure::Busy(_) => self.busy.increment(),
            },
        }
        result
    }

    pub(crate) fn collect(&self, function: &str, page: &mut Page) {
        page.histogram(&SECONDS, &[("function", function)], &self.seconds);
        for (reason, counter) in [("deadline", &self.deadline), ("trap", &self.trap), ("busy", &self.busy)] {
            page.value(&FAILURES, &[("function", function), ("reason", reason)], counter.get());
        }
    }
}
