//! What surrounds one instance: its virtual clock, its randomness, its output, and the count of what it took.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::limits::PolicyLimits;

/// Bytes of output that are kept of one call; what is beyond is dropped and the report says so. Enough for a stack trace
/// of each of the supported languages.
pub const MAX_OUTPUT_BYTES: usize = 16 << 10;

/// Most timers that a policy may make in one call: event loops make one per wait.
const MAX_TIMERS: usize = 1_024;

/// Why the host ends a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("memory limit")]
    Memory,
    #[error("table limit")]
    Tables,
    #[error("`{0}` is not granted")]
    NotGranted(Arc<str>),
    #[error("exit")]
    Exit,
    #[error("{0}")]
    Resources(&'static str),
}

/// The data of a store.
pub(super) struct Sandbox {
    /// The request's time, and what the policy waited for since: waiting takes no time, it moves this clock.
    now: u64,
    random: u64,
    /// When each timer is due, by the number of its handle less one.
    timers: Vec<u64>,
    output: Vec<u8>,
    output_truncated: bool,
    memory: usize,
    memory_limit: usize,
    tables: usize,
    table_limit: usize,
}

impl Sandbox {
    pub(super) fn new(limits: &PolicyLimits, unix_nanos: u64, seed: u64) -> Self {
        Self {
            now: unix_nanos,
            random: seed,
            timers: Vec::new(),
            output: Vec::new(),
            output_truncated: false,
            memory: 0,
            memory_limit: limits.memory_bytes,
            tables: 0,
            table_limit: limits.table_elements,
        }
    }

    /// The virtual time, nanoseconds since 1970.
    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// A timer that is due at `when`; the number of its handle.
    pub(super) fn timer(&mut self, when: u64) -> Result<u32, Stop> {
        if self.timers.len() >= MAX_TIMERS {
            return Err(Stop::Resources("made more timers than a call may"));
        }
        self.timers.push(when);
        u32::try_from(self.timers.len()).map_err(|_| Stop::Resources("made more timers than a call may"))
    }

    /// When the pollable of this number is due; those of streams have number 0 and always are.
    fn due(&self, number: u32) -> u64 {
        let index = usize::try_from(number).unwrap_or_default().checked_sub(1);
        index.and_then(|index| self.timers.get(index)).copied().unwrap_or_default()
    }

    pub(super) fn is_due(&self, number: u32) -> bool {
        self.due(number) <= self.now
    }

    /// Waits until the earliest of these is due, in no time.
    pub(super) fn wait(&mut self, numbers: impl Iterator<Item = u32>) {
        if let Some(earliest) = numbers.map(|number| self.due(number)).min() {
            self.now = self.now.max(earliest);
        }
    }

    /// The next 64 random bits: SplitMix64 from the request's seed. It need not resist guessing: whoever could guess it
    /// wrote the policy.
    pub(super) const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT_BYTES - self.output.len();
        self.output_truncated |= bytes.len() > room;
        self.output.extend(bytes.iter().take(room));
    }

    pub(super) const fn memory_bytes(&self) -> usize {
        self.memory
    }

    /// What was written, and whether that is not all of it.
    pub(super) fn into_output(self) -> (String, bool) {
        (String::from_utf8_lossy(&self.output).into_owned(), self.output_truncated)
    }
}

/// Memory never shrinks, so the sum is also the high-water mark.
impl ResourceLimiter for Sandbox {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.memory_limit {
            return Err(wasmtime::Error::new(Stop::Memory));
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.tables.saturating_add(desired.saturating_sub(current));
        if total > self.table_limit {
            return Err(wasmtime::Error::new(Stop::Tables));
        }
        self.tables = total;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Sandbox {
        Sandbox::new(&PolicyLimits::default(), 1_000, 7)
    }

    #[test]
    fn waiting_moves_the_clock_and_takes_no_time() {
        let mut sandbox = sandbox();
        let (late, soon) = (sandbox.timer(9_000).unwrap(), sandbox.timer(5_000).unwrap());
        assert!(!sandbox.is_due(late) && !sandbox.is_due(soon) && sandbox.is_due(0));
        sandbox.wait([late, soon].into_iter());
        assert_eq!(sandbox.now(), 5_000);
        assert!(sandbox.is_due(soon) && !sandbox.is_due(late));
        sandbox.wait([late, 0].into_iter());
        assert_eq!(sandbox.now(), 5_000, "a stream is always ready");
    }

    #[test]
    fn timers_and_output_are_bounded() {
        let mut sandbox = sandbox();
        for _ in 0..MAX_TIMERS {
            sandbox.timer(1).unwrap();
        }
        assert!(sandbox.timer(1).is_err());
        sandbox.write(&vec![b'x'; MAX_OUTPUT_BYTES - 1]);
        sandbox.write(b"yz");
        sandbox.write(b"more");
        let (output, truncated) = sandbox.into_output();
        assert!(truncated && output.len() == MAX_OUTPUT_BYTES && output.ends_with("xy"));
    }

    #[test]
    fn the_seed_decides_what_is_random() {
        let numbers = |seed| {
            let mut sandbox = Sandbox::new(&PolicyLimits::default(), 0, seed);
            [sandbox.random(), sandbox.random()]
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
    }

    #[test]
    fn memory_of_all_kinds_counts_together() {
        let mut sandbox = sandbox();
        let half = PolicyLimits::default().memory_bytes / 2;
        assert!(sandbox.memory_growing(0, half, None).unwrap());
        assert!(sandbox.memory_growing(0, half, None).unwrap());
        assert!(sandbox.memory_growing(half, half + 1, None).is_err());
        assert_eq!(sandbox.memory_bytes(), 2 * half);
    }
}
