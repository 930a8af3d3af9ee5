//! One round: every device asks once.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nave_engine::allocation::{Hub, Outcome, Request};
use nave_engine::plugin::Policy;

use super::fleet::Fleet;
use crate::commands::policy::check::time;
use crate::commands::policy::sandbox::{self, Sandbox};
use crate::failure::Failure;

/// Calls at a time: as many as a hub allows one policy, see `PolicyLimits::concurrency`.
const THREADS: u32 = 2;

/// Devices that a thread takes at a time.
const BATCH: u64 = 64;

/// Different reasons of refusals and failures that are told apart; the others are counted together.
const MAX_REASONS: usize = 20;

/// Between two redraws of the progress on a terminal, and between two lines elsewhere.
const REDRAW: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where a device is: the index of its hub in [`Round::names`], or nowhere.
pub(super) type Place = Option<u32>;

/// How a round went.
pub(super) struct Round {
    pub(super) title: String,
    /// All hubs that a device may be at: those that there are from the beginning, and then those of this round.
    pub(super) names: Vec<String>,
    pub(super) weights: Vec<u32>,
    pub(super) places: Vec<Place>,
    /// How often a built-in policy was asked, by its name.
    pub(super) built_in: BTreeMap<String, u64>,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) retried: u64,
    pub(super) failed: BTreeMap<String, u64>,
    /// Instance and call of each decision, in ascending order of nanoseconds.
    pub(super) nanos: Vec<u32>,
    pub(super) elapsed: Duration,
}

/// What one thread found.
#[derive(Default)]
struct Share {
    places: Vec<(u32, Place)>,
    built_in: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    retried: u64,
    failed: BTreeMap<String, u64>,
    nanos: Vec<u32>,
}

/// What all threads share.
struct Work<'a> {
    engines: &'a Sandbox,
    policy: &'a Policy,
    fleet: &'a Fleet,
    hubs: &'a [Hub],
    names: &'a [String],
    before: Option<&'a [Place]>,
    next: AtomicU64,
    done: AtomicU64,
    stopped: AtomicBool,
}

impl Round {
    /// Lets every device ask once, among `hubs`. `before` is where the devices are, as indices into the fleet's hubs.
    pub(super) fn run(
        engines: &Sandbox,
        policy: &Policy,
        fleet: &Fleet,
        title: &str,
        hubs: &[Hub],
        before: Option<&Vec<Place>>,
    ) -> Result<Self, Failure> {
        let mut names: Vec<String> = fleet.hubs().iter().map(|hub| hub.name.clone()).collect();
        names.extend(
            hubs.iter().filter(|hub| !names.contains(&hub.name)).map(|hub| hub.name.clone()).collect::<Vec<_>>(),
        );
        let weight = |name: &String| hubs.iter().find(|hub| hub.name == *name).map_or(0, |hub| hub.weight);
        let weights = names.iter().map(weight).collect();
        let work = Work {
            engines,
            policy,
            fleet,
            hubs,
            names: &names,
            before: before.map(Vec::as_slice),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        };
        let begun = Instant::now();
        let shares = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work.share())).collect();
            work.show_progress(title, begun, || threads.iter().all(std::thread::ScopedJoinHandle::is_finished));
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Share, Failure>>| {
                thread.join().unwrap_or_else(|_| Err(Failure::runtime("a thread of the simulation ended unexpectedly")))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        })?;
        let mut round = Self {
            title: title.to_owned(),
            weights,
            places: vec![None; usize::try_from(fleet.devices()).unwrap_or(usize::MAX)],
            names: Vec::new(),
            built_in: BTreeMap::new(),
            refused: BTreeMap::new(),
            retried: 0,
            failed: BTreeMap::new(),
            nanos: Vec::new(),
            elapsed: begun.elapsed(),
        };
        round.names = names;
        for share in shares {
            round.add(share);
        }
        round.nanos.sort_unstable();
        Ok(round)
    }

    fn add(&mut self, share: Share) {
        for (device, place) in share.places {
            if let Some(slot) = usize::try_from(device).ok().and_then(|device| self.places.get_mut(device)) {
                *slot = place;
            }
        }
        self.retried += share.retried;
        self.nanos.extend(share.nanos);
        for (all, more) in
            [(&mut self.built_in, share.built_in), (&mut self.refused, share.refused), (&mut self.failed, share.failed)]
        {
            for (reason, times) in more {
                count(all, &reason, times);
            }
        }
    }

    /// Devices at each of [`Round::names`].
    pub(super) fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.names.len()];
        for place in self.places.iter().flatten() {
            if let Some(slot) = usize::try_from(*place).ok().and_then(|place| counts.get_mut(place)) {
                *slot += 1;
            }
        }
        counts
    }
}

impl Work<'_> {
    fn share(&self) -> Result<Share, Failure> {
        let mut share = Share::default();
        let devices = u64::from(self.fleet.devices());
        while !self.stopped.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= devices {
                break;
            }
            for device in first..devices.min(first + BATCH) {
                let device = u32::try_from(device).unwrap_or(u32::MAX);
                if let Err(error) = self.decide(device, &mut share) {
                    self.stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(share)
    }

    fn decide(&self, device: u32, share: &mut Share) -> Result<(), Failure> {
        let index = usize::try_from(device).unwrap_or(usize::MAX);
        let before = self.before.and_then(|places| places.get(index).copied().flatten());
        let current = before.and_then(|place| self.names.get(usize::try_from(place).ok()?)).map(String::as_str);
        let request = self.fleet.request(device, self.hubs, current);
        let (answer, report) = sandbox::call(self.policy, &request);
        let nanos = (report.instantiation + report.call).as_nanos();
        share.nanos.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        let place = match answer {
            Ok(outcome) => self.place(&request, outcome, share)?,
            Err(error) => {
                count(&mut share.failed, &error.failure.to_string(), 1);
                None
            }
        };
        share.places.push((device, place));
        Ok(())
    }

    fn place(&self, request: &Request, outcome: Outcome, share: &mut Share) -> Result<Place, Failure> {
        if let Some(objection) = self.engines.objection(request, &outcome) {
            count(&mut share.failed, &objection, 1);
            return Ok(None);
        }
        let outcome = match outcome {
            Outcome::UsePolicy(name) => {
                count(&mut share.built_in, &name, 1);
                self.engines.built_in(&name, request)?
            }
            outcome => outcome,
        };
        Ok(match outcome {
            Outcome::Assign(assignment) => self
                .names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(&assignment.hub))
                .and_then(|place| u32::try_from(place).ok()),
            Outcome::RetryAfter(_) => {
                share.retried += 1;
                None
            }
            Outcome::Refuse(reason) => {
                count(&mut share.refused, &reason, 1);
                None
            }
            Outcome::UsePolicy(_) | Outcome::Other(_) => {
                count(&mut share.failed, "a built-in policy did not decide", 1);
                None
            }
        })
    }

    /// Until all is done: a line that is redrawn on a terminal, a line now and then elsewhere.
    fn show_progress(&self, title: &str, begun: Instant, finished: impl Fn() -> bool) {
        let devices = u64::from(self.fleet.devices());
        let live = std::io::stderr().is_terminal();
        let mut shown = begun;
        while !finished() {
            let done = self.done.load(Ordering::Relaxed);
            if live || shown.elapsed() >= LINE_EVERY {
                shown = Instant::now();
                let left = begun.elapsed().checked_mul(u32::try_from(devices - done).unwrap_or(u32::MAX));
                let left = left.and_then(|left| left.checked_div(u32::try_from(done).unwrap_or(u32::MAX)));
                let left = left.map_or_else(String::new, |left| format!(", {} to go", time(left)));
                let line = format!("{title}: {done} of {devices}{left}");
                let mut terminal = std::io::stderr().lock();
                // A terminal that is gone is no reason to stop.
                let _ = if live { write!(terminal, "\r\u{1b}[2K{line}") } else { writeln!(terminal, "{line}") };
                let _ = terminal.flush();
            }
            // Short at first, so that a small simulation does not wait for its progress.
            std::thread::sleep(REDRAW.min(begun.elapsed()).max(Duration::from_millis(1)));
        }
        if live {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[2K");
        }
    }
}

/// Counts a reason, or all further ones together.
fn count(reasons: &mut BTreeMap<String, u64>, reason: &str, times: u64) {
    let known = reasons.contains_key(reason) || reasons.len() < MAX_REASONS;
    *reasons.entry(if known { reason } else { "(others)" }.to_owned()).or_default() += times;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_without_end_are_counted_together() {
        let mut reasons = BTreeMap::new();
        for number in 0..MAX_REASONS + 5 {
            count(&mut reasons, &format!("reason {number}"), 1);
        }
        count(&mut reasons, "reason 0", 1);
        assert_eq!(reasons.len(), MAX_REASONS + 1);
        assert_eq!((reasons["reason 0"], reasons["(others)"]), (2, 5));
    }
}
