//! `nave policy test`: requests, and the outcomes that they must have.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use nave_engine::plugin::Policy;
use nave_hub::policy::outcome_json;
use serde_json::{Value, json};

use super::cases::{self, Case};
use super::check::time;
use super::record::{self, RecordArgs};
use super::sandbox::{self, LimitArgs, Sandbox};
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{self, Format, printable};

/// Lines of an outcome that are compared; the table for them has this number squared of cells. More is cut.
const MAX_LINES: usize = 400;

/// Ask a policy in the sandbox of a hub, and compare its outcomes with expected ones.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy test policy.wasm --cases cases
  nave policy test policy.wasm --cases cases/by-tag.json --filter current --output json
  nave policy test --record cases --name by-site --count 50 --for 5m     what devices ask a running hub, as cases
  nave policy test next.wasm --record cases/today.json --name by-site    and what another version says to that

A file of cases:
  {
    \"defaults\": { \"hubs\": [ { \"name\": \"hub1.example.org\", \"weight\": 1, \"facts\": { \"location\": \"europe\" } } ] },
    \"cases\": [
      { \"name\": \"a device of the region\",
        \"request\": { \"registrationId\": \"pump-1\", \"payload\": { \"region\": \"europe\" } },
        \"expect\": { \"assign\": { \"hub\": \"hub1.example.org\" } } } ]
  }

A request may have registrationId, policy, enrollment, payload, config, current {hub, deviceId, payload},
hubs [{name, weight, facts}], time, seed and facts; `defaults` are for all requests of the file.
Expected is one of:
  { \"assign\": { \"hub\": ..., \"deviceId\": ..., \"initialTwin\": ..., \"payload\": ... } }    what is not named must be absent
  { \"usePolicy\": \"hashed\" }   { \"refuse\": \"the reason\" }   { \"retryAfter\": 60 }
  { \"error\": \"deadline\" }     the call failed: deadline, memory, trap, ...

Each case is asked twice, because the same request must always have the same outcome. What a hub would not accept, such
as a hub that is not in the request, fails the case. The exit code is 1 if a case failed.

What is recorded are the facts that the policy is given and its outcome: no keys, no tokens. What looks like a secret in
payloads, twins and configurations is replaced by ***, in request and outcome.")]
pub(super) struct Test {
    /// The component; may be left out while recording.
    #[arg(value_name = "FILE.wasm", required_unless_present = "path")]
    file: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
    /// A file of cases, or a folder of such files.
    #[arg(long, value_name = "PATH", required_unless_present = "path", conflicts_with = "path")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    record: RecordArgs,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// What became of a case.
struct Verdict {
    took: Duration,
    actual: Value,
    /// Why it failed; empty if it did not.
    faults: Vec<String>,
    /// What the policy wrote.
    output: String,
}

/// Runs the command.
pub(super) fn run(args: &Test, target: &Target) -> Result<(), Failure> {
    let recorded = record::record(&args.record, target)?;
    match (&args.file, recorded.as_ref().or(args.cases.as_ref())) {
        (Some(file), Some(cases)) => test(args, file, cases, target.output),
        _ => Ok(()),
    }
}

fn test(args: &Test, file: &Path, cases: &Path, format: Format) -> Result<(), Failure> {
    let mut cases = cases::read(cases)?;
    if let Some(filter) = &args.filter {
        cases.retain(|case| case.name.contains(filter.as_str()));
        if cases.is_empty() {
            return Err(Failure::usage(format_args!("no case has {filter:?} in its name")));
        }
    }
    let component = args.limits.read(file)?;
    let engines = Sandbox::start()?;
    let policy =
        engines.compile(&component).map_err(|error| Failure::runtime(format_args!("{}: {error}", file.display())))?;
    let begun = Instant::now();
    let mut results = Vec::new();
    let mut failed = 0_usize;
    for case in &cases {
        let verdict = judge(&engines, &policy, case);
        failed += usize::from(!verdict.faults.is_empty());
        match format {
            Format::Table => output::line(&shown(case, &verdict))?,
            Format::Json => results.push(result(case, &verdict)),
        }
    }
    let passed = cases.len() - failed;
    match format {
        Format::Table => output::line(&format!("{passed} passed, {failed} failed in {}", time(begun.elapsed())))?,
        Format::Json => output::one(Format::Json, &json!({ "passed": passed, "failed": failed, "cases": results }))?,
    }
    if failed == 0 { Ok(()) } else { Err(Failure::runtime(format_args!("{failed} of {} cases failed", cases.len()))) }
}

fn judge(engines: &Sandbox, policy: &Policy, case: &Case) -> Verdict {
    let (answer, report) = sandbox::call(policy, &case.request);
    let (again, _) = sandbox::call(policy, &case.request);
    let mut faults = Vec::new();
    let actual = match &answer {
        Ok(outcome) => {
            faults.extend(
                engines.objection(&case.request, outcome).map(|text| format!("a hub would not accept it: {text}")),
            );
            outcome_json(outcome)
        }
        Err(error) => json!({ "error": error.failure.kind() }),
    };
    if !same(&actual, &case.expected) {
        faults.insert(0, "expected -, got +:".to_owned());
        faults.extend(difference(&case.expected, &actual));
        faults.extend(answer.as_ref().err().map(|error| format!("the call {}", error.failure)));
    }
    if sandbox::contradict(&answer, &again) {
        faults.push("asked again, it answered otherwise: a policy must depend on its request only".to_owned());
    }
    if !faults.is_empty() {
        faults.extend(report.backtrace.iter().map(|frame| format!("at {frame}")));
    }
    Verdict { took: report.instantiation + report.call, actual, faults, output: report.output }
}

/// Equal as JSON, but host names in any case.
fn same(actual: &Value, expected: &Value) -> bool {
    let lower = |value: &Value| {
        let mut value = value.clone();
        if let Some(hub) = value.pointer_mut("/assign/hub")
            && let Some(name) = hub.as_str()
        {
            *hub = json!(name.to_ascii_lowercase());
        }
        value
    };
    lower(actual) == lower(expected)
}

/// The lines of both as indented JSON, those of only one marked.
fn difference(expected: &Value, actual: &Value) -> Vec<String> {
    let lines = |value: &Value| {
        let text = serde_json::to_string_pretty(&sorted(value)).unwrap_or_default();
        text.lines().take(MAX_LINES).map(str::to_owned).collect::<Vec<_>>()
    };
    let (expected, actual) = (lines(expected), lines(actual));
    // The longest common subsequence, by the table of its lengths.
    let mut lengths = vec![vec![0_usize; actual.len() + 1]; expected.len() + 1];
    let at = |lengths: &[Vec<usize>], row: usize, column: usize| {
        lengths.get(row).and_then(|row| row.get(column)).copied().unwrap_or_default()
    };
    for (row, wanted) in expected.iter().enumerate().rev() {
        for (column, have) in actual.iter().enumerate().rev() {
            let length = if wanted == have {
                at(&lengths, row + 1, column + 1) + 1
            } else {
                at(&lengths, row + 1, column).max(at(&lengths, row, column + 1))
            };
            if let Some(cell) = lengths.get_mut(row).and_then(|cells| cells.get_mut(column)) {
                *cell = length;
            }
        }
    }
    let (mut row, mut column, mut marked) = (0, 0, Vec::new());
    loop {
        match (expected.get(row), actual.get(column)) {
            (Some(wanted), Some(have)) if wanted == have => {
                marked.push(format!("  {wanted}"));
                (row, column) = (row + 1, column + 1);
            }
            (Some(wanted), have)
                if have.is_none() || at(&lengths, row + 1, column) >= at(&lengths, row, column + 1) =>
            {
                marked.push(format!("- {wanted}"));
                row += 1;
            }
            (_, Some(have)) => {
                marked.push(format!("+ {have}"));
                column += 1;
            }
            _ => return marked,
        }
    }
}

/// With the members of objects in alphabetical order, so that a difference of order is none.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            names.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(names.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        _ => value.clone(),
    }
}

fn shown(case: &Case, verdict: &Verdict) -> String {
    let mark = if verdict.faults.is_empty() { "ok  " } else { "FAIL" };
    let mut text = format!("{mark}  {}  ({})", printable(&case.name), time(verdict.took));
    if !verdict.faults.is_empty() {
        text.push_str(&format!("\n      in {}", case.file.display()));
        let output = verdict.output.lines().map(|line| format!("it wrote: {line}"));
        for line in verdict.faults.iter().cloned().chain(output) {
            text.push_str(&format!("\n      {}", printable(&line)));
        }
    }
    text
}

fn result(case: &Case, verdict: &Verdict) -> Value {
    json!({
        "file": case.file.display().to_string(),
        "name": case.name,
        "passed": verdict.faults.is_empty(),
        "micros": u64::try_from(verdict.took.as_micros()).unwrap_or(u64::MAX),
        "expected": case.expected,
        "actual": verdict.actual,
        "faults": verdict.faults,
        "output": verdict.output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_marked_and_the_rest_is_shown_around_it() {
        let expected = json!({ "assign": { "hub": "a", "payload": { "x": 1 } } });
        let actual = json!({ "assign": { "payload": { "x": 2 }, "hub": "a" } });
        assert_eq!(
            difference(&expected, &actual),
            [
                "  {",
                "    \"assign\": {",
                "      \"hub\": \"a\",",
                "      \"payload\": {",
                "-       \"x\": 1",
                "+       \"x\": 2",
                "      }",
                "    }",
                "  }"
            ]
        );
        assert!(difference(&json!(1), &json!(2)) == ["- 1", "+ 2"]);
    }

    #[test]
    fn only_a_hub_may_differ_in_case() {
        let assign = |hub: &str, id: &str| json!({ "assign": { "hub": hub, "deviceId": id } });
        assert!(same(&assign("HUB.example", "a"), &assign("hub.example", "a")));
        assert!(!same(&assign("hub.example", "A"), &assign("hub.example", "a")));
        assert!(!same(&json!({ "assign": { "hub": "h" } }), &assign("h", "a")));
        assert!(same(&json!({ "refuse": "x" }), &json!({ "refuse": "x" })));
    }
}
