//! Asking a policy: which version, its turn in the pool, and what is counted.

use std::sync::Arc;
use std::time::Duration;

use nave_engine::allocation::{Outcome, Request};
use nave_engine::plugin::CallReport;
use nave_engine::provisioning::{AllocationFailure, FailureCause};
use nave_env::Moment;
use nave_model::{AllocationPolicyRecord, AllocationPolicyReference, PolicyVersionRecord};
use xxhash_rust::xxh3::xxh3_64;

use super::counters::Counted;
use super::lifecycle::queue;
use super::loaded::{Found, limits};
use super::pool::{Bounds, NotDone};
use super::{Policies, find};
use crate::error::HubError;

/// Seconds after which a registration comes back that found the queue full: long enough for a queue of the usual length.
/// Each gets up to [`OVERFLOW_SPREAD`] seconds more, so that they do not come back together.
const OVERFLOW_SECONDS: u32 = 2;
const OVERFLOW_SPREAD: u32 = 4;

/// Seconds after which a registration comes back whose policy is being loaded.
const LOADING_SECONDS: u32 = 2;

/// Lines of output of all policies that go into the log within [`OUTPUT_PERIOD`]; the rest is counted.
const MAX_OUTPUT_LINES: u32 = 100;
const OUTPUT_PERIOD: Duration = Duration::from_secs(10);

/// Longest line of output in the log, in characters.
const MAX_OUTPUT_LINE: usize = 500;

/// What came of asking a policy.
pub(crate) enum Answer {
    /// It decided.
    Decided(Box<Outcome>, Ticket),
    /// The registration has to come back after this many seconds.
    Later(u32),
    /// It did not decide.
    Failed(AllocationFailure),
}

/// Which version decided; to be handed back with what came of it.
pub(crate) struct Ticket {
    name: nave_model::AllocationPolicyName,
    version: nave_model::AllocationPolicyVersion,
    trial: Option<(String, u8)>,
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

impl Policies {
    /// Asks the policy that `reference` names.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        reference: &AllocationPolicyReference,
        request: Request,
    ) -> Result<Answer, HubError> {
        let Some((_, record)) = self.load(&reference.name).await? else {
            return Ok(failed(FailureCause::UnknownPolicy, format!("there is no policy `{}`", reference.name)));
        };
        let (version, ticket) = match choose(&record, reference, &request.registration_id) {
            Ok(chosen) => chosen,
            Err(why) => return Ok(failed(FailureCause::UnknownPolicy, why)),
        };
        let policy = match self.loaded_policy(&record, version) {
            Found::Ready(policy) => policy,
            Found::Loading => return Ok(Answer::Later(LOADING_SECONDS)),
            Found::Failed(_) if self.loads.is_closed() => return Ok(Answer::Later(LOADING_SECONDS)),
            Found::Failed(why) => {
                self.settle(&ticket, Counted::Failed("load"));
                return Ok(failed(FailureCause::Unavailable, format!("policy {ticket} cannot be loaded: {why}")));
            }
        };
        let bounds = Bounds { running: limits(record.limits).concurrency, waiting: queue(record.limits) };
        let id = request.registration_id.clone();
        let recorded = self.to_record(&record.name, &request);
        let called = self.calls.run(record.name.as_str(), bounds, move || policy.allocate(&request)).await;
        let (outcome, report) = match called {
            Ok(called) => called,
            Err(NotDone::Full) => {
                self.settle(&ticket, Counted::Overflowed);
                return Ok(Answer::Later(OVERFLOW_SECONDS + u32::from(self.random::<1>()[0]) % (OVERFLOW_SPREAD + 1)));
            }
            // The host stops. That is nobody's failure, and nothing final goes on record: the device registers again.
            Err(NotDone::Ended) if self.calls.is_closed() => return Ok(Answer::Later(LOADING_SECONDS)),
            Err(NotDone::Ended) => {
                self.settle(&ticket, Counted::Failed("host"));
                return Ok(failed(FailureCause::Unavailable, format!("policy {ticket}: the host ended the call")));
            }
        };
        if let Some(request) = recorded {
            self.keep_case(&record.name, &ticket, &request, outcome.as_ref());
        }
        if record.debug {
            self.show(&ticket, &id, &report);
        }
        Ok(match outcome {
            Ok(outcome) => Answer::Decided(Box::new(outcome), ticket),
            Err(error) => {
                self.settle(&ticket, Counted::Failed(error.failure.kind()));
                let cause = match error.failure.kind() {
                    "deadline" => FailureCause::TimedOut,
                    "busy" => FailureCause::Unavailable,
                    _ => FailureCause::BadAnswer,
                };
                failed(cause, error.to_string())
            }
        })
    }

    /// The schema of the configuration for a policy: that of the version that is named, else of the active one, else of the
    /// newest.
    pub(crate) async fn schema(&self, reference: &AllocationPolicyReference) -> Result<nave_model::Json, HubError> {
        let record = self.get(&reference.name).await?;
        let version = match reference.version.as_ref().or(record.active.as_ref()) {
            Some(version) => super::version_of(&record, version).map(Some)?,
            None => record.versions.last(),
        };
        version.and_then(|version| version.schema.clone()).ok_or_else(|| {
            crate::registry::argument(format!(
                "The policy '{}' cannot be configured: it does not export nave:allocation/configuration.",
                record.name
            ))
        })
    }

    /// Counts what came of a decision, and ends a trial that fails too often.
    pub(crate) fn settle(self: &Arc<Self>, ticket: &Ticket, counted: Counted) {
        let mut counters = self.counters.lock();
        counters.count(&ticket.name, &ticket.version, counted);
        let Some((rollout, max_error_percent)) = &ticket.trial else { return };
        if counted == Counted::Overflowed {
            return;
        }
        let has_failed = matches!(counted, Counted::Failed(_));
        let ended = counters.count_trial(&ticket.name, rollout, has_failed, *max_error_percent);
        drop(counters);
        let Some((decisions, errors)) = ended else { return };
        let (policies, name, rollout) = (Arc::clone(self), ticket.name.clone(), rollout.clone());
        self.env.spawn(Box::pin(async move {
            if let Err(error) = policies.end_trial(&name, &rollout, decisions, errors).await {
                // Somebody changed the policy in this moment, or the store failed.
                policies.counters.lock().trial_goes_on(&name, &rollout);
                tracing::error!(policy = %name, %error, "a trial that fails could not be ended");
            }
        }));
    }

    /// What a policy wrote, for its author: escaped, because it is anything, and bounded, because it is anything long.
    fn show(&self, ticket: &Ticket, registration: &str, report: &CallReport) {
        let now = self.env.monotonic();
        let lines = report.output.lines().map(|line| ("output", line));
        let frames = report.backtrace.iter().map(|frame| ("backtrace", frame.as_str()));
        for (kind, line) in lines.chain(frames) {
            match self.output.lock().admit(now) {
                Admitted::No => return,
                Admitted::After(0) => {}
                Admitted::After(suppressed) => {
                    tracing::warn!(suppressed, "lines of allocation policies were left out of the log");
                }
            }
            let line: String = line.chars().take(MAX_OUTPUT_LINE).collect();
            tracing::info!(
                policy = %ticket.name, version = %ticket.version, registration, kind, line = ?line, "allocation policy says"
            );
        }
        if report.output_truncated {
            tracing::info!(policy = %ticket.name, version = %ticket.version, registration, "... and more, which is not kept");
        }
    }
}

/// The version that decides for a device: the one that is named, else the one on trial if the device takes part, else the
/// active one. Who takes part follows from roll-out and registration id, so a device does not go to and fro, and a trial
/// that grows keeps those that it had.
fn choose<'a>(
    record: &'a AllocationPolicyRecord,
    reference: &AllocationPolicyReference,
    registration_id: &str,
) -> Result<(&'a PolicyVersionRecord, Ticket), String> {
    let name = &record.name;
    let canary = record
        .canary
        .as_ref()
        .filter(|canary| reference.version.is_none() && takes_part(&canary.rollout, registration_id, canary.percent));
    let wanted = match (&reference.version, canary) {
        (Some(version), _) => version,
        (None, Some(canary)) => &canary.version,
        (None, None) => record.active.as_ref().ok_or_else(|| format!("no version of the policy `{name}` is active"))?,
    };
    let version = find(record, wanted).ok_or_else(|| format!("the policy `{name}` has no version `{wanted}`"))?;
    let trial = canary.map(|canary| (canary.rollout.clone(), canary.max_error_percent));
    Ok((version, Ticket { name: name.clone(), version: version.version.clone(), trial }))
}

fn takes_part(rollout: &str, registration_id: &str, percent: u8) -> bool {
    xxh3_64(format!("{rollout}\n{registration_id}").as_bytes()) % 100 < u64::from(percent)
}

fn failed(cause: FailureCause, log: String) -> Answer {
    Answer::Failed(AllocationFailure { cause, log })
}

/// Lets so much output into the log in a period.
#[derive(Default)]
pub(super) struct OutputGate {
    began: Option<Moment>,
    admitted: u32,
    suppressed: u64,
}

enum Admitted {
    No,
    /// Yes, after so many that were not.
    After(u64),
}

impl OutputGate {
    fn admit(&mut self, now: Moment) -> Admitted {
        if self.began.is_none_or(|began| now.since(began) >= OUTPUT_PERIOD) {
            (self.began, self.admitted) = (Some(now), 0);
        }
        if self.admitted >= MAX_OUTPUT_LINES {
            self.suppressed += 1;
            return Admitted::No;
        }
        self.admitted += 1;
        Admitted::After(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_part_in_a_trial_stays_when_it_grows() {
        let devices: Vec<String> = (0..2_000).map(|number| format!("device-{number}")).collect();
        let share = |rollout: &str, percent| devices.iter().filter(|id| takes_part(rollout, id, percent)).count();
        let (ten, thirty) = (share("r", 10), share("r", 30));
        assert!((140..260).contains(&ten) && (500..700).contains(&thirty), "{ten} {thirty}");
        assert!(devices.iter().all(|id| !takes_part("r", id, 10) || takes_part("r", id, 30)));
        let others = devices.iter().filter(|id| takes_part("r", id, 10) && takes_part("other", id, 10)).count();
        assert!(others < 60, "another roll-out is for other devices: {others}");
    }

    #[test]
    fn output_is_let_through_at_a_bounded_rate() {
        let mut gate = OutputGate::default();
        let start = Moment::from_start(Duration::from_secs(1));
        for _ in 0..MAX_OUTPUT_LINES {
            assert!(matches!(gate.admit(start), Admitted::After(0)));
        }
        assert!(matches!(gate.admit(start), Admitted::No));
        assert!(matches!(gate.admit(start), Admitted::No));
        assert!(matches!(gate.admit(start.after(OUTPUT_PERIOD)), Admitted::After(2)));
    }
}
