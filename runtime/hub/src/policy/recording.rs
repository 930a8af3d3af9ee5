//! Recordings: what a policy was asked and answered, kept in memory for a while so that its author gets real cases. Nothing is
//! recorded unless somebody with the right to configure the service asks for it, of one policy, for a time.

use std::time::Duration;

use hashbrown::HashMap;
use nave_engine::allocation::{Outcome, Request};
use nave_engine::plugin::PolicyCallError;
use nave_env::Moment;
use nave_model::AllocationPolicyName;
use serde_json::{Value, json};

use super::Policies;
use super::case::{mask_secrets, outcome_json, request_json};
use super::decide::Ticket;
use crate::error::{ErrorCode, HubError};
use crate::registry::argument;

/// Most requests of a recording.
pub const MAX_RECORDED: u32 = 1_000;

/// Longest time of a recording.
pub const MAX_RECORDING_TIME: Duration = Duration::from_secs(3_600);

/// Bytes of a recording, as JSON; what would exceed them is left out and counted.
const MAX_RECORDED_BYTES: usize = 8 << 20;

/// Recordings at once, which bounds what all of them take.
const MAX_RECORDINGS: usize = 4;

/// How long a recording that ended may be fetched before it is forgotten.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// A recording as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Requests that were wanted.
    pub wanted: u32,
    /// Whether it still records.
    pub is_running: bool,
    /// Requests that did not fit into its bytes.
    pub left_out: u64,
    /// Cases as `nave policy test` reads them: `name`, `request`, `expect`.
    pub cases: Vec<Value>,
}

#[derive(Default)]
pub(super) struct Recordings {
    by_policy: HashMap<AllocationPolicyName, Tape>,
}

struct Tape {
    wanted: u32,
    until: Moment,
    bytes: usize,
    left_out: u64,
    cases: Vec<Value>,
}

impl Tape {
    fn is_running(&self, now: Moment) -> bool {
        now < self.until && u32::try_from(self.cases.len()).is_ok_and(|recorded| recorded < self.wanted)
    }
}

impl Recordings {
    fn forget_old(&mut self, now: Moment) {
        self.by_policy.retain(|_, tape| now < tape.until.after(KEPT_FOR));
    }

    fn running(&mut self, name: &AllocationPolicyName, now: Moment) -> Option<&mut Tape> {
        self.by_policy.get_mut(name).filter(|tape| tape.is_running(now))
    }
}

impl Policies {
    /// Begins to record what a policy is asked on this host: so many requests, for so long. An earlier recording of it is
    /// forgotten.
    ///
    /// # Errors
    ///
    /// 400 for bounds beyond [`MAX_RECORDED`] and [`MAX_RECORDING_TIME`]; 404; 429 if as many are under way as may be.
    pub async fn record(
        &self,
        name: &AllocationPolicyName,
        wanted: u32,
        time: Duration,
    ) -> Result<Recording, HubError> {
        if !(1..=MAX_RECORDED).contains(&wanted) || time.is_zero() || time > MAX_RECORDING_TIME {
            return Err(argument(format!(
                "A recording has 1 to {MAX_RECORDED} requests and takes 1 to {} seconds.",
                MAX_RECORDING_TIME.as_secs()
            )));
        }
        self.get(name).await?;
        let now = self.env.monotonic();
        let mut recordings = self.recordings.lock();
        recordings.forget_old(now);
        recordings.by_policy.remove(name);
        if recordings.by_policy.len() >= MAX_RECORDINGS {
            return Err(HubError::new(
                ErrorCode::ThrottlingBacklogTimeout,
                format!("There are {MAX_RECORDINGS} recordings, the most there may be: end one."),
            ));
        }
        let tape = Tape { wanted, until: now.after(time), bytes: 0, left_out: 0, cases: Vec::new() };
        recordings.by_policy.insert(name.clone(), tape);
        tracing::info!(policy = %name, wanted, seconds = time.as_secs(), "requests to an allocation policy are recorded");
        Ok(Recording { wanted, is_running: true, left_out: 0, cases: Vec::new() })
    }

    /// The recording of a policy.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub fn recording(&self, name: &AllocationPolicyName) -> Result<Recording, HubError> {
        let now = self.env.monotonic();
        let mut recordings = self.recordings.lock();
        recordings.forget_old(now);
        let tape = recordings.by_policy.get(name).ok_or_else(|| no_recording(name))?;
        Ok(Recording {
            wanted: tape.wanted,
            is_running: tape.is_running(now),
            left_out: tape.left_out,
            cases: tape.cases.clone(),
        })
    }

    /// Ends a recording and forgets it.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub fn end_recording(&self, name: &AllocationPolicyName) -> Result<(), HubError> {
        self.recordings.lock().by_policy.remove(name).map(drop).ok_or_else(|| no_recording(name))
    }

    /// A copy of the request if it has to be recorded.
    pub(super) fn to_record(&self, name: &AllocationPolicyName, request: &Request) -> Option<Request> {
        let now = self.env.monotonic();
        self.recordings.lock().running(name, now).map(|_| request.clone())
    }

    /// Keeps a request and what the policy made of it.
    pub(super) fn keep_case(
        &self,
        name: &AllocationPolicyName,
        ticket: &Ticket,
        request: &Request,
        answer: Result<&Outcome, &PolicyCallError>,
    ) {
        let expected = match answer {
            Ok(outcome) => outcome_json(outcome),
            Err(error) => json!({ "error": error.failure.kind() }),
        };
        let mut case = json!({ "name": "", "request": request_json(request), "expect": expected });
        mask_secrets(&mut case);
        let bytes = case.to_string().len();
        let now = self.env.monotonic();
        let mut recordings = self.recordings.lock();
        let Some(tape) = recordings.running(name, now) else { return };
        if tape.bytes + bytes > MAX_RECORDED_BYTES {
            tape.left_out += 1;
            return;
        }
        if let Some(label) = case.get_mut("name") {
            *label = json!(format!("{}: {} by {ticket}", tape.cases.len() + 1, request.registration_id));
        }
        tape.bytes += bytes;
        tape.cases.push(case);
    }
}

fn no_recording(name: &AllocationPolicyName) -> HubError {
    HubError::new(ErrorCode::GenericNotFound, format!("Nothing is recorded of the allocation policy '{name}'."))
}
