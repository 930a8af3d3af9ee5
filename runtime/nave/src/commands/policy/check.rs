//! `nave policy check`: what a component is, and whether a hub would take it.

use std::time::{Duration, Instant};

use clap::Args;
use nave_engine::allocation::Request;
use nave_engine::plugin::{CallReport, Policy, PolicyError};
use serde_json::{Map, Value, json};

use super::document::RequestDocument;
use super::sandbox::{self, Component, PolicyFile, Sandbox};
use crate::commands::input;
use crate::failure::Failure;
use crate::output::{self, Format, printable};

/// Calls that are measured. The typical one is shown: the first ones find nothing in the processor's caches, and one or the
/// other is disturbed.
const CALLS: usize = 21;

/// Say what a component is and whether a hub would take it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy check policy.wasm
  nave policy check policy.wasm --request '{\"payload\":{\"region\":\"europe\"}}'
  nave policy check policy.wasm --output json

The policy is called in the sandbox of a hub with the limits of a hub. Without --request it is asked for a device that
registers for the first time with a key of its own. A refusal is a good answer; a trap is not, and the exit code is 1.")]
pub(super) struct Check {
    #[command(flatten)]
    file: PolicyFile,
    /// The request, as in a case of `nave policy test`: an argument, @FILE, or - for standard input.
    #[arg(long, value_name = "JSON")]
    request: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Check, format: Format) -> Result<(), Failure> {
    let request = match &args.request {
        Some(text) => serde_json::from_value(input::json(text)?)
            .map_err(|error| Failure::usage(format_args!("--request: {error}")))?,
        None => RequestDocument::default(),
    };
    let request = request.request().map_err(|error| Failure::usage(format_args!("--request: {error}")))?;
    let component = args.file.read()?;
    let engines = Sandbox::start()?;
    let begun = Instant::now();
    let compiled = engines.compile(&component);
    let report = match &compiled {
        Ok(policy) => examine(&engines, policy, &request, begun.elapsed()),
        Err(error) => refused(&component, error),
    };
    match format {
        Format::Json => output::one(Format::Json, &report.json)?,
        Format::Table => output::line(&report.text())?,
    }
    match report.problems.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::runtime(format_args!("a hub would not run {} for this request", args.file.file.display())))
        }
    }
}

/// What is known about a component.
struct Report {
    json: Value,
    /// Heading and text of each line.
    lines: Vec<(&'static str, String)>,
    problems: Vec<String>,
}

impl Report {
    fn text(&self) -> String {
        let width = self.lines.iter().map(|(heading, _)| heading.len()).max().unwrap_or_default();
        let mut lines: Vec<String> = self
            .lines
            .iter()
            .map(|(heading, text)| format!("{heading:width$}  {text}").trim_end().to_owned())
            .collect();
        lines.push(String::new());
        if self.problems.is_empty() {
            lines.push("ok: a hub would take it".to_owned());
        }
        lines.extend(self.problems.iter().map(|problem| format!("PROBLEM: {}", printable(problem))));
        lines.join("\n")
    }
}

fn refused(component: &Component, error: &PolicyError) -> Report {
    Report {
        json: json!({ "ok": false, "bytes": component.bytes.len(), "problems": [error.to_string()] }),
        lines: vec![("size", bytes(component.bytes.len()))],
        problems: vec![error.to_string()],
    }
}

fn examine(engines: &Sandbox, policy: &Policy, request: &Request, compilation: Duration) -> Report {
    let mut problems = Vec::new();
    let (first, mut last_report) = sandbox::call(policy, request);
    let mut reports = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let (again, report) = policy.allocate(request);
        if sandbox::contradict(&first, &again) && problems.is_empty() {
            problems.push("two calls with the same request had different outcomes".to_owned());
        }
        last_report = report.clone();
        reports.push(report);
    }
    let answer = match &first {
        Ok(outcome) => {
            problems.extend(engines.objection(request, outcome));
            nave_hub::policy::outcome_json(outcome)
        }
        Err(error) => {
            problems.push(format!("the call {}", error.failure));
            json!({ "error": error.failure.kind() })
        }
    };
    let seen = Seen {
        compilation,
        instantiation: typical(&reports, |report| report.instantiation),
        call: typical(&reports, |report| report.call),
        memory: reports.iter().map(|report| report.memory_bytes).max().unwrap_or_default(),
        answer,
    };
    let mut report = describe(policy, &seen, &last_report);
    if let Value::Object(members) = &mut report.json {
        members.insert("ok".to_owned(), json!(problems.is_empty()));
        members.insert("problems".to_owned(), json!(problems));
    }
    report.problems = problems;
    report
}

/// What was measured.
struct Seen {
    compilation: Duration,
    instantiation: Duration,
    call: Duration,
    memory: usize,
    answer: Value,
}

fn describe(policy: &Policy, seen: &Seen, last: &CallReport) -> Report {
    let (inspection, limits) = (policy.inspect(), policy.limits());
    let world = if inspection.is_configurable { "configurable-policy" } else { "allocation-policy" };
    let imports: Vec<Value> = inspection
        .imports
        .iter()
        .map(|import| json!({ "name": import.name, "access": import.access.name() }))
        .collect();
    let schema =
        policy.configuration_schema().map(|schema| serde_json::from_str(schema).unwrap_or_else(|_| json!(schema)));
    let mut json = Map::from_iter([
        ("ok".to_owned(), json!(true)),
        ("bytes".to_owned(), json!(inspection.size)),
        ("sha256".to_owned(), json!(inspection.digest)),
        ("contract".to_owned(), json!(inspection.contract)),
        ("world".to_owned(), json!(world)),
        ("imports".to_owned(), json!(imports)),
        ("compilationMicros".to_owned(), json!(micros(seen.compilation))),
        ("instantiationMicros".to_owned(), json!(micros(seen.instantiation))),
        ("callMicros".to_owned(), json!(micros(seen.call))),
        ("memoryBytes".to_owned(), json!(seen.memory)),
        (
            "limits".to_owned(),
            json!({
                "deadlineMillis": limits.deadline.as_millis().to_string().parse::<u64>().unwrap_or(u64::MAX),
                "memoryBytes": limits.memory_bytes,
            }),
        ),
        ("outcome".to_owned(), seen.answer.clone()),
        ("output".to_owned(), json!(last.output)),
    ]);
    json.extend(schema.clone().map(|schema| ("configurationSchema".to_owned(), schema)));
    let mut lines = vec![
        ("size", bytes(inspection.size)),
        ("sha256", inspection.digest.clone()),
        ("interface", format!("nave:allocation@{}, world {world}", inspection.contract)),
    ];
    lines.extend(schema.map(|schema| ("configuration", printable(&schema.to_string()))));
    match inspection.imports.len() {
        0 => lines.push(("imports", "nothing".to_owned())),
        count => {
            lines.push(("imports", format!("{count} interfaces; a hub grants none of them:")));
            let row =
                |import: &nave_engine::plugin::Import| ("", format!("{:10}{}", import.access.name(), import.name));
            lines.extend(inspection.imports.iter().map(row));
        }
    }
    lines.extend([
        ("compilation", time(seen.compilation)),
        ("instantiation", time(seen.instantiation)),
        (
            "call",
            format!(
                "{} ({} in all; limit {})",
                time(seen.call),
                time(seen.instantiation + seen.call),
                time(limits.deadline)
            ),
        ),
        ("memory", format!("{} (limit {})", bytes(seen.memory), bytes(limits.memory_bytes))),
        ("outcome", printable(&seen.answer.to_string())),
    ]);
    lines.extend(last.output.lines().map(|line| ("output", printable(line))));
    lines.extend(last.backtrace.iter().map(|frame| ("at", printable(frame))));
    Report { json: Value::Object(json), lines, problems: Vec::new() }
}

/// The middle one.
fn typical(reports: &[CallReport], of: impl Fn(&CallReport) -> Duration) -> Duration {
    let mut times: Vec<Duration> = reports.iter().map(of).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time for people.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

/// A size for people.
fn bytes(count: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let kibibytes = count as f64 / 1024.0;
    if kibibytes < 1024.0 { format!("{kibibytes:.1} KiB") } else { format!("{:.1} MiB", kibibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_typical_time_is_the_middle_one() {
        let report = |micros| CallReport { call: Duration::from_micros(micros), ..CallReport::default() };
        let reports = [report(900), report(10), report(20)];
        assert_eq!(typical(&reports, |report| report.call), Duration::from_micros(20));
        assert_eq!(typical(&[], |report| report.call), Duration::ZERO);
    }

    #[test]
    fn times_and_sizes_have_a_fitting_unit() {
        assert_eq!(time(Duration::from_nanos(12_400)), "12 µs");
        assert_eq!(time(Duration::from_micros(1_250)), "1.2 ms");
        assert_eq!(time(Duration::from_millis(4_100)), "4.1 s");
        assert_eq!(bytes(65_100), "63.6 KiB");
        assert_eq!(bytes(12 << 20), "12.0 MiB");
    }
}
