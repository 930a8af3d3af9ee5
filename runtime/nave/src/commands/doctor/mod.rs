//! `nave doctor`: what would keep a hub from working well, and what to do about it.

mod checks;
mod disk;
mod network;

use clap::{ArgMatches, Args};
use serde_json::{Value, json};

use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::ready::Ready;

/// Look for what would keep a hub with this configuration from working well, and say what to do about it.
///
/// It takes the flags of `nave serve`. Nothing is changed: a file that is written to measure the disk is removed again.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave doctor
  nave doctor --config /etc/nave/nave.toml
  sudo -u nave nave doctor --data-dir /var/lib/nave      as the user that the hub runs as
  nave doctor -o json

Each line is one finding: `ok`, `warning` (works, but somebody should look at it) or `failed`
(the hub will not start, or clients will not accept it), with what to do about it.
Exit codes: 0 nothing failed, 1 something failed, 2 the configuration is wrong.")]
pub(crate) struct DoctorArgs {
    /// How the findings are printed.
    #[arg(long, short, env = "NAVE_OUTPUT", value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    config: ConfigArgs,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it; empty where nothing has to be done.
    remedy: String,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warning, found: found.into(), remedy: remedy.into() }
    }

    fn failed(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Failed, found: found.into(), remedy: remedy.into() }
    }

    fn json(&self) -> Value {
        json!({ "what": self.what, "verdict": self.verdict.as_str(), "found": self.found, "remedy": self.remedy })
    }

    fn line(&self) -> String {
        let line = format!("{:8} {:12} {}", self.verdict.as_str(), self.what, output::printable(&self.found));
        if self.remedy.is_empty() {
            line
        } else {
            format!("{line}\n         {:12} {}", "", output::printable(&self.remedy))
        }
    }
}

/// What the checks look at.
struct Patient {
    config: Config,
    /// The hub that runs with the data directory, if one does.
    running: Option<Ready>,
}

/// Runs the command; `given` are its matches.
pub(crate) fn run(args: &DoctorArgs, given: &ArgMatches) -> Result<(), Failure> {
    let (config, _) = args.config.load(given)?;
    let running = Ready::read(&config.data_dir).ok().filter(checks::is_alive);
    let patient = Patient { config, running };
    let mut findings = Vec::new();
    let mut add = |found: Vec<Finding>| {
        if args.output == Format::Table {
            // As they come: some checks take seconds.
            found.iter().try_for_each(|finding| output::line(&finding.line()))?;
        }
        findings.extend(found);
        Ok::<(), Failure>(())
    };
    add(checks::clock(&patient))?;
    add(checks::data_directory(&patient))?;
    add(disk::space(&patient))?;
    add(disk::sync_speed(&patient))?;
    add(checks::descriptors())?;
    add(network::ports(&patient))?;
    add(checks::certificate(&patient))?;
    add(network::names(&patient))?;
    add(checks::functions(&patient))?;
    if args.output == Format::Json {
        output::line(
            &serde_json::to_string_pretty(&findings.iter().map(Finding::json).collect::<Vec<_>>()).unwrap_or_default(),
        )?;
    }
    match findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count() {
        0 => Ok(()),
        count => Err(Failure::runtime(format_args!("{count} of {} checks failed", findings.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    pub(super) fn patient(data_dir: &std::path::Path) -> Patient {
        let overrides = Overrides {
            data_dir: Some(data_dir.to_owned()),
            mqtts: Some("127.0.0.1:0".into()),
            https: Some("127.0.0.1:0".into()),
            ..Overrides::default()
        };
        Patient { config: Config::load(None, overrides).unwrap(), running: None }
    }

    #[test]
    fn a_finding_that_is_not_fine_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let patient = patient(dir.path());
        let findings = [
            checks::clock(&patient),
            checks::data_directory(&patient),
            disk::space(&patient),
            disk::sync_speed(&patient),
            checks::descriptors(),
            network::ports(&patient),
            checks::certificate(&patient),
            checks::functions(&patient),
        ];
        for finding in findings.iter().flatten() {
            assert_eq!(finding.verdict == Verdict::Ok, finding.remedy.is_empty(), "{finding:?}");
            assert!(!finding.found.is_empty());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
