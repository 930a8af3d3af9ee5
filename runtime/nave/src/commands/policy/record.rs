//! `nave policy test --record`: cases from what devices really ask.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nave_hub::policy::{MAX_RECORDED, MAX_RECORDING_TIME};
use serde_json::{Value, json};

use crate::client::{Method, Target};
use crate::commands::input::segment;
use crate::failure::Failure;
use crate::files;

/// How often the hub is asked whether it is done.
const POLL: Duration = Duration::from_millis(500);

/// Files of recordings of one policy in a folder.
const MAX_FILES: u32 = 10_000;

/// What to record.
#[derive(Args)]
pub(super) struct RecordArgs {
    /// Record what the running hub asks a policy, as cases: into this file, or a new file in this folder.
    #[arg(id = "path", long = "record", value_name = "PATH", requires = "name")]
    path: Option<PathBuf>,
    /// The policy to record.
    #[arg(long, requires = "path")]
    name: Option<String>,
    /// Registrations to record.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, requires = "path", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RECORDED)))]
    count: u32,
    /// How long to wait for them, as 60s, 5m or 1h.
    #[arg(id = "time", long = "for", value_name = "TIME", default_value = "60s", requires = "path", value_parser = seconds)]
    time: u32,
}

/// Records, if that is wanted, and returns the file.
pub(super) fn record(args: &RecordArgs, target: &Target) -> Result<Option<PathBuf>, Failure> {
    let (Some(path), Some(name)) = (&args.path, &args.name) else { return Ok(None) };
    let file = free_file(path, name)?;
    let api = target.provisioning()?.dps_api()?;
    let at = format!("/allocationPolicies/{}/recording", segment(name));
    api.send(Method::Post, &at, &[], Some(&json!({ "count": args.count, "seconds": args.time })))?;
    eprintln!("recording what `{name}` is asked: up to {} registrations, for {} s at most", args.count, args.time);
    let recording = loop {
        std::thread::sleep(POLL);
        let recording = api.send(Method::Get, &at, &[], None)?.body;
        if recording.get("isRunning").and_then(Value::as_bool) != Some(true) {
            break recording;
        }
    };
    api.send(Method::Delete, &at, &[], None)?;
    let cases = recording.get("cases").and_then(Value::as_array).filter(|cases| !cases.is_empty());
    let cases = cases.ok_or_else(|| {
        Failure::runtime(format_args!("no device asked `{name}` in {} s: there is nothing to record", args.time))
    })?;
    if let Some(left_out) = recording.get("leftOut").and_then(Value::as_u64).filter(|count| *count > 0) {
        eprintln!("{left_out} more were too large together, and are left out");
    }
    let text = serde_json::to_string_pretty(&json!({ "cases": cases })).map_err(Failure::runtime)?;
    files::replace(&file, format!("{text}\n").as_bytes(), files::EVERYONE_READS)
        .map_err(|error| Failure::runtime(format_args!("{}: {error}", file.display())))?;
    eprintln!("{} cases in {}", cases.len(), file.display());
    Ok(Some(file))
}

/// A file that is not there yet: what somebody recorded and perhaps edited is not overwritten.
fn free_file(path: &Path, name: &str) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return if path.exists() {
            Err(Failure::usage(format_args!("{} is there already: name another file", path.display())))
        } else {
            Ok(path.to_owned())
        };
    }
    let name: String = name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect();
    let taken = fs::read_dir(path).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
    let taken: Vec<_> = taken.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let free =
        (1..=MAX_FILES).map(|number| format!("recorded-{name}-{number}.json")).find(|file| !taken.contains(file));
    let free = free.ok_or_else(|| Failure::usage(format_args!("{} is full of recordings", path.display())))?;
    Ok(path.join(free))
}

fn seconds(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        _ => return Err("write it as 60s, 5m or 1h".to_owned()),
    };
    let number: u32 = digits.parse().map_err(|_| "write it as 60s, 5m or 1h".to_owned())?;
    let most = MAX_RECORDING_TIME.as_secs();
    let seconds = number.saturating_mul(factor);
    if (1..=most).contains(&u64::from(seconds)) { Ok(seconds) } else { Err(format!("it is 1 to {most} seconds")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        assert_eq!(["60s", "5m", "1h", "7"].map(seconds), [Ok(60), Ok(300), Ok(3_600), Ok(7)]);
        for wrong in ["", "s", "0", "2h", "-1", "1d", "5mm", "4294967295h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let first = free_file(directory.path(), "by-site").unwrap();
        assert_eq!(first.file_name().unwrap(), "recorded-by-site-1.json");
        fs::write(&first, "").unwrap();
        assert_eq!(free_file(directory.path(), "by-site").unwrap().file_name().unwrap(), "recorded-by-site-2.json");
        assert!(matches!(free_file(&first, "x"), Err(Failure::Usage(_))));
        let new = directory.path().join("new.json");
        assert_eq!(free_file(&new, "x").unwrap(), new);
    }
}
